"""Models of the Hub are read from snapshots: which files, which version, nothing asked twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hub.server import Hub
from safetensors.torch import load_file, save_file

from kdsweep.core.hub.snapshots import looking_in, snapshots_only
from kdsweep.core.models.loading import load_classifier, load_tokenizer
from kdsweep.core.models.model_files import model_files
from kdsweep.core.models.model_snapshot import model_folder, weights_are_here
from kdsweep.errors import HubUnreachable, ModelError

NAMES = ("negative", "positive")
NAME = "someone/tiny"


@pytest.fixture
def model(hub_here: Hub, tiny: Callable[..., str]) -> Hub:
    hub_here.add_model(NAME, Path(tiny("bert", layers=2)))
    return hub_here


def test_the_weights_come_only_when_they_are_needed(model: Hub) -> None:
    assert len(load_tokenizer(NAME)) > 10
    assert not weights_are_here(NAME)
    assert not model.asked("model.safetensors")
    assert load_classifier(NAME, NAMES).config.num_hidden_layers == 2
    assert weights_are_here(NAME)


def test_nothing_is_asked_for_what_is_here(model: Hub, tmp_path: Path) -> None:
    source = f"{NAME}@{model.commit(NAME)}"
    with looking_in(tmp_path / "home"):
        model_folder(source, weights=True)
    assert (tmp_path / "home" / "models--someone--tiny").is_dir()
    assert not (tmp_path / "huggingface" / "hub").exists()
    model.stop()
    with snapshots_only(tmp_path / "home"):
        assert load_classifier(source, NAMES).config.num_hidden_layers == 2
        assert model_files(source) == {"commit": model.commit(NAME)}


def test_what_the_users_own_cache_has_is_not_fetched_again(model: Hub, tmp_path: Path) -> None:
    own = model_folder(NAME, weights=True)
    assert own.is_relative_to(tmp_path / "huggingface" / "hub")
    before = len(model.asked("model.safetensors"))
    with looking_in(tmp_path / "home"):
        assert model_folder(NAME, weights=True) == own
    assert len(model.asked("model.safetensors")) == before


def test_workers_of_other_machines_get_what_the_users_own_cache_has(
    model: Hub, tmp_path: Path
) -> None:
    own = model_folder(NAME, weights=True)
    with looking_in(tmp_path / "home", shared=True):
        shared = model_folder(NAME, weights=True)
    assert shared.is_relative_to(tmp_path / "home")
    assert len(model.asked("GET .*model.safetensors")) == 1
    shutil.rmtree(own)
    model.stop()
    with snapshots_only(tmp_path / "home"):
        assert load_classifier(NAME, NAMES).config.num_hidden_layers == 2
        assert len(load_tokenizer(NAME)) > 10


def test_each_revision_is_a_model_of_its_own(model: Hub, tiny: Callable[..., str]) -> None:
    model.add_model(NAME, Path(tiny("bert", layers=1)), commit="second")
    model.tag(NAME, "v2", "second")
    assert load_classifier(f"{NAME}@v2", NAMES).config.num_hidden_layers == 1
    assert load_classifier(NAME, NAMES).config.num_hidden_layers == 2
    model.move_main(NAME, "second")
    first = f"{NAME}@{model.commit(NAME, 'first')}"
    assert load_classifier(first, NAMES).config.num_hidden_layers == 2


def test_shards_are_fetched_by_their_index(
    hub_here: Hub, tiny: Callable[..., str], tmp_path: Path
) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(tiny("bert", layers=2), folder)
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, own in parts.items():
        tensors = {name: weights[name] for name in own}
        save_file(tensors, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {name: one for one in parts for name in parts[one]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    hub_here.add_model(NAME, folder)
    hub_here.fail("model-2-of-2", 503, times=1)
    assert load_classifier(NAME, NAMES).config.num_hidden_layers == 2


def test_pickled_weights_are_refused_before_anything_is_fetched(hub_here: Hub) -> None:
    hub_here.add_model(NAME, {"config.json": "{}", "pytorch_model.bin": b"pickle"})
    with pytest.raises(ModelError, match=r"has its weights in pytorch_model.bin alone") as caught:
        model_folder(NAME, weights=False)
    assert "convert this one" in str(caught.value)
    # No conversion service is asked, and no pull request's weights are looked for.
    assert not hub_here.asked("discussions|refs|bin$")


def test_a_repository_without_a_model_is_told(hub_here: Hub) -> None:
    hub_here.add_model("someone/empty", {"README.md": "# nothing"})
    with pytest.raises(ModelError, match=r"it has no config\.json"):
        model_folder("someone/empty", weights=False)
    hub_here.add_model("someone/weightless", {"config.json": "{}"})
    with pytest.raises(ModelError, match="has no weights"):
        model_folder("someone/weightless", weights=False)


def test_a_snapshot_with_a_part_missing_is_not_taken_for_the_whole(
    model: Hub, tmp_path: Path
) -> None:
    with looking_in(tmp_path / "home"):
        folder = model_folder(NAME, weights=True)
    (folder / "tokenizer.json").unlink()
    model.stop()
    with snapshots_only(tmp_path / "home"), pytest.raises(HubUnreachable, match="tokenizer.json"):
        model_folder(NAME, weights=True)
