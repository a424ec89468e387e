"""A sweep whose trials learn from rows that only the teacher labels, and a replay of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SPACE, sentences, write_csv

from kdsweep.core.files import read_json
from kdsweep.errors import DataError
from kdsweep.replay import replay
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.sweep.observer import Observer


class Lines(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_a_sweep_reads_them_counts_them_and_replays_with_them(
    tmp_path: Path, tiny: Callable[..., str], review_csv: Path
) -> None:
    space, more, observer = tmp_path / "tiny.yaml", tmp_path / "more.csv", Lines()
    space.write_text(
        SPACE.format(
            data=review_csv, teacher=tiny("bert", layers=2), student=tiny("bert", layers=2)
        ),
        encoding="utf-8",
    )
    write_csv(more, [(f"{text} film", "") for text, _ in sentences(80, seed=3)] + sentences(20))
    views = "strategies.distill.augment={views: {choices: [1, 2]}, mask: 0.2, ngram: 0.2}"
    assignments = (
        "task.unlabelled=more.csv",
        views,
        "trials=2",
        "keep={students: 0}",
        "confirm={seeds: 0}",
        "pruner={type: none}",
        "training.epochs=1",
    )
    report = run(space, home=tmp_path, assignments=assignments, observer=observer)
    assert {name: found.trials.complete for name, found in report.strategies.items()} == {
        "finetune": 2,
        "distill": 2,
        "combined": 2,
    }
    assert (
        "data: unlabelled: 20 rows dropped: their text is in a split of the task too"
        in observer.lines
    )
    assert any(
        line.startswith("data: ") and line.endswith(", unlabelled 80 rows")
        for line in observer.lines
    )
    folder = Home(tmp_path).sweep("tiny")
    assert set(read_json(folder.facts)["data"]) == {"train", "validation", "test", "unlabelled"}
    found = sorted((read_json(file) for file in folder.trials.glob("*/settings.json")), key=str)
    assert sum("augment" in settings for settings in found) == 2
    made = list((Home(tmp_path).cache / "views").glob("*/meta.json"))
    assert len(made) == max(
        settings["augment"]["views"] for settings in found if "augment" in settings
    )  # the second view is added to the first
    assert replay(Home(tmp_path), "tiny", "distill-1").verdict == "identical"
    write_csv(more, [(f"{text} film", "") for text, _ in sentences(50, seed=3)])
    with pytest.raises(
        DataError,
        match=r"the rows of unlabelled have changed since .*more.csv; unlabelled: 80 rows, now 50",
    ):
        replay(Home(tmp_path), "tiny", "distill-1")
