"""From texts to the tokens that a model reads, with its own tokenizer."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np

from kdsweep.core.files import fingerprint
from kdsweep.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kdsweep.core.settings import Truncation


Side = Literal["left", "right"]


@dataclass(frozen=True)
class Padding:
    """How rows of different length share a batch.

    token_id: what fills the shorter rows, on this side. by_length: rows of different length never
    share a batch, because the model can't ignore padding. notes: what a user should know of it.
    is_mended: whether version 0.1.0, which padded on the right with the tokenizer's token or 0, got
    other logits for padded rows than for the same rows alone.
    """

    token_id: int
    side: Side = "right"
    by_length: bool = False
    notes: tuple[str, ...] = field(default=(), compare=False)
    is_mended: bool = field(default=False, compare=False)

    def to_json(self) -> dict[str, object]:
        return {"token_id": self.token_id, "side": self.side, "by_length": self.by_length}

    @staticmethod
    def of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Padding:
        """As the tokenizer alone would pad; with 0 if it has no token for that."""
        token_id = tokenizer.pad_token_id
        side: Side = "left" if tokenizer.padding_side == "left" else "right"
        return Padding(0 if token_id is None else int(token_id), side)


@dataclass(frozen=True)
class InputFormat:
    """How a model reads a row.

    max_length: the most tokens of a row, special tokens included. token_types: whether the model
    tells the first text from the second by them. truncation: which part of a longer text is kept.
    padding: None means as the tokenizer pads. end_token: the token at whose last place the model
    answers; each row must have as many as the tokenizer puts there. None for other models.
    """

    max_length: int
    token_types: bool
    truncation: Truncation = "head"
    padding: Padding | None = None
    end_token: int | None = None


@dataclass(frozen=True, eq=False)
class EncodedRows:
    """The tokens of some rows, one row after the other.

    ids: int32 [tokens]. types: int8 [tokens], or None without token types. lengths: int32 [rows].
    truncated: how many rows lost tokens.
    """

    ids: np.ndarray
    types: np.ndarray | None
    lengths: np.ndarray
    truncated: int


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: list[list[str]], input_format: InputFormat
) -> EncodedRows:
    """Rows of one text or two, each a column in `texts`, as a model reads them.

    A special token that a text spells out is read as one, as tokenizers do. An end token is read as
    text: a model that answers at the end needs the same number of them in each row. Raises
    ModelError if the tokenizer can't keep the end of a text, or makes no token of one.
    """
    made = _encode(tokenizer, texts, input_format)
    if input_format.end_token is not None:
        made = _with_ends_alone(made, tokenizer, texts, input_format)
    if len(empty := np.flatnonzero(made.lengths == 0)):
        text = " ".join(column[empty[0]] for column in texts)
        raise ModelError(
            f"model: {type(tokenizer).__name__} makes no token of the text {text[:40]!r} "
            f"({len(empty):,} such rows); remove the row, or use another model"
        )
    return made


def _with_ends_alone(
    made: EncodedRows,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[list[str]],
    input_format: InputFormat,
) -> EncodedRows:
    """The rows; those whose texts spell out the end token again, with special tokens as text."""
    usual = _encode(tokenizer, [["a"] for _ in texts], input_format)
    expected = int((usual.ids == input_format.end_token).sum())
    starts = np.concatenate([[0], np.cumsum(made.lengths, dtype=np.int64)])
    found = np.concatenate([[0], np.cumsum(made.ids == input_format.end_token)])
    ends = np.diff(found[starts])
    spelled = np.flatnonzero(ends > expected)
    if not len(spelled):
        return made
    rows = [made.ids[starts[i] : starts[i + 1]] for i in range(len(made.lengths))]
    again = [[column[i] for i in spelled] for column in texts]
    as_text = tokenizer(
        *again,
        truncation=True,
        max_length=input_format.max_length,
        return_attention_mask=False,
        split_special_tokens=True,
    )["input_ids"]
    for i, ids in zip(spelled, as_text, strict=True):
        if ids.count(input_format.end_token) > expected:
            text = " ".join(column[i] for column in texts)
            raise ModelError(
                f"model: the text {text[:40]!r} spells out "
                f"{tokenizer.convert_ids_to_tokens(input_format.end_token)!r}, with which this "
                "model's rows end, and its tokenizer can't read it as text; remove it from the row"
            )
        rows[i] = np.array(ids, dtype=np.int32)
    # Families that answer at the end have no token types.
    return EncodedRows(np.concatenate(rows), made.types, _lengths(rows), made.truncated)


def _encode(
    tokenizer: PreTrainedTokenizerBase, texts: list[list[str]], input_format: InputFormat
) -> EncodedRows:
    if input_format.truncation != "head":
        (column,) = texts
        return _encode_keeping_the_end(tokenizer, column, input_format)
    if backend_does_it_all(tokenizer):
        return _encode_by_backend(tokenizer, texts, input_format)
    return _encode_by_call(tokenizer, texts, input_format)


def _encode_keeping_the_end(
    tokenizer: PreTrainedTokenizerBase, column: list[str], input_format: InputFormat
) -> EncodedRows:
    """The end of a long text ("tail"), or a quarter from its start and the rest from its end
    ("head_tail").

    After Sun, Qiu, Xu, Huang (2019), "How to Fine-Tune BERT for Text Classification?"
    (https://arxiv.org/abs/1905.05583).
    """
    before, after = _special_tokens(tokenizer)
    room = input_format.max_length - len(before) - len(after)
    kept_of_head = room // 4 if input_format.truncation == "head_tail" else 0
    texts = tokenizer(
        column,
        add_special_tokens=False,
        truncation=False,
        return_attention_mask=False,
        verbose=False,
    )["input_ids"]
    rows = []
    for ids in texts:
        if len(ids) > room:
            kept = [*ids[:kept_of_head], *ids[len(ids) - room + kept_of_head :]]
        else:
            kept = ids
        rows.append([*before, *kept, *after])
    lengths = _lengths(rows)
    ids = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(lengths.sum()))
    # There is one text, so all tokens have the type of the first.
    types = np.zeros(len(ids), dtype=np.int8) if input_format.token_types else None
    return EncodedRows(ids, types, lengths, sum(len(ids) > room for ids in texts))


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The tokens that the tokenizer puts before a text, and those after it."""
    whole, plain = (
        list(tokenizer("a", add_special_tokens=special)["input_ids"]) for special in (True, False)
    )
    for start in range(len(whole) - len(plain) + 1):
        if plain and whole[start : start + len(plain)] == plain:
            return whole[:start], whole[start + len(plain) :]
    raise ModelError(
        f"task.truncation: {type(tokenizer).__name__} doesn't say which tokens are a text's own; "
        "use 'head'"
    )


def backend_does_it_all(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether calling the tokenizer only calls its Rust half: the family has no preparation of its
    own, and there is no language to switch to.
    """
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    kind = type(tokenizer)
    as_inherited = (
        kind.__call__ is PreTrainedTokenizerBase.__call__
        and getattr(kind, "_encode_plus", None) is PreTrainedTokenizerFast._encode_plus
    )
    return (
        as_inherited
        and not hasattr(tokenizer, "_switch_to_input_mode")
        and hasattr(getattr(tokenizer, "backend_tokenizer", None), "encode_batch_fast")
    )


def _encode_by_backend(
    tokenizer: PreTrainedTokenizerBase, texts: list[list[str]], input_format: InputFormat
) -> EncodedRows:
    """The Rust tokenizer's encodings as they are.

    The tokenizer's own call makes a dictionary of lists from them, which takes 1.5 times as long.
    """
    # A call for one row makes the tokenizer set its Rust half's truncation.
    first_rows = [column[:1] for column in texts]
    tokenizer(*first_rows, truncation=True, max_length=input_format.max_length)
    rows = texts[0] if len(texts) == 1 else list(zip(*texts, strict=True))
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(rows)
    lengths = _lengths(encodings)
    total = int(lengths.sum())
    ids = chain.from_iterable(encoding.ids for encoding in encodings)
    types = None
    if input_format.token_types:
        type_ids = chain.from_iterable(encoding.type_ids for encoding in encodings)
        types = np.fromiter(type_ids, dtype=np.int8, count=total)
    full = np.flatnonzero(lengths >= input_format.max_length)
    truncated = sum(bool(encodings[i].overflowing) for i in full)
    return EncodedRows(np.fromiter(ids, dtype=np.int32, count=total), types, lengths, truncated)


def _encode_by_call(
    tokenizer: PreTrainedTokenizerBase, texts: list[list[str]], input_format: InputFormat
) -> EncodedRows:
    """What every tokenizer can do."""
    encoded = tokenizer(
        *texts,
        truncation=True,
        max_length=input_format.max_length,
        return_token_type_ids=input_format.token_types,
        return_attention_mask=False,
        return_overflowing_tokens=False,
    )
    rows = encoded["input_ids"]
    lengths = _lengths(rows)
    truncated = 0
    # Only a row of full length can have lost tokens, so those are tokenized again, whole.
    full = np.flatnonzero(lengths == input_format.max_length)
    if len(full):
        whole = tokenizer(
            *([column[i] for i in full] for column in texts),
            truncation=False,
            return_attention_mask=False,
            verbose=False,
        )
        truncated = sum(len(row) > input_format.max_length for row in whole["input_ids"])
    types = None
    if input_format.token_types:
        type_ids = chain.from_iterable(encoded["token_type_ids"])
        types = np.fromiter(type_ids, dtype=np.int8)
    ids = np.fromiter(chain.from_iterable(rows), dtype=np.int32)
    return EncodedRows(ids, types, lengths, truncated)


def _lengths(rows: Sequence[Sized]) -> np.ndarray:
    return np.fromiter(map(len, rows), dtype=np.int32, count=len(rows))


def has_small_ids(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether every token id fits into 16 bits. Only sure if the Rust half makes all of them."""
    return backend_does_it_all(tokenizer) and max(tokenizer.get_vocab().values()) < 1 << 16


# Writing out a vocabulary takes 0.2 s, and it is asked for each split.
@functools.lru_cache(maxsize=8)
def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of what the tokenizer does, wherever its files are."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return fingerprint(type(tokenizer).__name__, sorted(tokenizer.get_vocab().items()))
    rules = json.loads(backend.to_str())
    # These are the settings of the last call, not the tokenizer's own.
    rules.pop("truncation", None)
    rules.pop("padding", None)
    return fingerprint(type(tokenizer).__name__, rules)
