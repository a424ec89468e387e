"""A trial drawn at random from a space, as a random sampler would draw it."""

from __future__ import annotations

import numpy as np

from kdsweep.config import Plan
from kdsweep.config.loading import Scalar
from kdsweep.config.parameters import Parameter
from kdsweep.core.settings import TrialSettings
from kdsweep.sweep.seeds import derived_seed


def random_settings(plan: Plan, strategy: str, number: int) -> TrialSettings:
    """The same for the same sampler seed and number."""
    seed = plan.sweep.sampler.seed
    generator = np.random.default_rng(derived_seed("sample", seed, number))

    def draw(parameter: Parameter) -> Scalar:
        domain = parameter.domain
        if isinstance(domain, tuple):
            return domain[generator.integers(len(domain))]
        if domain.step is not None:
            steps = int((domain.high - domain.low) / domain.step + 1e-9)
            drawn = domain.low + domain.step * int(generator.integers(steps + 1))
        elif domain.log:
            drawn = float(np.exp(generator.uniform(np.log(domain.low), np.log(domain.high))))
        else:
            drawn = generator.uniform(domain.low, domain.high)
        return round(drawn) if parameter.whole else float(drawn)

    return plan.space.settle(
        strategy, draw, seed=derived_seed("trial", seed, number, plan.sweep.start_from)
    )
