"""The versions of what trains: kept with each trial, because a sweep outlives an upgrade."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Self

import kdsweep


@dataclass(frozen=True)
class Versions:
    """None where it isn't known, as for a trial of version 0.1.0."""

    kdsweep: str | None = None
    torch: str | None = None
    transformers: str | None = None

    @classmethod
    def now(cls) -> Self:
        """Those of this process."""
        return cls(kdsweep.__version__, version("torch"), version("transformers"))


# In the order in which they are named.
PACKAGES = ("kdsweep", "torch", "transformers")


def of_package(package: str, versions: Iterable[Versions]) -> tuple[str, ...]:
    """The known versions of one package, in their order; a version that stays is named once."""
    found: list[str] = []
    for one in versions:
        known: str | None = getattr(one, package)
        if known is not None and found[-1:] != [known]:
            found.append(known)
    return tuple(found)
