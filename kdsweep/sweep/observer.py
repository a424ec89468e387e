"""How the driver tells what is going on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdsweep.sweep.progress import Progress


class Observer:
    """What is going on, for whoever wants to show it. Does nothing itself."""

    def say(self, line: str) -> None:
        """Something happened that is worth a line."""

    def step(self, name: str, step: int, total_steps: int) -> None:
        """A running trial (or the teacher) has done so many optimizer steps."""

    def over(self, name: str) -> None:
        """It isn't running any more."""

    def progress(
        self,
        strategies: dict[str, Progress],
        trials: dict[str, int],
        confirmed: tuple[int, int],
        seconds: float,
    ) -> None:
        """A trial began or ended. `trials`: how many each strategy gets; `confirmed`: how many runs of confirm are done, and how many there
        will be; `seconds`: spent by the sweep so far."""
