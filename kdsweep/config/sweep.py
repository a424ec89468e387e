"""The sweep: HOW MUCH and WHERE."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from kdsweep.config.broken_rules import validate
from kdsweep.config.loading import Document, Override, Plain, read_document, split_path
from kdsweep.core.schedules import Number
from kdsweep.core.strict_model import Name, Strict, Text, one_or_more
from kdsweep.errors import SpaceError, did_you_mean

Seed = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


# `sampler.lag` of new sweeps: docs/performance.md has the figures.
LAG = 2
# The rule of sweeps that earlier versions created: a trial knows of whatever has ended.
WHATEVER_HAS_ENDED = 0


class Sampler(Strict):
    """What all samplers have.

    lag: trial n of a strategy is asked for, pruned and counted for `patience` with the knowledge of
    its trials up to n - lag alone. A sweep of an earlier version has `WHATEVER_HAS_ENDED`.
    """

    seed: Seed = 0
    lag: Count = Field(default=LAG, exclude_if=lambda lag: lag == WHATEVER_HAS_ENDED)


class TpeSampler(Sampler):
    """Tree-structured Parzen estimator: multivariate, grouped by condition."""

    type: Literal["tpe"] = "tpe"
    startup_trials: Annotated[int, Field(ge=0)] = 10


class RandomSampler(Sampler):
    type: Literal["random"]


class GridSampler(Sampler):
    """Every point once, in random order; needs `choices` or `step` everywhere."""

    type: Literal["grid"]


class GpSampler(Sampler):
    """Gaussian process."""

    type: Literal["gp"]
    startup_trials: Annotated[int, Field(ge=0)] = 10


class NoPruner(Strict):
    type: Literal["none"]


class PairedPruner(Strict):
    """Stops a trial that is worse by more than noise than the best one was at the same share of its
    training, judged on the same validation rows.

    It never stops a trial before its warm-up has ended and its schedules have switched.
    level: how likely so large a lead may be by chance, at most. min_trials: how many others must
    have come as far.
    """

    type: Literal["paired"] = "paired"
    level: Annotated[Number, Field(gt=0, lt=0.5)] = 0.001
    min_trials: Count = 2


class MedianPruner(Strict):
    """Stops a trial whose metric is below the median of the others at the same evaluation."""

    type: Literal["median"]
    startup_trials: Annotated[int, Field(ge=0)] = 5
    warmup_evaluations: Annotated[int, Field(ge=0)] = 0


class HyperbandPruner(Strict):
    """Hyperband, Li et al. (2018), https://arxiv.org/abs/1603.06560.

    One evaluation is one unit of its resource.
    """

    type: Literal["hyperband"]
    min_evaluations: Count = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 3


class AshaPruner(Strict):
    """Asynchronous successive halving, Li et al. (2020), https://arxiv.org/abs/1810.05934.

    One evaluation is one unit of its resource.
    """

    type: Literal["asha"] = "asha"
    min_evaluations: Count = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 4


class Budget(Strict):
    """What ends a sweep before all its trials are done.

    patience: a strategy ends when its last N trials didn't improve on its best.
    """

    hours: Annotated[Number, Field(gt=0)] | None = None
    gpu_hours: Annotated[Number, Field(gt=0)] | None = None
    patience: Count | None = None


class AutoEngine(Strict):
    """All GPUs of this machine, one trial on each; this process if it has one GPU or none."""

    type: Literal["auto"] = "auto"


class InlineEngine(Strict):
    """This process, one slot: the GPU if there is one, else the CPU."""

    type: Literal["inline"]


def _words(value: object) -> object:
    if isinstance(value, str):
        try:
            return tuple(shlex.split(value))
        except ValueError as error:
            reason = str(error).lower()
            raise ValueError(f"can't split the command as a shell would: {reason}") from None
    return tuple(value) if isinstance(value, list) else value


def _address(value: str) -> str:
    if value in ("local", "head", "auto") or re.fullmatch(r"(ray://)?[^\s/:@]+:\d{1,5}", value):
        return value
    hint = did_you_mean(value, ["local", "head", "auto"])
    raise ValueError(f"address is local, head, auto, HOST:PORT or ray://HOST:PORT{hint}")


class RayEngine(Strict):
    """One warm process for each slot, on this machine or on a cluster.

    address: `local`, this machine; `head`, a cluster that starts here and that machines join with
    `kdsweep worker`; or a Ray cluster that is running already: `auto`, HOST:PORT or
    ray://HOST:PORT.
    gpus_per_trial: a GPU or a fraction of one (0.25 packs four trials on each); 0 for CPU threads
    only; null: 1 on a machine with GPUs. cpus_per_trial: CPU cores and threads of a trial.
    gpus, cpus: what this machine offers (`local`); null: all. slots: at most this many at once;
    null: as many as fit.
    listen: the address of this machine that the other machines of the cluster can reach (`head`);
    null: found automatically.
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
                "'gpus' and 'cpus' say what this machine offers with 'address: local'; with "
                f"{self.address!r} each machine that joins says it"
            )
        if self.address != "head" and self.listen is not None:
            raise ValueError("'listen' is for 'address: head', where other machines join")
        return self


# `confirm.margin` unless a sweep sets it, in the metric's own unit.
MARGIN = 0.01
# After how many seeds strategies are compared with `confirm.seeds: auto`, if `most` is the last.
LOOKS = (3, 5, 8, 12, 20)


def _seeds(value: object) -> object:
    if isinstance(value, str) and value != "auto":
        raise ValueError(
            f"must be a whole number or auto, not {value!r}{did_you_mean(value, ['auto'])}"
        )
    return value


class Confirm(Strict):
    """The best trial of each strategy is trained again with this many fresh seeds.

    Each of these runs is judged once on the test split. 0: no confirmation. auto: strategies are
    compared after 3, 5, 8, 12 and 20 seeds, and only those that are still in question get more.
    finalists: so many of a strategy's best trials are first trained again with other fresh seeds
    and judged on validation; the best one is confirmed. 1: the search's best trial is.
    margin: strategies that differ by less are as good as equal, in the metric's own unit.
    most: with `seeds: auto`, the most seeds of a strategy.
    """

    seeds: Annotated[Annotated[int, Field(ge=0)] | Literal["auto"], BeforeValidator(_seeds)] = 5
    finalists: Count = 3
    margin: Annotated[float, Field(gt=0, lt=1)] = MARGIN
    most: Annotated[int, Field(ge=LOOKS[0], le=LOOKS[-1])] = Field(
        default=LOOKS[-1], exclude_if=lambda most: most == LOOKS[-1]
    )

    @model_validator(mode="after")
    def _most_of_auto(self) -> Confirm:
        if self.seeds != "auto" and self.most != LOOKS[-1]:
            raise ValueError(f"'most: {self.most}' is for 'seeds: auto', not 'seeds: {self.seeds}'")
        return self


class Keep(Strict):
    """How many of the best students of each strategy keep their checkpoints."""

    students: Annotated[int, Field(ge=0)] = 3


class OnDone(Strict):
    """What to notify when the sweep ends.

    A command gets the report on its standard input, a webhook gets it by POST.
    command: words, or one string that is split as a shell would; no shell runs it.
    """

    command: Annotated[tuple[str, ...], BeforeValidator(_words), Field(min_length=1)] | None = None
    webhook: Text | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> OnDone:
        if (self.command is None) == (self.webhook is None):
            raise ValueError("on_done is either {command: [WORD, ...]} or {webhook: https://...}")
        # A message about a key shows its value, and this one is a secret. So the rule for the
        # address is checked here and not at its key.
        if self.webhook is not None and not re.fullmatch(r"https?://[^\s/?#]+\S*", self.webhook):
            raise ValueError(
                "webhook must be an address that starts with https:// or http:// and has no "
                "blank in it"
            )
        return self

    def shown(self) -> dict[str, Plain]:
        """What may be written where others can read it.

        The secret of a webhook is its path, that of a command is one of its words.
        """
        if self.webhook is not None:
            return {"command": None, "webhook": without_path(self.webhook)}
        assert self.command is not None
        hidden = ["***"] if len(self.command) > 1 else []
        return {"command": [self.command[0], *hidden], "webhook": None}


def without_path(address: str) -> str:
    """`https://host/***`: an address without its user, password, path and query."""
    scheme, _, rest = address.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    return f"{scheme}://{host}/***"


# What may be an objective in addition to the task's metric -> the student's figure that measures
# it. Less of each is better.
COSTS = {"latency": "latency_ms", "size": "size_mb", "parameters": "parameters"}
Cost = Literal["latency", "size", "parameters"]


class Cheapest(Strict):
    """Search for the student that costs least among those that are good enough.

    within: how much lower the metric may be, in its own unit. of: than the teacher's, or than the
    best student's; both on validation.
    """

    least: Cost
    within: Annotated[Number, Field(ge=0)] = MARGIN
    of: Literal["teacher", "best"] = "teacher"


def _kind_of_objective(given: object) -> str:
    return "rule" if isinstance(given, dict | Cheapest) else "names"


def _usual_pruner(given: dict[str, Sequence[str] | Cheapest]) -> NoPruner | PairedPruner:
    objective = given.get("objective", ())
    several = isinstance(objective, Cheapest) or len(objective) > 1
    return NoPruner(type="none") if several else PairedPruner()


class SweepConfig(Strict):
    """How many trials, how they are chosen, where they run, and what is kept.

    objective: what the sampler optimizes: the task's metric (by its name, or `metric`), and any of
    `COSTS`; empty: the metric alone. With several there is no pruner: Optuna has none
    for several objectives. Or which student to look for, see `Cheapest`.
    start_from: sweeps of the same home, whose trials this one starts from.
    """

    name: Name | None = None
    objective: Annotated[
        Annotated[Cheapest, Tag("rule")]
        | Annotated[tuple[Text, ...], BeforeValidator(one_or_more), Tag("names")],
        Discriminator(_kind_of_objective),
    ] = ()
    trials: Count = 20
    start_from: Annotated[tuple[Name, ...], BeforeValidator(one_or_more)] = Field(
        default=(), exclude_if=lambda sweeps: not sweeps
    )
    sampler: Annotated[
        TpeSampler | RandomSampler | GridSampler | GpSampler, Field(discriminator="type")
    ] = TpeSampler()
    pruner: Annotated[
        PairedPruner | NoPruner | MedianPruner | HyperbandPruner | AshaPruner,
        Field(discriminator="type"),
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
        """The objectives in addition to the task's metric."""
        rule = self.cheapest
        return self.named_objectives[1:] if rule is None else (rule.least,)

    @property
    def named_objectives(self) -> tuple[str, ...]:
        """The objectives as the file names them; none where it asks for the cheapest student."""
        return () if isinstance(self.objective, Cheapest) else self.objective

    @property
    def cheapest(self) -> Cheapest | None:
        """Which cheapest student to look for; None where the task's metric is to be the best."""
        return self.objective if isinstance(self.objective, Cheapest) else None

    def with_lag(self, lag: int) -> SweepConfig:
        """This sweep with the lag of its sampler that a sweep was created with."""
        return self.model_copy(update={"sampler": self.sampler.model_copy(update={"lag": lag})})


SWEEP_KEYS = frozenset(SweepConfig.model_fields) - {"name"}


# What every space has, and no sweep.
SPACE_KEYS = frozenset(("task", "student", "strategies"))


def check_is_space(document: Document) -> None:
    """Raises SpaceError, with what to do, for a sweep's file in place of a space's."""
    keys = document.data.keys()
    if keys & (SWEEP_KEYS | {"set"}) and not keys & SPACE_KEYS:
        raise SpaceError(
            document.file,
            None,
            "is a sweep, not a search space; name it after --sweep: "
            f"SPACE --sweep {shlex.quote(document.file)}",
        )


def _check_is_sweep(document: Document) -> None:
    keys = document.data.keys()
    if keys & SPACE_KEYS and not keys & SWEEP_KEYS:
        raise SpaceError(
            document.file,
            None,
            "is a search space, not a sweep; name it without --sweep: "
            f"kdsweep run {shlex.quote(document.file)}",
        )


def sweep_document(path: Path | str | None) -> tuple[Document, list[Override]]:
    """A sweep file as data, and what its `set` overrides in the space."""
    if path is None:
        return Document("the default sweep", {}), []
    document = read_document(path)
    _check_is_sweep(document)
    section = document.take_out("set")
    overrides: list[Override] = []
    if section is None:
        return document, overrides
    for key, value in section.data.items():
        keys = split_path(key)
        if not all(keys) or keys[0] in SWEEP_KEYS or keys[0] == "name":
            raise section.error(
                (key,),
                f"set: {key!r} is no key of a search space; 'set' overrides the space "
                "(set: {training.epochs: 2})",
            )
        overrides.append(Override(keys, value, section.origins_under(key)))
    return document, overrides


def load_sweep(path: Path | str | None = None) -> SweepConfig:
    """A sweep from its file, or the default one. Raises SpaceError with file and line.

    Its `set` is for the space: see `kdsweep.config.load`.
    """
    return validate(SweepConfig, sweep_document(path)[0])
