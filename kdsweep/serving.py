"""Serving a student: what MLflow loads for `models:/NAME@best`, and `load` for a student's folder.

MLflow is not imported: it finds `_load_pyfunc` by the name of this module, which is written in the
student's MLmodel file. torch is imported when a student is loaded, so that writing such a file
doesn't wait for it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kdsweep.core.evaluation.file_costs import INT8_FILE
from kdsweep.core.files import read_json, write_json
from kdsweep.core.settings import Quantize, Truncation
from kdsweep.core.tasks import DEFAULT_KIND
from kdsweep.core.tasks.base import TaskKind
from kdsweep.errors import DataError, first_few

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from kdsweep.core.data.encode import InputFormat
    from kdsweep.core.evaluation.onnx_format import OnnxModel

# Next to the student's files: its text columns, and how many tokens of a row it was trained on.
SETTINGS = "kdsweep.json"
# What every pipeline of transformers calls a text and its pair.
PAIR = ("text", "text_pair")


@dataclass(frozen=True)
class Answers:
    """What a student says of some rows.

    labels, scores: what each row is called, and the score of that, as `Classifier.predict` has
    them; scores are fp64 [rows]. probabilities: of each output, fp64 [rows, outputs]; None in a
    regression. truncated: how many rows had more tokens than the student reads.
    """

    labels: list[str]
    scores: np.ndarray
    probabilities: np.ndarray | None
    truncated: int


class Classifier:
    """A student that predicts the task's labels. It reads texts as it did in its evaluation."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        text: Sequence[str],
        max_length: int,
        kind: TaskKind = DEFAULT_KIND,
        truncation: Truncation = "head",
        quantized: OnnxModel | None = None,
    ) -> None:
        """quantized: what answers in the model's place."""
        self.model = model
        self.tokenizer = tokenizer
        self.text = tuple(text)
        self.max_length = max_length
        self.kind = kind
        self.truncation = truncation
        self.quantized = quantized
        # A server calls from several threads, and a tokenizer changes while it is used.
        self._alone = threading.Lock()

    def predict(self, model_input: object, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """`label` and `score` for each row of the input, in its order and with its index.

        score: the label's probability, 0 to 1. If a row can have several labels, `label` lists all
        that are likelier than not, separated by commas (a name with a comma is in quotes, as in a
        csv), and `score` is the probability of the least
        certain yes or no. In a regression, `score` is the value and `label` its name.

        model_input: texts (a list, a Series, an array); dicts or a DataFrame with the task's text
        columns, or `text` and `text_pair`; for sentence pairs also a list of two texts for each
        row. In a DataFrame with exactly as many columns as the task has, their names don't matter.
        params: MLflow's, unused. Raises DataError for anything else.
        """
        columns, index = self._columns(model_input)
        if not len(index):
            return pd.DataFrame({"label": pd.Series(dtype=str), "score": pd.Series(dtype=float)})
        answers = self.answer(columns)
        return pd.DataFrame({"label": answers.labels, "score": answers.scores}, index=index)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the labels; of a regression, the name of its number."""
        names: dict[int, str] = dict(self.model.config.id2label)
        return tuple(names[i] for i in range(len(names)))

    def answer(self, columns: list[list[str]]) -> Answers:
        """The answers to at least one row. columns: one text, or two, each [rows]."""
        with self._alone:
            logits, truncated = self._logits(columns)
        labels, scores = self.kind.serve(logits, self.outputs)
        has_probabilities = self.kind.has_probabilities
        each = self.kind.probability_of_each(logits) if has_probabilities else None
        return Answers(labels, scores, each, truncated)

    def _logits(self, columns: list[list[str]]) -> tuple[np.ndarray, int]:
        """fp32 [rows, classes], and how many rows were truncated."""
        import torch

        from kdsweep.core.data.tokenize import tokenize_texts
        from kdsweep.core.evaluation.predict import predict

        tokens = tokenize_texts(self.tokenizer, columns, self._input_format)
        if self.quantized is not None:
            return self.quantized.predict(tokens), tokens.truncated
        return predict(self.model, tokens, torch.float32), tokens.truncated

    @cached_property
    def _input_format(self) -> InputFormat:
        from kdsweep.core.models.input_format import input_format_of

        return input_format_of(self.model, self.tokenizer, self.max_length, self.truncation)

    def _columns(self, given: object) -> tuple[list[list[str]], pd.Index]:
        """The text column(s), each [rows], and the rows' index."""
        found = _as_rows(given)
        if isinstance(found, pd.DataFrame):
            columns = [found[name].tolist() for name in self._names(found)]
            return [_texts(column, self.text) for column in columns], found.index
        if isinstance(found, pd.Series):
            return self._split(found.tolist()), found.index
        if isinstance(found, list | tuple):
            return self._split(list(found)), pd.RangeIndex(len(found))
        raise DataError(
            f"{type(given).__name__} is nothing to classify: give texts, dicts or a DataFrame with "
            f"{' and '.join(self.text)}"
        )

    def _names(self, frame: pd.DataFrame) -> list[Any]:
        """The names of the columns that hold the texts."""
        for names in (self.text, PAIR[: len(self.text)]):
            if set(names) <= set(frame.columns):
                return list(names)
        if len(frame.columns) == len(self.text):
            return list(frame.columns)
        missing = [repr(name) for name in self.text if name not in frame.columns]
        there = first_few(map(repr, frame.columns))
        raise DataError(f"there is no column {' or '.join(missing)}, only {there}")

    def _split(self, rows: list[Any]) -> list[list[str]]:
        """Rows of one text or of a pair as columns."""
        width = len(self.text)
        if width == 1:
            return [_texts([_only(row) for row in rows], self.text)]
        if not all(isinstance(row, list | tuple) and len(row) == width for row in rows):
            raise DataError(
                f"this student reads pairs: each row must have {' and '.join(self.text)}"
            )
        return [_texts([row[i] for row in rows], self.text) for i in range(width)]


def _as_rows(given: object) -> object:
    """Texts and dicts in the forms that pandas and lists have."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, Mapping):
        columns = {
            name: np.atleast_1d(np.asarray(value, dtype=object)).tolist()
            for name, value in given.items()
        }
        return pd.DataFrame(columns)
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if isinstance(given, list | tuple) and given and all(map(_is_mapping, given)):
        return pd.DataFrame(list(given))
    return given


def _is_mapping(row: object) -> bool:
    return isinstance(row, Mapping)


def _only(row: object) -> object:
    """The text of a row that is a list of one."""
    return row[0] if isinstance(row, list | tuple) and len(row) == 1 else row


def _texts(values: list[Any], columns: Sequence[str]) -> list[str]:
    if wrong := [value for value in values if not isinstance(value, str)]:
        raise DataError(
            f"{wrong[0]!r} is no text: each row must have a text for {' and '.join(columns)}"
        )
    return values


def write_settings(
    folder: Path,
    *,
    text: Sequence[str],
    max_length: int,
    truncation: Truncation = "head",
    trust_remote_code: bool = False,
    quantize: Quantize = "none",
) -> None:
    """Write next to a student's files how it reads rows.

    text: the task's text column(s). max_length: the most tokens of a row. truncation: which part of
    a longer text is kept. trust_remote_code: whether the user consented to the model's own code.
    quantize: how the student was judged, and so how it is used.
    """
    settings: dict[str, object] = {"text": list(text), "max_length": max_length}
    if truncation != "head":
        settings["truncation"] = truncation
    if trust_remote_code:
        settings["trust_remote_code"] = True
    if quantize != "none":
        settings["quantize"] = quantize
    write_json(folder / SETTINGS, settings)


def load(folder: Path | str, *, trust_remote_code: bool = False) -> Classifier:
    """The student in a Hugging Face folder, on the GPU if there is one. One that was judged with
    8-bit weights is used with these, on the processor.

    Raises KdsweepError if onnxruntime is needed and missing, and ModelError, also for a model with
    its own code unless `trust_remote_code` is on.
    """
    from kdsweep.core.device import pick_device
    from kdsweep.core.models.inputs import longest_input
    from kdsweep.core.models.loading import load_classifier, load_tokenizer, own_labels

    source = str(folder)
    names, kind = own_labels(source, trust_remote_code=trust_remote_code)
    model = load_classifier(source, names, kind=kind, trust_remote_code=trust_remote_code)
    tokenizer = load_tokenizer(source, trust_remote_code=trust_remote_code)
    model.to(pick_device())
    model.eval()
    settings = Path(folder) / SETTINGS
    found: dict[str, Any] = {"text": PAIR[:1]}
    if settings.exists():
        found = read_json(settings)
    else:
        found["max_length"] = longest_input(model, tokenizer)
    return Classifier(
        model,
        tokenizer,
        text=found["text"],
        max_length=found["max_length"],
        kind=kind,
        truncation=found.get("truncation", "head"),
        quantized=_quantized(Path(folder)) if found.get("quantize") == "int8" else None,
    )


def _quantized(folder: Path) -> OnnxModel:
    from kdsweep.core.evaluation.onnx_format import OnnxModel, check_packages

    check_packages(f"the student in {folder} has 8-bit weights and needs")
    return OnnxModel(folder / INT8_FILE)


def _load_pyfunc(path: str) -> Classifier:
    """What MLflow calls for the flavor `python_function`.

    An MLflow model is loaded from the tracker that the sweep sent it to. Whether its own code may
    run was decided there.
    """
    settings = Path(path) / SETTINGS
    found = read_json(settings) if settings.exists() else {}
    return load(path, trust_remote_code=bool(found.get("trust_remote_code", False)))
