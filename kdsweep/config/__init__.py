"""YAML files as validated values. No torch, no Optuna."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsweep.config.loading import Document, split_assignment, validate
from kdsweep.config.space import SearchSpace, build_space, load_space, space_document
from kdsweep.config.sweep import SWEEP_KEYS, SweepConfig, load_sweep, sweep_document
from kdsweep.core.settings import Name
from kdsweep.errors import SpaceError

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
            "objective": {"metric": self.space.task.metric, "direction": "maximize"},
            "sampler": self.sweep.sampler.model_dump(mode="json"),
            "pruner": self.sweep.pruner.model_dump(mode="json"),
        }

    @property
    def experiment(self) -> str:
        return self.space.name + ("-embedded" if self.space.embedded else "")


def load(space: Path | str, sweep: Path | str | None = None, *, embedded: bool = False, assignments: tuple[str, ...] = (), name: str | None = None) -> Plan:
    """Read a space and a sweep; apply the sweep's `set` to the space, then `assignments` to whichever they belong to.

    Raises SpaceError with file and line.
    """
    space_part = space_document(space, embedded=embedded)
    sweep_part, overrides = sweep_document(sweep)
    for override in overrides:
        space_part.replace(*override)
    for text in assignments:
        path, value, places = split_assignment(text)
        if path == ("name",):
            raise SpaceError(f"--set {text}", None, "'name' stands in the space and in the sweep; use --name for the sweep's name")
        (sweep_part if path[0] in SWEEP_KEYS else space_part).replace(path, value, places)
    built, config = build_space(space_part, embedded=embedded), validate(SweepConfig, sweep_part)
    _check_grid(built, config, sweep_part)
    resolved = built.resolved(space_part.data)
    made = built.name + ("-embedded" if embedded else "") + (f"-{config.name}" if config.name else "")
    checked = checked_name(made, "the sweep's name (see --name)") if name is None else checked_name(name)
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
            raise document.error(("sampler", "type"), f"sampler: a grid has at most {LARGEST_GRID:,} points; strategies.{strategy} has {points:,}")
