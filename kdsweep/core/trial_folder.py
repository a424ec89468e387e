"""A trial's folder: what is in it, and how a trial is saved so that it goes on as if nothing had happened.

settings.json     the trial's settings, written first
metrics.jsonl     one evaluation a line
checkpoint/       state.pt: everything that the next step depends on; gone when the trial is complete
test_logits.npy   what that student answers on the test split; there only where the settings ask for it
student/          the best student, a Hugging Face folder; there only when the trial is complete
result.json       written last: a trial that has it is over
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.core.files import publishing, read_json, write_array, write_atomically, write_json
from kdsweep.core.models.loading import save_model
from kdsweep.core.settings import TrialSettings
from kdsweep.errors import SettingsConflict


@dataclass(frozen=True)
class Evaluation:
    """What was measured after `step` optimizer steps.

    `metrics` has `train/...` (means since the evaluation before) and `validation/...`; `seconds` is the trial's own time so far,
    over all its attempts; `timestamp` is in milliseconds since 1970.
    """

    step: int
    epoch: float
    metrics: dict[str, float]
    seconds: float
    timestamp: int


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended: `complete`, `diverged`, or as whoever iterates says (`pruned`, `failed`); `reason` where it is none of one's wishes.

    `best` is the evaluation whose weights are in `student/`; `student` has `parameters`, `size_mb`, `latency_ms` and `latency_p95_ms`.
    `test` is what the same weights reach on the test split, where the settings asked for it.
    `micro_batch` is the rows of a micro-batch where it had to be halved for want of memory, else None.
    """

    state: str
    steps: int
    seconds: float
    best: Evaluation | None = None
    student: dict[str, float] | None = None
    reason: str | None = None
    micro_batch: int | None = None
    test: dict[str, float] | None = None


class TrialFolder:
    """Every path of one trial."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = root / "settings.json"
        self.metrics = root / "metrics.jsonl"
        self.state = root / "checkpoint" / "state.pt"
        self.student = root / "student"
        self.result = root / "result.json"
        self.test_logits = root / "test_logits.npy"

    def claim(self, settings: TrialSettings) -> None:
        """Make the folder this trial's. Raises SettingsConflict where it is another's."""
        wanted = settings.model_dump(mode="json")
        if not self.settings.exists():
            write_json(self.settings, wanted)
        elif read_json(self.settings) != wanted:
            raise SettingsConflict(
                f"{self.root} holds a trial with other settings; give each trial a folder of its own"
            )

    def read_result(self) -> TrialResult | None:
        if not self.result.exists():
            return None
        found = read_json(self.result)
        if found["best"] is not None:
            found["best"] = Evaluation(**found["best"])
        return TrialResult(**found)

    def write_result(self, result: TrialResult) -> None:
        write_json(self.result, asdict(result))
        self.drop_checkpoint()

    def read_evaluations(self) -> list[Evaluation]:
        if not self.metrics.exists():
            return []
        return [
            Evaluation(**json.loads(line))
            for line in self.metrics.read_text(encoding="utf-8").splitlines()
        ]

    def write_evaluations(self, evaluations: list[Evaluation]) -> None:
        lines = "".join(json.dumps(asdict(evaluation)) + "\n" for evaluation in evaluations)
        write_atomically(self.metrics, lambda file: file.write(lines.encode()))

    def save_state(self, state: dict[str, Any]) -> None:
        write_atomically(self.state, lambda file: _save_tensors(state, file))

    def load_state(self) -> dict[str, Any] | None:
        if not self.state.exists():
            return None
        state: dict[str, Any] = torch.load(self.state, map_location="cpu", weights_only=True)
        return state

    def save_student(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: str
    ) -> None:
        with publishing(self.student) as beside:
            save_model(model, tokenizer, beside)
            (beside / "README.md").write_text(card, encoding="utf-8")

    def write_test_logits(self, logits: np.ndarray) -> None:
        write_array(self.test_logits, logits)

    def read_test_logits(self) -> np.ndarray:
        """What the student answered on the test split, fp32 [rows, classes]."""
        found: np.ndarray = np.load(self.test_logits)
        return found

    def drop_checkpoint(self) -> None:
        shutil.rmtree(self.state.parent, ignore_errors=True)


def _save_tensors(state: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:
        if isinstance(
            error.__context__, OSError
        ):  # a full disk: torch's own error says no more than "unexpected pos"
            raise error.__context__ from None
        raise
