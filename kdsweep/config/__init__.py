"""YAML files as validated values. No torch, no Optuna."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsweep.config.loading import Document, split_assignment, validate
from kdsweep.config.space import SearchSpace, build_space, load_space, space_document
from kdsweep.config.sweep import COSTS, SWEEP_KEYS, SweepConfig, load_sweep, sweep_document
from kdsweep.core.settings import Name
from kdsweep.errors import SpaceError, did_you_mean

__all__ = ["Plan", "SearchSpace", "SpaceError", "SweepConfig", "load", "load_space", "load_sweep"]

LARGEST_GRID = 100_000


@dataclass(frozen=True)
class Plan:
    """A space and a sweep that belong together: `name` is the sweep's, `resolved` the space written out."""

    name: str
    space: SearchSpace
    sweep: SweepConfig
    resolved: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What a sweep must keep when it is run again; budget and engine are no part of it."""
        return {
            "space": self.resolved,
            "objective": {"metric": self.space.task.metric, "direction": "maximize"}
            | ({"and": list(self.sweep.costs)} if self.sweep.costs else {}),
            "sampler": self.sweep.sampler.model_dump(mode="json"),
            "pruner": self.sweep.pruner.model_dump(mode="json"),
        }

    @property
    def experiment(self) -> str:
        return self.space.name + ("-embedded" if self.space.embedded else "")


def trials_of(space: SearchSpace, sweep: SweepConfig, strategy: str) -> int:
    """How many trials the strategy gets: as many as the sweep says, fewer where a grid has fewer points."""
    points = space.count_points(strategy) if sweep.sampler.type == "grid" else None
    return sweep.trials if points is None else min(sweep.trials, points)


def load(
    space: Path | str,
    sweep: Path | str | None = None,
    *,
    embedded: bool = False,
    assignments: tuple[str, ...] = (),
    name: str | None = None,
) -> Plan:
    """Read a space and a sweep; apply the sweep's `set` to the space, then `assignments` to whichever they belong to.

    Raises SpaceError with file and line.
    """
    space_part = space_document(space, embedded=embedded)
    sweep_part, overrides = sweep_document(sweep)
    for override in overrides:
        space_part.replace(*override)
    known = sorted(SWEEP_KEYS | SearchSpace.model_fields.keys())
    for text in assignments:
        path, value, places = split_assignment(text)
        if path == ("name",):
            raise SpaceError(
                f"--set {text}",
                None,
                "'name' stands in the space and in the sweep; use --name for the sweep's name",
            )
        if path[0] not in known:
            hint = (
                did_you_mean(str(path[0]), known)
                or f"; known in a space or a sweep: {', '.join(known)}"
            )
            raise SpaceError(places[()][0], None, f"unknown key {path[0]!r}{hint}")
        (sweep_part if path[0] in SWEEP_KEYS else space_part).replace(path, value, places)
    built, config = build_space(space_part, embedded=embedded), validate(SweepConfig, sweep_part)
    _check_objective(built, config, sweep_part)
    _check_grid(built, config, sweep_part)
    resolved = built.resolved(space_part.data)
    made = (
        built.name + ("-embedded" if embedded else "") + (f"-{config.name}" if config.name else "")
    )
    checked = (
        checked_name(made, "the sweep's name (see --name)") if name is None else checked_name(name)
    )
    return Plan(checked, built, config, resolved)


def checked_name(name: str, origin: str = "--name") -> str:
    """The name of a sweep, which is also the name of its folder. Raises SpaceError where it can't be one."""
    from pydantic import TypeAdapter, ValidationError

    try:
        adapter: TypeAdapter[str] = TypeAdapter(Name)
        return adapter.validate_python(name)
    except ValidationError as error:
        message = str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
        raise SpaceError(origin, None, f"{message}, not {name[:60]!r}") from None


def _check_objective(space: SearchSpace, sweep: SweepConfig, document: Document) -> None:
    metric, objective = space.task.metric, sweep.objective
    if objective and objective[0] not in (metric, "metric"):
        raise document.error(
            ("objective",),
            f"objective: the task's metric comes first: {metric} (or 'metric', whatever it is), not {objective[0]!r}",
        )
    for i, cost in enumerate(sweep.costs):
        if cost not in COSTS:
            hint = did_you_mean(cost, COSTS) or f"; known here: {', '.join(COSTS)}"
            raise document.error(
                ("objective", i + 1),
                f"objective: what stands beside {metric} is what a student costs, not {cost!r}{hint}",
            )
    if len(set(objective)) < len(objective):
        raise document.error(
            ("objective",), f"objective: each may stand once, not [{', '.join(objective)}]"
        )
    if sweep.costs and sweep.pruner.type != "none":
        rule = f"pruner: {sweep.pruner.type} can't weigh several objectives ({', '.join(objective)}); leave 'pruner' out, or say {{type: none}}"
        raise document.error(("pruner", "type"), rule)


def _check_grid(space: SearchSpace, sweep: SweepConfig, document: Document) -> None:
    if sweep.sampler.type != "grid":
        return
    for strategy in space.strategies:
        for parameter in space.parameters(strategy):
            if parameter.count() is None:
                rule = f"sampler: grid needs 'choices' or 'step' everywhere; strategies.{strategy}: {parameter.name} is a range without a step"
                raise document.error(("sampler", "type"), rule)
        points = space.count_points(strategy) or 1
        if points > LARGEST_GRID:
            raise document.error(
                ("sampler", "type"),
                f"sampler: a grid has at most {LARGEST_GRID:,} points; strategies.{strategy} has {points:,}",
            )
