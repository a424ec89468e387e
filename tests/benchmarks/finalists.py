"""How much of the winner's curse finalists take away, by simulation, at equal cost.

A setting has a true quality. A search sees it with the noise of one seed and of the validation
rows, and chooses the best of what it saw. The loss is what the chosen setting is truly worse than
the best setting that was tried. Finalists are judged with fresh seeds; the same trainings could
have been more trials of the search. Everything is in points of accuracy.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measuring import Row

from kdsweep.compare.finalists import Round, rounds

SWEEPS = 1500
ACCURACY = 0.85
# Of the variance between rows: what one setting's students share, and what each student has alone.
# The rest is the same for all settings, and so can't change who is chosen.
OF_A_SETTING, OF_A_STUDENT = 0.1, 0.2
TRIALS = (6, 12, 20)
SETTINGS = (0.3, 1.0, 3.0)
SEEDS = (0.3, 1.0, 2.0)
ROWS = (200, 500, 2000)
BOUNDED, OPEN = "settings with a plateau", "settings without an end"
# `rounds` for 2, 3, 4 and 6, and others for 3.
SCHEMES: dict[str, Sequence[Round]] = {
    "2 finalists": rounds(2),
    "3 finalists": rounds(3),
    "4 finalists": rounds(4),
    "6 finalists": rounds(6),
    "3 with 1 seed": [Round(3, 1)],
    "3 with 2 seeds": [Round(3, 2)],
    "3 with 1 seed, 2 with 2 more": [Round(3, 1), Round(2, 2)],
    "3 with 2 seeds, 2 with 2 more": [Round(3, 2), Round(2, 2)],
}


@dataclass(frozen=True)
class Kind:
    """Sweeps of one kind. settings, seeds: standard deviations in points. rows: of validation."""

    shape: str
    trials: int
    settings: float
    seeds: float
    rows: int


def finalists(folder: Path) -> list[Row]:
    """The loss without finalists, and the share of it that each scheme takes away."""
    draw = np.random.default_rng(0)
    kinds = [
        Kind(*one) for one in itertools.product((BOUNDED, OPEN), TRIALS, SETTINGS, SEEDS, ROWS)
    ]
    losses = {kind: _losses(draw, kind) for kind in kinds}
    found: list[Row] = []
    for shape in (BOUNDED, OPEN):
        chosen = [of for kind, of in losses.items() if kind.shape == shape]
        alone = float(np.mean([one["search"] for one in chosen]))
        found.append(Row(f"{shape}: loss without finalists", alone, "points"))
        for name, scheme in SCHEMES.items():
            cost = sum(one.trials * one.seeds for one in scheme)
            gone, instead = (
                100 * (1 - float(np.mean([one[what] for one in chosen])) / alone)
                for what in (name, f"{cost} more trials")
            )
            what = f"{shape}: {name} ({cost} trainings; as more trials {instead:.0f}%)"
            found.append(Row(what, gone, "% of the loss"))
    return found


def _losses(draw: np.random.Generator, kind: Kind) -> dict[str, float]:
    """The mean loss over sweeps: of the search alone, with each scheme, and with more trials."""
    costs = {sum(one.trials * one.seeds for one in scheme) for scheme in SCHEMES.values()}
    shape = (SWEEPS, kind.trials + max(costs))
    if kind.shape == BOUNDED:
        quality = -draw.exponential(kind.settings, shape)
    else:
        quality = draw.normal(0, kind.settings, shape)
    of_rows = 100 * np.sqrt(ACCURACY * (1 - ACCURACY) / kind.rows)
    seen = quality + draw.normal(0, of_rows * np.sqrt(OF_A_SETTING), shape)
    noise = float(np.hypot(kind.seeds, of_rows * np.sqrt(OF_A_STUDENT)))
    searched = seen + draw.normal(0, noise, shape)
    most = max(sum(one.seeds for one in scheme) for scheme in SCHEMES.values())
    tried = slice(0, kind.trials)
    again = seen[:, tried, None] + draw.normal(0, noise, (SWEEPS, kind.trials, most))
    best = quality[:, tried].max(axis=1)

    def loss(chosen: np.ndarray) -> float:
        return float((best - quality[np.arange(SWEEPS), chosen]).mean())

    found = {"search": loss(searched[:, tried].argmax(axis=1))}
    for name, scheme in SCHEMES.items():
        found[name] = loss(_chosen(searched[:, tried], again, scheme))
    for cost in costs:
        found[f"{cost} more trials"] = loss(searched[:, : kind.trials + cost].argmax(axis=1))
    return found


def _chosen(searched: np.ndarray, again: np.ndarray, scheme: Sequence[Round]) -> np.ndarray:
    """The setting that each sweep chooses. searched: [sweeps, trials]. again: [..., seeds]."""
    order = np.argsort(-searched, axis=1)
    seeds = 0
    for one in scheme:
        order = order[:, : one.trials]
        seeds += one.seeds
        reached = np.take_along_axis(again[:, :, :seeds].mean(axis=2), order, axis=1)
        order = np.take_along_axis(order, np.argsort(-reached, axis=1, kind="stable"), axis=1)
    return order[:, 0]
