"""A Ray cluster that was there before the sweep, for real.

A machine that differs from the driver's is a namespace of Linux.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import others_slow
from servers import free_port
from sweep_processes import INLINE, PLAIN, Sweep, assert_same_sweep

import kdsweep
from kdsweep.config.sweep import RayEngine
from kdsweep.errors import KdsweepError
from kdsweep.sweep import run
from kdsweep.sweep.engines.process_reaper import SESSION_VARIABLE, session_processes
from kdsweep.sweep.engines.ray_session import CONNECTION_ATTEMPTS, RaySession
from kdsweep.sweep.folders import Home
from kdsweep.sweep.observer import Observer

PACKAGE = Path(kdsweep.__file__).parent
FEW = (*PLAIN, "trials=2", "strategies.combined=", "budget={patience: 5}")


class Cluster:
    """A head without CPUs, and the machines that joined it. root: short, for the sockets' paths."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        self.client_port = free_port()
        self.nodes: list[tuple[str, subprocess.Popen[bytes]]] = []
        token = root / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        options = {
            "--port": self.port,
            "--ray-client-server-port": self.client_port,
            "--node-ip-address": "127.0.0.1",
            "--include-dashboard": "false",
            "--num-cpus": 0,
            "--temp-dir": root,
        }
        self.start("head", [], "--head", *words(options))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def join(
        self, name: str, within: list[str] | None = None, cpus: int = 2, packages: str = ""
    ) -> None:
        """packages: a folder with packages that this machine has instead of ours."""
        options = {
            "--address": self.address,
            "--num-cpus": cpus,
            "--dashboard-agent-listen-port": free_port(),
            "--min-worker-port": 0,
            "--max-worker-port": 0,
        }
        self.start(name, within or [], *words(options), packages=packages)

    def start(self, name: str, within: list[str], *options: str, packages: str = "") -> None:
        command = [*within, sys.executable, "-m", "ray.scripts.scripts", "start", *options]
        command += ["--num-gpus", "0", "--block", "--disable-usage-stats"]
        log = self.root / f"{name}.log"
        session = str(self.root / name)
        paths = [path for path in (packages, os.environ.get("PYTHONPATH", "")) if path]
        python_path = {"PYTHONPATH": os.pathsep.join(paths)}
        with log.open("wb") as file:
            node = subprocess.Popen(
                command,
                stdout=file,
                stderr=file,
                env=os.environ | self.environment | {SESSION_VARIABLE: session} | python_path,
                start_new_session=True,
            )
        self.nodes.append((session, node))
        until = time.monotonic() + 180
        # Ray prints this once all of it runs.
        while "--block" not in log.read_text():
            assert node.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)

    def leave(self) -> None:
        """Let the machine that joined last go."""
        session, node = self.nodes.pop()
        for process in session_processes(session):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        node.wait(120)


def words(options: dict[str, object]) -> list[str]:
    return [str(word) for option in options.items() for word in option]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    root = Path(tempfile.mkdtemp(prefix="ray-"))
    cluster = None
    try:
        cluster = Cluster(root)
        yield cluster
    finally:
        while cluster and cluster.nodes:
            cluster.leave()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def known(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster with its token in our environment, and as the one that `auto` finds."""
    from ray._raylet import AuthenticationTokenLoader, Config

    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    # Ray has read the environment in this process, when a test was imported.
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
    return cluster


def engine(address: str, more: str = "") -> str:
    return f"engine={{type: ray, address: '{address}', gpus_per_trial: 0, cpus_per_trial: 1{more}}}"


@pytest.fixture(scope="module")
def local(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The home of the same sweep without Ray."""
    home = Home(tmp_path_factory.mktemp("local"))
    run(space, home=home.root, assignments=(*FEW, INLINE))
    return home


@pytest.mark.parametrize("by", others_slow(["address", "client"]))
def test_a_cluster_that_exists_gives_the_trials_of_a_sweep_without_ray(
    by: str, space: Path, local: Home, tmp_path: Path, known: Cluster
) -> None:
    address = known.address if by == "address" else f"ray://127.0.0.1:{known.client_port}"
    known.join("machine")
    try:
        report = run(space, home=tmp_path, assignments=(*FEW, engine(address)))
    finally:
        known.leave()
    assert report.state == "done"
    assert_same_sweep(Home(tmp_path), local)


@pytest.mark.slow
def test_auto_is_the_cluster_that_the_environment_names(tmp_path: Path, known: Cluster) -> None:
    session = RaySession(Home(tmp_path).sweep("sweep"), RayEngine(type="ray", address="auto"))
    session.open()
    try:
        assert session.ray.get_runtime_context().gcs_address.endswith(f":{known.port}")
    finally:
        session.close()


# What Ray 2.60 says behind ray:// when the process that the cluster started for us has died.
SERVER_DIED = """Initialization failure from server:
Traceback (most recent call last):
  File "ray/util/client/server/proxier.py", line 396, in start_specific_server
    cmd = psutil_proc.cmdline()
psutil.ZombieProcess: PID still exists but it's a zombie (pid=30031)
"""


def connected(init: Callable[..., object], options: dict[str, object]) -> object:
    """What `init` returns. On a busy machine Ray's own server may die, too; that isn't counted."""
    for _ in range(CONNECTION_ATTEMPTS - 1):
        try:
            return init(**options)
        except ConnectionAbortedError:
            continue
    return init(**options)


@pytest.mark.slow
@pytest.mark.parametrize("failures", [1, CONNECTION_ATTEMPTS])
def test_a_server_behind_ray_client_that_dies_at_its_start_is_requested_again(
    failures: int, tmp_path: Path, known: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    init, left = ray.init, [failures]

    def dying(**options: object) -> object:
        left[0] -= 1
        if left[0] >= 0:
            raise ConnectionAbortedError(SERVER_DIED)
        return connected(init, options)

    monkeypatch.setattr(ray, "init", dying)
    folder = Home(tmp_path).sweep("sweep")
    config = RayEngine(type="ray", address=f"ray://127.0.0.1:{known.client_port}")
    session = RaySession(folder, config)
    if failures < CONNECTION_ATTEMPTS:
        session.open()
        try:
            assert session.ray.cluster_resources()
        finally:
            session.close()
    else:
        with pytest.raises(KdsweepError) as raised:
            session.open()
        assert (
            "can't be used: Initialization failure from server: psutil.ZombieProcess: "
            "PID still exists but it's a zombie"
        ) in str(raised.value)
    retried = f"trying again after: {SERVER_DIED.splitlines()[0]}"
    expected = min(failures, CONNECTION_ATTEMPTS - 1)
    assert folder.ray_log.read_text().count(retried) == expected


def far(*commands: str) -> list[str]:
    """The start of a command line that runs the rest on a machine named `far`.

    commands: run there before, as root.
    """
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip(
            "another machine needs root and unshare: apt-get install util-linux, and run as root"
        )
    script = " && ".join(["hostname far", *commands, 'exec "$0" "$@"'])
    within = ["unshare", "--mount", "--uts", "bash", "-c", script]
    if subprocess.run([*within, "true"], capture_output=True).returncode != 0:
        pytest.skip("another machine can't be made here: CAP_SYS_ADMIN is needed")
    return within


@pytest.mark.slow
@pytest.mark.parametrize(
    ("another_home", "rule"),
    [
        (True, r"home: a worker on far can't read .*; put home \(--home, KDSWEEP_HOME\)"),
        (False, r"tracking: sqlite works on one machine only.*far"),
    ],
    ids=["home is another folder there", "tracking is a file"],
)
def test_a_machine_that_can_not_do_its_part_is_refused_by_name(
    another_home: bool, rule: str, space: Path, tmp_path: Path, known: Cluster
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    hide_home = [f"mount -t tmpfs none {shlex.quote(str(home))}"] if another_home else []
    known.join("far", far(*hide_home))
    try:
        with pytest.raises(KdsweepError, match=rule):
            run(space, home=home, assignments=(*FEW, engine(known.address)))
    finally:
        known.leave()


@pytest.mark.slow
def test_a_cluster_asks_for_its_token(
    space: Path, tmp_path: Path, known: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    (wrong := tmp_path / "token").write_text(secrets.token_hex(32))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(wrong))
    with pytest.raises(KdsweepError, match=f"engine: Ray at {known.address} can't be used: "):
        run(space, home=tmp_path, assignments=(*FEW, engine(known.address)))


@pytest.mark.slow
@pytest.mark.parametrize("by", ["address", "client"])
def test_a_cluster_that_hangs_ends_the_sweep_with_one_line(
    by: str, tmp_path: Path, known: Cluster, sweep: Callable[..., Sweep]
) -> None:
    address = known.address if by == "address" else f"ray://127.0.0.1:{known.client_port}"
    [gcs] = [
        process
        for process in session_processes(str(known.root / "head"))
        if b"/gcs/gcs_server\0" in Path(f"/proc/{process}/cmdline").read_bytes()
    ]
    known.join("machine", cpus=1)
    one = sweep(tmp_path, *FEW, engine(address))
    try:
        assert one.wait_for(lambda: one.evaluations() > 0), one.end()
        os.kill(gcs, signal.SIGSTOP)
        status, _, errors = one.end(seconds=120)
    finally:
        os.kill(gcs, signal.SIGCONT)
        known.leave()
    assert status == 1
    assert errors.count("\n") == 1
    assert "run the same command again to resume" in errors


# --- machines with other packages ---


class Lines(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def other_transformers(folder: Path) -> str:
    """A folder that gives a machine transformers 5.0.1."""
    facts = folder / "transformers-5.0.1.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 5.0.1\n")
    return str(folder)


def other_kdsweep(folder: Path) -> str:
    """A folder that gives a machine another commit of kdsweep, in which a driver's question to a
    worker has another name."""
    shutil.copytree(PACKAGE, folder / "kdsweep", ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "kdsweep" / "sweep" / "engines" / "worker.py"
    file.write_text(file.read_text().replace("def hello(", "def who_are_you("))
    return str(folder)


@pytest.mark.slow
def test_machines_with_other_packages_are_named_and_the_others_do_all_trials(
    space: Path, local: Home, tmp_path: Path, known: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ray lets workers import from the folder that the driver runs in, if they see it.
    monkeypatch.chdir(tmp_path)
    sweep = (*FEW, engine(known.address))
    known.join("other-transformers", packages=other_transformers(tmp_path / "a"))
    try:
        rule = "engine: .* has transformers 5.0.1, and the sweep uses .*pip install transformers=="
        with pytest.raises(KdsweepError, match=rule):
            run(space, home=tmp_path / "home", assignments=sweep)
        known.join("other-kdsweep", packages=other_kdsweep(tmp_path / "b"))
        known.join("same", cpus=1)
        lines = Lines()
        report = run(space, home=tmp_path / "home", assignments=sweep, observer=lines)
    finally:
        while len(known.nodes) > 1:
            known.leave()
    assert report.state == "done"
    assert_same_sweep(Home(tmp_path / "home"), local)
    refused = [line for line in lines.lines if "can't be used" in line]
    assert len(refused) == 2, lines.lines
    assert sum("it has transformers 5.0.1" in line for line in refused) == 1
    assert sum("has other code than the sweep's" in line for line in refused) == 1
    assert not [line for line in lines.lines if line.startswith("slot 2")]
