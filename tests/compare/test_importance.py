"""Which parameters are shown to matter, of trials whose values are known."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from pydantic import JsonValue
from questions import false_effects, normal, random_sweep

from kdsweep.compare.importance import DrawnTrial, parameters_that_matter

Params = dict[str, JsonValue]


def drawn(
    count: int, value: Callable[[Params, np.random.Generator], float], seed: int = 0
) -> list[DrawnTrial]:
    """Trials with three parameters, one of which only those with the alpha `a` have."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        params: Params = {
            "learning_rate": float(10 ** draw.uniform(-5, -3)),
            "alpha.any_of": str(draw.choice(["a", "b", "c"])),
        }
        if params["alpha.any_of"] == "a":
            params["alpha"] = float(draw.uniform())
        found.append(DrawnTrial(params, value(params, draw)))
    return found


def rate(params: Params) -> float:
    found = params["learning_rate"]
    assert isinstance(found, float)
    return float(np.log10(found))


@pytest.mark.parametrize(
    ("value", "matters"),
    [
        (lambda params, draw: -((rate(params) + 4) ** 2) + 0.1 * draw.normal(), "learning_rate"),
        (
            lambda params, draw: (params["alpha.any_of"] == "b") + 0.3 * draw.normal(),
            "alpha.any_of",
        ),
        (lambda params, draw: params.get("alpha", 0.5) + 0.1 * draw.normal(), "alpha"),
    ],
    ids=["a peak", "a group", "a condition"],
)
def test_a_parameter_that_decides_is_shown_to_matter(
    value: Callable[[Params, np.random.Generator], float], matters: str
) -> None:
    found = parameters_that_matter({"mine": drawn(60, value)})["mine"]
    assert found == {name: name == matters for name in ("learning_rate", "alpha.any_of", "alpha")}


def test_the_level_is_shared_by_all_parameters_of_all_strategies() -> None:
    """Nine trials in order: of 362,880 arrangements, few fit a parabola of ranks as well."""
    trials = [DrawnTrial({"rate": float(i)}, float(i)) for i in range(9)]
    noise = drawn(40, lambda params, draw: draw.normal())
    assert parameters_that_matter({"one": trials})["one"] == {"rate": True}
    among = parameters_that_matter({"one": trials} | {f"s{i}": noise for i in range(300)})
    assert among["one"] == {"rate": False}


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [DrawnTrial({"rate": float(i)}, float(i)) for i in range(7)],
        [DrawnTrial({"rate": float(i)}, 0.5) for i in range(20)],
        [DrawnTrial({"rate": 0.1}, float(i)) for i in range(20)],
        [DrawnTrial({"name": f"n{i}"}, float(i)) for i in range(20)],
    ],
    ids=["none", "few", "equal values", "one rate", "all different"],
)
def test_what_trials_can_not_tell_is_left_out(trials: Sequence[DrawnTrial]) -> None:
    assert parameters_that_matter({"mine": trials}) == {}


def test_few_sweeps_of_noise_say_that_a_parameter_matters() -> None:
    draw = np.random.default_rng(7)
    strategies = ("finetune", "combined", "distill")
    made = [random_sweep(draw, strategies, 12, normal, shared=True) for _ in range(60)]
    # 5%, and two standard errors of 60 sweeps.
    assert false_effects(made) <= 10.6


def test_a_hundred_trials_of_four_strategies_take_less_than_two_seconds() -> None:
    searches = {
        name: drawn(100, lambda params, draw: -abs(rate(params) + 4) + draw.normal(), seed)
        for seed, name in enumerate("abcd")
    }
    began = time.process_time()
    parameters_that_matter(searches)
    assert time.process_time() - began < 2
