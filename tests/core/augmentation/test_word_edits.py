"""Edits of a text, checked by hand, and the words that a masked language model offers."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import WORDS, make_model
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertForMaskedLM

from kdsweep.core.augmentation.masked_lm import MaskedWords, offered_words, whole_words
from kdsweep.core.augmentation.word_edits import (
    draws,
    edit_text,
    mask_words,
    run_of_words,
    swap_words,
)
from kdsweep.core.models.loading import load_masked_lm
from kdsweep.errors import ModelError

TEXT = "the film was very warm and a superb actor is great"


class Drawn(random.Random):
    """Random numbers that the test chooses."""

    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self.numbers = list(numbers)

    def random(self) -> float:
        return self.numbers.pop(0)

    def randint(self, a: int, b: int) -> int:
        number = self.numbers.pop(0)
        assert a <= number <= b
        return int(number)


def test_each_word_is_masked_where_its_number_is_below_the_share() -> None:
    assert mask_words(["a", "b", "c", "d"], Drawn(0.05, 0.1, 0.5, 0.09), 0.1, "[MASK]") == [
        "[MASK]",
        "b",
        "c",
        "[MASK]",
    ]


def test_a_word_changes_places_with_the_next_one_and_both_are_then_done() -> None:
    # a and b change places, c stays, d and e change places. The last word draws no number.
    assert swap_words(["a", "b", "c", "d", "e"], Drawn(0.1, 0.9, 0.1), 0.2) == [
        "b",
        "a",
        "c",
        "e",
        "d",
    ]
    assert swap_words(["a", "b", "c"], Drawn(0.9, 0.1), 0.2) == ["a", "c", "b"]
    assert swap_words(["alone"], Drawn(), 1.0) == ["alone"]


def test_an_ngram_is_a_run_of_one_to_five_words() -> None:
    words = ["a", "b", "c", "d", "e", "f", "g"]
    assert run_of_words(words, Drawn(3, 4)) == ["e", "f", "g"]
    assert run_of_words(["a", "b"], Drawn(5, 0)) == ["a", "b"]
    found = Counter(len(run_of_words(words, random.Random(i))) for i in range(5000))
    assert set(found) == {1, 2, 3, 4, 5}
    assert all(abs(count / 5000 - 0.2) < 0.03 for count in found.values())


def test_a_view_is_a_function_of_text_seed_and_number() -> None:
    def made(text: str, seed: int, number: int) -> str:
        return edit_text(
            text, draws(text, seed, number), mask=0.3, ngram=0.3, swap=0.3, mask_token="[MASK]"
        )

    first = [made(TEXT, 0, number) for number in range(20)]
    assert first == [made(TEXT, 0, number) for number in range(20)]
    assert len(set(first)) > 15
    assert first != [made(TEXT, 1, number) for number in range(20)]
    assert all(text.strip() for text in first)


def test_shares_are_met_and_0_changes_nothing() -> None:
    many = [edit_text(TEXT, random.Random(i), mask=0.1, mask_token="[MASK]") for i in range(2000)]
    assert sum(text.count("[MASK]") for text in many) / (2000 * 11) == pytest.approx(0.1, abs=0.01)
    short = [edit_text(TEXT, random.Random(i), ngram=0.25) for i in range(2000)]
    assert sum(text != TEXT for text in short) / 2000 == pytest.approx(0.25, abs=0.03)
    assert all(text in TEXT for text in short)
    assert edit_text(f"  {TEXT}\n", random.Random(0)) == TEXT
    assert (
        edit_text("alone", random.Random(0), mask=1.0, ngram=1.0, swap=1.0, mask_token="[MASK]")
        == "[MASK]"
    )


def test_another_mask_token_masks_the_same_words() -> None:
    made = [
        edit_text(TEXT, draws(TEXT, 0, 3), mask=0.4, ngram=0.2, swap=0.4, mask_token=token)
        for token in ("[MASK]", "<mask>")
    ]
    assert made[0].replace("[MASK]", "<mask>") == made[1]


# --- a masked language model ---


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that predicts the same for every mask: `superb`, or e times less likely `lovely`.

    Parts of words (`##s`) and special tokens are even likelier, but must never be offered.
    """
    folder = make_model(tmp_path_factory.mktemp("masked"), "bert", layers=1)
    torch.manual_seed(0)
    model = BertForMaskedLM.from_pretrained(folder)
    with torch.no_grad():
        model.cls.predictions.decoder.weight.zero_()
        model.cls.predictions.bias.fill_(-50.0)
        for word, logit in (("superb", 1.0), ("lovely", 0.0), ("##s", 9.0), ("[SEP]", 9.0)):
            model.cls.predictions.bias[WORDS.index(word)] = logit
    model.save_pretrained(folder)
    return folder


def test_replaced_words_are_drawn_from_the_likeliest_whole_words(masked_lm: Path) -> None:
    offers = MaskedWords(*load_masked_lm(str(masked_lm)), candidates=2)
    rows = [["the", "dull,", "film"]] * 2000
    found = offers.replace(rows, [[1]] * 2000, [random.Random(i) for i in range(2000)])
    assert {(row[0], row[2]) for row in found} == {("the", "film")}
    share = Counter(row[1] for row in found)
    assert set(share) == {"superb", "lovely"}
    assert share["superb"] / 2000 == pytest.approx(2.71828 / 3.71828, abs=0.03)


def test_only_chosen_words_are_replaced_in_rows_of_any_length_and_with_masks_of_their_own(
    masked_lm: Path,
) -> None:
    offers = MaskedWords(*load_masked_lm(str(masked_lm)), candidates=1)
    rows = [["the"], ["[MASK]", "film", "was", "dull"], ["plot"] * 100, ["is", "a", "no"]]
    found = offers.replace(rows, [[0], [1, 3], [2, 99], []], [random.Random(i) for i in range(4)])
    assert found[0] == ["superb"]
    assert found[1] == ["[MASK]", "superb", "was", "superb"]
    # The model reads the third word but not the hundredth.
    assert found[2] == ["plot", "plot", "superb", *["plot"] * 97]
    assert found[3] == rows[3]
    assert rows[0] == ["the"]


def test_parts_of_words_and_special_tokens_are_never_offered(masked_lm: Path) -> None:
    words = set(whole_words(AutoTokenizer.from_pretrained(masked_lm)).values())
    assert "film" in words
    assert not words & {"##s", "s", "[MASK]", "[SEP]", "[PAD]"}


def test_a_model_without_a_masked_language_head_is_one_clear_error(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "body", "bert", layers=1)
    with pytest.raises(
        ModelError,
        match="augment.masked_lm: .* is no masked language model: its weights lack cls.predictions",
    ):
        load_masked_lm(str(folder))
    model = AutoModelForMaskedLM.from_pretrained(folder)
    model.save_pretrained(folder)
    assert MaskedWords(*load_masked_lm(str(folder)), candidates=15).candidates == 15


def test_a_tokenizer_that_can_not_mask_or_has_no_words_is_one_clear_error(tmp_path: Path) -> None:
    folder = make_model(
        tmp_path / "letters", "bert", layers=1, words=[*WORDS[:5], "##a", "##b", "!"]
    )
    AutoModelForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    with pytest.raises(
        ModelError,
        match=r"augment.masked_lm: no token of .*letters is a whole word, so it has none to offer",
    ):
        MaskedWords(*load_masked_lm(str(folder)), candidates=3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.mask_token = None
    with pytest.raises(
        ModelError,
        match=r"augment.masked_lm: .*letters needs a fast tokenizer \(tokenizer.json\) with a mask",
    ):
        offered_words(tokenizer)
