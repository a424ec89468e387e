"""Batches: every row once, similar lengths together, a pure function of seed and epoch."""

from __future__ import annotations

import random

import numpy as np
import pytest

from kdsweep.core.data.batches import BATCHES_PER_POOL, batches, evaluation_batches


def padding(lengths: np.ndarray, parts: list[np.ndarray]) -> float:
    padded = sum(len(rows) * lengths[rows].max() for rows in parts)
    return 1 - lengths.sum() / padded


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 8), (7, 8), (8, 8), (1000, 8), (1003, 16)])
def test_an_epoch_has_every_row_once_in_batches_of_the_size(rows: int, batch_size: int) -> None:
    lengths = np.random.default_rng(0).integers(3, 60, rows)
    parts = batches(lengths, batch_size, seed=1, epoch=2)
    assert sorted(np.concatenate(parts).tolist()) == list(range(rows))
    assert len(parts) == -(-rows // batch_size)
    assert sorted(map(len, parts))[1:] == [batch_size] * (len(parts) - 1)


def test_batches_are_a_pure_function_of_seed_and_epoch() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 300)

    def order(seed: int, epoch: int) -> list[list[int]]:
        # The global generators must not matter.
        np.random.seed(random.randrange(1000))
        return [rows.tolist() for rows in batches(lengths, 16, seed, epoch)]

    assert order(1, 2) == order(1, 2)
    distinct = [order(seed, epoch) for seed, epoch in ((1, 2), (1, 3), (2, 2), (2, 1))]
    assert all(one != other for i, one in enumerate(distinct) for other in distinct[:i])


def test_rows_of_similar_length_are_together_but_not_in_order_of_length() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 1000)
    parts = batches(lengths, 16, seed=0, epoch=0)
    order = np.random.default_rng(0).permutation(1000)
    assert (
        padding(lengths, parts)
        < 0.1
        < 0.3
        < padding(lengths, [order[i : i + 16] for i in range(0, 1000, 16)])
    )
    means = [lengths[rows].mean() for rows in parts]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5


def test_evaluation_has_every_row_once_and_no_batch_above_its_tokens() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 500)
    parts = list(evaluation_batches(lengths, 256))
    assert sorted(np.concatenate(parts).tolist()) == list(range(500))
    assert max(len(rows) * lengths[rows].max() for rows in parts) <= 256
    # A row that is longer than that has a batch of its own.
    assert [len(rows) for rows in evaluation_batches(np.array([300, 400]), 256)] == [1, 1]


def batches_as_lists(
    lengths: np.ndarray, batch_size: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """How the first version made batches, an array for each.

    A trial that started with that version must resume with the same batches.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    pool = batch_size * BATCHES_PER_POOL
    out: list[np.ndarray] = []
    for start in range(0, len(order), pool):
        rows = order[start : start + pool]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        out += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return [out[i] for i in random.permutation(len(out))]


@pytest.mark.parametrize("rows", [1, 7, 16, 799, 800, 801, 5_003, 70_001])
@pytest.mark.parametrize(
    ("batch_size", "seed", "epoch"), [(1, 0, 0), (16, 1, 2), (17, 3, 1), (128, 9, 0)]
)
def test_batches_are_the_same_as_in_the_first_version(
    rows: int, batch_size: int, seed: int, epoch: int
) -> None:
    if rows > 6_000 and batch_size == 1:
        rows = 6_000
    lengths = np.random.default_rng(rows).integers(3, 60, rows)
    now = batches(lengths, batch_size, seed, epoch)
    before = batches_as_lists(lengths, batch_size, seed, epoch)
    assert len(now) == len(before)
    assert all(one.tolist() == other.tolist() for one, other in zip(now, before, strict=True))
    assert now[-1].tolist() == before[-1].tolist()
    assert [one.tolist() for one in now[1:3]] == [one.tolist() for one in before[1:3]]
    with pytest.raises(IndexError):
        now[len(now)]


def test_an_epoch_of_batches_takes_four_bytes_per_row() -> None:
    made = batches(np.random.default_rng(0).integers(3, 60, 100_000), 32, 0, 0)
    assert made.rows.nbytes + made.order.nbytes < 5 * 100_000
