"""With how many CPU threads a sweep's teachers are made, and what runs beside that."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from kdsweep.config import load
from kdsweep.core.data.loading import load_task
from kdsweep.core.files import read_json, write_json
from kdsweep.core.teachers import fine_tuning
from kdsweep.replay import replay
from kdsweep.sweep import run, teacher_threads
from kdsweep.sweep.cost_estimate import Measurements
from kdsweep.sweep.engines import slots
from kdsweep.sweep.engines.jobs import TeacherJob
from kdsweep.sweep.engines.perform import perform
from kdsweep.sweep.folders import Home
from kdsweep.sweep.planned_slots import planned_slots
from kdsweep.sweep.preflight import check_models
from kdsweep.sweep.teacher_stage import TeacherStage

ONE_EACH = "engine={type: ray, gpus_per_trial: 0, cpus_per_trial: 1}"
NO_FINETUNE = "strategies.finetune="
LEARNS_NOTHING = ("sampler={type: random}", "pruner={type: none}")


@pytest.fixture
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_threads.torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr(teacher_threads, "cpu_count", lambda: 16)
    monkeypatch.setattr(slots, "cpu_count", lambda: 16)


@pytest.fixture
def threads_of_teachers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many threads torch has while teachers are made: one entry for each that is made."""
    seen: list[int] = []
    made = fine_tuning.FineTuning.run

    def watched(self: Any) -> float:
        seen.append(torch.get_num_threads())
        return made(self)

    monkeypatch.setattr(fine_tuning.FineTuning, "run", watched)
    return seen


def planned_threads(space: Path, *assignments: str) -> tuple[int | None, int | None]:
    plan = load(space, assignments=("sampler={type: tpe, lag: 4}", *assignments))
    threads = teacher_threads.teacher_threads(plan)
    return threads, teacher_threads.room_beside(plan, threads)


@pytest.mark.usefixtures("sixteen_cores")
@pytest.mark.parametrize(
    ("assignments", "threads", "beside"),
    [
        # Four trials of `finetune` can run meanwhile: the lag.
        ((ONE_EACH,), 12, 4),
        ((ONE_EACH, "trials=2"), 14, 2),
        ((ONE_EACH, NO_FINETUNE), 16, 0),
        ((ONE_EACH, "objective={least: size, of: teacher}", "pruner={type: none}"), 16, 0),
        # At least half of the threads, because many trials wait for the teacher.
        ((ONE_EACH, *LEARNS_NOTHING), 8, 8),
        (("engine={type: ray, gpus_per_trial: 0, cpus_per_trial: 1, cpus: 2}",), 1, 1),
        (("engine={type: ray, gpus_per_trial: 0, cpus_per_trial: 12}",), 12, 0),
        # The sweep is the same on any number of slots, and so is its teacher.
        (("engine={type: ray, gpus_per_trial: 0, cpus_per_trial: 1, slots: 2}",), 12, 4),
        (("engine={type: inline}",), 16, None),
        (("engine={type: ray, gpus: 2}",), None, None),
        (("engine={type: ray, address: head, gpus_per_trial: 0}",), None, None),
    ],
)
def test_a_teacher_has_the_threads_that_no_trial_can_use_meanwhile(
    tiny_space: Path, assignments: tuple[str, ...], threads: int | None, beside: int | None
) -> None:
    if torch.cuda.is_available() and "inline" in assignments[0]:
        pytest.skip("computes on a GPU")
    assert planned_threads(tiny_space, *assignments) == (threads, beside)


@pytest.mark.usefixtures("sixteen_cores")
def test_no_trial_starts_on_cores_that_the_teacher_uses(tiny_space: Path, tmp_path: Path) -> None:
    plan = load(tiny_space, assignments=(ONE_EACH, "trials=2"))
    folder = SimpleNamespace(read_facts=lambda: SimpleNamespace(teacher_threads=14))
    stage = TeacherStage(cast(Any, SimpleNamespace(plan=plan, folder=folder)))
    assert stage.leave_room(16)
    stage.is_started = True
    # The teacher's job is one of those that run.
    assert [stage.leave_room(running) for running in (1, 2, 3)] == [True, True, False]
    stage.is_ready = True
    assert stage.leave_room(15)


def test_a_job_has_its_own_threads_and_leaves_those_of_the_slot(
    tiny_space: Path, tmp_path: Path, threads_of_teachers: list[int]
) -> None:
    space = load(tiny_space).space
    before = torch.get_num_threads()
    load_task(space.task, tmp_path)
    job = TeacherJob(
        "teacher", space.task, tuple(space.teachers()), tmp_path, teacher_threads=before + 1
    )
    *_, ended = perform(job, lambda step, total: False, lambda line: None)
    assert (ended.outcome, threads_of_teachers) == ("complete", [before + 1])
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_a_sweep_keeps_its_teachers_threads_and_a_replay_has_them_too(
    tiny_space: Path, tmp_path: Path, threads_of_teachers: list[int]
) -> None:
    own = torch.get_num_threads()
    short = ("engine={type: inline}", "confirm={seeds: 0}", "strategies.combined=", "trials=1")
    run(tiny_space, home=tmp_path, assignments=(*short, "training.epochs=1"))
    home = Home(tmp_path)
    facts = home.sweep("tiny").facts
    assert read_json(facts)["teacher_threads"] == own
    write_json(facts, read_json(facts) | {"teacher_threads": own + 1})

    # Another trial, and a teacher that the cache doesn't have any more.
    _remove_teachers(tmp_path)
    run(tiny_space, home=tmp_path, assignments=(*short[:-1], "trials=2", "training.epochs=1"))
    _remove_teachers(tmp_path)
    replay(home, "tiny", "distill-0")
    assert threads_of_teachers == [own, own + 1, own + 1]
    assert home.sweep("tiny").read_facts().teacher_threads == own + 1


def _remove_teachers(home: Path) -> None:
    for file in (home / "cache" / "teachers").glob("*/teacher.json"):
        file.unlink()


def test_a_sweep_of_an_earlier_version_makes_its_teacher_with_a_slots_threads(
    tiny_space: Path, old_home: Path
) -> None:
    home = Home(next(old_home.rglob("optuna.db")).parent)
    folder = next(folder for folder in map(home.sweep, _names(home)) if folder.exists())
    assert folder.read_facts().teacher_threads is None
    assert teacher_threads.kept_threads(load(tiny_space), folder) is None


def _names(home: Home) -> list[str]:
    return [one.name for one in (home.root / "sweeps").iterdir()]


@pytest.mark.usefixtures("sixteen_cores")
@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        ((), "one, this process, with 16 threads (engine: auto, and this machine has no GPU)"),
        (
            ("engine={type: inline}",),
            "one, this process, with 16 threads (engine: {type: inline})",
        ),
        (
            ("engine={type: ray, gpus_per_trial: 0, cpus_per_trial: 2, cpus: 8}",),
            "4, with 2 threads each (engine: {type: ray, address: local}); teachers are made with "
            "4 threads",
        ),
        (
            ("engine={type: ray, address: head}",),
            "as many as the cluster has room for, with 1 thread each (engine: {type: ray, address: "
            "head})",
        ),
    ],
)
def test_a_plan_says_which_slots_there_will_be_and_why(
    tiny_space: Path, tmp_path: Path, assignments: tuple[str, ...], words: str
) -> None:
    if torch.cuda.is_available():
        pytest.skip("computes on a GPU")
    plan = load(tiny_space, assignments=assignments)
    assert planned_slots(plan, Home(tmp_path).sweep("tiny")).words == words


def test_a_plan_times_models_with_the_threads_that_they_will_have(
    tiny_space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = check_models(load(tiny_space).space, tmp_path)
    seen: list[int] = []
    timed = Measurements._time_steps

    def watched(self: Measurements, planned: Any, batch_size: int) -> tuple[float, float]:
        seen.append(torch.get_num_threads())
        return timed(self, planned, batch_size)

    monkeypatch.setattr(Measurements, "_time_steps", watched)
    own = torch.get_num_threads()
    student, teacher = checked.students[0], checked.teachers[0]
    measured = Measurements(checked.data, ["fp32"], {student: own + 1})
    for planned in (student, teacher):
        measured.row_seconds(planned, 16)
    assert (seen, torch.get_num_threads()) == ([own + 1, own], own)
