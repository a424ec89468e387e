"""Guesses which of a dataset's splits are train, validation and test."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kdsweep.drafting.columns import shown
from kdsweep.drafting.tables import Table
from kdsweep.errors import DataError

SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation"),
}


@dataclass(frozen=True)
class SplitGuess:
    """train, validation and test -> the dataset's name for each; and why. Empty for one file."""

    names: dict[str, str]
    reason: str


def guess_splits(data: str, tables: dict[str, Table]) -> dict[str, str]:
    """What the dataset calls train, validation and test; empty for a single file.

    Raises DataError if no split is for training.
    """
    if list(tables) == [""]:
        return {}
    found: dict[str, str] = {}
    for role, words in SPLIT_WORDS.items():
        named = [name for name in tables if set(re.split(r"[^a-z]+", name.lower())) & set(words)]
        if named:
            found[role] = min(named, key=lambda name: (name.lower() not in words, len(name)))
    if "train" in found:
        return found
    if len(tables) > 1:
        raise DataError(
            f"{data}: none of its splits ({_names(list(tables))}) is called train; write "
            "task.splits into a copy of search_spaces/sst2.yaml"
        )
    return {"train": next(iter(tables))}


def with_labels(
    splits: dict[str, str], tables: dict[str, Table], labels: Sequence[str]
) -> SplitGuess:
    """The splits that have labels.

    If the labels of the test split are not public, the validation split takes its place.
    """
    if not splits:
        reason = "one file: rows for validation and test are held out, the same share of each label"
        return SplitGuess({}, reason)
    usable = {
        role: name
        for role, name in splits.items()
        if role == "train" or not all(tables[name].is_unlabelled(label) for label in labels)
    }
    reasons = []
    if "test" in splits and "test" not in usable:
        reasons.append(f"`{shown(splits['test'])}` has no labels")
        if "validation" in usable:
            usable["test"] = usable.pop("validation")
            reasons.append(f"so `{shown(usable['test'])}` is the test split here")
    if held := [role for role in ("validation", "test") if role not in usable]:
        reasons.append(f"{' and '.join(held)} held out of train, the same share of each label")
    used = {*usable.values(), *splits.values()}
    if unused := [name for name in tables if name not in used]:
        reasons.append(f"not used: {_names(unused)}")
    in_order = {role: usable[role] for role in SPLIT_WORDS if role in usable}
    return SplitGuess(in_order, "; ".join(reasons) or "as the dataset calls them")


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names))
