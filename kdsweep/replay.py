"""`kdsweep replay`: train a trial again and say whether the numbers are the same."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch

from kdsweep import metric_names
from kdsweep.config.sweep import InlineEngine, RayEngine
from kdsweep.core.cache_lock import cache_in_use
from kdsweep.core.device import pick_device, using_threads
from kdsweep.core.files import locked, only_read
from kdsweep.core.settings import TrialSettings
from kdsweep.core.teachers.threads import with_teacher_threads
from kdsweep.core.trial import train
from kdsweep.core.trial_folder import Evaluation, TrialFolder, TrialResult
from kdsweep.core.versions import PACKAGES, Versions, of_package
from kdsweep.errors import DamagedFile, Interrupted, KdsweepError, TrialDiverged
from kdsweep.formatting import count
from kdsweep.report.model import Report
from kdsweep.sweep.engines.slots import settle_engine
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.input_check import check_pinned, models_of_trial
from kdsweep.sweep.mended_faults import FAULTS, EarlierSweep, touching_faults
from kdsweep.sweep.observer import Observer
from kdsweep.sweep.results import stored_space
from kdsweep.sweep.swept_trial import SweptTrial
from kdsweep.sweep.trained_by import versions_of

RUN_TO_THEIR_END = ("complete", "diverged")
Verdict = Literal["identical", "different"]


@dataclass(frozen=True)
class Difference:
    """A number that is not the same: `metric` at optimizer step `step`.

    recorded, replayed: None where one of the two has no such number.
    """

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

    @property
    def words(self) -> str:
        where = f"{self.metric} at step {self.step}"
        if self.recorded is None:
            return where
        now = "none" if self.replayed is None else f"{self.replayed:.6g}"
        values = f"{self.recorded:.6g}, now {now}"
        if math.isfinite(self.size):
            return f"the largest difference is {self.size:.3g}, in {where} ({values})"
        return f"{where}: {values}"

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"size": self.size if math.isfinite(self.size) else None}


@dataclass(frozen=True)
class Replay:
    """A trial that was trained again.

    state: how the trial had ended. evaluations, replayed: how many were recorded, and how many the
    replay has. numbers: how many were compared. why: what may explain a difference.
    other_versions: of packages that trained the trial, in words; None where they are the same.
    folder: the replay's files. student: its folder, if the trial was complete.
    """

    sweep: str
    trial: str
    state: str
    evaluations: int
    replayed: int
    numbers: int
    differences: tuple[Difference, ...]
    why: tuple[str, ...]
    other_versions: str | None
    device: str
    threads: int
    folder: Path
    student: Path | None

    @property
    def verdict(self) -> Verdict:
        return "different" if self.differences else "identical"

    @property
    def largest(self) -> Difference | None:
        return max(self.differences, key=lambda one: one.size, default=None)

    @property
    def words(self) -> str:
        """The verdict in one line."""
        if self.largest is None:
            evaluations = count(self.evaluations, "evaluation")
            despite = f", despite {self.other_versions}" if self.other_versions else ""
            return f"{self.trial}: the same numbers, bit for bit ({evaluations}){despite}"
        why = "; ".join(self.why)
        return f"{self.trial}: not the same numbers; {self.largest.words}; possible reasons: {why}"

    def to_json(self) -> dict[str, object]:
        return {
            "sweep": self.sweep,
            "trial": self.trial,
            "state": self.state,
            "verdict": self.verdict,
            "evaluations": {"recorded": self.evaluations, "replayed": self.replayed},
            "numbers": self.numbers,
            "differences": len(self.differences),
            "largest": self.largest.to_json() if self.largest else None,
            "why": list(self.why),
            "other_versions": self.other_versions,
            "device": self.device,
            "threads": self.threads,
            "folder": str(self.folder),
            "student": str(self.student) if self.student else None,
            "says": self.words,
        }


def replay(home: Home, sweep: str, trial: str, observer: Observer | None = None) -> Replay:
    """Train the trial again, as far as it went, and compare each metric of each evaluation.

    Its files stay in sweeps/NAME/replays until the next one, or in a temporary folder where home
    can't be written. Raises UnknownSweep, Interrupted, KdsweepError where nothing was recorded.
    """
    observer = observer or Observer()
    folder = home.existing(sweep)
    recorded = folder.trial(folder.find_trial(trial))
    result, evaluations = recorded.read_result(), recorded.read_evaluations()
    if result is not None:
        evaluations = [one for one in evaluations if one.step <= result.steps]
    if not evaluations and (result is None or result.state != "diverged"):
        state = "" if result is None else f" ({result.state})"
        raise KdsweepError(
            f"{trial}: it was never evaluated{state}, so there is nothing to compare"
        )
    settings = recorded.read_settings()
    facts = folder.read_facts()
    check_pinned(
        facts.pins,
        settings.task,
        models_of_trial(settings),
        home.cache,
        sweep=sweep,
        what_to_do="restore it and replay again",
        ran_with=facts.kdsweep,
    )
    # A folder deeper than the sweep's own trials: a driver that starts tidies those.
    target = TrialFolder(_place_for_replays(folder) / recorded.root.relative_to(folder.root))
    engine = settle_engine(folder.read_config().engine)
    waiting = functools.partial(observer.say, f"{trial}: waiting for another replay of this trial")
    try:
        lock = locked(target.root.with_name(f".{trial}.lock"), waiting)
        with _like(engine, facts.teacher_threads), lock, cache_in_use(home.cache):
            shutil.rmtree(target.root, ignore_errors=True)
            observer.say(f"{trial}: training it again in {target.root}")
            run = _Run(trial, settings, target, home.cache, observer)
            again, end = run.train(len(evaluations), result)
            device, threads = str(pick_device()), torch.get_num_threads()
    except OSError as error:
        where, problem = error.filename or target.root, error.strerror or error
        raise KdsweepError(f"{where}: {problem}; solve this and replay again") from error
    differences = compare(evaluations, again, result, end)
    why = reasons(folder, recorded, device, threads, home.cache) if differences else []
    return Replay(
        sweep=sweep,
        trial=trial,
        state=result.state if result else "running",
        evaluations=len(evaluations),
        replayed=len(again),
        numbers=sum(len(one.metrics) for one in evaluations) + len(_test(result)),
        differences=tuple(differences),
        why=tuple(why),
        other_versions=other_versions(folder, recorded),
        device=device,
        threads=threads,
        folder=target.root,
        student=target.student if target.student.exists() else None,
    )


def _place_for_replays(folder: SweepFolder) -> Path:
    """In the sweep's folder, or in a new one for temporary files where home can only be read."""
    if only_read(folder.root):
        return Path(tempfile.mkdtemp(prefix="kdsweep-replay-"))
    return folder.root / "replays"


# --- training again ------------------------------------------------------------------------------


def threads_of(engine: InlineEngine | RayEngine) -> int:
    """How many threads torch had: those of a slot for a worker of Ray, else torch's own choice."""
    return engine.cpus_per_trial if engine.type == "ray" else torch.get_num_threads()


@contextlib.contextmanager
def _like(engine: InlineEngine | RayEngine, teacher_threads: int | None) -> Iterator[None]:
    """Compute as the engine's slots did: as many threads, also for teachers, and no GPU where they
    had none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    without_gpu = engine.type == "ray" and engine.gpus_per_trial == 0
    if without_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        with using_threads(threads_of(engine)), with_teacher_threads(teacher_threads):
            yield
    finally:
        if without_gpu and visible is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        elif without_gpu and visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible


@dataclass(frozen=True)
class _Run:
    """One training of a trial into `target`."""

    name: str
    settings: TrialSettings
    target: TrialFolder
    cache: Path
    observer: Observer

    def train(
        self, most: int, recorded: TrialResult | None
    ) -> tuple[list[Evaluation], TrialResult | None]:
        """The evaluations, and the result if the trial ran to its end.

        most: where the recorded trial was stopped early, stop after as many evaluations.
        """
        again: list[Evaluation] = []
        to_its_end = recorded is not None and recorded.state in RUN_TO_THEIR_END
        metric = self.settings.task.metric
        training = train(
            self.settings,
            self.target.root,
            cache=self.cache,
            on_step=self._on_step,
            say=self.observer.say,
        )
        try:
            for evaluation in training:
                again.append(evaluation)
                reached = evaluation.metrics[metric_names.validation(metric)]
                self.observer.say(
                    f"{self.name}: epoch {evaluation.epoch:.2f}, validation {metric} {reached:.4f}"
                )
                if not to_its_end and len(again) >= most:
                    break
        except TrialDiverged as diverged:
            self.observer.say(f"{self.name}: {diverged}")
        except KeyboardInterrupt:
            raise Interrupted("the replay was stopped; run it again to start over") from None
        finally:
            training.close()
            self.observer.over(self.name)
        return again, self.target.read_result()

    def _on_step(self, step: int, total_steps: int) -> bool:
        """Whether to stop: never."""
        self.observer.step(self.name, step, total_steps)
        return False


# --- comparing -----------------------------------------------------------------------------------


def compare(
    recorded: Sequence[Evaluation],
    replayed: Sequence[Evaluation],
    result: TrialResult | None,
    result_again: TrialResult | None,
) -> list[Difference]:
    """Every number that is not the same, bit for bit; NaN equals NaN.

    Numbers that only the replay has are no difference: a newer kdsweep may measure more.
    """
    found: list[Difference] = []
    again = {one.step: one.metrics for one in replayed}
    for one in recorded:
        found += _differences(one.step, one.metrics, again.get(one.step, {}))
    if result is not None and result.state in RUN_TO_THEIR_END:
        end = result_again or TrialResult("stopped", replayed[-1].step if replayed else 0, 0.0)
        if (end.state, end.steps) != (result.state, result.steps):
            name = f"the end ({result.state}, now {end.state} at step {end.steps})"
            found.append(Difference(result.steps, name, None, None))
        found += _differences(result.steps, _test(result), _test(end))
        if result.best is not None and end.best is not None:
            # Those of a quantized student, which none of the evaluations has.
            own = _differences(result.best.step, result.best.metrics, end.best.metrics)
            found += [one for one in own if one not in found]
    return found


def _test(result: TrialResult | None) -> dict[str, float]:
    test = (result.test if result else None) or {}
    return {metric_names.test(name): value for name, value in test.items()}


def _differences(
    step: int, recorded: Mapping[str, float], replayed: Mapping[str, float]
) -> list[Difference]:
    return [
        Difference(step, name, value, replayed.get(name))
        for name, value in recorded.items()
        if not _same(value, replayed.get(name))
    ]


def _same(recorded: float, replayed: float | None) -> bool:
    if replayed is None:
        return False
    return recorded == replayed or (math.isnan(recorded) and math.isnan(replayed))


def _faults(folder: SweepFolder, recorded: SweptTrial, cache: Path) -> list[str]:
    """The mended faults that touched the trial's strategy."""
    space = stored_space(folder)
    strategy = recorded.id.strategy
    if set(FAULTS) <= set(folder.read_facts().mended) or strategy not in space.strategies:
        return []
    from kdsweep.sweep.preflight import check_models

    # A fault of another strategy explains nothing here.
    alone = space.model_copy(update={"strategies": {strategy: space.strategies[strategy]}})
    return list(touching_faults(EarlierSweep(folder, alone, check_models(alone, cache))))


def other_versions(folder: SweepFolder, recorded: SweptTrial) -> str | None:
    """`other versions: kdsweep 0.1.0, now 0.2.0`, as far as it is known what trained the trial."""
    facts = folder.read_facts()
    report = None
    if folder.report.exists():
        with contextlib.suppress(DamagedFile):
            report = Report.read(folder.report)
    # The report's versions are the last run's. They are this trial's too if kdsweep hasn't changed.
    of_last_run = report.reproduce.versions if report and report.reproduce else {}
    if facts.unversioned is not None:
        of_last_run = {}
    trained, now = versions_of(recorded, facts), [Versions.now()]
    then = {
        name: of_package(name, trained) or tuple(filter(None, [of_last_run.get(name)]))
        for name in PACKAGES
    }
    current = {name: of_package(name, now) for name in PACKAGES}
    if of_last_run:
        for package, known in facts.plugins.values():
            then[package], current[package] = (known,), (version(package),)
    others = [
        f"{name} {', then '.join(found)}, now {current[name][0]}"
        for name, found in then.items()
        if found and found != current[name]
    ]
    return f"other versions: {'; '.join(others)}" if others else None


def reasons(
    folder: SweepFolder, recorded: SweptTrial, device: str, threads: int, cache: Path
) -> list[str]:
    """What may explain a difference, as far as it was recorded; certain reasons come first."""
    faults = _faults(folder, recorded, cache)
    found = [f"{fault}, which is mended now" for fault in faults]
    if (others := other_versions(folder, recorded)) is not None:
        found.append(others)
    result = recorded.read_result()
    if result is not None and result.micro_batch is not None:
        found.append(
            "memory ran out in the recorded run, so batches were split into micro-batches of "
            f"{result.micro_batch} rows, which adds numbers in another order"
        )
    if faults:
        # They are reason enough.
        return found
    if device == "cuda":
        found.append("a GPU adds numbers in another order each time, and other GPUs differ too")
    else:
        found.append(
            "the recorded run had another machine, a GPU or another number of threads (here: a CPU "
            f"with {threads}), so the last bits of sums differ"
        )
    return found
