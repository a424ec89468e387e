"""Attention maps are compared as they are before dropout, in every family that returns them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import others_slow
from model_families import TEXTS, make_family

from kdsweep.core.data.tokenize import tokenize_texts
from kdsweep.core.device import to_device
from kdsweep.core.distill_settings import DistillSettings
from kdsweep.core.models.input_format import input_format_of
from kdsweep.core.models.loading import load_classifier, load_tokenizer
from kdsweep.core.objective.before_dropout import BeforeDropout
from kdsweep.core.objective.inner_states import Matching, check_match
from kdsweep.core.objective.returned_states import maps_are_dropped
from kdsweep.core.training.dropout import cheap_dropout
from kdsweep.errors import ModelError

MAPS = DistillSettings.model_validate({"attention": {"weight": 1.0, "match": "maps"}})
# Dropout in attention alone, so that the maps of a single layer come before any.
ONLY_IN_ATTENTION = {
    "bert": {
        "num_hidden_layers": 1,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.4,
    },
    "gpt2": {"n_layer": 1, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.4},
    "distilbert": {"n_layers": 1, "dropout": 0.0, "attention_dropout": 0.4},
    "llama": {"num_hidden_layers": 1, "attention_dropout": 0.4},
    "modernbert": {"num_hidden_layers": 1, "attention_dropout": 0.4},
}
for name in ("roberta", "electra", "deberta-v2", "mpnet", "roformer", "megatron-bert", "esm"):
    ONLY_IN_ATTENTION[name] = ONLY_IN_ATTENTION["bert"]


@pytest.mark.parametrize("in_bulk", [True, False])
@pytest.mark.parametrize("family", others_slow(list(ONLY_IN_ATTENTION)))
def test_a_copy_of_its_teacher_has_no_term_of_maps_in_training_either(
    family: str, in_bulk: bool, tmp_path: Path
) -> None:
    folder = str(make_family(family, tmp_path / "model", **ONLY_IN_ATTENTION[family]))
    student, teacher = (load_classifier(folder, ("a", "b")) for _ in range(2))
    teacher.requires_grad_(False).eval()
    tokenizer = load_tokenizer(folder)
    formats = [input_format_of(model, tokenizer, 24) for model in (teacher, student)]
    tokens = tokenize_texts(tokenizer, [TEXTS], formats[0])
    matching = Matching(MAPS, student, teacher, tokens)
    assert maps_are_dropped(student)
    rows = np.arange(len(TEXTS))
    inputs = to_device(tokens.batch(rows), student.device)
    with cheap_dropout(torch.device("cpu" if in_bulk else "cuda")):
        logits, terms = matching.losses(inputs, rows, torch.float32)
        again, _ = matching.losses(inputs, rows, torch.float32)
    assert student.training
    # Dropout is on: the same rows get other logits.
    assert (logits - again).abs().max() > 1e-3
    assert terms["attention"].item() < 1e-10


def test_a_term_of_maps_has_gradients_through_the_probabilities(tmp_path: Path) -> None:
    folder = str(make_family("bert", tmp_path / "model"))
    student, teacher = (load_classifier(folder, ("a", "b")) for _ in range(2))
    teacher.requires_grad_(False).eval()
    query = student.get_parameter("bert.encoder.layer.0.attention.self.query.weight")
    with torch.no_grad():
        query.mul_(0.5)
    tokenizer = load_tokenizer(folder)
    tokens = tokenize_texts(tokenizer, [TEXTS], input_format_of(student, tokenizer, 24))
    rows = np.arange(len(TEXTS))
    matching = Matching(MAPS, student, teacher, tokens)
    _, terms = matching.losses(to_device(tokens.batch(rows), student.device), rows, torch.float32)
    terms["attention"].backward()
    assert query.grad is not None and query.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("family", "reason"),
    [("xlnet", "only after dropout"), ("squeezebert", "only after dropout")],
)
def test_a_family_whose_maps_can_not_be_had_is_refused(
    family: str, reason: str, tmp_path: Path
) -> None:
    folder = str(make_family(family, tmp_path / "model"))
    student, teacher = (load_classifier(folder, ("a", "b")) for _ in range(2))
    with pytest.raises(ModelError, match=f"a {family} model, returns its attention maps {reason}"):
        check_match(MAPS, student, teacher.eval())


def test_only_what_is_dropped_is_replaced() -> None:
    probabilities = torch.rand(1, 2, 4, 4)
    hidden = torch.rand(1, 4, 8)
    with BeforeDropout() as before_dropout:
        dropped = torch.nn.functional.dropout(probabilities, 0.5)
        other = torch.nn.Dropout(0.5)(hidden)
    assert before_dropout.of(dropped) is probabilities
    assert before_dropout.of(other) is other
    assert not before_dropout.was_dropped(probabilities)
