"""Guesses, each with its reason: which columns hold the text and the label, what the splits are, which metric is fair."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdsweep.core.data.rows import TaskData
from kdsweep.core.settings import Kind, Metric
from kdsweep.drafting.columns import MOST_CLASSES, Column, Table, is_unlabelled, shown
from kdsweep.errors import DataError, did_you_mean

AMOUNT_NAMES = ("stars", "rating", "score", "similarity", "relatedness", "points", "grade")
LABEL_NAMES = (
    *(
        "label",
        "labels",
        "gold_label",
        "target",
        "class",
        "category",
        "y",
        "sentiment",
        "intent",
        "topic",
        "emotion",
        "polarity",
        "stance",
    ),
    *(
        "relevance",
        "is_duplicate",
        "entailment",
        "answer",
        "team",
        "department",
        "queue",
        "priority",
        *AMOUNT_NAMES,
        "genre",
        "tag",
        "type",
    ),
    *("targets", "classes", "categories", "intents", "topics", "emotions", "genres", "tags"),
)
# Where a row comes from, or how sure somebody was of its label: never the label where anything else could be it.
ASIDE_NAMES = (
    *(
        "id",
        "ids",
        "idx",
        "index",
        "uid",
        "source",
        "split",
        "fold",
        "train",
        "validation",
        "test",
        "dataset",
        "corpus",
        "file",
        "version",
    ),
    *(
        "language",
        "lang",
        "locale",
        "user",
        "author",
        "annotator",
        "worker",
        "year",
        "date",
        "time",
        "timestamp",
        "created",
    ),
    *(
        "confidence",
        "probability",
        "weight",
        "agreement",
        "variance",
        "std",
        "count",
        "tokens",
        "words",
    ),
)
TEXT_NAMES = (
    "text",
    "sentence",
    "review",
    "message",
    "content",
    "body",
    "comment",
    "question",
    "tweet",
    "utterance",
    "document",
    "article",
    "abstract",
)
PAIRS = (
    *(
        ("premise", "hypothesis"),
        ("query", "passage"),
        ("query", "document"),
        ("query", "text"),
        ("question", "sentence"),
        ("question", "passage"),
    ),
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
RARE_LABEL = 0.05  # of the rows
MOST_OTHERS = 4


@dataclass(frozen=True)
class Guess:
    """What was chosen, and why, in words that fit after "KEY: `VALUE`, "."""

    value: Any
    reason: str


@dataclass(frozen=True)
class LabelGuess:
    """The label column, or several of 0 and 1; what kind of task that makes; and why."""

    columns: tuple[str, ...]
    kind: Kind
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
            raise DataError(
                f"{data}: none of its splits ({_names(tables)}) is called train; write task.splits into a copy of search_spaces/sst2.yaml"
            )
        found = {"train": next(iter(tables))}
    return found


def settle_splits(splits: dict[str, str], tables: dict[str, Table], labels: Sequence[str]) -> Guess:
    """The splits that have labels. Where those of the test split are not public, the validation split is judged instead."""
    if not splits:
        return Guess(
            {},
            "one file has no splits to name: rows for validation and test are held out of it by hash of their text",
        )
    labelled = {
        name: not all(is_unlabelled(tables[name].columns.get(label, [])) for label in labels)
        for name in splits.values()
    }
    usable = {role: name for role, name in splits.items() if role == "train" or labelled[name]}
    reasons = []
    if "test" in splits and "test" not in usable:
        reasons.append(f"`{shown(splits['test'])}` has no labels")
        if "validation" in usable:
            usable["test"] = usable.pop("validation")
            reasons.append(f"so `{shown(usable['test'])}` is the test split here")
    if held := [role for role in ("validation", "test") if role not in usable]:
        reasons.append(f"{' and '.join(held)} held out of train by hash of the text")
    if unused := [
        name for name in tables if name not in usable.values() and name not in splits.values()
    ]:
        reasons.append(f"not used: {_names(unused)}")
    return Guess(
        {role: usable[role] for role in SPLIT_WORDS if role in usable},
        "; ".join(reasons) or "as the dataset calls them",
    )


# --- label and text --------------------------------------------------------------------------------------------------


def guess_label(data: str, columns: Sequence[Column], wanted: Sequence[str]) -> LabelGuess:
    """The label column or columns, those that are asked for or the likeliest. Raises DataError with what was seen where none looks like one."""
    if wanted:
        return _asked_for(data, [_named(data, columns, name, "--label") for name in wanted])
    if len(columns) == 1 and (
        separator := next((one for one in ";\t|" if one in columns[0].name), None)
    ):
        raise DataError(
            f"{data}: its columns are separated by {separator!r}; those of a csv must be by commas, of a tsv by tabs: write it anew"
        )
    kinds = {
        column.name: kind
        for column in columns
        if column.name.strip() and (kind := _kind_of_label(column)) is not None
    }
    candidates = [column for column in columns if column.name in kinds]
    if not candidates:
        raise DataError(_no_label(data, columns))

    def rank(column: Column) -> tuple[Any, ...]:
        place = len(columns) - columns.index(column)  # labels stand last more often than not
        is_amount = kinds[column.name] == "regression"
        return (
            column.class_names is None,
            _label_rank(column),
            is_amount,
            column.unlabelled > 0,
            column.kind == "number",
            place,
        )

    flags = [column for column in candidates if column.is_flag and not _is_aside(column)]
    if len(flags) > 1 and not any(map(_is_plainly_a_label, candidates)):
        chosen, kind, reason = flags, "multi_label", _why_several(flags)
    else:
        chosen = [min(candidates, key=rank)]
        kind, reason = kinds[chosen[0].name], _why_one(chosen[0], kinds[chosen[0].name])
    others = [
        _other(column, kinds[column.name], kind) for column in candidates if column not in chosen
    ]
    return LabelGuess(
        tuple(column.name for column in chosen), kind, "; ".join([reason, *others[:MOST_OTHERS]])
    )


def _asked_for(data: str, chosen: Sequence[Column]) -> LabelGuess:
    asked = "as it was asked for"
    if len(chosen) == 1:
        kind = _kind_asked_for(data, chosen[0])
        is_plain = kind == "classification" and not _could_be_amounts(chosen[0])
        return LabelGuess(
            (chosen[0].name,), kind, asked if is_plain else f"{asked}; {_why_one(chosen[0], kind)}"
        )
    names = tuple(column.name for column in chosen)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"--label: {data}: `{shown(twice)}` is named twice")
    if broken := next((column for column in chosen if not column.holds_flags), None):
        raise DataError(
            f"--label: {data}: `{shown(broken.name)}` is no column of 0 and 1, as each must be where several are named: {broken.describe()}; "
            "name one label, or columns of 0 and 1"
        )
    return LabelGuess(names, "multi_label", f"{asked}; {_why_several(chosen)}")


def _kind_asked_for(data: str, column: Column) -> Kind:
    """As `_kind_of_label`, whatever the column is called; where it looks like nothing, whether it is classes is for the reader of rows to say."""
    if column.is_label_list:
        return "multi_label"
    if column.kind in ("lists", "other", "empty"):
        raise DataError(
            f"--label: {data}: `{shown(column.name)}` is no label: {column.describe()}; a label is a name, a number, or a short list of names, "
            "none of them twice"
        )
    is_amount = column.kind == "fraction" or (
        column.kind == "number" and column.distinct > 2 and not column.is_class_like
    )
    return "regression" if is_amount else _kind_of_label(column) or "classification"


def _kind_of_label(column: Column) -> Kind | None:
    """What kind of task the column would be the label of; None where it looks like none."""
    if column.is_label_list and not _is_aside(column):
        return "multi_label"
    if column.kind == "fraction" and column.distinct > 1:
        return "regression"
    if (
        column.kind == "number"
        and column.distinct > 2
        and column.class_names is None
        and _has_label_name(column)
        and not _are_class_numbers(column)
    ):
        return "regression"
    return "classification" if column.is_class_like else None


def _are_class_numbers(column: Column) -> bool:
    """Whether whole numbers stand for classes: a few, or more (of 77 intents, say) that are counted up and not called a score."""
    is_few = column.distinct <= MOST_CLASSES
    return column.is_class_like and (
        is_few or (column.counts_up and _rank(column.name, AMOUNT_NAMES) == len(AMOUNT_NAMES))
    )


def _could_be_amounts(column: Column) -> bool:
    return column.kind == "number" and column.distinct > 2 and column.class_names is None


def _is_plainly_a_label(column: Column) -> bool:
    """Whether columns of 0 and 1 beside this one are something else than its labels."""
    if column.is_flag:
        return column.name.strip().lower() in LABEL_NAMES
    return (
        column.class_names is not None
        or _has_label_name(column)
        or (column.kind in ("word", "text") and not _is_aside(column))
    )


def _label_rank(column: Column) -> int:
    """By name, the likelier label first: one that labels have, any other, one that stands aside."""
    rank = _rank(column.name, LABEL_NAMES)
    return (
        len(LABEL_NAMES) + 1
        if rank >= len(LABEL_NAMES) and _is_aside(column)
        else rank
        if _has_label_name(column)
        else len(LABEL_NAMES)
    )


def _has_label_name(column: Column) -> bool:
    """`label_confidence` has none: it is a number about a label."""
    is_about = (
        column.kind in ("number", "fraction") and not column.is_class_like and _is_aside(column)
    )
    return _rank(column.name, LABEL_NAMES) < len(LABEL_NAMES) and not is_about


def _is_aside(column: Column) -> bool:
    return _rank(column.name, ASIDE_NAMES) < len(ASIDE_NAMES)


def _why_one(column: Column, kind: Kind) -> str:
    if kind == "multi_label":
        return column.describe()
    if kind == "regression":
        examples = (
            f"with a fraction ({column.examples})"
            if column.kind == "fraction"
            else f"{column.distinct:,} different ones"
        )
        lowest = "; -1 counts as a number here, not as a missing label" if column.low == -1 else ""
        return f"numbers from {column.low:g} to {column.high:g}, {examples}{lowest}"
    values = f"{len(column.class_names or ()) or column.distinct} values"
    return values + (
        ", taken for names of classes; `kind: regression` with `metric: pearson_and_spearman` would take them for numbers"
        if _could_be_amounts(column)
        else ""
    )


def _why_several(flags: Sequence[Column]) -> str:
    words = {text.lower() for column in flags for text in column.common}
    return f"{len(flags)} columns of {'booleans' if words & {'true', 'false'} else '0 and 1'}, one for each label; one of them alone would be a classification"


def _other(column: Column, kind: Kind, chosen: Kind) -> str:
    return f"`{shown(column.name)}` could be one too: {column.describe()}" + (
        f" (kind: {kind})" if kind != chosen else ""
    )


def passed_over(columns: Sequence[Column], used: Sequence[str]) -> str:
    """What was no candidate for anything, and why."""
    rest = [
        column
        for column in columns
        if column.name not in used and _kind_of_label(column) is None and not column.is_text_like
    ]
    return "; ".join(
        f"`{shown(column.name)}` was passed over: {column.describe()}"
        for column in rest[:MOST_OTHERS]
    )


def _no_label(data: str, columns: Sequence[Column]) -> str:
    return (
        f"{data}: no column looks like a label (a few values, each in many rows; numbers with a fraction; lists of names); name one with --label, "
        f"or write task.label and task.text yourself (seen: {_seen(columns)})"
    )


def guess_text(
    data: str, columns: Sequence[Column], labels: Sequence[str], wanted: Sequence[str]
) -> Guess:
    """One text column, or the two of a sentence pair. Raises DataError with what was seen where nothing looks like a text."""
    if wanted:
        return Guess(
            tuple(_named(data, columns, name, "--text").name for name in wanted),
            "as it was asked for",
        )
    rest = [
        column
        for column in columns
        if column.name not in labels and column.name.strip() and column.kind in ("text", "word")
    ]
    if pair := _pair(
        [column for column in rest if column.kind == "text" or column.distinct > column.rows / 4]
    ):
        return Guess(
            tuple(column.name for column in pair),
            f"two that belong together, {' and '.join(f'{column.words:.0f}' for column in pair)} words on average",
        )
    texts = [column for column in rest if column.is_text_like] or [
        column for column in rest if _is_short_text(column)
    ]
    if not texts:
        raise DataError(
            f"{data}: no column looks like a text beside the label {quoted(labels)}; name one with --text, or two for pairs, or write task.text yourself "
            f"(seen: {_seen(columns)})"
        )
    chosen = min(texts, key=lambda column: (_rank(column.name, TEXT_NAMES), -column.words))
    others = [
        f"`{shown(column.name)}` holds text too, {column.words:.0f} words"
        for column in texts
        if column is not chosen
    ]
    return Guess(
        (chosen.name,),
        "; ".join([f"{max(1, round(chosen.words))} words on average", *others[:MOST_OTHERS]]),
    )


def _is_short_text(column: Column) -> bool:
    """Names, headlines of two words, ...: words that mostly differ and are no identifiers."""
    return (
        column.letters > 0.6
        and (column.distinct > MANY_CLASSES)
        and column.distinct > column.rows / 4
    )


def _pair(columns: Sequence[Column]) -> tuple[Column, Column] | None:
    by_name = {column.name.lower(): column for column in columns}
    for first, second in PAIRS:
        if first in by_name and second in by_name:
            return by_name[first], by_name[second]
    for name, column in by_name.items():
        for one, other in (("1", "2"), ("a", "b"), ("_one", "_two")):
            if (
                name.endswith(one)
                and (second := name.removesuffix(one) + other) in by_name
                and name.removesuffix(one)
            ):
                return column, by_name[second]
    return None


def _named(data: str, columns: Sequence[Column], name: str, option: str) -> Column:
    for column in columns:
        if column.name == name:
            return column
    names = [column.name for column in columns]
    raise DataError(
        f"{option}: {data} has no column {name!r}, only {', '.join(map(repr, names))}{did_you_mean(name, names)}"
    )


def _rank(name: str, known: Sequence[str]) -> int:
    """How much a name speaks for a column: the place of the known name that it is, or that is a word of it (`true_label`)."""
    lower = name.strip().lower()
    if lower in known:
        return known.index(lower)
    parts = re.split(r"[^a-z]+", lower)
    return min(
        (len(known) - 1 for word in known if len(word) > 1 and word in parts), default=len(known)
    )


def _seen(columns: Iterable[Column]) -> str:
    return (
        ", ".join(f"`{shown(column.name)}` {column.describe()}" for column in columns)
        or "no columns"
    )


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(shown, names))


def quoted(names: Sequence[str]) -> str:
    return listed([f"`{shown(name)}`" for name in names])


def listed(words: Sequence[str]) -> str:
    """Words in a sentence: `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


# --- metric ----------------------------------------------------------------------------------------------------------


def guess_metric(data: TaskData) -> Guess:
    match data.kind:
        case "classification":
            return _metric_of_classes(data)
        case "regression":
            return Guess(
                "pearson_and_spearman",
                "the mean of Pearson's coefficient (answers and labels on a line) and Spearman's (in the same order)",
            )
        case "multi_label":
            return _metric_of_several(data)


def _metric_of_several(data: TaskData) -> Guess:
    shares = data.train.labels.mean(axis=0)
    rare, reason = int(shares.argmin()), "all labels of all rows together"
    if shares[rare] >= RARE_LABEL:
        return Guess("f1_micro", reason)
    name = shown(data.label_names[rare])
    return Guess(
        "f1_micro",
        f"{reason}; `{name}`, which {_percent(shares[rare])} of the rows have, counts as much as any in f1_macro alone",
    )


def _metric_of_classes(data: TaskData) -> Guess:
    """Accuracy where it is fair; else one that a model can't please by always giving the most frequent answer."""
    counts = np.bincount(data.train.labels, minlength=len(data.label_names))
    shares = counts / counts.sum()
    names = data.label_names
    if len(names) == 2:
        rare = int(shares.argmin())
        if shares[rare] >= BALANCED_TWO:
            return Guess(
                "accuracy",
                f"the two classes are about as frequent ({_percent(shares[rare])} and {_percent(1 - shares[rare])})",
            )
        if rare == 1:
            return Guess(
                "f1",
                f"of `{shown(names[1])}`, which only {_percent(shares[1])} of the rows have: accuracy would hide it",
            )
        reason = f"`{shown(names[0])}` is rare ({_percent(shares[0])}), and f1 would be that of `{shown(names[1])}`, the second class"
        return Guess("matthews", reason)
    share = shares.min() / shares.max()
    metric: Metric = "accuracy"
    if share < BALANCED_MANY:
        metric = "f1_macro"
        reason = f"each class counts the same, though `{shown(names[int(shares.argmin())])}` has {_percent(shares.min())} of the rows and "
        return Guess(
            metric, reason + f"`{shown(names[int(shares.argmax())])}` {_percent(shares.max())}"
        )
    if len(names) > MANY_CLASSES:
        return Guess("f1_macro", f"each of the {len(names)} classes counts the same")
    return Guess(
        metric,
        f"the {len(names)} classes are about as frequent ({_percent(shares.min())} to {_percent(shares.max())} of the rows)",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.01 else f"{100 * share:.1f}%"
