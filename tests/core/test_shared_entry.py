"""Damaged entries of the cache are made again, with the same content."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import others_slow

from kdsweep.core import TrialSettings, train
from kdsweep.core.files import locked, read_json, write_json
from kdsweep.core.shared_entry import SharedEntry
from kdsweep.core.trial_folder import TrialFolder
from kdsweep.errors import DamagedFile

ENTRIES = {
    "rows": "rows/*/*",
    "tokens": "tokens/*/*",
    "views": "views/*/*",
    "logits": "logits/*.npy",
    "teachers": "teachers/*[!g]/*",
    "fine-tuning": "teachers/*-training/*.json",
}


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut_in_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def another(file: Path) -> None:
    if file.suffix == ".npy":
        np.save(file, np.zeros((3, 3)))
    elif file.suffix == ".json":
        file.write_text("[]")
    else:
        cut_in_half(file)


@pytest.fixture(scope="module")
def trained(plain_trial: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trial and the cache that it made."""
    root = tmp_path_factory.mktemp("trained")
    run(plain_trial, root, [])
    return root


def run(plain_trial: dict[str, Any], root: Path, said: list[str]) -> list[dict[str, float]]:
    settings = TrialSettings.model_validate(plain_trial | {"augment": {"swap": 0.1, "views": 1}})
    trial = train(settings, root / "trial", cache=root / "cache", say=said.append)
    return [evaluation.metrics for evaluation in trial]


@pytest.mark.parametrize("damage", others_slow([cut_in_half, empty, another, Path.unlink]))
@pytest.mark.parametrize("kind", ENTRIES)
def test_a_damaged_entry_is_made_again_and_gives_the_same_numbers(
    plain_trial: dict[str, Any],
    trained: Path,
    tmp_path: Path,
    kind: str,
    damage: Callable[[Path], None],
) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    before = TrialFolder(tmp_path / "trial").read_evaluations()
    shutil.rmtree(tmp_path / "trial")
    files = [one for one in (tmp_path / "cache").glob(ENTRIES[kind]) if one.is_file()]
    files = [one for one in files if one.suffix in (".npy", ".json", ".safetensors")]
    assert files
    if kind == "fine-tuning":
        shutil.rmtree(next((tmp_path / "cache" / "teachers").glob("*[!g]/")))
    for file in files:
        damage(file)
    said: list[str] = []
    assert run(plain_trial, tmp_path, said) == [one.metrics for one in before]
    lines = [line for line in said if line.startswith("cache: ")]
    if kind not in ("logits", "fine-tuning", "teachers"):
        assert lines
    assert all(line.endswith("; it is made again") for line in lines)


def entry(file: Path, said: list[str]) -> SharedEntry[Any]:
    return SharedEntry(
        file, lambda: read_json(file), lambda: write_json(file, 1), "waiting", said.append
    )


def test_a_damaged_entry_keeps_its_content_under_another_name(tmp_path: Path) -> None:
    said: list[str] = []
    file = tmp_path / "entry.json"
    file.write_text("{")
    assert entry(file, said).get() == 1
    [aside] = tmp_path.glob(".entry.json.*.tmp")
    assert aside.read_text() == "{"
    assert len(said) == 1
    assert said[0].startswith(f"cache: {file} can't be read: ")


def test_a_file_that_another_user_closed_to_us_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "entry.json"
    write_json(file, 2)

    def denied(*args: object, **kwargs: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(DamagedFile, match="ask its owner for the right to read it"):
        entry(file, []).get()
    monkeypatch.undo()
    assert read_json(file) == 2


def test_the_lock_of_an_entry_is_held_while_it_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "entry.json"
    file.write_text("{")
    seen: list[bool] = []

    def make() -> None:
        def waiting() -> None:
            seen.append(True)
            raise InterruptedError

        with pytest.raises(InterruptedError), locked(file.with_suffix(".lock"), waiting):
            pass
        write_json(file, 1)

    SharedEntry(file, lambda: read_json(file), make, "waiting", print).get()
    assert seen == [True]
