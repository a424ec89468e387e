"""The report says how far the choice of the best settings is more than a choice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up_sweeps import report_of, trial

from kdsweep.compare.findings import SettingsComparison
from kdsweep.report.charts import draw_charts
from kdsweep.report.model import Report
from kdsweep.report.page import render
from kdsweep.report.sentences import as_markdown
from kdsweep.report.settings_words import (
    in_words,
    noise_note,
    settings_in_words,
    settings_said_once,
)

SOME = SettingsComparison(complete=24, compared=24, alike=(3, 5, 9), seeds=5)
ALL = replace(SOME, complete=4, compared=4, alike=(3, 0, 1, 2), seeds=0)
UNKNOWN = SettingsComparison(24, 0, None, 0)
RECORDS = [trial(name, i, 0.8 + 0.01 * i) for name in ("distill", "finetune") for i in range(8)]


def report(**comparisons: SettingsComparison) -> Report:
    plain = report_of(RECORDS, ("distill", "finetune"))
    changed = {
        name: one.model_copy(update={"settings_comparison": comparisons.get(name)})
        for name, one in plain.strategies.items()
    }
    return plain.model_copy(update={"strategies": changed})


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            SOME,
            "3 of 24 settings of distill can't be told apart from the best one (validation rows "
            "and 5 seeds of confirm counted); the choice among them is the highest validation "
            "value",
        ),
        (
            ALL,
            "none of 4 settings of distill is shown to be worse than the best one (only "
            "validation rows counted: without two runs of confirm, the noise between seeds isn't "
            "known); the choice among them is the highest validation value",
        ),
        (
            replace(SOME, alike=(3,)),
            "the best settings of distill are shown to be better than all others of 24 on "
            "validation (validation rows and 5 seeds of confirm counted)",
        ),
        (
            replace(SOME, alike=(3,), seeds=0),
            "the student of distill's best trial is shown to be better than all others of 24 on "
            "validation, but whether its settings are isn't known (only validation rows counted: "
            "without two runs of confirm, the noise between seeds isn't known)",
        ),
        (
            replace(SOME, seeds=0),
            "at least 3 of 24 settings of distill can't be told apart from the best one (only "
            "validation rows counted: without two runs of confirm, the noise between seeds isn't "
            "known); the choice among them is the highest validation value",
        ),
        (
            replace(SOME, complete=5000, compared=200),
            "3 of the 200 highest of 5,000 settings of distill can't be told apart from the best "
            "one (validation rows and 5 seeds of confirm counted); the choice among them is the "
            "highest validation value",
        ),
        (
            UNKNOWN,
            "whether the best settings of distill are better than others can't be known: trials "
            "of version 0.1.0 kept no predictions for validation, so it is only the one with the "
            "highest value",
        ),
    ],
    ids=["some", "all", "one", "one by rows", "some by rows", "very many", "unknown"],
)
def test_a_sentence_says_what_is_known(found: SettingsComparison, words: str) -> None:
    assert in_words("distill", found) == words


def test_the_page_and_the_description_say_it() -> None:
    made = report(distill=SOME)
    (words,) = settings_in_words(made).values()
    assert f"- Settings: {words}." in as_markdown(made)
    page = render(made, draw_charts(made, RECORDS), RECORDS)
    assert "Settings of distill" in page and "Settings of finetune" not in page


def test_what_holds_for_several_strategies_is_said_once() -> None:
    said = settings_said_once(report(distill=ALL, finetune=replace(ALL, alike=(0, 1, 2, 3))))
    assert len(said) == 1
    assert said[0].startswith("none of 4 settings of each of distill and finetune is shown")
    assert len(settings_said_once(report(distill=SOME, finetune=SOME))) == 2
    assert len(settings_said_once(report(distill=UNKNOWN, finetune=UNKNOWN))) == 1


def test_charts_of_single_trials_say_where_noise_may_order_them() -> None:
    made = report(distill=SOME, finetune=ALL)
    captions = {chart.name: chart.caption for chart in draw_charts(made, RECORDS)}
    for name in ("importance", "settings", "learning-rate", "alpha"):
        assert "may be noise alone" in captions[name], name
        assert "3 of 24 trials of distill can't be told apart" in captions[name], name
    assert noise_note(made, ["distill"]) == (
        " 3 of 24 trials of distill can't be told apart from the best one: differences among them "
        "may be noise."
    )


def test_charts_say_which_parameters_matter_by_more_than_noise() -> None:
    names = ("learning_rate", "alpha.linear_rising.start", "temperature")
    tested = {
        "distill": dict(zip(names, (True, False, True), strict=True)),
        "finetune": {"learning_rate": False},
    }
    made = report().model_copy(update={"shown_to_matter": tested})
    charts = {chart.name: chart for chart in draw_charts(made, RECORDS)}
    assert (
        "Shown to matter by more than noise (permutation tests, corrected for all parameters): "
        in (charts["importance"].caption)
    )
    assert "distill: learning_rate and temperature." in charts["importance"].caption
    rows = {row[:2]: row[3] for row in charts["importance"].rows}
    assert rows["distill", "learning_rate"] == "shown"
    assert rows["finetune", "learning_rate"] == "not shown"
    assert "that is more than noise is shown for distill." in charts["learning-rate"].caption
    assert "No effect of alpha is shown to be more than noise." in charts["alpha"].caption
    nothing = {name: dict.fromkeys(found, False) for name, found in tested.items()}
    made = made.model_copy(update={"shown_to_matter": nothing})
    (chart,) = (one for one in draw_charts(made, RECORDS) if one.name == "importance")
    assert "No parameter is shown to matter by more than noise" in chart.caption
    assert all(text.endswith(", may be noise") for text in chart.panels[0].data[0]["text"])
    assert Report.from_json(made.to_json()) == made


def test_a_chart_of_older_trials_says_that_it_can_not_be_known() -> None:
    assert "can't be known" in noise_note(report(distill=UNKNOWN), ["distill", "finetune"])


def test_a_chart_has_no_note_where_the_best_settings_are_known() -> None:
    assert noise_note(report(distill=replace(SOME, alike=(3,))), ["distill"]) == ""


def test_the_report_keeps_it_and_one_without_it_is_as_before() -> None:
    made = report(distill=SOME, finetune=UNKNOWN)
    assert Report.from_json(made.to_json()) == made
    older = report().to_json()
    assert isinstance(older["strategies"], dict)
    assert "settings_comparison" not in str(older)
