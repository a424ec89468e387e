"""The sweep: HOW MUCH and WHERE."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from kdsweep.config.loading import Document, Path_, Place, read_document, split_path, validate
from kdsweep.core.schedules import Number
from kdsweep.core.settings import Name, Strict, Text

Seed = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class TpeSampler(Strict):
    """Tree-structured Parzen estimator: multivariate, grouped by condition."""

    type: Literal["tpe"] = "tpe"
    seed: Seed = 0
    startup_trials: Annotated[int, Field(ge=0)] = 10


class RandomSampler(Strict):
    type: Literal["random"]
    seed: Seed = 0


class GridSampler(Strict):
    """Every point once, in random order; needs `choices` or `step` everywhere."""

    type: Literal["grid"]
    seed: Seed = 0


class GpSampler(Strict):
    """Gaussian process."""

    type: Literal["gp"]
    seed: Seed = 0
    startup_trials: Annotated[int, Field(ge=0)] = 10


class NoPruner(Strict):
    type: Literal["none"]


class MedianPruner(Strict):
    """Stops a trial that is below the median of the others at the same evaluation."""

    type: Literal["median"]
    startup_trials: Annotated[int, Field(ge=0)] = 5
    warmup_evaluations: Annotated[int, Field(ge=0)] = 0


class HyperbandPruner(Strict):
    """Li et al. (2018), https://arxiv.org/abs/1603.06560; a resource is one evaluation."""

    type: Literal["hyperband"] = "hyperband"
    min_evaluations: Count = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 3


class AshaPruner(Strict):
    """Asynchronous successive halving, Li et al. (2020), https://arxiv.org/abs/1810.05934; a resource is one evaluation."""

    type: Literal["asha"]
    min_evaluations: Count = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 4


class Budget(Strict):
    """What ends a sweep before its trials do. `patience`: a strategy ends when its last N trials brought nothing better."""

    hours: Annotated[Number, Field(gt=0)] | None = None
    gpu_hours: Annotated[Number, Field(gt=0)] | None = None
    patience: Count | None = None


class InlineEngine(Strict):
    """This process, one slot: the GPU if there is one, else the CPU."""

    type: Literal["inline"] = "inline"


class Keep(Strict):
    """How many of the best students of each strategy keep their checkpoints."""

    students: Annotated[int, Field(ge=0)] = 3


class SweepConfig(Strict):
    """How many trials, how they are chosen, where they run, and what is kept."""

    name: Name | None = None
    trials: Count = 20
    sampler: Annotated[TpeSampler | RandomSampler | GridSampler | GpSampler, Field(discriminator="type")] = TpeSampler()
    pruner: Annotated[NoPruner | MedianPruner | HyperbandPruner | AshaPruner, Field(discriminator="type")] = HyperbandPruner()
    budget: Budget = Budget()
    engine: InlineEngine = InlineEngine()
    keep: Keep = Keep()
    storage: Text = "sqlite"
    tracking: Text = "sqlite"


SWEEP_KEYS = frozenset(SweepConfig.model_fields) - {"name"}


def sweep_document(path: Path | str | None) -> tuple[Document, list[tuple[Path_, Any, dict[Path_, Place]]]]:
    """A sweep file as data, and what its `set` overrides, each with its place."""
    if path is None:
        return Document("the default sweep", {}), []
    document = read_document(path)
    section = document.take_out("set")
    overrides: list[tuple[Path_, Any, dict[Path_, Place]]] = []
    for key, value in (section.data if section else {}).items():
        assert section is not None
        places = {inner[1:]: place for inner, place in section.places.items() if inner[:1] == (key,)}
        keys = split_path(key)
        if not all(keys) or keys[0] in SWEEP_KEYS or keys[0] == "name":
            raise section.error((key,), f"set: {key!r} is no key of a search space; 'set' overrides the space (set: {{training.epochs: 2}})")
        overrides.append((keys, value, places))
    return document, overrides


def load_sweep(path: Path | str | None = None) -> SweepConfig:
    """A sweep from its file (its `set` is for the space, see `load`), or the default one. Raises SpaceError with file and line."""
    return validate(SweepConfig, sweep_document(path)[0])
