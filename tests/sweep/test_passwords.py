"""The password of a storage or tracking URL is shown nowhere, and kept in one private file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from servers import PASSWORD, QUOTED_PASSWORD, SIX, MlflowServer, Postgres, free_port
from sweep_processes import Sweep, runs_of

from kdsweep.cli import main
from kdsweep.errors import KdsweepError, without_password
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home

Start = Callable[..., Sweep]
MLFLOW_PASSWORD = f"w0rd-of-mlflow-{os.getpid()}"
PASSWORDS = (PASSWORD, QUOTED_PASSWORD, MLFLOW_PASSWORD)
ONE_STRATEGY = ("--set", "strategies.combined=", "--set", "strategies.distill=")


def has_password(text: str) -> bool:
    return any(password in text for password in PASSWORDS)


def files_with_password(folder: Path) -> list[Path]:
    return [
        file
        for file in folder.rglob("*")
        if file.is_file() and any(password.encode() in file.read_bytes() for password in PASSWORDS)
    ]


@dataclass(frozen=True)
class Ended:
    """A kdsweep command that has ended."""

    status: int
    output: str
    errors: str


def kdsweep(*arguments: str, home: Path, seconds: float = 180) -> Ended:
    command = [sys.executable, "-m", "kdsweep", *arguments, "--home", str(home)]
    one = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    return Ended(one.returncode, one.stdout, one.stderr)


@contextlib.contextmanager
def watching_command_lines() -> Iterator[set[str]]:
    """The command lines with a password among all processes of this machine, while inside."""
    found: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    command = file.read_text(errors="replace")
                    if has_password(command):
                        found.add(command)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def write_sweep(file: Path, storage: str, tracking: str) -> str:
    """A sweep file, so that its passwords are on no command line."""
    lines = [
        "trials: 2",
        "sampler: {type: random}",
        "pruner: {type: none}",
        "engine: {type: inline}",
        "keep: {students: 1}",
        "confirm: {seeds: 0}",
        f"storage: {json.dumps(storage)}",
        f"tracking: {json.dumps(tracking)}",
    ]
    file.write_text("".join(f"{line}\n" for line in lines))
    return str(file)


def assert_nowhere(ended: Ended, home: Path) -> None:
    """No password is shown, and only secrets.json has one, which only its owner can read."""
    assert not has_password(ended.output + ended.errors), ended
    for file in files_with_password(home):
        assert file == Home(home).sweep("tiny").secrets
        assert file.stat().st_mode & 0o777 == 0o600


def test_passwords_are_shown_nowhere_and_kept_in_one_private_file(
    space: Path, tmp_path: Path, postgres: Postgres, server: MlflowServer
) -> None:
    home = tmp_path / "home"
    storage = postgres.database("private")
    tracking = f"http://somebody:{MLFLOW_PASSWORD}@127.0.0.1:{server.port}"
    file = write_sweep(tmp_path / "sweep.yaml", storage, tracking)
    arguments = ("run", str(space), "--sweep", file, *ONE_STRATEGY)
    with watching_command_lines() as seen:
        for command in (arguments, ("ui", "tiny", "--no-open")):
            ended = kdsweep(*command, home=home)
            assert ended.status == 0, ended
            assert_nowhere(ended, home)
        for command in (("status", "tiny"), ("compare", "tiny", "--json")):
            shown = CliRunner().invoke(main, [*command, "--home", str(home)])
            assert_nowhere(Ended(shown.exit_code, shown.stdout, shown.stderr), home)
            assert shown.exit_code == 0
            assert shown.stdout
    assert not seen
    assert Home(home).sweep("tiny").secrets.exists()
    runs = runs_of(Home(home), server.uri)
    assert len(runs) == 3
    assert not any(has_password(str(one.to_dictionary())) for one in runs)
    assert not has_password(postgres.dump("private"))
    assert not files_with_password(server.root)


@pytest.mark.slow
def test_a_password_on_the_command_line_is_hidden_from_the_list_of_processes(
    tmp_path: Path, server: MlflowServer, sweep: Start
) -> None:
    tracking = f"tracking=http://somebody:{MLFLOW_PASSWORD}@127.0.0.1:{server.port}"
    one = sweep(tmp_path, *SIX, "trials=1", tracking)
    assert one.wait_for(lambda: (tmp_path / "sweeps" / "tiny" / "sweep.json").exists()), one.end()
    with watching_command_lines() as seen:
        words = Path(f"/proc/{one.process.pid}/cmdline").read_text().split("\0")
        assert f"tracking=http://somebody:***@127.0.0.1:{server.port}" in words
        status, output, errors = one.end()
    assert not seen
    assert_nowhere(Ended(status, output, errors), tmp_path)
    assert (status, len(runs_of(Home(tmp_path), server.uri))) == (0, 4)


@pytest.mark.slow
def test_a_wrong_password_or_a_server_that_is_away_is_one_line_without_the_password(
    space: Path, tmp_path: Path, postgres: Postgres, capfd: pytest.CaptureFixture[str]
) -> None:
    nowhere = str(free_port())
    storage = postgres.database("refused")
    tracking = storage.replace("postgresql:", "postgresql+psycopg:")
    wrong = (QUOTED_PASSWORD, f"not-{QUOTED_PASSWORD}")
    away = (str(postgres.port), nowhere)
    refused = 'password authentication failed for user "kd"'
    mlflow = f"http://somebody:{MLFLOW_PASSWORD}@127.0.0.1:{nowhere}"
    for number, (storage_url, tracking_uri, reason) in enumerate(
        [
            (storage.replace(*wrong), "sqlite", refused),
            (storage.replace(*away), "sqlite", "onnection refused"),
            (storage, mlflow, "doesn't answer"),
            (storage, tracking.replace(*wrong), refused),
            (storage, tracking.replace(*away), "onnection refused"),
        ]
    ):
        home = tmp_path / str(number)
        started = time.monotonic()
        with pytest.raises(KdsweepError) as raised:
            run(space, write_sweep(tmp_path / "sweep.yaml", storage_url, tracking_uri), home=home)
        assert time.monotonic() - started < 60
        assert reason in str(raised.value)
        assert "***@127.0.0.1" in str(raised.value)
        assert_nowhere(Ended(1, str(raised.value), "".join(capfd.readouterr())), home)


@pytest.mark.parametrize("password", ["se/cr:et", "%2Fsecret%40", "secret"])
def test_no_password_is_left_in_a_line(password: str) -> None:
    for url in (
        f"postgresql://kd:{password}@host:5432/db",
        f"https://:{password}@host/path",
        f"postgresql://host/db?user=kd&password={password}",
    ):
        assert password not in without_password(f"storage: {url} can't be opened")
        assert without_password(without_password(url)) == without_password(url)
    without = "http://127.0.0.1:5000 and sqlite:////home/a.db"
    assert without_password(without) == without


@pytest.mark.slow
def test_the_ui_of_a_database_hides_its_password_from_other_users(
    space: Path, tmp_path: Path, postgres: Postgres
) -> None:
    home = tmp_path / "home"
    postgres.database("tracked")
    file = write_sweep(tmp_path / "sweep.yaml", "sqlite", postgres.sqlalchemy_url("tracked"))
    with watching_command_lines() as seen:
        ended = kdsweep("run", str(space), "--sweep", file, *ONE_STRATEGY, home=home)
        assert ended.status == 0, ended
        assert_nowhere(ended, home)
        assert_nowhere(show_ui(home, tmp_path), home)
    assert not seen
    # The student is in home, not where the command was run.
    assert list((home / "artifacts").rglob("model.safetensors"))


def show_ui(home: Path, folder: Path) -> Ended:
    """Start `kdsweep ui` in the folder, and stop it once it serves."""
    command = [sys.executable, "-m", "kdsweep", "ui", "tiny", "--no-open", "--home", str(home)]
    output = folder / "ui"
    with output.open("w+") as shown:
        process = subprocess.Popen(
            command, stdout=shown, stderr=shown, start_new_session=True, cwd=folder
        )
        try:
            until = time.monotonic() + 180
            while "press Ctrl-C to stop" not in (text := output.read_text()):
                assert process.poll() is None, text
                assert time.monotonic() < until
                time.sleep(0.1)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(120)
    return Ended(process.returncode, output.read_text(), "")
