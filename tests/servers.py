"""Databases and servers for tests, for real: PostgreSQL and MLflow, which go away and come back."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from sweep_processes import PLAIN

from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.sweep.observer import Observer

# A sweep of six trials, three for each of two strategies.
SIX = (
    *PLAIN,
    "engine={type: inline}",
    "trials=3",
    "strategies.combined=",
    "training.epochs=3",
    "training.evaluations_per_epoch=3",
    "keep={students: 1}",
)
# Another test process may have its own on a command line just when this one looks at all of them.
PASSWORD = f"p@ss-w0rd-{os.getpid()}"
QUOTED_PASSWORD = f"p%40ss-w0rd-{os.getpid()}"


class Lines(Observer):
    """Keeps the lines that a sweep says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="session")
def six_trials(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The home of the sweep `SIX`, which nothing disturbed."""
    home = tmp_path_factory.mktemp("six-trials")
    run(space, home=home, assignments=SIX)
    return Home(home)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """PostgreSQL on 127.0.0.1 with user `kd`.

    It refuses to run as root; then it runs as the system's user `postgres`.
    """

    def __init__(self, root: Path, binaries: Path) -> None:
        self.root = root
        self.binaries = binaries
        self.data = root / "data"
        self.port = free_port()
        password = root / "password"
        password.write_text(PASSWORD)
        self.as_owner: list[str] = []
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            user, group = owner.pw_uid, owner.pw_gid
            self.as_owner = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
            for path in (root, password):
                os.chown(path, user, group)
        access = ["-U", "kd", "--pwfile", password, "-A", "scram-sha-256"]
        encoding = ["-E", "UTF8", "--locale=C"]
        self._run("initdb", "-D", self.data, *access, *encoding, "--no-sync")
        self.start()

    def _run(self, name: str, *arguments: object) -> None:
        command = [*self.as_owner, str(self.binaries / name), *map(str, arguments)]
        # The server would keep a pipe open, so its output goes to a file.
        with (self.root / f"{name}.log").open("ab") as log:
            subprocess.run(
                command,
                check=True,
                cwd=self.root,
                env=os.environ | {"PGPASSWORD": PASSWORD},
                stdout=log,
                stderr=log,
            )

    @property
    def _access(self) -> list[object]:
        return ["-h", "127.0.0.1", "-p", self.port, "-U", "kd"]

    def start(self) -> None:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.root,
            "fsync": "off",
        }
        words = " ".join(f"-c {name}={value}" for name, value in options.items())
        self._run("pg_ctl", "-D", self.data, "-w", "-l", self.root / "log", "-o", words, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self.data, "-w", "-m", "immediate", "stop")

    def database(
        self, name: str, *, driver: str = "postgresql", password: str = QUOTED_PASSWORD
    ) -> str:
        """The URL of a new, empty database."""
        self._run("createdb", *self._access, name)
        return f"{driver}://kd:{password}@127.0.0.1:{self.port}/{name}"

    def sqlalchemy_url(self, name: str) -> str:
        return f"postgresql+psycopg://kd:{QUOTED_PASSWORD}@127.0.0.1:{self.port}/{name}"

    def dump(self, name: str) -> str:
        """Everything in a database, as text."""
        file = self.root / "dump.sql"
        self._run("pg_dump", *self._access, "-f", file, name)
        return file.read_text()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    binaries = _postgres_binaries()
    # Only the owner may enter pytest's folders, and a socket's path must be short.
    root = Path(tempfile.mkdtemp(prefix="pg-"))
    server = None
    try:
        server = Postgres(root, binaries)
        yield server
    finally:
        if server is not None:
            with contextlib.suppress(subprocess.CalledProcessError):
                server.stop()
        shutil.rmtree(root)


def _postgres_binaries() -> Path:
    """The folder with `initdb`. Skips the test where PostgreSQL can't run."""
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found = sorted(versions, key=lambda file: int(file.parts[-3]))
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
                "root can't start PostgreSQL without a user postgres: apt-get install postgresql"
            )
    return (found[-1] if found else Path(str(on_path))).parent


class MlflowServer:
    """`mlflow server` on 127.0.0.1, in a separate session."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {
            "--host": "127.0.0.1",
            "--port": self.port,
            "--workers": 1,
            "--backend-store-uri": f"sqlite:///{self.root}/server.db",
            "--artifacts-destination": (self.root / "artifacts").as_uri(),
        }
        command = [sys.executable, "-m", "mlflow", "server"]
        for option, value in options.items():
            command += [option, str(value)]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | quiet, start_new_session=True
            )
        until = time.monotonic() + 180
        while not self._answers():
            assert self.process.poll() is None, (self.root / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    one = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    one.start()
    yield one
    with contextlib.suppress(ProcessLookupError):
        one.kill()


@pytest.fixture
def server(running_server: MlflowServer) -> MlflowServer:
    """A server without sweeps. It takes ten seconds to start, so the tests of a file share it."""
    assert running_server.process is not None
    if running_server.process.poll() is not None:
        running_server.start()
    client = MlflowClient(tracking_uri=running_server.uri, registry_uri=running_server.uri)
    if (earlier := client.get_experiment_by_name("tiny")) is not None:
        client.rename_experiment(earlier.experiment_id, f"tiny-{earlier.experiment_id}")
        client.delete_registered_model("tiny")
    return running_server
