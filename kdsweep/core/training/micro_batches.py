"""How a batch is cut for the model: as the settings say, and finer after memory ran out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kdsweep.errors import OutOfMemory

MOST_HALVINGS = 3


@dataclass
class MicroBatches:
    """How batches are cut. A batch stays the same, and so does the mean of its gradients."""

    batch_size: int
    accumulation_steps: int
    halvings: int = 0

    @property
    def rows(self) -> int:
        """The most rows that go through the model at once."""
        return self._rows(self.batch_size)

    @property
    def halved_to(self) -> int | None:
        """The rows of a micro-batch if memory ran out before, else None."""
        return self.rows if self.halvings else None

    def cut(self, batch: np.ndarray) -> list[np.ndarray]:
        return np.array_split(batch, self._count(len(batch)))

    def halve(self, step: int, batch_rows: int) -> str:
        """Cut into twice as many parts from `step` on, and return the line that reports it.

        Raises OutOfMemory if a micro-batch has a single row already, and after the third halving.
        """
        if self._rows(batch_rows) == 1:
            raise OutOfMemory(
                f"out of memory at step {step} with a single row in a micro-batch; "
                "set a smaller max_length or use a smaller model"
            )
        if self.halvings == MOST_HALVINGS:
            raise OutOfMemory(
                f"out of memory at step {step} with micro-batches of "
                f"{_counted(self._rows(batch_rows))}, halved {MOST_HALVINGS} times already; "
                "set a smaller batch_size or max_length, or more accumulation_steps"
            )
        self.halvings += 1
        return (
            f"out of memory at step {step}: micro-batches of {_counted(self.rows)} from here on, "
            f"the batch stays {self.batch_size}"
        )

    def _count(self, batch_rows: int) -> int:
        return min(self.accumulation_steps << self.halvings, batch_rows)

    def _rows(self, batch_rows: int) -> int:
        return math.ceil(batch_rows / self._count(batch_rows))


def _counted(rows: int) -> str:
    return f"{rows} row{'s' * (rows != 1)}"
