"""The tests' Hub answers the real clients as the Hub does."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import datasets
import httpx2
import huggingface_hub
import pytest
from hub.fixtures import make_certificate, use_here
from hub.server import EXPIRED, READER, WRITER, Hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import AutoModel, AutoTokenizer

PARQUET_CARD = "---\nconfigs:\n- config_name: plain\n  data_files: data/*.csv\n---\n"
DATA = {"README.md": PARQUET_CARD, "data/train.csv": "text,label\ngood,1\nbad,0\n"}


def test_a_model_loads_by_name_and_by_commit(hub_here: Hub, tiny: Callable[..., str]) -> None:
    first = hub_here.add_model("someone/tiny", Path(tiny("bert", layers=2)))
    hub_here.add_model("someone/tiny", Path(tiny("bert", layers=1)), commit="second")
    hub_here.move_main("someone/tiny", "second")
    assert AutoModel.from_pretrained("someone/tiny").config.num_hidden_layers == 1
    assert AutoModel.from_pretrained("someone/tiny", revision=first).config.num_hidden_layers == 2
    assert AutoTokenizer.from_pretrained("someone/tiny")("fine film")["input_ids"]
    assert hub_here.asked("GET /_cdn/models/someone/tiny/.*/model.safetensors")


def test_a_dataset_loads_and_an_old_name_leads_to_it(hub_here: Hub) -> None:
    hub_here.add_dataset("owner/rows", DATA)
    hub_here.rename("rows", "owner/rows")
    assert datasets.load_dataset("owner/rows", "plain", split="train")["text"] == ["good", "bad"]
    assert huggingface_hub.dataset_info("rows").id == "owner/rows"
    assert huggingface_hub.hf_hub_download("rows", "README.md", repo_type="dataset")
    assert hub_here.asked("GET /api/datasets/rows$")


def test_a_snapshot_is_of_the_version_that_main_tags_and_branches_name(hub_here: Hub) -> None:
    second = "1234567890123456789012345678901234567890"
    hub_here.add_model("someone/m", {"a.txt": "one"})
    assert hub_here.add_model("someone/m", {"a.txt": "two"}, commit="second", sha=second) == second
    hub_here.tag("someone/m", "v2", "second")
    hub_here.branch("someone/m", "a/branch", "second")
    snapshots = {
        revision: Path(huggingface_hub.snapshot_download("someone/m", revision=revision))
        for revision in ("main", "v2", "a/branch", second)
    }
    assert {path.name for path in snapshots.values()} == {hub_here.commit("someone/m"), second}
    assert [(path / "a.txt").read_text() for path in snapshots.values()] == ["one", *["two"] * 3]
    refs = huggingface_hub.list_repo_refs("someone/m")
    assert [one.target_commit for one in refs.tags] == [second]
    sizes = huggingface_hub.model_info("someone/m", files_metadata=True).siblings
    assert [one.size for one in sizes] == [3]
    with pytest.raises(RevisionNotFoundError):
        huggingface_hub.model_info("someone/m", revision="v3")
    with pytest.raises(RepositoryNotFoundError):
        huggingface_hub.model_info("someone/other")


def test_gated_private_and_refused(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_model("someone/gated", {"config.json": "{}"}, gated=True)
    hub.add_model("tester/private", {"config.json": "{}"}, private=True)

    def config(name: str, token: str | None) -> str:
        use_here(hub, tmp_path / "cache", monkeypatch, token)
        return huggingface_hub.hf_hub_download(name, "config.json")

    for token in (None, WRITER):
        with pytest.raises(GatedRepoError):
            config("someone/gated", token)
    with pytest.raises(RepositoryNotFoundError):
        config("tester/private", None)
    assert config("tester/private", WRITER)
    for token in (EXPIRED, "hf_unknown"):
        with pytest.raises(HfHubHTTPError, match="Invalid user token"):
            huggingface_hub.whoami(token)
    assert huggingface_hub.whoami(READER)["auth"]["accessToken"]["role"] == "read"


def test_faults_happen_as_often_as_asked(hub_here: Hub) -> None:
    text = "0123456789" * 50
    hub_here.add_model("someone/m", {"a.bin": text, "b.txt": text})
    place = f"{hub_here.url}/_cdn/models/someone/m/{hub_here.commit('someone/m')}/a.bin"
    hub_here.fail("_cdn", status=429, times=1, headers={"Retry-After": "7"})
    assert httpx2.get(place).headers["Retry-After"] == "7"
    assert httpx2.get(place).text == text
    hub_here.flip("_cdn", times=1)
    changed = httpx2.get(place).text
    assert sum(one != other for one, other in zip(text, changed, strict=True)) == 1
    hub_here.drop_after("_cdn", 100, times=1)
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.get(place)
    hub_here.hang_up("_cdn", times=1)
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.get(place)
    hub_here.delay("_cdn", 0.2, times=1)
    start = time.monotonic()
    part = httpx2.get(place, headers={"Range": "bytes=490-"})
    assert part.status_code == 206
    assert part.text == text[490:]
    assert time.monotonic() - start >= 0.2
    hub_here.stop()
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(place)
    hub_here.start()
    assert httpx2.get(place).text == text


def test_a_folder_is_pushed_in_one_commit(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., str]
) -> None:
    use_here(hub, tmp_path / "cache", monkeypatch, WRITER)
    assert huggingface_hub.create_repo("team/mine", private=True).endswith("/team/mine")
    huggingface_hub.upload_folder(repo_id="team/mine", folder_path=tiny("bert", layers=1))
    assert AutoModel.from_pretrained("team/mine").config.num_hidden_layers == 1
    assert hub.repository("team/mine").is_private
    assert len(hub.repository("team/mine").versions) == 2
    with pytest.raises(HfHubHTTPError, match="409"):
        huggingface_hub.create_repo("team/mine")
    with pytest.raises(HfHubHTTPError, match="403"):
        huggingface_hub.create_repo("other/mine")


def test_another_process_uses_it(hub: Hub, tmp_path: Path) -> None:
    hub.add_model("someone/m", {"config.json": "{}"})
    code = "import huggingface_hub as h; print(h.hf_hub_download('someone/m', 'config.json'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=hub.environment(tmp_path / "cache"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(tmp_path / "cache" / "hub"))


def test_a_certificate_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    hub = Hub(make_certificate(tmp_path))
    try:
        with pytest.raises(httpx2.ConnectError, match="(?i)certificate"):
            httpx2.get(hub.url)
        assert httpx2.get(hub.url, verify=False).status_code == 404
    finally:
        hub.stop()
