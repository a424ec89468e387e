"""Which row belongs to which split: a pure function of its text, not of its place in the file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdsweep.core.data.raw_rows import RawRows, text_hashes
from kdsweep.core.settings import SPLITS, TaskSettings
from kdsweep.errors import DataError


def fold_numbers(texts: Sequence[Sequence[str]], folds: int) -> np.ndarray:
    """The fold of each row, int64 [rows], by hash of its text, so that no text is in two folds."""
    return (text_hashes(texts, b"fold") * folds).astype(np.int64)


def hold_out(task: TaskSettings, rows: dict[str, RawRows], notes: list[str]) -> dict[str, RawRows]:
    """The splits of the task, with no text in two of them.

    A text that is in several splits stays in the test split first, then in validation. Splits that
    the task doesn't name are held out of train. Raises DataError for a split without rows.
    """
    out, taken = _named_splits(task, rows, notes)
    train = rows["train"]
    hashes = train.hashes(b"split")
    free = ~np.isin(hashes, taken)
    if common := int((~free).sum()):
        notes.append(
            f"train: {common:,} rows dropped: their text is in the validation or test split too"
        )
    edge = 0.0
    for name in ("test", "validation"):
        if name not in rows:
            held = free & (hashes >= edge) & (hashes < edge + task.holdout)
            out[name] = train.take(np.flatnonzero(held))
            free &= ~held
            edge += task.holdout
            notes.append(f"{name}: {len(out[name]):,} rows held out of train by hash of their text")
    out["train"] = train.take(np.flatnonzero(free))
    names = (*SPLITS, *task.splits.more_tests)
    for name in names:
        if not len(out[name]):
            raise DataError(
                f"task.dataset: the {name} split has no rows ({len(train):,} rows in train before "
                "splits were held out); add rows, or name a split that has some"
            )
    return {name: out[name] for name in names}


def _named_splits(
    task: TaskSettings, rows: dict[str, RawRows], notes: list[str]
) -> tuple[dict[str, RawRows], np.ndarray]:
    """The splits other than train that the task names, and the hashes of all their texts."""
    out: dict[str, RawRows] = {}
    taken = np.empty(0)
    whose = "a test split" if task.splits.more_tests else "the test split"
    # The test split comes first, because it must not depend on the others.
    for name in ("test", *task.splits.more_tests, "validation"):
        if name not in rows:
            continue
        hashes = rows[name].hashes(b"split")
        fresh = ~np.isin(hashes, taken)
        if common := int((~fresh).sum()):
            notes.append(f"{name}: {common:,} rows dropped: their text is in {whose} too")
        out[name] = rows[name].take(np.flatnonzero(fresh))
        taken = np.concatenate([taken, hashes])
    return out, taken


def limit_rows(task: TaskSettings, name: str, rows: RawRows) -> RawRows:
    """At most as many rows as `task.limit` says for this split."""
    limit = getattr(task.limit, name if name in SPLITS else "test")
    if limit is None or limit >= len(rows):
        return rows
    return rows_of_lowest_hash(rows, limit)


def rows_of_lowest_hash(rows: RawRows, count: int) -> RawRows:
    """`count` rows, in their order; the same ones in whatever order the file has them."""
    return rows.take(np.sort(np.argsort(rows.hashes(b"limit"), kind="stable")[:count]))
