"""What a person sees: live progress on a terminal, plain lines elsewhere, and tables of the facts that `--json` prints."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kdsweep.compare.findings import Pair, ParetoEntry
from kdsweep.core.settings import TrialSettings
from kdsweep.report.model import ConfirmResult, Measured, Report, StrategyResult, TeacherFacts
from kdsweep.report.sentences import more_tests_in_words, teachers_in_words
from kdsweep.sweep.budget import say_use
from kdsweep.sweep.observer import Observer
from kdsweep.sweep.progress import Progress

if TYPE_CHECKING:
    from kdsweep.sweep.status import SweepStatus

REFRESH_PER_SECOND = 4
PLAIN_LINE_EVERY_SECONDS = 30.0
WIDTH_WHEN_PIPED = 140
MOST_SLOTS_SHOWN = 16


@contextlib.contextmanager
def observing(*, stderr: bool = False) -> Iterator[Observer]:
    """An observer that draws on the terminal, or prints lines where there is none."""
    console = _console(stderr=stderr)
    if not console.is_terminal:
        yield _Lines(console)
        return
    live = _LiveView(console)
    with Live(
        get_renderable=live.render,
        console=console,
        refresh_per_second=REFRESH_PER_SECOND,
        transient=True,
    ):
        yield live


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = WIDTH_WHEN_PIPED
    return console


class _Lines(Observer):
    """A line for each event, and now and then one for the steps."""

    def __init__(self, console: Console) -> None:
        self.console, self.told = console, time.monotonic()

    def say(self, line: str) -> None:
        self.console.print(line, markup=False)
        self.told = time.monotonic()

    def step(self, name: str, step: int, total_steps: int) -> None:
        if time.monotonic() - self.told > PLAIN_LINE_EVERY_SECONDS:
            self.say(f"{name}: step {step} of {total_steps}")


class _LiveView(Observer):
    """One line for each running trial, one for each strategy, one for time and trials left."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.running: dict[str, tuple[int, int]] = {}
        self.first_step: dict[str, tuple[int, float]] = {}
        self.strategies: dict[str, Progress] = {}
        self.trials: dict[str, int] = {}
        self.confirmed = (0, 0)
        self.seconds, self.seconds_at = 0.0, time.monotonic()
        self.first_finished, self.search_since = 0, time.monotonic()

    def say(self, line: str) -> None:
        self.console.print(line, markup=False)

    def step(self, name: str, step: int, total_steps: int) -> None:
        self.first_step.setdefault(name, (step, time.monotonic()))
        self.running = self.running | {
            name: (step, total_steps)
        }  # a new one: the drawing thread walks the old

    def over(self, name: str) -> None:
        self.first_step.pop(name, None)
        self.running = {other: steps for other, steps in self.running.items() if other != name}

    def progress(
        self,
        strategies: dict[str, Progress],
        trials: dict[str, int],
        confirmed: tuple[int, int],
        seconds: float,
    ) -> None:
        first = not self.strategies
        self.strategies, self.trials, self.confirmed = strategies, trials, confirmed
        if first:
            self.first_finished, self.search_since = self._finished(), time.monotonic()
        self.seconds, self.seconds_at = seconds, time.monotonic()

    def render(self) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        shown = list(self.running.items())
        for name, (step, total) in shown[:MOST_SLOTS_SHOWN]:
            first, since = self.first_step.get(name, (step, time.monotonic()))
            rate = (step - first) / max(time.monotonic() - since, 1e-3)
            grid.add_row(
                name,
                ProgressBar(total=total, completed=step, width=30),
                f"step {step} of {total}, {rate:.1f} a second",
            )
        if len(shown) > MOST_SLOTS_SHOWN:
            grid.add_row(f"and {len(shown) - MOST_SLOTS_SHOWN} more")
        for strategy, progress in self.strategies.items():
            best = (
                f"best {progress.best[1]:.4f} (trial {progress.best[0]})"
                if progress.best
                else "nothing yet"
            )
            grid.add_row(
                strategy,
                ProgressBar(total=self.trials[strategy], completed=progress.finished, width=30),
                best,
            )
        if self.confirmed[1]:
            grid.add_row(
                "confirm",
                ProgressBar(total=self.confirmed[1], completed=self.confirmed[0], width=30),
                f"{self.confirmed[0]} of {self.confirmed[1]} runs",
            )
        return Group(grid, Text(self._time_line(), style="dim"))

    def _finished(self) -> int:
        return sum(progress.finished for progress in self.strategies.values()) + self.confirmed[0]

    def _time_line(self) -> str:
        spent = (
            self.seconds + time.monotonic() - self.seconds_at
            if self.strategies
            else time.monotonic() - self.seconds_at
        )
        finished = self._finished()
        left = sum(self.trials.values()) + self.confirmed[1] - finished
        here = finished - self.first_finished
        ahead = (
            f", about {duration((time.monotonic() - self.search_since) / here * left)} left"
            if here
            else ""
        )
        return f"{duration(spent)} spent{ahead}" + (f", {left} left" if self.strategies else "")


def duration(seconds: float) -> str:
    """Seconds as a person would say them: 42 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


# --- tables ----------------------------------------------------------------------------------------------------------


def show_report(report: Report, home: Path, *, full_sweep: str | None = None) -> None:
    """The verdict, each strategy against the teacher, every pair, and what to do next.

    full_sweep: the command that runs the full sweep.
    """
    console = _console()
    console.print(_strategies(report))
    console.print(report.verdict, markup=False)
    for split, words in more_tests_in_words(report).items():
        console.print(f"On {split}: {words}.", markup=False)
    for what, words in teachers_in_words(report):
        console.print(f"{what}: {words}.", markup=False)
    if report.pareto is not None:
        console.print(_pareto(report.pareto, report.metric))
    for question in report.questions:
        console.print(f"\n{question.question}", style="bold", markup=False)
        console.print(f"  {question.answer}", markup=False)
    if len(report.pairs) > 1:
        console.print()
        console.print(_pairs(report.pairs, report.metric))
    in_home = "" if home == Path("runs") else f" --home {shlex.quote(str(home))}"
    next_steps = {
        f"kdsweep ui {report.sweep}{in_home}": (
            "every trial, its curves and its student in MLflow's UI"
        )
    }
    if full_sweep:
        next_steps[f"{full_sweep}{in_home}"] = (
            "the full sweep: 20 trials a strategy, all rows, 5 seeds"
        )
    console.print("\nWhat next:", markup=False)
    for command, why in next_steps.items():
        console.print(f"  {command}", markup=False)
        console.print(f"    {why}", style="dim", markup=False)


UNITS = {"latency": "ms", "size": "MB", "parameters": ""}


def _pareto(front: Sequence[ParetoEntry], metric: str) -> Table:
    table = Table(
        title="Pareto front: no other student beats one of these in everything",
        title_justify="left",
    )
    costs = [name for name in UNITS if front and name in front[0].costs]
    table.add_column("student", no_wrap=True)
    for name in (metric, *costs):
        table.add_column(name, justify="right")
    for one in front:
        cells = [_cost(name, one.costs[name]) for name in costs]
        table.add_row(one.id.name, f"{one.validation:.4f}", *cells)
    return table


def _cost(objective: str, value: float) -> str:
    if objective == "parameters":
        return f"{value:,.0f}"
    return f"{value:.2f} {UNITS[objective]}"


def _strategies(report: Report) -> Table:
    table = Table(title=f"{report.sweep}: the best trial of each strategy", title_justify="left")
    table.add_column("strategy", no_wrap=True)
    table.add_column("settled values", min_width=16)
    for name in (
        "search:\nvalidation",
        "confirmed:\ntest (95%)",
        "of the\nteacher",
        "size",
        "latency\np50/p95",
        "slot\nhours",
        "trials",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    teacher = report.teacher
    if teacher:
        tested = "" if teacher.test is None else f"{teacher.test:.4f}"
        reached = (report.metric, f"{teacher.validation:.4f}", tested, "")
        costs = (_size(teacher), _latency(teacher), "", "")
        table.add_row("teacher", *reached, *costs, end_section=True)
    for strategy, found in report.strategies.items():
        is_winner = report.winner is not None and report.winner.strategy == strategy
        table.add_row(strategy, *_result_cells(found), style="bold" if is_winner else None)
    return table


def _result_cells(found: StrategyResult) -> tuple[str, ...]:
    """A strategy's row without its name."""
    best, confirm, counts = found.best, found.confirm, found.trials
    by_state = {"complete": counts.complete, "pruned": counts.pruned, "failed": counts.failed}
    trials = "\n".join(f"{count} {state}" for state, count in by_state.items() if count)
    spent = (f"{found.slot_hours:.2f}", trials)
    if best is None:
        return ("no trial finished", "", "", "", "", "", *spent)
    retention = ""
    if confirm and confirm.retention is not None:
        retention = f"{100 * confirm.retention:.1f}%"
    return (
        settled_values(best.settings),
        f"{best.validation:.4f}\ntrial {best.trial}",
        _confirmed(confirm),
        retention,
        _size(best.student),
        _latency(best.student),
        *spent,
    )


def _confirmed(confirm: ConfirmResult | None) -> str:
    if confirm is None:
        return ""
    if confirm.mean is None:
        return "no seed finished"
    interval = f" ({confirm.ci95[0]:.3f} to {confirm.ci95[1]:.3f})" if confirm.ci95 else ""
    seeds = f"{confirm.seeds} seed{'s' if confirm.seeds > 1 else ''}"
    if confirm.failed:
        seeds += f", {confirm.failed} failed"
    return f"{confirm.mean:.4f}{interval}\n{seeds}"


def _pairs(pairs: Sequence[Pair], metric: str) -> Table:
    table = Table(title=f"every pair, by test {metric}", title_justify="left")
    table.add_column("a - b", no_wrap=True)
    for name in ("points", "95%", "p (Holm)"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    for pair in pairs:
        points = "" if pair.difference is None else f"{100 * pair.difference:+.1f}"
        interval = ""
        if pair.ci95:
            low, high = pair.ci95
            interval = f"{100 * low:+.1f} to {100 * high:+.1f}"
        p_value = "" if pair.p is None else f"{pair.p:.3f}"
        table.add_row(f"{pair.a} - {pair.b}", points, interval, p_value, pair.verdict)
    return table


def show_reports(reports: Sequence[Report], ranks: dict[str, float]) -> None:
    """Several sweeps: tasks by strategies, and each strategy's average rank."""
    console = _console()
    names = list(dict.fromkeys(name for report in reports for name in report.strategies))
    table = Table(
        title="each strategy's best trial: mean on test (95%), or what the search reached on "
        "validation (val.)",
        title_justify="left",
    )
    table.add_column("sweep", no_wrap=True)
    for name in ("metric", "teacher", *names):
        table.add_column(name, justify="right")
    for report in reports:
        cells = [_cell(report.strategies.get(name)) for name in names]
        table.add_row(report.sweep, report.metric, _teacher_value(report.teacher), *cells)
    if ranks:
        table.add_section()
        cells = [f"{ranks[name]:.2f}" if name in ranks else "" for name in names]
        table.add_row("average rank", "", "", *cells, style="bold")
    console.print(table)
    if not ranks:
        console.print("no strategy finished in every sweep, so there are no ranks", markup=False)
    for report in reports:
        console.print(f"{report.sweep}: {report.verdict}", markup=False)


def _teacher_value(teacher: TeacherFacts | None) -> str:
    if teacher is None:
        return ""
    return f"{teacher.validation:.4f} val." if teacher.test is None else f"{teacher.test:.4f}"


def _cell(found: StrategyResult | None) -> str:
    if found is None:
        return ""
    if found.best is None:
        return "none finished"
    confirm = found.confirm
    if confirm is None or confirm.mean is None:
        return f"{found.best.validation:.4f} val."
    interval = f" ({confirm.ci95[0]:.4f} to {confirm.ci95[1]:.4f})" if confirm.ci95 else ""
    return f"{confirm.mean:.4f}{interval}"


def _latency(model: Measured | None) -> str:
    if model is None or model.latency_ms is None:
        return ""
    high = "" if model.latency_p95_ms is None else f"/{model.latency_p95_ms:.1f}"
    return f"{model.latency_ms:.1f}{high} ms"


def _size(model: Measured | None) -> str:
    if model is None or model.parameters is None or model.size_mb is None:
        return ""
    return f"{model.parameters / 1e6:.1f} M\n{model.size_mb:.0f} MB"


def settled_values(settings: TrialSettings) -> str:
    """alpha, temperature and learning rate of a trial, each in a word or a few."""
    words = {"alpha": settings.alpha}
    if settings.teacher is not None and settings.needs_logits:
        words["T"] = settings.temperature
    words["lr"] = settings.learning_rate
    dumped = {name: schedule.model_dump(mode="json") for name, schedule in words.items()}
    return ", ".join(f"{name} {schedule_words(schedule)}" for name, schedule in dumped.items())


def schedule_words(schedule: dict[str, Any]) -> str:
    match schedule["shape"]:
        case "constant":
            return f"{schedule['value']:.3g}"
        case "step":
            return (
                " -> ".join(f"{value:.3g}" for value in schedule["values"])
                + " at "
                + ", ".join(f"{at:.2f}" for at in schedule["at"])
            )
        case "per_epoch":
            text = " ".join(f"{value:.3g}" for value in schedule["values"])
            return f"[{text}]" + (
                f" then {schedule['after']:.3g}" if schedule["after"] is not None else ""
            )
    return f"{schedule['start']:.3g} -> {schedule['end']:.3g}" + (
        " (cosine)" if schedule["shape"] == "cosine" else ""
    )


def show_status(status: SweepStatus) -> None:
    console = _console()
    table = Table(title=f"{status.sweep}: {status.state}", title_justify="left")
    for name in (
        "strategy",
        "done",
        "pruned",
        "failed",
        "running",
        "left",
        "confirmed",
        f"best {status.metric}",
    ):
        table.add_column(name, justify="left" if name == "strategy" else "right")
    for strategy, found in status.strategies.items():
        best = ""
        if found.best is not None:
            best = f"{found.best.validation:.4f} (trial {found.best.trial})"
        counts = (found.complete, found.pruned, found.failed, found.running, found.left)
        confirmed = f"{found.confirmed} of {found.confirmed + found.to_confirm}"
        table.add_row(strategy, *map(str, counts), confirmed, best)
    console.print(table)
    left = f", about {duration(status.seconds_left)} left" if status.seconds_left else ""
    budget = f", budget {status.budget.hours:g} h" if status.budget.hours else ""
    console.print(f"{duration(status.seconds_spent)} spent{left}{budget}", markup=False)
    if status.slots is not None:
        console.print(say_use(status.slots), markup=False)


def show_plan(facts: dict[str, Any]) -> None:
    console, task = _console(), facts["task"]
    console.print(f"{facts['sweep']}: nothing is wrong; this is what would run\n", markup=False)
    table = Table(
        title=f"task: {len(task['labels'])} labels, {task['metric']}", title_justify="left"
    )
    for name in ("split", "rows", "labels"):
        table.add_column(name, justify="right" if name == "rows" else "left")
    for name, split in task["splits"].items():
        if "values" in split:
            shares = ", ".join(f"{name} {value:g}" for name, value in split["values"].items())
        else:
            shares = ", ".join(
                f"{label} {100 * count / split['rows']:.1f}%"
                for label, count in split["labels"].items()
            )
        table.add_row(name, f"{split['rows']:,}", shares)
    if task["unlabelled"]:
        table.add_row("unlabelled", f"{task['unlabelled']:,}", "the teacher's alone")
    console.print(table)
    for note in task["notes"]:
        console.print(f"  {note}", markup=False)
    table = Table(title="models", title_justify="left")
    for name in ("", "model", "parameters", "size", "labels", "truncated texts"):
        table.add_column(name)
    for model in facts["models"]:
        cut = ", ".join(
            f"{name} {100 * found['rows'] / found['of']:.1f}%"
            for name, found in model["truncated"].items()
        )
        here = "" if model["weights"] == "here" else f" ({model['weights']})"
        table.add_row(
            model["role"],
            model["model"] + here,
            f"{model['parameters'] / 1e6:.1f} M",
            f"{model['size_mb']:.0f} MB",
            str(model["labels"]),
            cut,
        )
    console.print(table)
    for strategy, study in facts["studies"].items():
        console.print(f"\n{strategy}: {study['trials']} trials", style="bold", markup=False)
        for name, domain in study["parameters"].items():
            console.print(f"  {name}: {domain}", markup=False)
        if (extra := facts["estimate"]["more_rows"].get(strategy)) is not None:
            console.print(f"  more rows: {_more_rows(extra)}", markup=False)
        for i, entry in enumerate(study["start_with"]):
            console.print(
                f"  starts with {i + 1}: "
                + ", ".join(f"{name} {value}" for name, value in entry.items()),
                markup=False,
            )
        for i, sample in enumerate(study["samples"]):
            words = {name: schedule_words(schedule) for name, schedule in sample.items()}
            console.print(
                f"  sample {i + 1}: alpha {words['alpha']}, T {words['temperature']}, lr {words['learning_rate']}",
                markup=False,
            )
    estimate = facts["estimate"]
    spent = f"about {duration(estimate['seconds_a_trial'])} a trial, {duration(estimate['seconds_for_the_teacher'])} for the teacher"
    for strategy, extra in estimate["seconds_for_the_teacher_in_each_step"].items():
        spent += f"; {strategy} {duration(extra['seconds_a_trial'])} more a trial: the teacher runs in each step ({', '.join(extra['terms'])})"
    in_all = f"{duration(estimate['seconds_without_pruning'])} in all on {_slots(estimate['slots'])} if nothing is pruned"
    console.print(
        f"\nOn {estimate['device']}: {spent}, {in_all}; about {estimate['disk_mb']:,} MB under {facts['home']}",
        markup=False,
    )
    if (slots := estimate["slots_instead"]) is not None:
        console.print(
            f"That is the same sweep each time. {slots} slots of a core each are faster where there are many trials; each takes memory of its own, and which "
            "trial comes next depends on which ended first: --set 'engine={type: ray, cpus_per_trial: 1}'",
            markup=False,
        )


def _more_rows(extra: dict[str, Any]) -> str:
    """What rows beside train cost, in words."""
    unlabelled = [f"{extra['unlabelled']:,} unlabelled"] if extra["unlabelled"] else []
    views = (
        [f"up to {extra['views']} view{'s' if extra['views'] > 1 else ''} of each of train"]
        if extra["views"]
        else []
    )
    said = f"{extra['rows']:,} ({' and '.join(unlabelled + views)}), {duration(extra['seconds_a_trial'])} more a trial"
    if views:
        sets = (
            "one set of views"
            if extra["sets_of_views"] == 1
            else f"up to {extra['sets_of_views']} different sets of views"
        )
        words = (
            f"{duration(extra['seconds_for_words'])} for the words of a masked language model, "
            if extra["seconds_for_words"]
            else ""
        )
        said += f"; {sets}: {words}{duration(extra['seconds_for_the_teacher'])} for the teacher to label, {extra['views_mb']:,.0f} MB of cache"
    return said


def _slots(count: int | None) -> str:
    return (
        "one slot (a cluster's are not known yet)"
        if count is None
        else "one slot"
        if count == 1
        else f"{count} slots"
    )
