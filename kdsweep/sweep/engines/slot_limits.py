"""Which deaths of workers were for lack of memory, and how many slots a machine has memory for."""

from __future__ import annotations

from collections import Counter


class SlotLimits:
    """What is known of each machine, under Ray's name for it.

    A cgroup only counts how many of its processes the kernel has killed, not which ones. So a
    worker that died was killed for lack of memory if more were killed since its start than are
    accounted for.
    """

    def __init__(self) -> None:
        self._most: dict[str, int] = {}
        self._explained: Counter[str] = Counter()

    def unexplained(self, node: str, kills: int) -> int:
        """How many kills there no worker is known for. kills: how many there were in all."""
        return kills - self._explained[node]

    def explain(self, node: str) -> None:
        """One of the kills there was that of a worker."""
        self._explained[node] += 1

    def lower(self, node: str, slots: int) -> bool:
        """Have at most so many slots there from now on, and at least one; whether that is fewer
        than before."""
        slots = max(1, slots)
        if slots >= self._most.get(node, slots + 1):
            return False
        self._most[node] = slots
        return True

    def most(self, node: str, fit: int) -> int:
        """How many slots may be there. fit: for how many there are cores and GPUs."""
        return min(fit, self._most.get(node, fit))

    def full(self, slots: Counter[str]) -> list[str]:
        """Where there may be no further slot. slots: how many there are on each machine."""
        return [node for node, most in self._most.items() if slots[node] >= most]
