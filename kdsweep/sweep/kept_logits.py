"""What a sweep kept of the test split, and what its students predict for validation.

A file that is damaged or gone is made again from the rows and the cache, where they still are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from kdsweep.compare.looks import Ended
from kdsweep.compare.records import SearchPredictions, TestLogits, TrialRecord
from kdsweep.config import Plan
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import TaskData
from kdsweep.core.files import read_array, write_array
from kdsweep.core.teachers.logits import stored_logits
from kdsweep.core.teachers.selection import made_teachers
from kdsweep.core.trial_folder import TrialResult, read_predictions
from kdsweep.errors import DamagedFile, DataError, KdsweepError
from kdsweep.sweep.earlier_rows import check_same_test_rows
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.input_check import check_pinned
from kdsweep.trial_id import TrialId

Runs = Mapping[TrialId, TrialResult]
RESTORE_LABELS = "restore it from a copy, or the rows that the sweep ran with"
WITHOUT_TEACHER = "delete it: students are then compared without this teacher"


def read_test_logits(plan: Plan, home: Home, confirmed: Mapping[str, Runs]) -> TestLogits | None:
    """What the confirmed students and the teachers put out for the test split.

    None where no student was judged on it. Raises DamagedFile for what can't be made again.
    """
    folder = home.sweep(plan.name)
    students = {name: _students_logits(folder, runs) for name, runs in confirmed.items()}
    if not any(students.values()):
        return None

    @cache
    def data() -> TaskData:
        return _same_data(plan, home)

    labels, teachers = _test_labels(plan, folder, data), _teachers_test_logits(plan, home, data)
    on_more_tests = {}
    for split in plan.space.task.splits.more_tests:
        like = _predictions_like(plan, folder, split)
        if (found := read_predictions(folder.teacher_predictions(split), like)) is not None:
            on_more_tests[split] = found
    test = TestLogits(plan.space.task.kind, labels, students, teachers, on_more_tests)
    check_same_test_rows(folder.read_facts(), plan.space.task.metric, confirmed, test)
    return test


def read_ended_seeds(
    plan: Plan, home: Home, confirmed: Mapping[str, Runs]
) -> tuple[np.ndarray, dict[str, Ended]]:
    """The labels of the test split, and what each ended run of confirm predicts for it.

    Raises DamagedFile for what can't be made again.
    """
    folder = home.sweep(plan.name)
    labels = _test_labels(plan, folder, lambda: _same_data(plan, home))
    predictions = plan.space.task.kind.predictions
    ended: dict[str, Ended] = {}
    for strategy, runs in confirmed.items():
        students = _students_logits(folder, runs)
        found = {index: predictions(logits) for index, logits in students.items()}
        ended[strategy] = {**{run.seed_index or 0: None for run in runs}, **found}
    return labels, ended


def _students_logits(folder: SweepFolder, runs: Runs) -> dict[int, np.ndarray]:
    """By the index of the seed, of those that have a student."""
    like = _logits_like(folder)
    return {
        run.seed_index or 0: folder.trial(run).read_test_logits(like)
        for run, result in runs.items()
        if result.test
    }


def _test_labels(plan: Plan, folder: SweepFolder, data: Callable[[], TaskData]) -> np.ndarray:
    """The labels that the sweep's students were judged by, whatever the data holds now."""
    file, like = folder.test_labels, _labels_like(plan, folder, "test")
    damage: DamagedFile | None = None
    if file.exists():
        try:
            return read_array(file, todo=RESTORE_LABELS, like=like)
        except DamagedFile as error:
            damage = error
    try:
        found = data().test.labels
    except DataError as error:
        if damage is not None:
            raise damage from error
        raise
    # Sweeps of version 0.1 have a hash of the rows alone.
    if like is not None:
        _write_again(file, found)
    return found


def _same_data(plan: Plan, home: Home) -> TaskData:
    """The task's rows. Raises DataError if they aren't those that the sweep ran with."""
    folder = home.sweep(plan.name)
    task, facts = plan.space.task, folder.read_facts()
    check_pinned(
        facts.pins,
        task,
        (),
        home.cache,
        sweep=folder.name,
        what_to_do="restore it to compare students",
        ran_with=facts.kdsweep,
    )
    return load_task(task, home.cache, publish=False)


def _teachers_test_logits(
    plan: Plan, home: Home, data: Callable[[], TaskData]
) -> tuple[np.ndarray | None, ...]:
    """As many as `sweep.json` has teachers, in its order."""
    folder = home.sweep(plan.name)
    like = _logits_like(folder)
    number_of_teachers = len(folder.read_facts().teachers)

    @cache
    def cached() -> list[np.ndarray | None]:
        """What the cache has. Sweeps of version 0.1 have them there alone."""
        made = made_teachers(plan.space.task, plan.space.teachers(), home.cache)
        if len(made) != number_of_teachers:
            return [None] * number_of_teachers
        return [stored_logits(teacher, data(), cache=home.cache) for _, teacher in made]

    found: list[np.ndarray | None] = []
    for number in range(number_of_teachers):
        file = folder.teacher_test_logits(number)
        damage: DamagedFile | None = None
        if file.exists():
            try:
                found.append(read_array(file, todo=WITHOUT_TEACHER, like=like))
                continue
            except DamagedFile as error:
                damage = error
        logits = cached()[number] if like is None else _if_readable(cached, number)
        if logits is None and damage is not None:
            raise damage
        if logits is not None and like is not None:
            _write_again(file, logits)
        found.append(logits)
    return tuple(found)


def _if_readable(cached: Callable[[], list[np.ndarray | None]], number: int) -> np.ndarray | None:
    """The logits of this teacher, or None where rows, models or the cache don't give them."""
    try:
        return cached()[number]
    except (KdsweepError, OSError):
        return None


def _write_again(file: Path, array: np.ndarray) -> None:
    """Put the array where a damaged file was, or none. A home may be one to read only."""
    with contextlib.suppress(OSError, KdsweepError):
        file.parent.mkdir(exist_ok=True)
        write_array(file, np.asarray(array))


def read_search_predictions(
    plan: Plan, folder: SweepFolder, strategy: str, records: Iterable[TrialRecord]
) -> SearchPredictions:
    """What the strategy's complete trials and runs of confirm predict for validation."""
    labels: np.ndarray | None = None
    students: dict[TrialId, np.ndarray] = {}
    complete = [
        one.id
        for one in records
        if one.id.strategy == strategy and one.state == "complete" and not one.id.is_finalist
    ]
    like = _predictions_like(plan, folder, "validation")
    for trial in complete:
        found = folder.trial(trial).read_validation_predictions(like)
        if found is not None:
            labels, students[trial] = found.labels, found.predictions
    return SearchPredictions(
        complete=sum(trial.phase == "search" for trial in complete),
        labels=labels,
        trials={one.number: found for one, found in students.items() if one.phase == "search"},
        confirmed={
            one.seed_index: found for one, found in students.items() if one.seed_index is not None
        },
    )


# --- what a whole file looks like; None for a sweep of version 0.1, which counted no rows ---------


def _labels_like(plan: Plan, folder: SweepFolder, split: str) -> np.ndarray | None:
    pins = folder.read_facts().pins
    pin = pins.splits.get(split)
    if pin is None or pin.rows is None or pins.label_names is None:
        return None
    return plan.space.task.kind.empty_labels(pin.rows, len(pins.label_names))


def _predictions_like(plan: Plan, folder: SweepFolder, split: str) -> np.ndarray | None:
    like = _labels_like(plan, folder, split)
    return None if like is None else np.stack([like, like])


def _logits_like(folder: SweepFolder) -> np.ndarray | None:
    pins = folder.read_facts().pins
    pin = pins.splits.get("test")
    if pin is None or pin.rows is None or pins.label_names is None:
        return None
    return np.empty((pin.rows, len(pins.label_names)), dtype=np.float32)
