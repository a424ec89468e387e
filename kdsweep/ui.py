"""MLflow's UI on a home's database, on this machine alone, opened where the runs are."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import webbrowser
from collections.abc import Callable
from typing import Any

from kdsweep.errors import KdsweepError
from kdsweep.sweep.folders import Home, SweepFolder

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
    """Serve until Ctrl-C. Raises KdsweepError where the server doesn't start or the port is taken."""
    from kdsweep.tracking.mlflow_tracker import view_links

    uri = home.tracking_uri(folder.read_config().tracking)
    links = view_links(uri, folder.read_facts().experiment, folder.name)
    if uri.startswith(("http://", "https://")):
        _tell(_without_user(uri).rstrip("/"), links, folder.name, say)
        return
    port = _free_port() if port is None else port
    if not _is_free(port):
        raise KdsweepError(
            f"--port: {port} is taken on {HOST}; name another, or none for a free one"
        )
    say(f"starting MLflow's UI for {home.root} ... (some seconds)")
    server = _start(uri, home, port)
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        _wait_until_ready(server, port)
        address = f"http://{HOST}:{port}"
        _tell(address, links, folder.name, say)
        say("Ctrl-C ends it")
        if open_browser and sys.stdout.isatty():
            webbrowser.open(address + links["table"])
        server.wait()
        raise KdsweepError("MLflow's server ended by itself")
    except KeyboardInterrupt:
        say("ended")
    finally:
        signal.signal(signal.SIGTERM, before)
        _end(server)


def _tell(address: str, links: dict[str, str], name: str, say: Callable[[str], None]) -> None:
    say(f"{name}, every run, best first:  {address}{links['table']}")
    say(f"{name}, charts:                 {address}{links['charts']}")


def _without_user(uri: str) -> str:
    """A link to show: the browser asks for user and password."""
    parts = urllib.parse.urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _start(uri: str, home: Home, port: int) -> subprocess.Popen[bytes]:
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
    ]
    command += ["--default-artifact-root", home.artifacts.as_uri()]
    command += ["--uvicorn-opts", "--log-level error --no-access-log"]
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_BACKEND_STORE_URI": uri,  # not on the command line: a password in it would be seen by everybody
        "MLFLOW_REGISTRY_STORE_URI": uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven more processes, for GenAI evaluations
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore",
    }
    log = home.root / "ui.log"
    with log.open("wb") as file:
        # A session of its own: Ctrl-C reaches us alone, and we end the server and its worker together.
        return subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | quiet,
            start_new_session=True,
        )


def _wait_until_ready(server: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if server.poll() is not None:
            raise KdsweepError(
                f"MLflow's server didn't start (exit status {server.returncode}); see ui.log in home"
            )
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise KdsweepError(
        f"MLflow's server didn't answer within {START_SECONDS} s; see ui.log in home"
    )


def _end(server: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(timeout=STOP_SECONDS)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _stop(number: int, frame: Any) -> None:
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
