"""Families of statements: at most 5% of sweeps contain a false one, in each family."""

from __future__ import annotations

from dataclasses import dataclass

FALSE_CLAIMS = 0.05


@dataclass(frozen=True)
class Family:
    """Statements that share the 5% equally (Bonferroni).

    share: of its part, what a statement may use at one of several looks.
    """

    statements: int
    share: float = 1.0

    @property
    def level(self) -> float:
        """The chance of a false statement that each one may have."""
        return self.share * FALSE_CLAIMS / max(1, self.statements)

    @property
    def tail(self) -> float:
        """The chance on each side of an interval."""
        return self.level / 2

    def corrected(self, p: float) -> float:
        """Below 5% exactly where `p` is below the level."""
        return min(1.0, p * max(1, self.statements) / self.share)
