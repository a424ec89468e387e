"""`kdsweep replay`: train a trial again from what was recorded, and say whether the numbers are the same."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from kdsweep import __version__
from kdsweep.config.sweep import InlineEngine, RayEngine
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.unlabelled import load_unlabelled
from kdsweep.core.device import pick_device
from kdsweep.core.files import locked, read_json
from kdsweep.core.settings import TrialSettings
from kdsweep.core.trial import train
from kdsweep.core.trial_folder import Evaluation, TrialFolder, TrialResult
from kdsweep.errors import (
    DataError,
    Interrupted,
    KdsweepError,
    TrialDiverged,
)
from kdsweep.report.model import Report
from kdsweep.sweep.engines.slots import settle_engine
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.observer import Observer
from kdsweep.sweep.swept_trial import SweptTrial

COMPARED_VERSIONS = ("torch", "transformers", "numpy")
Verdict = Literal["identical", "different"]


@dataclass(frozen=True)
class Difference:
    """A number that came out another: `metric` at optimizer step `step`; None where one of the two has no such number."""

    step: int
    metric: str
    recorded: float | None
    replayed: float | None

    @property
    def size(self) -> float:
        """How far apart they are; infinite where one is missing or not finite."""
        if self.recorded is None or self.replayed is None:
            return math.inf
        apart = abs(self.recorded - self.replayed)
        return apart if math.isfinite(apart) else math.inf


def replay(home: Home, sweep: str, trial: str, observer: Observer | None = None) -> dict[str, Any]:
    """Train the trial again, as far as it went, and compare each metric of each evaluation.

    What is made anew (the student of a trial that was complete among it) stays under sweeps/NAME/replays until the next replay of the
    trial. Raises UnknownSweep, KdsweepError where nothing was recorded, and Interrupted.
    """
    observer = observer or Observer()
    folder = home.existing(sweep)
    recorded = folder.trial(folder.find_trial(trial))
    result, evaluations = recorded.read_result(), recorded.read_evaluations()
    if result is not None:
        evaluations = [one for one in evaluations if one.step <= result.steps]
    if not evaluations and (result is None or result.state != "diverged"):
        raise KdsweepError(
            f"{trial}: nothing was recorded to compare with: it was never evaluated{'' if result is None else f' ({result.state})'}"
        )
    settings = TrialSettings.model_validate(read_json(recorded.settings))
    check_rows(home, folder, settings)
    # A folder deeper than the sweep's own trials: a driver that begins tidies those.
    target = TrialFolder(folder.root / "replays" / recorded.root.relative_to(folder.root))
    engine = settle_engine(folder.read_config().engine)
    waiting = functools.partial(observer.say, f"{trial}: another replay of it is at work; waiting")
    try:
        with _like(engine), locked(target.root.with_name(f".{trial}.lock"), waiting):
            shutil.rmtree(target.root, ignore_errors=True)
            observer.say(f"{trial}: training it again in {target.root}")
            again, end = _train_again(
                settings, target, home.cache, trial, len(evaluations), result, observer
            )
            device, threads = str(pick_device()), torch.get_num_threads()
    except OSError as error:
        raise KdsweepError(
            f"{error.filename or target.root}: {error.strerror or error}; mend it and replay again"
        ) from error
    found = compare(evaluations, again, result, end)
    why = [] if not found else reasons(folder, recorded, device, threads)
    return {
        "sweep": sweep,
        "trial": trial,
        "state": result.state if result else "running",
        "verdict": "different" if found else "identical",
        "evaluations": {"recorded": len(evaluations), "replayed": len(again)},
        "numbers": sum(len(one.metrics) for one in evaluations)
        + len((result.test or {}) if result else {}),
        "differences": len(found),
        "largest": _as_json(max(found, key=lambda one: one.size)) if found else None,
        "why": why,
        "device": device,
        "threads": threads,
        "folder": str(target.root),
        "student": str(target.student) if target.student.exists() else None,
        "says": _say(trial, evaluations, found, why),
    }


def check_rows(home: Home, folder: SweepFolder, settings: TrialSettings) -> None:
    """Raise DataError where the task's rows are not those that the sweep ran with: other rows, other numbers."""
    recorded = folder.read_facts().data or {}
    data = load_task(settings.task, home.cache, publish=False)
    now = {name: split.key for name, split in data.splits.items()}
    if settings.task.unlabelled is not None:
        now["unlabelled"] = load_unlabelled(settings.task, data, home.cache, publish=False)[0].key
    if changed := [name for name, key in recorded.items() if now.get(name) != key]:
        raise DataError(
            f"sweep {folder.name!r}: the rows of {' and '.join(changed)} have changed since it ran; put the data back as it was to replay a trial"
        )


# --- training again --------------------------------------------------------------------------------------------------


def threads_of(engine: InlineEngine | RayEngine) -> int:
    """How many threads torch had: a worker of Ray has those of its slot, this process torch's own choice."""
    return engine.cpus_per_trial if engine.type == "ray" else torch.get_num_threads()


@contextlib.contextmanager
def _like(engine: InlineEngine | RayEngine) -> Iterator[None]:
    """Compute as the engine's slots did: with their threads, and without a GPU where they had none."""
    before, hidden = torch.get_num_threads(), engine.type == "ray" and engine.gpus_per_trial == 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    torch.set_num_threads(threads_of(engine))
    if hidden:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if hidden and visible is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        elif hidden and visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible


def _train_again(
    settings: TrialSettings,
    target: TrialFolder,
    cache: Path,
    name: str,
    most: int,
    recorded: TrialResult | None,
    observer: Observer,
) -> tuple[list[Evaluation], TrialResult | None]:
    """The evaluations, and the result where the trial was trained to its end. A trial that was given up is given up again."""

    def on_step(step: int, total_steps: int) -> bool:
        observer.step(name, step, total_steps)
        return False

    again: list[Evaluation] = []
    to_its_end = recorded is not None and recorded.state in ("complete", "diverged")
    training = train(settings, target.root, cache=cache, on_step=on_step, say=observer.say)
    try:
        for evaluation in training:
            again.append(evaluation)
            observer.say(
                f"{name}: epoch {evaluation.epoch:.2f}, validation {settings.task.metric} {evaluation.metrics[f'validation/{settings.task.metric}']:.4f}"
            )
            if not to_its_end and len(again) >= most:
                break
    except TrialDiverged as diverged:
        observer.say(f"{name}: {diverged}")
    except KeyboardInterrupt:
        raise Interrupted("the replay was stopped; the same command begins it anew") from None
    finally:
        training.close()
        observer.over(name)
    return again, target.read_result()


# --- comparing -------------------------------------------------------------------------------------------------------


def compare(
    recorded: Sequence[Evaluation],
    replayed: Sequence[Evaluation],
    result: TrialResult | None,
    result_again: TrialResult | None,
) -> list[Difference]:
    """Every number that is not the same, bit for bit; NaN is itself. Numbers that only the replay has are no difference: a newer
    kdsweep may measure more."""
    found: list[Difference] = []
    again = {one.step: one.metrics for one in replayed}
    for one in recorded:
        metrics = again.get(one.step, {})
        found += _differences(one.step, one.metrics, metrics)
    if result is not None and result.state in ("complete", "diverged"):
        ended = result_again or TrialResult("stopped", replayed[-1].step if replayed else 0, 0.0)
        if (ended.state, ended.steps) != (result.state, result.steps):
            found.append(
                Difference(
                    result.steps,
                    f"the end ({result.state}, now {ended.state} at step {ended.steps})",
                    None,
                    None,
                )
            )
        found += _differences(
            result.steps,
            {f"test/{name}": value for name, value in (result.test or {}).items()},
            _test(ended),
        )
    return found


def _test(result: TrialResult) -> dict[str, float]:
    return {f"test/{name}": value for name, value in (result.test or {}).items()}


def _differences(
    step: int, recorded: dict[str, float], replayed: dict[str, float]
) -> list[Difference]:
    pairs = ((name, value, replayed.get(name)) for name, value in recorded.items())
    return [
        Difference(step, name, value, other)
        for name, value, other in pairs
        if value != other and not (value != value and other != other)
    ]


def _as_json(difference: Difference) -> dict[str, Any]:
    return asdict(difference) | {
        "size": difference.size if math.isfinite(difference.size) else None
    }


def reasons(folder: SweepFolder, recorded: SweptTrial, device: str, threads: int) -> list[str]:
    """What may have made the numbers others, as far as it was recorded; what certainly did comes first."""
    found = []
    report = Report.from_json(read_json(folder.report)) if folder.report.exists() else None
    then = dict(report.reproduce.versions) if report and report.reproduce else {}
    then["kdsweep"] = folder.read_facts().kdsweep
    now = {name: version(name) for name in COMPARED_VERSIONS} | {"kdsweep": __version__}
    if other := [
        f"{name} {then[name]}, now {now[name]}"
        for name in now
        if then.get(name, now[name]) != now[name]
    ]:
        found.append(f"other versions: {'; '.join(other)}")
    result = recorded.read_result()
    if result is not None and result.micro_batch is not None:
        found.append(
            f"memory ran out then, and batches were cut into micro-batches of {result.micro_batch} rows: sums in another order"
        )
    if device == "cuda":
        found.append(
            "a GPU adds numbers in another order each time, and another GPU in yet another"
        )
    else:
        found.append(
            f"another machine, a GPU or another number of threads then (here the CPU with {threads}): sums in another order differ in their last bits"
        )
    return found


def _say(
    trial: str, evaluations: Sequence[Evaluation], found: Sequence[Difference], why: Sequence[str]
) -> str:
    count = len(evaluations)
    if not found:
        return f"{trial}: the same numbers, bit for bit ({count} evaluation{'s' if count != 1 else ''})"
    largest = max(found, key=lambda one: one.size)
    if math.isfinite(largest.size):
        what = f"the largest difference is {largest.size:.3g}, in {largest.metric} at step {largest.step} ({largest.recorded:.6g}, now {largest.replayed:.6g})"
    else:
        values = (
            ""
            if largest.recorded is None
            else f": {largest.recorded:.6g}, now {'none' if largest.replayed is None else f'{largest.replayed:.6g}'}"
        )
        what = f"{largest.metric} at step {largest.step}{values}"
    return f"{trial}: not the same numbers; {what}; why that may be: {'; '.join(why)}"
