"""The report of one sweep, and several sweeps side by side."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from kdsweep import formatting
from kdsweep.compare.findings import Pair, ParetoEntry
from kdsweep.compare.ranks import Ranks
from kdsweep.config.sweep import COSTS
from kdsweep.report.model import ConfirmResult, Measured, Report, StrategyResult, TeacherFacts
from kdsweep.report.schedules import settled_values
from kdsweep.report.sentences import (
    costs_in_words,
    earlier_sweeps_in_words,
    finalists_in_words,
    more_tests_in_words,
    teachers_in_words,
)
from kdsweep.report.settings_words import settings_said_once
from kdsweep.report.versions_words import versions_in_words
from kdsweep.terminal.console import open_console


def show_report(report: Report, home: Path, *, full_sweep: str | None = None) -> None:
    """The verdict, each strategy against the teacher, every pair, and what to do next.

    full_sweep: the command that runs the full sweep.
    """
    console = open_console()
    console.print(report.verdict, style="bold")
    for line in report.more_of_the_verdict:
        console.print(line)
    console.print()
    console.print(_strategies(report))
    for split, words in more_tests_in_words(report).items():
        console.print(f"On {split}: {words}.")
    for what, words in (*teachers_in_words(report), *earlier_sweeps_in_words(report)):
        console.print(f"{what}: {words}.")
    for what, words in (*finalists_in_words(report), *costs_in_words(report)):
        console.print(f"{what}: {words}.")
    for what, words in versions_in_words(report):
        console.print(f"{what}: {words}.")
    for words in settings_said_once(report):
        console.print(f"Settings: {words}.")
    if report.pareto:
        console.print(_pareto(report.pareto, report.metric))
    for question in report.questions:
        console.print(f"\n{question.question}", style="bold")
        console.print(f"  {question.answer}")
    if report.pairs:
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
    console.print("\nWhat next:")
    for command, why in next_steps.items():
        console.print(f"  {command}")
        console.print(f"    {why}", style="dim")


def _pareto(front: Sequence[ParetoEntry], metric: str) -> Table:
    table = Table(
        title="Pareto front: no other student beats one of these in everything",
        title_justify="left",
    )
    costs = [name for name in COSTS if front and name in front[0].costs]
    table.add_column("student", no_wrap=True)
    for name in (metric, *costs):
        table.add_column(name, justify="right")
    for one in front:
        cells = [_cost(name, one.costs[name]) for name in costs]
        table.add_row(one.id.name, f"{one.validation:.4f}", *cells)
    return table


def _cost(objective: str, value: float) -> str:
    match objective:
        case "latency":
            return f"{value:.2f} ms"
        case "size":
            return f"{value:.2f} MB"
    return f"{value:,.0f}"


def _strategies(report: Report) -> Table:
    table = Table(title=f"{report.sweep}: the best trial of each strategy", title_justify="left")
    table.add_column("strategy", no_wrap=True)
    table.add_column("settled values", min_width=16)
    for name in (
        "search:\nvalidation",
        "confirmed:\ntest (95%)",
        "against the\nteacher",
        "size",
        "latency\np50/p95",
        "slot\nhours",
        "trials",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    teacher = report.teacher
    if teacher:
        tested = "" if teacher.test is None else f"{teacher.test:.4f}{_narrow(teacher.ci95)}"
        reached = (report.metric, f"{teacher.validation:.4f}", tested, "")
        costs = (_size(teacher), _latency(teacher), "", "")
        table.add_row("teacher", *reached, *costs, end_section=True)
    for strategy, found in report.strategies.items():
        is_bold = report.winner is not None and report.winner.strategy == strategy
        table.add_row(strategy, *_result_cells(found), style="bold" if is_bold else None)
    return table


def _result_cells(found: StrategyResult) -> tuple[str, ...]:
    """A strategy's row without its name."""
    best, confirm, counts = found.best, found.confirm, found.trials
    by_state = {"complete": counts.complete, "pruned": counts.pruned, "failed": counts.failed}
    by_state["from an earlier space"] = counts.earlier_space
    trials = "\n".join(f"{count} {state}" for state, count in by_state.items() if count)
    spent = (f"{found.slot_hours:.2f}", trials)
    if best is None:
        return ("no trial finished", "", "", "", "", "", *spent)
    return (
        settled_values(best.settings, best.params),
        f"{best.validation:.4f}\ntrial {best.trial}",
        _confirmed(confirm),
        _against_teacher(confirm),
        _size(best.student),
        _latency(best.student),
        *spent,
    )


def _confirmed(confirm: ConfirmResult | None) -> str:
    if confirm is None:
        return ""
    if confirm.mean is None:
        return "no seed finished"
    seeds = formatting.count(confirm.seeds, "seed")
    if confirm.failed:
        seeds += f", {confirm.failed} failed"
    return f"{confirm.mean:.4f}{_narrow(confirm.ci95)}\n{seeds}"


def _narrow(interval: tuple[float, float] | None) -> str:
    return f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""


def _against_teacher(confirm: ConfirmResult | None) -> str:
    """The share of the teacher's score that is kept, and the difference in points."""
    if confirm is None or confirm.retention is None:
        return ""
    kept = formatting.percent(confirm.retention)
    found = confirm.against_teacher
    if found is None or found.ci95 is None:
        return kept
    low, high = found.ci95
    return f"{kept}\n{100 * low:+.1f} to {100 * high:+.1f} points"


def _pairs(pairs: Sequence[Pair], metric: str) -> Table:
    table = Table(
        title=f"every pair, by test {metric} (95% and p: corrected for all pairs)",
        title_justify="left",
    )
    table.add_column("a - b", no_wrap=True)
    for name in ("points", "95%", "p"):
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


def show_reports(reports: Sequence[Report], ranks: Ranks) -> None:
    """Several sweeps: tasks by strategies, and each strategy's average rank."""
    console = open_console()
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
    if ranks.mean:
        table.add_section()
        cells = [f"{ranks.mean[name]:.2f}" if name in ranks.mean else "" for name in names]
        table.add_row("average rank", "", "", *cells, style="bold")
    console.print(table)
    words = ranks.verdict or "no strategy finished in every sweep, so there are no ranks"
    console.print(f"Ranks: {words}")
    for report in reports:
        console.print(f"{report.sweep}: {report.verdict}")
        for what, words in (*costs_in_words(report), *versions_in_words(report)):
            console.print(f"{report.sweep}: {what}: {words}.")


def _teacher_value(teacher: TeacherFacts | None) -> str:
    if teacher is None:
        return ""
    if teacher.test is None:
        return f"{teacher.validation:.4f} val."
    interval = f" ({formatting.score_range(*teacher.ci95)})" if teacher.ci95 else ""
    return f"{teacher.test:.4f}{interval}"


def _cell(found: StrategyResult | None) -> str:
    if found is None:
        return ""
    if found.best is None:
        return "none finished"
    confirm = found.confirm
    if confirm is None or confirm.mean is None:
        return f"{found.best.validation:.4f} val."
    interval = f" ({formatting.score_range(*confirm.ci95)})" if confirm.ci95 else ""
    return f"{confirm.mean:.4f}{interval}"


def _latency(model: Measured | None) -> str:
    if model is None or model.latency_ms is None:
        return ""
    return formatting.latencies(model.latency_ms, model.latency_p95_ms)


def _size(model: Measured | None) -> str:
    if model is None or model.parameters is None or model.size_mb is None:
        return ""
    return f"{formatting.parameters(model.parameters)}\n{formatting.megabytes(model.size_mb)}"
