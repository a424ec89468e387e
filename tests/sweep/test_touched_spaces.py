"""Which spaces each mended fault touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from ruamel.yaml import YAML

from kdsweep.config import SearchSpace, load_space
from kdsweep.core.data.rows import Split, TaskData
from kdsweep.core.tasks import REGRESSION
from kdsweep.core.trial_folder import TrialResult
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.mended_faults import FAULTS, EarlierSweep
from kdsweep.sweep.preflight import Checked
from kdsweep.trial_id import TrialId

# None of these faults asks what the rows or the models are.
NOT_CHECKED = cast(Any, None)
VIEWS = {"views": 1, "swap": 0.1}


def space_of(folder: Path, kind: str, **strategy: Any) -> SearchSpace:
    metric = {"multi_label": "f1_micro", "regression": "pearson"}.get(kind, "accuracy")
    data = {
        "name": "one",
        "task": {"dataset": "rows.csv", "kind": kind, "text": "text", "label": "label"}
        | {"metric": metric},
        "teacher": {"model": "bert", "folds": strategy.pop("folds", None)},
        "student": {"model": "bert"},
        "training": {"learning_rate": 0.001} | strategy.pop("training", {}),
        "strategies": {"mine": {"alpha": 0.5} | strategy},
    }
    if data["teacher"]["folds"] is None:
        del data["teacher"]["folds"]
    YAML().dump(data, folder / "space.yaml")
    return load_space(folder / "space.yaml")


@pytest.mark.parametrize(
    ("fault", "kind", "strategy", "touched"),
    [
        ("squared error of several labels", "multi_label", {"distill": "mse"}, "distill: mse"),
        (
            "squared error of several labels",
            "multi_label",
            {"distill": {"logits": {"choices": ["kl", "mse"]}}},
            "distill: mse",
        ),
        ("squared error of several labels", "multi_label", {"distill": "kl"}, None),
        ("squared error of several labels", "multi_label", {"distill": "mse", "alpha": 1.0}, None),
        ("squared error of several labels", "classification", {"distill": "mse"}, None),
        ("squared error of several labels", "regression", {}, None),
        (
            "high temperatures",
            "classification",
            {"temperature": {"low": 1.0, "high": 1e4}},
            "temperatures up to 10000",
        ),
        ("high temperatures", "classification", {"temperature": {"low": 1.0, "high": 10.0}}, None),
        ("high temperatures", "classification", {"temperature": 1e4, "distill": "mse"}, None),
        (
            "means over tokens",
            "classification",
            {"distill": {"hidden": 1.0}, "training": {"accumulation_steps": 4}},
            "accumulation_steps",
        ),
        ("means over tokens", "classification", {"distill": {"hidden": 1.0}}, None),
        ("means over tokens", "classification", {"training": {"accumulation_steps": 4}}, None),
        ("views of folds", "classification", {"folds": 2, "augment": VIEWS}, "augment"),
        (
            "views of folds",
            "classification",
            {"teacher": {"folds": 2}, "augment": VIEWS},
            "augment",
        ),
        ("views of folds", "classification", {"augment": VIEWS}, None),
        ("views of folds", "classification", {"folds": 2}, None),
        (
            "views of folds",
            "classification",
            {"folds": 2, "alpha": 1.0, "augment": VIEWS | {"in_finetuning": True}},
            None,
        ),
    ],
)
def test_a_fault_names_the_strategy_that_it_touched(
    fault: str, kind: str, strategy: dict[str, Any], touched: str | None, tmp_path: Path
) -> None:
    sweep = EarlierSweep(SweepFolder(tmp_path), space_of(tmp_path, kind, **strategy), NOT_CHECKED)
    found = FAULTS[fault].touched(sweep)
    assert found == (None if touched is None else f"{touched} of mine")


def test_a_trial_that_ran_out_of_memory_counts_as_one_with_accumulation_steps(
    tmp_path: Path,
) -> None:
    space = space_of(tmp_path, "classification", distill={"cosine": 1.0})
    folder = SweepFolder(tmp_path)
    sweep = EarlierSweep(folder, space, NOT_CHECKED)
    touched = FAULTS["means over tokens"].touched
    for number, micro_batch in enumerate([None, 8]):
        trial = folder.trial(TrialId("mine", number))
        trial.root.mkdir(parents=True)
        trial.settings.write_text("{}")
        assert touched(sweep) is None
        trial.write_result(TrialResult("diverged", 3, 1.0, micro_batch=micro_batch))
    assert touched(sweep) == "mine-1, which ran out of memory"


@pytest.mark.parametrize(("largest", "touched"), [(5000.0, True), (5.0, False)])
def test_labels_of_a_large_scale_were_not_standardized(
    largest: float, touched: bool, tmp_path: Path
) -> None:
    space = space_of(tmp_path, "regression")
    labels = np.array([0.0, largest], dtype=np.float32)
    train = Split("train", (["a", "b"],), labels, "key")
    data = TaskData(REGRESSION, ("label",), {"train": train}, ())
    checked = Checked(data, None, (), [], [], [])
    sweep = EarlierSweep(SweepFolder(tmp_path), space, checked)
    found = FAULTS["label scale"].touched(sweep)
    assert found == ("mean 2500, deviation 2500" if touched else None)
