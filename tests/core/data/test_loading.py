"""Rows in the cache are the rows that were read, and a changed source is read again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import file_times, write_csv
from hub.server import Hub
from task_rows import ROWS, load, row_count, task_of

import kdsweep
from kdsweep.core.data import loading
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.mapped_arrays import MappedTexts
from kdsweep.core.data.rows import TaskData
from kdsweep.core.hub import snapshots
from kdsweep.core.settings import TaskSettings


def same(one: TaskData, other: TaskData) -> bool:
    return contents(one) == contents(other)


def contents(data: TaskData) -> tuple[Any, ...]:
    splits = [
        (name, split.key, list(map(list, split.texts)), split.labels.tolist(), split.labels.dtype)
        for name, split in data.splits.items()
    ]
    return data.label_names, data.notes, splits


def rows_in_cache(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "rows").glob("*") if path.is_dir())


def test_rows_from_the_cache_are_those_that_were_read(tmp_path: Path) -> None:
    rows = [*ROWS, ("", "pos"), ("🎬 très bien\nzwei Zeilen 中文", "neg"), ("\x00 and \x1e", "pos")]
    task = task_of(write_csv(tmp_path / "rows.csv", rows), limit={"train": 70})
    cached = load_task(task, tmp_path / "the cache")
    assert all(
        isinstance(column, MappedTexts)
        for split in cached.splits.values()
        for column in split.texts
    )
    assert same(cached, load_task(task))
    pairs = [(f"premise {i // 2}", f"hypothesis {i % 2}", str(i % 2)) for i in range(200)]
    task = task_of(
        write_csv(tmp_path / "pairs.csv", pairs, ("premise", "hypothesis", "label")),
        text=("premise", "hypothesis"),
    )
    assert same(load_task(task, tmp_path / "the cache"), load_task(task))
    assert len(rows_in_cache(tmp_path / "the cache")) == 2


def test_rules_of_the_first_version_give_its_splits(tmp_path: Path) -> None:
    """Stored settings name no rule; their teachers and logits are found in the cache by keys."""
    named = task_of(
        write_csv(tmp_path / "rows.csv", [*ROWS, ("", "pos"), ("中文 très 🎬", "neg")]),
        limit={"train": 50},
    )
    stored = named.model_dump(mode="json", exclude={"split_rule", "label_rule"})
    task = TaskSettings.model_validate_json(json.dumps(stored))
    assert (task.split_rule, task.label_rule) == (1, 1)
    assert task.model_dump(mode="json") == stored
    keys = {
        "train": "ba02a89e1bc80489",
        "validation": "71a44da2106629da",
        "test": "a4be1576fdb1b21e",
    }
    for data in (load_task(task), load_task(task, tmp_path / "cache")):
        assert {name: split.key for name, split in data.splits.items()} == keys
        assert data.key == "4d952eb52ba4af1d"


LOAD_ELSEWHERE = """
import json, sys
from pathlib import Path
import kdsweep
kdsweep.__version__ = sys.argv[3]
from kdsweep.core.data.loading import load_task
from kdsweep.core.settings import TaskSettings
data = load_task(TaskSettings.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
print(json.dumps([data.train.key, list(data.train.texts[0]), data.train.labels.tolist()]))
"""


def train_elsewhere(task: TaskSettings, cache: Path, version: str) -> list[Any]:
    """Key, texts and labels of train as another process with this version of kdsweep loads them."""
    command = [sys.executable, "-c", LOAD_ELSEWHERE, task.model_dump_json(), str(cache), version]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(found.stdout)


@pytest.mark.parametrize("version", [kdsweep.__version__, "9.9.9"])
def test_another_process_of_any_version_finds_the_rows_in_the_cache(
    version: str, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    task = task_of(write_csv(tmp_path / "rows.csv", ROWS))
    here = load_task(task, cache).train
    (folder,) = rows_in_cache(cache)
    # Other labels in the cache show that the other process reads the cache, not the csv file.
    labels = 1 - here.labels
    np.save(folder / "train-labels.npy", labels)
    before = file_times(folder)
    found = train_elsewhere(task, cache, version)
    assert found == [here.key, list(here.texts[0]), labels.tolist()]
    assert rows_in_cache(cache) == [folder]
    assert file_times(folder) == before


def test_a_changed_file_of_the_same_size_and_time_is_read_again(tmp_path: Path) -> None:
    path, cache = write_csv(tmp_path / "rows.csv", ROWS), tmp_path / "cache"
    before, stat = load_task(task_of(path), cache), path.stat()
    swapped = path.read_bytes().replace(b"fine", b"warm")
    assert len(swapped) == stat.st_size and swapped != path.read_bytes()
    path.write_bytes(swapped)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = load_task(task_of(path), cache)
    assert same(after, load_task(task_of(path))) and not same(before, after)
    assert len(rows_in_cache(cache)) == 2


def test_writing_twice_in_a_row_is_seen_each_time(tmp_path: Path) -> None:
    path, cache = tmp_path / "rows.csv", tmp_path / "cache"
    for word in ("some", "many", "more", "less"):
        write_csv(path, [(f"{word} {text} {i}", label) for i, (text, label) in enumerate(ROWS)])
        assert all(text.startswith(word) for text in load_task(task_of(path), cache).train.texts[0])


def test_a_file_that_changes_during_reading_is_not_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_csv(tmp_path / "rows.csv", ROWS)
    cache = tmp_path / "cache"
    read = loading.read_splits

    def read_and_overwrite(*arguments: Any) -> Any:
        found = read(*arguments)
        write_csv(path, ROWS[:60])
        return found

    monkeypatch.setattr(loading, "read_splits", read_and_overwrite)
    assert row_count(load_task(task_of(path), cache)) == 120
    assert rows_in_cache(cache) == []
    monkeypatch.setattr(loading, "read_splits", read)
    assert row_count(load_task(task_of(path), cache)) == 60


def test_a_file_in_a_folder_that_changed_is_read_again_and_a_cache_in_that_folder_changes_nothing(
    tmp_path: Path,
) -> None:
    path, cache = write_csv(tmp_path / "train.csv", ROWS), tmp_path / "cache"
    for rows in (ROWS, ROWS[:60]):
        write_csv(path, rows)
        for _ in range(2):
            assert row_count(load_task(task_of(tmp_path), cache)) == len(rows)
    assert len(rows_in_cache(cache)) == 2


def test_a_changed_file_is_read_again_alone_and_in_a_folder_without_a_cache(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "train.csv", ROWS)
    assert row_count(load(path)) == row_count(load(tmp_path)) == 120
    write_csv(path, ROWS[:60])
    assert row_count(load(path)) == row_count(load(tmp_path)) == 60


def test_a_dataset_saved_to_disk_whose_arrow_file_changed_is_read_again(tmp_path: Path) -> None:
    import datasets

    cache = tmp_path / "cache"
    for word in ("first", "second"):
        rows = datasets.Dataset.from_list(
            [{"text": f"{word} {i}", "label": i % 2} for i in range(100)]
        )
        datasets.DatasetDict(train=rows).save_to_disk(tmp_path / "saved")
        assert all(
            text.startswith(word)
            for text in load_task(task_of(tmp_path / "saved"), cache).train.texts[0]
        )


def test_nothing_is_written_without_a_cache_or_with_publish_off(tmp_path: Path) -> None:
    task, cache = task_of(write_csv(tmp_path / "rows.csv", ROWS)), tmp_path / "cache"
    read = load_task(task, cache, publish=False)
    assert not cache.exists()
    load_task(task, cache)
    found = load_task(task, cache, publish=False)
    assert isinstance(found.train.texts[0], MappedTexts) and same(read, found)


def test_rows_of_the_hub_are_cached_by_the_commit_of_their_dataset(
    tmp_path: Path, hub_here: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, cache = task_of("someone/films", text=("sentence",)), tmp_path / "cache"
    for word in ("first", "second"):
        rows = "".join(f"{word} {i},{i % 2}\n" for i in range(100))
        hub_here.add_dataset("someone/films", {"train.csv": f"sentence,label\n{rows}"}, word)
        hub_here.move_main("someone/films", word)
        # As in a new process.
        loading._LOADED.clear()
        monkeypatch.setattr(snapshots, "_SCOPE", snapshots._Scope())
        found = load_task(task, cache)
        assert all(text.startswith(word) for text in found.train.texts[0])
    assert len(rows_in_cache(cache)) == 2
    first = task.model_copy(update={"revision": hub_here.commit("someone/films", "first")})
    hub_here.stop()
    assert load_task(first, cache).train.texts[0][0].startswith("first")
