"""Which teacher it is, where more than one is fine-tuned for it: the best of several seeds, and folds that label what they haven't seen.

Each of them is made like any other teacher and is kept in the cache by itself, so that an interruption costs none of those that were
made. Which were made and what came of it is written last, beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import Say, TaskData
from kdsweep.core.data.splits import fold_numbers
from kdsweep.core.evaluation.fidelity import sureness
from kdsweep.core.files import read_json, write_json
from kdsweep.core.settings import Fold, TaskSettings, TeacherSettings
from kdsweep.core.teachers.artifact import Teacher, find_teacher, teacher_key
from kdsweep.core.teachers.logits import drop_logits, teacher_logits
from kdsweep.errors import TeacherError, TrialDiverged

# Fine-tunes one teacher, or takes it from the cache.
Make = Callable[[TaskSettings, TeacherSettings], Teacher]


def find_selected(task: TaskSettings, teacher: TeacherSettings, cache: Path) -> Teacher | None:
    """The teacher with all that belongs to it if it was made before, or None."""
    key, folder = teacher_key(task, teacher, load_task(task, cache)), cache / "teachers"
    if teacher.folds is None and teacher.seeds == 1:
        return find_teacher(folder / key)
    record = folder / f"{key}.json"
    if not record.exists():
        return None
    facts = read_json(record)
    found = find_teacher(folder / facts["teacher"])
    if found is None or any(find_teacher(folder / fold) is None for fold in facts["folds"]):
        return None  # one was removed by hand: it is made again
    selected = (
        None
        if facts["selected"] is None
        else {int(seed): reached for seed, reached in facts["selected"].items()}
    )
    return replace(
        found,
        selected=selected,
        folds=tuple(facts["folds"]),
        margin=facts["margin"],
        entropy=facts["entropy"],
    )


def select(
    task: TaskSettings, teacher: TeacherSettings, cache: Path, make: Make, say: Say
) -> Teacher:
    """The teacher that the settings mean. Raises TeacherError where none of those that were fine-tuned for it has learned enough."""
    if (found := find_selected(task, teacher, cache)) is not None:
        return found
    if teacher.folds is not None:
        made = _with_folds(task, teacher, cache, make, say)
    elif teacher.seeds > 1:
        made = _best_of_seeds(task, teacher, make, say)
    else:
        return make(task, teacher)
    facts = {
        "teacher": made.key,
        "selected": made.selected,
        "folds": made.folds,
        "margin": made.margin,
        "entropy": made.entropy,
    }
    write_json(
        cache / "teachers" / f"{teacher_key(task, teacher, load_task(task, cache))}.json", facts
    )
    return made


def _best_of_seeds(task: TaskSettings, teacher: TeacherSettings, make: Make, say: Say) -> Teacher:
    """Fine-tuning large models fails for some seeds and not for others (Dodge et al. 2020, https://arxiv.org/abs/2002.06305): a seed that
    learned nothing is passed over, and is an error only where all are such. Of equals the first is taken."""
    made: dict[int, Teacher] = {}
    reached: dict[int, float | None] = {}
    failed: TeacherError | TrialDiverged | None = None
    for seed in range(teacher.training.seed, teacher.training.seed + teacher.seeds):
        say(f"teacher: seed {seed}, {len(reached) + 1} of {teacher.seeds}")
        one = teacher.model_copy(
            update={"seeds": 1, "training": teacher.training.model_copy(update={"seed": seed})}
        )
        try:
            made[seed] = make(task, one)
        except (TeacherError, TrialDiverged) as error:
            failed, reached[seed] = error, None
            say(f"teacher: seed {seed} is passed over: {error}")
        else:
            reached[seed] = made[seed].validation[task.metric]
    if not made:
        assert failed is not None
        raise failed
    best = max(made, key=lambda seed: made[seed].validation[task.metric])
    say(
        f"teacher: seed {best} is the best of {teacher.seeds}: validation {task.metric} {made[best].validation[task.metric]:.4f}"
    )
    return replace(made[best], selected=reached)


def _with_folds(
    task: TaskSettings, teacher: TeacherSettings, cache: Path, make: Make, say: Say
) -> Teacher:
    """The teacher of all rows, and beside it one for each fold of train, fine-tuned without that fold, which labels it.

    Rows of validation and test are labelled by the teacher of all rows: it has not seen them either, it is the one that `model: teacher`
    takes layers from, and it is better than any of the others, which had fewer rows.
    """
    assert teacher.folds is not None
    if task.left_out is not None:
        raise TeacherError(
            "teacher.folds: the task leaves a fold out itself (task.left_out); give one of the two"
        )
    data = load_task(task, cache)
    check_folds(data, teacher.folds)
    one = teacher.model_copy(update={"folds": None})
    whole = select(task, one, cache, make, say)
    keys = []
    for fold in range(teacher.folds):
        say(f"teacher: without fold {fold + 1} of {teacher.folds}")
        keys.append(
            select(
                task.model_copy(update={"left_out": Fold(fold=fold, of=teacher.folds)}),
                one,
                cache,
                make,
                say,
            ).key
        )
    made = replace(whole, folds=tuple(keys))
    drop_logits(made, data, cache)  # of folds that were removed
    sure = sureness(np.asarray(teacher_logits(made, data, cache=cache, say=say)))
    return replace(made, margin=sure["margin"], entropy=sure["entropy"])


def check_folds(data: TaskData, folds: int) -> None:
    """Raise TeacherError where a fold would have no row."""
    rows = np.bincount(fold_numbers(data.train.texts, folds), minlength=folds)
    if not rows.all():
        raise TeacherError(
            f"teacher.folds: {folds} folds of {len(data.train):,} rows leave {int((rows == 0).sum())} without a row; ask for fewer"
        )
