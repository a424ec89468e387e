"""A Ray cluster that was there before the sweep, and a machine of it that isn't like the driver's: for real, in namespaces of Linux."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweep_processes import ON_RAY, PLAIN, assert_same_sweep

from kdsweep.config.sweep import RayEngine
from kdsweep.errors import KdsweepError
from kdsweep.sweep import run
from kdsweep.sweep.engines.process_reaper import MARK, members
from kdsweep.sweep.engines.ray_session import TRIES_TO_JOIN, Session
from kdsweep.sweep.folders import Home

FEW = (*PLAIN, "trials=2", "strategies.combined=", "budget={patience: 5}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """A head without CPUs; machines join it. `place`: short, as sockets want it."""

    def __init__(self, place: Path) -> None:
        self.place, self.port, self.client_port = place, free_port(), free_port()
        self.nodes: list[tuple[str, subprocess.Popen[bytes]]] = []
        token = place / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        ports = [
            "--port",
            str(self.port),
            "--ray-client-server-port",
            str(self.client_port),
            "--node-ip-address",
            "127.0.0.1",
        ]
        self.start(
            "head",
            [],
            "--head",
            *ports,
            "--include-dashboard",
            "false",
            "--num-cpus",
            "0",
            "--temp-dir",
            str(place),
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def join(self, name: str, within: list[str] | None = None, cpus: int = 2) -> None:
        agent = [
            "--dashboard-agent-listen-port",
            str(free_port()),
            "--min-worker-port",
            "0",
            "--max-worker-port",
            "0",
        ]
        self.start(name, within or [], "--address", self.address, "--num-cpus", str(cpus), *agent)

    def start(self, name: str, within: list[str], *options: str) -> None:
        command = [
            *within,
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            *options,
            "--num-gpus",
            "0",
            "--block",
            "--disable-usage-stats",
        ]
        log = self.place / f"{name}.log"
        mark = str(self.place / name)
        with log.open("wb") as file:
            node = subprocess.Popen(
                command,
                stdout=file,
                stderr=file,
                env=os.environ | self.environment | {MARK: mark},
                start_new_session=True,
            )
        self.nodes.append((mark, node))
        until = time.monotonic() + 180
        while "--block" not in log.read_text():  # what Ray says once all of it runs
            assert node.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)

    def leave(self) -> None:
        """Let the machine that joined last go."""
        mark, node = self.nodes.pop()
        for process in members(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        node.wait(120)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    place = Path(tempfile.mkdtemp(prefix="ray-"))
    made = None
    try:
        made = Cluster(place)
        yield made
    finally:
        while made and made.nodes:
            made.leave()
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def known(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster, to this process as to its user: by its token, and as the one that `auto` finds."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    return cluster


def engine(address: str, more: str = "") -> str:
    return f"engine={{type: ray, address: '{address}', gpus_per_trial: 0, cpus_per_trial: 1{more}}}"


def test_the_trials_of_a_cluster_that_is_there_are_those_of_one_that_is_begun_here(
    space: Path, tmp_path: Path, known: Cluster
) -> None:
    local = Home(tmp_path / "local")
    run(space, home=local.root, assignments=(*FEW, ON_RAY))
    known.join("machine")
    try:
        for name, address in (
            ("address", known.address),
            ("client", f"ray://127.0.0.1:{known.client_port}"),
        ):
            home = Home(tmp_path / name)
            assert (
                run(space, home=home.root, assignments=(*FEW, engine(address)))["state"] == "done"
            )
            assert_same_sweep(home, local)
    finally:
        known.leave()


def test_auto_is_the_cluster_that_the_environment_names(tmp_path: Path, known: Cluster) -> None:
    session = Session(Home(tmp_path).sweep("sweep"), RayEngine(type="ray", address="auto"))
    session.open()
    try:
        assert session.ray.get_runtime_context().gcs_address.endswith(f":{known.port}")
    finally:
        session.close()


# What a user behind ray:// gets when the process that the cluster began for them has died at its start, as Ray 2.60 words it.
DIED_AT_ITS_START = """Initialization failure from server:
Traceback (most recent call last):
  File "ray/util/client/server/proxier.py", line 396, in start_specific_server
    cmd = psutil_proc.cmdline()
psutil.ZombieProcess: PID still exists but it's a zombie (pid=30031)
"""


@pytest.mark.parametrize("failures", [1, TRIES_TO_JOIN])
def test_a_server_behind_ray_client_that_dies_at_its_start_is_asked_for_again(
    failures: int, tmp_path: Path, known: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    init, left = ray.init, [failures]

    def dying(**options: object) -> object:
        left[0] -= 1
        if left[0] >= 0:
            raise ConnectionAbortedError(DIED_AT_ITS_START)
        return init(**options)

    monkeypatch.setattr(ray, "init", dying)
    folder = Home(tmp_path).sweep("sweep")
    session = Session(folder, RayEngine(type="ray", address=f"ray://127.0.0.1:{known.client_port}"))
    if failures < TRIES_TO_JOIN:
        session.open()
        try:
            assert session.ray.cluster_resources()
        finally:
            session.close()
    else:
        with pytest.raises(
            KdsweepError,
            match="can't be used: Initialization failure from server: psutil.ZombieProcess: PID still exists but it's a zombie",
        ):
            session.open()
    assert folder.ray_log.read_text().count(
        "asked again, since: Initialization failure from server"
    ) == min(failures, TRIES_TO_JOIN - 1)


def far(*commands: str) -> list[str]:
    """Words before a command that let it run on a machine of another name, after these commands as root."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip(
            "another machine needs root and unshare: apt-get install util-linux, and run as root"
        )
    within = [
        "unshare",
        "--mount",
        "--uts",
        "bash",
        "-c",
        " && ".join(["hostname far", *commands, 'exec "$0" "$@"']),
    ]
    if subprocess.run([*within, "true"], capture_output=True).returncode != 0:
        pytest.skip("another machine can't be made here: CAP_SYS_ADMIN is needed")
    return within


@pytest.mark.parametrize(
    ("another_home", "rule"),
    [
        (
            True,
            r"home: a worker on far doesn't see .* as it is here; put home \(--home, KDSWEEP_HOME\)",
        ),
        (False, r"tracking: sqlite is for one machine.*far"),
    ],
    ids=["home is another folder there", "tracking is a file"],
)
def test_a_machine_that_can_not_do_its_part_is_refused_by_name(
    another_home: bool, rule: str, space: Path, tmp_path: Path, known: Cluster
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    known.join(
        "far", far(*([f"mount -t tmpfs none {shlex.quote(str(home))}"] if another_home else []))
    )
    try:
        with pytest.raises(KdsweepError, match=rule):
            run(space, home=home, assignments=(*FEW, engine(known.address)))
    finally:
        known.leave()


def test_a_cluster_asks_for_its_token(
    space: Path, tmp_path: Path, known: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    (wrong := tmp_path / "token").write_text(secrets.token_hex(32))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(wrong))
    with pytest.raises(KdsweepError, match=f"engine: Ray at {known.address} can't be used: "):
        run(space, home=tmp_path, assignments=(*FEW, engine(known.address)))
