"""What a user sees while something takes long. Ray starts by a clock that the tests set."""

from __future__ import annotations

import queue
import re
import threading
from pathlib import Path

import pytest

from kdsweep.config.sweep import RayEngine
from kdsweep.sweep import slow_steps
from kdsweep.sweep.engines import ray_engine
from kdsweep.sweep.engines.ray_engine import OnRay
from kdsweep.sweep.engines.ray_messages import Begin, Command, News, Opened, State
from kdsweep.sweep.engines.worker_check import WorkerCheck
from kdsweep.sweep.folders import Home
from kdsweep.sweep.slow_steps import saying_how_long


class Ray:
    """Replaces the process that connects to Ray. Each look at it takes a second.

    seconds_to_open: how long it takes to start. news: what it says next. fault: why it is gone.
    """

    def __init__(self, seconds_to_open: float) -> None:
        self.seconds_to_open = seconds_to_open
        self.now = 0.0
        self.opens_at: float | None = None
        self.news: list[News] = []
        self.fault: str | None = None

    def begin(self, begin: Begin) -> Ray:
        self.fault = None
        self.opens_at = self.now + self.seconds_to_open
        return self

    def send(self, command: Command) -> None:
        pass

    def receive(self, seconds: float) -> list[News]:
        self.now += 1.0
        if self.opens_at is not None and self.now >= self.opens_at:
            self.opens_at = None
            return [Opened(0.0)]
        news, self.news = self.news, []
        return news

    def trouble(self, *, look: bool) -> str | None:
        return self.fault

    def close(self, *, logs: bool) -> None:
        pass


def test_no_more_than_ten_seconds_pass_without_a_line_while_ray_or_its_first_slot_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = Ray(seconds_to_open=25)
    monkeypatch.setattr(ray_engine, "_Link", ray.begin)
    monkeypatch.setattr(ray_engine, "make_session", lambda folder: folder)
    monkeypatch.setattr(slow_steps, "monotonic", lambda: ray.now)
    folder = Home(tmp_path).sweep("tiny")
    folder.root.mkdir(parents=True)
    check = WorkerCheck(folder, {}, local_tracking=True)
    lines: list[str] = []

    def said_within(seconds: int) -> list[str]:
        lines.clear()
        for _ in range(seconds):
            engine.wait(0)
        return list(lines)

    engine = OnRay(RayEngine(type="ray"), folder, lambda event: None, lines.append, check)
    with engine:
        assert lines == ["starting Ray: 10 s so far", "starting Ray: 20 s so far"]
        # Nobody waits for a slot yet.
        assert said_within(30) == []
        engine.request_slots(1)
        slots = ["starting slots: 10 s so far", "starting slots: 20 s so far"]
        assert said_within(25) == slots
        ray.news = [State(1, 1, (), False)]
        assert said_within(30) == []
        ray.fault = "Ray's raylet died"
        died, *later = said_within(25)
        assert died.startswith("Ray's raylet died; starting Ray again (1 of 2)")
        assert later == ["starting Ray again: 10 s so far", "starting Ray again: 20 s so far"]
        assert said_within(25) == ["Ray runs again; its slots start", *slots]


def test_a_long_step_says_every_few_seconds_what_it_does() -> None:
    lines: queue.Queue[str] = queue.Queue()
    with saying_how_long(lines.put, "reading the trials so far", every=0.01):
        assert re.fullmatch(r"reading the trials so far: [\d.]+ s so far", lines.get(timeout=60))
        lines.get(timeout=60)
    said = lines.qsize()
    assert not [one for one in threading.enumerate() if one.name == "how long"]
    assert lines.qsize() == said


def test_a_short_step_says_nothing() -> None:
    lines: list[str] = []
    with saying_how_long(lines.append, "opening the sweep"):
        pass
    assert lines == []
