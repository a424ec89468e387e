"""What a user is told when the Hub says no, is away, or something else answers in its place."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hub.fixtures import make_certificate, use_here
from hub.reading_rows import ROWS, refused, rows_of
from hub.server import EXPIRED, READER, Hub

from kdsweep.core.data.hub_dataset import fetch_dataset
from kdsweep.core.hub import client, fetching
from kdsweep.core.hub.fetching import commit_of
from kdsweep.core.hub.repository import Repository
from kdsweep.core.models.model_snapshot import model_folder
from kdsweep.errors import HubUnreachable, ModelError

# --- the Hub as a whole --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 503])
def test_a_hub_that_stays_busy_is_told_as_that(films: Hub, status: int) -> None:
    films.fail(".", status)
    line = refused(rows_of, HubUnreachable)
    assert re.search(rf"doesn't answer properly \(HTTP {status}\); try again later$", line)


@pytest.mark.parametrize("header", ["Retry-After: 120", 'RateLimit: "api";r=0;t=120'])
@pytest.mark.parametrize("asked", [".", "/tree/", "HEAD .*train.csv", "GET .*train.csv"])
def test_a_long_rate_limit_is_not_waited_for(films: Hub, header: str, asked: str) -> None:
    name, _, value = header.partition(": ")
    films.fail(asked, 429, headers={name: value})
    started = time.monotonic()
    line = refused(rows_of, HubUnreachable)
    assert "doesn't answer properly (HTTP 429); try again later" in line
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("asked", ["/tree/", "HEAD .*train.csv", "GET .*train.csv"])
def test_what_is_wrong_is_told_whatever_was_asked_for(films: Hub, asked: str) -> None:
    films.fail(asked, 503)
    assert "doesn't answer properly (HTTP 503)" in refused(rows_of, HubUnreachable)
    films.heal()
    films.fail(asked, 404, body="<html>not here</html>", headers={"Content-Type": "text/html"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "_PATIENCE", client._Patience())
        assert "isn't what answers there (HTTP 404" in refused(rows_of, HubUnreachable)


@pytest.mark.parametrize("asked", ["GET /api", "HEAD .*resolve", "GET .*short/train.csv"])
def test_a_fault_that_passes_costs_nothing(
    films: Hub, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (client, fetching):
        monkeypatch.setattr(module, "BUSY_SECONDS", 60.0)
    # huggingface_hub waits a second and more before a try of its own.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    for fault in (films.fail, films.hang_up):
        fault(asked, times=2)
    assert len(rows_of()) == 20


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [(404, "text/html", "<html>not here</html>"), (200, "text/html", "<html>log in</html>")],
    ids=["a gateway's page", "a login page"],
)
def test_what_answers_in_the_hubs_place_is_not_taken_for_the_hub(
    films: Hub, status: int, kind: str, body: str
) -> None:
    films.fail(".", status, body=body, headers={"Content-Type": kind})
    line = refused(rows_of, HubUnreachable)
    assert "isn't what answers there" in line
    assert "HF_ENDPOINT" in line
    assert "has no dataset" not in line


@pytest.mark.parametrize("asked", ["/api/datasets/[^/]*/films$", "/tree/"])
@pytest.mark.parametrize("body", ['{"id": ', "{}", "[]", "null", "[[]]"])
def test_an_answer_that_is_not_the_hubs_is_told_as_that(films: Hub, asked: str, body: str) -> None:
    films.fail(asked, 200, body=body, headers={"Content-Type": "application/json"})
    assert "isn't what answers there" in refused(rows_of, HubUnreachable)
    films.heal()
    assert len(rows_of()) == 20


def test_a_login_page_in_place_of_a_file_is_no_file(films: Hub) -> None:
    films.fail("resolve", 200, body="<html>log in</html>", headers={"Content-Type": "text/html"})
    assert "isn't what answers there" in refused(rows_of, HubUnreachable)


@pytest.mark.parametrize("asked", ["/api/datasets/[^/]*/films$", "/tree/"])
def test_a_hub_that_takes_a_question_and_stays_silent_is_not_waited_for(
    films: Hub, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "READ_SECONDS", 0.3)
    films.delay(asked, 2.0)
    started = time.monotonic()
    assert "can't be reached from here" in refused(rows_of, HubUnreachable)
    assert time.monotonic() - started < 2.0


def test_a_hub_that_is_gone_is_told_with_what_to_do(films: Hub) -> None:
    films.stop()
    line = refused(rows_of, HubUnreachable)
    assert "can't be reached from here" in line
    assert "kdsweep plan --fetch" in line
    assert "--embedded" in line


def test_a_certificate_that_is_not_trusted_is_named_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure = Hub(make_certificate(tmp_path))
    secure.add_dataset("someone/films", {"train.csv": ROWS})
    use_here(secure, tmp_path / "huggingface", monkeypatch)
    line = refused(lambda: rows_of(subset=None), HubUnreachable)
    secure.stop()
    assert "certificate that this machine doesn't trust" in line
    assert "SSL_CERT_FILE" in line


# --- what it says no to --------------------------------------------------------------------------


def test_a_name_that_nobody_has_is_told(films: Hub) -> None:
    line = refused(lambda: rows_of("someone/films2"))
    assert "the Hub has no dataset of that name" in line
    assert "log in" in line
    line = refused(lambda: model_folder("someone/nothing", weights=False), ModelError)
    assert "the Hub has no model of that name" in line
    assert "(OWNER/NAME)" in refused(lambda: rows_of("a b!"))


def test_a_revision_that_is_not_there_is_told(films: Hub) -> None:
    line = refused(lambda: fetch_dataset("someone/films", "short", "v9"))
    assert "has no revision 'v9'" in line


def test_a_gated_repository_says_how_to_get_in(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_dataset("someone/films", {"train.csv": ROWS}, gated=True)
    use_here(hub, tmp_path / "hf", monkeypatch)
    line = refused(lambda: rows_of(subset=None))
    assert "is gated: ask for access at" in line
    assert "hf auth login" in line
    use_here(hub, tmp_path / "hf", monkeypatch, token=READER)
    assert "your account has no access yet" in refused(lambda: rows_of(subset=None))


@pytest.mark.parametrize("token", [EXPIRED, "hf_nobodysToken"], ids=["expired", "unknown"])
def test_a_token_that_is_refused_is_told_as_that_and_never_shown(
    films: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    use_here(films, tmp_path / "hf", monkeypatch, token=token)
    line = refused(rows_of)
    assert "refuses the token that you are logged in with" in line
    assert token not in line


def test_an_old_name_suggests_the_new_one(films: Hub) -> None:
    films.rename("films", "someone/films")
    assert "calls the dataset 'films' 'someone/films' now" in refused(lambda: rows_of("films"))
    films.add_model("someone/bert", {"config.json": "{}", "model.safetensors": ""})
    films.rename("bert", "someone/bert")
    # Models are widely known by their short names.
    assert commit_of(Repository("model", "bert"), key="model") == films.commit("someone/bert")


# --- datasets that can't be read -----------------------------------------------------------------


def test_a_missing_subset_lists_those_there_are(films: Hub) -> None:
    line = refused(lambda: rows_of(subset="shrot"))
    assert "has no subset 'shrot'; did you mean 'short'?; it has long, short" in line
    assert "name one in task.subset: long, short" in refused(lambda: rows_of(subset=None))
    films.add_dataset("someone/plain", {"train.csv": ROWS})
    assert "has no subsets" in refused(lambda: rows_of("someone/plain"))
    assert len(rows_of("someone/plain", None)) == 20


def test_only_the_files_of_the_subset_are_fetched(films: Hub) -> None:
    assert len(rows_of()) == 20
    assert films.asked("GET .*short/train.csv")
    assert not films.asked("long/train.csv")
    films.stop()
    # In the cache it isn't asked for again.
    assert len(rows_of()) == 20


def test_a_dataset_without_rows_is_named_and_no_folder_of_ours(hub_here: Hub) -> None:
    hub_here.add_dataset("someone/films", {"README.md": "# films"})
    line = refused(lambda: rows_of(subset=None))
    assert "someone/films holds no files that can be read as rows" in line
    assert ".reading" not in line


def test_a_script_is_refused_and_not_run(hub_here: Hub) -> None:
    hub_here.add_dataset("someone/films", {"films.py": "raise SystemExit", "README.md": "# films"})
    assert "is a script (films.py), which is never run" in refused(lambda: rows_of(subset=None))


def test_a_card_with_wrong_numbers_of_rows_is_told(hub_here: Hub) -> None:
    card = """---
dataset_info:
  features: [{name: text, dtype: string}, {name: label, dtype: int64}]
  splits: [{name: train, num_bytes: 10, num_examples: 21}]
---
"""
    hub_here.add_dataset("someone/films", {"README.md": card, "train.csv": ROWS})
    line = refused(lambda: rows_of(subset=None))
    assert "train: 21 rows, and there are 20" in line
    assert "task.revision" in line


def test_a_card_that_names_files_elsewhere_is_told(hub_here: Hub, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    card = f"---\nconfigs:\n- config_name: default\n  data_files: {tmp_path}/rows.csv\n---\n"
    hub_here.add_dataset("someone/films", {"README.md": card, "train.csv": ROWS})
    line = refused(lambda: rows_of(subset=None))
    assert "rows.csv, which is no file of the repository" in line


def test_a_file_that_is_no_parquet_is_named(hub_here: Hub) -> None:
    hub_here.add_dataset("someone/films", {"data/train-00000-of-00001.parquet": b"PAR1 no PAR1"})
    line = refused(lambda: rows_of(subset=None))
    assert re.search(r"the cached file .*train-00000-of-00001\.parquet can't be read", line)
    assert "remove it" in line


def test_a_file_that_was_damaged_in_the_cache_is_named(
    hub_here: Hub, tmp_path: Path, review_parquet: bytes
) -> None:
    hub_here.add_dataset("someone/films", {"train.parquet": review_parquet})
    assert rows_of(subset=None)
    (file,) = (tmp_path / "huggingface").rglob("snapshots/*/train.parquet")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x55
    data[-6] ^= 0x55
    file.resolve().write_bytes(data)
    line = refused(lambda: rows_of(subset=None))
    assert f"the cached file {file} is damaged; remove it" in line
    file.resolve().unlink()
    file.unlink()
    assert rows_of(subset=None)
