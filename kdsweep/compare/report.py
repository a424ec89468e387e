"""The report: one plain structure that the table, the page, `report.json` and `--json` are all made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from kdsweep.compare.questions import answer_questions
from kdsweep.compare.records import TestAnswers, TrialRecord
from kdsweep.compare.statistics import Estimate, Pair, compare_pairs, mean_score
from kdsweep.core.answers import answers as answered
from kdsweep.core.answers import kind_of
from kdsweep.core.settings import Metric


def summarize(
    sweep: str,
    metric: Metric,
    teacher: dict[str, Any] | None,
    strategies: dict[str, Any],
    records: Sequence[TrialRecord],
    answers: TestAnswers | None,
    teachers: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """The report of a sweep.

    teacher: `validation` and, once judged, `test` (metric -> value), `parameters`, `size_mb`, `latency_ms`, or None where no strategy
    needs one. strategies: for each `trials` (counts), `best` (trial, params, settings, validation, student, and what its `teachers`
    reach together where they are several) or None, `slot_hours`, and `asked`, how many seeds confirm the best. teachers: all of them,
    `teacher` among them, each with its `name`, and with `selected` where it is the best of several seeds.
    """
    pairs: list[Pair] = []
    means: dict[str, Estimate] = {}
    if answers is not None:
        kind = kind_of(answers.labels)
        predicted = {strategy: {i: answered(logits, kind) for i, logits in by_seed.items()} for strategy, by_seed in answers.students.items() if by_seed}
        means = {strategy: mean_score(metric, answers.labels, by_seed) for strategy, by_seed in predicted.items()}
        pairs = compare_pairs(metric, answers.labels, predicted)
    teacher_test = teacher["test"][metric] if teacher and teacher.get("test") else None
    outcomes = {
        strategy: {key: found[key] for key in ("trials", "best", "slot_hours")}
        | {"confirm": _confirm(metric, strategy, found["asked"], records, means.get(strategy), teacher_test)}
        for strategy, found in strategies.items()
    }
    beside = _more_tests(metric, teacher, records)
    return {
        "sweep": sweep,
        "metric": metric,
        "teacher": None if teacher is None else teacher | {"validation": teacher["validation"][metric], "test": teacher_test},
        "teachers": [one | {part: one[part] and one[part][metric] for part in ("validation", "test")} for one in teachers],
        "strategies": outcomes,
        "pairs": [asdict(pair) for pair in pairs],
        "questions": answer_questions(metric, records, {strategy: found["slot_hours"] for strategy, found in strategies.items()}),
        "verdict": confirmed_verdict(metric, means, pairs, teacher_test) if means else searched_verdict(metric, teacher, strategies),
    } | ({"more_tests": beside} if beside else {})


def _more_tests(metric: Metric, teacher: dict[str, Any] | None, records: Sequence[TrialRecord]) -> dict[str, dict[str, Any]]:
    """For each split that is judged beside test (`task.splits.more_tests`): the teacher's score or None, and each strategy's by seed."""
    found: dict[str, dict[str, Any]] = {}
    runs = sorted((one for one in records if one.phase == "confirm" and one.result and one.result.test), key=lambda one: one.seed_index or 0)
    for run in runs:
        for name, value in (run.result.test or {}).items() if run.result else ():
            split, _, judged = name.rpartition("/")
            if split and judged == metric:
                of_teacher = ((teacher or {}).get("test") or {}).get(name)
                found.setdefault(split, {"teacher": of_teacher, "strategies": {}})["strategies"].setdefault(run.strategy, []).append(value)
    return found


def more_tests_in_words(report: dict[str, Any]) -> dict[str, str]:
    """What was reached on each split that is judged beside test: split -> words."""
    out = {}
    for split, found in report.get("more_tests", {}).items():
        means = [f"{strategy} {np.mean(values):.4f} ({len(values)} seed{'s'[: len(values) != 1]})" for strategy, values in found["strategies"].items()]
        teacher = [] if found["teacher"] is None else [f"the teacher {found['teacher']:.4f}"]
        out[split] = f"{report['metric']} " + ", ".join([*means, *teacher])
    return out


def teachers_in_words(report: dict[str, Any]) -> list[tuple[str, str]]:
    """What is to be said where there are several teachers, or one was chosen among seeds: what it is about, and words."""
    teachers, out = report.get("teachers", []), []
    if len(teachers) > 1:
        out.append(("All teachers", "; ".join(f"{one['name']}: validation {one['validation']:.4f}" for one in teachers)))
    for one in teachers:
        if one["selected"]:
            seeds = ", ".join(f"seed {seed} {'learned nothing' if reached is None else f'{reached:.4f}'}" for seed, reached in one["selected"].items())
            out.append(("Seeds of the teacher", f"{one['name']}: {seeds}"))
    best = {strategy: found["best"] or {} for strategy, found in report["strategies"].items()}
    together = [
        f"those of {strategy}, as its best trial weighs them, {one['teachers']:.4f}" for strategy, one in best.items() if one.get("teachers") is not None
    ]
    if together:
        out.append(("Teachers together", "validation: " + "; ".join(together)))
    return out


def _confirm(
    metric: Metric, strategy: str, asked: int, records: Sequence[TrialRecord], mean: Estimate | None, teacher_test: float | None
) -> dict[str, Any] | None:
    runs = sorted((one for one in records if one.phase == "confirm" and one.strategy == strategy and one.result), key=lambda one: one.seed_index or 0)
    if not runs:
        return None
    results = [one.result for one in runs if one.result and one.result.test and one.result.best]
    return {
        "seeds": len(results),
        "asked": asked,
        "failed": len(runs) - len(results),
        "test": [result.test[metric] for result in results if result.test],
        "validation": [result.best.metrics[f"validation/{metric}"] for result in results if result.best],
        "mean": mean.value if mean else None,
        "ci95": [mean.low, mean.high] if mean and mean.low is not None else None,
        "retention": mean.value / teacher_test if mean and teacher_test and teacher_test > 0 else None,
    }


# --- in words --------------------------------------------------------------------------------------------------------


def confirmed_verdict(metric: str, means: dict[str, Estimate], pairs: Sequence[Pair], teacher_test: float | None) -> str:
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
    said = [*beaten, *(f"between {top} and {' or '.join(others)}: {words}" for words, others in level.items())]
    return f"No strategy is shown to be the best. {top} has the highest mean on the test split: {reached}. " + "; ".join(said) + "."


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


def searched_verdict(metric: str, teacher: dict[str, Any] | None, strategies: dict[str, Any]) -> str:
    """What the search shows, and what it doesn't: the best of several trials, each with one seed, is no proof."""
    ranked = sorted(((found["best"]["validation"], name) for name, found in strategies.items() if found["best"] is not None), key=lambda entry: -entry[0])
    if not ranked:
        return "no trial has finished"
    value = ranked[0][0]
    level = [name for other, name in ranked if other == value]
    if len(level) > 1:
        text = f"{', '.join(level[:-1])} and {level[-1]} are level on validation: {metric} {value:.4f}"
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
        lines.append(f"| teacher | {teacher['validation']:.4f} | {'' if teacher['test'] is None else format(teacher['test'], '.4f')} | |")
    for other in report.get("teachers", [])[1:]:
        lines.append(f"| teacher {other['name']} | {other['validation']:.4f} | {'' if other['test'] is None else format(other['test'], '.4f')} | |")
    for strategy, found in report["strategies"].items():
        best, confirm = found["best"], found["confirm"]
        tested = kept = ""
        if confirm and confirm["mean"] is not None:
            interval = f" ({confirm['ci95'][0]:.4f} to {confirm['ci95'][1]:.4f})" if confirm["ci95"] else " (one seed)"
            tested, kept = f"{confirm['mean']:.4f}{interval}", f"{100 * confirm['retention']:.1f}%" if confirm["retention"] else ""
        lines.append(f"| {strategy} | {'none finished' if best is None else format(best['validation'], '.4f')} | {tested} | {kept} |")
    lines += ["", *(f"On {split}: {words}." for split, words in more_tests_in_words(report).items())] if report.get("more_tests") else []
    return "\n".join([*lines, "", f"Sweep `{report['sweep']}`; the whole report is `report.html`, an artifact of its run."])


def rank_strategies(reports: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Each strategy's average rank over several sweeps (1 is best; ties share), of those that all sweeps have judged alike: by the
    confirm's test mean where every sweep has it, else by the search's validation."""
    from scipy.stats import rankdata

    common = [name for name in reports[0]["strategies"] if all(value_of(one, name) is not None for one in reports)] if reports else []
    if not common:
        return {}
    ranks = [rankdata([-float(value_of(one, name) or 0.0) for name in common]) for one in reports]
    return dict(zip(common, np.mean(ranks, axis=0).tolist(), strict=True))


def value_of(report: dict[str, Any], strategy: str) -> float | None:
    """What a strategy reached in a sweep: on test where that was confirmed, else on validation."""
    found = report["strategies"].get(strategy)
    if found is None or found["best"] is None:
        return None
    confirmed = found["confirm"]["mean"] if found["confirm"] else None
    return float(found["best"]["validation"] if confirmed is None else confirmed)
