"""Every model family that loads works, or is refused in one line before anything is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from model_families import FAMILIES, TEXTS, WORDS, make_family
from transformers import AutoTokenizer

from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.rows import Split
from kdsweep.core.data.tokenize import tokenize_texts
from kdsweep.core.device import to_device
from kdsweep.core.evaluation.predict import predict
from kdsweep.core.models.input_format import input_format_of
from kdsweep.core.models.inputs import check_fits, check_length
from kdsweep.core.models.loading import load_classifier, load_tokenizer, save_model
from kdsweep.core.models.rehearsal import rehearse, shortest_and_longest
from kdsweep.errors import ModelError

NAMES = ("a", "b")
# These run in `make test`, the others in `make test-slow`.
QUICK = ("bert", "gpt2", "xlnet", "bart", "fnet", "reformer")
ALL = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]


@pytest.mark.parametrize("family", ALL)
def test_a_family_reads_padded_rows_as_alone_trains_and_is_saved_or_is_refused(
    family: str, tmp_path: Path
) -> None:
    folder = str(make_family(family, tmp_path / "model"))
    model, tokenizer = load_classifier(folder, NAMES), load_tokenizer(folder)
    check_fits(model, tokenizer, folder)
    check_length(model, tokenizer, 32, folder)
    if (reason := FAMILIES[family].refused) is not None:
        with pytest.raises(ModelError, match=reason) as caught:
            rehearse(model, tokenizer, input_format_of(model, tokenizer, 32), [TEXTS], folder)
        assert "\n" not in str(caught.value)
        return
    input_format = input_format_of(model, tokenizer, 32)
    rehearse(model, tokenizer, input_format, [TEXTS], folder)
    tokens = tokenize_texts(tokenizer, [TEXTS], input_format)

    def logits_alone() -> np.ndarray:
        each = [tokenize_texts(tokenizer, [[text]], input_format) for text in TEXTS]
        return np.concatenate([predict(model, one, torch.float32) for one in each])

    assert np.abs(predict(model, tokens, torch.float32) - logits_alone()).max() < 1e-4
    # One step, in micro-batches as training cuts them.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = logits_alone()
    model.train()
    for rows in tokens.parts_of(np.arange(len(TEXTS))):
        model(**to_device(tokens.batch(rows), model.device)).logits.square().sum().backward()
    optimizer.step()
    after = logits_alone()
    assert np.isfinite(after).all() and np.abs(after - before).max() > 0
    # Saved and loaded again, it gives the same.
    save_model(model, tokenizer, tmp_path / "saved")
    saved = str(tmp_path / "saved")
    model, tokenizer = load_classifier(saved, NAMES), load_tokenizer(saved)
    assert input_format_of(model, tokenizer, 32) == input_format
    assert np.abs(logits_alone() - after).max() < 1e-5


@pytest.mark.parametrize(
    ("family", "longest"),
    [("gpt2", 66), ("bart", 66), ("roformer", 66), ("openai-gpt", 66), ("roberta", 65)],
)
def test_rows_beyond_a_familys_positions_are_refused(
    family: str, longest: int, tmp_path: Path
) -> None:
    folder = str(make_family(family, tmp_path / "model"))
    model, tokenizer = load_classifier(folder, NAMES), load_tokenizer(folder)
    check_length(model, tokenizer, longest, folder)
    message = f"training.max_length: {longest + 1} tokens are more than the {longest} that"
    with pytest.raises(ModelError, match=message):
        check_length(model, tokenizer, longest + 1, folder)


def test_the_longest_row_is_tried_where_no_table_shows_it(tmp_path: Path) -> None:
    """GPT-J's positions are numbers that it computes when it is made."""
    folder = str(make_family("gptj", tmp_path / "model"))
    model, tokenizer = load_classifier(folder, NAMES), load_tokenizer(folder)
    check_length(model, tokenizer, 100, folder)
    input_format = input_format_of(model, tokenizer, 100)
    with pytest.raises(ModelError, match="100 tokens are more than the 66 that"):
        rehearse(model, tokenizer, input_format, [TEXTS], folder)


def test_an_end_token_in_a_text_is_read_as_text(tmp_path: Path) -> None:
    """BART answers at the last end token, and needs the same number of them in each row."""
    folder = str(make_family("bart", tmp_path / "model"))
    model, tokenizer = load_classifier(folder, NAMES).eval(), load_tokenizer(folder)
    input_format = input_format_of(model, tokenizer, 32)
    assert input_format.end_token == 3
    texts = [TEXTS[0], "w1 [SEP] w2", "w3 [MASK]"]
    tokens = tokenize_texts(tokenizer, [texts], input_format)
    rows = [tokens.input_ids[tokens.offsets[i] : tokens.offsets[i + 1]].tolist() for i in range(3)]
    unknown = WORDS.index("[UNK]")
    assert rows[1] == [2, WORDS.index("w1"), unknown, unknown, unknown, WORDS.index("w2"), 3]
    assert rows[2] == [2, WORDS.index("w3"), 4, 3]
    assert rows[0] == tokenizer(TEXTS[0])["input_ids"]
    assert np.isfinite(predict(model, tokens, torch.float32)).all()
    # The tokenizer itself still reads special tokens.
    assert tokenizer("w1 [SEP]")["input_ids"].count(3) == 2


def test_a_text_without_any_token_is_named(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_family("llama", tmp_path / "model"))
    with pytest.raises(ModelError, match=r"makes no token of the text ' ' \(1 such rows\)"):
        tokenize_texts(tokenizer, [["w1", " "]], InputFormat(8, token_types=False))


def test_a_token_beyond_the_embedding_is_refused(tmp_path: Path) -> None:
    """A tokenizer may leave out numbers, so that its size says nothing of its highest one."""
    folder = str(make_family("bert", tmp_path / "model", vocab_size=len(WORDS) - 1))
    model, tokenizer = load_classifier(folder, NAMES), load_tokenizer(folder)
    with pytest.raises(ModelError, match="they don't belong together"):
        check_fits(model, tokenizer, folder)


def test_a_rehearsal_changes_nothing(tmp_path: Path) -> None:
    folder = str(make_family("ibert", tmp_path / "model"))
    model, tokenizer = load_classifier(folder, NAMES), load_tokenizer(folder)
    input_format = input_format_of(model, tokenizer, 32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    rehearse(model, tokenizer, input_format, [TEXTS], folder)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_shortest_and_the_longest_row_of_each_split_are_tried() -> None:
    def split(name: str, *texts: str) -> Split:
        return Split(name, (list(texts), ["x"] * len(texts)), np.zeros(len(texts)), name)

    splits = [split("train", "aaaa", "a", "aaa"), split("test", "bb", "bbbbbb")]
    assert shortest_and_longest(splits) == [["a", "bb", "aaaa", "bbbbbb"], ["x"] * 4]
