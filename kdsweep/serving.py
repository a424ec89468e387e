"""Serving a student: what MLflow loads for `models:/NAME@best`, and what anybody may load from a student's folder.

MLflow is not imported: it finds `_load_pyfunc` by this module's name, which stands in the student's MLmodel file. torch is imported
when a student is loaded, so that whoever only writes such a file doesn't wait for it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kdsweep.core.files import read_json, write_json
from kdsweep.core.settings import Truncation
from kdsweep.core.tasks import DEFAULT_KIND
from kdsweep.core.tasks.base import TaskKind
from kdsweep.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SETTINGS = "kdsweep.json"  # beside the student's files: its text columns, and how many tokens of a row it was trained on
PAIR = (
    "text",
    "text_pair",
)  # what a text and its pair are called in every pipeline of transformers


class Classifier:
    """A student that answers texts with the task's label names, reading them just as it did when it was evaluated."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        text: Sequence[str],
        max_length: int,
        kind: TaskKind = DEFAULT_KIND,
        truncation: Truncation = "head",
    ) -> None:
        self.kind, self.truncation = kind, truncation
        self.model, self.tokenizer, self.text, self.max_length = (
            model,
            tokenizer,
            tuple(text),
            max_length,
        )
        self._alone = (
            threading.Lock()
        )  # a server calls from several threads, and a tokenizer keeps its settings in itself

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A row for each of the input's, in its order and with its index: `label` and `score`, the label's probability (0 to 1).

        Where a row may have several labels, `label` names all that are likelier than not, with a comma between them, and `score` is the
        probability of the least sure answer, yes or no. In a regression `score` is the value, and `label` what it is called.

        model_input: texts (a list, a Series, an array); or dicts or a DataFrame with the task's text columns, or `text` and
        `text_pair`; for sentence pairs also a list of two texts each. A DataFrame with as many columns as the task has is read
        whatever they are called. `params` is MLflow's and unused. Raises DataError for anything else.
        """
        columns, index = self._columns(model_input)
        if not len(index):
            return pd.DataFrame({"label": pd.Series(dtype=str), "score": pd.Series(dtype=float)})
        with self._alone:
            logits = self._logits(columns)
        names: Any = self.model.config.id2label
        labels, scores = self.kind.serve(logits, [names[i] for i in range(len(names))])
        return pd.DataFrame({"label": labels, "score": scores}, index=index)

    def _logits(self, columns: list[list[str]]) -> np.ndarray:
        """fp32 [rows, classes]"""
        import torch

        from kdsweep.core.data.tokenize import tokenize_texts
        from kdsweep.core.evaluation.predict import predict
        from kdsweep.core.models.inputs import input_format_of

        input_format = input_format_of(self.model, self.max_length, self.truncation)
        tokens = tokenize_texts(self.tokenizer, columns, input_format)
        return predict(self.model, tokens, torch.float32)

    def _columns(self, given: Any) -> tuple[list[list[str]], pd.Index]:
        """The text column(s), each [rows], and the rows' names."""
        if isinstance(given, str):
            given = [given]
        elif isinstance(given, Mapping):
            given = pd.DataFrame(
                {
                    name: np.atleast_1d(np.asarray(value, dtype=object)).tolist()
                    for name, value in given.items()
                }
            )
        elif isinstance(given, np.ndarray):
            given = given.tolist()
        if (
            isinstance(given, list | tuple)
            and given
            and all(isinstance(row, Mapping) for row in given)
        ):
            given = pd.DataFrame(list(given))
        if isinstance(given, pd.DataFrame):
            return [
                _texts(given[name].tolist(), self.text) for name in self._names(given)
            ], given.index
        if isinstance(given, pd.Series):
            return self._split(given.tolist()), given.index
        if isinstance(given, list | tuple):
            return self._split(list(given)), pd.RangeIndex(len(given))
        raise DataError(
            f"{type(given).__name__} is nothing to classify: give texts, dicts or a DataFrame with {' and '.join(self.text)}"
        )

    def _names(self, frame: pd.DataFrame) -> list[Any]:
        """Which of the columns hold the texts."""
        for names in (self.text, PAIR[: len(self.text)]):
            if set(names) <= set(frame.columns):
                return list(names)
        if len(frame.columns) == len(self.text):
            return list(frame.columns)
        raise DataError(
            f"there is no column {' or '.join(repr(name) for name in self.text if name not in frame.columns)}, only {list(frame.columns)}"
        )

    def _split(self, rows: list[Any]) -> list[list[str]]:
        if len(self.text) == 1:
            return [
                _texts(
                    [
                        row[0] if isinstance(row, list | tuple) and len(row) == 1 else row
                        for row in rows
                    ],
                    self.text,
                )
            ]
        if not all(isinstance(row, list | tuple) and len(row) == len(self.text) for row in rows):
            raise DataError(
                f"this student reads pairs: each row must have {' and '.join(self.text)}"
            )
        return [_texts([row[i] for row in rows], self.text) for i in range(len(self.text))]


def _texts(values: list[Any], columns: Sequence[str]) -> list[str]:
    if wrong := [value for value in values if not isinstance(value, str)]:
        raise DataError(
            f"{wrong[0]!r} is no text: each row must have a text for {' and '.join(columns)}"
        )
    return values


def write_settings(
    folder: Path, *, text: Sequence[str], max_length: int, truncation: Truncation = "head"
) -> None:
    """Say beside a student's files how it reads: the task's text column(s), how many tokens of a row, and which of a longer one."""
    write_json(
        folder / SETTINGS,
        {"text": list(text), "max_length": max_length}
        | ({} if truncation == "head" else {"truncation": truncation}),
    )


def load(folder: Path | str) -> Classifier:
    """The student in a Hugging Face folder, on the GPU where there is one. Raises ModelError where it can't be loaded."""
    from kdsweep.core.device import pick_device
    from kdsweep.core.models.inputs import longest_input
    from kdsweep.core.models.loading import load_classifier, load_tokenizer, own_labels

    source = str(folder)
    names, kind = own_labels(source)
    model = load_classifier(source, names, kind=kind)
    tokenizer = load_tokenizer(source)
    model.to(pick_device())
    model.eval()
    settings = Path(folder) / SETTINGS
    found: dict[str, Any] = (
        read_json(settings)
        if settings.exists()
        else {"text": PAIR[:1], "max_length": longest_input(model, tokenizer)}
    )
    return Classifier(
        model,
        tokenizer,
        text=found["text"],
        max_length=found["max_length"],
        kind=kind,
        truncation=found.get("truncation", "head"),
    )


def _load_pyfunc(path: str) -> Classifier:
    """What MLflow calls for the flavor `python_function`."""
    return load(path)
