"""A part of Ray that dies or hangs ends no sweep that can go on, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from sweep_processes import INLINE, ON_RAY, PLAIN, Sweep, assert_same_sweep, processes_of, runs_of

from kdsweep.sweep import run
from kdsweep.sweep.engines.process_reaper import SESSION_VARIABLE
from kdsweep.sweep.engines.ray_daemons import DAEMONS, Daemons
from kdsweep.sweep.engines.session_folder import make_session, ray_folder, session_folder
from kdsweep.sweep.folders import Home

# In the kernel's table of connections.
LISTENING = "0A"
FEW = (*PLAIN, "trials=2", "strategies.combined=", "training.epochs=8")
ON_THIS_MACHINE = (*FEW, ON_RAY)
AS_A_HEAD = (*FEW, "engine={type: ray, address: head, listen: 127.0.0.1, cpus_per_trial: 1}")


def daemon(home: Path, name: str) -> int | None:
    """The process of this part of Ray, once it runs."""
    for process in processes_of(home):
        try:
            command = Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:
            continue
        words = [word.strip() for word in command.split(b"\0")[:3]]
        if any(word.endswith(DAEMONS[name]) for word in words):
            return process
    return None


def signal_to(sweep: Sweep, name: str, number: signal.Signals) -> None:
    """Send it as soon as this part of Ray is there."""
    assert sweep.wait_for(lambda: daemon(sweep.home.root, name)), sweep.end()
    process = daemon(sweep.home.root, name)
    assert process is not None
    os.kill(process, number)


def call_without_token(sweep: Sweep, name: str) -> None:
    """Make the call that ends this part of Ray, whoever makes it."""
    process = daemon(sweep.home.root, name)
    assert process is not None
    for port in listening_ports(process):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_stream("/ray.rpc.syncer.RaySyncer/StartSync")
            with contextlib.suppress(grpc.RpcError):
                next(call(iter([b""]), timeout=10))
    # A Ray that answers needs no more of what docs/sweeps.md says about it.
    assert sweep.wait_for(lambda: daemon(sweep.home.root, name) != process, seconds=30)


def listening_ports(process: int) -> set[int]:
    sockets = set()
    for file in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):
            sockets.add(str(file.readlink()))
    rows = [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    return {
        int(row[1].split(":")[1], 16)
        for row in rows
        if row[3] == LISTENING and f"socket:[{row[9]}]" in sockets
    }


def assert_nothing_is_left(home: Path) -> None:
    assert not processes_of(home)
    assert not session_folder(Home(home).sweep("tiny"), "head").exists()
    assert "RUNNING" not in {run.info.status for run in runs_of(Home(home))}


@pytest.mark.slow
def test_a_sweep_whose_ray_dies_twice_has_the_numbers_of_one_that_was_never_disturbed(
    space: Path, tmp_path: Path, sweep: Callable[..., Sweep]
) -> None:
    undisturbed, home = tmp_path / "undisturbed", tmp_path / "home"
    assert run(space, home=undisturbed, assignments=(*FEW, INLINE)).state == "done"
    one = sweep(home, *ON_THIS_MACHINE)
    # Before there is a slot, and in the middle of trials.
    signal_to(one, "raylet", signal.SIGKILL)
    assert one.wait_for(lambda: one.evaluations() > 4), one.end()
    call_without_token(one, "gcs_server")
    status, output, errors = one.end()
    assert status == 0, errors
    assert not errors
    assert output.count("starting Ray again (1 of 2): what ran resumes") == 1
    assert output.count("starting Ray again (2 of 2): what ran resumes") == 1
    assert_same_sweep(Home(home), Home(undisturbed))
    # The end of Ray doesn't count against a trial.
    assert not list(Home(home).sweep("tiny").trials.glob("*/lost.json"))
    assert_nothing_is_left(home)


@pytest.mark.slow
def test_the_third_death_of_ray_ends_the_sweep_with_one_line(
    tmp_path: Path, sweep: Callable[..., Sweep]
) -> None:
    one = sweep(tmp_path, *ON_THIS_MACHINE)
    seen: set[int | None] = {None}
    for name in ("dashboard agent", "runtime environment agent", "raylet"):
        # The one that was started again.
        assert one.wait_for(lambda: daemon(tmp_path, "gcs_server") not in seen), one.end()
        seen.add(daemon(tmp_path, "gcs_server"))
        signal_to(one, name, signal.SIGKILL)
    status, _, errors = one.end()
    assert status == 1
    assert errors.count("\n") == 1
    assert "engine: Ray failed 3 times: Ray's " in errors
    assert "run the same command again to resume" in errors
    assert_nothing_is_left(tmp_path)


@pytest.mark.slow
def test_a_head_that_dies_ends_the_sweep_with_one_line_within_seconds(
    tmp_path: Path, sweep: Callable[..., Sweep]
) -> None:
    one = sweep(tmp_path, *AS_A_HEAD)
    cluster = Home(tmp_path).sweep("tiny").cluster
    assert one.wait_for(cluster.exists), one.end()
    signal_to(one, "gcs_server", signal.SIGKILL)
    status, _, errors = one.end(seconds=60)
    assert status == 1
    assert errors.count("\n") == 1
    assert "run the same command again to resume" in errors
    assert '"away"' in cluster.read_text()
    assert_nothing_is_left(tmp_path)


@pytest.mark.slow
def test_ctrl_c_while_ray_hangs_stops_the_sweep(
    tmp_path: Path, sweep: Callable[..., Sweep]
) -> None:
    one = sweep(tmp_path, *ON_THIS_MACHINE)
    assert one.wait_for(lambda: one.evaluations() > 2), one.end()
    for name in ("gcs_server", "raylet"):
        signal_to(one, name, signal.SIGSTOP)
    one.process.send_signal(signal.SIGINT)
    status, _, errors = one.end(seconds=120)
    assert status == 130
    assert errors.count("\n") == 1
    assert_nothing_is_left(tmp_path)


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGKILL, "died"), (signal.SIGSTOP, "is stopped")]
)
def test_a_part_that_is_gone_or_stopped_is_named(
    number: signal.Signals, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdsweep.sweep.engines.ray_daemons.SECONDS_STOPPED", 0.1)
    monkeypatch.setattr("kdsweep.sweep.engines.ray_daemons.SECONDS_BETWEEN_LOOKS", 0.1)
    (tmp_path / "raylet").mkdir()
    (program := tmp_path / "raylet" / "raylet").symlink_to("/bin/sleep")
    daemons = Daemons(tmp_path)
    with subprocess.Popen([program, "300"], env={SESSION_VARIABLE: str(tmp_path)}) as raylet:
        until = time.monotonic() + 60
        while not daemons.processes:
            assert time.monotonic() < until
            assert daemons.trouble() is None
        assert daemons.processes == {"raylet": raylet.pid}
        raylet.send_signal(number)
        while (trouble := daemons.trouble()) is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert trouble == f"Ray's raylet (process {raylet.pid}) {words}"
        raylet.kill()


def test_a_connection_that_is_stopped_is_named_and_one_that_ends_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kdsweep.sweep.engines.ray_daemons.SECONDS_STOPPED", 0.1)
    monkeypatch.setattr("kdsweep.sweep.engines.ray_daemons.SECONDS_BETWEEN_LOOKS", 0.1)
    with subprocess.Popen(["sleep", "300"]) as connection:
        daemons = Daemons(None, {"connection": connection.pid})
        connection.send_signal(signal.SIGSTOP)
        until = time.monotonic() + 60
        while (trouble := daemons.trouble(look=True)) is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert trouble == f"Ray's connection (process {connection.pid}) is stopped"
        connection.kill()
    assert daemons.trouble(look=True) is None


# --- the session's folder -----------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def as_nobody(script: str) -> subprocess.CompletedProcess[str]:
    """Run it as another user of this machine."""
    if os.geteuid() != 0:
        pytest.skip("another user needs root: run as root")
    return subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_another_user_can_neither_see_nor_change_what_says_how_a_session_goes_on(
    tmp_path: Path, sweep: Callable[..., Sweep]
) -> None:
    one = sweep(tmp_path, *ON_THIS_MACHINE)
    session = session_folder(Home(tmp_path).sweep("tiny"), "head")
    assert one.wait_for(lambda: one.evaluations() > 0), one.end()
    # Ray opened its own folder to everybody.
    assert mode(ray_folder(session)) == 0o777
    assert mode(session) == 0o700
    assert mode(Home(tmp_path).sweep("tiny").token) == 0o600
    for script in (
        f"ls {session}",
        f"touch {session}/leaving",
        f"touch {ray_folder(session)}/x",
        f"rmdir {session} || mv {session} {session}.gone",
        f"rm -rf {session}/*; ls {ray_folder(session)}/*",
    ):
        done = as_nobody(script)
        assert done.returncode != 0, script
        assert "denied" in done.stderr.lower() or "not permitted" in done.stderr.lower()
    status, output, errors = one.end()
    assert status == 0, errors
    assert "starting Ray again" not in output
    assert not session.exists()


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """Where everybody may make files, as in /tmp."""
    folder = Path(tempfile.mkdtemp(prefix="shared-"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def test_a_folder_or_link_of_somebody_else_with_the_sessions_name_is_left_alone(
    shared_folder: Path, tmp_path: Path
) -> None:
    folder, target = shared_folder / "session", tmp_path
    for script in (f"mkdir {folder}", f"ln -s {target} {folder}", f"touch {folder}"):
        assert as_nobody(script).returncode == 0
        session = make_session(folder)
        assert session.parent == folder.parent
        assert session.name.startswith(f"{folder.name}-")
        assert mode(session) == 0o700
        assert session.stat().st_uid == os.getuid()
        assert folder.lstat().st_uid == 65534
        # The next one ends what is left of this one, whatever its name is.
        again = make_session(folder)
        assert not session.exists()
        again.rmdir()
        if folder.is_dir() and not folder.is_symlink():
            folder.rmdir()
        else:
            folder.unlink()


def test_what_a_killed_session_left_is_removed(tmp_path: Path) -> None:
    folder = make_session(tmp_path / "session")
    (folder / "leaving").touch()
    assert make_session(folder) == folder
    assert not list(folder.iterdir())
    assert mode(folder) == 0o700
