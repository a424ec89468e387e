"""The time left: a sweep of known durations is replayed with a set clock."""

from __future__ import annotations

import heapq

import pytest

from kdsweep.sweep.progress import Progress, SeedRunCounts, SweepProgress
from kdsweep.terminal.pace import Pace

TRIALS, SEEDS = 40, 8


def seconds_of(name: str) -> float:
    """Three of four trials are pruned after a quarter. Runs of confirm take as long as a trial."""
    if "seed" in name:
        return 50.0
    number = int(name.split("-")[1])
    return 50.0 + number % 3 if number % 4 == 0 else 12.0 + number % 5


@pytest.mark.parametrize("slots", [1, 4])
def test_what_is_left_is_near_what_it_takes_at_every_part_of_a_sweep(slots: int) -> None:
    now, done = 0.0, 0
    pace, progress = Pace(lambda: now), Progress()
    names = [f"distill-{number}" for number in range(TRIALS)]
    names += [f"distill-0-seed-{index}" for index in range(SEEDS)]
    waiting, running = list(names), []
    predicted: list[tuple[float, float, float]] = []
    while waiting or running:
        while waiting and len(running) < slots:
            name = waiting.pop(0)
            heapq.heappush(running, (now + seconds_of(name), name))
            pace.step(name, 0, 100)
        now, name = heapq.heappop(running)
        is_trial = "seed" not in name
        pace.step(name, 99 if not is_trial or int(name.split("-")[1]) % 4 == 0 else 25, 100)
        pace.over(name)
        if is_trial:
            number = int(name.split("-")[1])
            progress.end(number, "pruned" if number % 4 else "complete", 0.5)
        else:
            done += 1
        runs = SeedRunCounts(0, 0, done, SEEDS, SEEDS)
        pace.progress(SweepProgress({"distill": progress}, {"distill": TRIALS}, runs, now))
        if (found := pace.seconds_left) is not None:
            predicted.append((now, *found))
    for share in (0.1, 0.25, 0.5, 0.75, 0.9):
        at, least, most = next(one for one in predicted if one[0] >= share * now)
        # The last jobs leave slots idle, for as long as one of them takes.
        tolerance = 0.25 * (now - at) + (25.0 if slots > 1 else 0.0)
        assert least - tolerance <= now - at <= most + tolerance
        assert least >= 0.6 * (now - at) - 25.0
    assert pace.words.endswith("spent")
