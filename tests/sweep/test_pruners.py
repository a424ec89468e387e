"""When a trial is pruned."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsweep.config import load
from kdsweep.sweep.folders import Home
from kdsweep.sweep.studies import Studies
from kdsweep.sweep.study_storage import StudyStorage

SPACE = """\
name: pruned
task: {dataset: rows.csv, text: text, label: label}
student: {model: none}
strategies: {finetune: {alpha: 1.0, learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}}}
"""


@pytest.mark.parametrize("warmup", [0, 1, 2])
def test_median_prunes_at_no_evaluation_of_its_warmup_and_at_the_next_one(
    tmp_path: Path, warmup: int
) -> None:
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")
    plan = load(
        tmp_path / "space.yaml",
        assignments=(
            "sampler={type: tpe, lag: 1}",
            f"pruner={{type: median, startup_trials: 1, warmup_evaluations: {warmup}}}",
        ),
    )
    studies = Studies(
        StudyStorage(f"sqlite:///{tmp_path / 'optuna.db'}"),
        plan.name,
        plan.space,
        plan.sweep,
        Home(tmp_path).sweep(plan.name),
    )
    good, bad = studies.ask("finetune"), studies.ask("finetune")
    for evaluation in (1, 2, 3, 4):
        studies.report(good, evaluation, 0.9)
    studies.tell(good, "complete", 0.9)
    pruned = [studies.report(bad, evaluation, 0.1) for evaluation in (1, 2, 3, 4)]
    assert pruned == [evaluation > warmup for evaluation in (1, 2, 3, 4)]
