"""The wheel holds what the package needs, and runs from nothing else."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from kdsweep import __version__

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "constraints.txt")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is made from it, as `python -m build` does.

    They are built from a copy, because a build leaves files behind, and without a network.
    """
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    for name in ("kdsweep", "search_spaces", "sweeps"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in SOURCES:
        shutil.copy(ROOT / name, copy)
    sdist = "from setuptools import build_meta as b; import sys; b.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", sdist, folder], check=True, cwd=copy)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    wheel = "from setuptools import build_meta as b; import sys; b.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", wheel, folder], check=True, cwd=source)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, which sees the packages of this one but not its kdsweep.

    A folder that a .pth file names is searched for packages, but its own .pth files, one of which
    leads to the checkout, are not read.
    """
    root = tmp_path_factory.mktemp("fresh") / "it's an environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True)
    python = root / "bin" / "python"
    where = "import site; print(site.getsitepackages()[0])"
    packages = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True)
    seen = Path(packages.stdout.strip()) / "tested_packages.pth"
    seen.write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    # Else pip finds the version of this environment and says that nothing is to be done.
    options = ["--no-deps", "--no-index", "--force-reinstall", "--ignore-installed"]
    subprocess.run([*pip, *options, wheel], check=True)
    return root


def run_in(
    environment: Path, folder: Path, *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    """A program of the environment, run in `folder` as a user there would run it."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    program, *rest = map(str, arguments)
    return subprocess.run(
        [str(environment / "bin" / program), *rest],
        cwd=folder,
        env=kept | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_holds_every_file_of_the_package_the_shipped_files_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    package = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "kdsweep").rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }
    shipped = {
        f"kdsweep/shipped/{folder}/{file.name}"
        for folder in ("search_spaces", "sweeps")
        for file in (ROOT / folder).glob("*.yaml")
    }
    assert {name for name in names if name.startswith("kdsweep/")} == package | shipped
    assert len(package) > 100
    assert len(shipped) > 20
    assert not [name for name in names if name.startswith("tests")]


def test_installed_it_runs_a_shipped_sweep_from_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    where = run_in(installed, tmp_path, "python", "-c", "import kdsweep; print(kdsweep.__file__)")
    assert where.stdout.startswith(str(installed)), where.stderr
    assert __version__ in run_in(installed, tmp_path, "kdsweep", "--version").stdout

    sets = [
        "task.limit={train: 64, validation: 32, test: 32}",
        "training.evaluations_per_epoch=1",
        "strategies.distill=",
        "strategies.combined=",
        "strategies.distill_then_finetune=",
        "trials=1",
        "confirm={seeds: 0}",
    ]
    options = [part for one in sets for part in ("--set", one)]
    command = ["run", "sst2", "--sweep", "quick", "--embedded", "--json", *options]
    done = run_in(installed, tmp_path, "kdsweep", *command)
    assert done.returncode == 0, done.stderr
    assert "finetune" in json.loads(done.stdout)["strategies"]
    report = tmp_path / "runs" / "sweeps" / "sst2-embedded-quick" / "report.html"
    assert "<html" in report.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["runs"]

    copied = run_in(installed, tmp_path, "kdsweep", "init", "--example", "sst2")
    assert copied.returncode == 0, copied.stderr
    assert (tmp_path / "sst2.yaml").is_file()
