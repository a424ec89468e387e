"""A trial's folder: what is in it, and how it is written and read.

settings.json     the trial's settings, written first
versions.json     which versions of kdsweep, torch and transformers trained it, in this order
metrics.jsonl     one evaluation per line
checkpoint/       state.pt: everything that the next step depends on; removed when the trial ends
                  quantizing/: files on the way to a student with 8-bit weights
test_logits.npy   the student's logits for the test split, if the settings ask for them
validation_predictions.npy   what the best student predicts for validation, beside the labels
evaluation_predictions.npy   what each evaluation predicted for validation, after the labels
student/          the best student, a Hugging Face folder, once the trial is complete
result.json       written last: a trial that has it is over
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, BinaryIO, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.core.files import (
    publishing,
    read_array,
    read_json,
    whole,
    write_array,
    write_atomically,
    write_json,
)
from kdsweep.core.models.loading import save_model
from kdsweep.core.settings import TrialSettings
from kdsweep.core.strict_model import of_newer_version
from kdsweep.core.versions import Versions
from kdsweep.errors import DamagedFile, SettingsConflict

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LARGEST_CLASS = 2**31


@dataclass(frozen=True)
class Evaluation:
    """What was measured after `step` optimizer steps.

    `metrics` has `train/...` (means since the last evaluation) and `validation/...`. `seconds` is
    the trial's own time so far, over all its attempts. `timestamp` is in milliseconds since 1970.
    """

    step: int
    epoch: float
    metrics: dict[str, float]
    seconds: float
    timestamp: int


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    `state`: `complete`, `diverged`, or what the caller decided (`pruned`, `failed`).
    `best`: the evaluation whose weights are in `student/`.
    `student`: its `parameters`, `size_mb`, `latency_ms` and `latency_p95_ms`.
    `reason`: why the trial diverged or failed.
    `micro_batch`: the rows of a micro-batch, if memory ran out and they were halved.
    `test`: what the same weights reach on the test split, if the settings ask for it.
    """

    state: str
    steps: int
    seconds: float
    best: Evaluation | None = None
    student: dict[str, float] | None = None
    reason: str | None = None
    micro_batch: int | None = None
    test: dict[str, float] | None = None


@dataclass(frozen=True, eq=False)
class Predicted:
    """A split's labels and what a model predicts for its rows, both [rows, ...]."""

    labels: np.ndarray
    predictions: np.ndarray


class SavedState(TypedDict):
    """What `checkpoint/state.pt` holds. `data`: the content hash of each split, by its name.

    best_predictions: for validation. Version 0.1.0 didn't save them.
    """

    step: int
    data: dict[str, str]
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    projection: dict[str, Tensor] | None
    scheduler: dict[str, Any]
    scaler: dict[str, Any]
    halvings: int
    random: dict[str, Tensor]
    sums: Tensor
    summed: int
    evaluations: list[dict[str, Any]]
    best_index: int | None
    best_weights: dict[str, Tensor] | None
    best_predictions: NotRequired[Tensor | None]
    seconds: float


class InFolder:
    """A path below an object's `root`, made where it is asked for.

    A sweep may have tens of thousands of trials, and most of their paths are never used.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __get__(self, owner: TrialFolder, kind: type[TrialFolder]) -> Path:
        return owner.root / self._path


class TrialFolder:
    """Every path of one trial."""

    settings = InFolder("settings.json")
    versions = InFolder("versions.json")
    metrics = InFolder("metrics.jsonl")
    state = InFolder("checkpoint/state.pt")
    quantizing = InFolder("checkpoint/quantizing")
    student = InFolder("student")
    result = InFolder("result.json")
    test_logits = InFolder("test_logits.npy")
    validation_predictions = InFolder("validation_predictions.npy")
    evaluation_predictions = InFolder("evaluation_predictions.npy")

    def __init__(self, root: Path) -> None:
        self.root = root

    def claim(self, settings: TrialSettings) -> None:
        """Make the folder this trial's. Raises SettingsConflict if it is another trial's."""
        if not self.settings.exists():
            write_json(self.settings, settings.model_dump(mode="json"))
            return
        with of_newer_version(f"{self.settings} has"):
            is_same = settings.trains_as(read_json(self.settings))
        if not is_same:
            raise SettingsConflict(
                f"{self.root} holds a trial with other settings; give each trial its own folder"
            )

    def read_settings(self) -> TrialSettings:
        with whole(self.settings), of_newer_version(f"{self.settings} has"):
            return TrialSettings.model_validate_json(self.settings.read_text(encoding="utf-8"))

    def note_versions(self) -> None:
        """Note what trains the trial from here on, after what trained it up to its checkpoint."""
        before: tuple[Versions, ...] = ()
        if self.state.exists():
            with contextlib.suppress(DamagedFile):
                before = self.read_versions()
            # Version 0.1.0 noted none.
            before = before or (Versions(),)
        now = Versions.now()
        if before[-1:] != (now,):
            write_json(self.versions, [asdict(one) for one in (*before, now)])

    def read_versions(self) -> tuple[Versions, ...]:
        """What trained the trial, the first version first; empty if that wasn't noted."""
        if not self.versions.exists():
            return ()
        todo = "delete it: the report then doesn't say which versions trained this trial"
        with whole(self.versions, todo):
            return tuple(Versions(**known(Versions, one)) for one in read_json(self.versions, todo))

    @property
    def is_over(self) -> bool:
        """Whether the trial has a result, whatever it is."""
        return self.result.exists()

    def read_result(self) -> TrialResult | None:
        if not self.result.exists():
            return None
        with whole(self.result):
            found = read_json(self.result)
            if found["best"] is not None:
                found["best"] = Evaluation(**known(Evaluation, found["best"]))
            return TrialResult(**known(TrialResult, found))

    def write_result(self, result: TrialResult) -> None:
        write_json(self.result, asdict(result))
        self.drop_checkpoint()

    def read_evaluations(self) -> list[Evaluation]:
        if not self.metrics.exists():
            return []
        with whole(self.metrics, "delete it: this trial's curve is then not shown"):
            return [
                Evaluation(**known(Evaluation, json.loads(line)))
                for line in self.metrics.read_text(encoding="utf-8").splitlines()
            ]

    def write_evaluations(self, evaluations: list[Evaluation]) -> None:
        lines = "".join(json.dumps(asdict(evaluation)) + "\n" for evaluation in evaluations)
        write_atomically(self.metrics, lambda file: file.write(lines.encode()))

    def save_state(self, state: SavedState) -> None:
        write_atomically(self.state, lambda file: _save_tensors(state, file))

    def load_state(self) -> SavedState | None:
        if not self.state.exists():
            return None
        state: SavedState = torch.load(self.state, map_location="cpu", weights_only=True)
        return state

    def saved_step(self) -> int | None:
        """The step after which the checkpoint was written: 0 without one, None if it can't be read.

        Cheap, however large the model is.
        """
        try:
            # Mapped, so that no weights are read. A file that was cut short has no table of
            # contents.
            state = torch.load(self.state, map_location="cpu", weights_only=True, mmap=True)
            return int(state["step"])
        except FileNotFoundError:
            return 0
        except (RuntimeError, ValueError, LookupError, TypeError, EOFError, UnpicklingError):
            return None

    def drop_damaged_checkpoint(self) -> bool:
        """Remove a checkpoint that can't be read; returns whether there was one."""
        if self.saved_step() is not None:
            return False
        self.drop_checkpoint()
        return True

    def check_same_rows(self, keys: dict[str, str]) -> None:
        """Raise SettingsConflict if the trial was saved with other rows in one of these splits."""
        if not self.state.exists():
            return
        # Mapped, so that only the keys are read, not the weights.
        state: SavedState = torch.load(self.state, map_location="cpu", weights_only=True, mmap=True)
        saved = state["data"]
        if changed := [name for name, key in saved.items() if keys.get(name, key) != key]:
            raise SettingsConflict(
                f"{self.root} holds a trial that started with other rows: "
                f"{' and '.join(changed)} changed since; restore the data, "
                "or start over with --fresh"
            )

    def save_student(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: str
    ) -> None:
        with publishing(self.student) as beside:
            save_model(model, tokenizer, beside)
            (beside / "README.md").write_text(card, encoding="utf-8")

    def write_card(self, card: str) -> None:
        """Replace the model card of the saved student."""
        write_atomically(self.student / "README.md", lambda file: file.write(card.encode()))

    def write_test_logits(self, logits: np.ndarray) -> None:
        write_array(self.test_logits, logits)

    def read_test_logits(self, like: np.ndarray | None = None) -> np.ndarray:
        """The student's logits for the test split, fp32 [rows, classes]. like: see `read_array`."""
        todo = f"delete {self.root} and run the same command again: that run is trained again"
        return read_array(self.test_logits, todo=todo, like=like)

    def write_validation_predictions(self, found: Predicted) -> None:
        write_predictions(self.validation_predictions, found)

    def read_validation_predictions(self, like: np.ndarray | None = None) -> Predicted | None:
        """What the student of `best` predicts; None for a trial of version 0.1.0."""
        return read_predictions(self.validation_predictions, like)

    def write_evaluation_predictions(
        self, labels: np.ndarray, predictions: Sequence[np.ndarray]
    ) -> None:
        """predictions: of each evaluation so far, all for the same rows as the labels."""
        write_array(self.evaluation_predictions, _smallest(labels, *predictions))

    def read_evaluation_predictions(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The labels [rows, ...], and what each evaluation predicted [evaluations, rows, ...].

        None for a trial of a version that didn't write it. Raises DamagedFile.
        """
        if not self.evaluation_predictions.exists():
            return None
        todo = "delete it: the pruner then doesn't compare other trials with this one"
        both = _wide(read_array(self.evaluation_predictions, todo=todo))
        return both[0], both[1:]

    def drop_checkpoint(self) -> None:
        shutil.rmtree(self.state.parent, ignore_errors=True)


def known(stored: type[DataclassInstance], found: Mapping[str, object]) -> dict[str, Any]:
    """The values that this version knows. A newer one may have written more of them."""
    names = {one.name for one in fields(stored)}
    return {name: value for name, value in found.items() if name in names}


def _save_tensors(state: SavedState, file: BinaryIO) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:
        # A full disk, of which torch's own error says no more than "unexpected pos".
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def write_predictions(file: Path, found: Predicted) -> None:
    """One array [2, rows, ...]: the labels, then the predictions.

    The labels make the file complete: it can be read where the data set is gone.
    """
    write_array(file, _smallest(found.labels, found.predictions))


def read_predictions(file: Path, like: np.ndarray | None = None) -> Predicted | None:
    """What `write_predictions` wrote; None if there is no such file. like: see `read_array`."""
    if not file.exists():
        return None
    todo = "delete it: what it tells is then left out of the report"
    wide = _wide(read_array(file, todo=todo, like=like))
    return Predicted(wide[0], wide[1])


def _wide(found: np.ndarray) -> np.ndarray:
    """A metric may subtract, and a small integer would overflow."""
    return found.astype(np.int64) if found.dtype.kind in "iu" else found


def _smallest(*arrays: np.ndarray) -> np.ndarray:
    """All in one array, of the smallest type that holds them. Class numbers take a byte."""
    both = np.stack(arrays)
    # False for NaN and infinity too.
    if not (np.abs(both) < LARGEST_CLASS).all() or (both != np.round(both)).any():
        return both
    types = (np.min_scalar_type(int(end)) for end in (both.min(), both.max()))
    return both.astype(np.promote_types(*types))
