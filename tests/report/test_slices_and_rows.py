"""Any searched parameter against the result, and the table of all trials."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import plotly.graph_objects
from made_up_sweeps import full_sweep, report_of, settings_of, trial

from kdsweep.compare.records import TrialRecord
from kdsweep.report.charts import draw_charts
from kdsweep.report.charts.figures import Chart, Choice
from kdsweep.report.trial_rows import trial_table


def with_params(record: TrialRecord, **params: Any) -> TrialRecord:
    return replace(record, params=params)


def slice_of(records: list[TrialRecord], *names: str, **more: Any) -> Chart:
    charts = draw_charts(report_of(records, names, **more), records)
    return next(chart for chart in charts if chart.name == "slice")


def choice_of(chart: Chart, label: str) -> Choice:
    return next(one for one in chart.panels[0].choices if one.label == label)


def some_trials() -> list[TrialRecord]:
    def one(number: int) -> TrialRecord:
        made = trial("distill", number, 0.8 + 0.01 * number)
        drawn = {"weight_decay": 10.0**-number, "pooling": ["mean", "first"][number % 2]}
        return with_params(made, **drawn, same=1)

    alone = with_params(trial("finetune", 0, 0.7, settings_of(1.0, 1.0)), weight_decay=0.5)
    return [*map(one, range(4)), alone]


def test_every_parameter_that_differs_can_be_chosen_and_the_most_important_comes_first() -> None:
    importance = {"distill": {"pooling": 0.9, "weight_decay": 0.1}, "finetune": None}
    chart = slice_of(some_trials(), "distill", "finetune", importance=importance)
    labels = [one.label for one in chart.panels[0].choices]
    assert labels[:2] == ["pooling", "weight_decay"] and "same" not in labels
    assert "mean alpha over training" in labels
    assert [row[0] for row in chart.rows] == labels


def test_a_trial_without_the_parameter_has_no_place_in_its_view() -> None:
    chart = slice_of(some_trials(), "distill", "finetune")
    assert choice_of(chart, "weight_decay").x == ([1.0, 0.1, 0.01, 0.001], [0.5])
    assert choice_of(chart, "weight_decay").axis["type"] == "log"
    pooling = choice_of(chart, "pooling")
    assert pooling.x == (["mean", "first", "mean", "first"], [None])
    assert pooling.axis["categoryarray"] == ["first", "mean"]
    temperature = choice_of(chart, "mean temperature over training")
    assert temperature.x[1] == [None] and None not in temperature.x[0]


def test_plotly_knows_the_axis_of_every_choice_and_alpha_says_its_ends() -> None:
    charts = draw_charts(*full_sweep(12))
    panel = next(chart for chart in charts if chart.name == "slice").panels[0]
    for one in panel.choices:
        plotly.graph_objects.Figure(panel.data, panel.layout | {"xaxis": one.axis})
    title: Any = next(one for one in panel.choices if "alpha" in one.label).axis["title"]
    assert "1 = labels only, 0 = teacher only" in title["text"]


def test_all_trials_have_their_swept_settings_and_what_they_reached_on_test() -> None:
    plain, confirmed = some_trials()[0], some_trials()[1]
    assert confirmed.result is not None
    confirmed = replace(confirmed, result=replace(confirmed.result, test={"test/accuracy": 0.79}))
    table = trial_table("accuracy", [plain, confirmed])
    names = [name for name, _ in table.head]
    assert names[:4] == ["Trial", "State", "Validation", "Test"]
    assert {"weight_decay", "pooling"} <= set(names)
    first, second = (dict(zip(names, row, strict=True)) for row in table.rows)
    assert (first["Test"], second["Test"]) == ("–", "0.7900")
    assert (first["pooling"], second["pooling"]) == ("mean", "first")
    assert "Test" not in dict(trial_table("accuracy", [plain]).head)
