"""Parts of rows with several labels each have every label's share, not only the rarest one's."""

from __future__ import annotations

import numpy as np
import pytest

from kdsweep.core.data.overlapping_labels import FEWEST_TEXTS
from kdsweep.core.data.strata import Strata
from kdsweep.core.tasks import MULTI_LABEL

# How many rows a label may be off its share.
MOST = 4.0


def overlapping(seed: int, rows: int, count: int, most: float) -> tuple[np.ndarray, np.ndarray]:
    """(hashes, labels) of rows with many labels, of which two come together; some are rare."""
    draw = np.random.default_rng(seed)
    shares = draw.uniform(0.005, most, count)
    labels = (draw.random((rows, count)) < shares).astype(np.float32)
    labels[:, 1] = np.where(draw.random(rows) < 0.8, labels[:, 0], labels[:, 1])
    return draw.random(rows), labels


@pytest.fixture(params=[(600, 5, 0.6), (1000, 12, 0.5), (2000, 28, 0.3)], ids=["5", "12", "28"])
def rows(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    return overlapping(3, *request.param)


def strata(rows: tuple[np.ndarray, np.ndarray]) -> Strata:
    return Strata.of(*rows, MULTI_LABEL)


def test_held_out_parts_have_each_labels_share(rows: tuple[np.ndarray, np.ndarray]) -> None:
    labels = rows[1]
    every = labels.sum(axis=0)
    test, validation = strata(rows).hold_out(0.1, 2)
    assert not (test & validation).any()
    for part in (test, validation):
        found = labels[part].sum(axis=0)
        assert np.abs(found - 0.1 * every).max() <= MOST
        assert (found[every >= FEWEST_TEXTS] >= 1).all()
        assert abs(part.sum() - 0.1 * len(labels)) <= MOST
    assert (labels[~test & ~validation].sum(axis=0)[every > 0] >= 1).all()


def test_a_limit_has_each_labels_share(rows: tuple[np.ndarray, np.ndarray]) -> None:
    labels = rows[1]
    every = labels.sum(axis=0)
    for most in (90, 300):
        chosen = strata(rows).first_rows(most, np.arange(len(labels)))
        assert len(set(chosen.tolist())) == most
        found = labels[chosen].sum(axis=0)
        assert np.abs(found - every * most / len(labels)).max() <= MOST
        assert (found[every >= FEWEST_TEXTS] >= 1).all()


def test_folds_have_each_labels_share(rows: tuple[np.ndarray, np.ndarray]) -> None:
    labels = rows[1]
    fold = strata(rows).fold_of_each_row(5)
    for number in range(5):
        found = labels[fold == number].sum(axis=0)
        assert np.abs(found - labels.sum(axis=0) / 5).max() <= MOST
    sizes = np.bincount(fold)
    assert sizes.max() - sizes.min() <= MOST


def test_the_order_of_the_rows_changes_nothing(rows: tuple[np.ndarray, np.ndarray]) -> None:
    hashes, labels = rows
    order = np.random.default_rng(0).permutation(len(labels))
    one, other = strata(rows), strata((hashes[order], labels[order]))
    for mine, others in zip(one.hold_out(0.1, 2), other.hold_out(0.1, 2), strict=True):
        assert np.array_equal(mine[order], others)
    ties = np.zeros(len(labels), dtype=np.int64)
    assert set(one.first_rows(100, ties)) == set(order[other.first_rows(100, ties)])
    assert np.array_equal(one.fold_of_each_row(3)[order], other.fold_of_each_row(3))


def test_rows_of_one_text_stay_together() -> None:
    hashes, labels = overlapping(1, 300, 6, 0.5)
    hashes = np.concatenate([hashes, hashes[:100]])
    labels = np.concatenate([labels, labels[:100]])
    twice = strata((hashes, labels))
    (held,) = twice.hold_out(0.2, 1)
    assert np.array_equal(held[:100], held[300:])
    fold = twice.fold_of_each_row(4)
    assert np.array_equal(fold[:100], fold[300:])
