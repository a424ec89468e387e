"""Guesses which column holds the text, or which two hold a sentence pair."""

from __future__ import annotations

from collections.abc import Sequence

from kdsweep.drafting.column_names import PAIR_ENDINGS, PAIRS, TEXT_NAMES, rank
from kdsweep.drafting.columns import Column, quoted, seen, shown
from kdsweep.drafting.guess import AS_REQUESTED, MOST_OTHERS, Guess, named_column
from kdsweep.errors import DataError

# Short texts, such as headlines, have more different values than this.
FEWEST_SHORT_TEXTS = 10


def guess_text(
    data: str, columns: Sequence[Column], labels: Sequence[str], wanted: Sequence[str]
) -> Guess:
    """The text column, or the two of a sentence pair.

    wanted: the columns that the user named. Raises DataError, with every column, if nothing looks
    like a text.
    """
    if wanted:
        chosen = [named_column(data, columns, name, "--text") for name in wanted]
        return Guess(tuple(column.name for column in chosen), AS_REQUESTED)
    candidates = [
        column
        for column in columns
        if column.name not in labels and column.name.strip() and column.kind in ("text", "word")
    ]
    if pair := _pair(candidates):
        words = " and ".join(f"{column.words:.0f}" for column in pair)
        return Guess(
            tuple(column.name for column in pair),
            f"a pair of columns, {words} words on average",
        )
    texts = [column for column in candidates if column.is_text_like]
    texts = texts or [column for column in candidates if _is_short_text(column)]
    if not texts:
        raise DataError(
            f"{data}: no column other than the label {quoted(labels)} looks like a text; name one "
            "with --text, or two for pairs, or write task.text yourself "
            f"(columns: {seen(columns)})"
        )
    best = min(texts, key=lambda column: (rank(column.name, TEXT_NAMES), -column.words))
    others = [
        f"`{shown(column.name)}` holds text too, {column.words:.0f} words"
        for column in texts
        if column is not best
    ]
    reason = f"{max(1, round(best.words))} words on average"
    return Guess((best.name,), "; ".join([reason, *others[:MOST_OTHERS]]))


def _is_short_text(column: Column) -> bool:
    """Names, headlines of two words, ...: words that mostly differ and are no identifiers."""
    is_varied = column.distinct > FEWEST_SHORT_TEXTS and column.distinct > column.rows / 4
    return is_varied and column.letters > 0.6


def _pair(columns: Sequence[Column]) -> tuple[Column, Column] | None:
    """Two columns whose names belong together."""
    by_name = {
        column.name.lower(): column
        for column in columns
        if column.kind == "text" or column.distinct > column.rows / 4
    }
    for first, second in PAIRS:
        if first in by_name and second in by_name:
            return by_name[first], by_name[second]
    for name, column in by_name.items():
        for one, other in PAIR_ENDINGS:
            stem = name.removesuffix(one)
            if name.endswith(one) and stem and stem + other in by_name:
                return column, by_name[stem + other]
    return None
