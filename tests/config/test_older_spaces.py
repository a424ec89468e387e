"""A sweep that resumes keeps the rules and defaults of its time, and its way of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdsweep.config import Plan, SpaceError, load, load_space
from kdsweep.config.loading import Plain
from kdsweep.config.older_spaces import as_trained
from kdsweep.config.sweep import MedianPruner

SPACE = """\
name: scores
task: {dataset: x/y, text: t, label: l, kind: KIND, metric: METRIC}
teacher: {model: a}
student: {model: b}
strategies:
  s:
    alpha: 0.5
    learning_rate: 0.001
    DISTILL
"""


def written(tmp_path: Path, distill: str, kind: str = "regression") -> Path:
    metric = "pearson" if kind == "regression" else "accuracy"
    text = SPACE.replace("KIND", kind).replace("METRIC", metric).replace("DISTILL", distill)
    (tmp_path / "space.yaml").write_text(text, encoding="utf-8")
    return tmp_path / "space.yaml"


def identity(tmp_path: Path, distill: str, kind: str = "regression") -> dict[str, Plain]:
    return as_trained(load(written(tmp_path, distill, kind)).identity)


@pytest.mark.parametrize("distill", ["distill: kl", "distill: {choices: [mse, kl]}", "distill: js"])
def test_a_space_that_names_a_divergence_of_probabilities_is_refused(
    distill: str, tmp_path: Path
) -> None:
    with pytest.raises(SpaceError, match=r"space\.yaml:9: strategies\.s\.distill.* has none"):
        load_space(written(tmp_path, distill))


@pytest.mark.parametrize("distill", ["distill: kl", "distill: {choices: [mse, kl]}"])
def test_a_stored_space_that_names_kl_trains_mse(distill: str, tmp_path: Path) -> None:
    space = load_space(written(tmp_path, distill), is_stored=True)
    trial = space.settle("s", lambda parameter: "kl", seed=0)
    assert trial.divergence == "mse"


def test_a_stored_space_that_names_what_was_always_refused_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="compares probabilities"):
        load_space(written(tmp_path, "distill: reverse_kl"), is_stored=True)


@pytest.mark.parametrize("distill", ["distill: mse", "distill: {logits: mse}", ""])
def test_a_sweep_that_was_started_with_kl_is_the_same_without_it(
    distill: str, tmp_path: Path
) -> None:
    now = load(written(tmp_path, distill)).identity
    stored = load(written(tmp_path, "")).identity
    space = stored["space"]
    assert isinstance(space, dict)
    space["strategies"] = {"s": {"alpha": 0.5, "learning_rate": 0.001, "distill": "kl"}}
    assert stored != now
    assert as_trained(stored) == as_trained(now)


def test_other_divergences_and_other_terms_still_make_another_sweep(tmp_path: Path) -> None:
    plain = identity(tmp_path, "")
    assert identity(tmp_path, "distill: {hidden: 0.5}") != plain
    assert identity(tmp_path, "distill: kl", "classification") != identity(
        tmp_path, "distill: mse", "classification"
    )


# --- rules of the task ---


def test_a_new_space_has_the_newest_rules_and_a_stored_one_those_of_its_time(
    tmp_path: Path,
) -> None:
    path = write_space(tmp_path)
    plan = load(path)
    assert (plan.space.task.split_rule, plan.space.task.label_rule) == (2, 2)
    task = plan.identity["space"]["task"]
    assert (task["split_rule"], task["label_rule"]) == (2, 2)
    stored = load_space(path, is_stored=True).task
    assert (stored.split_rule, stored.label_rule) == (1, 1)
    assert "split_rule" not in stored.model_dump(mode="json")


def test_a_plan_takes_the_rules_of_the_sweep_that_it_resumes(tmp_path: Path) -> None:
    plan = load(write_space(tmp_path, "symmetric: true, text: [a, b]"))
    old = {key: value for key, value in plan.resolved["task"].items() if "rule" not in key}
    old.pop("symmetric")
    resumed = plan.with_rules_of(with_task(plan, old))
    assert resumed.identity["space"]["task"] == old
    assert plan.with_rules_of(plan.identity).identity == plan.identity


def with_task(plan: Plan, task: dict[str, Any]) -> dict[str, Any]:
    return plan.identity | {"space": plan.resolved | {"task": task}}


def test_a_pruner_that_isnt_named_is_the_one_that_the_sweep_was_started_with(
    tmp_path: Path,
) -> None:
    path = write_space(tmp_path)
    stored = load(path, assignments=("pruner={type: median, startup_trials: 7}",)).identity
    resumed = load(path).with_rules_of(stored)
    assert resumed.identity == stored
    assert isinstance(resumed.sweep.pruner, MedianPruner)
    named = load(path, assignments=("pruner={type: none}",)).with_rules_of(stored)
    assert named.sweep.pruner.type == "none"


def test_a_rule_that_the_space_names_stays(tmp_path: Path) -> None:
    plan = load(write_space(tmp_path, "split_rule: 1"))
    assert plan.with_rules_of(with_task(plan, {"split_rule": 2})).space.task.split_rule == 1
    named = load(write_space(tmp_path, "split_rule: 2"))
    assert named.with_rules_of(with_task(named, {})).space.task.split_rule == 2


def test_symmetric_with_the_first_split_rule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="symmetric needs split_rule: 2"):
        load(write_space(tmp_path, "symmetric: true, text: [a, b], split_rule: 1"))


def write_space(folder: Path, task: str = "") -> Path:
    path = folder / "space.yaml"
    keys = {"dataset": "rows.csv", "text": "text", "label": "label"}
    given = [one.split(":")[0].strip() for one in task.replace("[a, b]", "[a b]").split(",")]
    lines = [f"{key}: {value}" for key, value in keys.items() if key not in given]
    path.write_text(
        "name: rules\n"
        f"task: {{{', '.join(filter(None, [*lines, task]))}}}\n"
        "student: {model: nowhere}\n"
        "strategies: {finetune: {alpha: 1.0, learning_rate: 1.0e-3}}\n",
        encoding="utf-8",
    )
    return path
