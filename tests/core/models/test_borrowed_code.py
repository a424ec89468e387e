"""Code that a model takes from elsewhere is pinned with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
from conftest import copy_model
from hub.server import Hub
from test_serving import OWN_CODE

from kdsweep.core.hub.repository import Repository
from kdsweep.core.hub.snapshots import looking_in, snapshots_only
from kdsweep.core.models.borrowed_code import fetch_borrowed_code
from kdsweep.core.models.describing import model_fingerprint
from kdsweep.core.models.loading import load_classifier
from kdsweep.core.models.model_files import model_files, model_stamps
from kdsweep.core.models.model_snapshot import model_folder
from kdsweep.errors import ModelError

COMMITS = ("1" * 40, "2" * 40)


def borrowing(model: str, folder: Path, other: str) -> str:
    auto_map = {
        "AutoConfig": f"{other}--own.OwnConfig",
        "AutoModelForSequenceClassification": f"{other}--own.OwnClassifier",
    }
    return str(copy_model(model, folder, model_type="own-code", auto_map=auto_map))


def cached_on_the_hub(cache: Path, commit: str) -> None:
    """`some/code` as the Hub's cache has it after a download."""
    repository = cache / "models--some--code"
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "snapshots" / commit / "own.py").write_text(OWN_CODE)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)


def test_code_of_another_folder_is_pinned_by_content(
    tiny: Callable[..., str], tmp_path: Path
) -> None:
    other = tmp_path / "other's folder"
    other.mkdir()
    (other / "own.py").write_text(OWN_CODE)
    source = borrowing(tiny("bert", labels=2), tmp_path / "model", str(other))
    load_classifier(source, ("a", "b"), trust_remote_code=True)
    before = model_files(source, trust_remote_code=True)
    stamps = model_stamps(source, trust_remote_code=True)
    key = model_fingerprint(source, trust_remote_code=True)
    assert f"{other}--own.py" in before
    (other / "own.py").write_text(OWN_CODE + "# changed\n")
    after = model_files(source, trust_remote_code=True)
    assert [name for name in after if after[name] != before[name]] == [f"{other}--own.py"]
    assert model_stamps(source, trust_remote_code=True) != stamps
    assert model_fingerprint(source, trust_remote_code=True) != key
    # Without consent the code isn't run, and isn't looked at.
    assert f"{other}--own.py" not in model_files(source)


def test_code_of_another_repository_is_fetched_and_found_without_asking_again(
    hub_here: Hub, tiny: Callable[..., str], tmp_path: Path
) -> None:
    commit = hub_here.add_model("some/code", {"own.py": OWN_CODE, "notes.txt": "not needed"})
    model = borrowing(tiny("bert", labels=2), tmp_path / "model", "some/code")
    source = f"someone/own@{hub_here.add_model('someone/own', Path(model))}"
    with looking_in(tmp_path / "home"):
        load_classifier(source, ("a", "b"), trust_remote_code=True)
    assert not hub_here.asked("notes")
    hub_here.add_model("some/code", {"own.py": "raise SystemExit"}, commit="second")
    hub_here.move_main("some/code", "second")
    hub_here.stop()
    with snapshots_only(tmp_path / "home"):
        loaded = load_classifier(source, ("a", "b"), trust_remote_code=True)
        assert model_files(source, trust_remote_code=True)["some/code--own.py"] == commit
    assert type(loaded).__name__ == "OwnClassifier"


def test_code_of_another_repository_is_pinned_by_its_commit(
    tiny: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    source = borrowing(tiny("bert", labels=2), tmp_path / "model", "some/code")
    tokenizer = tmp_path / "model" / "tokenizer_config.json"
    found = json.loads(tokenizer.read_text())
    found["auto_map"] = {"AutoTokenizer": [None, "some/code--own.Tokenizer"]}
    tokenizer.write_text(json.dumps(found))
    with pytest.raises(ModelError, match="takes its code from some/code, which isn't there"):
        model_files(source, trust_remote_code=True)
    stamps, keys = [], []
    for commit in COMMITS:
        cached_on_the_hub(tmp_path / "hub", commit)
        assert model_files(source, trust_remote_code=True)["some/code--own.py"] == commit
        stamps.append(model_stamps(source, trust_remote_code=True))
        keys.append(model_fingerprint(source, trust_remote_code=True))
    assert stamps[0] != stamps[1]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("other", ["some/code", "someone/own"])
def test_code_is_brought_before_a_sweep_and_of_the_version_that_it_keeps(
    hub_here: Hub, tiny: Callable[..., str], tmp_path: Path, other: str
) -> None:
    model = borrowing(tiny("bert", labels=2), tmp_path / "model", other)
    (tmp_path / "model" / "own.py").write_text(OWN_CODE)
    own = hub_here.add_model("someone/own", Path(model))
    code = own
    if other == "some/code":
        code = hub_here.add_model("some/code", {"own.py": OWN_CODE})
    hub_here.add_model(other, {"own.py": "raise SystemExit"}, commit="second")
    hub_here.move_main(other, "second")
    source = f"someone/own@{own}"
    repository = Repository("model", other)
    with looking_in(tmp_path / "home"):
        folder = model_folder(source, weights=True, trust_remote_code=True)
        commits = fetch_borrowed_code(source, folder, {repository: code})
    assert commits == ({repository: code} if other == "some/code" else {})
    hub_here.stop()
    with snapshots_only(tmp_path / "home"):
        loaded = load_classifier(source, ("a", "b"), trust_remote_code=True)
    assert type(loaded).__name__ == "OwnClassifier"
