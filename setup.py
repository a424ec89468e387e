"""Adds the shipped spaces and sweeps to a wheel. Everything else is in pyproject.toml.

They stand beside the package, where people look for them, and setuptools alone takes only what is
in a package.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# What `kdsweep/shipped_files.py` looks for.
SHIPPED = ("search_spaces", "sweeps")


class BuildWithShippedFiles(build_py):
    def run(self) -> None:
        super().run()
        # An editable installation reads them where they are.
        if self.editable_mode:
            return
        for folder in SHIPPED:
            files = sorted((ROOT / folder).glob("*.yaml"))
            if not files:
                raise FileNotFoundError(f"{ROOT / folder} holds no YAML file to ship")
            target = Path(self.build_lib) / "kdsweep" / "shipped" / folder
            self.mkpath(str(target))
            for file in files:
                self.copy_file(str(file), str(target / file.name))


setup(cmdclass={"build_py": BuildWithShippedFiles})
