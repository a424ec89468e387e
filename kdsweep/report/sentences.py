"""The report in words: for the terminal, the page and MLflow."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kdsweep.compare.verdicts import points_range
from kdsweep.formatting import count, in_markdown, joined, percent
from kdsweep.report.model import ConfirmResult, Report, TeacherFacts
from kdsweep.report.settings_words import settings_said_once
from kdsweep.report.verdict import teacher_score
from kdsweep.report.versions_words import versions_in_words


def more_tests_in_words(report: Report) -> dict[str, str]:
    """What was reached on each split that is judged in addition to test: split -> words."""
    out = {}
    for split, found in report.more_tests.items():
        means = [
            f"{strategy} {np.mean(values):.4f} ({count(len(values), 'seed')})"
            for strategy, values in found.strategies.items()
        ]
        teacher = []
        if found.teacher is not None:
            teacher = [f"the teacher {teacher_score(found.teacher, found.teacher_ci95)}"]
        out[split] = f"{report.metric} " + ", ".join([*means, *teacher])
    return out


def teachers_in_words(report: Report) -> list[tuple[str, str]]:
    """(title, words) about several teachers, and about a teacher chosen among several seeds."""
    out = []
    if len(report.teachers) > 1:
        every = "; ".join(f"{one.name}: validation {one.validation:.4f}" for one in report.teachers)
        out.append(("All teachers", every))
    for one in report.teachers:
        if one.selected:
            out.append(("Seeds of the teacher", f"{one.name}: {_by_seed(one.selected)}"))
    together = [
        f"those of {strategy}, as its best trial weighs them, {found.best.teachers:.4f}"
        for strategy, found in report.strategies.items()
        if found.best and found.best.teachers is not None
    ]
    if together:
        out.append(("Teachers together", "validation: " + "; ".join(together)))
    return out


def earlier_sweeps_in_words(report: Report) -> list[tuple[str, str]]:
    """(title, words) about the sweeps that this one started from."""
    found = report.start_from
    if found is None:
        return []
    said = []
    for strategy in report.strategies:
        known, first = found.known.get(strategy, 0), found.tried_first.get(strategy, 0)
        parts = [f"{count(known, 'trial')} known from the start"] if known else []
        parts += [f"the best {first} tried first"] if first else []
        if parts:
            said.append(f"{strategy}: {', '.join(parts)}")
    taken = f" ({'; '.join(said)})" if said else ""
    return [("Started from", f"{joined(found.sweeps)}{taken}; no number here is of their trials")]


def costs_in_words(report: Report) -> list[tuple[str, str]]:
    """(title, words) about what students cost: whether they differ, and how that was measured."""
    out = []
    if report.pareto == () and any(found.best for found in report.strategies.values()):
        out.append(("Pareto front", "none, because all students cost the same"))
    if report.latency_note is not None:
        out.append(("Latency", report.latency_note))
    return out


def _by_seed(selected: Mapping[str, float | None]) -> str:
    words = []
    for seed, reached in selected.items():
        result = "learned nothing" if reached is None else f"{reached:.4f}"
        words.append(f"seed {seed} {result}")
    return ", ".join(words)


def finalists_in_words(report: Report) -> list[tuple[str, str]]:
    """(title, words) where finalists were judged: which trial was chosen for each strategy."""
    said: list[str] = []
    for strategy, found in report.strategies.items():
        if not found.finalists:
            continue
        reached = []
        for one in found.finalists:
            mean = "failed" if one.mean is None else f"{one.mean:.4f}"
            reached.append(f"trial {one.trial} {mean} ({count(one.seeds, 'seed')})")
        what = "chosen is" if found.finalists[0].chosen else "so far"
        said.append(f"{strategy}: {what} {', '.join(reached)}")
    if not said:
        return []
    words = f"mean {report.metric} on validation over fresh seeds: {'; '.join(said)}"
    return [("Finalists", words)]


# --- Markdown ------------------------------------------------------------------------------------


def as_markdown(report: Report) -> str:
    """The verdict and the table of strategies, for MLflow's description of the experiment."""
    metric = report.metric
    lines = [
        f"**{in_markdown(report.verdict)}**",
        *(f"\n{in_markdown(words)}" for words in report.more_of_the_verdict),
        "",
        f"| strategy | search: validation {metric} | test {metric} (95%) | of the teacher |",
        "|---|---|---|---|",
    ]
    if report.teacher:
        lines.append(_teacher_row("teacher", report.teacher))
    lines += [_teacher_row(f"teacher {other.name}", other) for other in report.teachers[1:]]
    for strategy, found in report.strategies.items():
        searched = f"{found.best.validation:.4f}" if found.best else "none finished"
        tested, kept = _confirmed_cells(found.confirm)
        is_recommended = report.recommended and report.recommended.strategy == strategy
        name = f"**{strategy}**" if is_recommended else strategy
        lines.append(f"| {name} | {searched} | {tested} | {kept} |")
    if report.more_tests:
        lines.append("")
        more_tests = more_tests_in_words(report).items()
        lines += [f"On {split}: {in_markdown(words)}." for split, words in more_tests]
    if settings := settings_said_once(report):
        lines.append("")
        lines += [f"- Settings: {in_markdown(words)}." for words in settings]
    more = (
        *earlier_sweeps_in_words(report),
        *finalists_in_words(report),
        *costs_in_words(report),
        *versions_in_words(report),
    )
    for what, words in more:
        lines += ["", f"{what}: {in_markdown(words)}."]
    end = f"Sweep `{report.sweep}`; the whole report is `report.html`, an artifact of its run."
    return "\n".join([*lines, "", end])


def _teacher_row(name: str, teacher: TeacherFacts) -> str:
    tested = ""
    if teacher.test is not None:
        tested = teacher_score(teacher.test, teacher.ci95)
    cell = in_markdown(name).replace("|", "\\|")
    return f"| {cell} | {teacher.validation:.4f} | {tested} | |"


def _confirmed_cells(confirm: ConfirmResult | None) -> tuple[str, str]:
    """The mean on test with its interval, and the share of the teacher's."""
    if confirm is None or confirm.mean is None:
        return "", ""
    interval = " (one seed)"
    if confirm.ci95:
        low, high = confirm.ci95
        interval = f" ({low:.4f} to {high:.4f})"
    kept = percent(confirm.retention) if confirm.retention else ""
    if confirm.against_teacher and confirm.against_teacher.ci95:
        kept += f" ({points_range(*confirm.against_teacher.ci95)} points)"
    return f"{confirm.mean:.4f}{interval}", kept
