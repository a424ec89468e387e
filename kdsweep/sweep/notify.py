"""Telling somebody that a sweep is over: a command of theirs, or a webhook. What goes wrong here is one line and harms nothing."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shlex
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from kdsweep.config.sweep import OnDone, without_path
from kdsweep.core.files import fingerprint
from kdsweep.errors import without_password
from kdsweep.report.model import Report
from kdsweep.sweep.folders import SweepFolder

Say = Callable[[str], None]
WEBHOOK_SECONDS, WEBHOOK_ATTEMPTS, SECONDS_BETWEEN_ATTEMPTS = 10.0, 3, 1.0
COMMAND_SECONDS = 600.0
WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}


def notify_once(folder: SweepFolder, on_done: OnDone | None, report: Report, say: Say) -> None:
    """Tell what became of the sweep, if nobody was told this yet. It counts as told before it is: a command is never run twice.

    A sweep that goes on with more trials ends again, and is told again. Only for the driver, who writes sweep.json.
    """
    if on_done is None:
        return
    told = fingerprint(
        [
            report.state,
            report.verdict,
            {name: found.trials.to_json() for name, found in report.strategies.items()},
        ]
    )
    facts = folder.read_facts()
    if facts.notified == told:
        return
    folder.write_facts(replace(facts, notified=told))
    notify(on_done, report, say)


def notify(on_done: OnDone, report: Report, say: Say) -> None:
    """Run the command or post to the webhook; say in one line how that went. Raises nothing."""
    try:
        say(
            f"on_done: {_post(on_done.webhook, report) if on_done.webhook is not None else _run(on_done.command or (), report)}"
        )
    except (OSError, ValueError, subprocess.SubprocessError, http.client.HTTPException) as error:
        whom = (
            without_path(on_done.webhook)
            if on_done.webhook is not None
            else shlex.quote((on_done.command or ("",))[0])
        )
        # Errors of the address itself have the address in them.
        reason = (
            isinstance(error, OSError) and (error.strerror or getattr(error, "reason", None))
        ) or type(error).__name__
        say(without_password(f"on_done: {whom} could not be told: {' '.join(str(reason).split())}"))


# --- a command -------------------------------------------------------------------------------------------------------


def _run(command: tuple[str, ...], report: Report) -> str:
    """Run the command, in a session of its own: what it leaves behind when its time is over ends with it."""
    told = {
        "KDSWEEP_SWEEP": report.sweep,
        "KDSWEEP_STATE": report.state,
        "KDSWEEP_VERDICT": report.verdict.replace("\0", ""),
    }
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as said,
    ):  # files, not pipes: whoever keeps one open holds up nobody
        given.write(json.dumps(report.to_json()).encode())
        given.seek(0)
        process = subprocess.Popen(
            command,
            stdin=given,
            stdout=said,
            stderr=said,
            env=os.environ | told,
            start_new_session=True,
        )
        try:
            status = process.wait(COMMAND_SECONDS)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                return (
                    f"{shlex.quote(command[0])} was ended: it took more than {COMMAND_SECONDS:g} s"
                )
            raise
        said.seek(0)
        last = said.read().decode(errors="replace").strip().rpartition("\n")[2][:200]
    if status == 0:
        return f"{shlex.quote(command[0])} was run"
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    return f"{shlex.quote(command[0])} {how}{': ' + last if last else ''}"


# --- a webhook -------------------------------------------------------------------------------------------------------


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A verdict goes where it was meant to go."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _post(address: str, report: Report) -> str:
    """POST the verdict as JSON; `text` is what Slack, Mattermost and their like show."""
    told = {
        "sweep": report.sweep,
        "state": report.state,
        "metric": report.metric,
        "verdict": report.verdict,
        "winner": report.to_json()["winner"],
        "text": f"{report.sweep}: {report.verdict}",
    }
    url, headers = _split_user(address)
    body = json.dumps(told).encode()
    request = urllib.request.Request(
        url,
        data=body,
        method="POST",
        headers=headers | {"Content-Type": "application/json", "User-Agent": "kdsweep"},
    )
    opener = urllib.request.build_opener(_NoRedirects)
    reason = ""
    for attempt in range(1, WEBHOOK_ATTEMPTS + 1):
        try:
            with opener.open(request, timeout=WEBHOOK_SECONDS):
                return f"{without_path(address)} was told"
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"it answered {error.code}"
            if error.code not in WORTH_ANOTHER_TRY:
                break
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            found = getattr(error, "reason", error)
            reason = getattr(found, "strerror", None) or " ".join(str(found).split())
        if attempt < WEBHOOK_ATTEMPTS:
            time.sleep(SECONDS_BETWEEN_ATTEMPTS * attempt)
    return f"{without_path(address)} could not be told: {reason} (tried {attempt} time{'s' if attempt > 1 else ''})"


def _split_user(address: str) -> tuple[str, dict[str, str]]:
    """The address without `user:password@`, which HTTP has a header for."""
    parts = urlsplit(address)
    if parts.username is None:
        return address, {}
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    headers = {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()}
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])), headers
