"""Whether two sweeps are the same, and where they differ."""

from __future__ import annotations

from typing import cast

from kdsweep.config import Plan
from kdsweep.config.loading import Plain
from kdsweep.config.older_spaces import as_trained
from kdsweep.errors import SettingsConflict, first_few
from kdsweep.sweep.folders import SweepFolder

MOST_DIFFERENCES = 5


def fixed(identity: dict[str, Plain]) -> dict[str, Plain]:
    """What a sweep can't change: its identity without `strategies`, which may change midway."""
    trained = as_trained(identity)
    space = cast(dict[str, Plain], trained["space"])
    kept = {key: value for key, value in space.items() if key != "strategies"}
    return trained | {"space": kept}


def is_same_sweep(plan: Plan, identity: dict[str, Plain]) -> bool:
    """Whether the plan runs the sweep with this identity, perhaps with other strategies."""
    return fixed(identity) == fixed(plan.identity)


def check_same_sweep(plan: Plan, folder: SweepFolder) -> None:
    """Raise SettingsConflict if the folder holds a sweep with another identity."""
    if not folder.exists():
        return
    changes = differences(fixed(folder.read_facts().identity), fixed(plan.identity))
    if changes:
        more = len(changes) - MOST_DIFFERENCES
        shown = "; ".join(changes[:MOST_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
        raise SettingsConflict(
            f"sweep {folder.name!r} was started with other settings ({shown}); --fresh starts a "
            "new one, --name gives this one its own name"
        )


def differences(before: object, after: object, path: str = "") -> list[str]:
    """Where two plain values differ, a line each: `space.training.epochs: 2 -> 3`."""
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            line
            for i, (old, new) in enumerate(zip(before, after, strict=True))
            for line in differences(old, new, f"{path}.{i}")
        ]
    if not isinstance(before, dict) or not isinstance(after, dict):
        return [] if before == after else [f"{path}: {_shown(before)} -> {_shown(after)}"]
    found: list[str] = []
    for key in [*before, *(key for key in after if key not in before)]:
        inner = f"{path}.{key}" if path else str(key)
        found += differences(before.get(key), after.get(key), inner)
    return found


def _shown(value: object) -> str:
    """The value; of a long list, such as the names of 77 labels, the first few."""
    if not isinstance(value, list):
        return str(value)
    return f"[{first_few(value)}]"
