"""Faults of earlier versions that changed numbers, and the sweeps that each of them touched.

`sweep.json` lists the faults that a sweep's numbers are free of (`mended`): all that are in this
table when the sweep starts. A sweep of an earlier version that a fault touched can be shown,
compared and exported. No trial is added to it, because its numbers would mean something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdsweep.config import SearchSpace
from kdsweep.config.extremes import numbers_in, plain_values
from kdsweep.config.section_values import values_of
from kdsweep.core.hub.repository import shown
from kdsweep.core.objective.divergences import divergence_named
from kdsweep.core.tasks import MULTI_LABEL
from kdsweep.errors import SettingsConflict
from kdsweep.sweep.folders import SweepFolder

if TYPE_CHECKING:
    from kdsweep.sweep.preflight import Checked

# Up to here rounding in fp32 changed a divergence by less than 1%, and its gradient by less.
HIGHEST_WITHOUT_FP64 = 1e3


@dataclass(frozen=True)
class EarlierSweep:
    """A sweep that has numbers, with what its space and its models are found to be now."""

    folder: SweepFolder
    space: SearchSpace
    checked: Checked


@dataclass(frozen=True)
class Fault:
    """A fault that later versions don't have.

    what: what earlier versions did, in words. touched: which model or term of a sweep it touched;
    None if it touched none, so that the numbers are the same in all versions.
    """

    what: str
    touched: Callable[[EarlierSweep], str | None]


def _wrongly_padded(sweep: EarlierSweep) -> str | None:
    for planned in (*sweep.checked.teachers, *sweep.checked.students):
        padding = planned.input_format.padding
        if padding is not None and padding.is_mended:
            return shown(planned.source)
    return None


def _dropped_maps(sweep: EarlierSweep) -> str | None:
    return next((f"distill.attention of {name}" for name in sweep.checked.with_dropped_maps), None)


def _counted_no_twice(sweep: EarlierSweep) -> str | None:
    if sweep.space.task.kind is not MULTI_LABEL:
        return None
    for name, divergence in _divergences(sweep.space):
        if not divergence_named(divergence).requires_probabilities:
            return f"distill: {divergence} of {name}"
    return None


def _views_that_the_teacher_saw(sweep: EarlierSweep) -> str | None:
    for name in sweep.space.strategies:
        has_folds = any(one.folds is not None for one in sweep.space.teachers_of(name))
        if has_folds and sweep.space.may_be_taught(name) and sweep.space.most_views(name):
            return f"augment of {name}"
    return None


def _rounded_divergence(sweep: EarlierSweep) -> str | None:
    for name, divergence in _divergences(sweep.space):
        highest = max(numbers_in(sweep.space.strategies[name].temperature))
        if highest > HIGHEST_WITHOUT_FP64 and divergence_named(divergence).requires_probabilities:
            return f"temperatures up to {highest:g} of {name}"
    return None


def _tokens_weighed_by_rows(sweep: EarlierSweep) -> str | None:
    for name in sweep.space.strategies:
        if not _compares_inner_states(sweep.space, name):
            continue
        if max(numbers_in(sweep.space.values(name).get("accumulation_steps", 1))) > 1:
            return f"accumulation_steps of {name}"
        if halved := _ran_out_of_memory(sweep.folder, name):
            return f"{halved}, which ran out of memory"
    return None


def _compares_inner_states(space: SearchSpace, strategy: str) -> bool:
    values = values_of(space.strategies[strategy].distill, "distill.")
    weights = [value for name, value in values.items() if name.endswith(".weight")]
    return any(number > 0 for value in weights for number in numbers_in(value))


def _ran_out_of_memory(folder: SweepFolder, strategy: str) -> str | None:
    """The name of a trial that went on with smaller micro-batches, if there is one."""
    for trial in folder.started_trials():
        result = folder.trial(trial).read_result() if trial.strategy == strategy else None
        if result is not None and result.micro_batch is not None:
            return trial.name
    return None


def _labels_on_a_large_scale(sweep: EarlierSweep) -> str | None:
    data = sweep.checked.data
    scale = data.kind.label_scale(data.train.labels)
    return None if scale.is_plain else f"mean {scale.mean:.4g}, deviation {scale.deviation:.4g}"


def _divergences(space: SearchSpace) -> list[tuple[str, str]]:
    """Each strategy that can weigh the teacher's logits, with each of its divergences."""
    return [
        (name, str(divergence))
        for name, strategy in space.strategies.items()
        if any(alpha < 1 for alpha in numbers_in(strategy.alpha))
        for _, divergence in plain_values(strategy.distill.logits)
    ]


# In the order in which they were found. Names stand in sweep.json and never change.
FAULTS = {
    "padding": Fault(
        "padded batches so that answers for a row depended on the other rows of its batch",
        _wrongly_padded,
    ),
    "attention maps": Fault(
        "compared attention maps after the student had dropped parts of them", _dropped_maps
    ),
    "squared error of several labels": Fault(
        "halved the squared error of several labels a row", _counted_no_twice
    ),
    "views of folds": Fault(
        "labeled the views of a row by a teacher that was trained on the row, despite folds",
        _views_that_the_teacher_saw,
    ),
    "high temperatures": Fault(
        f"computed divergences at temperatures above {HIGHEST_WITHOUT_FP64:,.0f} from rounding "
        "errors",
        _rounded_divergence,
    ),
    "means over tokens": Fault(
        "weighed the inner states of a part of a batch by its rows instead of its tokens",
        _tokens_weighed_by_rows,
    ),
    "label scale": Fault(
        "trained on labels of a large scale without standardizing them", _labels_on_a_large_scale
    ),
}


def mended_now(folder: SweepFolder, before: tuple[str, ...]) -> tuple[str, ...]:
    """The faults that the sweep's numbers are free of: all of them if it has no numbers yet."""
    return before if _has_numbers(folder) else tuple(FAULTS)


def check_untouched(folder: SweepFolder, space: SearchSpace, checked: Checked) -> None:
    """Raise SettingsConflict if trials would be added to numbers that a mended fault touched."""
    if not folder.exists() or not _has_numbers(folder):
        return
    for fault in touching_faults(EarlierSweep(folder, space, checked)):
        raise SettingsConflict(
            f"sweep {folder.name!r}: {fault}, which is "
            "mended now, so no trial can be added to its numbers; it can still be shown, compared "
            "and exported; --fresh or --name starts a new one"
        )


def touching_faults(sweep: EarlierSweep) -> Iterator[str]:
    """Each fault that is mended now and touched the sweep's numbers, in words."""
    facts = sweep.folder.read_facts()
    for name, fault in FAULTS.items():
        if name not in facts.mended and (touched := fault.touched(sweep)) is not None:
            yield f"kdsweep {facts.kdsweep} {fault.what} ({touched})"


def _has_numbers(folder: SweepFolder) -> bool:
    return folder.exists() and bool(folder.started_trials() or folder.read_facts().teachers)
