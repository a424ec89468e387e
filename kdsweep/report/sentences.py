"""The report in words: for the terminal, the page and MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kdsweep.compare.findings import Estimate, Pair
from kdsweep.formatting import count, joined, percent
from kdsweep.report.model import ConfirmResult, Report, TeacherFacts
from kdsweep.report.settings_words import settings_in_words


def more_tests_in_words(report: Report) -> dict[str, str]:
    """What was reached on each split that is judged in addition to test: split -> words."""
    out = {}
    for split, found in report.more_tests.items():
        means = [
            f"{strategy} {np.mean(values):.4f} ({count(len(values), 'seed')})"
            for strategy, values in found.strategies.items()
        ]
        teacher = [] if found.teacher is None else [f"the teacher {found.teacher:.4f}"]
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


def _by_seed(selected: Mapping[str, float | None]) -> str:
    words = []
    for seed, reached in selected.items():
        result = "learned nothing" if reached is None else f"{reached:.4f}"
        words.append(f"seed {seed} {result}")
    return ", ".join(words)


# --- verdicts ------------------------------------------------------------------------------------


def confirmed_verdict(
    metric: str, means: Mapping[str, Estimate], pairs: Sequence[Pair], teacher_test: float | None
) -> str:
    """What the test split says, and how sure it is."""
    top = max(means, key=lambda strategy: means[strategy].value)
    reached = f"{metric} {_interval(means[top])}"
    if teacher_test is not None:
        reached += f"; {_against_teacher(means[top].value, teacher_test)}"
    if len(means) == 1:
        return (
            f"{top} reaches {reached} on the test split. No other strategy finished, so there is "
            "nothing to compare it with."
        )
    own = [(pair, pair.b if pair.a == top else pair.a) for pair in pairs if top in (pair.a, pair.b)]
    beaten = [pair.verdict for pair, _ in own if pair.shows_a_difference]
    level: dict[str, list[str]] = {}  # verdict -> the other strategies
    for pair, other in own:
        if not pair.shows_a_difference:
            level.setdefault(pair.verdict, []).append(other)
    if not level:
        return f"{top} does best on the test split: {reached}. " + "; ".join(beaten) + "."
    said = [
        *beaten,
        *(f"Between {top} and {' or '.join(others)}: {words}" for words, others in level.items()),
    ]
    return (
        f"No strategy is shown to be the best. {top} has the highest mean on the test split: "
        f"{reached}. " + ". ".join(said) + "."
    )


def _interval(mean: Estimate) -> str:
    if mean.low is None or mean.high is None:
        return f"{mean.value:.4f} (one seed)"
    return f"{mean.value:.4f} ({mean.low:.4f} to {mean.high:.4f})"


def _against_teacher(value: float, teacher: float) -> str:
    points = 100 * (value - teacher)
    if points > 0:
        return f"that is {points:.1f} points above its teacher ({teacher:.4f})"
    kept = f", {percent(value / teacher)} of it" if teacher > 0 else ""
    return f"the teacher has {teacher:.4f}{kept}"


def searched_verdict(metric: str, teacher: float | None, bests: Mapping[str, float]) -> str:
    """What the search shows, and what it doesn't: the best of several trials with one seed each.

    teacher, bests: the metric on validation; of each strategy's best trial.
    """
    ranked = sorted(bests.items(), key=lambda entry: -entry[1])
    if not ranked:
        return "no trial has finished"
    value = ranked[0][1]
    level = [name for name, other in ranked if other == value]
    if len(level) > 1:
        text = f"{joined(level)} are level on validation: {metric} {value:.4f}"
    else:
        text = f"{level[0]} is ahead on validation: {metric} {value:.4f}"
        if len(ranked) > 1:
            second, reached = ranked[1]
            text += f", {100 * (value - reached):.1f} points over {second}"
    if teacher is not None:
        text += f"; the teacher has {teacher:.4f}"
    return (
        f"{text}. Each trial has one seed and the best of several is shown, so small differences "
        "may be chance."
    )


# --- Markdown ------------------------------------------------------------------------------------


def as_markdown(report: Report) -> str:
    """The verdict and the table of strategies, for MLflow's description of the experiment."""
    metric = report.metric
    lines = [
        f"**{report.verdict}**",
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
        lines.append(f"| {strategy} | {searched} | {tested} | {kept} |")
    if report.more_tests:
        lines.append("")
        lines += [f"On {split}: {words}." for split, words in more_tests_in_words(report).items()]
    if settings := settings_in_words(report):
        lines.append("")
        lines += [f"- Settings: {words}." for words in settings.values()]
    end = f"Sweep `{report.sweep}`; the whole report is `report.html`, an artifact of its run."
    return "\n".join([*lines, "", end])


def _teacher_row(name: str, teacher: TeacherFacts) -> str:
    tested = "" if teacher.test is None else f"{teacher.test:.4f}"
    return f"| {name} | {teacher.validation:.4f} | {tested} | |"


def _confirmed_cells(confirm: ConfirmResult | None) -> tuple[str, str]:
    """The mean on test with its interval, and the share of the teacher's."""
    if confirm is None or confirm.mean is None:
        return "", ""
    interval = " (one seed)"
    if confirm.ci95:
        low, high = confirm.ci95
        interval = f" ({low:.4f} to {high:.4f})"
    kept = percent(confirm.retention) if confirm.retention else ""
    return f"{confirm.mean:.4f}{interval}", kept
