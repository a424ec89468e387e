"""The versions of what trains: kept with each trial, because a sweep outlives an upgrade."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from importlib.metadata import version
from typing import Self

import kdsweep


@dataclass(frozen=True)
class Versions:
    """None where it isn't known, as for a trial of version 0.1.0. Each field is a package."""

    kdsweep: str | None = None
    torch: str | None = None
    transformers: str | None = None
    tokenizers: str | None = None
    numpy: str | None = None

    @classmethod
    def now(cls) -> Self:
        """Those of this process."""
        others = {name: version(name) for name in PACKAGES if name != "kdsweep"}
        return cls(kdsweep=kdsweep.__version__, **others)


# What decides a trial's numbers: tokenizers its tokens, numpy the order of its rows. They are
# named in this order.
PACKAGES = tuple(one.name for one in fields(Versions))


def of_package(package: str, versions: Iterable[Versions]) -> tuple[str, ...]:
    """The known versions of one package, in their order; a version that stays is named once."""
    found: list[str] = []
    for one in versions:
        known: str | None = getattr(one, package)
        if known is not None and found[-1:] != [known]:
            found.append(known)
    return tuple(found)
