"""The report's charts, as Plotly's own JSON.

However many trials there are, there are few traces: all curves of one strategy are one line with
gaps. Everything that a chart shows by color, it also shows by marker, dash or position (for
black-and-white print), and in numbers (the caption and a table).
"""

from __future__ import annotations

from collections.abc import Sequence

from kdsweep.compare.records import TrialRecord
from kdsweep.report.charts.best_so_far import best_so_far_chart
from kdsweep.report.charts.cost import cost_chart
from kdsweep.report.charts.figures import Chart
from kdsweep.report.charts.learning_curves import learning_curves_chart
from kdsweep.report.charts.learning_rate import learning_rate_chart
from kdsweep.report.charts.material import Material
from kdsweep.report.charts.parameters import importance_chart, settings_chart
from kdsweep.report.charts.schedules import schedule_chart
from kdsweep.report.charts.slices import slice_chart
from kdsweep.report.charts.strategies import strategies_chart
from kdsweep.report.model import Report

# What each chart shows, and what it needs: the page says so where there isn't enough for it.
WANTED = {
    "strategies": "strategies (a complete trial)",
    "curves": "learning curves (an evaluation)",
    "best": "best so far (two complete trials)",
    "alpha": "alpha (two complete trials that differ in it)",
    "temperature": "temperature (two complete trials that learn from the teacher and differ in it)",
    "learning-rate": "learning rate (two complete trials that differ in it)",
    "slice": "any parameter against the result (two complete trials that differ)",
    "importance": "parameter importance (more complete trials, which differ)",
    "settings": "all settings at once (two complete trials)",
    "cost": "latency and size (students that differ in them)",
}


def draw_charts(report: Report, records: Sequence[TrialRecord]) -> list[Chart]:
    """Every chart that has something to show."""
    material = Material(report, records)
    charts = (
        strategies_chart(material),
        learning_curves_chart(material),
        best_so_far_chart(material),
        schedule_chart(material, "alpha", "Alpha, the weight of the labels"),
        schedule_chart(material, "temperature", "Temperature"),
        learning_rate_chart(material),
        slice_chart(material),
        importance_chart(material),
        settings_chart(material),
        cost_chart(material),
    )
    return [chart for chart in charts if chart is not None]


def not_drawn(charts: Sequence[Chart]) -> list[str]:
    """The charts that have nothing to show, and what they need."""
    drawn = {chart.name for chart in charts}
    return [words for name, words in WANTED.items() if name not in drawn]
