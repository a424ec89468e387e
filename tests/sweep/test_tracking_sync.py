"""What the tracker is missing is sent once, in order, and an error costs nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdsweep.errors import TrackingRefused, TrackingUnreachable
from kdsweep.sweep import tracking_sync
from kdsweep.sweep.folders import Home
from kdsweep.sweep.tracking_sync import TrackingSync
from kdsweep.tracking.opening import open_tracking


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def sync(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[TrackingSync]:
    monkeypatch.setattr(tracking_sync, "FIRST_PAUSE_SECONDS", 0.01)
    # Nothing here calls the tracker itself, so it may be anywhere.
    nowhere = open_tracking(
        "http://127.0.0.1:9", experiment="tiny", sweep="tiny", artifacts=tmp_path
    )
    sync = TrackingSync(nowhere, Home(tmp_path).sweep("tiny"), lines.append)
    yield sync
    sync.close(patience=0.1)


def test_an_item_that_is_put_twice_before_it_is_sent_is_sent_once(sync: TrackingSync) -> None:
    sent: list[str] = []
    first_is_sending = threading.Event()
    go = threading.Event()

    def first() -> None:
        first_is_sending.set()
        go.wait()

    sync.send_once("first", first)
    first_is_sending.wait()
    sync.send_once("second", lambda: sent.append("old"))
    sync.send_once("third", lambda: sent.append("third"))
    sync.send_once("second", lambda: sent.append("new"))
    go.set()
    assert sync.close() == 0
    assert sent == ["third", "new"]


def test_what_a_tracker_did_not_take_is_sent_when_it_answers_again(
    sync: TrackingSync, lines: list[str]
) -> None:
    sent: list[str] = []
    outages = [TrackingUnreachable("tracking: away")] * 2

    def send() -> None:
        if outages:
            raise outages.pop()
        sent.append("sent")

    sync.send_once("one", send)
    sync.wait_until_sent()
    assert sent == ["sent"]
    assert lines == [
        "tracking: away; training continues, and the runs are sent later",
        "tracking: MLflow at http://127.0.0.1:9 answers again; sending what it missed",
    ]


def test_a_single_failed_call_is_not_worth_a_line(sync: TrackingSync, lines: list[str]) -> None:
    outages = [TrackingUnreachable("tracking: away")]

    def send() -> None:
        if outages:
            raise outages.pop()

    sync.send_once("one", send)
    sync.wait_until_sent()
    assert not lines


def test_a_refused_item_is_reported_and_stays_behind_while_others_are_sent(
    sync: TrackingSync, lines: list[str]
) -> None:
    sent: list[str] = []

    def refuse() -> None:
        raise ValueError("database or disk is full\n(in detail)")

    sync.send_once("one", refuse)
    sync.send_once("two", lambda: sent.append("two"))
    assert sync.close() == 1
    assert sent == ["two"]
    assert lines == [
        "tracking: MLflow at http://127.0.0.1:9 refused one: database or disk is full; "
        "the next `kdsweep run` tries again"
    ]


def test_what_is_refused_for_ever_is_said_once_and_is_not_left(
    sync: TrackingSync, lines: list[str]
) -> None:
    def refuse() -> None:
        raise TrackingRefused("tracking: MLflow refuses param 'a?'; runs are sent without that")

    for name in ("one", "two"):
        sync.send_once(name, refuse)
    assert sync.close() == 0
    assert not sync.is_away
    assert lines == ["tracking: MLflow refuses param 'a?'; runs are sent without that"]


def test_close_gives_up_when_the_tracker_stays_away(sync: TrackingSync) -> None:
    def send() -> None:
        raise TrackingUnreachable("tracking: away")

    sync.send_once("one", send)
    assert sync.close(patience=0.1) > 0
    assert sync.is_away
