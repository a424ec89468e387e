"""`kdsweep ui`: MLflow's UI for a home, on this machine only, opened at the sweep's runs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from kdsweep.core.files import only_read
from kdsweep.databases import url_to_open
from kdsweep.errors import KdsweepError
from kdsweep.sweep.engines.process_reaper import SESSION_VARIABLE, ProcessReaper
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.signals import handling
from kdsweep.tracking.home_database import follow_home

HOST = "127.0.0.1"
FIRST_PORT = 5000
START_SECONDS = 120
STOP_SECONDS = 10


def serve(
    home: Home,
    folder: SweepFolder,
    port: int | None,
    *,
    say: Callable[[str], None],
    open_browser: bool,
) -> None:
    """Serve until Ctrl-C, or until the terminal closes.

    Where the sweep is tracked on a server, only print the links.

    Raises KdsweepError if the server doesn't start or the port is in use.
    """
    from kdsweep.tracking.mlflow_views import view_links

    uri = home.tracking_uri(folder.read_config().tracking)
    links = view_links(uri, folder.read_facts().experiment, folder.name)
    if uri.startswith(("http://", "https://")):
        _say_links(_without_user(uri).rstrip("/"), links, folder.name, say)
        return
    port = _free_port() if port is None else port
    if not _is_free(port):
        raise KdsweepError(
            f"--port: {port} is in use on {HOST}; choose another one, or leave --port out"
        )
    follow_home(uri, home.artifacts)
    say(f"starting MLflow's UI for {home.root} ... (takes some seconds)")
    log = home.root / "ui.log"
    if only_read(home.root):
        log = Path(tempfile.mkdtemp(prefix="kdsweep-ui-")) / log.name
    try:
        with handling(_interrupt), _running(url_to_open(uri), home, port, log) as server:
            _wait_until_ready(server, port, log)
            address = f"http://{HOST}:{port}"
            _say_links(address, links, folder.name, say)
            say("press Ctrl-C to stop")
            if open_browser and sys.stdout.isatty():
                webbrowser.open(address + links["table"])
            server.wait()
            raise KdsweepError(
                f"MLflow's server has stopped (exit status {server.returncode}); see {log}"
            )
    except KeyboardInterrupt:
        say("stopped")


def _say_links(address: str, links: dict[str, str], name: str, say: Callable[[str], None]) -> None:
    say(f"{name}, all runs, best first:  {address}{links['table']}")
    say(f"{name}, charts:                {address}{links['charts']}")


def _without_user(uri: str) -> str:
    """A link without user and password. The browser asks for them."""
    parts = urllib.parse.urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


@contextlib.contextmanager
def _running(uri: str, home: Home, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's server, which ends with this block, and also if this process is killed."""
    reaper = ProcessReaper(Path(tempfile.mkdtemp(prefix="kdsweep-ui-")))
    try:
        server = _start(uri, home, port, log)
        # The browser isn't part of it.
        os.environ.pop(SESSION_VARIABLE)
        try:
            yield server
        finally:
            _stop(server)
    finally:
        reaper.release()


def _start(uri: str, home: Home, port: int, log: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        HOST,
        "--port",
        str(port),
        "--workers",
        "1",
        "--default-artifact-root",
        home.artifacts.as_uri(),
        "--uvicorn-opts",
        "--log-level error --no-access-log",
    ]
    variables = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # On the command line every user of this machine could read a password in it.
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_REGISTRY_STORE_URI": uri,
        # It would start seven more processes, for GenAI evaluations.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore",
    }
    with log.open("wb") as file:
        # In a separate session the server doesn't get our Ctrl-C, and we can stop it together
        # with its worker process.
        return subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | variables,
            start_new_session=True,
        )


def _wait_until_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if server.poll() is not None:
            raise KdsweepError(
                f"MLflow's server didn't start (exit status {server.returncode}); see {log}"
            )
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise KdsweepError(f"MLflow's server didn't answer within {START_SECONDS} s; see {log}")


def _stop(server: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(timeout=STOP_SECONDS)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _free_port() -> int:
    return next(port for port in range(FIRST_PORT, 65536) if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
