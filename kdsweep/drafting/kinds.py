"""What the kind of a task decides about a draft: a fair metric, and how the file describes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdsweep.core.settings import Kind, Metric

# The smaller of two classes has at least this share of the rows.
BALANCED_TWO = 0.35
# The smallest of several classes has at least this share of the rows of the largest.
BALANCED_MANY = 0.5
MANY_CLASSES = 10
# Fewer of the rows have a rare label.
RARE_LABEL = 0.05

DESCRIPTIONS: dict[Kind, str] = {
    "classification": "the label is one of several classes",
    "regression": (
        "the label is a number; labels and teacher are matched by squared error, and temperature "
        "plays no part"
    ),
    "multi_label": "each label is a yes or no of its own; a row may have several, or none",
}
LOSS_FORMULAS: dict[Kind, str] = {
    "classification": (
        "alpha * CE(student, labels) + (1 - alpha) * T^2 * KL(teacher || student): "
        "alpha weighs the labels, T is `temperature`."
    ),
    "regression": (
        "alpha * MSE(student, labels) + (1 - alpha) * MSE(student, teacher): "
        "alpha weighs the labels."
    ),
    "multi_label": (
        "alpha * CE(student, labels) + (1 - alpha) * T^2 * KL(teacher || student), both for the "
        "yes or no of each label: alpha weighs the labels of the rows, T is `temperature`."
    ),
}


def guess_metric(kind: Kind, labels: np.ndarray, names: Sequence[str]) -> tuple[Metric, str]:
    """A fair metric for labels of train, and why. names: of the outputs, as they are shown."""
    match kind:
        case "classification":
            return _metric_of_classes(labels, names)
        case "regression":
            return "pearson_and_spearman", (
                "the mean of Pearson's coefficient (predictions and labels on a line) and "
                "Spearman's (in the same order)"
            )
        case "multi_label":
            return _metric_of_several(labels, names)


def _metric_of_several(labels: np.ndarray, names: Sequence[str]) -> tuple[Metric, str]:
    shares = labels.mean(axis=0)
    rare = int(shares.argmin())
    reason = "all labels of all rows together"
    if shares[rare] < RARE_LABEL:
        reason += (
            f"; `{names[rare]}`, which {percent(shares[rare])} of the rows have, counts as much as "
            "any other label only in f1_macro"
        )
    return "f1_micro", reason


def _metric_of_classes(labels: np.ndarray, names: Sequence[str]) -> tuple[Metric, str]:
    """Accuracy if it is fair; else one that always predicting the same class can't please."""
    counts = np.bincount(labels, minlength=len(names))
    shares = counts / counts.sum()
    if len(names) == 2:
        return _metric_of_two(shares, names)
    if shares.min() / shares.max() < BALANCED_MANY:
        rare = int(shares.argmin())
        common = int(shares.argmax())
        return "f1_macro", (
            f"each class counts the same, though `{names[rare]}` has {percent(shares[rare])} of "
            f"the rows and `{names[common]}` {percent(shares[common])}"
        )
    if len(names) > MANY_CLASSES:
        return "f1_macro", f"each of the {len(names)} classes counts the same"
    return "accuracy", (
        f"the {len(names)} classes are about as frequent ({percent(shares.min())} to "
        f"{percent(shares.max())} of the rows)"
    )


def _metric_of_two(shares: np.ndarray, names: Sequence[str]) -> tuple[Metric, str]:
    rare = int(shares.argmin())
    share = shares[rare]
    if share >= BALANCED_TWO:
        return "accuracy", (
            f"the two classes are about as frequent ({percent(share)} and {percent(1 - share)})"
        )
    if rare == 1:
        return "f1", (
            f"of `{names[1]}`, which only {percent(share)} of the rows have: accuracy would hide it"
        )
    return "matthews", (
        f"`{names[0]}` is rare ({percent(share)}), and f1 would be that of `{names[1]}`, the "
        "second class"
    )


def describe_labels(kind: Kind, labels: np.ndarray, names: Sequence[str]) -> str:
    """How the labels of train are spread, for a comment in a space."""
    if kind == "regression":
        return (
            f"rows of train: {len(labels):,}, from {labels.min():g} to {labels.max():g}, "
            f"{labels.mean():.3g} on average"
        )
    if kind == "classification":
        counts = [int((labels == i).sum()) for i in range(len(names))]
        return _describe_counts(dict(zip(names, counts, strict=True)))
    counts = [int(count) for count in labels.sum(axis=0)]
    spread = _describe_counts(dict(zip(names, counts, strict=True)))
    a_row = labels.sum(axis=1)
    if (a_row == 1).all():
        return (
            f"{spread}; every row has exactly one, so a column with its name would do, as a "
            "classification"
        )
    empty = int((a_row == 0).sum())
    return f"{spread}; {a_row.mean():.1f} labels a row on average, {empty:,} rows have none"


def _describe_counts(counts: dict[str, int]) -> str:
    """The eight most frequent labels with their rows."""
    common = sorted(counts, key=lambda name: -counts[name])
    more = f" and {len(common) - 8} more" if len(common) > 8 else ""
    listed = ", ".join(f"{name} ({counts[name]:,})" for name in common[:8])
    return f"rows of train: {listed}{more}"


def percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.01 else f"{100 * share:.1f}%"
