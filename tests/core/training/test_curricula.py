"""What moves when: frozen bodies, layers at their own rates, smoothed labels, temperatures that follow the teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kdsweep.core import TrialSettings, distillation_loss, train
from kdsweep.core.models.layers import depths
from kdsweep.core.models.loading import load_classifier
from kdsweep.core.objective.teacher_mixture import confident_temperature
from kdsweep.core.tasks import MULTI_LABEL, REGRESSION
from kdsweep.core.tasks.base import UNLABELLED
from kdsweep.core.training.optimizer import AdamW, decayed_groups
from kdsweep.errors import Interrupted


@pytest.fixture(scope="module")
def make(plain_trial: dict[str, Any], tiny: Callable[..., str]) -> Callable[..., TrialSettings]:
    plain = {name: plain_trial[name] for name in ("task", "learning_rate")} | {
        "student": {"model": tiny("bert", layers=2)},
        "alpha": 1.0,
    }

    def build(*, training: dict[str, Any] | None = None, **changes: Any) -> TrialSettings:
        return TrialSettings.model_validate(
            plain | {"training": plain_trial["training"] | (training or {})} | changes
        )

    return build


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "student" / "model.safetensors")


# --- frozen until ----------------------------------------------------------------------------------------------------


def test_a_frozen_body_stays_bit_for_bit_and_the_head_learns(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path, tiny: Callable[..., str]
) -> None:
    settings = make(training={"frozen_until": 0.999})
    list(train(settings, tmp_path / "trial", cache=cache, on_step=lambda step, total: False))
    torch.manual_seed(settings.seed)
    before, after = (
        load_classifier(tiny("bert", layers=2), ("neg", "pos")).state_dict(),
        weights(tmp_path / "trial"),
    )
    unmoved = {name for name in after if torch.equal(before[name], after[name])}
    assert "classifier.weight" not in unmoved
    assert {name for name in after if not name.startswith("classifier")} <= unmoved


def test_after_it_all_of_it_learns_and_an_interruption_changes_nothing(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path, tiny: Callable[..., str]
) -> None:
    settings = make(training={"frozen_until": 0.5})
    whole = [one.metrics for one in train(settings, tmp_path / "whole", cache=cache)]
    last = whole[-1]["validation/loss"]
    for stop in (3, 15):
        with pytest.raises(Interrupted):
            list(
                train(
                    settings,
                    tmp_path / f"parts {stop}",
                    cache=cache,
                    on_step=lambda step, total, stop=stop: step == stop,
                )
            )
        assert [
            one.metrics for one in train(settings, tmp_path / f"parts {stop}", cache=cache)
        ] == whole
        assert all(
            torch.equal(weight, weights(tmp_path / f"parts {stop}")[name])
            for name, weight in weights(tmp_path / "whole").items()
        )
    free = [one.metrics for one in train(make(), tmp_path / "free", cache=cache)]
    assert free[-1]["validation/loss"] != last


# --- layer decay -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "electra"])
def test_weights_are_as_deep_as_the_layers_say(family: str, tiny: Callable[..., str]) -> None:
    model = load_classifier(tiny(family, layers=2), ("a", "b"))
    found = depths(model, family)
    assert set(found.values()) == {0, 1, 2, 3}
    for name, depth in found.items():
        if "embeddings" in name:
            assert depth == 0
        if ".0." in name:
            assert depth == 1
        if ".1." in name:
            assert depth == 2
        if "classifier" in name:
            assert depth == 3


def test_each_layer_learns_at_its_share_of_the_rate_above(
    tiny: Callable[..., str], make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    model = load_classifier(tiny("bert", layers=2), ("a", "b"))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(weight)]: group["lr"]
        for group in decayed_groups(model, 0.01, 0.5)
        for weight in group["params"]
    }
    assert found["classifier.weight"] == 1
    assert found["bert.encoder.layer.1.output.dense.bias"] == 0.5
    assert found["bert.encoder.layer.0.output.dense.weight"] == 0.25
    assert found["bert.embeddings.word_embeddings.weight"] == 0.125
    assert len(found) == len(names)
    # One step of Adam is as long as the rate, whatever the gradient: the moves of the layers show their shares.
    optimizer, before = (
        AdamW(model, 0.0, layer_decay=0.5),
        {name: weight.detach().clone() for name, weight in model.named_parameters()},
    )
    for group in optimizer.param_groups:
        group["lr"] *= 0.01
    model.eval()
    ids = torch.tensor([[2, 7, 9, 3], [2, 8, 11, 3]])
    optimizer.read(ids.numpy())
    torch.nn.functional.cross_entropy(model(input_ids=ids).logits, torch.tensor([0, 1])).backward()
    optimizer.step()
    moved = {
        name: (weight - before[name]).abs().max().item()
        for name, weight in model.named_parameters()
    }
    assert moved["classifier.weight"] == pytest.approx(0.01, rel=0.02)
    assert moved["bert.encoder.layer.1.output.dense.weight"] == pytest.approx(0.005, rel=0.02)
    assert moved["bert.embeddings.word_embeddings.weight"] == pytest.approx(0.00125, rel=0.05)
    told = [
        one.metrics
        for one in train(
            make(training={"layer_decay": 0.5, "warmup": 0.0, "scheduler": "constant"}),
            tmp_path,
            cache=cache,
        )
    ]
    assert told[0]["train/learning_rate"] == 2e-3


# --- smoothed labels -------------------------------------------------------------------------------------------------


def test_label_smoothing_by_hand_and_of_the_labels_alone() -> None:
    # Szegedy et al. 2016, section 7: the label gets 1 - e + e / classes, each other class e / classes.
    logits, labels = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    log = [value - math.log(math.exp(2) + 1 + math.exp(-1)) for value in (2.0, 0.0, -1.0)]
    expected = -(0.7 + 0.1) * log[0] - 0.1 * log[1] - 0.1 * log[2]
    teacher = torch.tensor([[1.0, 1.0, 0.0]])
    found = distillation_loss(
        logits, teacher, labels, alpha=0.4, temperature=2.0, label_smoothing=0.3
    )
    plain = distillation_loss(logits, teacher, labels, alpha=0.4, temperature=2.0)
    assert found.task.item() == pytest.approx(expected, abs=1e-6)
    assert found.distill.item() == plain.distill.item()
    assert found.total.item() == pytest.approx(
        0.4 * expected + 0.6 * plain.distill.item(), abs=1e-6
    )


def test_a_row_without_a_label_is_taught_by_the_teacher_alone() -> None:
    logits = torch.tensor([[2.0, 0.0], [1.0, 0.5]], requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    loss = distillation_loss(logits, teacher, torch.tensor([0, UNLABELLED]), alpha=0.5)
    assert loss.task.item() == pytest.approx(math.log(1 + math.exp(-2)) / 2, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss.task, logits)
    assert gradient[1].tolist() == [0, 0]
    assert gradient[0].abs().sum() > 0


# --- a temperature that follows the teacher --------------------------------------------------------------------------


def test_the_temperature_is_full_where_the_teacher_is_sure_and_one_where_it_is_not() -> None:
    sure, doubtful = [50.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]
    between = [math.log(3), 0.0, 0.0, 0.0]  # probabilities 1/2, 1/6, 1/6, 1/6
    entropy = 0.5 * math.log(2) + 0.5 * math.log(6)
    found = confident_temperature(torch.tensor([sure, doubtful, between]), 5.0)
    assert found.tolist() == pytest.approx(
        [5.0, 1.0, 1 + 4 * (1 - entropy / math.log(4))], abs=1e-5
    )


def test_each_row_has_its_own_temperature_in_the_loss() -> None:
    student, teacher, labels = (
        torch.tensor([[0.3, 0.1], [1.0, -1.0]]),
        torch.tensor([[2.0, 0.0], [0.5, 0.0]]),
        torch.tensor([0, 1]),
    )
    rows = [
        distillation_loss(
            student[i : i + 1], teacher[i : i + 1], labels[i : i + 1], alpha=0.0, temperature=t
        ).distill.item()
        for i, t in enumerate((4.0, 2.0))
    ]
    both = distillation_loss(
        student, teacher, labels, alpha=0.0, temperature=torch.tensor([4.0, 2.0])
    )
    assert both.distill.item() == pytest.approx(sum(rows) / 2, abs=1e-6)


# --- what is done with the logits ------------------------------------------------------------------------------------


def test_other_ways_to_match_logits_by_hand() -> None:
    student, teacher, labels = (
        torch.tensor([[1.0, -1.0]]),
        torch.tensor([[0.5, 0.5]]),
        torch.tensor([0]),
    )
    q = [
        math.exp(0.5) / (math.exp(0.5) + math.exp(-0.5)),
        math.exp(-0.5) / (math.exp(0.5) + math.exp(-0.5)),
    ]  # the student at T = 2
    expected = {
        "kl": 4 * sum(0.5 * math.log(0.5 / value) for value in q),
        "soft_ce": 4 * sum(-0.5 * math.log(value) for value in q),
        "reverse_kl": 4 * sum(value * math.log(value / 0.5) for value in q),
        "mse": (0.5**2 + 1.5**2) / 2,
    }
    found = {
        match: distillation_loss(
            student, teacher, labels, alpha=0.0, temperature=2.0, divergence=match
        ).distill.item()
        for match in expected
    }
    assert found == pytest.approx(expected, abs=1e-6)


def test_soft_cross_entropy_has_the_gradients_of_kl() -> None:
    gradients = []
    for match in ("kl", "soft_ce"):
        student = torch.tensor([[1.0, -1.0, 0.3]], requires_grad=True)
        distillation_loss(
            student,
            torch.tensor([[0.2, 0.5, -2.0]]),
            torch.tensor([0]),
            alpha=0.0,
            temperature=3.0,
            divergence=match,
        ).total.backward()
        gradients.append(student.grad)
    torch.testing.assert_close(*gradients)


def test_several_labels_a_row_are_as_many_questions_of_yes_or_no() -> None:
    student, teacher, labels = (
        torch.tensor([[2.0, -1.0, 0.0]]),
        torch.tensor([[1.0, 1.0, -2.0]]),
        torch.tensor([[1.0, 0.0, 1.0]]),
    )

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    task = -(math.log(sigmoid(2)) + math.log(1 - sigmoid(-1)) + math.log(sigmoid(0))) / 3
    pairs = [
        (sigmoid(theirs / 2), sigmoid(mine / 2)) for mine, theirs in ((2, 1), (-1, 1), (0, -2))
    ]
    divergence = (
        sum(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)) for p, q in pairs) / 3
    )
    found = distillation_loss(
        student, teacher, labels, alpha=0.25, temperature=2.0, kind=MULTI_LABEL
    )
    assert [part.item() for part in found] == pytest.approx(
        [0.25 * task + 0.75 * 4 * divergence, task, 4 * divergence], abs=1e-6
    )


def test_a_regression_has_squared_errors_in_both_terms() -> None:
    student, teacher, labels = (
        torch.tensor([[1.0], [2.0]]),
        torch.tensor([[1.5], [4.0]]),
        torch.tensor([0.0, 2.0]),
    )
    found = distillation_loss(
        student, teacher, labels, alpha=0.25, temperature=7.0, kind=REGRESSION
    )
    assert [part.item() for part in found] == pytest.approx([0.25 * 0.5 + 0.75 * 2.125, 0.5, 2.125])
    with pytest.raises(
        ValueError, match=r"kind: regression: logits \(2, 3\) .* must be \[rows, 1\]"
    ):
        distillation_loss(torch.zeros(2, 3), None, labels, alpha=1.0, kind=REGRESSION)
