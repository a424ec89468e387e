"""From rows to tokens in flat memory-mapped arrays."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from kdsweep.core.data.mapped_arrays import GrowingArray, map_array
from kdsweep.core.data.rows import Say, Split
from kdsweep.core.files import fingerprint, locked, publishing, read_json, write_json
from kdsweep.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kdsweep.core.settings import Truncation


@dataclass(frozen=True)
class InputFormat:
    """How a model reads a row: at most `max_length` tokens, special ones included, and which of a
    longer text are kept; with `token_types` where the model tells the first text from the second.
    """

    max_length: int
    token_types: bool
    truncation: Truncation = "head"


@dataclass(frozen=True, eq=False)
class TokenizedSplit:
    """One split as one model reads it: all tokens in a row, memory-mapped. Row i is `input_ids[offsets[i]:offsets[i + 1]]`."""

    input_ids: np.ndarray
    token_type_ids: np.ndarray | None
    offsets: np.ndarray
    labels: np.ndarray
    pad_token_id: int
    truncated: int
    key: str
    kept_lengths: np.ndarray | None = None  # what earlier versions tokenized has none

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """int32 [rows]"""
        return (
            np.diff(self.offsets).astype(np.int32)
            if self.kept_lengths is None
            else self.kept_lengths
        )

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Model inputs, int64 [rows, longest of these rows]; what is past a row's end is padding, with no attention."""
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        columns = np.arange(lengths.max())
        real = columns < lengths[:, None]
        where = (starts[:, None] + columns)[real]
        ids = np.full(real.shape, self.pad_token_id, dtype=np.int64)
        ids[real] = self.input_ids[where]
        inputs = {"input_ids": ids, "attention_mask": real.astype(np.int64)}
        if self.token_type_ids is not None:
            types = np.zeros(real.shape, dtype=np.int64)
            types[real] = self.token_type_ids[where]
            inputs["token_type_ids"] = types
        return inputs


class JoinedTokens:
    """Several splits as one, the rows of one after those of another, each still in its own files."""

    def __init__(self, parts: Sequence[TokenizedSplit]) -> None:
        self.parts = parts
        self.starts = np.cumsum([0, *map(len, parts)])
        self.lengths = np.concatenate([part.lengths for part in parts])  # int32 [rows]

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """As of a split that holds all rows."""
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        out: dict[str, np.ndarray] = {}
        for number in np.unique(owner):
            mine = np.flatnonzero(owner == number)
            part = self.parts[number]
            for name, values in part.batch(rows[mine] - self.starts[number]).items():
                empty = part.pad_token_id if name == "input_ids" else 0
                whole = out.setdefault(
                    name, np.full((len(rows), self.lengths[rows].max()), empty, dtype=np.int64)
                )
                whole[mine, : values.shape[1]] = values
        return out


SomeTokens = TokenizedSplit | JoinedTokens


def joined_tokens(parts: Sequence[TokenizedSplit]) -> SomeTokens:
    return parts[0] if len(parts) == 1 else JoinedTokens(parts)


# --- tokenizing ------------------------------------------------------------------------------------------------------

ROWS_A_TOKENIZER_CALL = 4096
SECONDS_BETWEEN_LINES = 10.0


def tokenize_split(
    split: Split,
    tokenizer: PreTrainedTokenizerBase,
    input_format: InputFormat,
    *,
    cache: Path,
    say: Say = lambda line: None,
) -> TokenizedSplit:
    """Tokenize once, for as long as rows, tokenizer, length and truncation stay what they are; afterwards map the files into memory."""
    key = fingerprint(
        "tokens 1",
        split.key,
        tokenizer_fingerprint(tokenizer),
        input_format.max_length,
        input_format.token_types,
        *([] if input_format.truncation == "head" else [input_format.truncation]),
    )
    folder = cache / "tokens" / key
    if not folder.is_dir():
        with locked(
            cache / "tokens" / f"{key}.lock",
            lambda: say(f"tokenizing {split.name}: another process does it; waiting"),
        ):
            if not folder.is_dir():
                say(f"tokenizing {split.name}: {len(split):,} rows")
                with publishing(folder) as beside:
                    _tokenize_into(beside, split, tokenizer, input_format, say)
    lengths = folder / "lengths.npy"
    return TokenizedSplit(
        input_ids=np.load(folder / "input_ids.npy", mmap_mode="r"),
        token_type_ids=np.load(folder / "token_type_ids.npy", mmap_mode="r")
        if input_format.token_types
        else None,
        offsets=map_array(folder / "offsets.npy"),
        labels=split.labels,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
        truncated=read_json(folder / "meta.json")["truncated"],
        key=key,
        kept_lengths=map_array(lengths) if lengths.exists() else None,
    )


@dataclass(frozen=True)
class Tokens:
    """Some rows' tokens, one after the other; [rows] lengths; how many rows lost tokens."""

    ids: np.ndarray
    types: np.ndarray | None
    lengths: np.ndarray
    truncated: int


def _tokenize_into(
    folder: Path,
    split: Split,
    tokenizer: PreTrainedTokenizerBase,
    input_format: InputFormat,
    say: Say,
) -> None:
    small = _backend_does_it_all(tokenizer) and max(tokenizer.get_vocab().values()) < 1 << 16
    lengths, truncated, told = np.empty(len(split), dtype=np.int32), 0, time.monotonic()
    with ExitStack() as files:
        ids = files.enter_context(
            GrowingArray(folder / "input_ids.npy", np.uint16 if small else np.int32)
        )
        types = (
            files.enter_context(GrowingArray(folder / "token_type_ids.npy", np.int8))
            if input_format.token_types
            else None
        )
        for start in range(0, len(split), ROWS_A_TOKENIZER_CALL):
            end = min(start + ROWS_A_TOKENIZER_CALL, len(split))
            columns = [list(column[start:end]) for column in split.texts]
            made = encode(tokenizer, columns, input_format)
            ids.append(made.ids)
            if types is not None and made.types is not None:
                types.append(made.types)
            lengths[start:end] = made.lengths
            truncated += made.truncated
            if time.monotonic() - told >= SECONDS_BETWEEN_LINES and end < len(split):
                say(f"tokenizing {split.name}: {end:,} of {len(split):,} rows done")
                told = time.monotonic()
    np.save(folder / "lengths.npy", lengths)
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
    write_json(folder / "meta.json", {"rows": len(split), "truncated": truncated})


def encode(
    tokenizer: PreTrainedTokenizerBase,
    texts: list[list[str]],
    input_format: InputFormat,
) -> Tokens:
    """Rows of one text or two, each a column in `texts`, as a model reads them: with its special tokens, at most `max_length` in all."""
    if input_format.truncation != "head":
        (column,) = texts
        return _encode_cut(tokenizer, column, input_format)
    if _backend_does_it_all(tokenizer):
        return _encode_by_backend(tokenizer, texts, input_format)
    return _encode_by_call(tokenizer, texts, input_format)


def _encode_cut(
    tokenizer: PreTrainedTokenizerBase,
    column: list[str],
    input_format: InputFormat,
) -> Tokens:
    """The end of a long text, or a quarter of its beginning and three of its end, after Sun, Qiu, Xu, Huang (2019), "How to Fine-Tune BERT
    for Text Classification?" (https://arxiv.org/abs/1905.05583)."""
    before, after = _special_tokens(tokenizer)
    room = input_format.max_length - len(before) - len(after)
    kept_of_head = room // 4 if input_format.truncation == "head_tail" else 0
    plain = tokenizer(
        column,
        add_special_tokens=False,
        truncation=False,
        return_attention_mask=False,
        verbose=False,
    )["input_ids"]
    cut = [
        ids if len(ids) <= room else [*ids[:kept_of_head], *ids[len(ids) - room + kept_of_head :]]
        for ids in plain
    ]
    rows = [[*before, *ids, *after] for ids in cut]
    lengths = np.fromiter(map(len, rows), dtype=np.int32, count=len(rows))
    ids = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(lengths.sum()))
    types = (
        np.zeros(len(ids), dtype=np.int8) if input_format.token_types else None
    )  # one text: all its tokens are of the first
    return Tokens(ids, types, lengths, sum(len(ids) > room for ids in plain))


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before a text, and after it."""
    whole, plain = (
        list(tokenizer("a", add_special_tokens=special)["input_ids"]) for special in (True, False)
    )
    for start in range(len(whole) - len(plain) + 1):
        if plain and whole[start : start + len(plain)] == plain:
            return whole[:start], whole[start + len(plain) :]
    raise ModelError(
        f"task.truncation: {type(tokenizer).__name__} doesn't say which tokens are a text's own; use 'head'"
    )


def _backend_does_it_all(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a call of the tokenizer is nothing but one of its Rust half: no family's own preparation, no language to switch to."""
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
) -> Tokens:
    """The Rust tokenizer's answers as they are: the way through a dictionary of lists takes half as long again."""
    tokenizer(
        *(column[:1] for column in texts), truncation=True, max_length=input_format.max_length
    )  # it tells its Rust half how to truncate
    backend = cast(Any, tokenizer).backend_tokenizer
    encodings = backend.encode_batch_fast(
        texts[0] if len(texts) == 1 else list(zip(*texts, strict=True))
    )
    lengths = np.fromiter(map(len, encodings), dtype=np.int32, count=len(encodings))
    total = int(lengths.sum())
    ids = np.fromiter(
        chain.from_iterable(encoding.ids for encoding in encodings), dtype=np.int32, count=total
    )
    types = (
        np.fromiter(
            chain.from_iterable(encoding.type_ids for encoding in encodings),
            dtype=np.int8,
            count=total,
        )
        if input_format.token_types
        else None
    )
    return Tokens(
        ids,
        types,
        lengths,
        sum(
            bool(encodings[i].overflowing)
            for i in np.flatnonzero(lengths >= input_format.max_length)
        ),
    )


def _encode_by_call(
    tokenizer: PreTrainedTokenizerBase, texts: list[list[str]], input_format: InputFormat
) -> Tokens:
    """What any tokenizer can do."""
    how: dict[str, Any] = {
        "truncation": True,
        "max_length": input_format.max_length,
        "return_token_type_ids": input_format.token_types,
    }
    encoded = tokenizer(*texts, **how, return_attention_mask=False, return_overflowing_tokens=False)
    rows = encoded["input_ids"]
    lengths = np.fromiter(map(len, rows), dtype=np.int32, count=len(rows))
    full, truncated = np.flatnonzero(lengths == input_format.max_length), 0
    if len(full):  # only a row of full length can have lost something: read those again, whole
        whole = tokenizer(
            *([column[i] for i in full] for column in texts),
            truncation=False,
            return_attention_mask=False,
            verbose=False,
        )
        truncated = sum(len(row) > input_format.max_length for row in whole["input_ids"])
    ids = np.fromiter(chain.from_iterable(rows), dtype=np.int32)
    types = (
        np.fromiter(chain.from_iterable(encoded["token_type_ids"]), dtype=np.int8)
        if input_format.token_types
        else None
    )
    return Tokens(ids, types, lengths, truncated)


@functools.lru_cache(
    maxsize=8
)  # writing a vocabulary out takes a fifth of a second, and each split asks
def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of what the tokenizer does, not of where it lies."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return fingerprint(type(tokenizer).__name__, sorted(tokenizer.get_vocab().items()))
    rules = json.loads(backend.to_str())
    rules.pop("truncation", None)  # the last call's settings, not the tokenizer's own
    rules.pop("padding", None)
    return fingerprint(type(tokenizer).__name__, rules)
