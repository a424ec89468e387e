"""A split's tokens: made once, kept in flat files in the cache, and mapped into memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdsweep.core.data.batches import parts_of_one_length
from kdsweep.core.data.encode import (
    InputFormat,
    Padding,
    encode,
    has_small_ids,
    tokenizer_fingerprint,
)
from kdsweep.core.data.mapped_arrays import GrowingArray, check_offsets, map_array
from kdsweep.core.data.rows import Say, Split
from kdsweep.core.files import fingerprint, publishing, read_array, read_json, whole, write_json
from kdsweep.core.shared_entry import SharedEntry

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Part of the key of tokens in the cache. Raise it when what is written there changes.
TOKENS_FORMAT = 1
ROWS_PER_CALL = 4096
SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True, eq=False)
class TokenizedSplit:
    """One split as one model reads it: row i is `input_ids[offsets[i]:offsets[i + 1]]`.

    input_ids and token_type_ids: [tokens]. offsets: int64 [rows + 1]. labels: those of the split.
    truncated: how many rows lost tokens. kept_lengths: int32 [rows], or None in a cache of an
    early version. Arrays from the cache are memory-mapped.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray | None
    offsets: np.ndarray
    labels: np.ndarray
    padding: Padding
    truncated: int
    key: str
    kept_lengths: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int32 [rows]"""
        if self.kept_lengths is None:
            return np.diff(self.offsets).astype(np.int32)
        return self.kept_lengths

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Model inputs, int64 [rows, longest of these rows], padded and with an attention mask."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        columns = np.arange(lengths.max())
        if self.padding.side == "right":
            real = columns < lengths[:, None]
            tokens = (starts[:, None] + columns)[real]
        else:
            before = (len(columns) - lengths)[:, None]
            real = columns >= before
            tokens = (starts[:, None] + columns - before)[real]
        ids = np.full(real.shape, self.padding.token_id, dtype=np.int64)
        ids[real] = self.input_ids[tokens]
        inputs = {"input_ids": ids, "attention_mask": real.astype(np.int64)}
        if self.token_type_ids is not None:
            types = np.zeros(real.shape, dtype=np.int64)
            types[real] = self.token_type_ids[tokens]
            inputs["token_type_ids"] = types
        return inputs

    def parts_of(self, rows: np.ndarray) -> list[np.ndarray]:
        """These rows, cut so that the rows of a part can share a batch."""
        return parts_of_one_length(self.lengths, rows) if self.padding.by_length else [rows]


class JoinedTokens:
    """Several splits as one: the rows of one after those of another, each still in its files."""

    def __init__(self, parts: Sequence[TokenizedSplit]) -> None:
        self.parts = parts
        self.starts = np.cumsum([0, *map(len, parts)])
        # int32 [rows]
        self.lengths = np.concatenate([part.lengths for part in parts])

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def padding(self) -> Padding:
        """The same in all parts: one model reads them."""
        return self.parts[0].padding

    def parts_of(self, rows: np.ndarray) -> list[np.ndarray]:
        """What `TokenizedSplit.parts_of` gives of a split with all rows."""
        return parts_of_one_length(self.lengths, rows) if self.padding.by_length else [rows]

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What `TokenizedSplit.batch` gives of a split with all rows."""
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        longest = self.lengths[rows].max()
        out: dict[str, np.ndarray] = {}
        for number in np.unique(owner):
            mine = np.flatnonzero(owner == number)
            part = self.parts[number]
            for name, values in part.batch(rows[mine] - self.starts[number]).items():
                if name not in out:
                    filler = self.padding.token_id if name == "input_ids" else 0
                    out[name] = np.full((len(rows), longest), filler, dtype=np.int64)
                width = values.shape[1]
                start = 0 if self.padding.side == "right" else longest - width
                out[name][mine, start : start + width] = values
        return out


TokenRows = TokenizedSplit | JoinedTokens


def joined_tokens(parts: Sequence[TokenizedSplit]) -> TokenRows:
    """The rows of all parts, one part after the other. A single part is returned as it is."""
    return parts[0] if len(parts) == 1 else JoinedTokens(parts)


def tokenize_split(
    split: Split,
    tokenizer: PreTrainedTokenizerBase,
    input_format: InputFormat,
    *,
    cache: Path,
    say: Say = lambda line: None,
) -> TokenizedSplit:
    """The tokens of a split, from the cache. Tokenizes and writes them first if they aren't there.

    The key depends on the rows, on what the tokenizer does, and on the input format. Raises
    ModelError as `encode` does.
    """
    key = _tokens_key(split, tokenizer, input_format)
    folder = cache / "tokens" / key

    def read() -> TokenizedSplit:
        padding = input_format.padding or Padding.of_tokenizer(tokenizer)
        return _map_tokens(folder, split, padding, has_types=input_format.token_types)

    def make() -> None:
        say(f"tokenizing {split.name}: {len(split):,} rows")
        with publishing(folder) as beside:
            _tokenize_into(beside, split, tokenizer, input_format, say)

    waiting = f"tokenizing {split.name}: waiting for another process that does it"
    return SharedEntry(folder, read, make, waiting, say).get()


def _map_tokens(folder: Path, split: Split, padding: Padding, *, has_types: bool) -> TokenizedSplit:
    """The tokens that `_tokenize_into` wrote. Raises DamagedFile."""
    with whole(folder / "meta.json"):
        truncated = int(read_json(folder / "meta.json")["truncated"])
    ids = read_array(folder / "input_ids.npy", mmap_mode="r")
    offsets = map_array(folder / "offsets.npy")
    with whole(folder / "offsets.npy"):
        check_offsets(offsets, len(ids))
        if len(offsets) != len(split) + 1:
            raise ValueError(f"it is of {len(offsets) - 1:,} rows, not of {len(split):,}")
    types = None
    if has_types:
        like = np.broadcast_to(np.int8(0), ids.shape)
        types = read_array(folder / "token_type_ids.npy", mmap_mode="r", like=like)
    lengths = None
    # Early versions kept none.
    if (file := folder / "lengths.npy").exists():
        like = np.broadcast_to(np.int32(0), (len(split),))
        lengths = read_array(file, mmap_mode="r", like=like).view(np.ndarray)
    return TokenizedSplit(
        input_ids=ids,
        token_type_ids=types,
        offsets=offsets,
        labels=split.labels,
        padding=padding,
        truncated=truncated,
        key=folder.name,
        kept_lengths=lengths,
    )


def tokenize_texts(
    tokenizer: PreTrainedTokenizerBase, texts: list[list[str]], input_format: InputFormat
) -> TokenizedSplit:
    """Rows of one text or two, each a column in `texts`, in memory alone and without labels."""
    made = encode(tokenizer, texts, input_format)
    return TokenizedSplit(
        input_ids=made.ids,
        token_type_ids=made.types,
        offsets=_offsets(made.lengths),
        labels=np.zeros(len(made.lengths), dtype=np.int64),
        padding=input_format.padding or Padding.of_tokenizer(tokenizer),
        truncated=made.truncated,
        key="",
    )


def _tokens_key(split: Split, tokenizer: PreTrainedTokenizerBase, input_format: InputFormat) -> str:
    # Keys from before there was a choice of truncation have no part for it.
    truncation = [] if input_format.truncation == "head" else [input_format.truncation]
    ends = [] if input_format.end_token is None else [f"ends {input_format.end_token}"]
    return fingerprint(
        f"tokens {TOKENS_FORMAT}",
        split.key,
        tokenizer_fingerprint(tokenizer),
        input_format.max_length,
        input_format.token_types,
        *truncation,
        *ends,
    )


def _tokenize_into(
    folder: Path,
    split: Split,
    tokenizer: PreTrainedTokenizerBase,
    input_format: InputFormat,
    say: Say,
) -> None:
    id_type = np.uint16 if has_small_ids(tokenizer) else np.int32
    lengths = np.empty(len(split), dtype=np.int32)
    truncated = 0
    last_line = time.monotonic()
    with ExitStack() as files:
        ids = files.enter_context(GrowingArray(folder / "input_ids.npy", id_type))
        types = None
        if input_format.token_types:
            types = files.enter_context(GrowingArray(folder / "token_type_ids.npy", np.int8))
        for start in range(0, len(split), ROWS_PER_CALL):
            end = min(start + ROWS_PER_CALL, len(split))
            columns = [list(column[start:end]) for column in split.texts]
            made = encode(tokenizer, columns, input_format)
            ids.append(made.ids)
            if types is not None and made.types is not None:
                types.append(made.types)
            lengths[start:end] = made.lengths
            truncated += made.truncated
            if time.monotonic() - last_line >= SECONDS_BETWEEN_LINES and end < len(split):
                say(f"tokenizing {split.name}: {end:,} of {len(split):,} rows done")
                last_line = time.monotonic()
    np.save(folder / "lengths.npy", lengths)
    np.save(folder / "offsets.npy", _offsets(lengths))
    meta = {"rows": len(split), "truncated": truncated, "split": split.key}
    write_json(folder / "meta.json", meta)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
