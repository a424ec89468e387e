"""How a model's batches are padded: one rule for training, evaluation, serving and ONNX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import copy_model
from model_families import FAMILIES, TEXTS, WORDS, make_family
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from kdsweep.core.data.encode import Padding
from kdsweep.core.data.tokenize import TokenizedSplit, joined_tokens, tokenize_texts
from kdsweep.core.evaluation.predict import predict
from kdsweep.core.models.input_format import input_format_of
from kdsweep.core.models.loading import load_classifier, load_tokenizer, save_model
from kdsweep.errors import ModelError

NAMES = ("a", "b")
# These run in `make test`, the others in `make test-slow`.
QUICK = ("bert", "gpt2", "xlnet", "bart")


def settled(folder: Path) -> tuple[PreTrainedModel, TokenizedSplit, Padding]:
    """The model in the folder, TEXTS as it reads them, and how they are padded."""
    model, tokenizer = load_classifier(str(folder), NAMES).eval(), load_tokenizer(str(folder))
    input_format = input_format_of(model, tokenizer, 48)
    assert input_format.padding is not None
    return model, tokenize_texts(tokenizer, [TEXTS], input_format), input_format.padding


def alone(folder: Path) -> np.ndarray:
    """Logits of each text by itself, from transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        rows = [
            model(input_ids=tokenizer(text, return_tensors="pt")["input_ids"]).logits
            for text in TEXTS
        ]
    return torch.cat(rows).numpy()


@pytest.mark.parametrize(
    ("family", "config", "expected"),
    [
        # Without a padding token in config and tokenizer it is the end token.
        ("gpt2", {}, Padding(3)),
        ("gpt2", {"pad_token_id": 44}, Padding(44)),
        ("llama", {}, Padding(3, "left")),
        ("xlnet", {}, Padding(0, "left")),
        ("bert", {}, Padding(0)),
        ("fnet", {}, Padding(0, by_length=True)),
        ("convbert", {"initializer_range": 0.02}, Padding(0, by_length=True)),
        ("reformer", {}, Padding(0, by_length=True)),
    ],
)
def test_a_row_gets_the_same_logits_in_a_batch_and_alone(
    family: str, config: dict[str, object], expected: Padding, tmp_path: Path
) -> None:
    folder = make_family(family, tmp_path / "model", **config)
    model, tokens, padding = settled(folder)
    assert padding == expected
    assert np.abs(predict(model, tokens, torch.float32) - alone(folder)).max() < 1e-4


def test_rows_are_padded_on_the_side_where_the_model_ignores_it(tmp_path: Path) -> None:
    """GPT-2 counts positions from the first token on, XLNet answers at the last one."""
    for family, wrong, right in (("gpt2", "left", "right"), ("xlnet", "right", "left")):
        folder = make_family(family, tmp_path / family)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.padding_side = wrong
        tokenizer.save_pretrained(folder)
        model, tokens, padding = settled(folder)
        assert padding.side == right
        assert f"padded on the {right}" in padding.notes[0]
        assert np.abs(predict(model, tokens, torch.float32) - alone(folder)).max() < 1e-4


def test_the_models_own_padding_is_used_and_saved_where_the_tokenizer_has_another(
    tmp_path: Path,
) -> None:
    folder = make_family("llama", tmp_path / "model", pad_token_id=30)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = "[MASK]"
    tokenizer.save_pretrained(folder)
    model, tokenizer = load_classifier(str(folder), NAMES), load_tokenizer(str(folder))
    padding = input_format_of(model, tokenizer, 48).padding
    assert padding == Padding(30, "left")
    note = f"padded with token 30 ({WORDS[30]!r}), its config's pad_token_id; its tokenizer would"
    assert note in padding.notes[0]
    save_model(model, tokenizer, tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert (saved.pad_token_id, saved.padding_side) == (30, "left")
    assert load_classifier(str(tmp_path / "saved"), NAMES).config.pad_token_id == 30
    # Nothing is left to say, and a text with the padding's word is read as before.
    again = input_format_of(load_classifier(str(tmp_path / "saved"), NAMES), saved, 48).padding
    assert again is not None and again.notes == ()
    text = f"{WORDS[29]} {WORDS[30]}x {WORDS[30]}"
    assert saved(text)["input_ids"] == tokenizer(text)["input_ids"] == [29, 1, 30]


@pytest.mark.parametrize("number", [500, -1])
def test_a_padding_id_without_a_token_is_refused(number: int, tmp_path: Path) -> None:
    folder = copy_model(str(make_family("bert", tmp_path / "whole")), tmp_path / "model")
    model, tokenizer = load_classifier(str(folder), NAMES), load_tokenizer(str(folder))
    model.config.pad_token_id = number
    with pytest.raises(ModelError, match=f"names {number} as its pad_token_id, but its tokenizer"):
        input_format_of(model, tokenizer, 48)


def test_a_model_without_padding_and_end_is_refused(tmp_path: Path) -> None:
    folder = make_family("gpt2", tmp_path / "model", eos_token_id=None)
    model, tokenizer = load_classifier(str(folder), NAMES), load_tokenizer(str(folder))
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="has no padding token and no end token"):
        input_format_of(model, tokenizer, 48)


def test_looking_at_padding_draws_no_random_number_and_changes_no_weight(
    tiny: Callable[..., str],
) -> None:
    source = tiny("bert")
    model, tokenizer = load_classifier(source, NAMES), load_tokenizer(source)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    padding = input_format_of(model, tokenizer, 48).padding
    assert padding == Padding(0) and not padding.is_mended and padding.notes == ()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == weights[name].dtype and torch.equal(tensor, weights[name])


def test_padding_that_0_1_0_got_wrong_is_known(tmp_path: Path) -> None:
    found = {
        family: settled(make_family(family, tmp_path / family))[2].is_mended
        for family in ("bert", "gpt2", "xlnet", "fnet", "opt")
    }
    assert found == {"bert": False, "gpt2": True, "xlnet": True, "fnet": True, "opt": False}


@pytest.mark.parametrize("side", ["left", "right"])
def test_joined_splits_are_padded_on_their_side(side: str, tmp_path: Path) -> None:
    folder = make_family("llama", tmp_path / "model")
    _, whole, padding = settled(folder)
    whole = replace(whole, padding=replace(padding, side=side))
    halves = [
        replace(whole, offsets=whole.offsets[:6], labels=whole.labels[:5]),
        replace(whole, offsets=whole.offsets[5:], labels=whole.labels[5:]),
    ]
    rows = np.array([7, 0, 3, 9])
    expected, found = whole.batch(rows), joined_tokens(halves).batch(rows)
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in expected.items()
    }
    first = expected["attention_mask"][1]
    assert first[0 if side == "right" else -1] == 1 and first.sum() == 3


def test_bigbird_reads_a_long_row_alike_whatever_was_read_before(tmp_path: Path) -> None:
    """By itself it would attend to blocks if a batch is long, until the first one that isn't."""
    sizes = {"max_position_embeddings": 256, "block_size": 8, "num_random_blocks": 1}
    folder = str(make_family("big_bird", tmp_path / "model", **sizes))
    state = torch.random.get_rng_state()
    model, tokenizer = load_classifier(folder, NAMES), load_tokenizer(folder)
    torch.random.set_rng_state(state)
    input_format = input_format_of(model, tokenizer, 128)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert input_format.padding is not None
    (note,) = input_format.padding.notes
    assert "attends to all tokens of a row (attention_type: original_full)" in note
    long_text = " ".join(TEXTS * 2)
    tokens = tokenize_texts(tokenizer, [[*TEXTS, long_text]], input_format)
    assert tokens.lengths.max() == 128
    together = predict(model, tokens, torch.float32)[-1]
    save_model(model, tokenizer, tmp_path / "saved")
    fresh = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    inputs = tokenizer(long_text, truncation=True, max_length=128, return_tensors="pt")
    with torch.no_grad():
        assert np.abs(fresh(**inputs).logits[0].numpy() - together).max() < 1e-4


@pytest.mark.parametrize(
    "family",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def test_a_pair_gets_the_same_logits_in_a_batch_and_alone(family: str, tmp_path: Path) -> None:
    if FAMILIES[family].refused is not None:
        pytest.skip("can't be used")
    folder = str(make_family(family, tmp_path / "model"))
    model, tokenizer = load_classifier(folder, NAMES).eval(), load_tokenizer(folder)
    input_format = input_format_of(model, tokenizer, 64)
    pairs = [TEXTS, TEXTS[3:] + TEXTS[:3]]
    together = predict(model, tokenize_texts(tokenizer, pairs, input_format), torch.float32)
    each = [
        predict(model, tokenize_texts(tokenizer, [[a], [b]], input_format), torch.float32)
        for a, b in zip(*pairs, strict=True)
    ]
    assert np.abs(together - np.concatenate(each)).max() < 1e-4
