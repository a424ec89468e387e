"""A sweep whose labels are large numbers: what it saves, exports and serves has their unit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from conftest import sentences, write_csv
from model_families import make_family
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdsweep import serving
from kdsweep.core.evaluation.onnx_format import OnnxModel
from kdsweep.core.models.loading import load_config
from kdsweep.core.tasks.label_scale import LabelScale
from kdsweep.export import export
from kdsweep.sweep.folders import Home

# `make test` has the same of one student without a sweep: tests/core/tasks/test_label_scale.py.
pytestmark = pytest.mark.slow

SPACE = """\
name: prices
task: {{dataset: "{data}", text: text, label: price, kind: regression, metric: pearson}}
teacher: {{model: "{student}", training: {{epochs: 1, precision: fp32}}}}
student: {{model: "{student}"}}
training: {{epochs: 3, batch_size: 8, max_length: 24, precision: fp32}}
strategies: {{finetune: {{alpha: 1.0, learning_rate: 0.004}}}}
"""
ASSIGNMENTS = ("trials=1", "confirm={seeds: 1, finalists: 1}", "engine={type: inline}")
TEXTS = ["the film was superb", "dull and poor and weak and stale", "a great plot"]


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def swept(
    request: pytest.FixtureRequest,
    finished_sweep: Callable[..., Any],
    tiny: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Home:
    """A finished sweep of labels from 500 to 5,000. GPT-2's output layer has no bias."""
    folder = tmp_path_factory.mktemp("prices")
    draw = np.random.default_rng(0)
    rows: list[tuple[Any, ...]] = [
        (text, (4000 if label == "pos" else 500) + draw.integers(1000))
        for text, label in sentences(160)
    ]
    data = write_csv(folder / "rows.csv", rows, header=("text", "price"))
    student = tiny("bert") if request.param == "bert" else str(make_family("gpt2", folder / "m"))
    (folder / "prices.yaml").write_text(SPACE.format(data=data, student=student), encoding="utf-8")
    home: Home = finished_sweep(folder / "prices.yaml", *ASSIGNMENTS)
    return home


def plain_outputs(folder: Path) -> tuple[np.ndarray, LabelScale]:
    """What transformers alone puts out, and the scale that the config names."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        each = [model(**tokenizer(text, return_tensors="pt")).logits for text in TEXTS]
    return torch.cat(each)[:, 0].numpy(), LabelScale.of_model(model.config)


def test_every_way_to_use_the_student_gives_the_labels_unit_once(
    swept: Home, tmp_path: Path
) -> None:
    kept = list(swept.artifacts.glob("*/artifacts/student"))
    assert len(kept) == 2
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(swept.tracking_uri("sqlite"))
    registered = mlflow.pyfunc.load_model("models:/prices@best").predict(TEXTS)["score"].to_numpy()
    mlflow.set_tracking_uri(before)
    folder = export(swept, "prices", tmp_path / "student").folder
    card = (folder / "README.md").read_text(encoding="utf-8")
    for place in (*kept, folder):
        raw, scale = plain_outputs(place)
        # GPT-2's output layer has no bias to take the mean.
        assert scale.is_plain == (load_config(str(place)).model_type == "bert")
        in_unit = scale.in_unit(raw)
        assert 300 < in_unit.min() < 3500 and np.ptp(in_unit) > 100
        served = serving.load(place).predict(TEXTS)["score"].to_numpy()
        assert served == pytest.approx(in_unit, abs=1)
    assert registered == pytest.approx(in_unit, abs=1)
    assert ("multiply it by" in card) == (not scale.is_plain)


def test_an_onnx_file_gives_the_labels_unit(swept: Home, tmp_path: Path) -> None:
    facts = export(swept, "prices", tmp_path / "student", formats=("onnx",))
    assert facts.files.onnx is not None
    model = OnnxModel(facts.folder / facts.files.onnx.file)
    raw, scale = plain_outputs(facts.folder)
    tokenizer = AutoTokenizer.from_pretrained(facts.folder)
    found = [
        model.logits(
            {name: value.numpy() for name, value in tokenizer(text, return_tensors="pt").items()}
        )
        for text in TEXTS
    ]
    assert np.concatenate(found)[:, 0] == pytest.approx(scale.in_unit(raw), abs=1)
