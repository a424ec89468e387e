"""What a sweep's folder and studies say, without running anything: for `status`, `compare` and the end of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kdsweep.compare.report import summarize
from kdsweep.config import Plan, SweepConfig
from kdsweep.config.space import load_space
from kdsweep.core.files import read_json
from kdsweep.errors import SweepLocked
from kdsweep.sweep.clock import use_of_slots
from kdsweep.sweep.home import Home, SweepFolder
from kdsweep.sweep.studies import Progress, Studies


def open_studies(plan: Plan, home: Home, say: Callable[[str], None] = lambda line: None) -> Studies:
    return Studies(home.storage_url(plan.sweep.storage), plan.name, plan.space, plan.sweep, say)


def trials_left(plan: Plan, studies: Studies, strategy: str) -> int:
    """How many trials of the strategy are still to be asked for; none where its patience is spent."""
    progress, patience = studies.progress(strategy), plan.sweep.budget.patience
    if patience is not None and progress.best is not None and progress.since_best >= patience:
        return 0
    return max(0, studies.trials_for(strategy) - progress.started)


def build_report(plan: Plan, home: Home, studies: Studies) -> dict[str, Any]:
    """The report of a sweep as it stands."""
    folder = home.sweep(plan.name)
    strategies = {strategy: _outcome(folder, studies, strategy, studies.progress(strategy)) for strategy in plan.space.strategies}
    return summarize(plan.name, plan.space.task.metric, read_json(folder.facts).get("teacher"), strategies)


def _outcome(folder: SweepFolder, studies: Studies, strategy: str, progress: Progress) -> dict[str, Any]:
    counts = {"complete": progress.complete, "pruned": progress.pruned, "failed": progress.failed}
    if progress.best is None:
        return {"trials": counts, "best": None}
    number, value = progress.best
    trial = folder.trial(strategy, number)
    best = {
        "trial": number,
        "params": studies.params(strategy, number),
        "settings": read_json(trial / "settings.json"),
        "validation": value,
        "student": read_json(trial / "result.json")["student"],
    }
    return {"trials": counts, "best": best}


def report(home: Home, name: str) -> dict[str, Any]:
    """The report of sweep `name` as it stands now. Raises UnknownSweep."""
    plan, studies = recorded(home, name)
    return build_report(plan, home, studies)


def status(home: Home, name: str) -> dict[str, Any]:
    """How far sweep `name` is: trials and best of each strategy, seconds spent and left. Raises UnknownSweep."""
    plan, studies = recorded(home, name)
    folder = home.existing(name)
    clock = read_json(folder.clock) if folder.clock.exists() else {}
    strategies: dict[str, Any] = {}
    seconds: list[float] = []
    for strategy in plan.space.strategies:
        progress = studies.progress(strategy)
        results = [folder.trial(strategy, number) / "result.json" for number in range(progress.started)]
        seconds += [read_json(result)["seconds"] for result in results if result.exists()]
        counts = {"complete": progress.complete, "pruned": progress.pruned, "failed": progress.failed, "running": len(progress.running)}
        best = None if progress.best is None else {"trial": progress.best[0], "validation": progress.best[1]}
        strategies[strategy] = counts | {"left": trials_left(plan, studies, strategy), "best": best}
    left = sum(counts["left"] + counts["running"] for counts in strategies.values())
    return {
        "sweep": name,
        "metric": plan.space.task.metric,
        "state": "running" if is_running(folder) else "done" if not left else "stopped",
        "strategies": strategies,
        "seconds_spent": clock.get("seconds", 0.0),
        "gpu_hours_spent": clock.get("gpu_seconds", 0.0) / 3600,
        "seconds_left": left * sum(seconds) / len(seconds) if seconds else None,
        "budget": plan.sweep.budget.model_dump(),
        "slots": use_of_slots(clock),
    }


def recorded(home: Home, name: str) -> tuple[Plan, Studies]:
    """A sweep as its folder has it. Raises UnknownSweep."""
    folder = home.existing(name)
    facts = read_json(folder.facts)
    plan = Plan(name, load_space(folder.space), SweepConfig.model_validate(folder.read_sweep()), facts["identity"]["space"])
    return plan, open_studies(plan, home)


def is_running(folder: SweepFolder) -> bool:
    """Whether a driver is at work on the sweep."""
    try:
        with folder.locked():
            return False
    except SweepLocked:
        return True
