"""Seeds that follow from the sweep's own."""

from __future__ import annotations

from collections.abc import Sequence

from kdsweep.core.files import fingerprint


def derived_seed(purpose: str, seed: int, number: int, earlier: Sequence[str] = ()) -> int:
    """The seed of the `number`-th trial, sampler or confirm run, from the sweep's `seed`.

    earlier: the sweeps that this one starts from. They may have the same seed, and to draw or train
    the same again would tell nothing new.
    """
    return int(fingerprint(purpose, seed, number, *earlier), 16) % 2**31
