"""Which part is kept of a text that is longer than a model reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PLAIN, sentences, write_csv
from pydantic import ValidationError
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kdsweep.core import train
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import Split
from kdsweep.core.data.tokenize import TokenizedSplit, tokenize_split
from kdsweep.core.models.loading import load_tokenizer
from kdsweep.core.settings import TaskSettings, TeacherSettings, TrialSettings, Truncation
from kdsweep.core.teachers.artifact import teacher_key
from kdsweep.core.teachers.logits import teacher_logits
from kdsweep.core.teachers.selection import prepare_teacher
from kdsweep.core.trial_folder import TrialFolder
from kdsweep.errors import ModelError
from kdsweep.serving import load, write_settings

# Ten words.
LONG = " ".join(PLAIN)
SHORT = "fine film"


@pytest.fixture(scope="module")
def tokenizer(tiny: Callable[..., str]) -> Any:
    return load_tokenizer(tiny("bert"))


def tokenized(
    tokenizer: Any,
    cache: Path,
    truncation: Truncation,
    texts: list[str],
    *,
    max_length: int = 10,
    token_types: bool = True,
) -> TokenizedSplit:
    split = Split("x", (texts,), np.zeros(len(texts), dtype=np.int64), "x")
    return tokenize_split(
        split,
        tokenizer,
        InputFormat(max_length, token_types=token_types, truncation=truncation),
        cache=cache,
    )


@pytest.mark.parametrize(
    ("truncation", "kept"),
    [
        ("head", PLAIN[:8]),
        ("tail", PLAIN[2:]),
        # 8 of 10 tokens are words; a quarter of them is 2.
        ("head_tail", [*PLAIN[:2], *PLAIN[4:]]),
    ],
)
def test_the_part_that_is_kept(
    tokenizer: Any, tmp_path: Path, truncation: Truncation, kept: list[str]
) -> None:
    made = tokenized(tokenizer, tmp_path, truncation, [LONG, SHORT, " ".join(PLAIN[:8])])
    rows = [made.input_ids[made.offsets[i] : made.offsets[i + 1]].tolist() for i in range(3)]
    assert tokenizer.convert_ids_to_tokens(rows[0]) == ["[CLS]", *kept, "[SEP]"]
    # Texts that fit are whole.
    assert rows[1:] == [tokenizer(text)["input_ids"] for text in (SHORT, " ".join(PLAIN[:8]))]
    assert made.truncated == 1
    assert made.lengths.tolist() == [10, 4, 10]
    assert made.token_type_ids is not None and not made.token_type_ids.any()


def test_each_truncation_has_its_own_key_and_head_has_that_of_the_first_version(
    tokenizer: Any, tmp_path: Path
) -> None:
    plain = tokenize_split(
        Split("x", ([LONG],), np.zeros(1, dtype=np.int64), "x"),
        tokenizer,
        InputFormat(10, token_types=True),
        cache=tmp_path,
    )
    keys = [
        tokenized(tokenizer, tmp_path, truncation, [LONG]).key
        for truncation in ("head", "tail", "head_tail")
    ]
    assert keys[0] == plain.key
    assert len(set(keys)) == 3
    assert tokenized(tokenizer, tmp_path, "tail", [LONG]).key == keys[1]


def test_a_tokenizer_without_special_tokens_fills_the_whole_length(tmp_path: Path) -> None:
    words = {word: i for i, word in enumerate(["[UNK]", *PLAIN])}
    bare = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    made = tokenized(
        PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="[UNK]"),
        tmp_path,
        "tail",
        [LONG],
        max_length=4,
        token_types=False,
    )
    assert made.input_ids.tolist() == [words[word] for word in PLAIN[-4:]]


def test_a_tokenizer_that_hides_a_texts_tokens_is_refused(tmp_path: Path) -> None:
    # It has no token for unknown words.
    bare = Tokenizer(models.BPE({"b": 0}, []))
    with pytest.raises(ModelError, match=r"task\.truncation: .* use 'head'"):
        tokenized(
            PreTrainedTokenizerFast(tokenizer_object=bare), tmp_path, "tail", [LONG], max_length=4
        )


def test_sentence_pairs_take_only_truncation_head() -> None:
    base: dict[str, Any] = {"dataset": "x", "text": ["a", "b"], "label": "l"}
    with pytest.raises(ValidationError, match="truncation: tail is for one text"):
        TaskSettings(**base, truncation="tail")
    assert "truncation" not in json.loads(TaskSettings(**base, truncation="head").model_dump_json())


def test_teacher_student_and_served_student_read_the_same_part(
    tiny: Callable[..., str], tmp_path: Path
) -> None:
    """The words that decide the label are at the end, so "head" would learn nothing."""
    rows = [(f"{' '.join(PLAIN * 2)} {text}", label) for text, label in sentences(200)]
    base: dict[str, Any] = {
        "dataset": str(write_csv(tmp_path / "rows.csv", rows)),
        "text": "text",
        "label": "label",
        "holdout": 0.2,
    }
    task = TaskSettings(**base, truncation="tail")
    training = {"epochs": 12, "batch_size": 16, "max_length": 12, "evaluations_per_epoch": 1}
    teacher = TeacherSettings.model_validate(
        {"model": tiny("bert"), "training": {"learning_rate": 2e-3, **training}}
    )
    data = load_task(task, tmp_path)
    # Rows are kept whole, whatever part of them is read.
    assert load_task(TaskSettings(**base), tmp_path) is data
    assert teacher_key(task, teacher, data) != teacher_key(TaskSettings(**base), teacher, data)
    made = prepare_teacher(task, teacher, tmp_path)
    assert made.validation["accuracy"] > 0.9
    assert (
        teacher_logits(made, data, cache=tmp_path, split="test").argmax(axis=1) == data.test.labels
    ).mean() > 0.9
    trial = {
        "task": task,
        "teacher": teacher,
        "student": {"model": tiny("bert"), "layers": 1},
        "training": training,
        "alpha": 0.5,
        "learning_rate": 2e-3,
    }
    *_, last = train(
        TrialSettings.model_validate(trial | {"judge_test": True}),
        tmp_path / "trial",
        cache=tmp_path,
    )
    assert last.metrics["validation/accuracy"] > 0.9
    student = tmp_path / "trial" / "student"
    write_settings(student, text=("text",), max_length=12, truncation="tail")
    answered = TrialFolder(tmp_path / "trial").read_test_logits().argmax(axis=1)
    assert load(student).predict(list(data.test.texts[0]))["label"].tolist() == [
        data.label_names[number] for number in answered
    ]
