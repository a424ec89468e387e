"""Choosing or combining several fine-tuned teachers: the best of several seeds, and folds.

It is the best of several seeds, or the teacher of all rows with one more for each fold, which
labels the rows that it hasn't seen. Each of them is made like any other teacher and cached by
itself, so an interruption loses none that is done. A record of which they are is written last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import Say, TaskData
from kdsweep.core.data.splits import fold_numbers
from kdsweep.core.evaluation.fidelity import sureness
from kdsweep.core.files import read_json, whole, write_json
from kdsweep.core.settings import TaskSettings, TeacherSettings
from kdsweep.core.split_settings import Fold
from kdsweep.core.teachers.artifact import Teacher, find_teacher, teacher_key
from kdsweep.core.teachers.fine_tuning import make_teacher
from kdsweep.core.teachers.logits import drop_fold_logits, teacher_logits
from kdsweep.core.training.callbacks import Callbacks, OnStep, be_quiet, never_stop
from kdsweep.errors import DamagedFile, TeacherError, TrialDiverged


def cached_teacher(task: TaskSettings, teacher: TeacherSettings, cache: Path) -> Teacher | None:
    """The teacher, if it and the teachers of its folds are in the cache."""
    key = teacher_key(task, teacher, load_task(task, cache))
    found = _cached(key, teacher, cache / "teachers")
    return None if found is None else _labelling(found, teacher)


def _labelling(made: Teacher, settings: TeacherSettings) -> Teacher:
    """The teacher with the precision that it labels in. Where nothing settled one, it doesn't
    follow `training.precision`: so it was in version 0.1.0."""
    return replace(made, precision=settings.settled_precision or "auto")


def made_teachers(
    task: TaskSettings, teachers: Sequence[TeacherSettings], cache: Path
) -> list[tuple[TeacherSettings, Teacher]]:
    """All of these teachers, the best on validation first; none if one isn't made yet."""
    made: list[tuple[TeacherSettings, Teacher]] = []
    for settings in teachers:
        teacher = cached_teacher(task, settings, cache)
        if teacher is None:
            return []
        made.append((settings, teacher))
    return sorted(made, key=lambda pair: -pair[1].validation[task.metric])


def _cached(key: str, teacher: TeacherSettings, folder: Path) -> Teacher | None:
    if teacher.folds is None and teacher.seeds == 1:
        return find_teacher(folder / key, trust_remote_code=teacher.trust_remote_code)
    record = folder / f"{key}.json"
    if not record.exists():
        return None
    try:
        with whole(record):
            return _as_recorded(record, folder, trust_remote_code=teacher.trust_remote_code)
    except DamagedFile:
        # It is written again, from the teachers that it is about.
        return None


def _as_recorded(record: Path, folder: Path, *, trust_remote_code: bool) -> Teacher | None:
    facts = read_json(record)
    keys = [facts["teacher"], *facts["folds"]]
    found, *folds = [
        find_teacher(folder / key, trust_remote_code=trust_remote_code) for key in keys
    ]
    if found is None or None in folds:
        return None  # the user removed one: it is made again
    selected = facts["selected"]
    if selected is not None:
        selected = {int(seed): reached for seed, reached in selected.items()}
    return replace(
        found,
        # Version 0.1.0 kept the time of the chosen seed alone.
        seconds=facts.get("seconds", found.seconds),
        selected=selected,
        folds=tuple(facts["folds"]),
        margin=facts["margin"],
        entropy=facts["entropy"],
    )


def prepare_teacher(
    task: TaskSettings,
    teacher: TeacherSettings,
    cache: Path,
    *,
    on_step: OnStep = never_stop,
    say: Say = be_quiet,
) -> Teacher:
    """The teacher from the cache; what isn't there yet is made, checked and selected first.

    Raises TeacherError if no model that was made for it learned enough, and Interrupted if
    `on_step` asked to stop.
    """
    data = load_task(task, cache, say=say)
    key = teacher_key(task, teacher, data)
    if (found := _cached(key, teacher, cache / "teachers")) is not None:
        return _labelling(found, teacher)
    callbacks = Callbacks(on_step, say)
    if teacher.folds is not None:
        made = _with_folds(task, teacher, data, cache, callbacks)
    elif teacher.seeds > 1:
        made = _best_of_seeds(task, teacher, data, cache, callbacks)
    else:
        return _labelling(make_teacher(task, teacher, data, cache, callbacks), teacher)
    facts = {
        "teacher": made.key,
        "selected": made.selected,
        "folds": made.folds,
        "margin": made.margin,
        "entropy": made.entropy,
        "seconds": made.seconds,
    }
    write_json(cache / "teachers" / f"{key}.json", facts)
    return _labelling(made, teacher)


def _best_of_seeds(
    task: TaskSettings,
    teacher: TeacherSettings,
    data: TaskData,
    cache: Path,
    callbacks: Callbacks,
) -> Teacher:
    """The best on validation; the first one of equals.

    Fine-tuning large models fails for some seeds and not for others (Dodge et al. 2020,
    https://arxiv.org/abs/2002.06305). A seed that learned nothing is skipped. If all of them
    learned nothing, that is an error.
    """
    say, metric = callbacks.say, task.metric
    made: dict[int, Teacher] = {}
    reached: dict[int, float | None] = {}
    failed: TeacherError | TrialDiverged | None = None
    first = teacher.training.seed
    for seed in range(first, first + teacher.seeds):
        say(f"teacher: seed {seed}, {len(reached) + 1} of {teacher.seeds}")
        training = teacher.training.model_copy(update={"seed": seed})
        one = teacher.model_copy(update={"seeds": 1, "training": training})
        try:
            made[seed] = make_teacher(task, one, data, cache, callbacks)
        except (TeacherError, TrialDiverged) as error:
            failed, reached[seed] = error, None
            say(f"teacher: seed {seed} is skipped: {error}")
        else:
            reached[seed] = made[seed].validation[metric]
    if not made:
        assert failed is not None
        raise failed
    best = max(made, key=lambda seed: made[seed].validation[metric])
    score = made[best].validation[metric]
    say(f"teacher: seed {best} is the best of {teacher.seeds}: validation {metric} {score:.4f}")
    seconds = sum(one.seconds for one in made.values())
    return replace(made[best], selected=reached, seconds=seconds)


def _with_folds(
    task: TaskSettings,
    teacher: TeacherSettings,
    data: TaskData,
    cache: Path,
    callbacks: Callbacks,
) -> Teacher:
    """The teacher of all rows, and for each fold of train one that is fine-tuned on the other
    folds and labels this one.

    Validation and test are labeled by the teacher of all rows. It hasn't seen them either, `model:
    teacher` takes layers from it, and it is better than the others, which had fewer rows.
    """
    assert teacher.folds is not None
    if task.left_out is not None:
        raise TeacherError(
            "teacher.folds: the task leaves out a fold itself (task.left_out); use one of the two"
        )
    on_step, say = callbacks.on_step, callbacks.say
    check_folds(data, teacher.folds)
    one = teacher.model_copy(update={"folds": None})
    whole = prepare_teacher(task, one, cache, on_step=on_step, say=say)
    keys = []
    seconds = whole.seconds
    for fold in range(teacher.folds):
        say(f"teacher: without fold {fold + 1} of {teacher.folds}")
        without = task.model_copy(update={"left_out": Fold(fold=fold, of=teacher.folds)})
        of_fold = prepare_teacher(without, one, cache, on_step=on_step, say=say)
        keys.append(of_fold.key)
        seconds += of_fold.seconds
    made = replace(whole, folds=tuple(keys), seconds=seconds)
    drop_fold_logits(made, data, cache)
    logits = teacher_logits(made, data, cache=cache, say=say)
    sure = sureness(np.asarray(logits), data.kind)
    return replace(made, margin=sure.get("margin"), entropy=sure.get("entropy"))


def check_folds(data: TaskData, folds: int) -> None:
    """Raise TeacherError if a fold would have no row."""
    rows = np.bincount(fold_numbers(data.train, folds, data.kind, data.split_rule), minlength=folds)
    if not rows.all():
        empty = int((rows == 0).sum())
        raise TeacherError(
            f"teacher.folds: with {folds} folds of {len(data.train):,} rows, {empty} have no row; "
            "set fewer folds"
        )
