"""What was removed, renamed or replaced under a process that writes there is not made again."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from kdsweep.core.files import publishing, write_atomically, write_json
from kdsweep.core.standing import Fence, fenced, standing
from kdsweep.core.trial_folder import Evaluation, TrialFolder, TrialResult
from kdsweep.errors import FolderGone, Superseded


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home" / "sweeps").mkdir(parents=True)
    return tmp_path / "home"


def remove(home: Path) -> None:
    shutil.rmtree(home)


def rename(home: Path) -> None:
    home.rename(home.with_name("moved"))


def remake(home: Path) -> None:
    # A file system may give the new folder the inode of the old one.
    shutil.rmtree(home)
    home.mkdir()


def replace_by_a_file(home: Path) -> None:
    shutil.rmtree(home)
    home.write_text("")


@pytest.mark.parametrize("undo", [remove, rename, remake, replace_by_a_file])
def test_a_folder_that_has_gone_is_named_and_not_made_again(
    undo: Callable[[Path], None], home: Path
) -> None:
    with standing(home):
        write_json(home / "sweeps" / "a.json", 1)
        undo(home)
        there = list(home.parent.rglob("*"))
        with pytest.raises(FolderGone, match=f"^{re.escape(str(home))} was removed or renamed"):
            write_json(home / "sweeps" / "a.json", 2)
        with pytest.raises(FolderGone), publishing(home / "cache" / "x"):
            pass
        assert list(home.parent.rglob("*")) == there
    # Who begins afterwards may make it.
    if not home.is_file():
        write_json(home / "sweeps" / "a.json", 3)


def test_a_folder_that_goes_while_a_file_is_written_is_named(home: Path) -> None:
    with (
        standing(home),
        pytest.raises(FolderGone, match="was removed or renamed"),
        publishing(home / "x"),
    ):
        shutil.rmtree(home)
    assert not home.exists()


def test_nothing_is_written_beside_a_file_that_has_gone(home: Path) -> None:
    lock = home / "sweeps" / "lock"
    lock.touch()
    with standing(home, lock):
        lock.unlink()
        with pytest.raises(FolderGone, match="lock was removed"):
            write_json(home / "sweeps" / "a.json", 1)
        write_json(home / "b.json", 1)
    assert not list((home / "sweeps").iterdir())


def test_a_folder_that_is_not_there_can_not_stay(home: Path) -> None:
    with pytest.raises(FolderGone), standing(home / "nowhere"):
        pass


# --- the turn to write ---------------------------------------------------------------------------


def test_who_was_cut_off_writes_nothing_once_its_trial_was_started_again(tmp_path: Path) -> None:
    trial = TrialFolder(tmp_path / "trial")
    (first := Fence(tmp_path / "attempts" / "trial", "first")).put_up()
    evaluation = Evaluation(1, 1.0, {"accuracy": 0.5}, 0.1, 0)
    with fenced(trial.root, first):
        trial.write_evaluations([evaluation])
        (later := Fence(first.file, "second")).put_up()
        for write in (
            lambda: trial.write_evaluations([]),
            lambda: trial.write_result(TrialResult("complete", 1, 0.1)),
            lambda: write_json(tmp_path / "trial" / "settings.json", {}),
        ):
            with pytest.raises(Superseded):
                write()
        # What lies beside belongs to others.
        write_json(tmp_path / "other.json", {})
    with fenced(trial.root, later):
        assert trial.read_evaluations() == [evaluation]
        trial.write_evaluations([evaluation, evaluation])
    assert [file.name for file in trial.root.iterdir()] == ["metrics.jsonl"]


def test_a_file_that_is_half_written_when_the_turn_passes_is_not_put_in_place(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "trial"
    (first := Fence(tmp_path / "attempt", "first")).put_up()

    def pass_the_turn(file: BinaryIO) -> None:
        file.write(b"half")
        Fence(first.file, "second").put_up()

    with fenced(folder, first), pytest.raises(Superseded):
        write_atomically(folder / "state.pt", pass_the_turn)
    first.put_up()
    with fenced(folder, first), pytest.raises(Superseded), publishing(folder / "student") as beside:
        (beside / "model").touch()
        Fence(first.file, "second").put_up()
    assert not list(folder.iterdir())
