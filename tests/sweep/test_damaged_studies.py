"""The database of studies is damaged or gone: trials' folders have all that it had."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import others_slow
from servers import SIX, Lines
from sweep_processes import metrics_of, trials_of

from kdsweep.config import Plan, load
from kdsweep.core.trial_folder import Evaluation, TrialResult
from kdsweep.errors import KdsweepError
from kdsweep.report.model import Report
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.sweep.results import open_database, open_studies, report
from kdsweep.sweep.status import status
from kdsweep.sweep.studies import SearchTrial, Studies

STATES = ("complete", "pruned", "diverged", "complete", "failed", "complete", "complete")


def without_log(file: Path) -> Path:
    """The file, without the log that it could be read from."""
    for log in file.parent.glob(f"{file.name}-*"):
        log.unlink()
    return file


def cut_in_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def overwrite(file: Path) -> None:
    file.write_bytes(b"not a database " * 400)


def overwrite_the_middle(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2)
        stream.write(b"\xa5" * 9000)


def close(studies: Studies) -> None:
    storage: Any = studies.database.storage
    storage.scoped_session.remove()
    storage.engine.dispose()


def overwrite_while_open(studies: Studies, file: Path) -> None:
    """And let SQLite forget what it has in memory."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite(file)
    close(studies)


def empty(file: Path) -> None:
    file.write_bytes(b"")


DAMAGES: tuple[Callable[[Path], None], ...] = (
    cut_in_half,
    overwrite,
    overwrite_the_middle,
    empty,
    Path.unlink,
)


def train(home: Home, studies: Studies, trial: SearchTrial, state: str | None) -> None:
    """What a driver and a worker do, without training. state: None for a trial that runs."""
    files = home.sweep("tiny").trial(trial.id)
    files.write_drawn(trial.drawn.to_json())
    files.claim(trial.settings)
    values = [0.5 + 0.01 * trial.id.number, 0.6, 0.55]
    evaluations = [
        Evaluation(10 * n, 0.5 * n, {"validation/accuracy": value}, 1.5 * n, 1_700_000_000_000)
        for n, value in enumerate(values, start=1)
    ]
    files.write_evaluations(evaluations)
    for n, value in enumerate(values, start=1):
        studies.report(trial, n, value)
    if state is None:
        studies.write()
        return
    best = evaluations[1] if state == "complete" else None
    reason = None if state in ("complete", "pruned") else "a reason"
    files.write_result(TrialResult(state, 30, 4.5, best=best, reason=reason))
    studies.tell(trial, state, 0.6 if best else None, reason)
    studies.write()


def known(studies: Studies, strategy: str) -> list[tuple[Any, ...]]:
    """All that sampler and pruner learn from."""
    trials = optuna.load_study(
        study_name=f"tiny/{strategy}", storage=studies.database.storage
    ).get_trials()
    return [
        (
            one.number,
            one.state,
            one.values,
            one.params,
            one.distributions,
            one.intermediate_values,
            one.user_attrs,
            # What else is there tells where `params` come from.
            {key: note for key, note in one.system_attrs.items() if "rung" in key},
        )
        for one in trials
    ]


def planned(tiny_space: Path, *assignments: str) -> Plan:
    return load(tiny_space, assignments=("trials=9", *assignments))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "how",
    others_slow(
        [
            "sampler={type: tpe, startup_trials: 3}",
            "pruner={type: hyperband}",
            "pruner={type: median, startup_trials: 1, warmup_evaluations: 1}",
            "sampler={type: gp, startup_trials: 3}",
        ]
    ),
)
def test_studies_are_made_again_from_the_folders(
    tiny_space: Path, tmp_path: Path, damage: Callable[[Path], None], how: str
) -> None:
    plan, home, lines = planned(tiny_space, how), Home(tmp_path / "home"), Lines()
    studies = open_studies(plan, home, runs=True)
    for state in STATES:
        train(home, studies, studies.ask("distill"), state)
    train(home, studies, studies.ask("distill"), None)
    before, next_one = known(studies, "distill"), studies.ask("distill")
    close(studies)
    damage(without_log(home.optuna_db))

    read = open_studies(plan, home, lines.say)
    assert read.progress("distill").order == studies.progress("distill").order
    again = open_studies(plan, home, lines.say, runs=True)
    assert again.open_trials("distill")[0].number == 7
    assert known(again, "distill") == before
    assert again.ask("distill").settings == next_one.settings
    damaged = home.root / "optuna.db.damaged-1"
    whole = damage in (empty, Path.unlink)
    assert damaged.exists() is not whole
    assert sum("was damaged" in line for line in lines.lines) == (not whole)
    assert all(str(home.optuna_db) in line for line in lines.lines)


def test_a_trial_whose_folder_is_gone_too_is_asked_for_again(
    tiny_space: Path, tmp_path: Path
) -> None:
    plan, home = planned(tiny_space, "sampler={type: random}"), Home(tmp_path / "home")
    studies = open_studies(plan, home, runs=True)
    for state in STATES:
        train(home, studies, studies.ask("distill"), state)
    before = known(studies, "distill")
    close(studies)
    overwrite(without_log(home.optuna_db))
    shutil.rmtree(home.sweep("tiny").trials / "distill-3")
    again = open_studies(plan, home, runs=True)
    assert [one.name for one in again.open_trials("distill")] == ["distill-3"]
    found = known(again, "distill")
    assert found[3][3] == before[3][3]
    assert [one for one in found if one[0] != 3] == [one for one in before if one[0] != 3]


def test_a_database_damaged_while_the_sweep_runs_is_replaced_by_all_that_is_known(
    tiny_space: Path, tmp_path: Path
) -> None:
    plan, home, lines = planned(tiny_space), Home(tmp_path / "home"), Lines()
    studies = open_studies(plan, home, lines.say, runs=True)
    undisturbed = open_studies(plan, Home(tmp_path / "other"), runs=True)
    for i, state in enumerate(STATES):
        if i in (2, 5):
            overwrite_while_open(studies, home.optuna_db)
        for one, where in ((studies, home), (undisturbed, Home(tmp_path / "other"))):
            train(where, one, one.ask("distill"), state)
            train(where, one, one.ask("finetune"), state)
    for strategy in ("distill", "finetune"):
        assert known(studies, strategy) == known(undisturbed, strategy)
    with contextlib.closing(sqlite3.connect(home.optuna_db)) as connection:
        assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
    assert [line.split(" was damaged")[0] for line in lines.lines] == [
        f"storage: {home.optuna_db}"
    ] * 2


def test_what_earlier_versions_drew_is_found_in_the_settings(
    tiny_space: Path, tmp_path: Path
) -> None:
    plan, home = planned(tiny_space), Home(tmp_path / "home")
    studies = open_studies(plan, home, runs=True)
    for strategy in plan.space.strategies:
        for _ in range(6):
            train(home, studies, studies.ask(strategy), "complete")
    before = {name: known(studies, name) for name in plan.space.strategies}
    for file in home.sweep("tiny").trials.glob("*/drawn.json"):
        file.unlink()
    close(studies)
    without_log(home.optuna_db).unlink()
    again = open_studies(plan, home, runs=True)
    for strategy in plan.space.strategies:
        assert again.progress(strategy).complete == 6
        assert known(again, strategy) == before[strategy]


def test_another_database_than_homes_own_is_left_where_it_is(
    tiny_space: Path, tmp_path: Path
) -> None:
    file = tmp_path / "shared.db"
    overwrite(file)
    with pytest.raises(KdsweepError, match=r"shared\.db is damaged \(.*move the file away"):
        open_database(Home(tmp_path), f"sqlite:///{file}", lambda line: None, runs=True)
    assert [one.name for one in tmp_path.glob("shared*")] == ["shared.db"]


def test_a_finished_sweep_stays_finished_and_is_shown_without_its_database(
    space: Path, tmp_path: Path, six_trials: Home
) -> None:
    home, lines = Home(tmp_path / "home"), Lines()
    shutil.copytree(six_trials.root, home.root)
    before = report(home, "tiny").to_json()
    overwrite(without_log(home.optuna_db))
    shown: list[str] = []
    assert report(home, "tiny", shown.append).to_json() == before
    assert status(home, "tiny", shown.append).state == "done"
    assert len(shown) == 2
    assert f"{home.optuna_db} is damaged (file is not a database)" in shown[0]
    assert not list(home.root.glob("*damaged*"))
    found: Report = run(space, home=home.root, assignments=SIX, observer=lines)
    assert found.state == "done"
    assert metrics_of(home) == metrics_of(six_trials)
    assert not any(": complete" in line for line in lines.lines)
    assert (home.root / "optuna.db.damaged-1").exists()
    with contextlib.closing(sqlite3.connect(home.optuna_db)) as connection:
        assert connection.execute("SELECT count(*) FROM trials").fetchone() == (6,)


def test_a_sweep_goes_on_with_exactly_the_trials_that_are_missing(
    space: Path, tmp_path: Path, six_trials: Home
) -> None:
    home, lines = Home(tmp_path / "home"), Lines()
    shutil.copytree(six_trials.root, home.root)
    shutil.rmtree(home.sweep("tiny").trials / "distill-2")
    overwrite(without_log(home.optuna_db))
    run(space, home=home.root, assignments=SIX, observer=lines)
    ended = [line.split(":")[0] for line in lines.lines if ": complete" in line]
    assert ended == ["distill-2"]
    assert metrics_of(home) == metrics_of(six_trials)
    assert trials_of(home) == trials_of(six_trials)
