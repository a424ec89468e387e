"""A disk that is full: one line, and with room again the same command gives the same numbers."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import SIX, Lines
from sweep_processes import assert_same_sweep

from kdsweep.errors import KdsweepError
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.sweep.tracking_sync import TrackingSync


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk: run as root")
    disk = tmp_path / "small disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        why = mounted.stderr.strip()
        pytest.skip(f"a small disk can't be mounted here (needs CAP_SYS_ADMIN): {why}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


class FillsDisk(Lines):
    """Fills the disk when trial `name` has done `step` steps."""

    def __init__(self, disk: Path, name: str, step: int) -> None:
        super().__init__()
        self.filler = disk / "filler"
        self.moment = (name, step)

    def step(self, name: str, step: int, total_steps: int) -> None:
        if (name, step) != self.moment:
            return
        # The write-ahead log of a database may have room left: empty it first.
        for database in self.filler.parent.glob("*.db"):
            with contextlib.closing(sqlite3.connect(database)) as connection:
                assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        with contextlib.suppress(OSError), self.filler.open("wb", buffering=0) as file:
            for size in (2**20, 4096):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)):
                        pass


# Of a trial: 187 rows in batches of 16, three epochs, each evaluated after every fourth step.
STEPS = 36


@pytest.mark.parametrize(
    ("step", "on_disk"),
    [
        pytest.param(13, "home", id="a checkpoint"),
        pytest.param(STEPS, "home", id="a student", marks=pytest.mark.slow),
        pytest.param(STEPS, "optuna.db", id="the end of a trial", marks=pytest.mark.slow),
        pytest.param(13, "optuna.db", id="an evaluation", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_is_one_line_and_the_same_command_resumes_once_there_is_room(
    step: int,
    on_disk: str,
    space: Path,
    tmp_path: Path,
    small_disk: Path,
    six_trials: Home,
    capfd: pytest.CaptureFixture[str],
) -> None:
    home = Home(small_disk / "home" if on_disk == "home" else tmp_path / "home")
    database = small_disk / "optuna.db" if on_disk == "optuna.db" else home.optuna_db
    storage = f"sqlite:///{database}"
    observer = FillsDisk(small_disk, "distill-1", step)
    started = time.monotonic()
    with pytest.raises(KdsweepError) as raised:
        run(space, home=home.root, assignments=(*SIX, f"storage={storage}"), observer=observer)
    assert raised.value.exit_status == 1
    assert not capfd.readouterr().err
    message = str(raised.value)
    print(message, time.monotonic() - started, *observer.lines[-6:], sep="\n")
    assert str(small_disk) in message
    assert "No space left on device" in message or "the disk is full" in message
    assert "run the same command again" in message
    assert time.monotonic() - started < 120
    assert shutil.disk_usage(small_disk).free < 2**20
    observer.filler.unlink()
    assert run(space, home=home.root, assignments=(*SIX, f"storage={storage}")).state == "done"
    assert_same_sweep(home, six_trials, storage=storage)


@pytest.mark.slow
def test_a_sweep_ends_with_mlflows_disk_full_and_is_sent_later(
    space: Path,
    tmp_path: Path,
    small_disk: Path,
    six_trials: Home,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds_of_patience = 3.0
    monkeypatch.setattr(TrackingSync.close, "__defaults__", (seconds_of_patience,))
    tracking = f"sqlite:///{small_disk}/mlflow.db"
    observer = FillsDisk(small_disk, "distill-1", 13)
    assignments = (*SIX, f"tracking={tracking}")
    assert run(space, home=tmp_path, assignments=assignments, observer=observer).state == "done"
    assert any("database or disk is full" in line for line in observer.lines)
    observer.filler.unlink()
    assert run(space, home=tmp_path, assignments=assignments).state == "done"
    assert_same_sweep(Home(tmp_path), six_trials, tracking)
