"""A sweep outlives its version: trials note what trained them, and older versions refuse newer
files in one line. tests/test_old_home.py resumes a sweep of 0.1.0."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from made_up_sweeps import full_sweep

import kdsweep
from kdsweep.cli import main
from kdsweep.core.files import read_json, write_json
from kdsweep.core.trial_folder import TrialFolder, TrialResult
from kdsweep.core.versions import PACKAGES, Versions
from kdsweep.errors import NewerFiles
from kdsweep.replay import other_versions
from kdsweep.report.model import Report, Reproduction, TrainedBy
from kdsweep.report.versions_words import versions_in_words
from kdsweep.sweep.facts import FORMAT, SweepFacts
from kdsweep.sweep.folders import Home
from kdsweep.sweep.trained_by import trained_by, unversioned
from kdsweep.trial_id import TrialId

OLD = Versions("0.1.0")
NEW = Versions("9.0.0", "2.13.0", "5.1.0")


def run(home: Path, *arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, [*arguments, "--home", str(home)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


# --- what trained a trial ------------------------------------------------------------------------


def with_checkpoint(folder: TrialFolder) -> TrialFolder:
    folder.state.parent.mkdir(parents=True)
    folder.state.touch()
    return folder


def test_a_trial_that_starts_notes_the_version_of_now_alone(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    write_json(folder.versions, [asdict(OLD)])
    folder.note_versions()
    assert folder.read_versions() == (Versions.now(),)


def test_a_resumed_trial_keeps_the_versions_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = TrialFolder(tmp_path)
    folder.note_versions()
    first = Versions.now()
    with_checkpoint(folder).note_versions()
    assert folder.read_versions() == (first,)
    monkeypatch.setattr(kdsweep, "__version__", "9.9.9")
    folder.note_versions()
    assert [one.kdsweep for one in folder.read_versions()] == [first.kdsweep, "9.9.9"]


@pytest.mark.parametrize("noted", [None, "[{"], ids=["none", "damaged"])
def test_a_checkpoint_of_an_unknown_version_is_resumed_and_noted_as_that(
    tmp_path: Path, noted: str | None
) -> None:
    folder = with_checkpoint(TrialFolder(tmp_path))
    if noted is not None:
        folder.versions.write_text(noted, encoding="utf-8")
    folder.note_versions()
    assert folder.read_versions() == (Versions(), Versions.now())


def test_trials_are_counted_by_what_trained_them(old_home: Path) -> None:
    folder = Home(old_home / "home").sweep("reviews")
    facts, trials = folder.read_facts(), folder.started_trials()
    runs = sum(one.phase == "confirm" for one in trials)
    assert trained_by(folder, facts, trials) == ()
    assert unversioned(folder, facts, "0.1.0") is None
    assert unversioned(folder, facts, "9.0.0") == "0.1.0"
    facts = replace(facts, unversioned="0.1.0")
    search = next(one for one in trials if one.phase == "search")
    write_json(folder.trial(search).versions, [asdict(Versions()), asdict(NEW)])
    found = {one.versions: one for one in trained_by(folder, facts, trials)}
    assert found == {
        (OLD,): TrainedBy(versions=(OLD,), trials=len(trials) - runs - 1, confirm_runs=runs),
        (OLD, NEW): TrainedBy(versions=(OLD, NEW), trials=1, confirm_runs=0),
    }


def reported(*groups: tuple[tuple[Versions, ...], int, int]) -> Report:
    by = tuple(
        TrainedBy(versions=versions, trials=trials, confirm_runs=runs)
        for versions, trials, runs in groups
    )
    known = Reproduction(command="", versions={}, hashes={}, trained_by=by)
    report = full_sweep(trials=20)[0].model_copy(update={"reproduce": known})
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report
    return report


def test_the_report_names_versions_only_where_there_are_several() -> None:
    later = Versions("9.0.0", "3.0.0", "5.1.0")
    assert versions_in_words(reported()) == []
    assert versions_in_words(reported(((NEW,), 3, 2))) == []
    assert versions_in_words(reported(((OLD,), 3, 0), ((OLD, NEW), 1, 0), ((NEW,), 0, 4))) == [
        (
            "Versions",
            "3 trials by kdsweep 0.1.0; 1 trial by kdsweep 0.1.0, then 9.0.0; "
            "4 runs of confirm by kdsweep 9.0.0",
        )
    ]
    assert versions_in_words(reported(((NEW,), 1, 1), ((later,), 2, 0))) == [
        ("Versions", "1 trial and 1 run of confirm by torch 2.13.0; 2 trials by torch 3.0.0")
    ]


def test_a_replay_tells_what_trained_this_trial_not_the_last_run(
    old_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Home(old_home / "home").sweep("reviews")
    monkeypatch.setattr(kdsweep, "__version__", "9.9.9")
    trial = folder.trial(TrialId("distill", 0))
    said = other_versions(folder, trial)
    assert said is not None and said.startswith("other versions: kdsweep 0.1.0, now 9.9.9")
    # Another version has run the sweep since, and noted its versions in its own trials alone.
    write_json(folder.facts, read_json(folder.facts) | {"kdsweep": "9.9.9", "unversioned": "0.1.0"})
    assert other_versions(folder, trial) == "other versions: kdsweep 0.1.0, now 9.9.9"
    write_json(trial.versions, [asdict(Versions()), asdict(Versions.now())])
    assert other_versions(folder, trial) == "other versions: kdsweep 0.1.0, then 9.9.9, now 9.9.9"
    write_json(trial.versions, [asdict(Versions.now())])
    assert not other_versions(folder, trial)


def test_a_replay_names_each_package_that_decides_numbers(old_home: Path) -> None:
    folder = Home(old_home / "home").sweep("reviews")
    trial, now = folder.trial(TrialId("distill", 0)), Versions.now()
    for name in PACKAGES:
        write_json(trial.versions, [asdict(now) | {name: "0.0.1"}])
        expected = f"other versions: {name} 0.0.1, now {asdict(now)[name]}"
        assert other_versions(folder, trial) == expected
    write_json(trial.versions, [asdict(now)])
    # What adds a metric is noted with the sweep.
    plugins = {"my_metric": ["scipy", "0.0.1"]}
    write_json(folder.facts, read_json(folder.facts) | {"plugins": plugins})
    assert other_versions(folder, trial) == f"other versions: scipy 0.0.1, now {version('scipy')}"


def test_a_card_names_the_versions_that_trained_its_student(old_home: Path) -> None:
    home, folder = old_home / "home", Home(old_home / "home").sweep("reviews")
    write_json(folder.facts, read_json(folder.facts) | {"unversioned": "0.1.0"})
    trial = folder.trial(TrialId("distill", 0))
    write_json(trial.versions, [asdict(Versions()), asdict(NEW)])
    student = old_home / "student"
    assert run(home, "export", "reviews", str(student), "--trial", "distill-0")[0] == 0
    card = (student / "README.md").read_text(encoding="utf-8")
    assert "versions: kdsweep 0.1.0, then 9.0.0, torch 2.13.0, transformers 5.1.0, " in card


# --- files of a newer version --------------------------------------------------------------------


def test_a_key_that_a_newer_version_adds_to_a_result_is_ignored(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    result = TrialResult("pruned", 3, 1.5)
    write_json(folder.result, asdict(result) | {"energy": 12.0})
    assert folder.read_result() == result


@pytest.fixture
def newer_home(old_home: Path) -> Path:
    """A home in which `reviews` has a higher format number."""
    facts = Home(old_home / "home").sweep("reviews").facts
    write_json(facts, read_json(facts) | {"kdsweep": "9.0.0", "format": FORMAT + 1})
    return old_home


def test_every_command_refuses_a_sweep_of_a_newer_format_in_one_line(newer_home: Path) -> None:
    home, space = newer_home / "home", str(newer_home / "reviews.yaml")
    before = {file: file.read_bytes() for file in (home / "sweeps").rglob("*") if file.is_file()}
    sweep_file = ("--sweep", str(newer_home / "sweep.yaml"))
    line = (
        f"error: sweep 'reviews' was written by kdsweep 9.0.0, which kdsweep "
        f"{kdsweep.__version__} can't read: upgrade kdsweep\n"
    )
    for arguments in (
        ("status", "reviews"),
        ("compare", "reviews"),
        ("compare", "scores", "reviews"),
        ("export", "reviews", str(newer_home / "student")),
        ("replay", "reviews", "distill-0"),
        ("remove", "reviews", "--yes"),
        ("ui", "reviews", "--no-open"),
        ("run", space, *sweep_file),
        ("run", space, *sweep_file, "--fresh"),
        ("plan", space, *sweep_file),
    ):
        status, _, errors = run(home, *arguments)
        assert status == 1, arguments
        assert errors.endswith(line) and errors.count("error:") == 1, (arguments, errors)
    status, output, _ = run(home, "list", "--json")
    listed = {one["name"]: one for one in json.loads(output)["sweeps"]}
    assert status == 0
    assert f"error: {listed['reviews']['problem']}\n" == line
    assert listed["scores"]["state"] == "done"
    after = {file: file.read_bytes() for file in (home / "sweeps").rglob("*") if file.is_file()}
    assert after == before


def in_space(folder: Any) -> str:
    folder.space.write_text(
        folder.space.read_text(encoding="utf-8") + "\nimagined: 3\n", encoding="utf-8"
    )
    return f"{folder.space} has imagined, which"


def in_sweep(folder: Any) -> str:
    facts = read_json(folder.facts)
    facts["sweep"]["confirm"]["imagined"] = 3
    write_json(folder.facts, facts | {"kdsweep": "9.0.0"})
    return "sweep 'reviews' has confirm.imagined, which"


def in_settings(folder: Any) -> str:
    file = folder.trial(TrialId("distill", 0)).settings
    settings = read_json(file)
    settings["training"]["imagined"] = 3
    write_json(file, settings)
    return f"{file} has training.imagined, which"


@pytest.mark.parametrize("break_", [in_space, in_sweep, in_settings])
def test_a_key_of_a_newer_version_is_named_with_what_to_do(
    old_home: Path, break_: Callable[[Any], str]
) -> None:
    home = old_home / "home"
    words = break_(Home(home).sweep("reviews"))
    for arguments in (("compare", "reviews"), ("replay", "reviews", "distill-0")):
        status, _, errors = run(home, *arguments)
        assert (status, errors.count("\n")) == (1, 1), errors
        assert errors.startswith(f"error: {words} kdsweep {kdsweep.__version__} doesn't know; ")
        assert errors.endswith("wrote it: upgrade kdsweep\n")


def test_a_format_number_is_kept_and_the_first_one_is_not_written() -> None:
    facts = SweepFacts("0.2.0", {}, "reviews", {})
    assert "format" not in facts.to_json()
    assert SweepFacts.from_json(facts.to_json(), "reviews") == facts
    with pytest.raises(NewerFiles):
        SweepFacts.from_json(facts.to_json() | {"format": FORMAT + 1}, "reviews")
