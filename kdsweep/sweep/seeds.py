"""Seeds that follow from the sweep's own."""

from __future__ import annotations

from kdsweep.core.files import fingerprint


def derived_seed(purpose: str, seed: int, number: int) -> int:
    """The seed of the `number`-th trial, sampler or confirm run, from the sweep's `seed`."""
    return int(fingerprint(purpose, seed, number), 16) % 2**31
