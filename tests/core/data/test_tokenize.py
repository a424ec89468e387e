"""A split's tokens: made once, mapped into memory, and padded in batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import file_times
from task_rows import ROWS
from transformers import AutoTokenizer

from kdsweep.core.data import tokenize
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.rows import Split
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.core.models.inputs import reads_token_types
from kdsweep.core.models.loading import load_classifier


def split_of(*columns: list[str]) -> Split:
    return Split(
        "train", columns, np.zeros(len(columns[0]), dtype=np.int64), "-".join(map(str, columns))
    )


def test_tokens_are_the_tokenizers_own_row_by_row(
    tmp_path: Path, tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The rows span several calls.
    monkeypatch.setattr(tokenize, "ROWS_PER_CALL", 50)
    tokenizer = AutoTokenizer.from_pretrained(tiny("bert"))
    texts = [text for text, _ in ROWS]
    tokens = tokenize_split(
        split_of(texts), tokenizer, InputFormat(8, token_types=True), cache=tmp_path
    )
    rows = np.array([0, 51, 119, 3])
    batch = tokens.batch(rows)
    for i, row in enumerate(rows):
        real = batch["attention_mask"][i] == 1
        assert (
            batch["input_ids"][i][real].tolist()
            == tokenizer(texts[row], truncation=True, max_length=8)["input_ids"]
        )
        assert (batch["input_ids"][i][~real] == tokenizer.pad_token_id).all()
    assert batch["input_ids"].shape[1] == tokens.lengths[rows].max() <= 8


def test_tokens_are_mapped_into_memory_and_made_once(
    tmp_path: Path, tiny: Callable[..., str]
) -> None:
    said: list[str] = []

    def tokens(
        max_length: int = 16, texts: tuple[str, ...] = ("the film", "a plot"), family: str = "bert"
    ) -> Any:
        tokenizer = AutoTokenizer.from_pretrained(tiny(family))
        # Options of an earlier call are no part of the key.
        tokenizer("anything", truncation=True, padding="max_length", max_length=5)
        return tokenize_split(
            split_of(list(texts)),
            tokenizer,
            InputFormat(max_length, token_types=False),
            cache=tmp_path,
            say=said.append,
        )

    first = tokens()
    assert isinstance(first.input_ids, np.memmap)
    times = file_times(tmp_path)
    assert tokens().key == first.key
    assert file_times(tmp_path) == times
    assert len(said) == 1
    others = [tokens(max_length=15).key, tokens(texts=("the film", "a plots")).key]
    assert len({first.key, *others}) == 3
    assert len(said) == 3


def test_token_types_are_given_to_bert_and_not_to_distilbert(
    tmp_path: Path, tiny: Callable[..., str]
) -> None:
    pair = split_of(["the film was fine", "a plot"], ["yes", "no the actor is dull"])
    for family, expected in (("bert", True), ("distilbert", False)):
        assert reads_token_types(load_classifier(tiny(family), ("a", "b"))) is expected
        tokenizer = AutoTokenizer.from_pretrained(tiny(family))
        batch = tokenize_split(
            pair, tokenizer, InputFormat(16, token_types=expected), cache=tmp_path
        ).batch(np.array([0, 1]))
        assert ("token_type_ids" in batch) is expected
        if expected:
            # [CLS] the film was fine [SEP] yes [SEP] and padding
            # [CLS] a plot [SEP] no the actor is dull [SEP]
            assert batch["token_type_ids"].tolist() == [
                [0, 0, 0, 0, 0, 0, 1, 1, 0, 0],
                [0, 0, 0, 0, 1, 1, 1, 1, 1, 1],
            ]


def test_only_rows_that_lost_tokens_count_as_truncated(
    tmp_path: Path, tiny: Callable[..., str]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny("bert"))
    # 4, 6, 7 and 8 tokens.
    texts = ["the film"] + [f"the film was{' very' * count} fine" for count in range(3)]
    tokens = tokenize_split(
        split_of(texts), tokenizer, InputFormat(6, token_types=False), cache=tmp_path
    )
    assert tokens.lengths.tolist() == [4, 6, 6, 6]
    assert tokens.truncated == 2
