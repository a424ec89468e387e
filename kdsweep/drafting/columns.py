"""What kind of values each column of a table holds."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from kdsweep.drafting.tables import ROWS_LOOKED_AT, UNLABELLED, Table, as_text, elements, is_list

# More values than this need four rows each on average: the rule of `load_task`.
MOST_CLASSES = 20
# The share of values that `long_words` and `long_characters` cover.
LONG_SHARE = 0.95
# Elements of a list, on average. Longer lists are tokens or embeddings, not labels.
LONG_LIST = 50
# The share of lists that hold a value twice. Tokens do that, labels don't.
REPEATED_SHARE = 0.01
LONGEST_CLASS_NAME = 60
# What a column of numbers may hold where a number is missing.
NO_NUMBERS = {"nan", "na", "n/a", "null", "none", "inf", "-inf"}
KINDS_OF_NO_USE = {
    "empty": "it is empty",
    "other": "neither texts, numbers nor lists of names",
    "date": "dates",
}
DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}\b.*|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}\b.*")

ColumnKind = Literal["text", "word", "number", "fraction", "date", "lists", "empty", "other"]


@dataclass(frozen=True)
class Column:
    """What a column holds.

    kind: `text` (several words), `word` (something short), `number`, `fraction` (numbers, not all
    of them whole), `date`, `lists` (short ones, of names or whole numbers), `empty`, or `other`
    (embeddings, images, ...).
    distinct: different values without the empty ones, or different elements of lists.
    unlabelled: how many values mean "no label". repeated: how many lists hold an element twice.
    low, high: the ends of numbers. words, characters: of a value, on average; `long_words` and
    `long_characters`: what 95% of the values don't exceed.
    letters: the share of characters that are letters; foreign: the share of letters beyond ASCII.
    common: the most frequent values.
    """

    name: str
    kind: ColumnKind
    rows: int
    distinct: int = 0
    unlabelled: int = 0
    words: float = 0.0
    characters: float = 0.0
    long_words: int = 0
    long_characters: int = 0
    letters: float = 0.0
    foreign: float = 0.0
    common: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None
    repeated: int = 0
    low: float = 0.0
    high: float = 0.0

    @property
    def is_class_like(self) -> bool:
        """Whether its values could be classes: a few, each of them several times."""
        if self.class_names is not None and self.kind != "lists":
            return True
        most = MOST_CLASSES if self.kind == "text" else max(MOST_CLASSES, self.rows / 4)
        is_few = 2 <= self.distinct <= min(most, self.rows / 2)
        is_short = self.characters <= LONGEST_CLASS_NAME
        return self.kind in ("word", "number", "text") and is_few and is_short

    @property
    def is_label_list(self) -> bool:
        """Whether its lists could be labels: few different ones, none of them twice in a row."""
        is_few = 2 <= self.distinct <= max(MOST_CLASSES, self.rows / 4)
        is_distinct = self.repeated <= REPEATED_SHARE * self.rows
        return self.kind == "lists" and is_distinct and (self.class_names is not None or is_few)

    @property
    def holds_flags(self) -> bool:
        """Whether each value is a yes or a no: 0 or 1, or a boolean."""
        found = {text.lower() for text in self.common}
        is_flags = found <= {"0", "1"} or found <= {"true", "false"}
        return self.kind in ("number", "word") and is_flags

    @property
    def is_flag(self) -> bool:
        """Whether its flags could be a label: both values occur."""
        return self.holds_flags and self.distinct == 2 and self.class_names is None

    @property
    def counts_up(self) -> bool:
        """Whether its whole numbers leave none out from 0 or 1 on, as numbers of classes do."""
        every = self.high - self.low + 1
        return self.kind == "number" and self.low in (0, 1) and self.distinct == every

    @property
    def is_text_like(self) -> bool:
        is_varied = self.distinct > MOST_CLASSES or self.distinct > self.rows / 4
        return self.kind == "text" and is_varied

    @property
    def examples(self) -> str:
        """Its most frequent values."""
        values = [shown(text, 30) for text in self.common[:3]]
        if self.kind == "fraction":
            values = [f"{float(text):.4g}" for text in self.common[:3]]
        return ", ".join([*values, "..."] if self.distinct > 3 else values)

    def describe(self) -> str:
        """What it holds, in a few words."""
        if self.kind in KINDS_OF_NO_USE:
            return KINDS_OF_NO_USE[self.kind]
        if self.kind == "lists":
            return self._describe_lists()
        if self.class_names is not None:
            return f"{len(self.class_names)} named classes"
        if self.kind == "fraction":
            return f"numbers with a fraction ({self.examples})"
        if self.distinct >= self.rows > 1 and self.kind != "text":
            return "every value differs"
        if self.is_class_like:
            return f"{self.distinct} values ({self.examples})"
        if self.kind == "text":
            return f"texts of {self.words:.0f} words on average"
        if self.distinct == 1:
            return f"every value is {self.examples}"
        noun = "numbers" if self.kind == "number" else "words"
        return f"{self.distinct:,} different {noun}"

    def _describe_lists(self) -> str:
        if not self.is_label_list:
            repeated = ", some of them twice in a list" if self.repeated else ""
            return f"lists of {self.distinct:,} different values{repeated}"
        if self.class_names is not None:
            return f"lists of {len(self.class_names)} named labels"
        return f"lists of {self.distinct} labels ({self.examples})"


def look_at(table: Table) -> list[Column]:
    """The columns of the table, in its order."""
    return [
        _look(name, values, table.class_names.get(name)) for name, values in table.columns.items()
    ]


def _look(name: str, values: Sequence[Any], class_names: tuple[str, ...] | None) -> Column:
    looked_at = values[:: max(1, len(values) // ROWS_LOOKED_AT)]
    lists = [value for value in looked_at if is_list(value)]
    others = [value for value in looked_at if value is not None and not is_list(value)]
    if lists and not others:
        return _look_at_lists(name, looked_at, class_names)
    if not all(_is_plain(value) for value in looked_at):
        return Column(name, "other", len(looked_at))
    # An accent may be a separate character; labels are compared in this form too.
    texts = [unicodedata.normalize("NFC", as_text(value)) for value in looked_at]
    if not any(texts):
        return Column(name, "empty", len(looked_at))
    return _look_at_texts(name, texts, class_names)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool | np.generic)


def _look_at_texts(name: str, texts: list[str], class_names: tuple[str, ...] | None) -> Column:
    """A column of plain values, of which at least one isn't empty."""
    filled = [text for text in texts if text]
    counts = Counter(filled)
    words = [len(text.split()) for text in filled]
    characters = [len(text) for text in filled]
    everything = "".join(filled)
    letters = sum(map(str.isalpha, everything))
    foreign = sum(1 for character in everything if character.isalpha() and not character.isascii())
    numbers = _numbers(counts)
    column = Column(
        name,
        "word",
        len(texts),
        distinct=len(counts),
        unlabelled=sum(text in UNLABELLED for text in texts),
        words=sum(words) / len(words),
        characters=sum(characters) / len(characters),
        long_words=_long(words),
        long_characters=_long(characters),
        letters=letters / len(everything),
        foreign=foreign / letters if letters else 0.0,
        common=tuple(text for text, _ in counts.most_common(8)),
        class_names=class_names,
        low=min(numbers, default=0.0),
        high=max(numbers, default=0.0),
    )
    return replace(column, kind=_kind_of_texts(column, filled, numbers))


def _numbers(counts: Counter[str]) -> list[float]:
    """The different numbers of a column of numbers, or nothing for any other column."""
    numbers = {text: number for text in counts if (number := _as_number(text)) is not None}
    missing = sum(count for text, count in counts.items() if text.lower() in NO_NUMBERS)
    found = sum(counts[text] for text in numbers)
    is_numeric = found + missing == counts.total() and found > missing
    return list(numbers.values()) if is_numeric else []


def _kind_of_texts(column: Column, filled: list[str], numbers: list[float]) -> ColumnKind:
    if numbers:
        return "number" if all(number.is_integer() for number in numbers) else "fraction"
    if all(DATE.fullmatch(text) for text in filled):
        return "date"
    # Chinese, Japanese and Thai put no blanks between words.
    is_unspaced = column.foreign > 0.5 and column.characters >= 8
    links = sum(text.startswith(("http://", "https://")) for text in filled)
    is_prose = column.letters > 0.5 and links < len(filled) / 2
    return "text" if is_prose and (column.words >= 3 or is_unspaced) else "word"


def _look_at_lists(name: str, values: Sequence[Any], class_names: tuple[str, ...] | None) -> Column:
    rows = [elements(value) for value in values if value is not None]
    is_long = sum(map(len, rows)) > LONG_LIST * len(rows)
    is_plain = all(one is None or isinstance(one, str | int | float) for row in rows for one in row)
    if is_long or not is_plain:
        return Column(name, "other", len(values))
    texts = [[as_text(one) for one in row] for row in rows]
    counts = Counter(text for row in texts for text in row)
    if not counts:
        return Column(name, "empty", len(values))
    numbers = [number for text in counts if (number := _as_number(text)) is not None]
    if not all(number.is_integer() for number in numbers):
        return Column(name, "other", len(values))
    return Column(
        name,
        "lists",
        len(values),
        distinct=len(counts),
        unlabelled=len(values) - len(rows),
        common=tuple(text for text, _ in counts.most_common(8)),
        class_names=class_names,
        repeated=sum(len(set(row)) < len(row) for row in texts),
    )


def _as_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _long(lengths: list[int]) -> int:
    return sorted(lengths)[min(len(lengths) - 1, math.floor(LONG_SHARE * len(lengths)))]


# --- names and values in a comment or a message ---


def shown(text: str, most: int = 40) -> str:
    """A name or a value on one line, printable and short."""
    plain = "".join(
        character if character.isprintable() else json.dumps(character)[1:-1] for character in text
    )
    return plain if len(plain) <= most else plain[: most - 3] + "..."


def listed(words: Sequence[str]) -> str:
    """Words in a sentence: `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def quoted(names: Sequence[str]) -> str:
    """Names in a sentence: `` `a`, `b` and `c` ``."""
    return listed([f"`{shown(name)}`" for name in names])


def seen(columns: Sequence[Column]) -> str:
    """What each column holds, for a message that nothing could be guessed."""
    if not columns:
        return "no columns"
    return ", ".join(f"`{shown(column.name)}` {column.describe()}" for column in columns)
