"""PostgreSQL and an MLflow server, for real, that go away and come back; passwords; a disk that is full; two drivers."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from sweep_processes import PLAIN, Sweep, assert_same_sweep, metrics_of, runs_of

from kdsweep.cli import main
from kdsweep.errors import KdsweepError, SweepLocked, without_password
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.sweep.observer import Observer
from kdsweep.sweep.results import report as report_of
from kdsweep.sweep.status import status as status_of
from kdsweep.sweep.tracking_sync import Mirror

Start = Callable[..., Sweep]
SIX = (
    *PLAIN,
    "engine={type: inline}",
    "trials=3",
    "strategies.combined=",
    "training.epochs=3",
    "training.evaluations_per_epoch=3",
    "keep={students: 1}",
)
PASSWORD = "p@ss-w0rd"
QUOTED = "p%40ss-w0rd"


@pytest.fixture(scope="module")
def undisturbed(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = tmp_path_factory.mktemp("undisturbed")
    run(space, home=home, assignments=SIX)
    return Home(home)


class Said(Observer):
    """Keeps what was said."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def say(self, line: str) -> None:
        self.lines.append(line)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- a private PostgreSQL --------------------------------------------------------------------------------------------


class Postgres:
    """PostgreSQL on 127.0.0.1 with user `kd`; as the system's user `postgres` where we are root, which it refuses to run as."""

    def __init__(self, root: Path, binaries: Path) -> None:
        self.root, self.binaries, self.data, self.port = root, binaries, root / "data", free_port()
        password = root / "password"
        password.write_text(PASSWORD)
        self.as_owner: list[str] = []
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            self.as_owner = [
                "setpriv",
                f"--reuid={owner.pw_uid}",
                f"--regid={owner.pw_gid}",
                "--clear-groups",
            ]
            for path in (root, password):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        self._run(
            "initdb",
            "-D",
            self.data,
            "-U",
            "kd",
            "--pwfile",
            password,
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        )
        self.start()

    def _run(self, name: str, *arguments: object) -> None:
        command = [*self.as_owner, str(self.binaries / name), *map(str, arguments)]
        with (self.root / f"{name}.log").open(
            "ab"
        ) as log:  # no pipe: the server would hold it open
            subprocess.run(
                command,
                check=True,
                cwd=self.root,
                env=os.environ | {"PGPASSWORD": PASSWORD},
                stdout=log,
                stderr=log,
            )

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.root} -c fsync=off"
        self._run("pg_ctl", "-D", self.data, "-w", "-l", self.root / "log", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self.data, "-w", "-m", "immediate", "stop")

    def database(self, name: str, *, driver: str = "postgresql", password: str = QUOTED) -> str:
        """The URL of a new, empty database."""
        self._run("createdb", "-h", "127.0.0.1", "-p", self.port, "-U", "kd", name)
        return f"{driver}://kd:{password}@127.0.0.1:{self.port}/{name}"

    def sqlalchemy_url(self, name: str) -> str:
        return f"postgresql+psycopg://kd:{QUOTED}@127.0.0.1:{self.port}/{name}"

    def dump(self, name: str) -> str:
        """Everything in a database, as text."""
        self._run(
            "pg_dump",
            "-h",
            "127.0.0.1",
            "-p",
            self.port,
            "-U",
            "kd",
            "-f",
            self.root / "dump.sql",
            name,
        )
        return (self.root / "dump.sql").read_text()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3])
    )
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        pytest.skip("PostgreSQL isn't installed: apt-get install postgresql")
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root can't start PostgreSQL without setpriv: apt-get install util-linux")
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip(
                "root can't start PostgreSQL, and there is no user postgres: apt-get install postgresql"
            )
    import tempfile

    root = Path(
        tempfile.mkdtemp(prefix="pg-")
    )  # not pytest's: only its owner may enter that; and a socket's path must be short
    server = None
    try:
        server = Postgres(root, (found[-1] if found else Path(str(on_path))).parent)
        yield server
    finally:
        if server is not None:
            with contextlib.suppress(subprocess.CalledProcessError):
                server.stop()
        shutil.rmtree(root)


def test_a_sweep_on_postgresql_asks_for_the_same_trials_as_one_on_sqlite(
    space: Path, tmp_path: Path, postgres: Postgres, undisturbed: Home
) -> None:
    url = postgres.database("whole")
    report = run(space, home=tmp_path, assignments=(*SIX, f"storage={url}")).to_json()
    assert not (tmp_path / "optuna.db").exists()
    assert_same_sweep(Home(tmp_path), undisturbed, storage=url)
    assert status_of(Home(tmp_path), "tiny").state == "done"  # with the password of secrets.json
    assert report_of(Home(tmp_path), "tiny").to_json() | {"state": "done"} == report
    again: list[str] = []
    assert (
        run(
            space, home=tmp_path, assignments=(*SIX, f"storage={url}"), observer=Said(again)
        ).to_json()
        == report
    )
    assert again == ["tiny: all trials are done; nothing to run"]


def test_a_sweep_waits_for_postgresql_that_went_away_and_loses_nothing(
    tmp_path: Path, postgres: Postgres, sweep: Start, undisturbed: Home
) -> None:
    url = postgres.database("away")
    one = sweep(tmp_path, *SIX, f"storage={url}")
    assert one.wait_for(lambda: one.evaluations() >= 12), one.end()
    postgres.stop()
    try:
        time.sleep(5)
        assert one.process.poll() is None
        before = one.evaluations()
        assert before < 30  # it waits
    finally:
        postgres.start()
    status, output, errors = one.end()
    assert status == 0, errors
    assert (
        output.count(
            f"storage: postgresql://kd:***@127.0.0.1:{postgres.port}/away doesn't answer ("
        )
        == 1
    )
    assert_same_sweep(Home(tmp_path), undisturbed, storage=url)


def test_kill_9_while_postgresql_is_away_and_the_same_command_loses_nothing(
    space: Path, tmp_path: Path, postgres: Postgres, sweep: Start, undisturbed: Home
) -> None:
    url = postgres.database("killed")
    one = sweep(tmp_path, *SIX, f"storage={url}")
    assert one.wait_for(lambda: one.evaluations() >= 20), one.end()
    postgres.stop()
    try:
        time.sleep(2)
        one.kill()
        began = time.monotonic()
        for command in (
            lambda: run(space, home=tmp_path, assignments=(*SIX, f"storage={url}")),
            lambda: status_of(Home(tmp_path), "tiny"),
        ):
            with pytest.raises(
                KdsweepError
            ) as raised:  # nothing begins, or goes on, without its database
                command()
            assert str(raised.value).startswith(
                f"storage: postgresql://kd:***@127.0.0.1:{postgres.port}/killed can't be opened"
            )
        assert time.monotonic() - began < 60
    finally:
        postgres.start()
    assert run(space, home=tmp_path, assignments=(*SIX, f"storage={url}")).state == "done"
    assert_same_sweep(Home(tmp_path), undisturbed, storage=url)


# --- an MLflow server ------------------------------------------------------------------------------------------------


class Mlflow:
    """`mlflow server` on 127.0.0.1, in a session of its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--workers",
            "1",
        ]
        command += [
            "--backend-store-uri",
            f"sqlite:///{self.root}/server.db",
            "--artifacts-destination",
            (self.root / "artifacts").as_uri(),
        ]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | quiet, start_new_session=True
            )
        until = time.monotonic() + 180
        while True:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{self.uri}/health", timeout=2),
            ):
                return
            assert self.process.poll() is None, (self.root / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.1)

    def kill(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    one = Mlflow(tmp_path_factory.mktemp("mlflow"))
    one.start()
    yield one
    with contextlib.suppress(ProcessLookupError):
        one.kill()


@pytest.fixture
def server(running_server: Mlflow) -> Mlflow:
    """One that answers and knows of no sweep. It takes ten seconds to start, so the tests share it."""
    assert running_server.process is not None
    if running_server.process.poll() is not None:
        running_server.start()
    client = MlflowClient(tracking_uri=running_server.uri, registry_uri=running_server.uri)
    if (earlier := client.get_experiment_by_name("tiny")) is not None:
        client.rename_experiment(earlier.experiment_id, f"tiny-{earlier.experiment_id}")
        client.delete_registered_model("tiny")
    return running_server


def assert_whole(home: Home, undisturbed: Home, uri: str, folder: Path) -> None:
    """MLflow has all of the sweep, each thing once: numbers, the kept students and none else, the best one registered."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    assert_same_sweep(home, undisturbed, uri)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    expected = {one.info.run_name: one for one in runs_of(undisturbed)}
    for one in runs_of(home, uri):
        other = expected[one.info.run_name]
        assert one.data.params == other.data.params
        assert one.data.tags.keys() - {"kdsweep.attempts"} == other.data.tags.keys()
        assert one.data.tags["mlflow.user"] == other.data.tags["mlflow.user"]
        assert one.data.metrics.keys() == other.data.metrics.keys()
        for name in one.data.metrics:
            history, before = (
                client.get_metric_history(one.info.run_id, name),
                client_of(undisturbed).get_metric_history(other.info.run_id, name),
            )
            assert (
                len({(point.step, point.timestamp) for point in history})
                == len(history)
                == len(before)
            ), (one.info.run_name, name)
        has_student = [
            entry.path
            for entry in client.list_artifacts(one.info.run_id)
            if entry.path == "student"
        ]
        assert bool(has_student) == (one.data.tags.get("kdsweep.student") == "kept"), (
            one.info.run_name
        )
        if has_student:
            student = download_artifacts(
                run_id=one.info.run_id,
                artifact_path="student",
                dst_path=str(folder / one.info.run_name),
                tracking_uri=uri,
            )
            assert (
                AutoModelForSequenceClassification.from_pretrained(student).config.num_labels == 2
            )
            assert AutoTokenizer.from_pretrained(student)("a fine film")["input_ids"]
    kept = [
        name for name, one in expected.items() if one.data.tags.get("kdsweep.student") == "kept"
    ]
    assert len(kept) == 2
    best = client.get_model_version_by_alias("tiny", "best")
    assert [version.version for version in client.search_model_versions("name = 'tiny'")] == [
        best.version
    ]
    assert client.get_run(best.run_id).info.run_name in kept
    assert not list(home.sweep("tiny").trials.glob("*/student"))


def client_of(home: Home) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{home.mlflow_db}")


def test_a_server_that_is_killed_and_comes_back_has_everything_once_in_the_end(
    tmp_path: Path, server: Mlflow, sweep: Start, undisturbed: Home
) -> None:
    one = sweep(tmp_path / "home", *SIX, f"tracking={server.uri}")
    assert one.wait_for(lambda: one.evaluations() >= 8), one.end()
    server.kill()
    time.sleep(3)
    server.start()
    status, output, errors = one.end()
    assert status == 0, errors
    assert "registered model tiny: version 1" in output, output
    assert not (tmp_path / "home" / "mlflow.db").exists()
    assert_whole(Home(tmp_path / "home"), undisturbed, server.uri, tmp_path)


def test_a_server_that_stays_away_costs_no_trial_and_the_same_command_sends_all_of_it(
    space: Path,
    tmp_path: Path,
    server: Mlflow,
    sweep: Start,
    undisturbed: Home,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = Home(tmp_path / "home")
    one = sweep(home.root, *SIX, f"tracking={server.uri}")
    assert one.wait_for(lambda: one.evaluations() >= 12), one.end()
    server.kill()
    status, output, errors = one.end()
    assert status == 0, errors
    assert output.count(f"tracking: MLflow at {server.uri} doesn't answer") == 1
    assert (
        f"tracking: MLflow at {server.uri} is away; what it should know is kept, and sent by the next `kdsweep run`"
        in output
    )
    assert metrics_of(home) == metrics_of(undisturbed)
    assert "the best trial of each strategy" in output
    server.start()
    monkeypatch.setattr(
        "kdsweep.sweep.driver.open_engine",
        lambda *arguments: pytest.fail("nothing is left to train"),
    )
    assert run(space, home=home.root, assignments=(*SIX, f"tracking={server.uri}")).state == "done"
    assert_whole(home, undisturbed, server.uri, tmp_path)


def test_a_server_that_is_not_there_when_a_sweep_begins_is_an_error_and_nothing_is_trained(
    tmp_path: Path, sweep: Start
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    status, output, errors = sweep(tmp_path, *SIX, f"tracking={uri}").end(180)
    assert (status, output) == (1, "")
    assert errors.startswith(f"error: tracking: MLflow at {uri} doesn't answer: ")
    assert errors.count("\n") == 1
    assert not (tmp_path / "cache" / "teachers").exists()
    assert not (tmp_path / "sweeps" / "tiny" / "trials").exists()


# --- passwords -------------------------------------------------------------------------------------------------------

WORDS = (PASSWORD, QUOTED, "w0rd-of-mlflow")


@dataclass(frozen=True)
class Ended:
    """A kdsweep command that is over."""

    status: int
    output: str
    errors: str


def kdsweep(*arguments: str, home: Path, seconds: float = 180) -> Ended:
    command = [sys.executable, "-m", "kdsweep", *arguments, "--home", str(home)]
    one = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    return Ended(one.returncode, one.stdout, one.stderr)


@contextlib.contextmanager
def watching_command_lines() -> Iterator[set[str]]:
    """All command lines of this machine's processes meanwhile that have one of the words."""
    found: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    if any(word in (text := file.read_text(errors="replace")) for word in WORDS):
                        found.add(text)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def write_sweep(file: Path, storage: str, tracking: str) -> str:
    """A sweep file: what is written there is on no command line."""
    lines = [
        "trials: 2",
        "sampler: {type: random}",
        "pruner: {type: none}",
        "engine: {type: inline}",
        "keep: {students: 1}",
        "confirm: {seeds: 0}",
    ]
    file.write_text(
        "\n".join([*lines, f"storage: {json.dumps(storage)}", f"tracking: {json.dumps(tracking)}"])
        + "\n"
    )
    return str(file)


def assert_nowhere(ended: Ended, home: Path) -> None:
    """None of the words is shown or kept, but in secrets.json, which only its owner can read."""
    assert not any(word in ended.output + ended.errors for word in WORDS), ended
    for file in home.rglob("*"):
        if file.is_file() and any(word.encode() in file.read_bytes() for word in WORDS):
            assert file == Home(home).sweep("tiny").secrets
            assert file.stat().st_mode & 0o777 == 0o600


def test_passwords_are_shown_nowhere_and_kept_in_one_private_file(
    space: Path, tmp_path: Path, postgres: Postgres, server: Mlflow
) -> None:
    home = tmp_path / "home"
    storage = postgres.database("private")
    tracking = f"http://somebody:{WORDS[2]}@127.0.0.1:{server.port}"
    file = write_sweep(tmp_path / "sweep.yaml", storage, tracking)
    arguments = (
        "run",
        str(space),
        "--sweep",
        file,
        "--set",
        "strategies.combined=",
        "--set",
        "strategies.distill=",
    )
    with watching_command_lines() as seen:
        for command in (arguments, ("ui", "tiny", "--no-open")):
            ended = kdsweep(*command, home=home)
            assert ended.status == 0, ended
            assert_nowhere(ended, home)
        for command in (("status", "tiny"), ("compare", "tiny", "--json")):
            told = CliRunner().invoke(main, [*command, "--home", str(home)])
            assert_nowhere(Ended(told.exit_code, told.stdout, told.stderr), home)
            assert told.exit_code == 0 and told.stdout
    assert not seen
    assert Home(home).sweep("tiny").secrets.exists()
    assert len(runs_of(Home(home), server.uri)) == 3
    assert not any(
        word in str(one.to_dictionary())
        for one in runs_of(Home(home), server.uri)
        for word in WORDS
    )
    assert not any(word in postgres.dump("private") for word in WORDS)
    assert not any(
        word.encode() in file.read_bytes()
        for file in server.root.rglob("*")
        if file.is_file()
        for word in WORDS
    )


def test_a_password_on_the_command_line_is_not_seen_in_the_list_of_processes(
    tmp_path: Path, server: Mlflow, sweep: Start
) -> None:
    one = sweep(
        tmp_path, *SIX, "trials=1", f"tracking=http://somebody:{WORDS[2]}@127.0.0.1:{server.port}"
    )
    assert one.wait_for(lambda: (tmp_path / "sweeps" / "tiny" / "sweep.json").exists()), one.end()
    with watching_command_lines() as seen:
        assert f"tracking=http://somebody:***@127.0.0.1:{server.port}" in Path(
            f"/proc/{one.process.pid}/cmdline"
        ).read_text().split("\0")
        status, output, errors = one.end()
    assert not seen
    assert_nowhere(Ended(status, output, errors), tmp_path)
    assert (status, len(runs_of(Home(tmp_path), server.uri))) == (0, 4)


def test_a_password_that_is_wrong_or_a_server_that_is_away_is_one_line_without_the_password(
    space: Path, tmp_path: Path, postgres: Postgres, capfd: pytest.CaptureFixture[str]
) -> None:
    storage, nowhere = postgres.database("refused"), free_port()
    tracking = storage.replace("postgresql:", "postgresql+psycopg:")
    for number, (storage_url, tracking_uri, reason) in enumerate(
        [
            (
                storage.replace(QUOTED, f"not-{QUOTED}"),
                "sqlite",
                'password authentication failed for user "kd"',
            ),
            (storage.replace(str(postgres.port), str(nowhere)), "sqlite", "onnection refused"),
            (storage, f"http://somebody:{WORDS[2]}@127.0.0.1:{nowhere}", "doesn't answer"),
            (
                storage,
                tracking.replace(QUOTED, f"not-{QUOTED}"),
                'password authentication failed for user "kd"',
            ),
            (storage, tracking.replace(str(postgres.port), str(nowhere)), "onnection refused"),
        ]
    ):
        home, began = tmp_path / str(number), time.monotonic()
        with pytest.raises(KdsweepError) as raised:
            run(space, write_sweep(tmp_path / "sweep.yaml", storage_url, tracking_uri), home=home)
        assert time.monotonic() - began < 60
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
    assert (
        without_password("http://127.0.0.1:5000 and sqlite:////home/a.db")
        == "http://127.0.0.1:5000 and sqlite:////home/a.db"
    )


def test_the_ui_of_a_database_with_a_password_does_not_show_it_to_other_users(
    space: Path, tmp_path: Path, postgres: Postgres
) -> None:
    home = tmp_path / "home"
    postgres.database("tracked")
    file = write_sweep(tmp_path / "sweep.yaml", "sqlite", postgres.sqlalchemy_url("tracked"))
    with watching_command_lines() as seen:
        ended = kdsweep(
            "run",
            str(space),
            "--sweep",
            file,
            "--set",
            "strategies.combined=",
            "--set",
            "strategies.distill=",
            home=home,
        )
        assert ended.status == 0, ended
        assert_nowhere(ended, home)
        command = [sys.executable, "-m", "kdsweep", "ui", "tiny", "--no-open", "--home", str(home)]
        with (tmp_path / "ui").open("w+") as shown:
            process = subprocess.Popen(
                command, stdout=shown, stderr=shown, start_new_session=True, cwd=tmp_path
            )
            try:
                until = time.monotonic() + 180
                while "Ctrl-C ends it" not in (text := (tmp_path / "ui").read_text()):
                    assert process.poll() is None, text
                    assert time.monotonic() < until
                    time.sleep(0.1)
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(120)
        assert_nowhere(Ended(process.returncode, (tmp_path / "ui").read_text(), ""), home)
    assert not seen
    assert list(
        (home / "artifacts").rglob("model.safetensors")
    )  # the student lies in home, not where the command was run


# --- a disk that is full ---------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk: run as root")
    place = tmp_path / "small disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        pytest.skip(
            f"a small disk can't be mounted here (CAP_SYS_ADMIN is needed): {mounted.stderr.strip()}"
        )
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


class Filling(Observer):
    """Fills the disk when trial `name` has done `step` steps."""

    def __init__(self, disk: Path, name: str, step: int) -> None:
        self.filler, self.moment, self.lines = disk / "filler", (name, step), list[str]()

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, name: str, step: int, total_steps: int) -> None:
        if (name, step) == self.moment:
            for database in self.filler.parent.glob("*.db"):
                with contextlib.closing(
                    sqlite3.connect(database)
                ) as connection:  # what was written ahead leaves no room to write in
                    assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
            with contextlib.suppress(OSError), self.filler.open("wb", buffering=0) as file:
                for size in (2**20, 4096):
                    with contextlib.suppress(OSError):
                        while file.write(bytes(size)):
                            pass


STEPS = 36  # of a trial: 187 rows in batches of 16, three epochs, each evaluated after every fourth step


@pytest.mark.parametrize(
    ("step", "on_it"),
    [(13, "home"), (STEPS, "home"), (STEPS, "optuna.db"), (13, "optuna.db")],
    ids=["a checkpoint", "a student", "the end of a trial", "an evaluation"],
)
def test_a_full_disk_is_one_line_and_with_room_the_same_command_ends_with_the_same_numbers(
    step: int,
    on_it: str,
    space: Path,
    tmp_path: Path,
    small_disk: Path,
    undisturbed: Home,
    capfd: pytest.CaptureFixture[str],
) -> None:
    home = Home(small_disk / "home" if on_it == "home" else tmp_path / "home")
    storage = (
        f"sqlite:///{small_disk}/optuna.db"
        if on_it == "optuna.db"
        else f"sqlite:///{home.optuna_db}"
    )
    filling, began = Filling(small_disk, "distill-1", step), time.monotonic()
    with pytest.raises(KdsweepError) as raised:
        run(space, home=home.root, assignments=(*SIX, f"storage={storage}"), observer=filling)
    assert raised.value.exit_status == 1
    assert not capfd.readouterr().err
    print(raised.value, time.monotonic() - began, *filling.lines[-6:], sep="\n")
    assert str(small_disk) in str(raised.value)
    assert "No space left on device" in str(raised.value) or "the disk is full" in str(raised.value)
    assert "run the same command again" in str(raised.value)
    assert time.monotonic() - began < 120
    assert shutil.disk_usage(small_disk).free < 2**20
    filling.filler.unlink()
    assert run(space, home=home.root, assignments=(*SIX, f"storage={storage}")).state == "done"
    assert_same_sweep(home, undisturbed, storage=storage)


def test_a_sweep_ends_though_the_disk_of_mlflows_database_is_full_and_is_sent_later(
    space: Path,
    tmp_path: Path,
    small_disk: Path,
    undisturbed: Home,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Mirror.close, "__defaults__", (3.0,))  # seconds of patience
    tracking = f"sqlite:///{small_disk}/mlflow.db"
    filling = Filling(small_disk, "distill-1", 13)
    assert (
        run(
            space, home=tmp_path, assignments=(*SIX, f"tracking={tracking}"), observer=filling
        ).to_json()["state"]
        == "done"
    )
    assert any("database or disk is full" in line for line in filling.lines)
    filling.filler.unlink()
    assert run(space, home=tmp_path, assignments=(*SIX, f"tracking={tracking}")).state == "done"
    assert_same_sweep(Home(tmp_path), undisturbed, tracking)


# --- two drivers -----------------------------------------------------------------------------------------------------


def test_the_lock_of_a_killed_driver_is_no_obstacle_and_that_of_a_living_one_names_it(
    tmp_path: Path,
) -> None:
    folder = Home(tmp_path).sweep("tiny")
    holder = "import sys, time; from kdsweep.sweep.folders import Home\nwith Home(sys.argv[1]).sweep('tiny').locked(): print('locked', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with (
            pytest.raises(SweepLocked, match=f"process {process.pid} on {socket.gethostname()}"),
            folder.locked(),
        ):
            pass
        process.kill()
    assert str(process.pid) in folder.lock_file.read_text()
    with folder.locked():
        assert json.loads(folder.lock_file.read_text())["pid"] == os.getpid()
