"""`report.html`: the report as one file that loads nothing else.

It works on a screen, on a phone, with a keyboard and on paper.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from kdsweep import formatting
from kdsweep.compare.records import TrialRecord
from kdsweep.compare.verdicts import in_points
from kdsweep.config.sweep import COSTS
from kdsweep.core.files import write_atomically
from kdsweep.formatting import MISSING, score
from kdsweep.report.charts import draw_charts, not_drawn
from kdsweep.report.charts.figures import INK, Chart
from kdsweep.report.charts.material import SYMBOLS, Look, looks_of
from kdsweep.report.differences import Differences
from kdsweep.report.model import ModelCosts, Report
from kdsweep.report.sentences import (
    costs_in_words,
    earlier_sweeps_in_words,
    finalists_in_words,
    more_tests_in_words,
    teachers_in_words,
)
from kdsweep.report.settings_words import settings_in_words
from kdsweep.report.trial_rows import WORDS, trial_table
from kdsweep.report.versions_words import versions_in_words

# A strategy's marker in a table, in a box of 20 x 20, as Plotly draws it in the charts.
OUTLINES = {
    "circle": "M10 2a8 8 0 1 0 0 16a8 8 0 1 0 0-16z",
    "square": "M3 3h14v14H3z",
    "diamond": "M10 0L20 10L10 20L0 10z",
    "triangle-up": "M10 2L19 17H1z",
    "x": "M2 6L6 2L10 6L14 2L18 6L14 10L18 14L14 18L10 14L6 18L2 14L6 10z",
    "cross": "M7 1h6v6h6v6h-6v6H7v-6H1V7h6z",
    "star": "M10 0L12.4 6.8L19.5 6.9L13.8 11.2L15.9 18.1L10 14L4.1 18.1L6.2 11.2L.5 6.9L7.6 6.8z",
    "pentagon": "M10 1L19 7.5L15.5 18H4.5L1 7.5z",
}
assert set(OUTLINES) == set(SYMBOLS)
TEACHER_MARK = Markup('<span class="mark" aria-hidden="true">✶</span>')


def write_page(
    report: Report,
    records: Sequence[TrialRecord],
    file: Path,
    differences: Differences | None = None,
) -> None:
    """Write the page of a report. records: the trials that it was made from.

    differences: between the teacher and the student on test rows, where those were kept.
    """
    text = render(report, draw_charts(report, records), records, differences)
    write_atomically(file, lambda handle: handle.write(text.encode("utf-8")))


def render(
    report: Report,
    charts: Sequence[Chart],
    records: Sequence[TrialRecord],
    differences: Differences | None = None,
) -> str:
    """The page as HTML. Names that a user chose are escaped, and no other script can run."""
    from plotly.offline import get_plotlyjs

    plotly, script = get_plotlyjs(), _read("page.js")
    figures = [
        {
            "data": panel.data,
            "layout": panel.layout,
            "choices": [{"x": one.x, "axis": one.axis} for one in panel.choices],
        }
        for chart in charts
        for panel in chart.panels
    ]
    looks = looks_of(report.strategies)
    return _template().render(
        report=report,
        charts=charts,
        differences=differences,
        not_drawn=not_drawn(charts),
        answered=[one for one in report.questions if not one.has_too_few_trials],
        unanswered=[
            f"{one.question[:1].upper()}{one.question[1:]} (n = {one.n})"
            for one in report.questions
            if one.has_too_few_trials
        ],
        trials=trial_table(report.metric, records),
        word_columns=WORDS,
        no_costs=ModelCosts(),
        teacher_mark=TEACHER_MARK,
        marks={name: _mark(look) for name, look in looks.items()},
        facts=_facts(report),
        front=_front(report, looks),
        style=Markup(_read("page.css")),
        policy=_policy(plotly, script),
        figures=Markup(_inside_script(figures)),
        plotly=Markup(plotly),
        script=Markup(script),
    )


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "score": score,
        "points": _points,
        "interval": _interval,
        "margin": in_points,
        "parameters": _unless_missing(formatting.parameters),
        "megabytes": _unless_missing(formatting.megabytes),
        "milliseconds": _unless_missing(formatting.milliseconds),
        "percent": _unless_missing(formatting.percent),
        "sentence": _sentence,
    }
    return environment.from_string(_read("page.html.j2"))


def _policy(*scripts: str) -> str:
    """A Content-Security-Policy: nothing is loaded, and only these scripts run.

    `unsafe-eval` is there because Plotly's parallel coordinates compile their shaders.
    """
    allowed = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in scripts
    )
    rules = (
        "default-src 'none'",
        f"script-src {allowed} 'unsafe-eval'",
        "style-src 'unsafe-inline'",
        "img-src data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return "; ".join(rules)


def _inside_script(value: object) -> str:
    """JSON that can't end its own script element. NaN and infinities become null."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- parts of the page ---------------------------------------------------------------------------


def _mark(look: Look) -> Markup:
    color = "var(--ink)" if look.color == INK else look.color
    return Markup(
        '<svg class="mark" viewBox="0 0 20 20" aria-hidden="true"><path fill="{}" d="{}"/></svg>'
    ).format(color, OUTLINES[look.symbol])


@dataclass(frozen=True)
class _Front:
    """The table of the Pareto front. rows: a name, its mark, and cells."""

    head: list[str]
    rows: list[tuple[str, Markup, list[str]]]


def _front(report: Report, looks: dict[str, Look]) -> _Front | None:
    """The teacher first, then students, the best metric first; None without several objectives."""
    if not report.pareto:
        return None
    costs = [name for name in COSTS if name in report.pareto[0].costs]
    rows: list[tuple[str, Markup, list[str]]] = []
    if report.teacher is not None:
        teacher = report.teacher
        values = {
            "latency": teacher.latency_ms,
            "size": teacher.size_mb,
            "parameters": teacher.parameters,
        }
        cells = [score(teacher.validation), *(_cost(name, values[name]) for name in costs)]
        rows.append(("teacher", TEACHER_MARK, cells))
    for one in report.pareto:
        cells = [score(one.validation), *(_cost(name, one.costs[name]) for name in costs)]
        rows.append((one.id.name, _mark(looks[one.id.strategy]), cells))
    head = ["Student", f"Validation {report.metric}", *(name.capitalize() for name in costs)]
    return _Front(head, rows)


def _cost(objective: str, value: float | None) -> str:
    if value is None:
        return MISSING
    match objective:
        case "latency":
            return formatting.milliseconds(value)
        case "size":
            return formatting.megabytes(value)
    return formatting.parameters(value)


def _facts(report: Report) -> list[tuple[str, str]]:
    """What a reader wants to know at once."""
    facts = []
    if report.winner is not None:
        winner = report.winner
        seed = "" if winner.seed_index is None else f", seed {winner.seed_index}"
        kept = f"{winner.strategy}, trial {winner.number}{seed}: chosen by validation alone"
        facts.append(("Student kept", kept))
    if report.teacher is not None:
        teacher = report.teacher
        split = "validation" if teacher.test is None else "test"
        reached = teacher.validation if teacher.test is None else teacher.test
        interval = ""
        if teacher.test is not None and teacher.ci95 is not None:
            interval = f" ({formatting.score_range(*teacher.ci95)})"
        facts.append(("Teacher", f"{split} {report.metric} {score(reached)}{interval}"))
    for split, words in more_tests_in_words(report).items():
        facts.append((f"Also judged on {split}", words))
    facts += [*teachers_in_words(report), *earlier_sweeps_in_words(report)]
    facts += finalists_in_words(report)
    facts += [*costs_in_words(report), *versions_in_words(report)]
    for name, words in settings_in_words(report).items():
        facts.append((f"Settings of {name}", _sentence(words, ())))
    results = report.strategies.values()
    counts = {
        "complete": sum(found.trials.complete for found in results),
        "pruned": sum(found.trials.pruned for found in results),
        "failed": sum(found.trials.failed for found in results),
        "from an earlier space": sum(found.trials.earlier_space for found in results),
    }
    trials = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    facts.append(("Trials", trials or "none"))
    spent = formatting.duration(3600 * sum(found.slot_hours for found in results))
    busy = f", {100 * report.slots.busy:.0f}% of the sweep's slots busy" if report.slots else ""
    facts.append(("Slot time", spent + busy))
    return facts


def _points(value: float | None) -> str:
    """Hundredths of the metric, with a sign that lines up."""
    return MISSING if value is None else f"{100 * value:+.2f}".replace("-", "−")


def _interval(ends: Sequence[float] | None, points: bool = False) -> str:
    if ends is None:
        return MISSING
    low, high = ends
    return f"{_points(low)} to {_points(high)}" if points else formatting.score_range(low, high)


def _unless_missing(write: Callable[[float], str]) -> Callable[[float | None], str]:
    """The filter that writes a number, or a dash where it is missing."""
    return lambda value: MISSING if value is None else write(value)


def _sentence(text: str, names: Iterable[str]) -> str:
    """With a full stop, and a capital unless it starts with a name."""
    if not any(text.startswith(name) for name in names):
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
