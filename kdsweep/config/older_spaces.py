"""What spaces of older versions mean today.

A sweep keeps the rules of its task (`kdsweep.core.settings.RULES`) that it was started with. A
stored space that names none has rule 1, and so has a space file that is run again for such a sweep.

Until 0.1.0 a task without probabilities could name the divergence `kl`, and was trained with
squared error all the same. Such a space is refused today, but a sweep that was started with one
can still be read, and resumed with a space that leaves the divergence out or names `mse`.
"""

from __future__ import annotations

from typing import cast

from kdsweep.config.loading import Plain
from kdsweep.core.objective.divergences import DEFAULT
from kdsweep.core.settings import RULES, TaskSettings
from kdsweep.core.tasks import DEFAULT_KIND, KINDS
from kdsweep.core.tasks.base import TaskKind


def is_read_as_default(kind: TaskKind, divergence: object) -> bool:
    """Whether older versions trained this divergence as the kind's default."""
    return divergence in (DEFAULT, kind.default_divergence)


def as_trained(identity: dict[str, Plain]) -> dict[str, Plain]:
    """A sweep's identity without what trains the same: revisions, which mean commits that are
    compared themselves, and divergences that are the default of the task's kind.

    Two identities that differ in nothing else are the same sweep.
    """
    identity = cast(dict[str, Plain], _without_revisions(identity))
    space = identity.get("space")
    strategies = space.get("strategies") if isinstance(space, dict) else None
    if not isinstance(space, dict) or not isinstance(strategies, dict):
        return identity
    task = space.get("task")
    name = task.get("kind") if isinstance(task, dict) else None
    kind = KINDS.get(str(name), DEFAULT_KIND)
    if kind.default_divergence == DEFAULT:
        return identity
    trained = {name: _without_default(strategy, kind) for name, strategy in strategies.items()}
    return identity | {"space": space | {"strategies": trained}}


def _without_revisions(value: Plain) -> Plain:
    if isinstance(value, list):
        return [_without_revisions(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: _without_revisions(one) for key, one in value.items() if key != "revision"}


def _without_default(strategy: Plain, kind: TaskKind) -> Plain:
    if not isinstance(strategy, dict) or "distill" not in strategy:
        return strategy
    distill = strategy["distill"]
    if isinstance(distill, dict) and is_read_as_default(kind, distill.get("logits")):
        distill = {key: value for key, value in distill.items() if key != "logits"}
    if is_read_as_default(kind, distill) or distill == {}:
        return {key: value for key, value in strategy.items() if key != "distill"}
    return strategy | {"distill": distill}


# --- rules of the task ---


def name_first_rules(data: dict[str, Plain]) -> None:
    """Give the task of a stored space the rules that it doesn't name."""
    task = data.get("task")
    if isinstance(task, dict):
        data["task"] = dict.fromkeys(RULES, 1) | task


def with_stored_rules(task: TaskSettings, stored: dict[str, Plain]) -> TaskSettings:
    """The task with the rules of a stored space, where the task itself names none.

    Pairs are symmetric only in rule 2.
    """
    found = stored.get("task")
    rules = found if isinstance(found, dict) else {}
    unnamed = [rule for rule in RULES if rule not in task.model_fields_set]
    changes: dict[str, object] = {rule: rules.get(rule, 1) for rule in unnamed}
    if changes.get("split_rule") == 1:
        changes["symmetric"] = False
    return task.model_copy(update=changes)
