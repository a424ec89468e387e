"""A home that can't be used is one line, before any data is read. One that goes ends its sweep."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from sweep_processes import PLAIN, Sweep

from kdsweep.cli import main
from kdsweep.sweep.folders import Home

SPACE = str(Path(__file__).parents[2] / "search_spaces" / "sst2.yaml")


def line_of(home: Path, *arguments: str) -> str:
    """The only line that the command prints, once it has failed."""
    done = CliRunner().invoke(main, [*arguments, "--home", str(home)])
    assert done.exit_code == 1, done.output
    lines = done.output.splitlines()
    assert len(lines) == 1, done.output
    return lines[0]


def test_a_home_that_is_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "runs"
    file.write_text("notes")
    for home in (file, file / "deeper"):
        for arguments in (("run", SPACE, "--embedded"), ("status", "x"), ("compare", "x")):
            expected = f"error: home: {file} is a file, not a folder; choose another home"
            assert line_of(home, *arguments).startswith(expected)
    assert file.read_text() == "notes"


def test_what_can_not_be_written_is_named(
    tmp_path: Path, only_readable: Callable[[Path], None]
) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    only_readable(folder)
    run = ("run", SPACE, "--embedded")
    assert line_of(folder / "home", *run).startswith(f"error: home: you may not write to {folder};")
    for used_by in ("storage", "tracking"):
        home = Home(tmp_path / used_by)
        database = home.optuna_db if used_by == "storage" else home.mlflow_db
        home.root.mkdir()
        database.write_bytes(b"")
        only_readable(database)
        line = line_of(home.root, *run)
        assert line.startswith(f"error: home: you may not write to {database};")
        # A sweep that has its own isn't refused for it.
        own = {"storage": "sqlite", "tracking": "sqlite"} | {used_by: "http://127.0.0.1:9"}
        home.check_writable(own["storage"], own["tracking"])


@pytest.mark.parametrize(
    "what",
    ["home", pytest.param("sweep", marks=pytest.mark.slow)],
)
def test_a_sweep_ends_once_its_home_is_gone_and_makes_no_new_one(
    what: str, tmp_path: Path, sweep: Callable[..., Sweep]
) -> None:
    home = tmp_path / "home"
    driver = sweep(home, *PLAIN, "trials=200", "engine={type: inline}")
    assert driver.wait_for(lambda: driver.evaluations() > 2)
    gone = home if what == "home" else Home(home).sweep("tiny").root
    # Renaming takes no time in which something is written; removing does.
    gone.rename(tmp_path / "moved")
    status, _, errors = driver.end(60)
    assert status == 1
    assert errors.splitlines()[-1].startswith(f"error: {gone} was removed or renamed while")
    assert "Traceback" not in errors
    assert not gone.exists()
    shutil.rmtree(tmp_path / "moved")
