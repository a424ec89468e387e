"""A space and a sweep that belong together, and the rules that need both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from pydantic import TypeAdapter, ValidationError

from kdsweep.config.broken_rules import elsewhere, validate
from kdsweep.config.loading import Document, Override, Plain, split_assignment
from kdsweep.config.older_spaces import with_stored_rules
from kdsweep.config.older_sweeps import with_stored_defaults
from kdsweep.config.space import SearchSpace
from kdsweep.config.space_loading import (
    build_space,
    check_other_sections,
    read_space,
    space_document,
)
from kdsweep.config.sweep import COSTS, SWEEP_KEYS, Cheapest, SweepConfig, sweep_document
from kdsweep.core.hub.repository import Repository
from kdsweep.core.strict_model import Name
from kdsweep.errors import SpaceError, did_you_mean
from kdsweep.shipped_files import SPACES, SWEEPS

LARGEST_GRID = 100_000


@dataclass(frozen=True)
class Plan:
    """What `kdsweep run` runs. `name` is the sweep's, `resolved` is the space written out."""

    name: str
    space: SearchSpace
    sweep: SweepConfig
    resolved: dict[str, Plain]

    @property
    def identity(self) -> dict[str, Plain]:
        """What a sweep must keep when it runs again; budget and engine may change."""
        objective: dict[str, Plain] = {
            "metric": self.space.task.metric,
            "direction": "maximize",
        }
        if self.sweep.cheapest is not None:
            objective |= self.sweep.cheapest.model_dump(mode="json")
        elif self.sweep.costs:
            objective["and"] = list(self.sweep.costs)
        started: dict[str, Plain] = {}
        if self.sweep.start_from:
            started = {"start_from": list(self.sweep.start_from)}
        return started | {
            "space": self.resolved,
            "objective": objective,
            "sampler": self.sweep.sampler.model_dump(mode="json"),
            "pruner": self.sweep.pruner.model_dump(mode="json"),
        }

    def with_rules_of(self, identity: dict[str, Plain]) -> Plan:
        """This plan with the rules and defaults that a sweep was started with.

        identity: that sweep's. What the space and the sweep file name themselves stays.
        """
        task = with_stored_rules(self.space.task, cast(dict[str, Plain], identity["space"]))
        resolved = self.resolved | {"task": task.model_dump(mode="json", exclude_none=True)}
        return replace(
            self,
            space=self.space.model_copy(update={"task": task}),
            sweep=with_stored_defaults(self.sweep, identity),
            resolved=resolved,
        )

    def with_commits(self, commits: Mapping[Repository, str]) -> Plan:
        """This plan, its trials with these versions of what is on the Hub."""
        return replace(self, space=self.space.with_commits(commits))

    @property
    def experiment(self) -> str:
        """The name of the sweep's MLflow experiment."""
        return self.space.name + ("-embedded" if self.space.embedded else "")


def load(
    space: Path | str,
    sweep: Path | str | None = None,
    *,
    embedded: bool = False,
    assignments: tuple[str, ...] = (),
    name: str | None = None,
) -> Plan:
    """Read a space and a sweep: paths, or names of shipped ones (`kdsweep.shipped_files`).

    The sweep's `set` overrides the space; then `assignments` (`key.path=value`) override whichever
    of the two has the key. Raises SpaceError with file and line.
    """
    file = read_space(SPACES.find(space))
    space_part = space_document(file, embedded=embedded)
    sweep_part, overrides = sweep_document(None if sweep is None else SWEEPS.find(sweep))
    for override in overrides:
        space_part.replace(override)
    for text in assignments:
        override = split_assignment(text)
        _check_assignment(override, text)
        (sweep_part if override.path[0] in SWEEP_KEYS else space_part).replace(override)
    built = build_space(space_part, embedded=embedded)
    check_other_sections(file, embedded=embedded)
    config = validate(SweepConfig, sweep_part)
    _check_objective(built, config, sweep_part)
    _check_grid(built, config, sweep_part)
    checked = default_name(built, config) if name is None else checked_name(name)
    _check_start_from(checked, config, sweep_part)
    return Plan(checked, built, config, built.resolved(space_part.data))


def default_name(space: SearchSpace, sweep: SweepConfig) -> str:
    """The sweep's name without `--name`: `sst2-embedded-quick`. Raises SpaceError if too long."""
    parts = [space.name, "embedded" if space.embedded else "", sweep.name or ""]
    return checked_name("-".join(filter(None, parts)), "the sweep's name (see --name)")


def checked_name(name: str, origin: str = "--name") -> str:
    """The name of a sweep, which is also the name of its folder.

    Raises SpaceError if it can't be one; `origin` says where the name comes from.
    """
    try:
        adapter: TypeAdapter[str] = TypeAdapter(Name)
        return adapter.validate_python(name)
    except ValidationError as error:
        message = str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
        raise SpaceError(origin, None, f"{message}, not {name[:60]!r}") from None


def trials_of(space: SearchSpace, sweep: SweepConfig, strategy: str) -> int:
    """How many trials the strategy gets: the sweep's number, or fewer if its grid is smaller."""
    points = space.count_points(strategy) if sweep.sampler.type == "grid" else None
    return sweep.trials if points is None else min(sweep.trials, points)


def _check_assignment(override: Override, text: str) -> None:
    """Its first key must be one of a space or a sweep."""
    if override.path == ("name",):
        raise SpaceError(
            f"--set {text}",
            None,
            "a space and a sweep both have 'name'; use --name for the sweep's name",
        )
    known = sorted(SWEEP_KEYS | SearchSpace.model_fields.keys())
    first = str(override.path[0])
    if first not in known:
        hint = did_you_mean(first, known) or elsewhere(override.path, SearchSpace)
        hint = hint or elsewhere(override.path, SweepConfig)
        hint = hint or f"; known in a space or a sweep: {', '.join(known)}"
        raise SpaceError(override.origins[()].file, None, f"unknown key {first!r}{hint}")


def _check_objective(space: SearchSpace, sweep: SweepConfig, document: Document) -> None:
    metric = space.task.metric
    if sweep.cheapest is not None:
        _check_cheapest(sweep.cheapest, space, sweep, document)
        return
    objective = sweep.named_objectives
    if objective and objective[0] not in (metric, "metric"):
        raise document.error(
            ("objective",),
            f"objective: the task's metric comes first: {metric} (or 'metric', which means any "
            f"task's), not {objective[0]!r}",
        )
    for i, cost in enumerate(sweep.costs, start=1):
        if cost not in COSTS:
            hint = did_you_mean(cost, COSTS) or f"; known here: {', '.join(COSTS)}"
            raise document.error(
                ("objective", i),
                f"objective: after {metric}, an objective must be a cost, not {cost!r}{hint}",
            )
    named = ", ".join(objective)
    if len(set(objective)) < len(objective):
        raise document.error(("objective",), f"objective: names one of them twice: [{named}]")
    if sweep.costs and sweep.pruner.type != "none":
        raise document.error(
            ("pruner", "type"),
            f"pruner: {sweep.pruner.type} can't weigh several objectives ({named}); leave "
            "'pruner' out, or set it to {type: none}",
        )


def _check_start_from(name: str, sweep: SweepConfig, document: Document) -> None:
    """A sweep starts from others, each once, and learns from them."""
    for i, earlier in enumerate(sweep.start_from):
        if earlier == name:
            raise document.error(
                ("start_from", i),
                f"start_from: {name!r} is this sweep itself; name an earlier one, or give this one "
                "another name (--name)",
            )
        if earlier in sweep.start_from[:i]:
            raise document.error(("start_from", i), f"start_from: {earlier!r} is named twice")
    if sweep.start_from and sweep.sampler.type == "grid":
        raise document.error(
            ("start_from",),
            "start_from: a grid tries every point, whatever earlier sweeps found; leave "
            "'start_from' out, or use another sampler",
        )


def _check_cheapest(
    rule: Cheapest, space: SearchSpace, sweep: SweepConfig, document: Document
) -> None:
    if rule.of == "teacher" and not space.needs_teacher:
        raise document.error(
            ("objective", "of"),
            "objective.of: no strategy of this space needs a teacher, so there is none to compare "
            "with; set 'of: best'",
        )
    if sweep.pruner.type != "none":
        raise document.error(
            ("pruner", "type"),
            "pruner: nothing is pruned in a search for the cheapest student, so "
            f"{sweep.pruner.type} can't be used; leave 'pruner' out, or set it to {{type: none}}",
        )
    if sweep.budget.patience is not None:
        raise document.error(
            ("budget", "patience"),
            "budget.patience: waits for a better metric, and this sweep looks for a cheaper "
            "student; leave it out",
        )
    if sweep.confirm.seeds == "auto":
        raise document.error(
            ("confirm", "seeds"),
            "confirm.seeds: auto adds seeds until it is certain which strategy has the better "
            "metric, and this sweep looks for a cheaper student; set a number of seeds",
        )
    if rule.of == "best" and sweep.confirm.seeds and sweep.confirm.finalists < 2:
        raise document.error(
            ("confirm", "finalists"),
            "confirm.finalists: with 'of: best' the best student and a cheaper one are judged, so "
            "at least 2 are needed",
        )


def _check_grid(space: SearchSpace, sweep: SweepConfig, document: Document) -> None:
    """A grid needs finite parameters, and not too many points."""
    if sweep.sampler.type != "grid":
        return
    for strategy in space.strategies:
        for parameter in space.parameters(strategy):
            if parameter.count() is None:
                raise document.error(
                    ("sampler", "type"),
                    "sampler: grid needs 'choices' or 'step' everywhere; "
                    f"strategies.{strategy}: {parameter.name} is a range without a step",
                )
        points = space.count_points(strategy) or 1
        if points > LARGEST_GRID:
            raise document.error(
                ("sampler", "type"),
                f"sampler: a grid has at most {LARGEST_GRID:,} points; strategies.{strategy} "
                f"has {points:,}",
            )
