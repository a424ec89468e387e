"""What a download survives, and what ends it with one line."""

from __future__ import annotations

import contextlib
import errno
import os
import time
import warnings
from pathlib import Path

import pytest
from hub.reading_rows import ROWS, refused, rows_of
from hub.server import Hub

from kdsweep.core.data.hub_dataset import open_dataset
from kdsweep.core.hub import client, snapshots
from kdsweep.core.hub.fetching import commit_of
from kdsweep.core.hub.repository import Repository
from kdsweep.errors import HubUnreachable, KdsweepError


def test_a_download_with_other_content_than_the_hub_says_is_fetched_again(
    hub_here: Hub, review_parquet: bytes
) -> None:
    hub_here.add_dataset("someone/films", {"train.parquet": review_parquet})
    hub_here.flip("GET /_cdn.*train.parquet", times=1)
    assert rows_of(subset=None)
    hub_here.add_dataset("someone/others", {"train.parquet": review_parquet})
    hub_here.flip("GET /_cdn.*train.parquet")
    line = refused(lambda: rows_of("someone/others", None), HubUnreachable)
    assert "sends train.parquet with another content than it says" in line


@pytest.mark.parametrize("times", [1, 9])
def test_a_small_file_that_was_changed_on_its_way_is_no_file(films: Hub, times: int) -> None:
    films.flip("GET .*README.md", times=times)
    if times == 1:
        assert len(rows_of()) == 20
    else:
        line = refused(rows_of, HubUnreachable)
        assert "sends README.md with another content than it says" in line


def test_a_short_page_in_a_files_place_is_not_asked_for_without_end(
    hub_here: Hub, review_parquet: bytes
) -> None:
    hub_here.add_dataset("someone/films", {"train.parquet": review_parquet})
    hub_here.fail("GET /_cdn.*train.parquet", 200, body="<html>log in</html>")
    line = refused(lambda: rows_of(subset=None), HubUnreachable)
    assert "sends train.parquet with another size than it says" in line


def test_a_proxy_that_refuses_the_host_of_large_files_is_named(
    hub_here: Hub, review_parquet: bytes
) -> None:
    hub_here.add_dataset("someone/films", {"train.parquet": review_parquet})
    hub_here.fail("GET /_cdn.*train.parquet", 403, body="<html>blocked</html>")
    line = refused(lambda: rows_of(subset=None))
    assert "doesn't give someone/films (HTTP 403: localhost sends train.parquet" in line


def test_a_connection_that_always_breaks_is_told(hub_here: Hub, review_parquet: bytes) -> None:
    hub_here.add_dataset("someone/films", {"train.parquet": review_parquet})
    hub_here.drop_after("GET .*train.parquet", 10)
    with pytest.MonkeyPatch.context() as patch:
        # huggingface_hub waits a second before each try of its own.
        patch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
        line = refused(lambda: rows_of(subset=None), HubUnreachable)
    assert "breaks train.parquet off again and again" in line


def test_what_arrived_before_a_connection_broke_is_not_asked_for_again(
    hub_here: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    rows = "text,label\n" + "".join(f"{'long ' * 100}{i},{i % 2}\n" for i in range(4000))
    hub_here.add_dataset("someone/films", {"train.csv": rows})
    hub_here.drop_after("GET .*train.csv", 600_000)
    assert len(rows_of(subset=None)) == 4000
    assert len(hub_here.asked("GET .*train.csv")) == 4


def test_a_download_that_stalls_is_told(
    hub_here: Hub, review_parquet: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "READ_SECONDS", 0.3)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    hub_here.add_dataset("someone/films", {"train.parquet": review_parquet})
    hub_here.stall_after("GET .*train.parquet", 100)
    started = time.monotonic()
    line = refused(lambda: rows_of(subset=None), HubUnreachable)
    assert "breaks train.parquet off again and again" in line
    assert time.monotonic() - started < 1.5


def test_a_part_of_the_shards_is_not_taken_for_all_rows(
    hub_here: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"data/train-0000{number}-of-00002.csv" for number in range(2)]
    hub_here.add_dataset("someone/films", dict.fromkeys(names, ROWS))
    commit = hub_here.commit("someone/films")

    def rows() -> int:
        # As `datasets` leaves it: files without a list of what there is.
        monkeypatch.setattr(snapshots, "_SCOPE", snapshots._Scope())
        return open_dataset("someone/films", None, commit, lambda found: len(found["train"]))

    assert rows() == 40
    hub_here.stop()
    assert rows() == 40
    (file,) = snapshots.users_cache().rglob(f"snapshots/*/{names[1]}")
    file.unlink()
    assert "is not complete on this machine" in refused(rows, HubUnreachable)


def test_what_a_killed_download_left_is_removed_later(hub_here: Hub, tmp_path: Path) -> None:
    hub_here.add_dataset("someone/films", {"train.csv": ROWS})
    own = tmp_path / "hub"
    with snapshots.looking_in(own):
        assert rows_of(subset=None)
        blobs = own / "datasets--someone--films" / "blobs"
        old, new, view = blobs / "a.1.incomplete", blobs / "b.2.incomplete", own / ".reading-1"
        (view / "films").mkdir(parents=True)
        old.touch()
        new.touch()
        os.utime(old, (0, 0))
        os.utime(view, (0, 0))
        next(blobs.parent.rglob("train.csv")).unlink()
        assert rows_of(subset=None)
    assert not old.exists()
    assert not view.exists()
    assert new.exists(), "another process may be writing it"


def test_a_sweep_without_commits_goes_on_with_what_the_users_cache_has(
    hub_here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = Repository("dataset", "someone/films")
    first = hub_here.add_dataset("someone/films", {"train.csv": ROWS})
    assert rows_of(subset=None)
    ref = snapshots.users_cache() / "datasets--someone--films" / "refs" / "main"
    ref.parent.mkdir()
    ref.write_text(first)
    second = hub_here.add_dataset("someone/films", {"train.csv": ROWS[:60]}, commit="second")
    hub_here.move_main("someone/films", "second")
    monkeypatch.setattr(snapshots, "_SCOPE", snapshots._Scope())
    with snapshots.looking_in(tmp_path / "home"):
        assert commit_of(films, key="task.dataset") == second
        snapshots.settle_on_users_commit(films)
        assert commit_of(films, key="task.dataset") == first
        hub_here.requests.clear()
        # The Hub may have dropped that version meanwhile.
        hub_here.fail("/tree/", 404, body="{}", headers={"X-Error-Code": "RevisionNotFound"})
        assert len(rows_of(subset=None)) == 20
        assert not hub_here.asked("/api/datasets/someone/films$|resolve")
    # Workers have it from the home's cache.
    monkeypatch.setattr(snapshots, "_SCOPE", snapshots._Scope())
    with snapshots.snapshots_only(tmp_path / "home"):
        assert commit_of(films, key="task.dataset") == first


def test_a_disk_that_is_full_is_named_with_the_file(
    films: Hub, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def write(*_: object, **__: object) -> None:
        warnings.warn_explicit("Not enough", UserWarning, "x.py", 1, "huggingface_hub.x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    client.get_ready()
    monkeypatch.setattr("huggingface_hub.file_download.http_get", write)
    line = refused(rows_of, KdsweepError)
    assert str(snapshots.users_cache()) in line
    assert "No space left on device; README.md of the dataset 'someone/films' at" in line


@pytest.mark.parametrize("whose", ["the user's", "the home's"])
def test_a_file_that_is_too_short_is_brought_again(
    hub_here: Hub, tmp_path: Path, whose: str
) -> None:
    hub_here.add_dataset("someone/films", {"train.csv": ROWS})
    with contextlib.ExitStack() as stack:
        if whose == "the home's":
            stack.enter_context(snapshots.looking_in(tmp_path / "home"))
        assert len(rows_of(subset=None)) == 20
        (file,) = snapshots.place_for_downloads().rglob("snapshots/*/train.csv")
        file.resolve().write_text(ROWS[:60])
        assert len(rows_of(subset=None)) == 20


def test_rows_are_read_for_a_home_that_can_only_be_read(
    films: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    # Permissions don't bind the superuser.
    monkeypatch.setattr(snapshots, "only_read", lambda folder: folder.is_relative_to(home))
    with snapshots.looking_in(home / "cache" / "hub"):
        assert len(rows_of()) == 20
    assert not list(home.iterdir())
