"""Views of train: made once, by content, with one text of a pair edited."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_model, sentences
from transformers import AutoModelForMaskedLM

from kdsweep.core.augment_settings import AugmentSettings
from kdsweep.core.augmentation.views import cached_view, mask_token
from kdsweep.core.data.rows import Split
from kdsweep.core.models.loading import load_tokenizer
from kdsweep.errors import ModelError


def silent(line: str) -> None:
    pass


def test_a_view_is_made_once_and_depends_on_shares_seed_and_number(
    tmp_path: Path,
) -> None:
    texts = [text for text, _ in sentences(40)]
    train_rows = Split("train", (texts,), np.zeros(40, dtype=np.int64), "rows")
    said: list[str] = []

    def key(number: int = 0, **changes: Any) -> str:
        settings = AugmentSettings.model_validate({"views": 3, "swap": 0.3} | changes)
        return cached_view(train_rows, settings, number, "", tmp_path, said.append).key

    first = key()
    assert [key(), key(views=8), key(in_finetuning=True)] == [first] * 3
    assert said == [f"view 1: making it from {len(train_rows):,} rows"]
    others = [key(1), key(swap=0.31), key(seed=1), key(ngram=0.2)]
    assert len({first, *others}) == 5
    # The key depends on the content alone, not on the folder.
    settings = AugmentSettings(views=1, swap=0.3)
    elsewhere = cached_view(train_rows, settings, 0, "", tmp_path / "elsewhere", silent)
    assert elsewhere.key == first


def test_a_view_has_the_name_and_the_text_of_the_first_version(tmp_path: Path) -> None:
    rows = Split("train", (["the film was very warm and great"],), np.zeros(1, np.int64), "rows")
    settings = AugmentSettings(views=1, mask=0.3, ngram=0.3, swap=0.3, seed=1)
    view = cached_view(rows, settings, 0, "[MASK]", tmp_path, silent)
    (folder,) = (path for path in (tmp_path / "views").iterdir() if path.is_dir())
    assert folder.name == "38a9ce1cf2767b8e"
    assert view.key == "1d5b49c24871e4ed"
    assert list(view.texts[0]) == ["the film very [MASK] warm and great"]


def test_one_sentence_of_a_pair_is_edited_each_as_often_as_the_other(tmp_path: Path) -> None:
    columns = tuple(
        [f"{text} {i}" for i, (text, _) in enumerate(sentences(400, seed=seed))] for seed in (1, 2)
    )
    pairs = Split("train", columns, np.zeros(400, dtype=np.int64), "pairs")
    made = cached_view(pairs, AugmentSettings(views=1, mask=1.0), 0, "[MASK]", tmp_path, silent)
    changed = [
        tuple(now != before for now, before in zip(row[:2], row[2:], strict=True))
        for row in zip(*made.texts, *columns, strict=True)
    ]
    assert set(changed) == {(True, False), (False, True)}
    assert sum(first for first, _ in changed) / 400 == pytest.approx(0.5, abs=0.08)


def test_a_masked_language_model_replaces_words_in_one_text_of_a_pair(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "body", "bert", layers=1)
    AutoModelForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    words = AugmentSettings.model_validate(
        {"views": 1, "masked_lm": {"model": str(folder), "share": 1.0, "candidates": 3}}
    )
    texts = [text for text, _ in sentences(70)]
    rows = Split("train", (texts,), np.zeros(70, dtype=np.int64), "one")
    made = cached_view(rows, words, 0, "", tmp_path, silent).texts[0]
    assert all(
        len(one.split()) == len(other.split()) for one, other in zip(made, texts, strict=True)
    )
    assert sum(one != other for one, other in zip(made, texts, strict=True)) > 60
    assert not any("[" in text or "#" in text for text in made)
    pairs = Split("train", (texts, texts[::-1]), np.zeros(70, dtype=np.int64), "two")
    left, right = cached_view(pairs, words, 0, "", tmp_path, silent).texts
    assert all(
        (one == other) or (two == another)
        for one, two, other, another in zip(left, right, *pairs.texts, strict=True)
    )


def test_a_mask_needs_a_mask_token(tiny: Callable[..., str]) -> None:
    tokenizer = load_tokenizer(tiny("bert", layers=2))
    assert mask_token(tokenizer, "it") == "[MASK]"
    tokenizer.mask_token = None
    with pytest.raises(
        ModelError,
        match="augment.mask: the tokenizer of it has no mask token; use ngram, swap or masked_lm",
    ):
        mask_token(tokenizer, "it")
