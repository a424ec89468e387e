"""What is in a dataset before anybody has said so: its splits, and for each column what kind of values it holds."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdsweep.core.data.readers import read_file
from kdsweep.core.data.sources import (
    DATA_SUFFIXES,
    hub_is_reachable,
    hub_unreachable,
    local_path,
    looks_like_a_path,
)
from kdsweep.core.settings import TaskSettings
from kdsweep.errors import DataError, did_you_mean, first_line

ROWS_LOOKED_AT = 20_000
MOST_CLASSES = (
    20  # more than so many values need four rows each on average: the rule of `load_task`
)
LONG_SHARE = 0.95
LONG_LIST = 50  # elements: tokens, embeddings, ...; no text has so many labels
REPEATED_SHARE = 0.01  # of lists that hold a value twice: tokens do, labels don't
UNLABELLED = {"-1", ""}
DTYPES_OF_LABELS = (
    "string",
    "large_string",
    "bool",
    "int",
    "uint",
)  # as they begin; of what is in the lists of a dataset
NO_NUMBERS = {
    "nan",
    "na",
    "n/a",
    "null",
    "none",
    "inf",
    "-inf",
}  # what stands in a column of numbers where a number is missing
KINDS_OF_NO_USE = {
    "empty": "it is empty",
    "other": "neither texts, numbers nor lists of names",
    "date": "dates",
}
DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}\b.*|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}\b.*")
ANYTHING = TaskSettings(
    dataset="-", text=("-",), label="-"
)  # the reader of files reads every column, whatever the task says


@dataclass(frozen=True)
class Table:
    """Rows of one split, by column. `class_names`: of those columns whose names the dataset itself knows."""

    columns: dict[str, list[Any]]
    class_names: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Column:
    """What a look at the values of a column tells.

    kind: `text` (several words), `word` (something short), `number`, `fraction` (numbers, not all of them whole), `date`,
    `lists` (short ones, of names or whole numbers), `empty`, or `other` (embeddings, images, ...).
    distinct: different values, empty ones left out, or different elements of lists; `unlabelled`: how many values mean "no label".
    repeated: lists that hold an element twice. low, high: of numbers.
    words, characters: of a value on average; `long_words`, `long_characters`: that 95% of the values don't exceed.
    letters: share of characters that are letters; `foreign`: share of letters beyond ASCII.
    """

    name: str
    kind: str
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
        most = MOST_CLASSES if self.kind == "text" else max(MOST_CLASSES, self.rows / 4)
        few = 2 <= self.distinct <= min(most, self.rows / 2)
        is_named = self.class_names is not None and self.kind != "lists"
        return is_named or (
            self.kind in ("word", "number", "text") and few and self.characters <= 60
        )

    @property
    def is_label_list(self) -> bool:
        """Whether its lists could be the labels of their rows: few different ones, none of them twice in a row."""
        few = self.class_names is not None or 2 <= self.distinct <= max(MOST_CLASSES, self.rows / 4)
        return self.kind == "lists" and few and self.repeated <= REPEATED_SHARE * self.rows

    @property
    def holds_flags(self) -> bool:
        """Whether each value is a yes or a no: 0 or 1, or a boolean."""
        found = {text.lower() for text in self.common}
        return self.kind in ("number", "word") and (
            found <= {"0", "1"} or found <= {"true", "false"}
        )

    @property
    def is_flag(self) -> bool:
        """Whether its flags could be a label: there are both."""
        return self.holds_flags and self.distinct == 2 and self.class_names is None

    @property
    def counts_up(self) -> bool:
        """Whether its whole numbers leave none out from 0 or 1 on, as those that stand for classes do."""
        return (
            self.kind == "number"
            and self.low in (0, 1)
            and self.distinct == self.high - self.low + 1
        )

    @property
    def is_text_like(self) -> bool:
        return self.kind == "text" and (
            self.distinct > MOST_CLASSES or self.distinct > self.rows / 4
        )

    @property
    def examples(self) -> str:
        """Its most frequent values."""
        values = [
            f"{float(text):.4g}" if self.kind == "fraction" else shown(text, 30)
            for text in self.common[:3]
        ]
        return ", ".join([*values, *(["..."] if self.distinct > 3 else [])])

    def describe(self) -> str:
        """What was seen, in a few words."""
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
        return f"{self.distinct:,} different {'numbers' if self.kind == 'number' else 'words'}"

    def _describe_lists(self) -> str:
        if not self.is_label_list:
            return f"lists of {self.distinct:,} different values" + (
                ", some of them twice in a list" if self.repeated else ""
            )
        return (
            f"lists of {self.distinct} labels ({self.examples})"
            if self.class_names is None
            else f"lists of {len(self.class_names)} named labels"
        )


# --- reading ---------------------------------------------------------------------------------------------------------


def read_tables(data: str, subset: str | None) -> dict[str, Table]:
    """Every split of a dataset, by the name that the dataset has for it; a single file is `{"": rows}`.

    Raises DataError where there is nothing that can be read.
    """
    path = local_path(data, DataError)
    if path is None:
        if looks_like_a_path(data):
            beside = Path(data).expanduser().parent
            near = (
                did_you_mean(Path(data).name, [other.name for other in beside.iterdir()])
                if beside.is_dir()
                else ""
            )
            raise DataError(f"{data}: there is no such file or folder{near}")
        return _read_hub(data, subset)
    if path.is_file():
        return {"": _read_table(path)}
    if (path / "dataset_dict.json").exists():
        import datasets

        return {
            str(name): _from_dataset(split)
            for name, split in datasets.load_from_disk(str(path)).items()
        }
    files = {file.stem: file for file in sorted(path.iterdir()) if file.suffix in DATA_SUFFIXES}
    if not files:
        raise DataError(
            f"{data}: this folder holds no csv, tsv, json, jsonl or parquet file, and no dataset that was saved by save_to_disk"
        )
    return {name: _read_table(file) for name, file in files.items()}


def _read_table(path: Path) -> Table:
    return Table(read_file(path, ANYTHING).columns, {})


def _read_hub(name: str, subset: str | None) -> dict[str, Table]:
    online = hub_is_reachable()
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    previous = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = previous or not online
    try:
        found = datasets.load_dataset(name, subset)
    except (
        ConnectionError,
        datasets.exceptions.DatasetNotFoundError,
        FileNotFoundError,
        HfHubHTTPError,
    ) as error:
        if not online:
            raise hub_unreachable("the dataset", name) from error
        raise DataError(
            f"{name}: there is no such file or folder here, and no dataset of that name on the Hub: {first_line(error)}"
        ) from error
    except ValueError as error:
        hint = "; name one with --subset" if subset is None else ""
        raise DataError(f"{name}: {' '.join(str(error).split())[:300]}{hint}") from error
    finally:
        datasets.config.HF_HUB_OFFLINE = previous
    return {str(split): _from_dataset(rows) for split, rows in found.items()}


def _from_dataset(dataset: Any) -> Table:
    """The first rows; columns of images, embeddings and the like are there with nothing in them."""
    import datasets

    features, rows = dataset.features, dataset.select(range(min(len(dataset), ROWS_LOOKED_AT)))
    inner = {
        name: getattr(features[name], "feature", features[name]) for name in dataset.column_names
    }  # of a list, what is in it
    plain = {
        name: feature
        for name, feature in inner.items()
        if isinstance(feature, datasets.ClassLabel)
        or (
            isinstance(feature, datasets.Value)
            and (feature is features[name] or feature.dtype.startswith(DTYPES_OF_LABELS))
        )
    }
    columns = {
        name: list(rows[name]) if name in plain else [{}] * len(rows)
        for name in dataset.column_names
    }
    return Table(
        columns,
        {
            name: tuple(feature.names)
            for name, feature in plain.items()
            if hasattr(feature, "names")
        },
    )


# --- looking ---------------------------------------------------------------------------------------------------------


def look_at(table: Table) -> list[Column]:
    """A column for each that the table has, in its order."""
    return [
        _look(name, values, table.class_names.get(name)) for name, values in table.columns.items()
    ]


def is_unlabelled(values: list[Any]) -> bool:
    """Whether no row has a label: what benchmarks publish as their test split."""
    return all(
        as_text(one) in UNLABELLED
        for value in values
        for one in (_elements(value) if _is_list(value) else [value])
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def _elements(value: Any) -> list[Any]:
    return list(value.tolist() if isinstance(value, np.ndarray) else value)


def _look(name: str, values: list[Any], class_names: tuple[str, ...] | None) -> Column:
    step = max(1, len(values) // ROWS_LOOKED_AT)
    looked_at = values[::step]
    if any(map(_is_list, looked_at)) and all(
        value is None or _is_list(value) for value in looked_at
    ):
        return _look_at_lists(name, looked_at, class_names)
    if any(
        value is not None and not isinstance(value, str | int | float | bool | np.generic)
        for value in looked_at
    ):
        return Column(name, "other", len(looked_at))
    texts = [as_text(value) for value in looked_at]
    filled = [text for text in texts if text]
    if not filled:
        return Column(name, "empty", len(looked_at))
    numbers = [number for text in filled if (number := _as_number(text)) is not None]
    counts = Counter(filled)
    words, characters = [len(text.split()) for text in filled], [len(text) for text in filled]
    everything = "".join(filled)
    letters = sum(map(str.isalpha, everything))
    foreign = sum(1 for character in everything if character.isalpha() and not character.isascii())
    facts: dict[str, Any] = {
        "distinct": len(counts),
        "unlabelled": sum(text in UNLABELLED for text in texts),
        "words": sum(words) / len(words),
        "characters": sum(characters) / len(characters),
        "long_words": _long(words),
        "long_characters": _long(characters),
        "letters": letters / len(everything),
        "foreign": foreign / letters if letters else 0.0,
        "common": tuple(text for text, _ in counts.most_common(8)),
        "class_names": class_names,
    }
    others = sum(count for text, count in counts.items() if text.lower() in NO_NUMBERS)
    if len(numbers) + others == len(filled) and len(numbers) > others:
        whole = all(number == math.floor(number) for number in numbers)
        return Column(
            name,
            "number" if whole else "fraction",
            len(looked_at),
            **facts,
            low=min(numbers),
            high=max(numbers),
        )
    if all(DATE.fullmatch(text) for text in filled):
        return Column(name, "date", len(looked_at), **facts)
    # Chinese, Japanese and Thai put no blanks between words.
    several = facts["words"] >= 3 or (facts["foreign"] > 0.5 and facts["characters"] >= 8)
    is_prose = (
        several
        and facts["letters"] > 0.5
        and sum(text.startswith(("http://", "https://")) for text in filled) < len(filled) / 2
    )
    return Column(name, "text" if is_prose else "word", len(looked_at), **facts)


def _look_at_lists(name: str, values: list[Any], class_names: tuple[str, ...] | None) -> Column:
    rows = [_elements(value) for value in values if value is not None]
    if sum(map(len, rows)) > LONG_LIST * len(rows):
        return Column(name, "other", len(values))
    if any(
        one is not None and not isinstance(one, str | int | float) for row in rows for one in row
    ):
        return Column(name, "other", len(values))
    texts = [[as_text(one) for one in row] for row in rows]
    counts = Counter(text for row in texts for text in row)
    numbers = [number for text in counts if (number := _as_number(text)) is not None]
    if not counts or any(number != math.floor(number) for number in numbers):
        return Column(name, "other" if counts else "empty", len(values))
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


def as_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, bool):
        return str(int(value))
    text = str(value).strip()
    return text[:-2] if text.endswith(".0") and text[:-2].lstrip("-").isdigit() else text


def _as_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _long(lengths: list[int]) -> int:
    return sorted(lengths)[min(len(lengths) - 1, math.floor(LONG_SHARE * len(lengths)))]


def shown(text: str, most: int = 40) -> str:
    """A name or value as it stands in a comment or a message: on one line, printable, short."""
    plain = "".join(
        character if character.isprintable() else json.dumps(character)[1:-1] for character in text
    )
    return plain if len(plain) <= most else plain[: most - 3] + "..."
