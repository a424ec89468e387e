"""`report.html`: the report as one file that needs nothing else, for a screen, a phone, a keyboard or paper."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from kdsweep.compare.records import TrialRecord
from kdsweep.config.sweep import COSTS
from kdsweep.core.files import write_atomically
from kdsweep.report.charts import draw_charts
from kdsweep.report.figures import INK, SYMBOLS, Chart, Look, looks_of
from kdsweep.report.schedule_words import hears_teacher, in_words, peak_rate
from kdsweep.report.sentences import more_tests_in_words, teachers_in_words

# How a strategy's marker is drawn in a table, in a box of 20 x 20: as Plotly draws it in the charts.
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
NOTHING = "–"


def write_page(report: dict[str, Any], records: Sequence[TrialRecord], file: Path) -> None:
    """Write the page of a report; `records`: the trials that it was made from."""
    text = render(report, draw_charts(report, records), records)
    write_atomically(file, lambda handle: handle.write(text.encode("utf-8")))


def render(report: dict[str, Any], charts: Sequence[Chart], records: Sequence[TrialRecord]) -> str:
    """The page. Whatever a user named is escaped, and only the two scripts that belong here may run, none from elsewhere."""
    from plotly.offline import get_plotlyjs

    plotly, script = get_plotlyjs(), _read("page.js")
    figures = [
        {"data": panel.data, "layout": panel.layout} for chart in charts for panel in chart.panels
    ]
    looks = looks_of(report["strategies"])
    return _template().render(
        report=report,
        charts=charts,
        trials=[_trial(report["metric"], one) for one in records],
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
        "number": _number,
        "points": _points,
        "interval": _interval,
        "count": _count,
        "unit": _unit,
        "share": _share,
        "sentence": _sentence,
    }
    return environment.from_string(_read("page.html.j2"))


def _policy(*scripts: str) -> str:
    """A Content-Security-Policy: nothing is loaded, and no script runs but these. Plotly's parallel coordinates compile their shaders."""
    allowed = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in scripts
    )
    return f"default-src 'none'; script-src {allowed} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"


def _inside_script(value: Any) -> str:
    """JSON that can't end the script element that it stands in; what is no finite number is null."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- what is shown of the report -------------------------------------------------------------------------------------


def _mark(look: Look) -> Markup:
    color = "var(--ink)" if look.color == INK else look.color
    return Markup(
        '<svg class="mark" viewBox="0 0 20 20" aria-hidden="true"><path fill="{}" d="{}"/></svg>'
    ).format(color, OUTLINES[look.symbol])


def _front(report: dict[str, Any], looks: dict[str, Look]) -> dict[str, Any] | None:
    """The table of the Pareto front, where a sweep had several objectives: the teacher first, then students, the best metric first."""
    front = report.get("pareto")
    if not front:
        return None
    costs = [name for name in COSTS if name in front[0]]
    shown: dict[str, Callable[[float | None], str]] = {
        "latency": lambda value: _unit(value, "ms"),
        "size": lambda value: _unit(value, "MB"),
        "parameters": _count,
    }
    teacher = report["teacher"]
    rows: list[tuple[str, Markup, list[str]]] = []
    if teacher is not None:
        rows.append(
            (
                "teacher",
                TEACHER_MARK,
                [
                    _number(teacher["validation"]),
                    *(shown[name](teacher.get(COSTS[name])) for name in costs),
                ],
            )
        )
    for one in front:
        cells = [_number(one["validation"]), *(shown[name](one[name]) for name in costs)]
        rows.append((f"{one['strategy']}-{one['trial']}", _mark(looks[one["strategy"]]), cells))
    return {
        "head": [
            "Student",
            f"Validation {report['metric']}",
            *(name.capitalize() for name in costs),
        ],
        "rows": rows,
    }


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    """What a reader wants to know at once."""
    strategies, winner, teacher, slots = (
        report["strategies"].values(),
        report.get("winner"),
        report["teacher"],
        report.get("slots"),
    )
    counts = {
        state: sum(found["trials"].get(state, 0) for found in strategies)
        for state in ("complete", "pruned", "failed")
    }
    facts = []
    if winner is not None:
        seed = "" if winner["seed_index"] is None else f", seed {winner['seed_index']}"
        facts.append(
            (
                "Student kept",
                f"{winner['strategy']}, trial {winner['trial']}{seed}: chosen by validation alone",
            )
        )
    if teacher is not None:
        split = "validation" if teacher["test"] is None else "test"
        facts.append(("Teacher", f"{split} {report['metric']} {_number(teacher[split])}"))
    facts += [
        (f"Judged beside test: {split}", words)
        for split, words in more_tests_in_words(report).items()
    ]
    facts += teachers_in_words(report)
    facts.append(
        (
            "Trials",
            ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none",
        )
    )
    hours = sum(found["slot_hours"] for found in strategies)
    facts.append(
        (
            "Slot time",
            _hours(hours)
            + (f", {100 * slots['busy']:.0f}% of the sweep's slots busy" if slots else ""),
        )
    )
    return facts


def _hours(hours: float) -> str:
    return (
        f"{hours:.1f} hours"
        if hours >= 2
        else f"{60 * hours:.1f} minutes"
        if hours >= 1 / 30
        else f"{3600 * hours:.0f} seconds"
    )


def _trial(metric: str, record: TrialRecord) -> dict[str, Any]:
    settings, result = record.settings, record.result
    return {
        "name": record.id.name,
        "phase": record.id.phase,
        "state": record.state,
        "value": record.best(metric),
        "alpha": in_words(settings["alpha"]),
        "temperature": in_words(settings["temperature"]) if hears_teacher(settings) else NOTHING,
        "rate": f"{peak_rate(settings):.2e}",
        "epochs": f"{record.evaluations[-1].epoch:.3g}" if record.evaluations else "0",
        "seconds": f"{result.seconds:,.0f}" if result else NOTHING,
        "latency": result.student.get("latency_ms") if result and result.student else None,
    }


def _number(value: float | None) -> str:
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.4f}"


def _points(value: float | None) -> str:
    """Hundredths of the metric, with a sign that lines up."""
    return NOTHING if value is None else f"{100 * value:+.2f}".replace("-", "−")


def _interval(ends: Sequence[float] | None, points: bool = False) -> str:
    if ends is None:
        return NOTHING
    low, high = (_points(end) if points else _number(end) for end in ends)
    return f"{low} to {high}"


def _count(value: float | None) -> str:
    """Of parameters: `66.4 M`."""
    if value is None:
        return NOTHING
    return (
        f"{value / 1e9:.2f} B"
        if value >= 1e9
        else f"{value / 1e6:.1f} M"
        if value >= 1e6
        else f"{value / 1e3:.1f} k"
        if value >= 1e3
        else f"{value:.0f}"
    )


def _unit(value: float | None, unit: str) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.0f} {unit}" if abs(value) >= 1000 else f"{value:.3g} {unit}"


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f}%"


def _sentence(text: str, names: Iterable[str]) -> str:
    """With a capital, unless it begins with a name, and a full stop."""
    named = any(text.startswith(name) for name in names)
    return (text if named else text[:1].upper() + text[1:]) + (
        "" if text.endswith((".", "!", "?")) else "."
    )
