"""The wheel holds what the package needs, and runs from nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kdsweep import __version__

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unpacked wheel, built from a copy: a build leaves files behind."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(
        ROOT / "kdsweep",
        folder / "source" / "kdsweep",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    subprocess.run([*pip, str(folder / "source")], check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_it_holds_every_file_of_the_package_and_no_tests(unpacked: Path) -> None:
    def files(root: Path) -> set[str]:
        found = (file for file in (root / "kdsweep").rglob("*") if file.is_file())
        return {str(file.relative_to(root)) for file in found if file.suffix != ".pyc"}

    assert files(unpacked) == files(ROOT)
    assert len(files(unpacked)) > 100
    assert not (unpacked / "tests").exists()


def test_the_command_line_runs_from_it_alone(unpacked: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    command = [sys.executable, "-m", "kdsweep", "--version"]
    told = subprocess.run(
        command, check=True, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert __version__ in told.stdout
    where = [sys.executable, "-c", "import kdsweep; print(kdsweep.__file__)"]
    imported = subprocess.run(
        where, check=True, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert imported.stdout.startswith(str(unpacked))
