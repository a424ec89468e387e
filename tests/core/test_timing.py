"""Each second of a trial is counted once, and no second of its caller."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdsweep.core import TrialSettings, train
from kdsweep.core.timing import Stopwatch
from kdsweep.core.training import judging, prepare
from kdsweep.core.trial_folder import TrialFolder
from kdsweep.errors import Interrupted


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """`clock.now` is the time."""
    found = SimpleNamespace(now=100.0)
    monkeypatch.setattr("kdsweep.core.timing.time", SimpleNamespace(monotonic=lambda: found.now))
    return found


def counted(**seconds: float) -> dict[str, float]:
    purposes = ("start", "labelling", "training", "evaluating", "saving")
    return dict.fromkeys(purposes, 0.0) | seconds


def test_a_new_watch_is_stopped(clock: SimpleNamespace) -> None:
    stopwatch = Stopwatch()
    clock.now += 5
    assert stopwatch.seconds == counted()


def test_a_nested_purpose_counts_once_and_the_outer_one_continues(clock: SimpleNamespace) -> None:
    stopwatch = Stopwatch()
    with stopwatch("start"):
        clock.now += 1
        stopwatch.switch("training")
        clock.now += 2
        with stopwatch("evaluating"):
            clock.now += 4
            with stopwatch("saving"):
                clock.now += 8
            clock.now += 16
            assert stopwatch.seconds == counted(start=1, training=2, evaluating=20, saving=8)
        clock.now += 32
    clock.now += 64
    assert stopwatch.seconds == counted(start=1, training=34, evaluating=20, saving=8)


def test_an_error_ends_the_purpose_it_left(clock: SimpleNamespace) -> None:
    stopwatch = Stopwatch()
    stopwatch.switch("training")
    with pytest.raises(ValueError), stopwatch("saving"):
        clock.now += 3
        raise ValueError
    clock.now += 4
    assert stopwatch.seconds == counted(training=4, saving=3)


def work(
    stopwatch: Stopwatch, clock: SimpleNamespace, error: Exception | None = None
) -> Generator[str, None, int]:
    clock.now += 1
    yield "restored"
    clock.now += 2
    stopwatch.switch("training")
    clock.now += 4
    with stopwatch("saving"):
        clock.now += 8
    yield "evaluation"
    clock.now += 16
    if error is not None:
        raise error
    return 7


def test_time_at_a_yield_is_not_counted_and_the_result_is_passed_on(
    clock: SimpleNamespace,
) -> None:
    stopwatch = Stopwatch()
    stream = stopwatch.timing(work(stopwatch, clock))
    clock.now += 100
    assert next(stream) == "restored"
    clock.now += 100
    assert next(stream) == "evaluation"
    clock.now += 100
    with pytest.raises(StopIteration) as end:
        next(stream)
    clock.now += 100
    assert end.value.value == 7
    assert stopwatch.seconds == counted(start=3, training=20, saving=8)


def test_a_closed_or_failed_stream_leaves_correct_sums(clock: SimpleNamespace) -> None:
    closed = Stopwatch()
    stream = closed.timing(work(closed, clock))
    next(stream), next(stream)
    clock.now += 100
    stream.close()
    clock.now += 100
    assert closed.seconds == counted(start=3, training=4, saving=8)
    broken = Stopwatch()
    with pytest.raises(OSError):
        list(broken.timing(work(broken, clock, OSError())))
    clock.now += 100
    assert broken.seconds == counted(start=3, training=20, saving=8)


def test_closing_the_stream_closes_the_work() -> None:
    ended = []

    def stoppable() -> Generator[int, None, None]:
        try:
            yield 1
        finally:
            ended.append(True)

    stream = Stopwatch().timing(stoppable())
    next(stream)
    stream.close()
    assert ended == [True]


# --- in a trial ---


@pytest.fixture(scope="module")
def settings(tiny: Callable[..., str], review_csv: Path) -> TrialSettings:
    return TrialSettings.model_validate(
        {
            "task": {"dataset": str(review_csv), "text": "text", "label": "label", "holdout": 0.2},
            "student": {"model": tiny("bert", layers=2), "layers": 1},
            "training": {
                "epochs": 1,
                "batch_size": 16,
                "max_length": 24,
                "evaluations_per_epoch": 3,
            },
            "alpha": 1.0,
            "learning_rate": 2e-3,
        }
    )


def delayed(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, seconds: float) -> None:
    original = getattr(owner, name)

    def slow(*arguments: Any, **keywords: Any) -> Any:
        time.sleep(seconds)
        return original(*arguments, **keywords)

    monkeypatch.setattr(owner, name, slow)


def test_a_trial_s_seconds_sum_to_its_wall_time_by_purpose(
    settings: TrialSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delayed(monkeypatch, prepare, "load_student", 0.3)
    delayed(monkeypatch, judging, "predict", 0.1)  # three evaluations
    delayed(monkeypatch, judging, "latency", 0.1)
    delayed(monkeypatch, TrialFolder, "save_state", 0.2)  # after the first two
    delayed(monkeypatch, TrialFolder, "save_student", 0.2)
    stopwatch, suspended = Stopwatch(), 0.0

    def on_step(step: int, total_steps: int) -> bool:
        time.sleep(0.02)
        return False

    began = time.monotonic()
    for _ in train(
        settings, tmp_path / "trial", cache=tmp_path / "cache", on_step=on_step, stopwatch=stopwatch
    ):
        left = time.monotonic()
        time.sleep(0.15)
        suspended += time.monotonic() - left
    wall = time.monotonic() - began
    found = stopwatch.seconds
    # The 0.45 s of three yields would show.
    assert sum(found.values()) == pytest.approx(wall - suspended, abs=0.3)
    assert found["start"] >= 0.3
    assert found["training"] >= 12 * 0.02
    assert found["evaluating"] >= 0.4
    assert found["saving"] >= 0.6
    time.sleep(0.05)
    assert stopwatch.seconds == found


def test_a_pruned_or_interrupted_trial_stops_its_watch(
    settings: TrialSettings, tmp_path: Path
) -> None:
    pruned = Stopwatch()
    stream = train(settings, tmp_path / "pruned", cache=tmp_path / "cache", stopwatch=pruned)
    next(stream)
    before = pruned.seconds
    time.sleep(1)
    stream.close()
    assert sum(pruned.seconds.values()) == pytest.approx(sum(before.values()), abs=0.5)
    interrupted = Stopwatch()
    with pytest.raises(Interrupted):
        list(
            train(
                settings,
                tmp_path / "interrupted",
                cache=tmp_path / "cache",
                stopwatch=interrupted,
                on_step=lambda step, total: step == 2,
            )
        )
    after = interrupted.seconds
    assert after["saving"] > 0
    time.sleep(0.05)
    assert interrupted.seconds == after


def test_another_thread_reads_sums_that_only_grow(settings: TrialSettings, tmp_path: Path) -> None:
    stopwatch, done, read = Stopwatch(), threading.Event(), []

    def reader() -> None:
        while not done.is_set():
            read.append(sum(stopwatch.seconds.values()))
            time.sleep(0.001)

    thread = threading.Thread(target=reader)
    thread.start()
    try:
        list(train(settings, tmp_path / "trial", cache=tmp_path / "cache", stopwatch=stopwatch))
    finally:
        done.set()
        thread.join()
    assert len(set(read)) > 5
    # A float's rounding apart: the sums are added up in another order as the purpose changes.
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(read))
