"""What the driver reports while a sweep runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdsweep.sweep.progress import SweepProgress


class Observer:
    """Receives what happens in a sweep. This one ignores it; a subclass shows it."""

    def say(self, line: str) -> None:
        """Something happened that is worth a line."""

    def step(self, name: str, step: int, total_steps: int) -> None:
        """A running trial (or the teacher) has done `step` of its optimizer steps."""

    def transfer(self, what: str, done: int, size: int) -> None:
        """A download or an upload has `done` of its bytes. It may be told from any thread.

        what: what is done, as the start of a line: `fetching ...`, `uploading ...`.
        """

    def rows(self, what: str, done: int, total: int) -> None:
        """`done` of a file's rows are done. what: which file, as the start of a line."""

    def over(self, name: str) -> None:
        """This trial (or the teacher, a transfer, a file) doesn't run any more."""

    def progress(self, sweep: SweepProgress) -> None:
        """A trial started or ended. sweep: how far it is now."""
