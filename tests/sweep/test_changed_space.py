"""The strategies of a sweep change midway."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from sweep_processes import INLINE, Sweep
from untrained_sweeps import die_while_opening, end, searched

from kdsweep.config import Plan, load
from kdsweep.errors import SettingsConflict
from kdsweep.housekeeping.listing import list_sweeps
from kdsweep.sweep import run
from kdsweep.sweep.changed_space import space_change
from kdsweep.sweep.folders import Home
from kdsweep.sweep.identity import check_same_sweep
from kdsweep.sweep.open_sweep import write_facts
from kdsweep.sweep.results import open_studies, read_records
from kdsweep.sweep.run_sweep import archive
from kdsweep.sweep.run_updates import trial_update
from kdsweep.sweep.status import status
from kdsweep.sweep.studies import Studies
from kdsweep.trial_id import TrialId

TWO = ("strategies.combined=", "trials=6", "confirm={seeds: 0}")
FIRST = {"finetune": [0.5, 0.9, None, 0.8], "distill": [0.6, 0.7]}
WIDER = "strategies.finetune.learning_rate={low: 1.0e-5, high: 1.0e-2, log: true}"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def planned(space: Path, *assignments: str) -> Plan:
    return load(space, assignments=(*TWO, *assignments), name="tiny")


def changed(home: Home, plan: Plan) -> Studies:
    """The studies as a driver opens them once the strategies have changed."""
    write_facts(plan, home.sweep(plan.name))
    return open_studies(plan, home, runs=True)


def rates(home: Home) -> dict[int, float]:
    """The learning rate of each trial of finetune."""
    folder = home.sweep("tiny")
    found = {}
    for trial in folder.started_trials():
        if trial.strategy == "finetune":
            drawn = folder.trial(trial).read_drawn()
            assert drawn is not None
            found[trial.number] = drawn["params"]["learning_rate"]
    return found


def above(home: Home, number: int) -> str:
    """A space that has all rates but those below that of this trial."""
    low = rates(home)[number] * 0.999
    return (
        f"strategies.finetune={{alpha: 1.0, learning_rate: {{low: {low}, high: 0.01, log: true}}}}"
    )


def in_optuna(home: Home, name: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=name, storage=home.storage_url("sqlite")).trials


def lines(home: Home, plan: Plan) -> list[str]:
    change = space_change(plan, home.sweep("tiny"))
    assert change is not None
    return list(change.lines)


def test_with_a_wider_range_all_trials_count_in_a_new_study(home: Home, tiny_space: Path) -> None:
    searched(home, planned(tiny_space), FIRST)
    before = in_optuna(home, "tiny/finetune")
    plan = planned(tiny_space, WIDER)
    finetune, distill = lines(home, plan)
    assert "learning_rate.high: 0.003 -> 0.01" in finetune
    assert "its 4 trials are inside and count" in finetune
    assert distill == "distill: the same; its 2 trials count"
    studies = changed(home, plan)
    progress = studies.progress("finetune")
    assert (progress.order, progress.pruned, progress.outside) == ([1, 3, 0], 1, set())
    assert studies.trials_left("finetune") == 2
    after = in_optuna(home, "tiny/finetune@2")
    assert [(one.params, one.value, one.state, one.intermediate_values) for one in after] == [
        (one.params, one.value, one.state, one.intermediate_values) for one in before
    ]
    ranges: list[Any] = [one.distributions["learning_rate"] for one in after]
    assert {one.high for one in ranges} == {0.01}
    assert in_optuna(home, "tiny/finetune") == before
    assert space_change(plan, home.sweep("tiny")) is None
    assert studies.ask("finetune").id.number == 4


def test_trials_outside_are_kept_and_count_nowhere(home: Home, tiny_space: Path) -> None:
    searched(home, planned(tiny_space), FIRST)
    found = rates(home)
    low = sorted(found, key=lambda number: found[number])[:2]
    lowest_kept = sorted(found, key=lambda number: found[number])[2]
    plan = planned(tiny_space, above(home, lowest_kept))
    (line, _) = lines(home, plan)
    assert "2 of its 4 trials are inside and count, 2 are kept as from an earlier space" in line
    studies = changed(home, plan)
    progress = studies.progress("finetune")
    assert sorted(progress.outside) == sorted(low)
    assert not set(progress.order) & set(low)
    assert studies.trials_left("finetune") == 4
    records = read_records(plan, home, studies)
    assert len(records) == 4
    assert not {TrialId("finetune", number) for number in low} & {one.id for one in records}
    assert status(home, "tiny").earlier_space == {"finetune": 2}
    (listed,) = list_sweeps(home)
    assert listed.counts is not None
    assert (listed.counts.ended, listed.counts.trials) == (4, 12)
    # The numbers go on, and the sampler isn't shown what is outside.
    asked = [studies.ask("finetune") for _ in range(4)]
    assert [one.id.number for one in asked] == [4, 5, 6, 7]
    assert studies.trials_left("finetune") == 0
    assert all((home.sweep("tiny").trial(TrialId("finetune", one)).result).exists() for one in low)


def test_the_tracker_shows_which_trials_are_from_an_earlier_space(
    home: Home, tiny_space: Path
) -> None:
    def shown() -> dict[str, str]:
        facts = folder.read_facts()
        tags = {}
        for trial in folder.started_trials():
            files = folder.trial(trial)
            outside = not facts.has_room_for(trial)
            update, after = trial_update(files, files.read_tracked(), paused=False, outside=outside)
            files.write_tracked(after)
            tags[trial.name] = update.tags.get("kdsweep.space", "")
        return tags

    folder = home.sweep("tiny")
    searched(home, planned(tiny_space), FIRST)
    assert set(shown().values()) == {""}
    limit = sorted(rates(home).values())[2]
    narrow = f"strategies.finetune.learning_rate={{low: {limit}, high: 0.01, log: true}}"
    changed(home, planned(tiny_space, narrow, "strategies.distill="))
    inside = {f"finetune-{number}" for number, rate in rates(home).items() if rate >= limit}
    assert inside and shown() == {name: "" if name in inside else "earlier" for name in shown()}
    changed(home, planned(tiny_space))
    assert set(shown().values()) == {"", "current"}


def test_an_open_trial_goes_on_if_it_is_inside(home: Home, tiny_space: Path) -> None:
    plan = searched(home, planned(tiny_space), {"finetune": [0.5]})
    studies = open_studies(plan, home, runs=True)
    asked = [studies.ask("finetune") for _ in range(2)]
    studies.write()
    for one in asked:
        files = home.sweep("tiny").trial(one.id)
        files.write_drawn(one.drawn.to_json())
        files.claim(one.settings)
    found = rates(home)
    high, low = sorted((1, 2), key=lambda number: -found[number])
    again = changed(home, planned(tiny_space, above(home, high)))
    assert again.open_trials("finetune") == [TrialId("finetune", high)]
    assert low in again.progress("finetune").outside
    resumed = again.resume(TrialId("finetune", high))
    assert resumed.settings == asked[high - 1].settings
    again.tell(resumed, "complete", 0.7)
    again.write()
    assert again.progress("finetune").order[0] == high


def test_a_range_that_widens_again_brings_its_trials_back(home: Home, tiny_space: Path) -> None:
    searched(home, planned(tiny_space), FIRST)
    found = rates(home)
    highest = max(found, key=lambda number: found[number])
    assert changed(home, planned(tiny_space, above(home, highest))).progress("finetune").outside
    studies = changed(home, planned(tiny_space))
    assert studies.study_name("finetune") == "tiny/finetune@3"
    assert studies.progress("finetune").order == [1, 3, 0]
    assert studies.study_name("distill") == "tiny/distill"


def test_another_start_with_is_tried_next_and_once(home: Home, tiny_space: Path) -> None:
    searched(home, planned(tiny_space), FIRST)
    entries = "[{learning_rate: 1.0e-3}, {learning_rate: 5.0e-4}, {learning_rate: 7.0e-4}]"
    plan = planned(tiny_space, f"strategies.finetune.start_with={entries}")
    assert "finetune: other start_with" in lines(home, plan)[0]
    studies = changed(home, plan)
    assert studies.study_name("finetune") == "tiny/finetune"
    end(home, plan, studies, "finetune", 0.6)
    # As after kill -9.
    again = open_studies(plan, home, runs=True)
    end(home, plan, again, "finetune", 0.6)
    found = rates(home)
    # The first of them was the first trial.
    assert (found[0], found[4], found[5]) == (1e-3, 5e-4, 7e-4)
    assert again.trials_left("finetune") == 0


def test_a_strategy_is_added_removed_and_comes_back(home: Home, tiny_space: Path) -> None:
    searched(home, planned(tiny_space), FIRST)
    other = "strategies.other={alpha: 0.5, temperature: 2.0, learning_rate: 1.0e-3}"
    plan = planned(tiny_space, "strategies.finetune=", other)
    assert lines(home, plan) == [
        "distill: the same; its 2 trials count",
        "other: new",
        "finetune: removed; its 4 trials are kept as from an earlier space",
    ]
    studies = changed(home, plan)
    assert studies.progress("other").started == 0
    assert status(home, "tiny").earlier_space == {"finetune": 4}
    back = planned(tiny_space)
    assert "finetune: back again; its 4 trials are inside and count" in lines(home, back)[0]
    assert changed(home, back).progress("finetune").order == [1, 3, 0]


def test_another_choice_and_other_constants(home: Home, tiny_space: Path) -> None:
    choices = "strategies.distill.temperature={choices: [2.0, 4.0]}"
    more = "strategies.distill.temperature={choices: [2.0, 4.0, 8.0]}"
    searched(home, planned(tiny_space, choices), {"distill": [0.6, 0.7, 0.8]})
    studies = changed(home, planned(tiny_space, more))
    assert studies.progress("distill").order == [2, 1, 0]
    studies.ask("distill")
    studies.write()
    assert len(in_optuna(home, "tiny/distill@2")) == 4
    longer = changed(home, planned(tiny_space, more, "strategies.distill.epochs=3"))
    assert longer.progress("distill").outside == {0, 1, 2}


def test_a_grid_goes_on_with_the_points_that_are_new(home: Home, tiny_space: Path) -> None:
    def of(*rates: float) -> Plan:
        strategy = f"{{alpha: 1.0, learning_rate: {{choices: {list(rates)}}}}}"
        grid = ("strategies.distill=", "sampler={type: grid}")
        return planned(tiny_space, *grid, f"strategies.finetune={strategy}")

    searched(home, of(0.001, 0.002, 0.003), {"finetune": [0.5, 0.6, 0.7]})
    before = rates(home)
    studies = changed(home, of(0.002, 0.003, 0.004, 0.005))
    (outside,) = (number for number, rate in before.items() if rate == 0.001)
    assert studies.progress("finetune").outside == {outside}
    assert studies.trials_left("finetune") == 2
    assert {studies.ask("finetune").params["learning_rate"] for _ in range(2)} == {0.004, 0.005}
    assert studies.trials_left("finetune") == 0


def test_a_driver_that_dies_during_the_change_loses_nothing(
    home: Home, tiny_space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched(home, planned(tiny_space), FIRST)
    found = rates(home)
    lowest = min(found, key=lambda number: found[number])
    kept = sorted(found, key=lambda number: found[number])[1]
    plan = planned(tiny_space, above(home, kept))
    studies = changed(home, plan)
    die_while_opening(studies, "finetune", monkeypatch)
    again = open_studies(plan, home, runs=True)
    progress = again.progress("finetune")
    assert (progress.started, progress.outside) == (4, {lowest})
    assert len(in_optuna(home, "tiny/finetune@2")) == 4
    storage: Any = studies.storage
    storage.scoped_session.remove()
    storage.engine.dispose()
    for file in home.root.glob("optuna.db*"):
        file.unlink()
    # Nobody has run it since: read from the folders alone.
    assert open_studies(plan, home).progress("finetune") == progress


@pytest.mark.parametrize("pruner", ["{type: asha}", "{type: median, startup_trials: 1}"])
def test_what_ended_before_the_change_stays_as_it_ended(
    home: Home, tiny_space: Path, pruner: str
) -> None:
    """The pruner would decide otherwise next to fewer trials."""
    chance = random.Random(0)
    values: list[float | None] = [round(chance.random(), 2) for _ in range(6)]
    rule = f"pruner={pruner}"
    searched(home, planned(tiny_space, rule), {"finetune": values})
    found = rates(home)
    third = sorted(found, key=lambda number: found[number])[2]
    studies = changed(home, planned(tiny_space, rule, above(home, third)))
    progress = studies.progress("finetune")
    assert (progress.complete, len(progress.outside), progress.running) == (4, 2, set())


def test_task_teacher_student_and_training_can_not_change(home: Home, tiny_space: Path) -> None:
    searched(home, planned(tiny_space), FIRST)
    folder = home.sweep("tiny")
    for change in (
        "task.metric=f1_macro",
        "teacher.training.epochs=2",
        "student.layers=2",
        "training.epochs=3",
        "sampler={type: tpe, seed: 1}",
    ):
        plan = planned(tiny_space, WIDER, change)
        assert space_change(plan, folder) is None
        with pytest.raises(SettingsConflict) as error:
            check_same_sweep(plan, folder)
        assert "\n" not in str(error.value)
        assert "strategies" not in str(error.value)
    check_same_sweep(planned(tiny_space, WIDER), folder)


def test_the_studies_of_all_spaces_are_renamed_together(home: Home, tiny_space: Path) -> None:
    searched(home, planned(tiny_space), FIRST)
    plan = planned(tiny_space, WIDER)
    changed(home, plan).progress("finetune")
    assert archive(home, home.sweep("tiny")) == "tiny.1"
    names = optuna.get_all_study_names(home.storage_url("sqlite"))
    assert sorted(names) == ["tiny.1/distill", "tiny.1/finetune", "tiny.1/finetune@2"]


def test_an_older_version_refuses_such_a_sweep_and_no_other(home: Home, tiny_space: Path) -> None:
    searched(home, planned(tiny_space), FIRST)
    folder = home.sweep("tiny")
    write_facts(planned(tiny_space), folder)
    assert folder.read_facts().format == 1
    write_facts(planned(tiny_space, WIDER), folder)
    assert folder.read_facts().format == 2


@pytest.mark.slow
def test_a_killed_change_trains_only_what_is_new(
    space: Path, tmp_path: Path, sweep: Callable[..., Sweep]
) -> None:
    home = Home(tmp_path / "home")
    alone = (
        "strategies.distill=",
        "strategies.combined=",
        "training.epochs=1",
        "trials=2",
        "confirm={seeds: 1, finalists: 1}",
        "pruner={type: none}",
        INLINE,
    )
    first = run(space, home=home.root, assignments=alone)
    folder = home.sweep("tiny")
    done = {file: file.stat().st_mtime_ns for file in folder.root.glob("*/*/result.json")}
    assert len(done) == 3
    wide = (*alone, WIDER, "trials=3")
    killed = sweep(home.root, *wide)
    assert killed.wait_for(lambda: killed.evaluations() >= 5)
    killed.kill()
    second = run(space, home=home.root, assignments=wide)
    assert {file: file.stat().st_mtime_ns for file in done} == done
    found = second.strategies["finetune"]
    assert (found.trials.complete, found.trials.earlier_space) == (3, 0)
    before, after = first.strategies["finetune"].best, found.best
    assert before is not None
    assert after is not None
    # The confirm run of a best trial that stays the best is kept.
    runs = len(list(folder.confirm.glob("*/result.json")))
    assert runs == (1 if before.trial == after.trial else 2)
