"""What was predicted: `kdsweep predict` shows it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from kdsweep.config.loading import Plain
from kdsweep.formatting import count, duration
from kdsweep.serving import Answers
from kdsweep.trial_id import TrialId

MOST_LABELS_SHOWN = 8


@dataclass
class Tally:
    """What the answers are, counted while they are written.

    answered: rows that have a text; truncated: those of them that had more tokens than the student
    reads. labels: how often each is predicted. total, lowest, highest: of a regression's numbers.
    """

    answered: int = 0
    truncated: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    total: float = 0.0
    lowest: float = float("inf")
    highest: float = float("-inf")

    def add(self, answers: Answers) -> None:
        self.answered += len(answers.labels)
        self.truncated += answers.truncated
        if answers.probabilities is not None:
            self.labels.update(answers.labels)
            return
        self.total += float(answers.scores.sum())
        self.lowest = min(self.lowest, float(answers.scores.min()))
        self.highest = max(self.highest, float(answers.scores.max()))

    def to_json(self) -> dict[str, Plain]:
        if self.labels or not self.answered:
            return {"labels": dict(self.labels.most_common())}
        mean = self.total / self.answered
        return {"mean": mean, "lowest": self.lowest, "highest": self.highest}

    @property
    def words(self) -> str:
        if self.labels:
            shown = self.labels.most_common(MOST_LABELS_SHOWN)
            more = len(self.labels) - len(shown)
            listed = ", ".join(f"{label or '(none)'} {rows:,}" for label, rows in shown)
            others = f" and {more:,} more" if more else ""
            return f"predicted: {listed}{others}"
        mean = self.total / self.answered
        return f"predicted: mean {mean:.4g}, from {self.lowest:.4g} to {self.highest:.4g}"


@dataclass(frozen=True)
class Predictions:
    """What was predicted, and where it is. notes: what a user should know about the file."""

    sweep: str
    trial: TrialId
    file: Path
    out: Path
    columns: tuple[str, ...]
    rows: int
    tally: Tally
    notes: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Plain]:
        """As `kdsweep predict --json` prints it."""
        return {
            "sweep": self.sweep,
            "trial": self.trial.name,
            "strategy": self.trial.strategy,
            "file": str(self.file),
            "out": str(self.out),
            "columns": list(self.columns),
            "rows": self.rows,
            "predicted": self.tally.answered,
            "without_text": self.rows - self.tally.answered,
            "truncated": self.tally.truncated,
            **self.tally.to_json(),
            "notes": list(self.notes),
            "seconds": self.seconds,
        }

    def as_lines(self) -> list[str]:
        tally = self.tally
        lines = [
            f"{self.trial.name} of {self.sweep}: {tally.answered:,} of {count(self.rows, 'row')} "
            f"predicted in {duration(self.seconds)}"
        ]
        lines += self.notes
        if without := self.rows - tally.answered:
            lines.append(f"{count(without, 'row')} without text: the new columns are empty there")
        if tally.truncated:
            lines.append(
                f"{count(tally.truncated, 'row')} with more tokens than the student reads: cut as "
                "in training"
            )
        return [*lines, tally.words, f"written to {self.out}"]
