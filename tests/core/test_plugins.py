"""A package that adds a metric and a divergence to kdsweep."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from kdsweep.compare.statistics import compare, resampled_scores
from kdsweep.config import SpaceError, load, load_space
from kdsweep.core import distillation_loss, plugins
from kdsweep.core.evaluation.metric_table import metric_named
from kdsweep.core.evaluation.metrics import score_logits
from kdsweep.core.tasks import CLASSIFICATION, REGRESSION
from kdsweep.errors import KdsweepError

CODE = """
from kdsweep.core.evaluation.metric import Metric
from kdsweep.core.objective.divergences import Divergence


def share_wrong(labels, predicted, weights):
    return -(weights @ (labels != predicted)) / weights.sum(axis=1)


def hellinger(log_student, log_teacher):
    return ((log_student / 2).exp() - (log_teacher / 2).exp()) ** 2 / 2


NO_ERRORS = Metric("no_errors", ("classification",), -1.0, 0.0, share_wrong)
HELLINGER = Divergence("hellinger", hellinger, True, "Hellinger (1909)", "squared distance")
BROKEN = "no divergence at all"
"""
ENTRY_POINTS = """\
[kdsweep.metrics]
no_errors = extra_scores:NO_ERRORS

[kdsweep.divergences]
hellinger = extra_scores:HELLINGER
broken = extra_scores:BROKEN
missing = extra_scores:NOT_THERE
"""
SPACE = """\
name: own
task: {dataset: x/y, text: t, label: l, metric: no_errors}
teacher: {model: a}
student: {model: b}
strategies:
  s: {alpha: 0.5, learning_rate: 0.001, distill: DIVERGENCE}
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package as pip would install it: its code, and a dist-info folder next to it."""
    site = tmp_path / "site packages"
    info = site / "extra_scores-1.2.3.dist-info"
    info.mkdir(parents=True)
    (site / "extra_scores.py").write_text(CODE, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra-scores\nVersion: 1.2.3\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    plugins.forget()
    yield
    plugins.forget()
    sys.modules.pop("extra_scores", None)


def written(tmp_path: Path, divergence: str) -> Path:
    (tmp_path / "own.yaml").write_text(SPACE.replace("DIVERGENCE", divergence), encoding="utf-8")
    return tmp_path / "own.yaml"


@pytest.mark.usefixtures("installed")
def test_a_space_may_name_them_and_the_package_is_known(tmp_path: Path) -> None:
    space = load(written(tmp_path, "{choices: [kl, hellinger]}")).space
    assert space.task.metric == "no_errors"
    package = ("extra-scores", "1.2.3")
    assert space.plugins() == {"no_errors": package, "hellinger": package}


@pytest.mark.usefixtures("installed")
def test_a_name_that_is_misspelled_is_corrected_to_a_packages(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"own\.yaml:6: .*'hellinger'.*did you mean 'hellinger'"):
        load_space(written(tmp_path, "helinger"))


def test_without_the_package_its_names_are_unknown(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="must be 'accuracy', .*, not 'no_errors'"):
        load_space(written(tmp_path, "kl"))


@pytest.mark.usefixtures("installed")
def test_a_packages_divergence_is_the_loss_times_the_squared_temperature() -> None:
    student = torch.tensor([[0.0, 0.0]])
    teacher = torch.tensor([[2 * math.log(3.0), 0.0]])
    loss = distillation_loss(
        student, teacher, torch.tensor([0]), alpha=0.0, temperature=2.0, divergence="hellinger"
    )
    # At T = 2 the teacher says 3/4 and 1/4, the student 1/2 and 1/2.
    pairs = ((0.75, 0.5), (0.25, 0.5))
    by_hand = sum((math.sqrt(p) - math.sqrt(q)) ** 2 for p, q in pairs) / 2
    assert loss.distill.item() == pytest.approx(4 * by_hand, abs=1e-6)


@pytest.mark.usefixtures("installed")
def test_a_packages_divergence_of_probabilities_is_refused_in_a_regression(tmp_path: Path) -> None:
    assert "compares probabilities" in str(REGRESSION.unfit("distill.logits", "hellinger"))


@pytest.mark.usefixtures("installed")
def test_a_packages_metric_is_judged_resampled_and_kept_within_its_bounds() -> None:
    labels = np.array([0, 1, 1, 1])
    logits = np.eye(2)[[0, 1, 1, 0]]
    assert score_logits("no_errors", labels, logits, CLASSIFICATION)["no_errors"] == -1 / 4
    predicted = [np.array([0, 1, 1, 0]), np.array([0, 1, 1, 1])]
    drawn = resampled_scores("no_errors", labels, predicted, draws=50, seed=0)
    assert drawn.shape == (2, 50)
    assert (drawn[1] == 0).all()
    assert set(np.unique(drawn[0])) <= {-1.0, -0.75, -0.5, -0.25, 0.0}
    mean = compare("no_errors", labels, {"a": dict(enumerate(predicted))}).means["a"]
    assert mean.high is not None and mean.high <= 0.0
    assert metric_named("no_errors").lowest == -1.0


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "reason"),
    [("broken", "must be a Divergence"), ("missing", "has no attribute 'NOT_THERE'")],
)
def test_what_cannot_be_loaded_is_one_line_with_the_package(
    name: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(KdsweepError, match=f"{name} of extra-scores 1.2.3 .*{reason}"):
        load_space(written(tmp_path, name)).task.kind.unfit("distill.logits", name)
        distillation_loss(
            torch.zeros(1, 2),
            torch.zeros(1, 2),
            torch.tensor([0]),
            alpha=0.0,
            divergence=name,
        )
