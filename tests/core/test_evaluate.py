"""Metrics against their formulas, and logits in the order of the rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import sentences

from kdsweep.core.data import Split, tokenize_split
from kdsweep.core.evaluate import judge, latency_ms, predict, score
from kdsweep.core.models import load_classifier, load_tokenizer

LABELS = np.array([0, 0, 0, 1, 1, 1, 1, 1])
PREDICTED = np.array([0, 1, 0, 1, 1, 0, 1, 1])  # class 1: 4 right, 1 too many, 1 missed; class 0: 2 right


def test_each_metric_is_its_formula() -> None:
    assert score("accuracy", LABELS, PREDICTED) == 6 / 8
    assert score("f1", LABELS, PREDICTED) == pytest.approx(2 * 4 / (2 * 4 + 1 + 1))
    assert score("f1_macro", LABELS, PREDICTED) == pytest.approx((8 / 10 + 2 * 2 / (2 * 2 + 1 + 1)) / 2)
    assert score("matthews", LABELS, PREDICTED) == pytest.approx((4 * 2 - 1 * 1) / math.sqrt(5 * 5 * 3 * 3))


def test_always_the_same_answer_is_0_not_an_error() -> None:
    assert score("f1", LABELS, np.zeros(8, dtype=int)) == 0.0
    assert score("matthews", LABELS, np.ones(8, dtype=int)) == 0.0


def test_the_loss_is_the_mean_cross_entropy_also_of_very_sure_logits() -> None:
    logits = np.array([[0.0, math.log(3)], [math.log(3), 0.0], [20.0, 0.0]], dtype=np.float32)
    judged = judge("matthews", np.array([1, 1, 0]), logits)
    assert judged["loss"] == pytest.approx((-math.log(3 / 4) - math.log(1 / 4) + math.log1p(math.exp(-20))) / 3, rel=1e-6)
    assert judged["accuracy"] == pytest.approx(2 / 3)
    assert set(judged) == {"loss", "accuracy", "matthews"}
    assert math.isfinite(judge("accuracy", np.array([0]), np.array([[-1e4, 1e4]], dtype=np.float32))["loss"])


def test_a_class_that_validation_lacks_is_no_error() -> None:
    assert judge("f1_macro", np.array([0, 1]), np.array([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]]))["f1_macro"] == 1.0


def test_logits_come_in_the_order_of_the_rows_and_the_model_stays_as_it_was(tiny: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdsweep.core.evaluate.TOKENS_A_BATCH", {"cpu": 64, "cuda": 64})  # many batches
    model, tokenizer = load_classifier(tiny("bert"), ("a", "b", "c")), load_tokenizer(tiny("bert"))
    texts = [text for text, _ in sentences(40)]
    tokens = tokenize_split(Split("x", (texts,), np.zeros(40, dtype=np.int64), "x"), tokenizer, max_length=24, token_types=False, cache=tmp_path)
    model.train()
    before = torch.get_rng_state()
    logits = predict(model, tokens, torch.float32)
    assert latency_ms(model, tokens) > 0
    assert model.training and torch.equal(before, torch.get_rng_state())
    model.eval()
    with torch.no_grad():
        one_by_one = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts]).numpy()
    assert logits.dtype == np.float32 and logits.shape == (40, 3)
    np.testing.assert_allclose(logits, one_by_one, atol=1e-5)
