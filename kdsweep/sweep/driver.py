"""The one loop: ask -> start -> events -> tell -> track. Only the driver asks, tells and writes the databases."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from kdsweep import __version__
from kdsweep.config import Plan
from kdsweep.core.checkpoint import Evaluation, TrialFolder, TrialResult
from kdsweep.core.data import load_task
from kdsweep.core.device import pick_device
from kdsweep.core.files import read_json, write_atomically, write_json
from kdsweep.core.teacher import teacher_logits
from kdsweep.core.training import cached_teacher, prepare_teacher, train
from kdsweep.errors import BudgetSpent, DataError, Interrupted, KdsweepError, TeacherError, TrialDiverged
from kdsweep.sweep.home import Home
from kdsweep.sweep.observer import Observer
from kdsweep.sweep.reading import build_report, open_studies, trials_left
from kdsweep.sweep.studies import Ticket
from kdsweep.tracking import Tracker


class Driver:
    """One sweep being run. The caller holds the sweep's lock."""

    def __init__(self, plan: Plan, home: Home, observer: Observer) -> None:
        self.plan, self.home, self.observer = plan, home, observer
        self.folder = home.sweep(plan.name)
        self.metric = f"validation/{plan.space.task.metric}"
        self.stop = _Stop(observer)
        self.clock = _Clock(self.folder.clock, plan.sweep.budget.hours, plan.sweep.budget.gpu_hours)

    def run(self) -> dict[str, Any]:
        self.clock.start()
        self._write_facts()
        self.studies = open_studies(self.plan, self.home)
        self.tracker = Tracker(
            self.home.tracking_uri(self.plan.sweep.tracking), experiment=self.plan.experiment, sweep=self.plan.name, artifacts=self.home.artifacts
        )
        self.parent = self.tracker.start_sweep(_sweep_params(self.plan))
        self.tracker.save_views(self.plan.space.task.metric)
        with self.stop.listening():
            try:
                self._teacher()
                self._search()
            except Interrupted as interrupted:
                self.tracker.pause(self.parent)
                if not self.clock.spent:
                    raise Interrupted(f"{interrupted}; run the same command again to go on") from interrupted
            except (KdsweepError, OSError):
                self.tracker.fail(self.parent)
                raise
            finally:
                self.clock.save()
        return self._report()

    def _write_facts(self) -> None:
        plan = self.plan
        facts = {"kdsweep": __version__, "identity": plan.identity, "experiment": plan.experiment, "sweep": plan.sweep.model_dump(mode="json")}
        if self.folder.facts.exists():
            facts = read_json(self.folder.facts) | facts
        write_atomically(self.folder.space, lambda file: YAML().dump(plan.resolved, file))
        write_json(self.folder.facts, facts)

    # --- the teacher -------------------------------------------------------------------------------------------------

    def _teacher(self) -> None:
        """Prepare what all trials share, and record the teacher."""
        space = self.plan.space
        data = load_task(space.task)
        for note in data.notes:
            self.observer.say(f"data: {note}")
        self.observer.say("data: " + ", ".join(f"{name} {len(split):,} rows" for name, split in data.splits.items()))
        if not space.needs_teacher:
            self.observer.say("teacher: no strategy needs one")
            return
        assert space.teacher is not None
        reused = cached_teacher(space.task, space.teacher, self.home.cache) is not None
        teacher = prepare_teacher(space.task, space.teacher, self.home.cache, on_step=self._on_step("teacher"), say=self.observer.say)
        reached = f"validation {space.task.metric} {teacher.validation[space.task.metric]:.4f}"
        self.observer.say(f"teacher: {'from the cache, with its logits' if reused else 'ready'} ({reached})")
        teacher_logits(teacher, data, cache=self.home.cache, say=self.observer.say)
        known: dict[str, Any] = {
            "validation": teacher.validation,
            "parameters": teacher.parameters,
            "size_mb": teacher.size_mb,
            "latency_ms": teacher.latency_ms,
        }
        write_json(self.folder.facts, read_json(self.folder.facts) | {"teacher": known})
        evaluations = TrialFolder(teacher.training_folder).read_evaluations() if teacher.training_folder else []
        ended = evaluations[-1].timestamp if evaluations else int((teacher.folder / "teacher.json").stat().st_mtime * 1000)
        started = evaluations[0].timestamp - int(1000 * evaluations[0].seconds) if evaluations else ended
        run_id = self.tracker.start_teacher(_flat("teacher", space.teacher.model_dump(mode="json", exclude_none=True)), started)
        for evaluation in evaluations:
            self.tracker.log(run_id, evaluation)
        metrics = {f"student/{name}": float(known[name]) for name in ("parameters", "size_mb", "latency_ms")}
        metrics |= {f"best/validation/{name}": value for name, value in teacher.validation.items()} | {"seconds": teacher.seconds}
        self.tracker.finish(run_id, "complete", metrics=metrics, timestamp=ended)

    # --- the search --------------------------------------------------------------------------------------------------

    def _search(self) -> None:
        for strategy in self.plan.space.strategies:
            for number in self.studies.open_trials(strategy):
                self._trial(self.studies.go_on(strategy, number))
        while (chosen := self._next_strategy()) is not None:
            if self.clock.is_spent():
                raise Interrupted("the budget is spent")
            self._trial(self.studies.ask(chosen))

    def _next_strategy(self) -> str | None:
        """The strategy with the fewest trials of those that have some left: they advance side by side."""
        left = [strategy for strategy in self.plan.space.strategies if trials_left(self.plan, self.studies, strategy)]
        return min(left, key=lambda strategy: self.studies.progress(strategy).started, default=None)

    def _trial(self, ticket: Ticket) -> None:
        place = TrialFolder(self.folder.trial(ticket.strategy, ticket.number))
        run_id = self.tracker.start_trial(ticket.strategy, ticket.number, ticket.settings)
        self._show_progress()
        state, reason = self._train(ticket, place, run_id)
        result = place.read_result()
        assert result is not None
        timestamp = _ended_at(place)
        metrics = {"seconds": result.seconds} | {f"student/{name}": value for name, value in (result.student or {}).items()}
        tags = {"kdsweep.reason": reason} if reason else {}
        value = None
        if state == "complete":
            assert result.best is not None
            value = result.best.metrics[self.metric]
            metrics |= {f"best/{name}": number for name, number in result.best.metrics.items() if name.startswith("validation/")}
            if self._is_kept(ticket, value):
                if place.student.exists():
                    self.tracker.upload(run_id, place.student, "student")
                tags["kdsweep.student"] = "kept"
        # MLflow first: a driver that dies between the two finds the trial still open and ends it again.
        self.tracker.finish(run_id, state, metrics=metrics, timestamp=timestamp, tags=tags)
        self.studies.tell(ticket, state, value, reason)
        shutil.rmtree(place.student, ignore_errors=True)  # uploaded, or not among the best
        self._drop_others(ticket.strategy)
        self.clock.save()
        self._show_progress()
        shown = f"{self.plan.space.task.metric} {value:.4f}" if value is not None else reason or f"after {result.steps} steps"
        self.observer.say(f"{ticket.name}: {state}, {shown} ({result.seconds:.0f} s; {_settled(ticket)})")

    def _train(self, ticket: Ticket, place: TrialFolder, run_id: str) -> tuple[str, str | None]:
        """Train, track and perhaps prune one trial; how it ended, and why if it failed. `place` has a result afterwards."""
        earlier = place.read_result()
        if earlier is not None and earlier.state in ("pruned", "failed"):
            return earlier.state, None  # told by a driver that died before it could write so
        evaluations: list[Evaluation] = []
        try:
            stream = train(ticket.settings, place.root, cache=self.home.cache, on_step=self._on_step(ticket.name), say=self.observer.say)
            for evaluation in stream:
                evaluations.append(evaluation)
                self.tracker.log(run_id, evaluation)
                self.clock.save()
                prune = self.studies.report(ticket, len(evaluations), evaluation.metrics[self.metric])
                if prune and not place.result.exists():
                    stream.close()
                    place.write_result(TrialResult("pruned", evaluation.step, evaluation.seconds))
                    return "pruned", None
            return "complete", None
        except Interrupted:
            self.tracker.pause(run_id)
            raise
        except TrialDiverged as diverged:
            place.write_result(TrialResult("diverged", diverged.step, evaluations[-1].seconds if evaluations else 0.0))
            return "diverged", str(diverged)
        except (DataError, TeacherError, OSError):
            raise  # these would meet every trial
        except Exception as error:
            reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
            write_atomically(place.root / "error.txt", lambda file: file.write(traceback.format_exc().encode()))
            place.write_result(TrialResult("failed", evaluations[-1].step if evaluations else 0, evaluations[-1].seconds if evaluations else 0.0))
            return "failed", reason

    def _on_step(self, name: str) -> Callable[[int, int], bool]:
        def on_step(step: int, total_steps: int) -> bool:
            self.observer.step(name, step, total_steps)
            return self.stop.requested or self.clock.is_spent()

        return on_step

    def _is_kept(self, ticket: Ticket, value: float) -> bool:
        progress, keep = self.studies.progress(ticket.strategy), self.plan.sweep.keep.students
        better = [number for number in progress.order if number != ticket.number and self._value(ticket.strategy, number) >= value]
        return len(better) < keep

    def _value(self, strategy: str, number: int) -> float:
        best = TrialFolder(self.folder.trial(strategy, number)).read_result()
        return best.best.metrics[self.metric] if best and best.best else float("-inf")

    def _drop_others(self, strategy: str) -> None:
        for number in self.studies.progress(strategy).order[self.plan.sweep.keep.students :]:
            self.tracker.drop_student(strategy, number)

    def _show_progress(self) -> None:
        strategies = list(self.plan.space.strategies)
        progress = {strategy: self.studies.progress(strategy) for strategy in strategies}
        self.observer.progress(progress, {strategy: self.studies.trials_for(strategy) for strategy in strategies}, self.clock.seconds)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _report(self) -> dict[str, Any]:
        report = build_report(self.plan, self.home, self.studies)
        report["state"] = "stopped" if self.clock.spent else "done"
        if all(found["best"] is None for found in report["strategies"].values()):
            if self.clock.spent:
                raise BudgetSpent("the budget was spent before any trial finished; give it more time (budget) and run the same command again")
            raise KdsweepError(f"no trial finished: all failed, diverged or were pruned; see `kdsweep status {self.plan.name}` and {self.folder.trials}")
        write_json(self.folder.report, report)
        self.tracker.upload(self.parent, self.folder.report)
        self.tracker.tag(self.parent, {"mlflow.note.content": report["verdict"]})
        if not self.clock.spent:
            self.tracker.finish(self.parent, "complete", metrics={"seconds": self.clock.seconds}, timestamp=time.time_ns() // 1_000_000)
            self._register_best(report)
        else:
            self.observer.say("the budget is spent; what is open is saved: raise it and run the same command to go on")
        return report

    def _register_best(self, report: dict[str, Any]) -> None:
        """The best student of the sweep is a registered model, unless an earlier sweep's is better."""
        found = {strategy: entry["best"] for strategy, entry in report["strategies"].items() if entry["best"] is not None}
        strategy = max(found, key=lambda name: float(found[name]["validation"]))
        if self.plan.sweep.keep.students:
            line = self.tracker.register_best(self.plan.experiment, strategy, found[strategy]["trial"], self.metric, found[strategy]["validation"])
            self.observer.say(line)


def _sweep_params(plan: Plan) -> dict[str, Any]:
    return _flat("task", plan.resolved["task"]) | _flat("sampler", plan.sweep.sampler.model_dump()) | _flat("pruner", plan.sweep.pruner.model_dump())


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {key: inner for part, found in value.items() for key, inner in _flat(f"{name}.{part}", found).items()}
    return {} if value is None else {name: value}


def _settled(ticket: Ticket) -> str:
    return ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in ticket.params.items())


def _ended_at(place: TrialFolder) -> int:
    """When the result was written, in milliseconds: the same however often it is asked."""
    return int(place.result.stat().st_mtime * 1000)


class _Stop:
    """The first signal asks to save and stop; the second stops at once."""

    def __init__(self, observer: Observer) -> None:
        self.observer, self.requested = observer, False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self.observer.say("stopping: the trial is saved at its next step (once more stops at once)")


class _Clock:
    """Seconds spent by a sweep over all its runs, and by its trials on a GPU; what the budget is held against."""

    def __init__(self, file: Path, hours: float | None, gpu_hours: float | None) -> None:
        self.file, self.hours, self.gpu_hours = file, hours, gpu_hours
        self.before = read_json(file) if file.exists() else {"seconds": 0.0, "gpu_seconds": 0.0}
        self.started = time.monotonic()
        self.on_gpu = pick_device().type == "cuda"
        self.spent = False
        self.running = False

    @property
    def seconds(self) -> float:
        return float(self.before["seconds"]) + (time.monotonic() - self.started if self.running else 0.0)

    @property
    def gpu_seconds(self) -> float:
        return float(self.before["gpu_seconds"]) + (time.monotonic() - self.started if self.running and self.on_gpu else 0.0)

    def start(self) -> None:
        self.started, self.running = time.monotonic(), True

    def is_spent(self) -> bool:
        over = self.hours is not None and self.seconds >= 3600 * self.hours
        over |= self.gpu_hours is not None and self.gpu_seconds >= 3600 * self.gpu_hours
        self.spent |= over
        return self.spent

    def save(self) -> None:
        write_json(self.file, {"seconds": self.seconds, "gpu_seconds": self.gpu_seconds})
