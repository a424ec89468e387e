"""What a model can read, and which tokenizer fits it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import WORDS, copy_model
from transformers import AutoTokenizer

from kdsweep.core.models.inputs import check_fits, check_length, longest_input
from kdsweep.core.models.loading import load_classifier, load_tokenizer
from kdsweep.core.models.student import load_student
from kdsweep.core.settings import StudentSettings
from kdsweep.errors import ModelError

NAMES = ("neg", "pos")


def test_a_tokenizer_that_knows_more_than_the_model_is_refused(
    tiny: Callable[..., str], tmp_path: Path
) -> None:
    small = tiny("bert")
    folder = copy_model(small, tmp_path / "mixed")
    AutoTokenizer.from_pretrained(tiny("bert", words=[*WORDS, "more", "words"])).save_pretrained(
        folder
    )
    with pytest.raises(
        ModelError,
        match=f"knows {len(WORDS) + 2} tokens, the model only {len(WORDS)}: they don't belong",
    ):
        load_student(StudentSettings(model=str(folder)), NAMES, None)
    check_fits(load_classifier(small, NAMES), load_tokenizer(small), small)


@pytest.mark.parametrize(
    ("family", "longest"),
    [("bert", 66), ("distilbert", 66), ("electra", 66), ("roberta", 65), ("mpnet", 64)],
)
def test_rows_longer_than_the_models_positions_are_refused(
    family: str, longest: int, tiny: Callable[..., str]
) -> None:
    """66 position embeddings. RoBERTa counts from the padding's number (here 0) on, which takes 1.

    MPNet always counts from 1 on, which takes 2.
    """
    source = tiny(family)
    model, tokenizer = load_classifier(source, NAMES).eval(), load_tokenizer(source)
    tokenizer.model_max_length = 10**30
    assert longest_input(model, tokenizer) == longest
    check_length(model, tokenizer, longest, source)
    with pytest.raises(
        ModelError,
        match=f"training.max_length: {longest + 1} tokens are more than the {longest} that",
    ):
        check_length(model, tokenizer, longest + 1, source)
    with torch.no_grad():
        model(input_ids=torch.full((1, longest), 6))
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, longest + 1), 6))


def test_the_tokenizers_own_limit_counts_too(tiny: Callable[..., str]) -> None:
    assert longest_input(load_classifier(tiny("bert"), NAMES), load_tokenizer(tiny("bert"))) == 64
