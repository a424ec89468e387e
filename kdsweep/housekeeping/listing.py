"""The sweeps of a home, each as a line: how far it is, its best, its size. Read from its files.

No database is opened, and torch isn't imported: a home with a hundred sweeps is listed in seconds.
"""

from __future__ import annotations

import contextlib
import json
import operator
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from kdsweep import metric_names
from kdsweep.compare.finalists import Judged, judge
from kdsweep.config import SweepConfig, trials_of
from kdsweep.core.files import read_json
from kdsweep.errors import KdsweepError, first_line
from kdsweep.housekeeping.disk_use import artifacts_of_sweeps, bytes_of
from kdsweep.sweep.expected_seed_runs import finalist_runs, seeds_of
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.knowledge import Knowledge
from kdsweep.sweep.progress import OUTSIDE, Progress
from kdsweep.sweep.sweep_lock import Holder
from kdsweep.trial_id import TrialId

if TYPE_CHECKING:
    from kdsweep.sweep.facts import SweepFacts

State = Literal["running", "stopped", "done", "removing", "broken"]
SweepPhase = Literal["teacher", "search", "finalist", "confirm"]


@dataclass(frozen=True)
class BestStudent:
    """A trial, its metric on validation, and whether the report recommends its strategy."""

    trial: str
    metric: str
    validation: float
    recommended: bool


@dataclass(frozen=True)
class Counts:
    """Trials of the search, and runs of finalists and of confirm, that have ended, and how many
    there will be; of confirm, as far as that is known."""

    ended: int = 0
    trials: int = 0
    finalists_ended: int = 0
    finalists: int = 0
    confirmed: int = 0
    to_confirm: int = 0
    to_confirm_at_most: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*map(operator.add, astuple(self), astuple(other)))


@dataclass(frozen=True)
class ListedSweep:
    """One sweep. phase: what runs, or what comes next; None of a sweep that is done.

    removing: `kdsweep remove` didn't come to its end. last_used: seconds since 1970. problem: what
    of its files can't be read. open_trials: those that started and haven't ended.
    """

    name: str
    state: State
    last_used: float
    bytes: int = 0
    phase: SweepPhase | None = None
    counts: Counts | None = None
    best: BestStudent | None = None
    holder: Holder | None = None
    problem: str | None = None
    open_trials: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """As `kdsweep list --json` prints it."""
        return asdict(self)


def list_sweeps(home: Home) -> list[ListedSweep]:
    """Every sweep in this home, the last used first; broken ones too.

    Raises KdsweepError where home can't be read.
    """
    home.check_usable()
    artifacts = artifacts_of_sweeps(home)
    found: list[ListedSweep] = []
    for folder in _folders(home):
        size = bytes_of(folder.root) + sum(map(bytes_of, artifacts.get(folder.name, ())))
        found.append(describe(folder, size))
    return sorted(found, key=lambda one: (-one.last_used, one.name))


def _folders(home: Home) -> Iterator[SweepFolder]:
    if home.sweeps.is_dir():
        for root in home.sweeps.iterdir():
            if root.is_dir() and not root.name.startswith("."):
                yield SweepFolder(root)


def describe(folder: SweepFolder, size: int = 0) -> ListedSweep:
    """One sweep. size: its bytes."""
    holder = folder.holder()
    last_used = _last_used(folder)
    state: State
    if folder.removing.exists() or (holder is not None and holder.doing == "remove"):
        problem = None
        if holder is None:
            problem = f"its removal was interrupted; `kdsweep remove {folder.name}` finishes it"
        return ListedSweep(folder.name, "removing", last_used, size, holder=holder, problem=problem)
    if not folder.exists():
        state = "broken" if holder is None else "running"
        problem = f"{folder.facts} is missing" if holder is None else None
        return ListedSweep(folder.name, state, last_used, size, holder=holder, problem=problem)
    try:
        return _read(folder, holder, last_used, size)
    except (KdsweepError, OSError, LookupError, TypeError, ValueError) as error:
        state = "broken" if holder is None else "running"
        problem = _one_line(folder.facts, error)
        return ListedSweep(folder.name, state, last_used, size, holder=holder, problem=problem)


def _last_used(folder: SweepFolder) -> float:
    """When something was last written: a driver saves the clock every second."""
    times: list[float] = []
    for file in (folder.clock, folder.facts, folder.report, folder.removing):
        with contextlib.suppress(OSError):
            times.append(file.stat().st_mtime)
    if not times:
        with contextlib.suppress(OSError):
            times.append(folder.root.stat().st_mtime)
    return max(times, default=0.0)


# --- what the files of a sweep say ---------------------------------------------------------------


@dataclass
class _Trials:
    """What the folders of trials say. progress: of each strategy. confirmed: runs with a result.

    finalists: of each strategy, (trial, index of the seed) -> its metric; None where it failed.
    names: `distill-3` -> its metric on validation, of complete trials and runs of confirm.
    problem: the first file that can't be read.
    """

    progress: dict[str, Progress]
    confirmed: set[TrialId] = field(default_factory=set)
    finalists: dict[str, dict[tuple[int, int], float | None]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)
    problem: str | None = None


def _read(folder: SweepFolder, holder: Holder | None, last_used: float, size: int) -> ListedSweep:
    facts = folder.read_facts()
    # `on_done` is shown without its address. Whoever lists a home may not read its passwords.
    shown = {key: value for key, value in facts.sweep.items() if key != "on_done"}
    config = replace(facts, sweep=shown).config(folder.name, {})
    space = cast(dict[str, Any], facts.identity["space"])
    metric = str(space["task"]["metric"])
    changed = facts.changed
    outside = {one: changed[one].outside if one in changed else () for one in space["strategies"]}
    trials = _read_trials(folder, outside, metric)
    knowledge = Knowledge.of(config)
    left = {
        strategy: knowledge.left(progress, _trials_of(folder, config, strategy))
        for strategy, progress in trials.progress.items()
    }
    chosen = {strategy: _judged(trials, config, strategy).chosen for strategy in left}
    total = Counts()
    for strategy in left:
        seeds = _seeds(facts, config, chosen, strategy)
        total += _counts(trials, config, strategy, left[strategy], seeds)
    search_is_over = not any(left.values()) and not any(
        progress.running for progress in trials.progress.values()
    )
    is_done = (
        search_is_over
        and total.finalists_ended >= total.finalists
        and total.confirmed >= total.to_confirm_at_most
    )
    phase: SweepPhase | None = _phase(facts, total, search_is_over=search_is_over)
    state: State = "stopped"
    if holder is not None:
        state = "running"
    elif is_done:
        state, phase = "done", None
    best = _best(folder, trials, metric, is_done=is_done)
    return ListedSweep(
        folder.name,
        state,
        last_used,
        size,
        phase,
        total,
        best,
        holder,
        trials.problem,
        tuple(trials.open),
    )


def _phase(facts: SweepFacts, total: Counts, *, search_is_over: bool) -> SweepPhase:
    """What comes next, or runs."""
    if not search_is_over:
        has_teacher = facts.teachers or facts.teachers_found is None
        return "search" if has_teacher else "teacher"
    return "finalist" if total.finalists_ended < total.finalists else "confirm"


def _judged(trials: _Trials, config: SweepConfig, strategy: str) -> Judged:
    order, ended = trials.progress[strategy].order, trials.finalists.get(strategy, {})
    if config.cheapest is None:
        return judge(order, config.confirm.finalists, ended)
    # Which trial is confirmed depends on what students cost. The runs that there are tell it.
    reached: dict[int, tuple[float | None, ...]] = {}
    for (trial, _), value in ended.items():
        reached[trial] = (*reached.get(trial, ()), value)
    confirmed = [one.number for one in trials.confirmed if one.strategy == strategy]
    return Judged((), tuple(order), reached, confirmed[-1] if confirmed else None)


def _seeds(
    facts: SweepFacts, config: SweepConfig, chosen: Mapping[str, int | None], strategy: str
) -> tuple[int, int]:
    """How many seeds confirm the strategy, as far as that is known, and at most. chosen: the trial
    of each strategy that is confirmed."""
    least, most = seeds_of(config.confirm, len(chosen))
    if config.confirm.seeds != "auto":
        return least, most
    looked = facts.looked
    known = {name: number for name, number in chosen.items() if number is not None}
    if looked is not None and looked.trials == known and strategy in known:
        wanted = looked.wanted[strategy]
        return wanted, most if looked.is_open(strategy) else wanted
    first = (facts.confirm and facts.confirm.first) or least
    return min(max(least, first), config.confirm.most), most


def _counts(
    trials: _Trials, config: SweepConfig, strategy: str, left: int, seeds: tuple[int, int]
) -> Counts:
    """Of one strategy. left: how many trials are to be started. seeds: of confirm, as far as that
    is known, and at most. As `seed_runs` and `planned_runs` count, without the studies."""
    progress, confirm = trials.progress[strategy], config.confirm
    is_over = not left and not progress.running
    complete = len(progress.order) + left + len(progress.running)
    judged = _judged(trials, config, strategy)
    ended: set[int | None] = set()
    if is_over:
        ended = {
            one.seed_index
            for one in trials.confirmed
            if one.strategy == strategy and one.number == judged.chosen
        }
    judging = sum(map(len, judged.values.values())) if is_over else 0
    asked = finalist_runs(config, complete) if confirm.seeds else judging
    to_confirm = len({*ended, *range(seeds[0])}) if complete else 0
    return Counts(
        ended=progress.finished,
        trials=progress.counted + left,
        finalists_ended=judging,
        finalists=asked,
        confirmed=len(ended),
        to_confirm=to_confirm,
        to_confirm_at_most=max(to_confirm, seeds[1]) if complete else 0,
    )


def _trials_of(folder: SweepFolder, config: SweepConfig, strategy: str) -> int:
    """How many trials the strategy gets."""
    if config.sampler.type != "grid":
        return config.trials
    # A grid may be smaller. To count its points, the space is read.
    from kdsweep.config.space_loading import load_space

    return trials_of(load_space(folder.space, is_stored=True), config, strategy)


def _read_trials(
    folder: SweepFolder, outside: Mapping[str, Collection[int]], metric: str
) -> _Trials:
    """outside: of each strategy, the trials that count no longer."""
    found = _Trials({strategy: Progress() for strategy in outside})
    value_name = metric_names.validation(metric)
    for trial in folder.started_trials():
        if trial.strategy not in found.progress:
            continue
        if trial.phase == "search" and trial.number in outside[trial.strategy]:
            found.progress[trial.strategy].end(trial.number, OUTSIDE, None)
            continue
        root = folder.of_phase(trial.phase) / trial.name
        try:
            result = _read_result(root / "result.json")
            value = None
            if result is not None and result["state"] == "complete" and result["best"]:
                value = float(result["best"]["metrics"][value_name])
        except (KdsweepError, LookupError, TypeError, ValueError) as error:
            found.problem = found.problem or _one_line(root / "result.json", error)
            result, value = {"state": "failed"}, None
        if result is None:
            found.open.append(trial.name)
        elif trial.phase == "confirm":
            found.confirmed.add(trial)
        elif trial.seed_index is not None:
            judged = found.finalists.setdefault(trial.strategy, {})
            judged[trial.number, trial.seed_index] = value
        if trial.phase == "search":
            progress = found.progress[trial.strategy]
            if result is None:
                progress.running.add(trial.number)
            else:
                progress.end(trial.number, "failed" if value is None else "complete", value)
        if value is not None:
            found.values[trial.name] = value
    return found


def _read_result(file: Path) -> dict[str, Any] | None:
    # `TrialFolder` reads it too, and imports torch.
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return None
    found: dict[str, Any] = json.loads(text)
    return found


def _one_line(file: Path, error: Exception) -> str:
    if isinstance(error, KdsweepError):
        return " ".join(str(error).split())
    return f"{file} can't be read: {first_line(error)}"


def _best(
    folder: SweepFolder, trials: _Trials, metric: str, *, is_done: bool
) -> BestStudent | None:
    """The recommended student once the sweep is done, else the best of the search."""
    if is_done:
        with contextlib.suppress(KdsweepError, LookupError, TypeError):
            recommended = read_json(folder.report)["recommended"]
            name = TrialId(
                recommended["strategy"], recommended["trial"], recommended["seed_index"]
            ).name
            return BestStudent(name, metric, trials.values[name], recommended=True)
    bests = [
        (best[1], TrialId(strategy, best[0]).name)
        for strategy, progress in trials.progress.items()
        if (best := progress.best) is not None
    ]
    if not bests:
        return None
    value, name = max(bests, key=lambda one: one[0])
    return BestStudent(name, metric, value, recommended=False)
