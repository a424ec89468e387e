"""Files of ended trials that are broken or gone, made again from the study and what is left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from kdsweep.core.trial_folder import TrialResult
from kdsweep.errors import DamagedFile
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.open_sweep import OpenSweep
from kdsweep.sweep.studies import Studies
from kdsweep.sweep.swept_trial import SweptTrial
from kdsweep.trial_id import TrialId

RESTORE = "restore it from a copy, or start over with --fresh"


def broken_trials(
    folder: SweepFolder, studies: Studies, strategies: Iterable[str]
) -> list[TrialId]:
    """The trials of the search that have ended and whose settings or result can't be read."""
    return [
        trial
        for strategy in strategies
        for trial in (TrialId(strategy, one) for one in studies.progress(strategy).counted_ends)
        if _is_broken(folder.trial(trial))
    ]


def _is_broken(files: SweptTrial) -> bool:
    # A user may have removed a whole folder, to make room.
    return files.root.exists() and next(_damage(files), None) is not None


def _damage(files: SweptTrial) -> Iterator[DamagedFile]:
    for file, read in ((files.settings, files.read_settings), (files.result, files.read_result)):
        try:
            if read() is None:
                yield DamagedFile(f"{file} is gone", RESTORE)
        except DamagedFile as damage:
            yield DamagedFile(damage.what, RESTORE)


def mend_trials(sweep: OpenSweep) -> None:
    """Write them again. Raises DamagedFile where too little is left."""
    folder, studies, say = sweep.folder, sweep.studies, sweep.observer.say
    for trial in broken_trials(folder, studies, sweep.plan.space.strategies):
        files = folder.trial(trial)
        for damage in list(_damage(files)):
            if damage.what.startswith(str(files.settings)):
                files.settings.unlink(missing_ok=True)
                files.claim(studies.resume(trial).settings)
            elif (result := _result(folder, files, studies, sweep.metric)) is not None:
                files.write_result(result)
            elif files.is_over:
                raise damage
            else:
                say(f"{trial.name}: {damage}")
                continue
            say(f"{trial.name}: {damage.what}; it is made again from the study")


def _result(
    folder: SweepFolder, files: SweptTrial, studies: Studies, metric: str
) -> TrialResult | None:
    """The trial's result, as far as its study and its evaluations tell; None if that is too little.

    Its seconds are those of its last evaluation. No evaluation tells what a quantized student
    reaches.
    """
    state, value, reason = studies.end_of(files.id)
    evaluations = files.read_evaluations()
    steps, seconds = (evaluations[-1].step, evaluations[-1].seconds) if evaluations else (0, 0.0)
    result = TrialResult(state, steps, seconds, reason=reason)
    if state != "complete":
        return result
    best = next((one for one in evaluations if one.metrics.get(metric) == value), None)
    student = _costs_of_equal_student(folder, files, studies)
    is_quantized = files.read_settings().student.quantize != "none"
    if best is None or student is None or is_quantized:
        return None
    return replace(result, best=best, student=student)


def _costs_of_equal_student(
    folder: SweepFolder, files: SweptTrial, studies: Studies
) -> dict[str, float] | None:
    """Parameters, size and latency, of another trial with the same student."""
    own = files.read_settings().student
    for number in studies.progress(files.id.strategy).counted_ends:
        other = folder.trial(TrialId(files.id.strategy, number))
        if other.id == files.id or _is_broken(other):
            continue
        result = other.read_result()
        if result is not None and result.student and other.read_settings().student == own:
            return result.student
    return None
