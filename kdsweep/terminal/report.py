"""The report of one sweep, and several sweeps side by side."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from kdsweep import formatting
from kdsweep.compare.findings import ParetoEntry
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
from kdsweep.terminal.console import open_console, say
from kdsweep.terminal.tables import Column, show_table

STRATEGY_COLUMNS = (
    Column("strategy", right=False),
    Column("settled values", 2, wraps=True),
    Column("search:\nvalidation", 1),
    Column("confirmed:\ntest (95%)"),
    Column("against the\nteacher", 3),
    Column("size", 4),
    Column("latency\np50/p95", 5),
    Column("slot\nhours", 7),
    Column("trials", 6),
)
# Of the notes on how things were measured.
ALWAYS_SHOWN = ("Pareto front", "Versions")
PAIR_COLUMNS = (
    Column("a - b", wraps=True),
    Column("points"),
    Column("95%"),
    Column("p", 1),
    Column("verdict", wraps=True),
)


def show_report(report: Report, home: Path, *, shows_all: bool = False) -> None:
    """The answer, each strategy against the teacher, its pairs, and what to do next.

    shows_all: also the other pairs, the questions, what is known of settings, how costs were
    measured, and every column on a narrow terminal.
    """
    console = open_console()
    say(console, report.verdict, style="bold")
    for line in report.more_of_the_verdict:
        say(console, line)
    _show_strategies(console, report, shows_all)
    if report.pareto:
        _show_pareto(console, report.pareto, report.metric)
    if report.pairs:
        _show_pairs(console, report, shows_all)
    _show_notes(console, report, shows_all)
    if shows_all:
        for question in report.questions:
            say(console, f"\n{question.question}", style="bold")
            say(console, f"  {question.answer}")
    _show_next(console, report, home, shows_all)


def _show_notes(console: Console, report: Report, shows_all: bool) -> None:
    notes = [(f"On {split}", words) for split, words in more_tests_in_words(report).items()]
    notes += [*teachers_in_words(report), *earlier_sweeps_in_words(report)]
    if shows_all:
        notes += finalists_in_words(report)
    measured = (*costs_in_words(report), *versions_in_words(report))
    notes += [(what, words) for what, words in measured if shows_all or what in ALWAYS_SHOWN]
    if shows_all:
        notes += [("Settings", words) for words in settings_said_once(report)]
    if notes:
        console.print()
    for what, words in notes:
        say(console, f"{what}: {words}.")


def _show_next(console: Console, report: Report, home: Path, shows_all: bool) -> None:
    """Where the report is, and the commands that come next. Commands stand on lines of their own,
    so that they can be copied."""
    folder = home / "sweeps" / report.sweep
    name = shlex.quote(report.sweep)
    in_home = "" if home == Path("runs") else f" --home {shlex.quote(str(home))}"
    steps = [(str(folder / "report.html"), "the report, for a browser")]
    if report.winner is not None:
        steps.append((f"kdsweep export {name} DEST{in_home}", "the recommended student, to use it"))
    steps.append(
        (f"kdsweep ui {name}{in_home}", "every trial, its curves and its student in MLflow")
    )
    if not shows_all:
        more = "every pair of strategies, the questions, what is known of settings"
        steps.append((f"kdsweep compare {name} --all{in_home}", more))
    console.print("\nWhat next:", style="bold")
    for command, why in steps:
        console.print(f"  {command}")
        say(console, f"    {why}", style="dim")


def _show_pareto(console: Console, front: Sequence[ParetoEntry], metric: str) -> None:
    title = "Pareto front: no other student beats one of these in everything"
    say(console, f"\n{title}", style="bold")
    costs = [name for name in COSTS if front and name in front[0].costs]
    rows = [
        (one.id.name, f"{one.validation:.4f}", *(_cost(name, one.costs[name]) for name in costs))
        for one in front
    ]
    columns = [Column("student", right=False), *(Column(name) for name in (metric, *costs))]
    show_table(console, columns, rows)


def _cost(objective: str, value: float) -> str:
    match objective:
        case "latency":
            return f"{value:.2f} ms"
        case "size":
            return f"{value:.2f} MB"
    return f"{value:,.0f}"


def _show_strategies(console: Console, report: Report, shows_all: bool) -> None:
    say(console, f"\n{report.sweep}: the best trial of each strategy", style="bold")
    rows: list[tuple[str, ...]] = []
    bold = []
    if teacher := report.teacher:
        tested = "" if teacher.test is None else f"{teacher.test:.4f}{_narrow(teacher.ci95)}"
        reached = (f"{teacher.validation:.4f}", tested, "")
        rows.append(("teacher", "", *reached, _size(teacher), _latency(teacher), "", ""))
    for strategy, found in report.strategies.items():
        if report.recommended is not None and report.recommended.strategy == strategy:
            bold.append(len(rows))
        rows.append((strategy, *_result_cells(found)))
    show_table(console, STRATEGY_COLUMNS, rows, bold=bold, keeps_all=shows_all)


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


def _show_pairs(console: Console, report: Report, shows_all: bool) -> None:
    """The pairs of the recommended strategy, or all of them."""
    pairs = list(report.pairs)
    if report.recommended is not None and not shows_all:
        pairs = [pair for pair in pairs if pair.other(report.recommended.strategy) is not None]
    of_which = "every pair"
    if len(pairs) < len(report.pairs) and report.recommended is not None:
        of_which = f"the pairs of {report.recommended.strategy}"
    title = f"{of_which}, by test {report.metric} (95% and p: corrected for all pairs)"
    say(console, f"\n{title}", style="bold")
    rows = []
    for pair in pairs:
        points = "" if pair.difference is None else f"{100 * pair.difference:+.1f}"
        interval = ""
        if pair.ci95:
            low, high = pair.ci95
            interval = f"{100 * low:+.1f} to {100 * high:+.1f}"
        p_value = "" if pair.p is None else f"{pair.p:.3f}"
        rows.append((f"{pair.a} - {pair.b}", points, interval, p_value, pair.verdict))
    show_table(console, PAIR_COLUMNS, rows)


def show_reports(reports: Sequence[Report], ranks: Ranks) -> None:
    """Several sweeps: tasks by strategies, and each strategy's average rank."""
    console = open_console()
    names = list(dict.fromkeys(name for report in reports for name in report.strategies))
    title = "each strategy's best trial: mean on test (95%), or what the search reached on "
    say(console, f"{title}validation (val.)", style="bold")
    rows = [
        (
            report.sweep,
            report.metric,
            _teacher_value(report.teacher),
            *(_cell(report.strategies.get(name)) for name in names),
        )
        for report in reports
    ]
    if ranks.mean:
        cells = [f"{ranks.mean[name]:.2f}" if name in ranks.mean else "" for name in names]
        rows.append(("average rank", "", "", *cells))
    columns = [
        Column("sweep", right=False),
        *(Column(name) for name in ("metric", "teacher", *names)),
    ]
    show_table(console, columns, rows, bold=[len(reports)])
    words = ranks.verdict or "no strategy finished in every sweep, so there are no ranks"
    say(console, f"Ranks: {words}")
    for report in reports:
        say(console, f"{report.sweep}: {report.verdict}")
        for what, words in (*costs_in_words(report), *versions_in_words(report)):
            say(console, f"{report.sweep}: {what}: {words}.")


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
