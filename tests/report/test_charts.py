"""Charts: few traces, a table of numbers next to each, and looks that don't depend on color."""

from __future__ import annotations

import plotly.graph_objects
import pytest
from made_up_sweeps import full_sweep
from odd_sweeps import ODD

from kdsweep.compare.records import COLORS
from kdsweep.compare.rungs import ExpectedComplete
from kdsweep.report.charts import draw_charts
from kdsweep.report.charts.cost import Point, pareto
from kdsweep.report.charts.material import looks_of


def test_the_number_of_traces_does_not_grow_with_the_trials() -> None:
    def traces(trials: int) -> int:
        charts = draw_charts(*full_sweep(trials))
        return sum(len(panel.data) for chart in charts for panel in chart.panels)

    assert traces(125) == traces(60) < 80


def test_every_chart_has_its_numbers_and_the_teacher_where_it_makes_sense() -> None:
    for chart in draw_charts(*full_sweep(12)):
        assert chart.caption and chart.rows
        assert all(len(row) == len(chart.head) for row in chart.rows)
        shapes = [shape for panel in chart.panels for shape in panel.layout.get("shapes", [])]
        assert bool(shapes) == (chart.name not in ("importance", "settings"))


def test_the_curves_say_how_many_trials_were_expected_to_run_to_their_end_and_did() -> None:
    report, records = full_sweep(12)
    found = dict(report.strategies)
    found["distill"] = found["distill"].model_copy(update={"expected": ExpectedComplete(7.4, 12)})
    found["finetune"] = found["finetune"].model_copy(update={"expected": ExpectedComplete(12, 12)})
    charts = draw_charts(report.model_copy(update={"strategies": found}), records)
    did = found["distill"].trials
    assert (
        f" Expected to run to their end: distill about 7 of 12, and {did.complete} of {did.total} "
        "did. "
    ) in next(chart.caption for chart in charts if chart.name == "curves")


@pytest.mark.parametrize("name", ODD)
def test_plotly_knows_every_key_and_value(name: str) -> None:
    charts = draw_charts(*ODD[name]())
    assert bool(charts) == (name != "nothing finished")
    for chart in charts:
        for panel in chart.panels[:2]:
            plotly.graph_objects.Figure(panel.data, panel.layout)


def test_strategies_look_different_by_color_as_in_mlflow_and_without_it() -> None:
    looks = list(looks_of(f"s{i}" for i in range(16)).values())
    assert [look.color for look in looks[:7]] == list(COLORS[:7])
    assert len({(look.symbol, look.dash) for look in looks[:8]}) == 8
    assert len({(look.color, look.symbol) for look in looks}) == 16


def test_no_trial_beats_one_on_the_pareto_front() -> None:
    points = [
        Point(2.0, 0.8, "a"),
        Point(1.0, 0.7, "b"),
        Point(3.0, 0.75, "c"),
        Point(1.0, 0.6, "d"),
        Point(4.0, 0.8, "e"),
        Point(5.0, 0.9, "f"),
    ]
    assert [one.name for one in pareto(points)] == ["b", "a", "f"]
