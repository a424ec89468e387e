"""A name that MLflow doesn't allow costs no other one, and can be found again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import others_slow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_metric_name, _validate_param, _validate_tag
from servers import Lines, MlflowServer

from kdsweep.errors import TrackingRefused
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.tracking.base import MetricValue, RunKey, RunUpdate, Tracking
from kdsweep.tracking.mlflow_names import (
    PARAM_LENGTH,
    TAG_LENGTH,
    accepted_name,
    accepted_value,
    original_names,
)
from kdsweep.tracking.opening import open_tracking

PLAIN = [
    "learning_rate",
    "task.where.source",
    "validation/f1",
    "a b",
    "größe",
    "a:b",
    "-",
    "a...",
    "good_",
]
STRANGE = [
    "task.where.is it good?",
    "good?",
    "task.where.is it good!",
    "validation/f1 (macro)",
    "a//b",
    "a/./b",
    "/a",
    "a/",
    "../a",
    "..",
    "...",
    ".",
    "",
    "a\n",
    "a\ud800",
    "x" * 251,
    "x" * 250 + "?",
    "a--0123456789",
]
Open = Callable[[str], Tracking]


@pytest.mark.parametrize("name", [*PLAIN, *STRANGE], ids=ascii)
def test_mlflow_accepts_every_name(name: str) -> None:
    found = accepted_name(name)
    _validate_metric_name(found)
    _validate_param(found, "value")
    _validate_tag(found, "value")


def test_a_name_that_mlflow_accepts_stays_and_no_two_become_one() -> None:
    assert [accepted_name(name) for name in PLAIN] == PLAIN
    changed = [accepted_name(name) for name in STRANGE]
    once_more = [accepted_name(name) for name in changed]
    every = [*PLAIN, *changed, *once_more]
    assert len(set(every)) == len(every)
    # A slash groups metrics in MLflow's charts.
    assert accepted_name("validation/f1 (macro)").startswith("validation/f1 _macro_--")


def test_each_changed_name_has_a_tag_with_what_it_was() -> None:
    tags = original_names([*PLAIN, *STRANGE])
    assert list(tags.values()) == STRANGE
    for tag, name in tags.items():
        assert accepted_name(name).endswith(tag.removeprefix("kdsweep.name."))


def test_a_value_that_is_too_long_says_that_it_was_cut() -> None:
    for most in (PARAM_LENGTH, TAG_LENGTH):
        assert accepted_value("x" * most, most) == "x" * most
        cut = accepted_value("x" * (most + 1), most)
        assert len(cut) == most
        assert cut.endswith(f"xxx... ({most + 1:,} characters)")
    assert accepted_value("a\0b\ud800", 100) == "a?b?"


def logged(uri: str, tracking: Tracking, update: RunUpdate) -> Run:
    return MlflowClient(tracking_uri=uri).get_run(tracking.runs.update(RunKey("sweep"), update))


@pytest.mark.parametrize("where", others_slow(["sqlite", "server"]))
def test_the_real_mlflow_takes_every_name_and_long_value(
    where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    uri = f"sqlite:///{request.getfixturevalue('empty_mlflow_db')}"
    if where == "server":
        server: MlflowServer = request.getfixturevalue("server")
        uri = server.uri
    tracking = open_tracking(uri, experiment="names", sweep="names", artifacts=tmp_path)
    names = [*PLAIN, *STRANGE]
    update = RunUpdate(
        state="running",
        params=dict.fromkeys(names, 1) | {"long": "x" * 7000, "zero": "\0"},
        metrics=[MetricValue(name, 0.5, 1, 1) for name in names],
    )
    for _ in range(2):
        found = logged(uri, tracking, update)
        assert found.data.params.keys() == {*map(accepted_name, names), "long", "zero"}
        assert found.data.metrics.keys() == set(map(accepted_name, names))
        originals = {value for key, value in found.data.tags.items() if "kdsweep.name." in key}
        assert {"task.where.is it good?", "validation/f1 (macro)"} <= originals
    tracking.runs.prepare_views("f1 (macro)")


def test_what_mlflow_refuses_costs_nothing_else_and_is_named(
    empty_mlflow_db: Path, tmp_path: Path
) -> None:
    uri = f"sqlite:///{empty_mlflow_db}"
    tracking = open_tracking(uri, experiment="refused", sweep="refused", artifacts=tmp_path)
    tracking.runs.update(RunKey("sweep"), RunUpdate(state="running", params={"a": 1}))
    # MLflow never changes the value of a param.
    update = RunUpdate(
        state="complete",
        params={"a": 2, "b": 3},
        tags={"c": "4"},
        metrics=[MetricValue("d", 0.5, 1, 1), MetricValue("d", 0.6, -1, 2)],
    )
    with pytest.raises(TrackingRefused) as refused:
        tracking.runs.update(RunKey("sweep"), update)
    message = str(refused.value)
    assert message.startswith(f"tracking: MLflow at {empty_mlflow_db} refuses param 'a' (")
    assert "metric 'd' (" in message
    assert "\n" not in message
    assert refused.value.run_id is not None
    found = MlflowClient(tracking_uri=uri).get_run(refused.value.run_id)
    assert found.data.params == {"a": "1", "b": "3"}
    assert found.data.tags["c"] == "4"
    assert found.info.status == "FINISHED"


def test_a_sweep_with_a_column_that_mlflow_does_not_allow_has_all_its_params(
    tiny_space: Path, tmp_path: Path, review_csv: Path, empty_mlflow_db: Path
) -> None:
    home, lines = Home(tmp_path / "home"), Lines()
    home.root.mkdir()
    home.mlflow_db.write_bytes(empty_mlflow_db.read_bytes())
    data = tmp_path / "asked.csv"
    head, *rows = review_csv.read_text(encoding="utf-8").splitlines()
    data.write_text(
        "\n".join([f"{head},is it good?", *(f"{row},yes" for row in rows)]), encoding="utf-8"
    )
    changed = (
        f"task.dataset={data}",
        "task.where={'is it good?': 'yes'}",
        "strategies.distill=",
        "strategies.combined=",
        "training.epochs=1",
        "trials=1",
        "confirm={seeds: 0}",
        "engine={type: inline}",
    )
    run(tiny_space, home=home.root, assignments=changed, observer=lines)
    client = MlflowClient(tracking_uri=home.tracking_uri("sqlite"))
    experiment = client.get_experiment_by_name("tiny")
    (sweep,) = client.search_runs([experiment.experiment_id], "tags.`kdsweep.phase` = 'sweep'")
    assert sweep.data.params[accepted_name("task.where.is it good?")] == "yes"
    assert sweep.data.params["task.label"] == "label"
    assert "task.where.is it good?" in sweep.data.tags.values()
    assert not any("tracking" in line for line in lines.lines)
    assert home.sweep("tiny").read_facts().tracked


def test_an_error_of_mlflow_that_may_pass_is_no_refusal(
    empty_mlflow_db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{empty_mlflow_db}"
    tracking = open_tracking(uri, experiment="passing", sweep="passing", artifacts=tmp_path)

    def full(*_: object, **__: object) -> None:
        raise MlflowException("database or disk is full")

    monkeypatch.setattr(MlflowClient, "log_batch", full)
    with pytest.raises(MlflowException, match="disk is full"):
        tracking.runs.update(RunKey("sweep"), RunUpdate(state="running", params={"a": 1}))
