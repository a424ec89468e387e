"""Tokens of every kind of tokenizer are those of a plain call, row by row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from task_rows import ROWS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, PreTrainedTokenizerFast
from transformers.tokenization_python import PreTrainedTokenizer

from kdsweep.core.data import encode, tokenize
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.rows import Split
from kdsweep.core.data.tokenize import tokenize_split

CORPUS = [text for text, _ in ROWS] + [
    "中文 🎬 naïve café",
    "  spaced   out ",
    "don't-stop @ 3.14%",
    "a" * 90,
]


def trained(model: Any, trainer: Any, pre_tokenizer: Any, post_processor: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(CORPUS, trainer)
    if post_processor is not None:
        tokenizer.post_processor = post_processor
    return tokenizer


def word_piece() -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    template = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    made = trained(
        models.WordPiece(unk_token="[UNK]"), trainer, pre_tokenizers.BertPreTokenizer(), template
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def byte_level() -> PreTrainedTokenizerFast:
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made = trained(
        models.BPE(),
        trainer,
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        processors.RobertaProcessing(("</s>", 2), ("<s>", 0)),
    )
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        truncation_side="left",
    )


def unigram() -> PreTrainedTokenizerFast:
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=["<unk>", "<pad>"], unk_token="<unk>", show_progress=False
    )
    made = trained(models.Unigram(), trainer, pre_tokenizers.Metaspace())
    made.add_special_tokens(["<extra>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", padding_side="left"
    )


class Spaces(PreTrainedTokenizer):
    """A tokenizer without a Rust half."""

    def __init__(self, **options: Any) -> None:
        self.words = {"[PAD]": 0, "[UNK]": 1} | {
            word: i + 2
            for i, word in enumerate(sorted({word for text in CORPUS for word in text.split()}))
        }
        super().__init__(pad_token="[PAD]", unk_token="[UNK]", **options)

    @property
    def vocab_size(self) -> int:
        return len(self.words)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.words)

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return text.split()

    def _convert_token_to_id(self, token: str) -> int:
        return self.words.get(token, 1)


class Shouting(BertTokenizer):
    """A tokenizer that changes the texts before its Rust half sees them."""

    def _encode_plus(self, text: Any, *arguments: Any, **options: Any) -> Any:
        return super()._encode_plus(
            [one.upper() for one in text] if isinstance(text, list) else text.upper(),
            *arguments,
            **options,
        )


def shouting() -> Shouting:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg", "F", "##I", "##N", "##E"]
    return Shouting(vocab={word: i for i, word in enumerate(words)}, do_lower_case=False)


def assert_as_called(
    tokenizer: Any, columns: tuple[list[str], ...], max_length: int, token_types: bool, cache: Path
) -> None:
    """Each row in the cache is what a plain call of the tokenizer gives for that row alone."""
    key = f"{len(columns)}"
    made = tokenize_split(
        Split("x", columns, np.zeros(len(columns[0]), np.int64), key),
        tokenizer,
        InputFormat(max_length, token_types=token_types),
        cache=cache,
    )
    truncated = 0
    for i, texts in enumerate(zip(*columns, strict=True)):
        plain = tokenizer(
            *texts, truncation=True, max_length=max_length, return_token_type_ids=token_types
        )
        row = slice(made.offsets[i], made.offsets[i + 1])
        assert made.input_ids[row].tolist() == plain["input_ids"], texts
        assert made.lengths[i] == len(plain["input_ids"])
        if token_types:
            assert made.token_type_ids is not None
            assert made.token_type_ids[row].tolist() == plain["token_type_ids"]
        truncated += (
            len(tokenizer(*texts, truncation=False, verbose=False)["input_ids"]) > max_length
        )
    assert made.truncated == truncated
    assert made.offsets[-1] == len(made.input_ids)


@pytest.mark.parametrize(
    "make", [word_piece, byte_level, unigram, Spaces, shouting], ids=lambda make: make.__name__
)
@pytest.mark.parametrize("token_types", [True, False])
def test_tokens_are_those_of_a_plain_call_row_by_row(
    make: Callable[[], Any], token_types: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The rows span several calls.
    monkeypatch.setattr(tokenize, "ROWS_PER_CALL", 50)
    tokenizer = make()
    assert encode.backend_does_it_all(tokenizer) is (make in (word_piece, byte_level, unigram))
    for max_length in (5, 8, 64):
        assert_as_called(tokenizer, (CORPUS,), max_length, token_types, tmp_path)
        assert_as_called(tokenizer, (CORPUS, CORPUS[::-1]), max_length, token_types, tmp_path)


def test_options_of_an_earlier_call_of_the_tokenizer_change_nothing(tmp_path: Path) -> None:
    tokenizer = word_piece()
    tokenizer(
        CORPUS,
        padding="max_length",
        truncation=True,
        max_length=6,
        stride=1,
        return_overflowing_tokens=True,
    )
    assert_as_called(tokenizer, (CORPUS,), 8, True, tmp_path)


def test_ids_take_two_bytes_if_the_vocabulary_is_small_and_four_if_not(
    tmp_path: Path,
) -> None:
    small = word_piece()
    words = {"[UNK]": 0, "fine": 70_000, "plot": 65_535} | {f"w{i}": i for i in range(1, 300)}
    large = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="[UNK]")), pad_token="[UNK]"
    )
    large.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for tokenizer, dtype in ((small, np.uint16), (large, np.int32)):
        made = tokenize_split(
            Split("x", (["fine plot"],), np.zeros(1, np.int64), "x"),
            tokenizer,
            InputFormat(8, token_types=False),
            cache=tmp_path,
        )
        assert made.input_ids.dtype == dtype
        assert made.batch(np.array([0]))["input_ids"].tolist() == [
            tokenizer("fine plot")["input_ids"]
        ]
    assert made.input_ids.tolist() == [70_000, 65_535]


def test_tokens_of_an_earlier_version_are_still_read(tmp_path: Path) -> None:
    split = Split("x", (CORPUS,), np.zeros(len(CORPUS), np.int64), "x")
    tokenizer = word_piece()
    now = tokenize_split(split, tokenizer, InputFormat(8, token_types=True), cache=tmp_path)
    rows = np.arange(len(CORPUS))
    folder = tmp_path / "tokens" / now.key
    # Read before the mapped file is overwritten.
    lengths = now.lengths.tolist()
    batch = now.batch(rows)
    ids = np.load(folder / "input_ids.npy").astype(np.int32)
    np.save(folder / "input_ids.npy", ids)
    (folder / "lengths.npy").unlink()
    then = tokenize_split(
        split, tokenizer, InputFormat(8, token_types=True), cache=tmp_path, say=pytest.fail
    )
    assert then.lengths.tolist() == lengths
    assert all((then.batch(rows)[name] == array).all() for name, array in batch.items())


def test_tokens_have_the_keys_of_the_first_version(tmp_path: Path) -> None:
    split = Split("x", (["fine plot"],), np.zeros(1, np.int64), "x")
    keys = [
        tokenize_split(split, Spaces(), input_format, cache=tmp_path).key
        for input_format in (InputFormat(8, False), InputFormat(9, True), InputFormat(8, False))
    ]
    assert keys == ["bca2d0c7cc424d03", "61736092bceb75b1", "bca2d0c7cc424d03"]


def test_long_work_reports_its_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenize, "ROWS_PER_CALL", 50)
    monkeypatch.setattr(tokenize, "SECONDS_BETWEEN_LINES", 0.0)
    said: list[str] = []
    split = Split("train", (CORPUS,), np.zeros(len(CORPUS), np.int64), "x")
    tokenize_split(
        split, word_piece(), InputFormat(8, token_types=True), cache=tmp_path, say=said.append
    )
    assert said == [
        "tokenizing train: 124 rows",
        "tokenizing train: 50 of 124 rows done",
        "tokenizing train: 100 of 124 rows done",
    ]
