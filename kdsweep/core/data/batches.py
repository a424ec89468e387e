"""Which rows make a batch: rows of similar length, in an order that seed and epoch decide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

BATCHES_PER_POOL = 50


@dataclass(frozen=True, eq=False)
class Batches(Sequence[np.ndarray]):
    """The batches of an epoch, each an array of row numbers that is sliced when it is asked for.

    rows: [rows], all row numbers, batch after batch. order: [batches], the order of the batches.
    """

    rows: np.ndarray
    order: np.ndarray
    batch_size: int

    def __len__(self) -> int:
        return len(self.order)

    @overload
    def __getitem__(self, position: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, position: slice) -> list[np.ndarray]: ...
    def __getitem__(self, position: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(position, slice):
            return [self[i] for i in range(len(self))[position]]
        start = int(self.order[position]) * self.batch_size
        return self.rows[start : start + self.batch_size]


def batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> Batches:
    """The batches of an epoch: every row once, rows of similar length together, in random order.

    Rows are shuffled and cut into pools of 50 batches. Each pool is sorted by length and cut into
    batches, and then all batches are shuffled. So there is little padding, and every epoch mixes
    rows differently. A pure function of its arguments. lengths: [rows], in tokens.
    """
    random = np.random.default_rng([seed, epoch])
    rows = np.arange(len(lengths), dtype=np.int32 if len(lengths) < 1 << 31 else np.int64)
    random.shuffle(rows)
    pool_size = batch_size * BATCHES_PER_POOL
    for start in range(0, len(rows), pool_size):
        pool = rows[start : start + pool_size]
        rows[start : start + pool_size] = pool[np.argsort(lengths[pool], kind="stable")]
    count = -(-len(rows) // batch_size)
    return Batches(rows, random.permutation(count).astype(np.int32), batch_size)


def evaluation_batches(lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """All rows, longest first, in batches of at most `tokens` tokens with their padding."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        count = max(1, tokens // int(lengths[order[start]]))
        yield order[start : start + count]
        start += count


def parts_of_one_length(lengths: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """These rows, cut into parts of equal length: the shortest first, each in the rows' order."""
    by_length = rows[np.argsort(lengths[rows], kind="stable")]
    ends = np.flatnonzero(np.diff(lengths[by_length])) + 1
    return np.split(by_length, ends)
