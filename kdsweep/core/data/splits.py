"""Which row belongs to which split: a pure function of texts and labels, not of rows' places.

Split rule 1 is that of version 0.1.0: by the hash of the text alone. Rule 2 gives all splits the
same share of each label. A sweep keeps the rule that it started with.
"""

from __future__ import annotations

import numpy as np

from kdsweep.core.data.overlapping_labels import FEWEST_TEXTS
from kdsweep.core.data.raw_rows import RawRows, raw_labels
from kdsweep.core.data.rows import Split
from kdsweep.core.data.strata import Strata
from kdsweep.core.data.text_hashes import SplitRule, text_hashes
from kdsweep.core.settings import TaskSettings
from kdsweep.core.split_settings import SPLITS
from kdsweep.core.tasks.base import TaskKind
from kdsweep.errors import DataError

# Rows of the same text are in one fold; the salts keep splits, limits and folds independent.
SPLIT, LIMIT, FOLD = b"split", b"limit", b"fold"

# In the note of each split that is held out.
HELD_OUT = "rows held out of train"


def rule_of(task: TaskSettings) -> SplitRule:
    """The rule that the task's rows are split by."""
    return SplitRule(task.split_rule, task.symmetric)


# --- splits ---


def hold_out(task: TaskSettings, rows: dict[str, RawRows], notes: list[str]) -> dict[str, RawRows]:
    """The splits of the task, with no text in two of them.

    A text that is in several splits stays in the test split first, then in validation. Splits that
    the task doesn't name are held out of train. Raises DataError if no row is left in train.
    """
    out, taken = _named_splits(task, rows, notes)
    train = rows["train"]
    hashes = _hashes(task, train, SPLIT)
    free = ~np.isin(hashes, taken)
    if common := int((~free).sum()):
        notes.append(
            f"train: {common:,} rows dropped: their text is in the validation or test split too"
        )
    unnamed = [name for name in ("test", "validation") if name not in rows]
    hold = _hold_out_by_hash_alone if task.split_rule == 1 else _hold_out_stratified
    for name, held in zip(unnamed, hold(task, train, hashes, free, len(unnamed)), strict=True):
        out[name] = train.take(np.flatnonzero(held))
        free &= ~held
        how = "" if task.split_rule == 1 else f"{task.holdout:.0%} {task.kind.stratified}"
        how = how or "by hash of their text"
        notes.append(f"{name}: {len(out[name]):,} {HELD_OUT}, {how}")
    out["train"] = train.take(np.flatnonzero(free))
    check_has_rows("train", out["train"])
    return {name: out[name] for name in (*SPLITS, *task.splits.more_tests)}


def check_has_rows(name: str, rows: RawRows) -> None:
    """Raise DataError for a split without rows."""
    if not len(rows):
        raise DataError(
            f"task.dataset: the {name} split has no rows; add rows (a label needs {FEWEST_TEXTS} "
            "different texts to be held out), or name a split that has some (task.splits)"
        )


def _hold_out_by_hash_alone(
    task: TaskSettings, train: RawRows, hashes: np.ndarray, free: np.ndarray, parts: int
) -> list[np.ndarray]:
    """Split rule 1: the rows of each part, bool [rows] each. A rare class may be in none."""
    edges = [part * task.holdout for part in range(parts)]
    return [free & (hashes >= edge) & (hashes < edge + task.holdout) for edge in edges]


def _hold_out_stratified(
    task: TaskSettings, train: RawRows, hashes: np.ndarray, free: np.ndarray, parts: int
) -> list[np.ndarray]:
    """Split rule 2: the rows of each part, bool [rows] each, of each label the same share."""
    if not parts or not free.any():
        return [np.zeros(len(train), dtype=bool)] * parts
    chosen = np.flatnonzero(free)
    raw = raw_labels(task, {"train": train.take(chosen)})
    strata = Strata.of(hashes[chosen], task.kind.read_split(raw, "train"), task.kind)
    held = []
    for part in strata.hold_out(task.holdout, parts):
        rows = np.zeros(len(train), dtype=bool)
        rows[chosen[part]] = True
        held.append(rows)
    return held


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
        hashes = _hashes(task, rows[name], SPLIT)
        fresh = ~np.isin(hashes, taken)
        if common := int((~fresh).sum()):
            notes.append(f"{name}: {common:,} rows dropped: their text is in {whose} too")
        out[name] = rows[name].take(np.flatnonzero(fresh))
        taken = np.concatenate([taken, hashes])
    return out, taken


def _hashes(task: TaskSettings, rows: RawRows, salt: bytes) -> np.ndarray:
    return text_hashes(rows.texts, salt, rule_of(task))


# --- limits ---


def limit_rows(task: TaskSettings, name: str, rows: RawRows) -> RawRows:
    """At most as many rows as `task.limit` says for this split."""
    limit = getattr(task.limit, name if name in SPLITS else "test")
    if limit is None or limit >= len(rows):
        return rows
    if task.split_rule == 1:
        return rows_of_lowest_hash(rows, limit, rule_of(task))
    labels = task.kind.read_split(raw_labels(task, {name: rows}), name)
    strata = Strata.of(_hashes(task, rows, LIMIT), labels, task.kind)
    return rows.take(strata.first_rows(limit, _ties(strata, rows)))


def _ties(strata: Strata, rows: RawRows) -> np.ndarray:
    """An order of rows whose texts count as the same one, by what they hold, int64 [rows]."""
    ties = np.zeros(len(rows), dtype=np.int64)
    count = np.bincount(strata.text_of_row)[strata.text_of_row]
    repeated = np.flatnonzero(count > 1).tolist()
    held = [(*(column[i] for column in rows.texts), str(rows.labels[i])) for i in repeated]
    for place, i in enumerate(sorted(range(len(held)), key=held.__getitem__)):
        ties[repeated[i]] = place
    return ties


def rows_of_lowest_hash(rows: RawRows, count: int, rule: SplitRule) -> RawRows:
    """`count` rows, in their order; the same ones in whatever order the file has them."""
    hashes = text_hashes(rows.texts, LIMIT, rule)
    return rows.take(np.sort(np.argsort(hashes, kind="stable")[:count]))


# --- folds ---


def fold_numbers(rows: Split, folds: int, kind: TaskKind, rule: SplitRule) -> np.ndarray:
    """The fold of each row, int64 [rows]. No text is in two folds."""
    hashes = text_hashes(rows.texts, FOLD, rule)
    if rule.number == 1:
        return (hashes * folds).astype(np.int64)
    return Strata.of(hashes, rows.labels, kind).fold_of_each_row(folds)
