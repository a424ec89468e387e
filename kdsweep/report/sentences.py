"""The report in words: for the terminal, the page and MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kdsweep.compare.families import Family
from kdsweep.compare.findings import AgainstTeacher, Comparison, Estimate
from kdsweep.compare.verdicts import in_points, points_range, undecided_in_words
from kdsweep.formatting import count, in_markdown, joined, percent
from kdsweep.report.model import ConfirmResult, Recommendation, Report, TeacherFacts
from kdsweep.report.settings_words import settings_said_once
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
            teacher = [f"the teacher {_teacher_score(found.teacher, found.teacher_ci95)}"]
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


# --- verdicts ------------------------------------------------------------------------------------


def confirmed_verdict(
    metric: str,
    compared: Comparison,
    recommended: Recommendation,
    teacher: TeacherFacts | None,
    margin: float,
) -> str:
    """What the test split says, and how sure it is."""
    top = recommended.strategy
    reached = f"{metric} {_interval(compared.means[top])}"
    said = []
    if teacher is not None and teacher.test is not None:
        found = (compared.against_teacher or {}).get(top)
        said.append(_against_teacher(found, teacher, compared.means[top].value))
    if len(compared.means) == 1:
        said.append("No other strategy finished, so there is nothing to compare it with")
        return _text([f"On the test split, {top} reaches {reached}", *said])
    own = [pair for pair in compared.pairs if pair.other(top) in compared.means]
    beaten = [pair.verdict for pair in own if pair.better == top]
    if len(beaten) == len(compared.means) - 1:
        return _text([f"{top} does best on the test split: {reached}", *said, *beaten])
    comparable = Family(sum(pair.ci95 is not None for pair in compared.pairs))
    undecided = [pair for pair in own if pair.shows_nothing]
    return _text(
        [
            "No strategy is shown to be the best",
            f"{top} is recommended: {_why(recommended, margin)}",
            f"On the test split it reaches {reached}",
            *said,
            *(pair.verdict for pair in own if pair.state == "equivalent"),
            *beaten,
            *undecided_in_words(undecided, top, margin, comparable),
        ]
    )


def _text(sentences: Sequence[str]) -> str:
    return " ".join(f"{one}." for one in sentences)


def _why(recommended: Recommendation, margin: float) -> str:
    """Why this strategy, where no strategy beats all others."""
    top, first = recommended.strategy, recommended.first_choice
    within = f"equivalent to it within {in_points(margin)}"
    if first != top:
        return (
            f"{first} has the highest mean on validation, and {top} is the cheapest of those that "
            f"are {within}"
        )
    if recommended.equivalent:
        return (
            "it has the highest mean on validation, and none of those that are "
            f"{within} is cheaper ({', '.join(recommended.equivalent)})"
        )
    if len(recommended.candidates) == 1:
        return "it is the only one that no other strategy beats on test"
    return (
        "it has the highest mean on validation over the confirm seeds, of the strategies that no "
        f"other one beats on test ({joined(recommended.candidates)})"
    )


def _interval(mean: Estimate) -> str:
    if mean.low is None or mean.high is None:
        return f"{mean.value:.4f} (one seed)"
    return f"{mean.value:.4f} ({mean.low:.4f} to {mean.high:.4f})"


def _against_teacher(found: AgainstTeacher | None, teacher: TeacherFacts, reached: float) -> str:
    """A strategy's mean and its teacher's score, both on test. Sentences, without the last stop."""
    assert teacher.test is not None
    score = f"The teacher reaches {_teacher_score(teacher.test, teacher.ci95)}"
    if found is None:
        return f"{score}. Its predictions weren't kept, so the two can't be compared"
    if found.ci95 is None:
        return f"{score}. One seed can't tell them apart"
    low, high = found.ci95
    size = f"{abs(100 * found.difference):.1f} points"
    match found.state:
        case "above":
            return f"{score}. The student is {size} above it ({points_range(low, high)})"
        case "below":
            kept = f", and keeps {percent(reached / teacher.test)}" if teacher.test > 0 else ""
            return f"{score}. The student is {size} below it ({points_range(-high, -low)}){kept}"
    side = "above" if found.difference > 0 else "below"
    interval = points_range(low, high) if found.difference > 0 else points_range(-high, -low)
    return (
        f"{score}. No difference between the two is shown: the student is {size} {side} it "
        f"({interval})"
    )


def _teacher_score(test: float, interval: tuple[float, float] | None) -> str:
    return f"{test:.4f} ({interval[0]:.4f} to {interval[1]:.4f})" if interval else f"{test:.4f}"


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
    more = (*finalists_in_words(report), *costs_in_words(report), *versions_in_words(report))
    for what, words in more:
        lines += ["", f"{what}: {in_markdown(words)}."]
    end = f"Sweep `{report.sweep}`; the whole report is `report.html`, an artifact of its run."
    return "\n".join([*lines, "", end])


def _teacher_row(name: str, teacher: TeacherFacts) -> str:
    tested = ""
    if teacher.test is not None:
        tested = _teacher_score(teacher.test, teacher.ci95)
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
