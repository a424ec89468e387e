"""Guesses, each with its reason: which columns hold the text and the label, what the splits are, which metric is fair."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdsweep.core.data import TaskData
from kdsweep.core.settings import Metric
from kdsweep.drafting.columns import Column, Table, is_unlabelled, shown
from kdsweep.errors import DataError, did_you_mean

LABEL_NAMES = (
    *("label", "labels", "gold_label", "target", "class", "category", "y", "sentiment", "intent", "topic", "emotion", "polarity", "stance"),
    *("relevance", "is_duplicate", "entailment", "answer", "team", "department", "queue", "priority", "genre", "tag", "type", "stars", "rating", "score"),
)
TEXT_NAMES = ("text", "sentence", "review", "message", "content", "body", "comment", "question", "tweet", "utterance", "document", "article", "abstract")
PAIRS = (
    *(("premise", "hypothesis"), ("query", "passage"), ("query", "document"), ("query", "text"), ("question", "sentence"), ("question", "passage")),
    *(("question", "context"), ("question", "answer"), ("claim", "evidence")),
)
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation"),
}
BALANCED_TWO = 0.35  # the smaller of two classes has at least this share of the rows
BALANCED_MANY = 0.5  # the smallest of several has at least this share of what the largest has
MANY_CLASSES = 10
MOST_OTHERS = 4


@dataclass(frozen=True)
class Guess:
    """What was chosen, and why, in words that fit after "KEY: `VALUE`, "."""

    value: Any
    reason: str


# --- splits ----------------------------------------------------------------------------------------------------------


def guess_splits(data: str, tables: dict[str, Table]) -> dict[str, str]:
    """What the dataset calls train, validation and test; empty for a single file. Raises DataError where no split is for training."""
    if list(tables) == [""]:
        return {}
    found: dict[str, str] = {}
    for role, words in SPLIT_WORDS.items():
        named = [name for name in tables if set(re.split(r"[^a-z]+", name.lower())) & set(words)]
        if named:
            found[role] = min(named, key=lambda name: (name.lower() not in words, len(name)))
    if "train" not in found:
        if len(tables) > 1:
            raise DataError(f"{data}: none of its splits ({_names(tables)}) is called train; write task.splits into a copy of search_spaces/sst2.yaml")
        found = {"train": next(iter(tables))}
    return found


def settle_splits(splits: dict[str, str], tables: dict[str, Table], label: str) -> Guess:
    """The splits that have labels. Where those of the test split are not public, the validation split is judged instead."""
    if not splits:
        return Guess({}, "one file has no splits to name: rows for validation and test are held out of it by hash of their text")
    usable = {role: name for role, name in splits.items() if role == "train" or not is_unlabelled(tables[name].columns.get(label, []))}
    reasons = []
    if "test" in splits and "test" not in usable:
        reasons.append(f"`{shown(splits['test'])}` has no labels")
        if "validation" in usable:
            usable["test"] = usable.pop("validation")
            reasons.append(f"so `{shown(usable['test'])}` is the test split here")
    if held := [role for role in ("validation", "test") if role not in usable]:
        reasons.append(f"{' and '.join(held)} held out of train by hash of the text")
    if unused := [name for name in tables if name not in usable.values() and name not in splits.values()]:
        reasons.append(f"not used: {_names(unused)}")
    return Guess({role: usable[role] for role in SPLIT_WORDS if role in usable}, "; ".join(reasons) or "as the dataset calls them")


# --- label and text --------------------------------------------------------------------------------------------------


def guess_label(data: str, columns: Sequence[Column], wanted: str | None) -> Guess:
    """The label column. Raises DataError with what was seen in each column where none looks like one."""
    if wanted is not None:
        return Guess(_named(data, columns, wanted, "--label").name, "as it was asked for")
    if len(columns) == 1 and (separator := next((one for one in ";\t|" if one in columns[0].name), None)):
        raise DataError(f"{data}: its columns are separated by {separator!r}; those of a csv must be by commas, of a tsv by tabs: write it anew")
    candidates = [column for column in columns if column.is_class_like and column.name.strip()]
    if not candidates:
        raise DataError(_no_label(data, columns))

    def rank(column: Column) -> tuple[Any, ...]:
        place = len(columns) - columns.index(column)  # labels stand last more often than not
        return (column.class_names is None, _rank(column.name, LABEL_NAMES), column.unlabelled > 0, column.kind == "number", place)

    chosen = min(candidates, key=rank)
    others = [f"`{shown(column.name)}` could be one too: {column.describe()}" for column in candidates if column is not chosen]
    return Guess(chosen.name, "; ".join([f"{len(chosen.class_names or ()) or chosen.distinct} values", *others[:MOST_OTHERS]]))


def passed_over(columns: Sequence[Column], used: Sequence[str]) -> str:
    """What was no candidate for anything, and why."""
    rest = [column for column in columns if column.name not in used and not column.is_class_like and not column.is_text_like]
    return "; ".join(f"`{shown(column.name)}` was passed over: {column.describe()}" for column in rest[:MOST_OTHERS])


def _no_label(data: str, columns: Sequence[Column]) -> str:
    seen = f"seen: {_seen(columns)}"
    numbers = [column for column in columns if column.kind in ("fraction", "number") and _rank(column.name, LABEL_NAMES) < len(LABEL_NAMES)]
    numbers += [column for column in columns if column.kind == "fraction" and column not in numbers]
    if numbers:
        return (
            f"{data}: `{shown(numbers[0].name)}` looks like a number to predict ({numbers[0].examples}); kdsweep compares classifiers and can't; "
            f"add a column with classes (such as low, middle, high) and name it with --label ({seen})"
        )
    return f"{data}: no column looks like a label (a few values, each in many rows); name one with --label, or write task.label and task.text yourself ({seen})"


def guess_text(data: str, columns: Sequence[Column], label: str, wanted: Sequence[str]) -> Guess:
    """One text column, or the two of a sentence pair. Raises DataError with what was seen where nothing looks like a text."""
    if wanted:
        return Guess(tuple(_named(data, columns, name, "--text").name for name in wanted), "as it was asked for")
    rest = [column for column in columns if column.name != label and column.name.strip() and column.kind in ("text", "word")]
    if pair := _pair([column for column in rest if column.kind == "text" or column.distinct > column.rows / 4]):
        return Guess(
            tuple(column.name for column in pair), f"two that belong together, {' and '.join(f'{column.words:.0f}' for column in pair)} words on average"
        )
    texts = [column for column in rest if column.is_text_like] or [column for column in rest if _is_short_text(column)]
    if not texts:
        raise DataError(
            f"{data}: no column looks like a text beside the label `{shown(label)}`; name one with --text, or two for pairs, or write task.text yourself "
            f"(seen: {_seen(columns)})"
        )
    chosen = min(texts, key=lambda column: (_rank(column.name, TEXT_NAMES), -column.words))
    others = [f"`{shown(column.name)}` holds text too, {column.words:.0f} words" for column in texts if column is not chosen]
    return Guess((chosen.name,), "; ".join([f"{max(1, round(chosen.words))} words on average", *others[:MOST_OTHERS]]))


def _is_short_text(column: Column) -> bool:
    """Names, headlines of two words, ...: words that mostly differ and are no identifiers."""
    return column.letters > 0.6 and (column.distinct > MANY_CLASSES) and column.distinct > column.rows / 4


def _pair(columns: Sequence[Column]) -> tuple[Column, Column] | None:
    by_name = {column.name.lower(): column for column in columns}
    for first, second in PAIRS:
        if first in by_name and second in by_name:
            return by_name[first], by_name[second]
    for name, column in by_name.items():
        for one, other in (("1", "2"), ("a", "b"), ("_one", "_two")):
            if name.endswith(one) and (second := name.removesuffix(one) + other) in by_name and name.removesuffix(one):
                return column, by_name[second]
    return None


def _named(data: str, columns: Sequence[Column], name: str, option: str) -> Column:
    for column in columns:
        if column.name == name:
            return column
    names = [column.name for column in columns]
    raise DataError(f"{option}: {data} has no column {name!r}, only {', '.join(map(repr, names))}{did_you_mean(name, names)}")


def _rank(name: str, known: Sequence[str]) -> int:
    """How much a name speaks for a column: the place of the known name that it is, or that is a word of it (`true_label`)."""
    lower = name.strip().lower()
    if lower in known:
        return known.index(lower)
    parts = re.split(r"[^a-z]+", lower)
    return min((len(known) - 1 for word in known if len(word) > 1 and word in parts), default=len(known))


def _seen(columns: Iterable[Column]) -> str:
    return ", ".join(f"`{shown(column.name)}` {column.describe()}" for column in columns) or "no columns"


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(shown, names))


# --- metric ----------------------------------------------------------------------------------------------------------


def guess_metric(data: TaskData) -> Guess:
    """Accuracy where it is fair; else one that a model can't please by always giving the most frequent answer."""
    counts = np.bincount(data.train.labels, minlength=len(data.label_names))
    shares = counts / counts.sum()
    names = data.label_names
    if len(names) == 2:
        rare = int(shares.argmin())
        if shares[rare] >= BALANCED_TWO:
            return Guess("accuracy", f"the two classes are about as frequent ({_percent(shares[rare])} and {_percent(1 - shares[rare])})")
        if rare == 1:
            return Guess("f1", f"of `{shown(names[1])}`, which only {_percent(shares[1])} of the rows have: accuracy would hide it")
        reason = f"`{shown(names[0])}` is rare ({_percent(shares[0])}), and f1 would be that of `{shown(names[1])}`, the second class"
        return Guess("matthews", reason)
    share = shares.min() / shares.max()
    metric: Metric = "accuracy"
    if share < BALANCED_MANY:
        metric = "f1_macro"
        reason = f"each class counts the same, though `{shown(names[int(shares.argmin())])}` has {_percent(shares.min())} of the rows and "
        return Guess(metric, reason + f"`{shown(names[int(shares.argmax())])}` {_percent(shares.max())}")
    if len(names) > MANY_CLASSES:
        return Guess("f1_macro", f"each of the {len(names)} classes counts the same")
    return Guess(metric, f"the {len(names)} classes are about as frequent ({_percent(shares.min())} to {_percent(shares.max())} of the rows)")


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.01 else f"{100 * share:.1f}%"
