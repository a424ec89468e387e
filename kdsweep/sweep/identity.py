"""Whether two sweeps are the same, and where they differ."""

from __future__ import annotations

from kdsweep.errors import first_few


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
