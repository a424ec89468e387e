"""When the pruner that knows what is noise stops a trial."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from kdsweep.config import load
from kdsweep.core.evaluation.metric_table import metric_named
from kdsweep.sweep.folders import Home
from kdsweep.sweep.paired_pruner import p_worse
from kdsweep.sweep.studies import SearchTrial, Studies
from kdsweep.sweep.study_storage import StudyStorage
from kdsweep.trial_id import TrialId

SPACE = """\
name: pruned
task: {dataset: rows.csv, text: text, label: label}
teacher: {model: none}
student: {model: none}
training: {epochs: EPOCHS, evaluations_per_epoch: 2, warmup: WARMUP}
strategies: {finetune: {alpha: ALPHA, learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}}}
"""
STEP = "{shape: step, values: [0.0, 1.0], at: 0.4}"
LABELS = np.random.default_rng(0).integers(0, 2, 400)


class Sweep:
    """A strategy whose trials predict as they are told to; nothing is trained."""

    def __init__(self, folder: Path, **changes: str) -> None:
        values = {"EPOCHS": "2", "WARMUP": "0.1", "ALPHA": "1.0"} | changes
        text = SPACE
        for name, value in values.items():
            text = text.replace(name, value)
        (folder / "space.yaml").write_text(text, encoding="utf-8")
        plan = load(
            folder / "space.yaml",
            assignments=(
                "sampler={type: random, lag: 1}",
                "pruner={type: paired, level: 0.01, min_trials: 2}",
            ),
        )
        self.folder = Home(folder).sweep(plan.name)
        self.studies = Studies(
            StudyStorage(f"sqlite:///{folder / 'optuna.db'}"),
            plan.name,
            plan.space,
            plan.sweep,
            self.folder,
        )
        self.predictions: dict[int, list[np.ndarray]] = {}

    def start(self) -> SearchTrial:
        trial = self.studies.ask("finetune")
        self.folder.trial(trial.id).claim(trial.settings)
        self.predictions[trial.id.number] = []
        return trial

    def evaluate(self, trial: SearchTrial, wrong: int) -> bool:
        """Whether it is pruned after an evaluation that has the first `wrong` rows wrong."""
        predicted = LABELS.copy()
        predicted[:wrong] = 1 - predicted[:wrong]
        kept = self.predictions[trial.id.number]
        kept.append(predicted)
        self.folder.trial(trial.id).write_evaluation_predictions(LABELS, kept)
        value = metric_named("accuracy").score(LABELS, predicted)
        return self.studies.report(trial, len(kept), value)

    def complete(self, *wrong: int) -> None:
        trial = self.start()
        for one in wrong:
            self.evaluate(trial, one)
        self.studies.tell(trial, "complete", 1 - min(wrong) / len(LABELS))


def test_a_trial_is_stopped_where_it_is_worse_by_more_than_noise(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    for _ in range(2):
        sweep.complete(40, 40, 40, 40)
    trial = sweep.start()
    assert not sweep.evaluate(trial, 44)  # 4 of 400 rows: that is chance
    assert sweep.evaluate(trial, 60)


def test_a_rung_stops_nothing_until_enough_trials_have_reached_it(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    sweep.complete(40, 40, 40, 40)
    trial = sweep.start()
    assert not sweep.evaluate(trial, 200)
    sweep.studies.tell(trial, "complete", 0.5)
    assert sweep.evaluate(sweep.start(), 200)


def test_a_trial_goes_on_through_its_warm_up_and_until_its_schedule_has_switched(
    tmp_path: Path,
) -> None:
    for changes, expected in (
        ({}, [True, True, True]),
        ({"WARMUP": "0.3"}, [False, True, True]),
        ({"ALPHA": STEP}, [False, False, True]),
    ):
        folder = tmp_path / str(len(changes) + len(str(changes)))
        folder.mkdir()
        sweep = Sweep(folder, **changes)
        for _ in range(2):
            sweep.complete(40, 40, 40, 40)
        trial = sweep.start()
        assert [sweep.evaluate(trial, 200) for _ in range(3)] == expected


def test_after_its_last_evaluation_a_trial_isnt_stopped(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    for _ in range(2):
        sweep.complete(40, 40, 40, 40)
    trial = sweep.start()
    for _ in range(3):
        sweep.evaluate(trial, 40)
    assert not sweep.evaluate(trial, 200)


def test_trials_are_compared_after_the_same_share_of_their_training(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, EPOCHS="{choices: [1, 2]}")
    lengths = []
    while len(lengths) < 12:
        trial = sweep.start()
        evaluations = 2 * trial.settings.training.epochs
        lengths.append(evaluations)
        # Halfway all have 100 wrong, before that more, and after that fewer.
        for number in range(1, evaluations + 1):
            wrong = {0.25: 190, 0.5: 100, 0.75: 60, 1.0: 40}[number / evaluations]
            assert not sweep.evaluate(trial, wrong)
        sweep.studies.tell(trial, "complete", 0.9)
    assert set(lengths) == {2, 4}


def test_a_trial_that_kept_no_predictions_is_no_leader_that_stops_another(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    for _ in range(2):
        sweep.complete(40, 40, 40, 40)
    for file in (sweep.folder.trials).rglob("evaluation_predictions.npy"):
        file.unlink()
    assert not sweep.evaluate(sweep.start(), 200)


def test_predictions_that_are_late_on_a_shared_disk_count_once_they_are_there(
    tmp_path: Path,
) -> None:
    sweep = Sweep(tmp_path)
    for _ in range(2):
        sweep.complete(40, 40, 40, 40)
    files = [sweep.folder.trial(TrialId("finetune", number)) for number in (0, 1)]
    kept = [one.evaluation_predictions.read_bytes() for one in files]
    for one in files:
        one.evaluation_predictions.unlink()
    sweep.studies.write()
    resumed = Sweep(tmp_path)
    trial = resumed.start()
    assert not resumed.evaluate(trial, 200)
    for one, content in zip(files, kept, strict=True):
        one.evaluation_predictions.write_bytes(content)
    assert resumed.evaluate(trial, 200)


def test_a_trial_whose_folder_is_gone_is_no_leader_either(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    for _ in range(2):
        sweep.complete(40, 40, 40, 40)
    sweep.studies.write()
    for number in (0, 1):
        shutil.rmtree(sweep.folder.trial(TrialId("finetune", number)).root)
    resumed = Sweep(tmp_path)
    assert not resumed.evaluate(resumed.start(), 200)


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro", "matthews"])
def test_chance_alone_rarely_has_a_small_p(metric: str) -> None:
    draw = np.random.default_rng(1)
    found = []
    for _ in range(200):
        labels = draw.integers(0, 3, 300)
        one, other = (
            np.where(draw.random(300) < 0.8, labels, draw.integers(0, 3, 300)) for _ in range(2)
        )
        found.append(p_worse(metric, labels, one, other))
    share = np.mean(np.array(found) < 0.05)
    # 5% are meant; 200 draws know that to within 1.5 points.
    assert 0.01 <= share <= 0.1


def test_a_difference_on_few_rows_is_never_sure() -> None:
    labels = np.zeros(1000, dtype=int)
    trial = labels.copy()
    trial[:4] = 1
    assert p_worse("accuracy", labels, trial, labels) == pytest.approx(1 / 16)
    assert p_worse("accuracy", labels, labels, trial) == 1.0
