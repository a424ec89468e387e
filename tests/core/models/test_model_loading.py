"""Models from folders and packages, and folders that are not what they say."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import copy_model
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from kdsweep.core.data.sources import local_path, package_file
from kdsweep.core.models.loading import (
    load_classifier,
    load_config,
    load_tokenizer,
    load_weights,
)
from kdsweep.core.models.student import load_student
from kdsweep.core.models.weights import LoadedWeights
from kdsweep.core.settings import StudentSettings
from kdsweep.errors import DataError, HubUnreachable, KdsweepError, ModelError

NAMES = ("neg", "pos")


def test_weights_in_a_pickle_are_not_loaded(tiny: Callable[..., str], tmp_path: Path) -> None:
    folder = copy_model(tiny("bert"), tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="can't be loaded: .*model.safetensors"):
        load_classifier(str(folder), NAMES)


def test_a_folder_without_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a model folder: it has no config.json"):
        load_classifier(str(tmp_path), NAMES)
    with pytest.raises(ModelError, match="there is no folder"):
        load_config(str(tmp_path / "nothing"))


def test_a_name_of_the_hub_says_that_the_hub_is_out_of_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        KdsweepError, match="'nobody/nothing' is not complete on this machine, and the Hub"
    ) as caught:
        load_config("nobody/nothing")
    assert isinstance(caught.value, HubUnreachable)


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 4},
        {"vocab_size": 100},
        {"intermediate_size": 128},
        {"hidden_size": 64},
    ],
    ids=str,
)
def test_a_body_that_would_start_from_random_numbers_is_refused(
    config: dict, tiny: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="holds other weights than its config says"):
        load_classifier(str(copy_model(tiny("bert"), tmp_path / "other", **config)), NAMES)


def test_weights_of_another_family_are_refused(tiny: Callable[..., str], tmp_path: Path) -> None:
    folder = copy_model(tiny("distilbert"), tmp_path / "mixed")
    shutil.copy(Path(tiny("bert")) / "model.safetensors", folder)
    with pytest.raises(ModelError, match="holds other weights than its config says"):
        load_classifier(str(folder), NAMES)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"x" * 100),
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b'{"model_type": "zzz"}'),
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b'{"a": 1}'),
    ],
)
def test_a_broken_file_in_the_folder_is_one_line(
    name: str, content: bytes, tiny: Callable[..., str], tmp_path: Path
) -> None:
    folder = copy_model(tiny("bert"), tmp_path / "broken folder")
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match="can't be loaded") as caught:
        load_student(StudentSettings(model=str(folder)), NAMES, None)
    assert "\n" not in str(caught.value)


def test_a_folder_without_tokenizer_is_refused(tiny: Callable[..., str], tmp_path: Path) -> None:
    folder = copy_model(tiny("bert"), tmp_path / "wordless")
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        load_tokenizer(str(folder))


def without(source: str, folder: Path, *prefixes: str) -> str:
    """A copy of a model without the weights whose names start so."""
    copy_model(source, folder)
    file = folder / "model.safetensors"
    left = {name: one for name, one in load_file(file).items() if not name.startswith(prefixes)}
    save_file(left, file, {"format": "pt"})
    return str(folder)


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ("embeddings.word", r"bert.embeddings.word_embeddings.weight \([\d.]+% of the parameters"),
        ("encoder.layer.1", r"bert.encoder.layer.1.\*"),
        ("encoder.layer.1.output.dense.bias", "bert.encoder.layer.1.output.dense.bias"),
    ],
)
def test_weights_that_are_missing_from_the_body_are_named(
    gone: str, named: str, tiny: Callable[..., str], tmp_path: Path
) -> None:
    folder = without(tiny("bert"), tmp_path / "less", gone)
    with pytest.raises(ModelError, match=f"its weights lack {named}.* start from random numbers"):
        load_classifier(folder, NAMES)


def test_a_pretrained_model_may_lack_its_pooler(tiny: Callable[..., str], tmp_path: Path) -> None:
    _, weights = load_weights(without(tiny("bert"), tmp_path / "less", "pooler"), NAMES)
    assert weights == LoadedWeights(new=("bert.pooler.*", "classifier.*"))


@pytest.mark.parametrize("gone", ["classifier", "bert.pooler"])
def test_a_fine_tuned_model_lacks_nothing(
    gone: str, tiny: Callable[..., str], tmp_path: Path
) -> None:
    source = tiny("bert", labels=2)
    assert load_weights(source, NAMES, is_complete=True)[1] == LoadedWeights()
    folder = without(source, tmp_path / "less", gone)
    with pytest.raises(
        ModelError, match=f"head of a fine-tuned model, but its weights lack {gone}"
    ):
        load_classifier(folder, NAMES)
    with pytest.raises(ModelError, match="weights lack classifier"):
        load_weights(tiny("bert"), NAMES, is_complete=True)
    with pytest.raises(ModelError, match="classifier.bias, classifier.weight have another shape"):
        load_weights(source, ("a", "b", "c"), is_complete=True)


def test_weights_that_are_not_used_are_listed(tiny: Callable[..., str], tmp_path: Path) -> None:
    folder = copy_model(tiny("bert", labels=2), tmp_path / "renamed")
    file = folder / "model.safetensors"
    renamed = {name.replace("classifier", "cls_head"): one for name, one in load_file(file).items()}
    save_file(renamed, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"also hold cls_head.bias, cls_head.weight\)"):
        load_classifier(str(folder), NAMES)
    copy_model(str(folder), tmp_path / "base", architectures=["BertModel"])
    _, weights = load_weights(str(tmp_path / "base"), NAMES)
    assert weights == LoadedWeights(("classifier.*",), ("cls_head.bias", "cls_head.weight"))


def test_a_head_of_the_same_size_is_kept_and_another_is_new(tiny: Callable[..., str]) -> None:
    source = tiny("bert", labels=2)
    stored = load_file(Path(source) / "model.safetensors")
    assert torch.equal(
        load_classifier(source, NAMES).classifier.weight, stored["classifier.weight"]
    )
    assert load_classifier(source, ("a", "b", "c")).classifier.weight.shape == (3, 32)


@pytest.fixture
def package(tmp_path: Path, tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that must be found, never imported; next to it something that is not part of it."""
    folder = tmp_path / "site" / "tiny_model_package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    shutil.copytree(tiny("bert"), folder / "model")
    (tmp_path / "site" / "secret.csv").write_text("x")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return "tiny_model_package"


def test_a_model_inside_a_package_is_loaded_without_importing_it(package: str) -> None:
    student, _ = load_student(
        StudentSettings(model=f"package://{package}/model", layers=1), NAMES, None
    )
    assert student.config.num_hidden_layers == 1
    assert package not in sys.modules


@pytest.mark.parametrize(
    "inside",
    ["../secret.csv", "model/../../secret.csv", "/etc/passwd", "../tiny_model_package_2/x"],
)
def test_no_path_leads_out_of_the_package(package: str, inside: str) -> None:
    with pytest.raises(DataError, match="leads out of the package"):
        local_path(f"package://{package}/{inside}", DataError)


@pytest.mark.parametrize("name", ["no_such_package_at_all", "not-a-name", "", "json", "os.path"])
def test_a_package_that_is_not_installed_says_what_to_install(name: str) -> None:
    # `json` is a package whose files exist, but not this one.
    with pytest.raises(ModelError, match=r"no Python package|has no 'model'"):
        package_file(f"package://{name}/model", ModelError)


def test_a_file_that_the_package_does_not_have_is_named(package: str) -> None:
    with pytest.raises(ModelError, match="the package 'tiny_model_package' has no 'modle'"):
        load_config(f"package://{package}/modle")


def test_weights_that_need_scales_are_refused(tiny: Callable[..., str], tmp_path: Path) -> None:
    """transformers would read the integers as they are."""
    folder = copy_model(tiny("bert"), tmp_path / "int8")
    file = folder / "model.safetensors"
    weights = load_file(file)
    name = "encoder.layer.0.attention.self.query.weight"
    save_file(weights | {name: weights[name].to(torch.int8)}, file, {"format": "pt"})
    with pytest.raises(ModelError, match=f"holds {name} as I8: its weights are quantized"):
        load_classifier(str(folder), NAMES)
    save_file({name: one.half() for name, one in weights.items()}, file, {"format": "pt"})
    assert load_classifier(str(folder), NAMES).dtype == torch.float32
