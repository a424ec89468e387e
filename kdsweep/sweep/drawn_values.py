"""What a sampler draws for a trial: asked of Optuna, and found again in what a trial trained with.

A trial's folder keeps it, so that a study can be made again without its database.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution

from kdsweep.config import SearchSpace
from kdsweep.config.loading import Scalar
from kdsweep.config.parameters import NotAdmitted, Parameter, admit, parameters
from kdsweep.config.setting_types import is_whole
from kdsweep.core.settings import TrialSettings


@dataclass(frozen=True)
class Drawn:
    """What was drawn, and what from."""

    params: Mapping[str, Scalar]
    distributions: Mapping[str, BaseDistribution]

    def to_json(self) -> dict[str, object]:
        written = {name: distribution_to_json(one) for name, one in self.distributions.items()}
        return {"params": dict(self.params), "distributions": written}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Drawn:
        read = {name: json_to_distribution(one) for name, one in found["distributions"].items()}
        return cls(found["params"], read)


NOTHING_KNOWN = Drawn({}, {})


def settle_drawing(
    space: SearchSpace, strategy: str, trial: optuna.trial.BaseTrial, seed: int
) -> TrialSettings:
    """A trial's settings, each parameter as Optuna suggests it for `trial`."""

    def suggest(parameter: Parameter) -> Scalar:
        domain = parameter.domain
        if isinstance(domain, tuple):
            return trial.suggest_categorical(parameter.name, domain)
        if parameter.whole:
            return trial.suggest_int(
                parameter.name,
                round(domain.low),
                round(domain.last),
                step=round(domain.step or 1),
                log=domain.log,
            )
        return trial.suggest_float(
            parameter.name, domain.low, domain.last, step=domain.step, log=domain.log
        )

    return space.settle(strategy, suggest, seed)


def drawn_for(
    space: SearchSpace, strategy: str, settings: TrialSettings, before: Drawn | None = None
) -> Drawn:
    """What gives these settings. Earlier versions kept it in the database alone.

    before: what gave them in an earlier space. `NOTHING_KNOWN`, if this one doesn't give them.
    """
    if before is not None:
        same = _giving(space, strategy, settings, before.params)
        if same is not None:
            return same
    stored = settings.model_dump(mode="json")
    found: dict[str, Scalar] = {}
    try:
        for name, value in space.values(strategy).items():
            if parameters(value, name, whole=is_whole(name)):
                found |= _admitted(value, _settled(stored, name), name)
    except (LookupError, TypeError, ValueError):
        return NOTHING_KNOWN
    return _giving(space, strategy, settings, found) or NOTHING_KNOWN


def _giving(
    space: SearchSpace, strategy: str, settings: TrialSettings, params: Mapping[str, Scalar]
) -> Drawn | None:
    """These parameters, if they are in their ranges and give these settings."""
    fixed = optuna.trial.FixedTrial(cast(dict[str, Any], dict(params)))
    try:
        with warnings.catch_warnings():
            # Of a value that is out of its range.
            warnings.simplefilter("error", UserWarning)
            same = settle_drawing(space, strategy, fixed, settings.seed)
    # A parameter that isn't among them is a ValueError too.
    except (LookupError, TypeError, ValueError, UserWarning):
        return None
    return Drawn(fixed.params, fixed.distributions) if same == settings else None


def _admitted(value: object, settled: object, name: str) -> dict[str, Scalar]:
    try:
        return admit(value, settled, name, whole=is_whole(name))
    except NotAdmitted:
        # A number stands for a schedule that is constant.
        if not isinstance(settled, dict) or settled.get("shape") != "constant":
            raise
        return admit(value, settled["value"], name, whole=is_whole(name))


def _settled(stored: dict[str, Any], name: str) -> object:
    """The setting of that dotted name, in a trial's settings as JSON."""
    section: Any = stored
    parts = name.split(".")
    if parts[0] == "teacher" and len(parts) > 2:
        number = int(parts[1])
        section, parts = stored["further_teachers"][number - 1], parts[2:]
    elif len(parts) == 1 and name not in stored:
        section = stored["training"]
    for part in parts:
        section = section[part]
    return section
