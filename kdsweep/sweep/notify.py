"""Telling somebody that a sweep has ended: by a command of theirs, or a webhook.

If that fails, one line says so, and the sweep stays as it is.
"""

from __future__ import annotations

import base64
import contextlib
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
from urllib.parse import unquote, urlsplit, urlunsplit

from kdsweep.config.sweep import OnDone, without_path
from kdsweep.core.files import fingerprint
from kdsweep.errors import without_password
from kdsweep.report.model import Report
from kdsweep.sweep.folders import SweepFolder

Say = Callable[[str], None]
Asked = Callable[[], bool]
WEBHOOK_SECONDS = 10.0
WEBHOOK_ATTEMPTS = 3
SECONDS_BETWEEN_ATTEMPTS = 1.0
COMMAND_SECONDS = 600.0
SECONDS_BETWEEN_LOOKS = 0.1
# HTTP statuses of failures that may pass.
WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}


def _never() -> bool:
    return False


def notify_once(
    folder: SweepFolder,
    on_done: OnDone | None,
    report: Report,
    say: Say,
    asked_to_stop: Asked = _never,
) -> None:
    """Notify of the sweep's end, unless that was done already.

    It is noted before it is done, so that a command never runs twice. A sweep that is resumed with
    more trials ends again, and is notified of again. Only for the driver, which writes sweep.json.
    """
    if on_done is None:
        return
    trials = {name: found.trials.to_json() for name, found in report.strategies.items()}
    end = fingerprint([report.state, report.verdict, trials])
    facts = folder.read_facts()
    if facts.notified == end:
        return
    folder.write_facts(replace(facts, notified=end))
    notify(on_done, report, say, asked_to_stop)


def notify(on_done: OnDone, report: Report, say: Say, asked_to_stop: Asked = _never) -> None:
    """Run the command or post to the webhook; say in one line how that went. Raises nothing.

    asked_to_stop: whether this process is to end, and the command with it.
    """
    if on_done.webhook is not None:
        shown = without_path(on_done.webhook)
    else:
        shown = shlex.quote((on_done.command or ("",))[0])
    try:
        if on_done.webhook is not None:
            line = _post(on_done.webhook, report)
        else:
            line = _run(on_done.command or (), report, asked_to_stop)
        say(f"on_done: {shown} {line}")
    except (OSError, ValueError, subprocess.SubprocessError, http.client.HTTPException) as error:
        # The text of an error can contain the address, which is a secret.
        reason = type(error).__name__
        if isinstance(error, OSError):
            reason = str(error.strerror or getattr(error, "reason", None) or reason)
        say(without_password(f"on_done: {shown} failed: {' '.join(reason.split())}"))


# --- a command -----------------------------------------------------------------------------------


def _run(command: tuple[str, ...], report: Report, asked_to_stop: Asked) -> str:
    """Run the command with the report on its standard input; how it ended, in words.

    It runs in a separate session, so that what it started ends with it if it takes too long or this
    process is to end.
    """
    variables = {
        "KDSWEEP_SWEEP": report.sweep,
        "KDSWEEP_STATE": report.state,
        "KDSWEEP_VERDICT": report.verdict.replace("\0", ""),
    }
    # A child that keeps a pipe open would block us, so use files.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output:
        given.write(json.dumps(report.to_json()).encode())
        given.seek(0)
        process = subprocess.Popen(
            command,
            stdin=given,
            stdout=output,
            stderr=output,
            env=os.environ | variables,
            start_new_session=True,
        )
        try:
            status = _wait(process, asked_to_stop)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, _Stopped):
                return f"was stopped: {error}"
            raise
        output.seek(0)
        last_line = output.read().decode(errors="replace").strip().rpartition("\n")[2][:200]
    if status == 0:
        return "was run"
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    return f"{how}: {last_line}" if last_line else how


class _Stopped(Exception):
    """Why a command can't run any longer."""


def _wait(process: subprocess.Popen[bytes], asked_to_stop: Asked) -> int:
    until = time.monotonic() + COMMAND_SECONDS
    while not asked_to_stop():
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(SECONDS_BETWEEN_LOOKS)
        if time.monotonic() > until:
            raise _Stopped(f"it took more than {COMMAND_SECONDS:g} s")
    raise _Stopped("a signal came")


# --- a webhook -----------------------------------------------------------------------------------


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: the verdict goes to the address that the user gave, or nowhere."""

    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


def _post(address: str, report: Report) -> str:
    """POST the verdict as JSON; how that went, in words.

    `text` is what Slack, Mattermost and similar services show.
    """
    content = {
        "sweep": report.sweep,
        "state": report.state,
        "metric": report.metric,
        "verdict": report.verdict,
        "winner": report.to_json()["winner"],
        "text": f"{report.sweep}: {report.verdict}",
    }
    url, headers = _split_user(address)
    body = json.dumps(content).encode()
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
                return "was notified"
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
    times = "time" if attempt == 1 else "times"
    return f"failed: {reason} (tried {attempt} {times})"


def _split_user(address: str) -> tuple[str, dict[str, str]]:
    """The address without `user:password@`, and the header that HTTP has for these."""
    parts = urlsplit(address)
    if parts.username is None:
        return address, {}
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    headers = {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()}
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])), headers
