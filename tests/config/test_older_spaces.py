"""A regression whose space names `kl`, which version 0.1.0 accepted and trained as `mse`."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsweep.config import SpaceError, load, load_space
from kdsweep.config.loading import Plain
from kdsweep.config.older_spaces import as_trained

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
