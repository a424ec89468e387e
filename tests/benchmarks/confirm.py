"""`confirm.seeds: auto` by simulation: false statements, trainings, two other procedures."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from measuring import Row
from simulated_looks import (
    End,
    Scores,
    by_adastop,
    by_always_valid_t,
    ends,
    false_share,
    trainings,
)

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulated_students import Variation, ability_for, simulate

from kdsweep.compare.looks import LookRules, compare_in_looks

# Five seeds for each strategy are what looks are compared to.
FIXED = 5
# 5 points apart, 0.5 points between seeds, 2,000 rows, which make 0.3 points for each strategy.
CLEAR = {
    "2 strategies": (0.95, 0.90),
    "3 strategies, each 5 below the one before": (0.95, 0.90, 0.85),
    "4 strategies, each 5 below the one before": (0.95, 0.90, 0.85, 0.80),
    "3 strategies, the best 5 above all others": (0.95, 0.90, 0.90),
    "4 strategies, the best 5 above all others": (0.95, 0.90, 0.90, 0.90),
}
OF_SEEDS, OF_ROWS = (0.005,), 0.003


def confirm(folder: Path, sweeps: int = 1000) -> list[Row]:
    """Every rate and cost, with its target. folder: unused."""
    rows = []
    for what, world, rules in worlds():
        found = ends(world, rules, sweeps)
        most = 0.05 + 2 * (0.05 * 0.95 / sweeps) ** 0.5
        rows.append(Row(f"false about pairs: {what}", false_share(found), at_most=most))
    for what, share in on_real_rows(max(10, sweeps // 5)):
        most = 0.05 + 2 * (0.05 * 0.95 / max(10, sweeps // 5)) ** 0.5
        rows.append(Row(f"false about pairs, from predictions: {what}", share, at_most=most))
    for what, true in CLEAR.items():
        for favorite in ("s0", None):
            found = ends(Scores(true, OF_SEEDS, OF_ROWS), LookRules(favorite=favorite), sweeps)
            known = "the best is ahead on validation" if favorite else "no favorite"
            rows += _cost(f"{what}, {known}", found, len(true))
    return [*rows, *side_by_side(max(10, sweeps // 2))]


def _cost(what: str, found: list[End], strategies: int) -> Iterator[Row]:
    spent = trainings(found)
    saved = 1 - spent.mean() / (FIXED * strategies)
    yield Row(f"fewer trainings than five each: {what}", saved, at_least=0.35)
    numbers, counts = np.unique(spent, return_counts=True)
    shares = ", ".join(
        f"{number}: {count / len(spent):.0%}" for number, count in zip(numbers, counts, strict=True)
    )
    yield Row(f"trainings in all: {what}", shares)


def worlds(quick: bool = False) -> Iterator[tuple[str, Scores, LookRules]]:
    """Ties, groups one margin apart and near ties; unequal variances; few and many rows."""
    designs = itertools.product((2, 4, 6), (200, 2000, 5000), (0.01, 0.03))
    for number, rows, margin in [(3, 800, 0.01)] if quick else designs:
        half = number // 2
        for spread, of_seeds in {
            "unequal seeds": (0.02, 0.004, 0.001),
            "seeds vary": (0.015,),
            "rows vary": (0.001,),
        }.items():
            of_rows = 0.3 / rows**0.5 if spread == "rows vary" else 0.1 / rows**0.5
            for kind, gap in (("tie", 0.0), ("margin apart", margin), ("near tie", margin / 2)):
                true = (0.9,) * half + (0.9 - gap,) * (number - half)
                about = f"{number} strategies, {rows} rows, {spread}, {kind}, margin {margin:g}"
                rules = LookRules(margin=margin, favorite="s0")
                yield about, Scores(true, of_seeds, of_rows, rows), rules


def on_real_rows(sweeps: int) -> Iterator[tuple[str, float]]:
    """From predictions on each row, whose variance has to be estimated."""
    mixed = (Variation(0.15, 0.5, 0.1), Variation(0.02, 1.0, 0.4), Variation(0.01, 1.0, 0.3, 0.2))
    for number, rows, gap in ((2, 400, 0.0), (4, 800, 0.0), (3, 2000, 0.01)):
        draw = np.random.default_rng(number)
        scores = (0.9,) * (number - 1) + (0.9 - gap,)
        abilities = {
            f"s{i}": (ability_for("accuracy", score, one), one)
            for i, (score, one) in enumerate(zip(scores, itertools.cycle(mixed), strict=False))
        }
        false = 0
        for sweep in range(sweeps):
            labels, predicted = simulate(draw, abilities, 20, rows)
            pairs = compare_in_looks(
                "accuracy", labels, predicted, rules=LookRules(), draws=200, seed=sweep
            ).pairs
            true = dict(zip(abilities, scores, strict=True))
            false += any(
                (pair.difference or 0.0) * (true[pair.a] - true[pair.b]) <= 0
                if pair.state == "better"
                else pair.state == "equivalent" and abs(true[pair.a] - true[pair.b]) >= 0.01 - 1e-9
                for pair in pairs
            )
        yield f"{number} strategies, {rows} rows, {gap:g} apart", false / sweeps


def side_by_side(sweeps: int) -> Iterator[Row]:
    """The same scores for each procedure."""
    rules = LookRules()
    for what, true in {
        "tie": (0.9,) * 4,
        "5 points apart": CLEAR["4 strategies, the best 5 above all others"],
        "1.5 points apart": (0.9, 0.885, 0.885, 0.885),
    }.items():
        for of_rows in (0.0, OF_ROWS):
            world = Scores(true, OF_SEEDS, of_rows)
            about = f"{what}, {'rows vary' if of_rows else 'rows do not vary'}"
            arms: dict[str, list[End]] = {
                "kdsweep": ends(world, rules, sweeps),
                "kdsweep, favorite": ends(world, replace(rules, favorite="s0"), sweeps),
                "AdaStop": [],
                "always-valid t": [],
            }
            draw = np.random.default_rng(0)
            for sweep in range(sweeps):
                scores = world.draw(draw, rules.most)
                arms["AdaStop"].append(by_adastop(world, scores, rules.looks, sweep))
                arms["always-valid t"].append(by_always_valid_t(world, scores, rules.looks))
            for arm, found in arms.items():
                beaten = np.mean([one.beaten == 3 for one in found])
                yield Row(f"{arm}: false statements, {about}", false_share(found))
                yield Row(f"{arm}: mean trainings, {about}", float(trainings(found).mean()))
                yield Row(f"{arm}: sweeps with one strategy left, {about}", float(beaten))
