"""The sweep: HOW MUCH and WHERE."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from kdsweep.config.loading import Document, Path_, Place, read_document, split_path, validate
from kdsweep.core.schedules import Number
from kdsweep.core.settings import Name, Strict, Text, as_tuple
from kdsweep.errors import did_you_mean

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

    type: Literal["hyperband"]
    min_evaluations: Count = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 3


class AshaPruner(Strict):
    """Asynchronous successive halving, Li et al. (2020), https://arxiv.org/abs/1810.05934; a resource is one evaluation."""

    type: Literal["asha"] = "asha"
    min_evaluations: Count = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 4


class Budget(Strict):
    """What ends a sweep before its trials do. `patience`: a strategy ends when its last N trials brought nothing better."""

    hours: Annotated[Number, Field(gt=0)] | None = None
    gpu_hours: Annotated[Number, Field(gt=0)] | None = None
    patience: Count | None = None


class AutoEngine(Strict):
    """All GPUs of this machine, one trial on each; with one GPU or none, this process."""

    type: Literal["auto"] = "auto"


class InlineEngine(Strict):
    """This process, one slot: the GPU if there is one, else the CPU."""

    type: Literal["inline"]


def _words(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return tuple(shlex.split(value))
        except ValueError as error:
            raise ValueError(
                f"command is no line that a shell could split: {str(error).lower()}"
            ) from None
    return tuple(value) if isinstance(value, list) else value


def _address(value: str) -> str:
    if value in ("local", "head", "auto") or re.fullmatch(r"(ray://)?[^\s/:@]+:\d{1,5}", value):
        return value
    raise ValueError(
        "address is local, head, auto, HOST:PORT or ray://HOST:PORT"
        + did_you_mean(value, ["local", "head", "auto"])
    )


class RayEngine(Strict):
    """A warm process a slot, on this machine or on a cluster.

    address: `local`, this machine; `head`, a cluster that begins here and that machines join by `kdsweep worker`; or a Ray
    cluster that is there: `auto`, HOST:PORT or ray://HOST:PORT.
    gpus_per_trial: a GPU or a fraction of one (0.25 packs four trials on each); 0 for CPU threads alone; null: 1 where there
    are GPUs. cpus_per_trial: CPU cores a trial has, and how many threads it uses.
    gpus, cpus: what this machine has to give (`local`); null: all. slots: at most so many at once; null: as many as there are.
    listen: the address of this machine that other machines of the cluster reach (`head`); null: found by itself.
    """

    type: Literal["ray"]
    address: Annotated[Text, AfterValidator(_address)] = "local"
    gpus_per_trial: Annotated[Number, Field(ge=0, le=1)] | None = None
    cpus_per_trial: Count = 1
    gpus: Annotated[int, Field(ge=0)] | None = None
    cpus: Count | None = None
    slots: Count | None = None
    listen: Text | None = None

    @model_validator(mode="after")
    def _own_machine(self) -> RayEngine:
        if self.address != "local" and (self.gpus is not None or self.cpus is not None):
            raise ValueError(
                f"'gpus' and 'cpus' say what this machine gives to 'address: local'; with {self.address!r} the machines that join say it"
            )
        if self.address != "head" and self.listen is not None:
            raise ValueError("'listen' is for 'address: head', where other machines join")
        return self


class Confirm(Strict):
    """The best trial of each strategy is trained again with so many fresh seeds and judged once on the test split; 0: not at all."""

    seeds: Annotated[int, Field(ge=0)] = 5


class Keep(Strict):
    """How many of the best students of each strategy keep their checkpoints."""

    students: Annotated[int, Field(ge=0)] = 3


class OnDone(Strict):
    """Whom to tell when the sweep is over: a command, with the report on its standard input, or a webhook, by POST.

    command: words, or one string that is split as a shell would; no shell runs it.
    """

    command: Annotated[tuple[str, ...], BeforeValidator(_words), Field(min_length=1)] | None = None
    webhook: Text | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> OnDone:
        if (self.command is None) == (self.webhook is None):
            raise ValueError("on_done is either {command: [WORD, ...]} or {webhook: https://...}")
        # The rules for the address are kept here and not at its key: a message about a key shows its value, and this one is a secret.
        if self.webhook is not None and not re.fullmatch(r"https?://[^\s/?#]+\S*", self.webhook):
            raise ValueError(
                "webhook must be an address that begins with https:// or http:// and has no blank in it"
            )
        return self

    def shown(self) -> dict[str, Any]:
        """What may be written where others read: the secret of a webhook is its path, that of a command one of its words."""
        if self.webhook is not None:
            return {"command": None, "webhook": without_path(self.webhook)}
        assert self.command is not None
        return {
            "command": [self.command[0], *(["***"] if len(self.command) > 1 else [])],
            "webhook": None,
        }


def without_path(address: str) -> str:
    """`https://host/***` for an address whose user, password, path and query are nobody's business."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{re.split(r'[/?#]', rest, maxsplit=1)[0].rpartition('@')[2]}/***"


def _usual_pruner(given: dict[str, Any]) -> NoPruner | AshaPruner:
    return NoPruner(type="none") if len(given.get("objective", ())) > 1 else AshaPruner()


# What may be an objective beside the task's metric, and what a student is measured by for it; less of it is better.
COSTS = {"latency": "latency_ms", "size": "size_mb", "parameters": "parameters"}


class SweepConfig(Strict):
    """How many trials, how they are chosen, where they run, and what is kept.

    objective: what the sampler looks for: the task's metric (by its name, or `metric`), and any of `COSTS` beside it; empty: the metric alone.
    With several there is no pruner: Optuna has none that weighs them.
    """

    name: Name | None = None
    objective: Annotated[tuple[Text, ...], BeforeValidator(as_tuple)] = ()
    trials: Count = 20
    sampler: Annotated[
        TpeSampler | RandomSampler | GridSampler | GpSampler, Field(discriminator="type")
    ] = TpeSampler()
    pruner: Annotated[
        NoPruner | MedianPruner | HyperbandPruner | AshaPruner, Field(discriminator="type")
    ] = Field(default_factory=_usual_pruner)
    budget: Budget = Budget()
    engine: Annotated[AutoEngine | InlineEngine | RayEngine, Field(discriminator="type")] = (
        AutoEngine()
    )
    confirm: Confirm = Confirm()
    keep: Keep = Keep()
    storage: Text = "sqlite"
    tracking: Text = "sqlite"
    on_done: OnDone | None = None

    @property
    def costs(self) -> tuple[str, ...]:
        """The objectives beside the task's metric."""
        return self.objective[1:]


SWEEP_KEYS = frozenset(SweepConfig.model_fields) - {"name"}


def sweep_document(
    path: Path | str | None,
) -> tuple[Document, list[tuple[Path_, Any, dict[Path_, Place]]]]:
    """A sweep file as data, and what its `set` overrides, each with its place."""
    if path is None:
        return Document("the default sweep", {}), []
    document = read_document(path)
    section = document.take_out("set")
    overrides: list[tuple[Path_, Any, dict[Path_, Place]]] = []
    for key, value in (section.data if section else {}).items():
        assert section is not None
        places = {
            inner[1:]: place for inner, place in section.places.items() if inner[:1] == (key,)
        }
        keys = split_path(key)
        if not all(keys) or keys[0] in SWEEP_KEYS or keys[0] == "name":
            raise section.error(
                (key,),
                f"set: {key!r} is no key of a search space; 'set' overrides the space (set: {{training.epochs: 2}})",
            )
        overrides.append((keys, value, places))
    return document, overrides


def load_sweep(path: Path | str | None = None) -> SweepConfig:
    """A sweep from its file (its `set` is for the space, see `load`), or the default one. Raises SpaceError with file and line."""
    return validate(SweepConfig, sweep_document(path)[0])
