"""How many deaths of its workers a job survives."""

from __future__ import annotations

from pathlib import Path

from kdsweep.core.files import write_json
from kdsweep.sweep.worker_failures import WorkerFailures, note_failure, read_failures


def counts(file: Path, *places: dict[str, int]) -> list[int]:
    return [note_failure(file, "killed", saved, 0).count for saved in places]


def test_a_job_that_got_further_since_the_last_death_starts_a_new_count(tmp_path: Path) -> None:
    at = [{"checkpoint": step} for step in (0, 0, 4, 8, 8, 12, 16, 20)]
    assert counts(tmp_path / "lost.json", *at) == [1, 2, 1, 1, 2, 1, 1, 1]


def test_the_count_outlives_the_driver_and_a_checkpoint_that_is_lost_is_no_progress(
    tmp_path: Path,
) -> None:
    file = tmp_path / "lost.json"
    assert counts(file, {"checkpoint": 40}) == [1]
    assert counts(file, {"checkpoint": 0}, {"checkpoint": 20}) == [2, 3]
    assert [one["reason"] for one in read_failures(file)] == ["killed"] * 3


def test_each_thing_that_a_teacher_saves_is_progress(tmp_path: Path) -> None:
    assert counts(
        tmp_path / "lost.json",
        {},
        {},
        {"a": 5},
        {"a": 5, "b": 1},
        {"a": 5, "b": 1},
        {"b": 2},
        {"a": 5, "b": 2},
    ) == [1, 2, 1, 1, 2, 1, 2]


def test_deaths_of_an_earlier_version_say_no_place(tmp_path: Path) -> None:
    file = tmp_path / "lost.json"
    write_json(file, [{"timestamp": 1, "reason": "killed"}] * 2)
    assert counts(file, {"checkpoint": 0}, {"checkpoint": 0}) == [1, 2]


def test_the_words_say_at_which_step() -> None:
    assert str(WorkerFailures(1, 0)) == "worker failure 1 of 3 before its first checkpoint"
    assert str(WorkerFailures(2, 40)) == "worker failure 2 of 3 after step 40"
    assert str(WorkerFailures(2)) == "worker failure 2 of 3"
    assert WorkerFailures(3, 40).died == "died 3 times after step 40"
    assert WorkerFailures(3, 40).are_too_many and not WorkerFailures(2, 40).are_too_many
