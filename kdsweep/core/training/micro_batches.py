"""In how many parts a batch goes through the model: as the settings say, and finer once memory ran out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kdsweep.errors import OutOfMemory

MOST_HALVINGS = 3


@dataclass
class MicroBatches:
    """How batches are cut. The batch itself, and so the mean that a step follows, stays what it is."""

    batch_size: int
    accumulation_steps: int
    halvings: int = 0

    @property
    def rows(self) -> int:
        """The most rows that are in memory at once."""
        return self._rows(self.batch_size)

    @property
    def halved_to(self) -> int | None:
        """The rows of a micro-batch where memory ran out at some time, else None."""
        return self.rows if self.halvings else None

    def cut(self, batch: np.ndarray) -> list[np.ndarray]:
        return np.array_split(batch, self._count(len(batch)))

    def halve(self, step: int, batch_rows: int) -> str:
        """Cut in twice as many from here on, since `step` ran out of memory; the line that says so.

        Raises OutOfMemory where a micro-batch has one row already, and after the third time.
        """
        if self._rows(batch_rows) == 1:
            raise OutOfMemory(
                f"out of memory at step {step} with a single row in a micro-batch; set a smaller max_length or take a smaller model"
            )
        if self.halvings == MOST_HALVINGS:
            raise OutOfMemory(
                f"out of memory at step {step} with micro-batches of {_counted(self._rows(batch_rows))}, halved {MOST_HALVINGS} times already; "
                "set a smaller batch_size or max_length, or more accumulation_steps"
            )
        self.halvings += 1
        return f"out of memory at step {step}: micro-batches of {_counted(self.rows)} from here on, the batch stays {self.batch_size}"

    def _count(self, batch_rows: int) -> int:
        return min(self.accumulation_steps << self.halvings, batch_rows)

    def _rows(self, batch_rows: int) -> int:
        return math.ceil(batch_rows / self._count(batch_rows))


def _counted(rows: int) -> str:
    return f"{rows} row{'s' * (rows != 1)}"
