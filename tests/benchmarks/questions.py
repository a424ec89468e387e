"""How often the answers to a sweep's questions claim what isn't so.

Sweeps are made up in which nothing has an effect, and kdsweep answers its questions about them. A
sweep counts if any of its answers claims a difference. With effects, each answer's interval is
checked by itself.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from measuring import Row
from pydantic import JsonValue

from kdsweep.compare.contrasts import cost_of_a_factor_of_2, difference
from kdsweep.compare.families import FALSE_CLAIMS
from kdsweep.compare.findings import Question
from kdsweep.compare.importance import DrawnTrial, parameters_that_matter
from kdsweep.compare.questions import CompleteTrial, answer_from_trials
from kdsweep.config.sweep import AshaPruner, SweepConfig, TpeSampler
from kdsweep.sweep.samplers_and_pruners import make_sampler

KINDS = ("rising", "falling", "constant")
LOWEST, HIGHEST = 1e-5, 1e-4
# As in the shipped spaces; then strategies of a user's own that try everything.
STRATEGIES = ("finetune", "combined", "distill", "distill_then_finetune", "mine", "mine too")
EVALUATIONS = 6
# Strategies and complete trials of each.
SIZES = ((2, 8), (2, 60), (4, 20), (4, 60), (6, 12), (6, 60))
Noise = Callable[[np.random.Generator, CompleteTrial], float]


def normal(draw: np.random.Generator, trial: CompleteTrial) -> float:
    return draw.normal()


def long_tails(draw: np.random.Generator, trial: CompleteTrial) -> float:
    """Student's t with 3 degrees of freedom."""
    return draw.standard_t(3)


def skewed(draw: np.random.Generator, trial: CompleteTrial) -> float:
    """As of accuracies, some of which are much lower."""
    return -draw.exponential()


def unequal(draw: np.random.Generator, trial: CompleteTrial) -> float:
    """Four times as much in one kind of alpha and temperature, and at one end of the rates."""
    size = {"rising": 1.0, "falling": 2.0}.get(trial.alpha, 4.0)
    size *= 1.0 if trial.temperature == "constant" else 2.0
    return draw.normal() * size * (trial.rate / LOWEST) ** 0.6


NOISES: dict[str, Noise] = {
    "normal": normal,
    "long tails": long_tails,
    "skewed": skewed,
    "unequal variances": unequal,
}


# --- made-up sweeps ---


def settings(draw: np.random.Generator, strategy: str, number: int) -> CompleteTrial:
    """A trial without a value, as a random sampler would choose it."""
    alpha = {
        "finetune": "labels alone",
        "distill": "constant",
        "distill_then_finetune": "rising",
    }.get(strategy, KINDS[draw.integers(3)])
    temperature = "constant"
    if strategy not in ("finetune", "distill", "distill_then_finetune"):
        temperature = ("falling", "constant")[draw.integers(2)]
    rate = LOWEST * (HIGHEST / LOWEST) ** draw.random()
    return CompleteTrial(strategy, number, 0.0, alpha, temperature, rate)


def random_sweep(
    draw: np.random.Generator, strategies: Sequence[str], trials: int, noise: Noise, shared: bool
) -> list[CompleteTrial]:
    """shared: half of the variance belongs to a trial's number, and the strategies that try
    everything draw the same settings: so it is with kdsweep's seeds."""
    found = []
    for number in range(trials):
        of_number = noise(draw, settings(draw, "finetune", number)) if shared else 0.0
        seed = int(draw.integers(2**32))
        for strategy in strategies:
            drawing = np.random.default_rng(seed) if shared else draw
            trial = settings(drawing, strategy, number)
            value = noise(draw, trial)
            if shared:
                value = math.sqrt(0.5) * (value + of_number)
            found.append(trial._replace(value=0.8 + 0.01 * value))
    return found


def searched_sweep(
    seed: int, strategies: Sequence[str], trials: int, pruned: bool
) -> list[CompleteTrial]:
    """A search by kdsweep's own sampler (TPE), whose values are noise; the complete trials."""
    draw = np.random.default_rng(seed)
    config = SweepConfig(sampler=TpeSampler(seed=seed))
    found = []
    for strategy in strategies:
        usual = AshaPruner()
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if pruned:
            pruner = optuna.pruners.SuccessiveHalvingPruner(
                min_resource=usual.min_evaluations, reduction_factor=usual.reduction_factor
            )
        study = optuna.create_study(direction="maximize", pruner=pruner)
        for number in range(trials):
            study.sampler = make_sampler(config, number)
            asked = study.ask()
            trial = _settled(asked, strategy, number, draw)
            value = _trained(asked, draw)
            if value is None:
                study.tell(asked, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(asked, value)
                found.append(trial._replace(value=value))
    return found


def _settled(
    asked: optuna.Trial, strategy: str, number: int, draw: np.random.Generator
) -> CompleteTrial:
    trial = settings(draw, strategy, number)
    rate = asked.suggest_float("learning_rate", LOWEST, HIGHEST, log=True)
    if strategy not in ("finetune", "distill", "distill_then_finetune"):
        alpha = asked.suggest_categorical("alpha", KINDS)
        temperature = asked.suggest_categorical("temperature", ("falling", "constant"))
        trial = trial._replace(alpha=alpha, temperature=temperature)
    return trial._replace(rate=rate)


def _trained(asked: optuna.Trial, draw: np.random.Generator) -> float | None:
    """The best of some evaluations that are partly the trial's and partly chance; None: pruned."""
    own, best = draw.normal(), -math.inf
    for evaluation in range(1, EVALUATIONS + 1):
        value = 0.8 + 0.01 * (own + 0.5 * draw.normal())
        best = max(best, value)
        asked.report(value, evaluation)
        if evaluation < EVALUATIONS and asked.should_prune():
            return None
    return best


# --- what the answers claim ---


def claims(answers: Sequence[Question]) -> int:
    """How many answers claim that something has an effect."""
    ranges = [one.ci95 for one in answers if one.ci95 is not None]
    return sum(low > 0 or high < 0 for low, high in ranges)


@dataclass
class Counted:
    """sweeps: with a false claim. intervals: of all questions, and how many of them there were."""

    sweeps: int = 0
    of: int = 0
    stated: int = 0

    def add(self, answers: Sequence[Question]) -> None:
        self.of += 1
        self.sweeps += claims(answers) > 0
        self.stated += sum(one.ci95 is not None for one in answers)

    @property
    def share(self) -> float:
        return 100 * self.sweeps / self.of


def false_claims(noise: Noise, *, shared: bool, sweeps: int, seed: int = 0) -> dict[str, Counted]:
    """By the size of the sweep."""
    draw = np.random.default_rng(seed)
    found = {}
    for strategies, trials in SIZES:
        counted = found[f"{strategies} x {trials}"] = Counted()
        for _ in range(sweeps):
            sweep = random_sweep(draw, STRATEGIES[:strategies], trials, noise, shared)
            counted.add(answer_from_trials(sweep, STRATEGIES[:strategies]))
    return found


def false_claims_of_a_search(
    *, strategies: int, trials: int, pruned: bool, sweeps: int, seed: int = 0
) -> Counted:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    counted = Counted()
    for number in range(sweeps):
        sweep = searched_sweep(seed + number, STRATEGIES[:strategies], trials, pruned)
        counted.add(answer_from_trials(sweep, STRATEGIES[:strategies]))
    return counted


# --- what the intervals cover ---


def false_effects(sweeps: Iterable[Sequence[CompleteTrial]]) -> float:
    """The share of sweeps, in percent, in which a parameter is falsely said to matter."""
    false = [any(any(one.values()) for one in _effects(trials).values()) for trials in sweeps]
    return 100 * float(np.mean(false))


def _effects(trials: Sequence[CompleteTrial]) -> dict[str, dict[str, bool]]:
    drawn: dict[str, list[DrawnTrial]] = {}
    for one in trials:
        params: dict[str, JsonValue] = {"learning_rate": one.rate}
        if one.strategy not in ("finetune", "distill", "distill_then_finetune"):
            params |= {"alpha": one.alpha, "temperature": one.temperature}
        drawn.setdefault(one.strategy, []).append(DrawnTrial(params, one.value))
    return parameters_that_matter(drawn)


def shown_effects(effect: float, trials: int, sweeps: int) -> float:
    """The share of sweeps, in percent, that show that the learning rate matters.

    effect: what a factor of 2 away from the best rate costs, in units of the noise.
    """
    draw, shown = np.random.default_rng(4), 0
    for _ in range(sweeps):
        found = [settings(draw, "finetune", number) for number in range(trials)]
        octaves = np.log2([one.rate / LOWEST for one in found])
        values = -effect * (octaves - octaves.max() / 2) ** 2 + draw.normal(size=trials)
        found = [one._replace(value=value) for one, value in zip(found, values, strict=True)]
        shown += _effects(found)["finetune"]["learning_rate"]
    return 100 * shown / sweeps


def covered_by_the_best_alpha(
    noise: Noise, effect: float, sizes: Sequence[int], sweeps: int
) -> float:
    """The share of intervals of the best kind against its rival that hold their true difference."""
    draw, hits = np.random.default_rng(1), 0
    means = dict(zip(KINDS, (effect, 0.0, 0.0), strict=True))
    for _ in range(sweeps):
        trials = []
        for kind, size in zip(KINDS, sizes, strict=True):
            for _ in range(size):
                trial = CompleteTrial("mine", len(trials), 0.0, kind, "constant", LOWEST)
                value = 0.8 + 0.01 * (means[kind] + noise(draw, trial))
                trials.append(trial._replace(value=value, number=len(trials)))
        answer = answer_from_trials(trials, [])[0]
        assert answer.ci95 is not None
        best = next(
            kind
            for kind in KINDS
            if answer.answer.startswith((f"{kind} does best", f"no difference shown: {kind} is"))
        )
        rival = next(kind for kind in KINDS if f"points over {kind} (" in answer.answer)
        truth = 0.01 * (means[best] - means[rival])
        hits += answer.ci95[0] - 1e-9 <= truth <= answer.ci95[1] + 1e-9
    return 100 * hits / sweeps


def covered_by_the_cost_of_a_rate(top: float, curvature: float, trials: int, sweeps: int) -> float:
    """The share of intervals that hold what a factor of 2 away from the stated rate truly costs.

    top: where the true parabola is highest, in octaves from the lowest rate. At the top of the
    fitted curve, what is stated is its curvature.
    """
    draw, hits = np.random.default_rng(2), 0
    for _ in range(sweeps):
        octaves = draw.uniform(0, math.log2(HIGHEST / LOWEST), trials)
        values = -curvature * (octaves - top) ** 2 + draw.normal(size=trials)
        best, found = cost_of_a_factor_of_2(octaves, values, FALSE_CLAIMS)
        truth = curvature
        if best in (octaves.min(), octaves.max()):
            inside = best + (1 if best == octaves.min() else -1)
            truth = curvature * ((inside - top) ** 2 - (best - top) ** 2)
        hits += found.low <= truth <= found.high
    return 100 * hits / sweeps


def covered_by_a_difference(noise: Noise, sizes: tuple[int, int], sweeps: int) -> float:
    draw, hits = np.random.default_rng(3), 0
    a, b = (CompleteTrial("", 0, 0.0, kind, "constant", LOWEST) for kind in KINDS[:2])
    for _ in range(sweeps):
        found = difference(
            [3 + noise(draw, a) for _ in range(sizes[0])],
            [noise(draw, b) for _ in range(sizes[1])],
            FALSE_CLAIMS,
        )
        hits += found.low <= 3 <= found.high
    return 100 * hits / sweeps


# --- the measurement ---


def questions(folder: Path, sweeps: int = 1000, searches: int = 300) -> list[Row]:
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    rows = []
    for name, noise in NOISES.items():
        for shared in (False, True):
            by_size = false_claims(noise, shared=shared, sweeps=sweeps)
            words = f"{name}, values share seeds" if shared else name
            shares = [one.share for one in by_size.values()]
            rows.append(_at_most(f"no effects, {words}: sweeps with a false claim, worst", shares))
    for trials, pruned in ((20, False), (40, False), (60, True)):
        found = false_claims_of_a_search(
            strategies=4, trials=trials, pruned=pruned, sweeps=searches
        )
        search = "TPE and asha" if pruned else "TPE"
        words = f"{search} on noise, 4 x {trials} trials"
        rows.append(_at_most(f"{words}: sweeps with a false claim", [found.share]))
    return rows + _false_effects(sweeps, searches) + _coverage(sweeps)


def _false_effects(sweeps: int, searches: int) -> list[Row]:
    rows = []
    draw = np.random.default_rng(5)
    for name, noise in NOISES.items():
        if noise is unequal:
            # It does depend on the parameters.
            continue
        shares = [
            false_effects(
                random_sweep(draw, STRATEGIES[:strategies], trials, noise, shared=shared)
                for _ in range(sweeps)
            )
            for strategies, trials in SIZES
            for shared in (False, True)
        ]
        rows.append(_at_most(f"no effects, {name}: a parameter is said to matter, worst", shares))
    for trials, pruned in ((12, False), (40, False), (60, True)):
        found = [searched_sweep(seed, STRATEGIES[:4], trials, pruned) for seed in range(searches)]
        words = "TPE and asha" if pruned else "TPE"
        share = false_effects(found)
        what = f"{words} on noise, 4 x {trials} trials: a parameter is said to matter"
        rows.append(_at_most(what, [share]))
    for effect, trials, least in ((1.0, 12, 10.0), (1.0, 20, 40.0), (0.5, 40, 25.0)):
        share = shown_effects(effect, trials, sweeps)
        what = f"{trials} trials, a factor of 2 costs {effect:g} x the noise: it is shown"
        rows.append(Row(what, share, "%", at_least=least))
    return rows


def _coverage(sweeps: int) -> list[Row]:
    alphas = [
        covered_by_the_best_alpha(noise, effect, sizes, sweeps)
        for noise in (normal, long_tails)
        for effect in (0.0, 0.5, 1.0, 2.0)
        for sizes in ((5, 5, 5), (5, 20, 10), (20, 20, 20))
    ]
    rates = [
        covered_by_the_cost_of_a_rate(top, curvature, trials, sweeps)
        for trials in (8, 20, 60)
        for top, curvature in ((1.6, 0.0), (1.6, 0.3), (1.6, 1.0), (0.0, 0.3), (3.3, 0.1))
    ]
    pairs = [
        covered_by_a_difference(noise, sizes, sweeps)
        for noise in (normal, long_tails, unequal)
        for sizes in ((5, 5), (5, 20), (30, 30))
    ]
    return [
        _at_least("intervals of the best alpha against its rival that hold the truth", alphas),
        _at_least("intervals of falling against constant temperature that do", pairs),
        _at_least("intervals of what a factor of 2 in the learning rate costs that do", rates),
    ]


def _at_most(what: str, shares: list[float]) -> Row:
    return Row(what, max(shares), "%", 100 * FALSE_CLAIMS, None, min(shares), max(shares))


def _at_least(what: str, shares: list[float]) -> Row:
    # The worst of two dozen simulations of 1,000 is up to two points below 95.
    return Row(what, min(shares), "%", None, 93, min(shares), max(shares))
