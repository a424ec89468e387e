"""How far the teachers of a cache are: after a worker's death, whether it got anywhere."""

from __future__ import annotations

import contextlib
from pathlib import Path

from kdsweep.core.trial_folder import TrialFolder


def made_so_far(cache: Path) -> dict[str, int]:
    """The name of each thing that was saved for a teacher -> the step after which it was.

    Those are checkpoints of runs that fine-tune, and, without a step, runs that are over, finished
    teachers, and logits. Several sweeps may use the cache: what another one saves counts too.
    """
    found = {}
    for run in _runs(cache):
        found[run.root.name] = run.saved_step() or 0
        if run.is_over:
            found[f"{run.root.name}/{run.result.name}"] = 0
    for pattern in ("teachers/*/teacher.json", "teachers/*.json", "logits/**/*.npy"):
        for file in cache.glob(pattern):
            # What is half-written starts with a dot.
            if not any(part.startswith(".") for part in file.relative_to(cache).parts):
                found[file.relative_to(cache).as_posix()] = 0
    return found


def last_saved_step(cache: Path) -> int:
    """The step of the checkpoint that was written last; 0 without one."""
    last, step = 0.0, 0
    for run in _runs(cache):
        # Another sweep may end one meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if (written := run.state.stat().st_mtime) > last:
                last, step = written, run.saved_step() or 0
    return step


def _runs(cache: Path) -> list[TrialFolder]:
    return [TrialFolder(folder) for folder in cache.glob("teachers/*-training")]
