"""`kdsweep clean`: what no sweep uses goes, what one uses stays, and nothing else changes."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hub.server import Hub
from sweep_processes import PLAIN, metrics_of, trials_of

from kdsweep.cli import main
from kdsweep.core.cache_lock import cache_in_use
from kdsweep.core.files import fingerprint, write_array, write_json
from kdsweep.core.hub.fetching import commit_of, snapshot_with
from kdsweep.core.hub.fetching import files_of as files_of_version
from kdsweep.core.hub.repository import Repository
from kdsweep.core.hub.snapshots import hub_cache, looking_in
from kdsweep.export import export
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.sweep.results import report as report_of


@pytest.fixture
def home(old_home: Path) -> Home:
    return Home(old_home / "home")


def clean(home: Home, *arguments: str) -> Any:
    return CliRunner().invoke(main, ["clean", "--home", str(home.root), *arguments])


def unused(home: Home, *arguments: str) -> dict[str, int]:
    """How many entries of each kind would go; kinds without one are left out."""
    done = clean(home, "--json", *arguments)
    assert done.exit_code == 0, done.output
    sizes = json.loads(done.stdout)["sizes"]
    return {one["kind"]: one["unused_entries"] for one in sizes if one["unused_entries"]}


def files_of(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_what_a_sweep_uses_stays_and_what_only_a_removed_one_used_goes(home: Home) -> None:
    assert unused(home) == {}
    before = files_of(home.cache)
    done = clean(home, "--yes")
    assert done.exit_code == 0, done.output
    assert files_of(home.cache) == before
    shutil.rmtree(home.sweep("tags").root)
    assert unused(home) == {"teachers": 2, "logits": 3}
    assert "kdsweep clean --yes removes what is unused" in clean(home).stdout
    assert files_of(home.cache) == before
    assert "removed " in clean(home, "--yes").stdout
    left = files_of(home.cache)
    assert left < before
    assert unused(home) == {}
    # What the other sweeps of that version say comes from their teachers' logits in the cache.
    for name in ("reviews", "scores"):
        report_of(home, name)
    assert files_of(home.cache) >= left


def test_without_a_sweep_all_is_unused(home: Home) -> None:
    shutil.rmtree(home.sweeps)
    assert clean(home, "--yes").exit_code == 0
    assert [path for path in files_of(home.cache) if path.name != ".in-use.lock"] == []


def test_with_all_numbers_that_are_nowhere_else_are_kept(home: Home) -> None:
    before = {name: report_of(home, name).to_json() for name in ("reviews", "scores", "tags")}
    assert unused(home, "--all") == {"rows": 3, "tokens": 9, "teachers": 3}
    assert clean(home, "--all", "--yes").exit_code == 0
    assert {name: report_of(home, name).to_json() for name in before} == before


def test_rows_tokens_and_views_are_known_by_the_rows_that_they_are_of(tmp_path: Path) -> None:
    home = Home(tmp_path)
    facts = {"kdsweep": "0.2.0", "identity": {"model": "org/used"}, "experiment": "e", "sweep": {}}
    write_json(home.sweep("one").facts, facts | {"data": {"train": "t", "test": "e"}})
    for name, key in (("used", "t"), ("unused", "x")):
        splits = {"train": {"key": key}}
        write_json(home.cache / "rows" / name / "meta.json", {"splits": splits})
        write_json(home.cache / "tokens" / name / "meta.json", {"split": key})
        meta = {"of": key, "key": f"view of {key}"}
        write_json(home.cache / "views" / name / "meta.json", meta)
        view = {"split": f"view of {key}"}
        write_json(home.cache / "tokens" / f"{name} view" / "meta.json", view)
        write_json(home.cache / "hub" / f"models--org--{name}" / "refs" / "main", "")
    write_json(home.cache / "tokens" / "of an earlier version" / "meta.json", {"rows": 3})
    assert unused(home) == {"rows": 1, "tokens": 2, "views": 1, "hub": 1}
    assert clean(home, "--yes").exit_code == 0
    assert {path.name for path in home.cache.glob("*/*")} == {
        "used",
        "used view",
        "models--org--used",
        "of an earlier version",
    }


def test_of_a_repository_of_the_hub_the_versions_that_no_sweep_uses_go(
    tmp_path: Path, hub_here: Hub
) -> None:
    home = Home(tmp_path / "home")
    cache = hub_cache(home.cache)
    files = {"config.json": "{}", "vocab.txt": "same in each"}
    for version in ("first", "second", "third"):
        weights = version.encode() * 1000
        hub_here.add_model("a/b", {**files, "model.safetensors": weights}, commit=version)
    hub_here.add_model("a/other", {**files, "model.safetensors": b"other"})
    with looking_in(cache):
        for version in ("first", "second", "third"):
            hub_here.move_main("a/b", version)
            _bring(Repository("model", "a/b"))
        _bring(Repository("model", "a/other"))
    folder = cache / "models--a--b"
    half = folder / "blobs" / "0123.incomplete"
    half.write_text("half")
    fresh = cache / ".reading-1234"
    fresh.mkdir()
    facts = {"kdsweep": "0.2.0", "identity": {}, "experiment": "e", "sweep": {}}
    of = {"kind": "model", "name": "a/b", "revision": None}
    used = {"of": of, "commit": hub_here.commit("a/b", "second")}
    write_json(home.sweep("one").facts, facts | {"commits": [used]})

    assert unused(home) == {"hub": 3}
    assert clean(home, "--yes").exit_code == 0
    assert (half.exists(), fresh.exists()) == (True, True)
    for path in (half, fresh):
        os.utime(path, (time.time() - 7200,) * 2)
    assert unused(home) == {"leftovers": 2}
    done = json.loads(clean(home, "--yes", "--json").stdout)
    assert done["removed_bytes"] == 4
    left = {path.relative_to(cache).as_posix() for path in files_of(cache)}
    version = folder / "snapshots" / used["commit"]
    blobs = {path.resolve().relative_to(cache).as_posix() for path in version.iterdir()}
    assert len(blobs) == 3
    names = {f"models--a--b/snapshots/{version.name}/{path.name}" for path in version.iterdir()}
    listing = f"listings/models--a--b/{version.name}.json"
    assert left - {"CACHEDIR.TAG"} == {*blobs, *names, listing}
    assert (version / "model.safetensors").read_bytes() == b"second" * 1000

    assert unused(home, "--all") == {"hub": 1}
    assert "--all --yes removes" in clean(home, "--all").stdout
    clean(home, "--all", "--yes")
    assert {path.name for path in files_of(cache)} == {"CACHEDIR.TAG"}


def _bring(repository: Repository) -> None:
    commit = commit_of(repository, key="model")
    listing = files_of_version(repository, commit, key="model")
    assert listing is not None
    snapshot_with(repository, commit, list(listing), key="model")


def test_of_several_teachers_on_the_same_rows_the_recorded_one_is_used(tmp_path: Path) -> None:
    home = Home(tmp_path)
    teacher = {"validation": {}, "keys": ["a", "fold"]}
    facts = {"kdsweep": "0.2.0", "identity": {}, "experiment": "e", "sweep": {}}
    write_json(home.sweep("one").facts, facts | {"data": {"train": "t"}, "teachers": [teacher]})
    for key in ("a", "fold", "b"):
        training = {"training_folder": f"/elsewhere/{key}-training"}
        write_json(home.cache / "teachers" / key / "teacher.json", training)
        write_json(home.cache / "teachers" / f"{key}-training" / "settings.json", {})
        stem = fingerprint("logits 1", key, "t")
        write_array(home.cache / "logits" / f"{stem}.npy", np.zeros(3))
        write_json(home.cache / "logits-hashes" / f"{stem}.json", {})
    assert unused(home) == {"teachers": 2, "logits": 1}
    # A sweep that can't be read may use any teacher.
    (home.sweep("two").root).mkdir()
    home.sweep("two").facts.write_text("{")
    assert unused(home) == {}
    home.sweep("two").facts.unlink()
    assert clean(home, "--yes").exit_code == 0
    assert {path.name for path in (home.cache / "teachers").iterdir()} == {
        "a",
        "a-training",
        "fold",
        "fold-training",
    }
    assert len(list((home.cache / "logits-hashes").iterdir())) == 2


def test_only_old_leftovers_of_interrupted_writes_go(home: Home) -> None:
    old = home.cache / "tokens" / ".key.1234abcd.tmp"
    for folder in (old, home.cache / "rows" / ".key.1234abcd.tmp"):
        folder.mkdir(parents=True)
        (folder / "part").write_text("x" * 100)
    for path in (old / "part", old):
        os.utime(path, (time.time() - 7200,) * 2)
    (home.sweeps / ".gone.1234abcd.tmp").mkdir()
    assert unused(home) == {"leftovers": 2}
    assert clean(home, "--yes").exit_code == 0
    assert not old.exists()
    assert (home.cache / "rows" / ".key.1234abcd.tmp").exists()


def test_nothing_is_removed_while_a_sweep_or_a_replay_works(home: Home) -> None:
    shutil.rmtree(home.sweep("tags").root)
    before = files_of(home.cache)
    with home.sweep("scores").locked():
        assert "scores run now, so nothing can be removed" in clean(home).stdout
        done = clean(home, "--yes")
    assert done.exit_code == 1
    assert "nothing was removed: scores uses the cache now" in done.stderr
    with cache_in_use(home.cache):
        assert "nothing was removed: another command" in clean(home, "--yes").stderr
    assert files_of(home.cache) >= before


def test_what_is_being_written_is_left_alone(home: Home) -> None:
    shutil.rmtree(home.sweeps)
    folder = next(one for one in (home.cache / "tokens").iterdir() if one.is_dir())
    with folder.with_suffix(".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert clean(home, "--yes").exit_code == 0
    assert folder.is_dir()
    assert len([one for one in (home.cache / "tokens").iterdir() if one.is_dir()]) == 1


def test_a_cache_that_is_a_link_is_shown_and_not_cleaned(home: Home, tmp_path: Path) -> None:
    shutil.rmtree(home.sweeps)
    shared = home.cache.rename(tmp_path / "shared")
    home.cache.symlink_to(shared)
    assert unused(home)
    done = clean(home, "--yes")
    assert done.exit_code == 1
    assert "which other homes may use too" in done.stderr


@pytest.mark.slow
def test_a_finished_sweep_is_whole_after_all_was_cleaned(tmp_path: Path, space: Path) -> None:
    home = Home(tmp_path)
    assignments = ("trials=2", "engine={type: inline}", "confirm={seeds: 1, finalists: 1}")
    run(space, home=home.root, assignments=assignments)
    before = report_of(home, "tiny").to_json()
    assert clean(home, "--all", "--yes").exit_code == 0
    assert [path for path in files_of(home.cache) if path.name != ".in-use.lock"] == []
    assert report_of(home, "tiny").to_json() == before
    export(home, "tiny", tmp_path / "student", formats=["int8"])
    assert (tmp_path / "student" / "config.json").exists()


@pytest.mark.slow
def test_a_stopped_sweep_makes_again_what_it_needs_with_the_same_numbers(
    tmp_path: Path, sweep: Any
) -> None:
    home, whole = Home(tmp_path / "home"), Home(tmp_path / "whole")
    assignments = (*PLAIN, "trials=2", "engine={type: inline}")
    stopped = sweep(home.root, *assignments)
    # In the middle of a trial that is taught.
    assert stopped.wait_for(lambda: stopped.evaluations() >= 10)
    stopped.kill()
    assert clean(home, "--all", "--yes").exit_code == 0
    assert [path for path in files_of(home.cache) if path.name != ".in-use.lock"] == []
    assert sweep(home.root, *assignments).end()[0] == 0
    assert sweep(whole.root, *assignments).end()[0] == 0
    assert trials_of(home) == trials_of(whole)
    assert metrics_of(home) == metrics_of(whole)
