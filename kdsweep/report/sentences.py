"""The report in words: for the terminal, the page and MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdsweep.compare.statistics import Estimate, Pair


def more_tests_in_words(report: dict[str, Any]) -> dict[str, str]:
    """What was reached on each split that is judged beside test: split -> words."""
    out = {}
    for split, found in report.get("more_tests", {}).items():
        means = [
            f"{strategy} {np.mean(values):.4f} ({len(values)} seed{'s'[: len(values) != 1]})"
            for strategy, values in found["strategies"].items()
        ]
        teacher = [] if found["teacher"] is None else [f"the teacher {found['teacher']:.4f}"]
        out[split] = f"{report['metric']} " + ", ".join([*means, *teacher])
    return out


def teachers_in_words(report: dict[str, Any]) -> list[tuple[str, str]]:
    """What is to be said where there are several teachers, or one was chosen among seeds: what it is about, and words."""
    teachers, out = report.get("teachers", []), []
    if len(teachers) > 1:
        out.append(
            (
                "All teachers",
                "; ".join(f"{one['name']}: validation {one['validation']:.4f}" for one in teachers),
            )
        )
    for one in teachers:
        if one["selected"]:
            seeds = ", ".join(
                f"seed {seed} {'learned nothing' if reached is None else f'{reached:.4f}'}"
                for seed, reached in one["selected"].items()
            )
            out.append(("Seeds of the teacher", f"{one['name']}: {seeds}"))
    best = {strategy: found["best"] or {} for strategy, found in report["strategies"].items()}
    together = [
        f"those of {strategy}, as its best trial weighs them, {one['teachers']:.4f}"
        for strategy, one in best.items()
        if one.get("teachers") is not None
    ]
    if together:
        out.append(("Teachers together", "validation: " + "; ".join(together)))
    return out


# --- in words --------------------------------------------------------------------------------------------------------


def confirmed_verdict(
    metric: str, means: dict[str, Estimate], pairs: Sequence[Pair], teacher_test: float | None
) -> str:
    """What the test split says, and how sure it is."""
    top = max(means, key=lambda strategy: means[strategy].value)
    reached = f"{metric} {_interval(means[top])}"
    if teacher_test is not None:
        reached += f"; {_against_teacher(means[top].value, teacher_test)}"
    if len(means) == 1:
        return f"{top} reaches {reached} on the test split. No other strategy finished, so there is nothing to compare it with."
    own = [(pair, pair.b if pair.a == top else pair.a) for pair in pairs if top in (pair.a, pair.b)]
    beaten = [pair.verdict for pair, _ in own if _is_beaten(pair)]
    level: dict[str, list[str]] = {}  # what is said -> of which strategies
    for pair, other in own:
        if not _is_beaten(pair):
            level.setdefault(pair.verdict, []).append(other)
    if not level:
        return f"{top} does best on the test split: {reached}. " + "; ".join(beaten) + "."
    said = [
        *beaten,
        *(f"between {top} and {' or '.join(others)}: {words}" for words, others in level.items()),
    ]
    return (
        f"No strategy is shown to be the best. {top} has the highest mean on the test split: {reached}. "
        + "; ".join(said)
        + "."
    )


def _is_beaten(pair: Pair) -> bool:
    return " beats " in pair.verdict


def _interval(mean: Estimate) -> str:
    if mean.low is None or mean.high is None:
        return f"{mean.value:.4f} (one seed)"
    return f"{mean.value:.4f} ({mean.low:.4f} to {mean.high:.4f})"


def _against_teacher(value: float, teacher: float) -> str:
    points = 100 * (value - teacher)
    if points > 0:
        return f"that is {points:.1f} points above its teacher ({teacher:.4f})"
    kept = f", {100 * value / teacher:.1f}% of it" if teacher > 0 else ""
    return f"the teacher has {teacher:.4f}{kept}"


def searched_verdict(
    metric: str, teacher: dict[str, Any] | None, strategies: dict[str, Any]
) -> str:
    """What the search shows, and what it doesn't: the best of several trials, each with one seed, is no proof."""
    ranked = sorted(
        (
            (found["best"]["validation"], name)
            for name, found in strategies.items()
            if found["best"] is not None
        ),
        key=lambda entry: -entry[0],
    )
    if not ranked:
        return "no trial has finished"
    value = ranked[0][0]
    level = [name for other, name in ranked if other == value]
    if len(level) > 1:
        text = (
            f"{', '.join(level[:-1])} and {level[-1]} are level on validation: {metric} {value:.4f}"
        )
    else:
        text = f"{level[0]} is ahead on validation: {metric} {value:.4f}"
        if len(ranked) > 1:
            text += f", {100 * (value - ranked[1][0]):.1f} points over {ranked[1][1]}"
    if teacher is not None:
        text += f"; the teacher has {teacher['validation'][metric]:.4f}"
    return f"{text}. Each trial has one seed and the best of several is shown, so small differences may be chance."


def as_markdown(report: dict[str, Any]) -> str:
    """The verdict and the table of strategies, for MLflow's description of the experiment."""
    lines = [
        f"**{report['verdict']}**",
        "",
        f"| strategy | search: validation {report['metric']} | test {report['metric']} (95%) | of the teacher |",
        "|---|---|---|---|",
    ]
    if report["teacher"]:
        teacher = report["teacher"]
        lines.append(
            f"| teacher | {teacher['validation']:.4f} | {'' if teacher['test'] is None else format(teacher['test'], '.4f')} | |"
        )
    for other in report.get("teachers", [])[1:]:
        lines.append(
            f"| teacher {other['name']} | {other['validation']:.4f} | {'' if other['test'] is None else format(other['test'], '.4f')} | |"
        )
    for strategy, found in report["strategies"].items():
        best, confirm = found["best"], found["confirm"]
        tested = kept = ""
        if confirm and confirm["mean"] is not None:
            interval = (
                f" ({confirm['ci95'][0]:.4f} to {confirm['ci95'][1]:.4f})"
                if confirm["ci95"]
                else " (one seed)"
            )
            tested, kept = (
                f"{confirm['mean']:.4f}{interval}",
                f"{100 * confirm['retention']:.1f}%" if confirm["retention"] else "",
            )
        lines.append(
            f"| {strategy} | {'none finished' if best is None else format(best['validation'], '.4f')} | {tested} | {kept} |"
        )
    lines += (
        ["", *(f"On {split}: {words}." for split, words in more_tests_in_words(report).items())]
        if report.get("more_tests")
        else []
    )
    return "\n".join(
        [
            *lines,
            "",
            f"Sweep `{report['sweep']}`; the whole report is `report.html`, an artifact of its run.",
        ]
    )
