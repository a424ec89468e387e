"""Optuna's studies on PostgreSQL, which goes away and comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import SIX, Lines, Postgres
from sweep_processes import Sweep, assert_same_sweep

from kdsweep.errors import KdsweepError
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.sweep.results import report as report_of
from kdsweep.sweep.status import status as status_of

Start = Callable[..., Sweep]


def test_a_sweep_on_postgresql_asks_for_the_same_trials_as_one_on_sqlite(
    space: Path, tmp_path: Path, postgres: Postgres, six_trials: Home
) -> None:
    url = postgres.database("whole")
    report = run(space, home=tmp_path, assignments=(*SIX, f"storage={url}")).to_json()
    assert not (tmp_path / "optuna.db").exists()
    assert_same_sweep(Home(tmp_path), six_trials, storage=url)
    # The password comes from secrets.json.
    assert status_of(Home(tmp_path), "tiny").state == "done"
    assert report_of(Home(tmp_path), "tiny").to_json() | {"state": "done"} == report
    again = Lines()
    assignments = (*SIX, f"storage={url}")
    repeated = run(space, home=tmp_path, assignments=assignments, observer=again)
    assert repeated.to_json() == report
    assert again.lines == ["tiny: all trials are done; nothing to run"]


@pytest.mark.slow
def test_a_sweep_waits_for_postgresql_and_loses_nothing(
    tmp_path: Path, postgres: Postgres, sweep: Start, six_trials: Home
) -> None:
    url = postgres.database("away")
    one = sweep(tmp_path, *SIX, f"storage={url}")
    assert one.wait_for(lambda: one.evaluations() >= 12), one.end()
    postgres.stop()
    try:
        time.sleep(5)
        assert one.process.poll() is None
        before = one.evaluations()
        # Of all 54 evaluations: the sweep waits.
        assert before < 30
    finally:
        postgres.start()
    status, output, errors = one.end()
    assert status == 0, errors
    shown = f"postgresql://kd:***@127.0.0.1:{postgres.port}/away"
    assert output.count(f"storage: {shown} doesn't answer (") == 1
    assert_same_sweep(Home(tmp_path), six_trials, storage=url)


@pytest.mark.slow
def test_kill_9_while_postgresql_is_away_loses_nothing(
    space: Path, tmp_path: Path, postgres: Postgres, sweep: Start, six_trials: Home
) -> None:
    url = postgres.database("killed")
    one = sweep(tmp_path, *SIX, f"storage={url}")
    assert one.wait_for(lambda: one.evaluations() >= 20), one.end()
    postgres.stop()
    try:
        time.sleep(2)
        one.kill()
        began = time.monotonic()
        for command in (
            lambda: run(space, home=tmp_path, assignments=(*SIX, f"storage={url}")),
            lambda: status_of(Home(tmp_path), "tiny"),
        ):
            # Nothing starts or resumes without its database.
            with pytest.raises(KdsweepError) as raised:
                command()
            assert str(raised.value).startswith(
                f"storage: postgresql://kd:***@127.0.0.1:{postgres.port}/killed can't be opened"
            )
        assert time.monotonic() - began < 60
    finally:
        postgres.start()
    assert run(space, home=tmp_path, assignments=(*SIX, f"storage={url}")).state == "done"
    assert_same_sweep(Home(tmp_path), six_trials, storage=url)
