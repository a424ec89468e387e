"""What a chart must not do: squash trials, cover them, print over names, or fade away."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import pytest
from made_up_sweeps import TEACHER, full_sweep, report_of, trial
from odd_sweeps import made

from kdsweep.compare.records import TrialRecord
from kdsweep.report.charts import draw_charts, not_drawn
from kdsweep.report.charts.figures import INK, Chart, Panel, span_of
from kdsweep.report.charts.schedules import BANDS
from kdsweep.report.model import Report


def chart_of(name: str, report: Report, records: list[TrialRecord]) -> Chart:
    return next(one for one in draw_charts(report, records) if one.name == name)


def a_third_failed() -> tuple[Report, list[TrialRecord]]:
    """Of twelve trials, four learned nothing."""
    return made(
        "distill",
        trials=12,
        value=lambda number: 0.2 if number % 3 == 0 else 0.85 + 0.003 * number,
        teacher=TEACHER,
    )


def frame(panel: Panel) -> list[float]:
    axis: Any = panel.layout["yaxis"]
    found: list[float] = axis["range"]
    return found


@pytest.mark.parametrize(
    ("name", "at"), [("curves", 0), ("best", 0), ("alpha", 1), ("learning-rate", 0), ("cost", 0)]
)
def test_trials_that_learned_nothing_do_not_squash_the_others(name: str, at: int) -> None:
    low, high = frame(chart_of(name, *a_third_failed()).panels[at])
    assert 0.5 < low < 0.86 and high > 0.93


def test_a_trial_below_the_frame_stands_at_its_edge_with_its_value_and_is_counted() -> None:
    chart = chart_of("learning-rate", *a_third_failed())
    points: Any = chart.panels[0].data[0]
    low = frame(chart.panels[0])[0]
    drawn = zip(points["y"], points["marker"]["symbol"], points["text"], strict=True)
    below = [(y, text) for y, symbol, text in drawn if symbol == "arrow-down"]
    assert [y for y, _ in below] == [low] * 4
    assert all(text.endswith(": 0.2000") for _, text in below)
    assert "Arrows at the lower edge: 4 trials far below the others." in chart.caption


def test_values_that_are_spread_out_are_all_in_the_frame() -> None:
    values = [0.6, 0.62, 0.7, 0.75, 0.8, 0.9, 0.91]
    low, high = span_of(values, cut=True)
    assert low < 0.6 and high > 0.91


def test_the_label_of_a_level_teacher_line_is_in_the_legend_and_covers_no_point() -> None:
    for chart in draw_charts(*full_sweep(12)):
        for panel in chart.panels:
            shapes: Any = panel.layout.get("shapes", [])
            for line in (one for one in shapes if one["type"] == "line" and one["x0"] != one["x1"]):
                assert line["name"] == "teacher 0.9300" and line["showlegend"]
                assert panel.layout["showlegend"]
                assert not panel.layout["annotations"]


def _dimensions(report: Report, records: list[TrialRecord]) -> dict[str, Any]:
    data: Any = chart_of("settings", report, records).panels[0].data[0]
    return {one["label"]: one for one in data["dimensions"]}


def test_a_trial_that_learns_from_labels_alone_has_no_temperature_among_all_settings() -> None:
    report, records = full_sweep(6)
    found = _dimensions(report, records)
    strategy, temperature = found["strategy"], found["first<br>temperature"]
    none = temperature["tickvals"][temperature["ticktext"].index("none")]
    of_finetune = strategy["tickvals"][strategy["ticktext"].index("finetune")]
    for its, value in zip(strategy["values"], temperature["values"], strict=True):
        assert (value == none) == (its == of_finetune)
    rows = chart_of("settings", report, records).rows
    assert all((row[-2] == "–") == row[0].startswith("finetune") for row in rows)


def test_axes_of_all_settings_have_few_ticks_and_nothing_at_their_ends() -> None:
    for one in _dimensions(*full_sweep(60)).values():
        # Plotly writes the ends of an axis over its name, except where ticks are given.
        assert 1 < len(one["tickvals"]) == len(one["ticktext"]) <= 8


def test_the_color_of_a_line_says_the_result_and_the_best_is_drawn_last() -> None:
    data: Any = chart_of("settings", *full_sweep(12)).panels[0].data[0]
    colors, results = data["line"]["color"], data["dimensions"][-1]["values"]
    assert colors == sorted(colors) and results == sorted(results) and len(set(colors)) > 10


def _luminance(color: tuple[float, ...]) -> float:
    parts = [
        one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4
        for one in (channel / 255 for channel in color)
    ]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def _rgb(text: str) -> tuple[int, ...]:
    return tuple(int(text[at : at + 2], 16) for at in (1, 3, 5))


@pytest.mark.parametrize("mode", [0, 1])
def test_every_band_of_results_can_be_seen_in_light_and_in_dark_mode(mode: int) -> None:
    style = (files("kdsweep.report") / "page.css").read_text(encoding="utf-8")
    card = _rgb(re.findall(r"--card: (#\w{6})", style)[mode])
    ink = re.findall(r"--ink: (#\w{6})", style)[mode]
    for color, opacity, _ in BANDS:
        drawn = _rgb(ink if color == INK else color)
        seen = tuple(opacity * a + (1 - opacity) * b for a, b in zip(drawn, card, strict=True))
        light, dark = sorted((_luminance(seen), _luminance(card)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3, (color, mode)


def test_the_importance_of_many_parameters_from_few_trials_has_a_warning() -> None:
    records = [trial("distill", number, 0.8 + 0.01 * number) for number in range(8)]
    many = {f"parameter_{i}": 1 / 9 for i in range(9)}
    report = report_of(records, ("distill",), importance={"distill": many})
    caption = chart_of("importance", report, records).caption
    assert "Too few trials to rely on the shares or their order" in caption
    assert "distill (9 parameters, 8 trials)" in caption
    few = report.model_copy(update={"importance": {"distill": {"learning_rate": 1.0}}})
    assert "Too few trials" not in chart_of("importance", few, records).caption


def test_a_chart_with_nothing_to_show_is_not_drawn_and_named_with_what_it_needs() -> None:
    charts = draw_charts(*made("distill", trials=1, seeds=0))
    assert [chart.name for chart in charts] == ["strategies", "curves", "cost"]
    assert "learning rate (two complete trials that differ in it)" in not_drawn(charts)
    assert not_drawn(draw_charts(*full_sweep(12))) == []
