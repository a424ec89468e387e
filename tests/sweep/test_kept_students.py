"""A confirmed student is there for export at each moment, also while its sweep is extended."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner
from servers import Lines
from sweep_processes import runs_of

from kdsweep.cli import main
from kdsweep.errors import Interrupted
from kdsweep.export.students import Choice
from kdsweep.report.model import Report
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.sweep.progress import SweepProgress
from kdsweep.sweep.results import report as read_report
from kdsweep.sweep.status import status
from kdsweep.trial_id import TrialId

# Both strategies are fine-tuning, so that no teacher is needed. The first trial is better than the
# second, and the third is better than both.
RATES = "[{learning_rate: 5.0e-4}, {learning_rate: 2.0e-4}, {learning_rate: 1.5e-3}]"
TWICE = (
    f"strategies.finetune.start_with={RATES}",
    "strategies.again={alpha: 1.0, learning_rate: {low: 2.0e-4, high: 3.0e-3, log: true}, "
    f"start_with: {RATES}}}",
    "strategies.distill=",
    "strategies.combined=",
    "training.evaluations_per_epoch=1",
    "sampler={type: random}",
    "pruner={type: none}",
    "confirm={seeds: 2, finalists: 1}",
    "keep={students: 1}",
    "engine={type: inline}",
)
STRATEGIES = ("finetune", "again")


class Exporting(Lines):
    """Exports the student of `again`, which isn't registered, when a trial starts or ends."""

    def __init__(self, home: Home, folder: Path, interrupt: int | None = None) -> None:
        super().__init__()
        self.home = home
        self.folder = folder
        self.interrupt = interrupt
        self.exported: list[str] = []

    def progress(self, sweep: SweepProgress) -> None:
        name = export_student(self.home, "again", self.folder).name
        if name not in self.exported:
            self.exported.append(name)

    def step(self, name: str, step: int, total_steps: int) -> None:
        if self.interrupt is not None and name.endswith(f"-{self.interrupt}"):
            self.interrupt = None
            os.kill(os.getpid(), signal.SIGINT)


def export_student(home: Home, strategy: str, folder: Path) -> TrialId:
    """The trial whose student `--strategy` gives, after its files were copied."""
    choice = Choice(home, home.sweep("tiny"), None, strategy, print)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    found = choice.fetch(choice.source(), folder)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        file.name for file in folder.iterdir()
    }
    return found.student.id


def stored(home: Home) -> set[str]:
    """The runs of confirm whose student MLflow has."""
    return {
        one.info.run_name
        for one in runs_of(home)
        if one.data.tags["kdsweep.phase"] == "confirm"
        and one.data.tags.get("kdsweep.student") in ("kept", "registered")
    }


@pytest.fixture(scope="module")
def confirmed(
    space: Path, tmp_path_factory: pytest.TempPathFactory, empty_mlflow_db: Path
) -> tuple[Home, Report]:
    """A sweep with one trial of each strategy, confirmed; the tests extend it, in this order."""
    home = Home(tmp_path_factory.mktemp("home"))
    shutil.copy(empty_mlflow_db, home.mlflow_db)
    return home, run(space, home=home.root, assignments=(*TWICE, "trials=1"))


@pytest.mark.slow
def test_ctrl_c_in_an_extended_search_keeps_every_confirmed_student(
    confirmed: tuple[Home, Report], space: Path, tmp_path: Path
) -> None:
    home, _ = confirmed
    first = stored(home)
    assert len(first) == 2
    watching = Exporting(home, tmp_path / "student", interrupt=1)
    with pytest.raises(Interrupted):
        run(space, home=home.root, assignments=(*TWICE, "trials=2"), observer=watching)
    assert stored(home) == first
    assert watching.exported == [name for name in first if name.startswith("again")]
    done = CliRunner().invoke(
        main,
        ["export", "tiny", str(tmp_path / "a"), "--strategy", "again", "--home", str(home.root)],
    )
    assert done.exit_code == 0, done.output
    lines: list[str] = []
    read_report(home, "tiny", lines.append)
    assert lines == [
        "tiny: what confirm found for finetune-0, again-0 is kept, and not shown until the "
        "extended search has ended"
    ]


def test_a_best_trial_that_stays_the_best_keeps_its_confirmed_student(
    confirmed: tuple[Home, Report], space: Path, tmp_path: Path
) -> None:
    home, before = confirmed
    first = stored(home)
    watching = Exporting(home, tmp_path / "student")
    report = run(space, home=home.root, assignments=(*TWICE, "trials=2"), observer=watching)
    assert stored(home) == first
    assert watching.exported == [name for name in first if name.startswith("again")]
    assert report.winner == before.winner
    assert not any("is deleted" in line for line in watching.lines)


def test_fewer_seeds_drop_none_that_was_measured(
    confirmed: tuple[Home, Report], space: Path, tmp_path: Path
) -> None:
    home, before = confirmed
    first = stored(home)
    for seeds in (1, 0):
        changed = (*TWICE, "trials=2", f"confirm.seeds={seeds}", "keep.students=0")
        report = run(space, home=home.root, assignments=changed)
        for strategy in STRATEGIES:
            assert report.strategies[strategy].confirm == before.strategies[strategy].confirm
            export_student(home, strategy, tmp_path / "student")
        assert stored(home) == first
    assert status(home, "tiny").state == "done"


@pytest.mark.slow
def test_a_better_trial_replaces_it_once_its_own_student_is_stored_and_a_line_says_so(
    confirmed: tuple[Home, Report], space: Path, tmp_path: Path
) -> None:
    home, before = confirmed
    assert before.winner is not None
    earlier = {one.split("-")[0]: one for one in stored(home)}
    watching = Exporting(home, tmp_path / "student")
    run(space, home=home.root, assignments=(*TWICE, "trials=3"), observer=watching)
    assert watching.exported[0] == earlier["again"]
    assert all(name.startswith("again-2-") for name in watching.exported[1:])
    now = {
        strategy: export_student(home, strategy, tmp_path / "student").name
        for strategy in STRATEGIES
    }
    assert stored(home) == {*now.values(), before.winner.name}
    said = [line for line in watching.lines if "is deleted" in line]
    assert sorted(said) == sorted(
        f"{earlier[strategy]}: its student is deleted unless it is registered; {now[strategy]} is "
        "better on validation, confirmed and stored"
        for strategy in STRATEGIES
    )
    # A copy that began before its student was replaced is of the one that took its place.
    lines: list[str] = []
    old, new = (
        Choice(home, home.sweep("tiny"), trial, strategy, lines.append)
        for trial, strategy in ((earlier["again"], None), (None, "again"))
    )
    shutil.rmtree(tmp_path / "student")
    (tmp_path / "student").mkdir()
    assert new.fetch(old.source(), tmp_path / "student").student.id.name == now["again"]
    assert lines == [f"{earlier['again']} was replaced meanwhile by {now['again']}"]
