"""What installed packages add to kdsweep: metrics and divergences, through entry points."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from kdsweep.errors import KdsweepError, first_line

METRICS_GROUP = "kdsweep.metrics"
DIVERGENCES_GROUP = "kdsweep.divergences"
Added = TypeVar("Added")


@cache
def _entry_points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def forget() -> None:
    """Search again at the next question: packages were installed meanwhile."""
    _entry_points.cache_clear()


def plugin_names(group: str) -> list[str]:
    """The names in the group, sorted."""
    return sorted(_entry_points(group))


def plugin_package(group: str, name: str) -> tuple[str, str] | None:
    """The name and version of the package that adds `name`; None if no package does."""
    point = _entry_points(group).get(name)
    if point is None or point.dist is None:
        return None
    return point.dist.name, point.dist.version


def load_plugin(group: str, name: str, expected: type[Added]) -> Added:
    """What the entry point names, an instance of `expected`.

    Raises KeyError if there is no such entry point, and KdsweepError if it can't be loaded.
    """
    point = _entry_points(group)[name]
    package, version = plugin_package(group, name) or ("an unnamed package", "")
    try:
        found = point.load()
    except Exception as error:
        # The package's own code runs here and may raise anything.
        raise KdsweepError(
            f"{group}: {name} of {package} {version} can't be loaded: {first_line(error)}"
        ) from error
    if not isinstance(found, expected) or getattr(found, "name", None) != name:
        raise KdsweepError(
            f"{group}: {name} of {package} {version} must be a {expected.__name__} with that name, "
            f"not {found!r}"
        )
    return found
