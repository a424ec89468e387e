"""What a sweep that exists keeps where its file leaves something to defaults: its sampler's lag."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsweep.config import Plan, load
from kdsweep.config.loading import Plain
from kdsweep.config.sweep import LAG, WHATEVER_HAS_ENDED
from kdsweep.sweep.facts import SweepFacts

SPACE = """\
name: lags
task: {dataset: rows.csv, text: text, label: label}
student: {model: none}
strategies: {finetune: {alpha: 1.0, learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}}}
"""


def planned(tmp_path: Path, *assignments: str) -> Plan:
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")
    return load(tmp_path / "space.yaml", assignments=assignments)


def older(plan: Plan) -> dict[str, Plain]:
    """The identity of a sweep that was created before there was a lag."""
    sampler = plan.identity["sampler"]
    assert isinstance(sampler, dict)
    return plan.identity | {"sampler": {key: one for key, one in sampler.items() if key != "lag"}}


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
def test_a_new_sweep_has_the_lag_in_its_identity(tmp_path: Path, sampler: str) -> None:
    identity = planned(tmp_path, f"sampler={{type: {sampler}}}").identity
    assert isinstance(identity["sampler"], dict)
    assert identity["sampler"]["lag"] == LAG


@pytest.mark.parametrize("named", [(), ("sampler={type: tpe, seed: 0}",)])
def test_a_sweep_without_a_stored_lag_keeps_the_old_rule_and_its_identity(
    tmp_path: Path, named: tuple[str, ...]
) -> None:
    plan = planned(tmp_path, *named)
    resumed = plan.with_rules_of(older(plan))
    assert resumed.sweep.sampler.lag == WHATEVER_HAS_ENDED
    assert resumed.identity == older(plan)
    shown = resumed.sweep.model_dump(mode="json")
    facts = SweepFacts("0.1.0", resumed.identity, "lags", shown)
    assert facts.config("lags", {}).sampler == resumed.sweep.sampler


def test_a_sweep_keeps_the_lag_that_it_was_started_with_unless_another_is_named(
    tmp_path: Path,
) -> None:
    stored = planned(tmp_path, "sampler={type: tpe, lag: 7}").identity
    assert planned(tmp_path).with_rules_of(stored).identity == stored
    other = planned(tmp_path, "sampler={type: tpe, lag: 3}").with_rules_of(stored)
    assert other.sweep.sampler.lag == 3
