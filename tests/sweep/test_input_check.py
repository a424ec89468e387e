"""Rows and models that change after a sweep ran: nothing is mixed, and stored numbers stay."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import make_model, sentences, write_csv

from kdsweep.cli import main
from kdsweep.config.space_loading import load_space
from kdsweep.core.data.rows import Split
from kdsweep.core.files import read_json, write_json
from kdsweep.core.models.describing import model_fingerprint
from kdsweep.errors import DataError, SettingsConflict
from kdsweep.replay import replay
from kdsweep.sweep import run
from kdsweep.sweep.engines.jobs import TrialJob
from kdsweep.sweep.engines.perform import perform
from kdsweep.sweep.folders import Home
from kdsweep.sweep.input_check import check_same_inputs, pin_rows
from kdsweep.sweep.pins import ModelPin, RowsPin
from kdsweep.trial_id import TrialId

ASSIGNMENTS = (
    "trials=1",
    "confirm={seeds: 2, finalists: 1}",
    "keep={students: 1}",
    "engine={type: inline}",
    "training.epochs=1",
)


@pytest.fixture(scope="module")
def swept(finished_sweep: Callable[..., Any], two_strategies: Callable[[str, int], Path]) -> Path:
    """The folder of a finished sweep, with its space, its data and a student of its own."""
    space = two_strategies("pins", 200)
    student = make_model(space.parent / "student")
    (space.parent / "student" / "code.py").write_text("ANSWER = 1\n", encoding="utf-8")
    finished_sweep(space, *ASSIGNMENTS, f"student.model={student}")
    return space.parent


@pytest.fixture
def changed(swept: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same folder, put back after the test."""
    kept = tmp_path_factory.mktemp("kept") / "folder"
    shutil.copytree(swept, kept)
    yield swept
    shutil.rmtree(swept)
    shutil.copytree(kept, swept)


def kdsweep(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--home", str(folder / "home")])


def same_sets(folder: Path) -> list[str]:
    """The options that give the settings of the finished sweep."""
    sets = (*ASSIGNMENTS, f"student.model={folder / 'student'}")
    return [word for one in sets for word in ("--set", one)]


def run_more(folder: Path) -> None:
    more = [one for one in ASSIGNMENTS if not one.startswith("trials")]
    student = f"student.model={folder / 'student'}"
    run(folder / "tiny.yaml", home=folder / "home", assignments=(*more, "trials=2", student))


def reorder(folder: Path) -> None:
    write_csv(folder / "reviews.csv", sentences(200)[::-1])


def edit_labels(folder: Path) -> None:
    other = {"pos": "neg", "neg": "pos"}
    rows = [(text, other[label]) for text, label in sentences(200)]
    write_csv(folder / "reviews.csv", rows)


def remove(folder: Path) -> None:
    (folder / "reviews.csv").unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (reorder, "the same rows in another order"),
        (edit_labels, "other labels"),
        (remove, "there is no file or folder"),
    ],
)
def test_compare_shows_the_same_numbers_whatever_the_data_holds_now(
    changed: Path, change: Callable[[Path], None], words: str
) -> None:
    before = json.loads(kdsweep(changed, "compare", "tiny", "--json").stdout)
    change(changed)
    after = kdsweep(changed, "compare", "tiny", "--json")
    assert json.loads(after.stdout) == before
    assert after.stderr.count("\n") == 1
    assert words in after.stderr
    assert str(changed / "reviews.csv") in after.stderr
    exported = kdsweep(changed, "export", "tiny", str(changed / "exported"))
    assert exported.exit_code == 0, exported.output
    assert words in exported.output


def test_nothing_is_said_where_nothing_has_changed(swept: Path) -> None:
    (swept / "reviews.csv").touch()
    assert kdsweep(swept, "compare", "tiny").stderr == ""


@pytest.mark.parametrize("change", [reorder, edit_labels])
def test_run_refuses_other_rows_and_names_the_file_and_the_change(
    changed: Path, change: Callable[[Path], None]
) -> None:
    report = (changed / "home" / "sweeps" / "tiny" / "report.json").read_bytes()
    change(changed)
    with pytest.raises(DataError) as refused:
        run_more(changed)
    assert "the rows of train, validation and test have changed since" in str(refused.value)
    assert "reviews.csv" in str(refused.value)
    assert "--fresh or --name" in str(refused.value)
    assert (changed / "home" / "sweeps" / "tiny" / "report.json").read_bytes() == report
    planned = kdsweep(changed, "plan", str(changed / "tiny.yaml"), "--json", *same_sets(changed))
    assert "run would refuse: sweep 'tiny': the rows of" in json.loads(planned.stdout)["notes"][0]


def test_a_finished_sweep_that_is_run_again_says_what_has_changed(changed: Path) -> None:
    reorder(changed)
    found = kdsweep(changed, "run", str(changed / "tiny.yaml"), *same_sets(changed))
    assert found.exit_code == 0, found.output
    assert "nothing to run" in found.output
    assert "in another order" in found.output


def test_another_student_is_refused_with_the_name_of_its_file(changed: Path) -> None:
    make_model(changed / "student", hidden=16)
    for call in (run_more, lambda folder: replay(Home(folder / "home"), "tiny", "finetune-0")):
        with pytest.raises(SettingsConflict) as refused:
            call(changed)
        assert f"the model {changed / 'student'} has changed since" in str(refused.value)
        assert "model.safetensors" in str(refused.value)
        assert "thread" not in str(refused.value)
    assert "model.safetensors" in kdsweep(changed, "compare", "tiny").stderr


def test_other_rows_or_models_end_a_sweep_that_runs(changed: Path) -> None:
    folder = Home(changed / "home").sweep("tiny")
    settings = folder.trial(TrialId("finetune", 0)).read_settings()
    target, cache = changed / "again", changed / "home" / "cache"
    pins = folder.read_facts().pins
    job = TrialJob(TrialId("finetune", 1), settings, target, cache, sweep="tiny", pins=pins)
    reorder(changed)
    *_, end = perform(job, lambda step, total: False, lambda line: None)
    assert end.outcome == "fatal"
    assert "the same rows in another order" in end.reason
    assert not target.exists()


def test_a_models_own_code_is_pinned_where_it_may_run(changed: Path) -> None:
    home = Home(changed / "home")
    folder = home.sweep("tiny")
    space = load_space(folder.space, is_stored=True)
    source = str(changed / "student")
    trusted = model_fingerprint(source, trust_remote_code=True)
    facts = folder.read_facts()
    assert "code.py" not in facts.pins.models[source].files
    with_code = {"code.py": "0"} | dict(facts.pins.models[source].files)
    pin = ModelPin(with_code, "0", trust_remote_code=True)
    folder.write_facts(replace(facts, pins=replace(facts.pins, models={source: pin})))
    with pytest.raises(SettingsConflict, match=r"has changed since the sweep was .* \(code.py\)"):
        check_same_inputs(home, folder, space)
    (changed / "student" / "code.py").write_text("ANSWER = 2\n", encoding="utf-8")
    assert model_fingerprint(source, trust_remote_code=True) != trusted


NOT_KNOWN = (
    "tiny: version 0.1 created it and didn't compare rows between runs, so whether trials of its "
    "search had other rows than the last ones can't be known\n"
)


def as_of_version_0_1(folder: Path) -> None:
    """Take away what that version didn't keep."""
    sweep = Home(folder / "home").sweep("tiny")
    sweep.test_labels.unlink()
    facts = read_json(sweep.facts)
    del facts["pins"], facts["mended"]
    write_json(sweep.facts, facts)


def test_an_old_sweep_is_compared_with_the_data_while_its_hash_is_the_same(changed: Path) -> None:
    before = json.loads(kdsweep(changed, "compare", "tiny", "--json").stdout)
    as_of_version_0_1(changed)
    found = kdsweep(changed, "compare", "tiny", "--json")
    assert (found.stderr, json.loads(found.stdout)) == (NOT_KNOWN, before)
    stored = read_json(changed / "home" / "sweeps" / "tiny" / "report.json")
    reorder(changed)
    found = kdsweep(changed, "compare", "tiny", "--json")
    assert json.loads(found.stdout) == stored
    changes, *rest = found.stderr.splitlines(keepends=True)
    assert "have changed since the sweep was started" in changes
    assert rest == [NOT_KNOWN]


def test_an_old_sweep_whose_students_had_different_rows_is_not_compared(changed: Path) -> None:
    as_of_version_0_1(changed)
    folder = Home(changed / "home").sweep("tiny")
    run_of_confirm = folder.trial(TrialId("finetune", 0, 1))
    stored = read_json(folder.report)
    logits = run_of_confirm.read_test_logits()
    for other in (-logits, logits[1:]):
        run_of_confirm.write_test_logits(other)
        found = kdsweep(changed, "compare", "tiny", "--json")
        assert json.loads(found.stdout) == stored
        assert found.stderr.splitlines(keepends=True) == [
            NOT_KNOWN,
            "tiny: finetune-0-seed-1 had other test rows than the last run of this sweep, which "
            "version 0.1 didn't compare, so its students can't be compared with each other; what "
            "is shown is the report that was written at its end\n",
        ]


def test_an_old_sweep_gets_its_pins_with_its_next_trials(changed: Path) -> None:
    sweep = Home(changed / "home").sweep("tiny")
    pins, labels = sweep.read_facts().pins, np.load(sweep.test_labels)
    as_of_version_0_1(changed)
    run_more(changed)
    now = sweep.read_facts().pins
    assert (now.splits, now.label_names) == (pins.splits, pins.label_names)
    assert {source: one.files for source, one in now.models.items()} == {
        source: one.files for source, one in pins.models.items()
    }
    assert np.array_equal(np.load(sweep.test_labels), labels)


def split(rows: list[tuple[str, int]], key: str) -> Split:
    texts, labels = zip(*rows, strict=True)
    return Split("train", (list(texts),), np.array(labels), key)


def test_a_pin_says_how_rows_differ() -> None:
    rows = [("good", 1), ("bad", 0), ("dull", 0)]
    pin = pin_rows(split(rows, "a"))
    others = {
        "3 rows, now 2": rows[:2],
        "the same rows in another order": rows[::-1],
        "other labels": [("good", 0), ("bad", 0), ("dull", 0)],
        "3 rows, not the same ones": [("great", 1), *rows[1:]],
    }
    for words, other in others.items():
        assert pin.difference(pin_rows(split(other, "b"))) == words
    assert pin.difference(pin_rows(split(rows, "a"))) is None
    assert RowsPin("a").difference(pin_rows(split(rows, "b"))) == "other rows"
    # Where one text ends and the next begins is a part of it.
    assert pin_rows(split([("a b", 0), ("c", 0)], "a")).texts != (
        pin_rows(split([("a", 0), ("b c", 0)], "b")).texts
    )


def test_a_commit_that_is_not_known_is_no_change() -> None:
    assert ModelPin({"commit": "a"}).difference({}) == []
    assert ModelPin({}).difference({"commit": "a"}) == []
    assert ModelPin({"commit": "a"}).difference({"commit": "b"}) == ["commit"]
