"""`on_done`: a real command and a real server are notified once.

Whatever goes wrong is one line without a secret.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kdsweep.cli.passwords import without_passwords
from kdsweep.config import load
from kdsweep.config.sweep import OnDone, SweepConfig
from kdsweep.core.files import read_json
from kdsweep.errors import SpaceError
from kdsweep.report.model import Report, TrialCounts
from kdsweep.sweep import notify as notifying
from kdsweep.sweep.facts import SweepFacts
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.notify import notify, notify_once

REPORT = Report.from_json(
    {
        "sweep": "tiny",
        "state": "done",
        "metric": "accuracy",
        "verdict": "«combined» beats finetune by 1.3 points (0.4 to 2.2)\nand that is all",
        "winner": {"strategy": "combined", "trial": 3, "seed_index": 1},
        "teacher": None,
        "strategies": {
            "combined": {
                "trials": {"complete": 4, "pruned": 0, "failed": 0},
                "best": None,
                "slot_hours": 0.1,
                "confirm": None,
            }
        },
        "pairs": [],
        "questions": [],
    }
)
SECRET = "T0/B1/s3cret"


class Hook:
    """A server on this machine. answers: statuses of the next requests. got: what arrived."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.got: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.got.append((self.path, dict(self.headers), json.loads(body)))
                status = hook.answers.pop(0) if hook.answers else 200
                if status == 0:
                    time.sleep(1)
                    return
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    monkeypatch.setattr(notifying, "SECONDS_BETWEEN_ATTEMPTS", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found = Hook()
    yield found
    found.server.shutdown()
    found.server.server_close()


def told(on_done: dict[str, Any]) -> str:
    """The one line that `notify` says."""
    lines: list[str] = []
    notify(OnDone.model_validate(on_done), REPORT, lines.append)
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert "s3cret" not in lines[0]
    return lines[0]


# --- a webhook -----------------------------------------------------------------------------------


def test_a_webhook_gets_the_verdict_as_json_that_chats_show(hook: Hook) -> None:
    assert (
        told({"webhook": f"http://{hook.host}/{SECRET}?token=s3cret"})
        == f"on_done: http://{hook.host}/*** was notified"
    )
    path, headers, body = hook.got[0]
    assert path == f"/{SECRET}?token=s3cret"
    assert headers["Content-Type"] == "application/json"
    assert body == {
        key: REPORT.to_json()[key] for key in ("sweep", "state", "metric", "verdict", "winner")
    } | {"text": f"tiny: {REPORT.verdict}"}


def test_a_user_and_password_in_the_address_become_a_header(hook: Hook) -> None:
    assert (
        told({"webhook": f"http://me:s3cret%21@{hook.host}/x"})
        == f"on_done: http://{hook.host}/*** was notified"
    )
    assert hook.got[0][1]["Authorization"] == "Basic bWU6czNjcmV0IQ=="


def test_a_server_error_is_tried_three_times_and_a_refusal_once(hook: Hook) -> None:
    hook.answers = [500, 503]
    assert told({"webhook": f"http://{hook.host}/{SECRET}"}).endswith("was notified")
    assert len(hook.got) == 3
    hook.answers = [500] * 9
    assert "it answered 500 (tried 3 times)" in told({"webhook": f"http://{hook.host}/{SECRET}"})
    assert len(hook.got) == 6
    hook.answers = [404] * 9
    assert "it answered 404 (tried 1 time)" in told({"webhook": f"http://{hook.host}/{SECRET}"})
    assert len(hook.got) == 7


def test_a_verdict_is_not_sent_on_to_another_address(hook: Hook) -> None:
    hook.answers = [302]
    assert "it answered 302" in told({"webhook": f"http://{hook.host}/{SECRET}"})
    assert len(hook.got) == 1


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:9/s3cret",
        "http://no-such-host.invalid/s3cret",
        "http://127.0.0.1:port/s3cret",
        "http://u:s3cret@127.0.0.1:x/",
        "http://[::1/s3cret",
    ],
)
def test_an_address_that_can_not_be_reached_is_one_line(address: str, hook: Hook) -> None:
    assert "failed" in told({"webhook": address})


def test_a_server_that_never_answers_is_given_up(
    hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifying, "WEBHOOK_SECONDS", 0.1)
    hook.answers = [0] * 3
    assert "failed" in told({"webhook": f"http://{hook.host}/{SECRET}"})


# --- a command -----------------------------------------------------------------------------------


def test_a_command_gets_the_report_and_the_verdict(tmp_path: Path) -> None:
    script = tmp_path / "it's a script.py"
    script.write_text(
        "import json, os, sys\n"
        "facts = {'argument': sys.argv[1], 'report': json.load(sys.stdin)}\n"
        "facts['sweep'] = os.environ['KDSWEEP_SWEEP']\n"
        "facts['verdict'] = os.environ['KDSWEEP_VERDICT']\n"
        f"json.dump(facts, open({str(tmp_path / 'got.json')!r}, 'w'))\n"
    )
    assert told({"command": [sys.executable, str(script), "$HOME; s3cret"]}).endswith("was run")
    got = read_json(tmp_path / "got.json")
    assert got == {
        "argument": "$HOME; s3cret",
        "report": REPORT.to_json(),
        "sweep": "tiny",
        "verdict": REPORT.verdict,
    }  # no shell has read it


def test_a_command_as_one_string_is_split_as_a_shell_would() -> None:
    assert OnDone.model_validate({"command": "notify-send 'a sweep' is\\ over"}).command == (
        "notify-send",
        "a sweep",
        "is over",
    )


def test_a_command_that_fails_is_missing_or_never_ends_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (
        told({"command": ["sh", "-c", "echo no disk >&2; exit 3"]})
        == "on_done: sh ended with status 3: no disk"
    )
    assert told({"command": ["sh", "-c", "kill -9 $$"]}) == "on_done: sh was ended by signal 9"
    assert (
        told({"command": ["/no/such/program", "s3cret"]})
        == "on_done: /no/such/program failed: No such file or directory"
    )
    monkeypatch.setattr(notifying, "COMMAND_SECONDS", 0.2)
    start = time.monotonic()
    assert "more than 0.2 s" in told({"command": ["sh", "-c", "sleep 30 & sleep 30"]})
    assert time.monotonic() - start < 20


def test_a_command_that_leaves_a_process_running_does_not_block() -> None:
    start = time.monotonic()
    assert told({"command": ["sh", "-c", "sleep 30 &"]}).endswith("was run")
    assert time.monotonic() - start < 20


# --- once ----------------------------------------------------------------------------------------


def test_one_end_is_notified_once_and_the_end_of_an_extended_sweep_again(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    folder.write_facts(SweepFacts("0.1.0", {}, "tiny", {}))
    on_done = OnDone.model_validate(
        {"command": ["sh", "-c", f"echo told >> '{tmp_path}/told.txt'"]}
    )
    for _ in range(2):
        notify_once(folder, on_done, REPORT, lambda line: None)
    assert (tmp_path / "told.txt").read_text() == "told\n"
    assert folder.read_facts().notified is not None
    trials = TrialCounts(complete=8)
    longer = REPORT.strategies["combined"].model_copy(update={"trials": trials})
    notify_once(
        folder,
        on_done,
        REPORT.model_copy(update={"strategies": {"combined": longer}}),
        lambda line: None,
    )
    assert (tmp_path / "told.txt").read_text() == "told\n" * 2
    stopped = REPORT.model_copy(update={"state": "stopped"})
    notify_once(folder, None, stopped, lambda line: pytest.fail(line))


def test_a_command_ends_with_all_that_it_started_when_a_signal_stops_the_driver(
    tmp_path: Path,
) -> None:
    file = tmp_path / "pid"
    script = f"sleep 600 & echo $! > '{file}'; wait"
    on_done = OnDone.model_validate({"command": ["sh", "-c", script]})
    lines: list[str] = []
    notify(on_done, REPORT, lines.append, lambda: file.exists() and file.read_text() != "")
    assert lines == ["on_done: sh was stopped: a signal came"]
    started = Path("/proc", file.read_text().strip(), "stat")
    until = time.monotonic() + 60
    while started.exists() and started.read_text().rpartition(")")[2].split()[0] not in "ZX":
        assert time.monotonic() < until
        time.sleep(0.01)


# --- the sweep file ------------------------------------------------------------------------------


def test_on_done_is_not_part_of_a_sweeps_identity(tiny_space: Path) -> None:
    with_it = load(tiny_space, assignments=("on_done={webhook: 'https://example.org/x'}",))
    assert with_it.sweep.on_done is not None
    assert with_it.identity == load(tiny_space).identity


@pytest.mark.parametrize(
    "given",
    [
        "{}",
        "{webhook: 'ftp://example.org/s3cret'}",
        "{webhook: 'https://example.org/s3cret', command: ls}",
        "{command: []}",
        '{command: "a \'b"}',
        "{wehbook: x}",
    ],
)
def test_a_mistake_in_on_done_is_one_line_without_the_secret(
    given: str, tmp_path: Path, tiny_space: Path
) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(f"trials: 2\non_done: {given}\n")
    with pytest.raises(SpaceError) as caught:
        load(tiny_space, sweep)
    assert str(caught.value).startswith(f"{sweep}:2: on_done")
    assert "s3cret" not in str(caught.value)


def test_what_may_be_written_has_no_secret_and_is_still_a_sweep() -> None:
    for given in (
        {"webhook": f"https://me:s3cret@hooks.example.org:8443/{SECRET}?s3cret"},
        {"command": ["curl", "-H", "Authorization: s3cret"]},
    ):
        shown = OnDone.model_validate(given).shown()
        assert "s3cret" not in json.dumps(shown)
        assert SweepConfig.model_validate({"on_done": shown}).on_done is not None
    assert (
        OnDone.model_validate({"webhook": "https://hooks.example.org?s3cret"}).shown()["webhook"]
        == "https://hooks.example.org/***"
    )


@pytest.mark.parametrize(
    "argument",
    [
        "on_done.webhook=https://hooks.example.org/s3cret",
        "on_done={webhook: 'https://hooks.example.org/s3cret'}",
    ],
)
def test_a_webhook_on_the_command_line_is_hidden_from_everybody_else(
    argument: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDSWEEP_ARGUMENTS", "{}")
    shown = without_passwords(["run", "--set", argument])
    assert "s3cret" not in " ".join(shown)
    assert shown[2].startswith("on_done")
    assert "hooks.example.org/***" in shown[2]
