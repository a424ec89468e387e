"""Labels of a large scale: standardized in the loss, in their own unit everywhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import sentences, write_csv
from fine_tuned_teacher import QUICK_TRAINING
from model_families import make_family

from kdsweep import serving
from kdsweep.core import TrialSettings, train
from kdsweep.core.data.loading import load_task
from kdsweep.core.evaluation.onnx_format import OnnxModel, convert
from kdsweep.core.models.loading import load_classifier, load_config, load_tokenizer
from kdsweep.core.models.outputs import (
    rescale_outputs,
    saved_in_unit,
    standardize_outputs,
    with_outputs_in_unit,
)
from kdsweep.core.tasks import CLASSIFICATION, REGRESSION
from kdsweep.core.tasks.label_scale import LabelScale
from kdsweep.core.teachers.logits import teacher_logits
from kdsweep.core.teachers.selection import prepare_teacher
from kdsweep.core.trial_folder import TrialFolder


def test_large_labels_are_standardized_and_others_left_as_they_are() -> None:
    assert REGRESSION.label_scale(np.array([0.0, 2.5, 5.0])).is_plain
    scale = REGRESSION.label_scale(np.array([0.0, 1000.0, np.nan, 5000.0]))
    assert (scale.mean, scale.deviation) == pytest.approx((2000, np.sqrt(14e6 / 3)))
    values = np.array([0.0, 1000.0, 5000.0])
    assert scale.standard(values).mean() == pytest.approx(0)
    assert scale.standard(values).std() == pytest.approx(1)
    assert scale.in_unit(scale.standard(values)) == pytest.approx(values)
    # Years: a small deviation around a large mean.
    assert not REGRESSION.label_scale(np.array([1990.0, 1991.0])).is_plain
    assert CLASSIFICATION.label_scale(np.array([0, 400])).is_plain


def test_a_head_on_another_scale_says_the_same_in_the_labels_unit(tiny: Callable[..., str]) -> None:
    model = load_classifier(tiny("bert"), ("score",), kind=REGRESSION).eval()
    inputs = {"input_ids": torch.arange(5, 15).view(2, 5), "attention_mask": torch.ones(2, 5)}
    before = model(**inputs).logits
    for scale in (LabelScale(2500.0, 1700.0), LabelScale(-40.0, 3.0), LabelScale()):
        rescale_outputs(model, scale, "x")
        assert LabelScale.of_model(model.config) == scale
        torch.testing.assert_close(scale.in_unit(model(**inputs).logits), before, rtol=0, atol=1e-3)
    assert not hasattr(model.config, "label_mean")


def test_teacher_and_student_learn_labels_up_to_5000(
    tiny: Callable[..., str], tmp_path: Path
) -> None:
    draw = np.random.default_rng(0)
    rows: list[tuple[Any, ...]] = [
        (text, (4000 if label == "pos" else 500) + draw.integers(1000))
        for text, label in sentences(300)
    ]
    task: dict[str, Any] = {"text": "text", "label": "label", "kind": "regression"}
    task |= {"dataset": str(write_csv(tmp_path / "rows.csv", rows)), "metric": "pearson"}
    settings = TrialSettings.model_validate(
        {
            "task": task | {"holdout": 0.2},
            "teacher": {"model": tiny("bert"), "training": QUICK_TRAINING},
            "student": {"model": tiny("bert"), "layers": 1},
            "training": {"epochs": 3, "batch_size": 8, "max_length": 24},
            "alpha": 0.5,
            "learning_rate": 4e-3,
        }
    )
    metrics = [one.metrics for one in train(settings, tmp_path / "trial", cache=tmp_path)][-1]
    data = load_task(settings.task, tmp_path)
    spread = float(np.var(data.validation.labels))
    assert metrics["validation/pearson"] > 0.9
    assert metrics["validation/loss"] < 0.3 * spread
    assert metrics["validation/teacher_mse"] < 0.3 * spread
    assert 0.01 * spread < metrics["train/task_loss"] < spread

    expected = REGRESSION.label_scale(data.train.labels)
    assert settings.teacher is not None
    teacher = prepare_teacher(settings.task, settings.teacher, tmp_path)
    # A teacher runs in bf16, where raw outputs around 2000 would be rounded to steps of 16.
    assert LabelScale.of_model(load_config(str(teacher.folder))) == expected
    logits = teacher_logits(teacher, data, cache=tmp_path)
    assert float(np.square(logits[:, 0] - data.train.labels).mean()) < 0.3 * spread

    # It is the evaluation with the least squared error: a correlation says nothing about values.
    assert teacher.training_folder is not None
    losses = [
        one.metrics["validation/loss"]
        for one in TrialFolder(teacher.training_folder).read_evaluations()
    ]
    assert teacher.validation["loss"] == pytest.approx(min(losses), rel=1e-4)

    # The student itself, in plain torch, and as it is served.
    folder = tmp_path / "trial" / "student"
    texts = list(data.validation.texts[0][:20])
    served = serving.load(folder).predict(texts)["score"].to_numpy()
    model = load_classifier(str(folder), ("label",), kind=REGRESSION).eval()
    inputs = load_tokenizer(str(folder))(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        plain = model(**inputs).logits[:, 0].numpy()
    assert LabelScale.of_model(model.config).is_plain
    assert served == pytest.approx(plain, rel=1e-3)
    in_training = TrialFolder(tmp_path / "trial").read_validation_predictions()
    assert in_training is not None and in_training.predictions[:20] == pytest.approx(
        plain, abs=1e-3 * expected.deviation
    )
    assert np.corrcoef(served, data.validation.labels[:20])[0, 1] > 0.9


@pytest.mark.parametrize("family", ["bert", "bart", "xlnet", "gpt2"])
def test_a_model_is_saved_in_the_labels_unit_and_is_as_before_afterwards(
    family: str, tmp_path: Path
) -> None:
    source = str(make_family(family, tmp_path / "model"))
    model = load_classifier(source, ("score",), kind=REGRESSION).eval()
    scale = LabelScale(2500.0, 1700.0)
    scale.write(model.config)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 3]]), "attention_mask": torch.ones(1, 4)}
    with torch.no_grad(), saved_in_unit(model, inputs):
        inside, raw = LabelScale.of_model(model.config), model(**inputs).logits
    # GPT-2's output layer has no bias.
    assert inside == (scale if family == "gpt2" else LabelScale())
    assert LabelScale.of_model(model.config) == scale
    assert all(torch.equal(one, weights[name]) for name, one in model.state_dict().items())
    with torch.no_grad():
        expected = scale.in_unit(model(**inputs).logits)
    torch.testing.assert_close(inside.in_unit(raw), expected, rtol=0, atol=0.1)


def test_outputs_are_left_alone_if_the_last_linear_layer_is_not_what_answers(
    tiny: Callable[..., str],
) -> None:
    model = load_classifier(tiny("bert"), ("score",), kind=REGRESSION).eval()
    model.classifier = torch.nn.Sequential(model.classifier, torch.nn.Tanh())
    inputs = {"input_ids": torch.arange(5, 10).view(1, 5)}
    before = model.classifier[0].weight.clone()
    standardize_outputs(model, LabelScale(2500.0, 1700.0), inputs)
    assert LabelScale.of_model(model.config).is_plain
    assert torch.equal(model.classifier[0].weight, before)


@pytest.mark.slow
def test_an_onnx_file_answers_in_the_labels_unit(tiny: Callable[..., str], tmp_path: Path) -> None:
    model = load_classifier(tiny("bert"), ("score",), kind=REGRESSION).eval()
    scale = LabelScale(2500.0, 1700.0)
    scale.write(model.config)
    convert(with_outputs_in_unit(model, "bert"), tmp_path / "model.onnx")
    inputs = {"input_ids": np.arange(5, 15).reshape(2, 5)}
    inputs |= {"attention_mask": np.ones_like(inputs["input_ids"])}
    inputs |= {"token_type_ids": np.zeros_like(inputs["input_ids"])}
    found = OnnxModel(tmp_path / "model.onnx").logits(inputs)
    with torch.no_grad():
        plain = model(**{name: torch.from_numpy(one) for name, one in inputs.items()}).logits
    assert found == pytest.approx(scale.in_unit(plain.numpy()), abs=0.05)
    assert LabelScale.of_model(model.config) == scale


def test_labels_of_an_ordinary_scale_leave_no_trace_in_the_config(
    tiny: Callable[..., str],
) -> None:
    config = load_config(tiny("bert"))
    LabelScale().write(config)
    assert "label_mean" not in config.to_dict()
