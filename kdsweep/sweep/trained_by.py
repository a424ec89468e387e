"""Which versions of the packages that decide its numbers trained the trials of a sweep.

A resume may have newer ones than the run before. Each trial notes its own (`versions.json`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kdsweep.core.versions import Versions
from kdsweep.report.model import TrainedBy
from kdsweep.sweep.facts import SweepFacts
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.swept_trial import SweptTrial
from kdsweep.trial_id import TrialId


def unversioned(folder: SweepFolder, before: SweepFacts, own: str) -> str | None:
    """The version of the trials that noted none, if another version, `own`, runs the sweep now.

    before: the sweep's facts before this run.
    """
    if before.kdsweep == own:
        return None
    trials = folder.started_trials()
    noted = all(folder.trial(trial).versions.exists() for trial in trials)
    return None if noted else before.kdsweep


def versions_of(trial: SweptTrial, facts: SweepFacts) -> tuple[Versions, ...]:
    """What trained the trial, the first version first, as far as it is known."""
    earlier = facts.unversioned or facts.kdsweep
    noted = trial.read_versions() or (Versions(),)
    return tuple(one if one.kdsweep else replace(one, kdsweep=earlier) for one in noted)


def trained_by(
    folder: SweepFolder, facts: SweepFacts, trials: Iterable[TrialId]
) -> tuple[TrainedBy, ...]:
    """How many of the trials each version trained; empty where none of them noted that."""
    found: dict[tuple[Versions, ...], list[TrialId]] = {}
    any_noted = False
    for trial in trials:
        files = folder.trial(trial)
        is_noted = files.versions.exists()
        any_noted = any_noted or is_noted
        # Without a version from before, it failed too early to note one.
        if is_noted or facts.unversioned is not None:
            found.setdefault(versions_of(files, facts), []).append(trial)
    if not any_noted:
        return ()
    return tuple(
        TrainedBy(
            versions=versions,
            trials=sum(one.phase == "search" for one in ids),
            finalist_runs=sum(one.phase == "finalist" for one in ids),
            confirm_runs=sum(one.phase == "confirm" for one in ids),
        )
        for versions, ids in found.items()
    )
