"""Several teachers: the mixture and its weights by hand, and trials that learn from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from kdsweep.core import TrialSettings, distillation_loss, train
from kdsweep.core.data.loading import load_task
from kdsweep.core.evaluation.fidelity import fidelity
from kdsweep.core.objective.objective import check_same_rows, mixed
from kdsweep.core.objective.teacher_mixture import mixture, teacher_weights
from kdsweep.core.tasks import MULTI_LABEL, REGRESSION
from kdsweep.core.tasks.base import UNLABELLED
from kdsweep.core.teachers.logits import teacher_logits
from kdsweep.core.teachers.selection import prepare_teacher
from kdsweep.core.trial_folder import TrialFolder
from kdsweep.errors import TeacherError

# One row, two teachers, two classes; at T = 2 the first says 3/4 to 1/4, the second 1/5 to 4/5.
SAID = torch.tensor([[[2 * math.log(3.0), 0.0], [0.0, 2 * math.log(4.0)]]])
WEIGHTS = torch.tensor([[0.75, 0.25]])
STUDENT = torch.zeros(1, 2)
LABELS = torch.tensor([0])


def test_a_mixture_is_the_weighed_mean_of_probabilities_not_of_logits() -> None:
    first = 0.75 * 3 / 4 + 0.25 * 1 / 5
    assert mixture(SAID, WEIGHTS, 2.0).exp().tolist()[0] == pytest.approx([first, 1 - first])
    of_logits = functional.softmax((WEIGHTS.unsqueeze(-1) * SAID).sum(1) / 2, dim=-1)
    assert of_logits[0, 0].item() != pytest.approx(first, abs=0.001)
    # One temperature a row: at T = 1 the same logits are 9/10 and 1/17.
    rows = mixture(SAID.repeat(2, 1, 1), WEIGHTS.repeat(2, 1), torch.tensor([2.0, 1.0])).exp()
    assert rows[:, 0].tolist() == pytest.approx([first, 0.75 * 9 / 10 + 0.25 * 1 / 17])


def test_the_loss_of_a_mixture_by_hand() -> None:
    """The student says 1/2 to 1/2; p is 0.6125 to 0.3875; T^2 is 4."""
    p, q = 0.6125, 0.3875
    how: dict[str, Any] = {"alpha": 0.0, "temperature": 2.0, "teacher_weights": WEIGHTS}
    assert distillation_loss(STUDENT, SAID, LABELS, **how).distill.item() == pytest.approx(
        4 * (p * math.log(2 * p) + q * math.log(2 * q)), abs=1e-6
    )
    assert distillation_loss(
        STUDENT, SAID, LABELS, divergence="soft_ce", **how
    ).distill.item() == pytest.approx(4 * math.log(2), abs=1e-6)
    reverse = 4 * (0.5 * math.log(0.5 / p) + 0.5 * math.log(0.5 / q))
    assert distillation_loss(
        STUDENT, SAID, LABELS, divergence="reverse_kl", **how
    ).distill.item() == pytest.approx(reverse, abs=1e-6)
    mean = [0.75 * 2 * math.log(3), 0.25 * 2 * math.log(4)]
    assert distillation_loss(
        STUDENT, SAID, LABELS, divergence="mse", **how
    ).distill.item() == pytest.approx((mean[0] ** 2 + mean[1] ** 2) / 2, abs=1e-5)
    # In a regression both terms are squared errors: to the teachers' weighted mean,
    # 0.75 * 2 + 0.25 * 4 = 2.5.
    guessed = distillation_loss(
        torch.zeros(1, 1),
        torch.tensor([[[2.0], [4.0]]]),
        torch.tensor([1.0]),
        kind=REGRESSION,
        **how,
    )
    assert guessed.distill.item() == pytest.approx(2.5**2)


def test_with_several_labels_a_row_each_label_has_a_mixture_of_its_own() -> None:
    said = torch.tensor(
        [[[2 * math.log(3.0), 0.0], [-2 * math.log(4.0), 0.0]]]
    )  # yes to the first label: 3/4 and 1/5; to the second: 1/2 and 1/2
    loss = distillation_loss(
        torch.zeros(1, 2),
        said,
        torch.tensor([[1.0, 0.0]]),
        alpha=0.0,
        temperature=2.0,
        teacher_weights=WEIGHTS,
        kind=MULTI_LABEL,
    )
    p, q = 0.6125, 0.3875
    # The student says 1/2 to both. The second label is 1/2 to both teachers too and adds 0; the
    # mean is over two labels.
    assert loss.distill.item() == pytest.approx(
        4 * (p * math.log(2 * p) + q * math.log(2 * q)) / 2, abs=1e-5
    )


def test_a_teacher_with_all_the_weight_stands_alone_and_gradients_are_weighted_means() -> None:
    torch.manual_seed(0)
    said, labels = torch.randn(6, 3, 4), torch.randint(0, 4, (6,))
    how: dict[str, Any] = {"alpha": 0.3, "temperature": 3.0}
    alone = distillation_loss(torch.ones(6, 4), said[:, 1], labels, **how)
    all_of_it = torch.tensor([[0.0, 1.0, 0.0]]).expand(6, 3)
    assert distillation_loss(
        torch.ones(6, 4), said, labels, teacher_weights=all_of_it, **how
    ).total.item() == pytest.approx(alone.total.item(), abs=1e-6)
    # Cross-entropy is linear in p: the gradient to a mixture is the weighted mean of those to each.
    student = torch.randn(6, 4, requires_grad=True)
    weights = torch.tensor([[0.5, 0.3, 0.2]]).expand(6, 3)
    [both] = torch.autograd.grad(
        distillation_loss(student, said, labels, teacher_weights=weights, **how).distill, student
    )
    each = [
        torch.autograd.grad(distillation_loss(student, said[:, k], labels, **how).distill, student)[
            0
        ]
        for k in range(3)
    ]
    torch.testing.assert_close(both, 0.5 * each[0] + 0.3 * each[1] + 0.2 * each[2])


def test_weights_by_confidence_by_hand() -> None:
    """At T = 1 the first teacher says 9/10 to 1/10, the second 1/17 to 16/17."""
    equal = torch.ones(2)
    assert teacher_weights(SAID, LABELS, torch.tensor([3.0, 1.0])).tolist() == [[0.75, 0.25]]
    gold = teacher_weights(SAID, LABELS, equal, "label_confidence")[0].tolist()
    assert gold == pytest.approx([0.9 / (0.9 + 1 / 17), (1 / 17) / (0.9 + 1 / 17)], abs=1e-5)
    # Zhang, Chen, Wang, equation 3, for two teachers: (1 - exp(L_k) / sum exp(L)) / (2 - 1), with
    # exp(L) one over the label's probability.
    assert gold[0] == pytest.approx(1 - (1 / 0.9) / (1 / 0.9 + 17), abs=1e-5)
    sure = [1 + (p * math.log(p) + (1 - p) * math.log(1 - p)) / math.log(2) for p in (0.9, 16 / 17)]
    assert teacher_weights(SAID, LABELS, equal, "certainty")[0].tolist() == pytest.approx(
        [one / sum(sure) for one in sure], abs=1e-5
    )
    assert teacher_weights(SAID, LABELS, torch.tensor([3.0, 1.0]), "certainty")[
        0, 0
    ].item() == pytest.approx(3 * sure[0] / (3 * sure[0] + sure[1]), abs=1e-5)
    # A row without a label, and one of which no teacher is sure, have the plain weights.
    assert teacher_weights(
        SAID, torch.tensor([UNLABELLED]), torch.tensor([3.0, 1.0]), "label_confidence"
    ).tolist() == [[0.75, 0.25]]
    assert teacher_weights(torch.zeros(1, 2, 2), LABELS, torch.tensor([3.0, 1.0]), "certainty")[
        0
    ].tolist() == pytest.approx([0.75, 0.25])
    # Two labels a row, the second not known: yes to the first is 9/10 and 1/2.
    several = torch.tensor([[[math.log(9.0), 5.0], [0.0, 5.0]]])
    labels = torch.tensor([[1.0, math.nan]])
    found = teacher_weights(several, labels, equal, "label_confidence", MULTI_LABEL)
    assert found[0, 0].item() == pytest.approx(0.9 / 1.4, abs=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="in a regression: it has no probabilities; use weights"):
        teacher_weights(
            torch.zeros(1, 2, 1), torch.tensor([1.0]), torch.ones(2), "certainty", REGRESSION
        )
    with pytest.raises(
        ValueError, match=r"teacher logits \(1, 2, 2\) must have the student's shape \(1, 3\)"
    ):
        distillation_loss(torch.zeros(1, 3), SAID, LABELS, alpha=0.0, teacher_weights=WEIGHTS)
    with pytest.raises(ValueError, match=r"weights \[rows, teachers\], not \(1, 3\)"):
        distillation_loss(STUDENT, SAID, LABELS, alpha=0.0, teacher_weights=torch.ones(1, 3))
    with pytest.raises(
        TeacherError, match=r"teacher 2: its logits are \(4, 2\), but there are 5 labels"
    ):
        check_same_rows(np.zeros(5), [np.zeros((5, 2)), np.zeros((4, 2))])
    with pytest.raises(
        TeacherError,
        match=r"teacher 2: its logits are \(5, 3\), but there are 5 labels and 2 classes",
    ):
        check_same_rows(np.zeros(5), [np.zeros((5, 2)), np.zeros((5, 3))])


# --- trials ---


@pytest.fixture(scope="module")
def make(tiny: Callable[..., str], review_csv: Path) -> Callable[..., TrialSettings]:
    training = {
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 4e-3,
        "max_length": 24,
        "warmup": 0.0,
    }
    first, second = (
        {"model": tiny(family), "training": training} for family in ("bert", "electra")
    )

    def build(weights: tuple[float, float] | None = (1.0, 1.0), **changes: Any) -> TrialSettings:
        plain: dict[str, Any] = {
            "task": {"dataset": str(review_csv), "text": "text", "label": "label", "holdout": 0.2},
            "teacher": first,
            "student": {"model": tiny("distilbert", layers=1)},
            "training": {"epochs": 1, "batch_size": 16, "max_length": 24},
            "alpha": 0.0,
            "temperature": 3.0,
            "learning_rate": 2e-3,
        }
        if weights is not None:
            plain |= {
                "teacher": first | {"weight": weights[0]},
                "further_teachers": [second | {"weight": weights[1]}],
            }
        return TrialSettings.model_validate(plain | changes)

    return build


def student(settings: TrialSettings, folder: Path, cache: Path) -> dict[str, torch.Tensor]:
    list(train(settings, folder, cache=cache))
    return load_file(folder / "student" / "model.safetensors")


def test_teachers_of_other_architectures_teach_as_much_as_they_weigh(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    alone = student(make(None), tmp_path / "alone", cache)
    almost = student(make((1.0, 1e-12)), tmp_path / "almost", cache)
    both = student(make(), tmp_path / "both", cache)
    assert max((almost[name] - alone[name]).abs().max().item() for name in alone) < 1e-3
    assert max((both[name] - alone[name]).abs().max().item() for name in alone) > 2e-3
    scaled = student(make((2.0, 2.0)), tmp_path / "scaled", cache)
    assert all(
        torch.equal(both[name], scaled[name]) for name in both
    )  # only their proportion counts


@pytest.mark.parametrize(
    "distill",
    [
        {"combine": "label_confidence"},
        {"combine": "certainty", "temperature_follows": "confidence"},
        {"logits": "mse"},
    ],
)
def test_each_way_of_combining_is_another_student(
    distill: dict[str, str], make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    both = student(make(), tmp_path / "both", cache)
    other = student(make(distill=distill), tmp_path / "other", cache)
    assert any(not torch.equal(both[name], other[name]) for name in both)


def test_agreement_is_with_what_the_teachers_say_together_and_never_by_validation_s_labels(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    settings = make((1.0, 3.0), distill={"combine": "label_confidence"}, judge_test=True)
    list(train(settings, tmp_path / "trial", cache=cache))
    data = load_task(settings.task, cache)
    theirs = [
        np.asarray(
            teacher_logits(
                prepare_teacher(settings.task, one, cache), data, cache=cache, split="test"
            )
        )
        for one in settings.teachers
    ]
    mean = sum(
        weight * torch.softmax(torch.tensor(one), -1)
        for weight, one in zip((0.25, 0.75), theirs, strict=True)
    )
    together = mixed(theirs, data.test.labels, settings)
    torch.testing.assert_close(torch.from_numpy(together).exp(), mean, atol=1e-5, rtol=1e-4)
    answers = TrialFolder(tmp_path / "trial").read_test_logits()
    assert fidelity(together, answers, data.kind)["agreement"] == pytest.approx(
        (mean.argmax(1).numpy() == answers.argmax(1)).mean()
    )
    told = TrialFolder(tmp_path / "trial").read_evaluations()[-1].metrics
    assert "validation/agreement" in told
    theirs = [
        np.asarray(
            teacher_logits(
                prepare_teacher(settings.task, one, cache), data, cache=cache, split="validation"
            )
        )
        for one in settings.teachers
    ]
    assert (
        told["teachers/accuracy"]
        == (
            mixed(theirs, data.validation.labels, settings).argmax(1) == data.validation.labels
        ).mean()
    )


def test_settings_go_through_json_and_those_of_earlier_versions_stay_as_they_are(
    make: Callable[..., TrialSettings],
) -> None:
    settings = make((1.0, 3.0), distill={"combine": "certainty"})
    assert TrialSettings.model_validate_json(settings.model_dump_json()) == settings
    plain = make(None).model_dump(mode="json")
    assert (
        "further_teachers" not in plain
        and "weight" not in plain["teacher"]
        and "distill" not in plain
    )
    with pytest.raises(ValueError, match="further_teachers needs .teacher. too"):
        make(teacher=None, alpha=1.0)
