"""The answer of a sweep in three lines: what it is, what it rests on, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdsweep.compare.families import Family
from kdsweep.compare.findings import AgainstTeacher, Comparison, Estimate, Pair
from kdsweep.compare.verdicts import in_points, points_range, what_it_takes
from kdsweep.formatting import count, joined, percent
from kdsweep.report.model import Recommendation, TeacherFacts


@dataclass(frozen=True)
class Verdict:
    """says: one sentence. rests_on, next_step: one line each, None where there is none."""

    says: str
    rests_on: str | None = None
    next_step: str | None = None


def confirmed_verdict(
    metric: str,
    compared: Comparison,
    recommended: Recommendation,
    teacher: TeacherFacts | None,
    margin: float,
) -> Verdict:
    """What the test split says, and how sure it is."""
    top = recommended.strategy
    others = [name for name in compared.means if name != top]
    own = {pair.other(top): pair for pair in compared.pairs if pair.other(top) in others}
    if not others:
        says = f"{top} is the only strategy that finished, so there is nothing to compare it with"
    else:
        says = _says(top, own, compared.pairs, recommended, margin)
    rests_on = f"{_on_what(own, compared)}{top} reaches {metric} {_interval(compared.means[top])}"
    if teacher is not None and teacher.test is not None:
        found = (compared.against_teacher or {}).get(top)
        rests_on += f"; {_against_teacher(found, teacher, compared.means[top].value)}"
    return Verdict(f"{says}.", f"{rests_on}.", _next_step(top, own, compared, margin))


# --- what it is ----------------------------------------------------------------------------------


def _says(
    top: str,
    own: Mapping[str | None, Pair],
    pairs: Sequence[Pair],
    recommended: Recommendation,
    margin: float,
) -> str:
    alike = [name for name, pair in own.items() if name and pair.state == "equivalent"]
    beaten = [name for name, pair in own.items() if name and pair.better == top]
    apart = [name for name, pair in own.items() if name and pair.state == "out_of_reach"]
    unknown = [name for name in own if name and name not in (*alike, *beaten, *apart)]
    group = [top, *alike]
    said = []
    if alike:
        said.append(f"{joined(group)} are equivalent within {in_points(margin)}")
        if len(alike) > 1 and not _all_equivalent(group, pairs):
            said = [f"{top} is equivalent to each of {joined(alike)} within {in_points(margin)}"]
    below_all = [name for name in beaten if _all_above(group, name, pairs)]
    if below_all:
        size = _sizes([pair for pair in pairs if _between(pair, group, below_all)])
        if not alike:
            said.append(f"{top} is {size} points above {joined(below_all)}")
        else:
            every = "both" if len(group) == 2 else "all"
            said[-1] += f" and {every} {size} points above {joined(below_all)}"
    if rest := [name for name in beaten if name not in below_all]:
        size = _sizes([pair for pair in pairs if _between(pair, [top], rest)])
        said.append(f"{top} is {size} points above {joined(rest)}")
    if unknown:
        said.append(f"no difference is shown between {joined([top, *unknown])}")
        if len(unknown) > 1:
            said[-1] = f"no difference is shown between {top} and each of {joined(unknown)}"
    if apart:
        said.append(f"the test rows can't separate {top} from {joined(apart)}")
    text = "; ".join([*said, *_why(recommended, bool(unknown or apart))])
    # A sentence that starts with a strategy's name keeps its small letter.
    return text if alike or beaten else text[0].upper() + text[1:]


def _why(recommended: Recommendation, is_open: bool) -> list[str]:
    """Why this strategy, where it doesn't beat all others."""
    top, alike = recommended.strategy, recommended.equivalent
    if alike or recommended.first_choice != top:
        cheapest = "the cheaper one" if len(alike) < 2 else "the cheapest one"
        return [f"{top} is {cheapest}"]
    if not is_open:
        return []
    if len(recommended.candidates) == 1:
        return [f"{top} is recommended, the only one that no other strategy beats"]
    return [f"{top} is recommended, the highest on validation of those that none beats"]


def _all_equivalent(group: Sequence[str], pairs: Sequence[Pair]) -> bool:
    return all(pair.state == "equivalent" for pair in pairs if {pair.a, pair.b} <= set(group))


def _all_above(group: Sequence[str], name: str, pairs: Sequence[Pair]) -> bool:
    return all(pair.better in group for pair in pairs if _between(pair, group, [name]))


def _between(pair: Pair, group: Sequence[str], others: Sequence[str]) -> bool:
    return (pair.a in group and pair.b in others) or (pair.b in group and pair.a in others)


def _sizes(pairs: Sequence[Pair]) -> str:
    """`1.8`, `1.6 to 2.3`"""
    sizes = [abs(pair.difference) for pair in pairs if pair.difference is not None]
    low, high = (f"{100 * one:.1f}" for one in (min(sizes), max(sizes)))
    return low if low == high else f"{low} to {high}"


# --- what it rests on ----------------------------------------------------------------------------


def _on_what(own: Mapping[str | None, Pair], compared: Comparison) -> str:
    """`3 to 8 seeds and 872 test rows, after looks at 3, 5 and 8 seeds: `"""
    seeds = [pair.seeds for pair in own.values()]
    rows = [pair.rows for pair in own.values() if pair.rows is not None]
    if not seeds:
        return "On test, "
    low, high = min(seeds), max(seeds)
    number = count(low, "seed") if low == high else f"{low} to {high} seeds"
    on_rows = f" and {rows[0]:,} test rows" if rows else ""
    looks = sorted({look.seeds for pair in compared.pairs for look in pair.looks})
    after = ""
    if looks:
        what = "a look" if len(looks) == 1 else "looks"
        after = f", after {what} at {joined([str(one) for one in looks])} seeds"
    return f"{number} of each pair{on_rows}{after}: "


def _interval(mean: Estimate) -> str:
    if mean.low is None or mean.high is None:
        return f"{mean.value:.4f} (one seed)"
    return f"{mean.value:.4f} ({mean.low:.4f} to {mean.high:.4f})"


def _against_teacher(found: AgainstTeacher | None, teacher: TeacherFacts, reached: float) -> str:
    """A strategy's mean and its teacher's score, both on test."""
    assert teacher.test is not None
    score = f"the teacher reaches {teacher_score(teacher.test, teacher.ci95)}"
    if found is None:
        return f"{score}, and its predictions weren't kept, so the two can't be compared"
    if found.ci95 is None:
        return f"{score}, and one seed can't tell them apart"
    low, high = found.ci95
    size = f"{abs(100 * found.difference):.1f} points"
    match found.state:
        case "above":
            return f"{score}, and the student is {size} above it ({points_range(low, high)})"
        case "below":
            kept = f", and keeps {percent(reached / teacher.test)}" if teacher.test > 0 else ""
            return f"{score}, the student is {size} below it ({points_range(-high, -low)}){kept}"
    side = "above" if found.difference > 0 else "below"
    interval = points_range(low, high) if found.difference > 0 else points_range(-high, -low)
    return (
        f"{score}, and no difference between the two is shown: the student is {size} {side} it "
        f"({interval})"
    )


def teacher_score(test: float, interval: tuple[float, float] | None) -> str:
    return f"{test:.4f} ({interval[0]:.4f} to {interval[1]:.4f})" if interval else f"{test:.4f}"


# --- what to do next -----------------------------------------------------------------------------


def _next_step(
    top: str, own: Mapping[str | None, Pair], compared: Comparison, margin: float
) -> str | None:
    """What would settle the pairs that are open. None where nothing is."""
    left = [pair for pair in own.values() if pair.shows_nothing]
    judged = {name: compared.seeds_judged.get(name, 0) for name in compared.seeds_wanted}
    more = [name for name, wanted in compared.seeds_wanted.items() if wanted > judged[name]]
    if more:
        wanted = max(compared.seeds_wanted[name] for name in more)
        return f"Run the sweep again: {joined(more)} get seeds up to the look at {wanted}."
    if not left:
        return "Nothing is left to decide: export the student and use it."
    comparable = Family(sum(pair.ci95 is not None for pair in compared.pairs))
    return what_it_takes(left, top, margin, comparable)


# --- before confirm ------------------------------------------------------------------------------


def searched_verdict(metric: str, teacher: float | None, bests: Mapping[str, float]) -> Verdict:
    """What the search shows, and what it doesn't: the best of several trials with one seed each.

    teacher, bests: the metric on validation; of each strategy's best trial.
    """
    ranked = sorted(bests.items(), key=lambda entry: -entry[1])
    if not ranked:
        return Verdict("no trial has finished")
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
    return Verdict(
        f"{text}.",
        "Each trial has one seed and the best of several is shown, so small differences may be "
        "chance.",
        "Fresh seeds tell more: confirm.seeds says how many.",
    )
