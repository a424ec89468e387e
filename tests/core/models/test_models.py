"""Models whole and in part, and folders that are not what they say."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import WORDS
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BartConfig

from kdsweep.core.data.sources import local_path, package_file
from kdsweep.core.models.describing import model_fingerprint, parameter_count, size_mb
from kdsweep.core.models.inputs import check_fits, check_length, longest_input
from kdsweep.core.models.layers import keep_layers, kept_layers, layer_count, layer_stack
from kdsweep.core.models.loading import load_classifier, load_config, load_tokenizer
from kdsweep.core.models.student import load_student
from kdsweep.core.settings import StudentSettings
from kdsweep.errors import DataError, HubUnreachable, KdsweepError, ModelError

NAMES = ("neg", "pos")
STACK = {
    "bert": "bert.encoder.layer",
    "distilbert": "distilbert.transformer.layer",
    "roberta": "roberta.encoder.layer",
    "mpnet": "mpnet.encoder.layer",
    "electra": "electra.encoder.layer",
}


def copy_of(source: str, folder: Path, **config: Any) -> Path:
    shutil.copytree(source, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


# --- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("available", "kept", "layers"),
    [
        (12, 3, [0, 6, 11]),
        (12, 6, [0, 2, 4, 7, 9, 11]),
        (12, 4, [0, 4, 7, 11]),
        (12, 2, [0, 11]),
        (12, 1, [0]),
        (6, 3, [0, 2, 5]),
        (4, 4, [0, 1, 2, 3]),
        (1, 1, [0]),
    ],
)
def test_kept_layers_are_evenly_spaced_from_the_first_to_the_last(
    available: int, kept: int, layers: list[int]
) -> None:
    assert kept_layers(available, kept, "x") == layers


def test_no_layer_is_ever_kept_twice() -> None:
    for available in range(1, 40):
        for kept in range(1, available + 1):
            layers = kept_layers(available, kept, "x")
            assert (
                len(set(layers)) == kept
                and layers == sorted(layers)
                and layers[0] == 0
                and max(layers) < available
            )


@pytest.mark.parametrize("family", STACK)
def test_a_student_of_some_layers_has_their_weights_and_everything_else(
    family: str, tiny: Callable[..., str]
) -> None:
    source = tiny(family, layers=4)
    torch.manual_seed(3)
    whole = load_classifier(source, NAMES).state_dict()
    torch.manual_seed(3)  # the new head is drawn in the same way
    student, tokenizer = load_student(StudentSettings(model=source, layers=3), NAMES, None)
    kept = [0, 2, 3]  # 0, 1.5 and 3: halves go to the even number
    assert kept_layers(4, 3, source) == kept
    stack, names = STACK[family], set()
    for name, tensor in student.state_dict().items():
        old = name
        if name.startswith(f"{stack}."):
            number = int(name.removeprefix(f"{stack}.").split(".")[0])
            old = name.replace(f"{stack}.{number}.", f"{stack}.{kept[number]}.", 1)
        assert torch.equal(tensor, whole[old]), name
        names.add(old)
    assert {name for name in whole if not name.startswith(f"{stack}.1.")} == names
    assert any("word_embeddings" in name for name in names)
    assert student.config.num_hidden_layers == 3 and student.training
    student.eval()
    with torch.no_grad():
        logits = student(
            **tokenizer(
                ["the film was fine", "a dull plot"],
                padding=True,
                return_tensors="pt",
                return_token_type_ids=False,
            )
        ).logits
    assert logits.shape == (2, 2) and logits.isfinite().all()


@pytest.mark.parametrize("family", STACK)
def test_a_student_of_some_layers_is_saved_and_loaded_whole(
    family: str, tiny: Callable[..., str], tmp_path: Path
) -> None:
    student, tokenizer = load_student(
        StudentSettings(model=tiny(family, layers=4), layers=2), NAMES, None
    )
    student.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    inputs = tokenizer("the film was fine", return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        assert torch.allclose(again(**inputs).logits, student.eval()(**inputs).logits, atol=1e-6)
    assert again.config.id2label == {0: "neg", 1: "pos"}


def test_keeping_all_layers_changes_no_logit(tiny: Callable[..., str]) -> None:
    model = load_classifier(tiny("bert"), NAMES)
    inputs = load_tokenizer(tiny("bert"))("the film was fine", return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(
            keep_layers(model, [0, 1], "x").eval()(**inputs).logits, model.eval()(**inputs).logits
        )


def test_albert_which_shares_one_layer_is_refused_in_part_and_taken_whole(
    tiny: Callable[..., str],
) -> None:
    with pytest.raises(
        ModelError,
        match="model: kdsweep can't tell the layers of a albert model .* apart: .*student.layers, training.layer_decay",
    ):
        load_student(StudentSettings(model=tiny("albert"), layers=1), NAMES, None)
    assert load_student(StudentSettings(model=tiny("albert")), NAMES, None)


def test_bart_which_has_two_stacks_of_layers_is_refused() -> None:
    sizes = {
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    config = BartConfig(
        vocab_size=20,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        bos_token_id=0,
        eos_token_id=2,
        forced_eos_token_id=2,
        **sizes,
    )
    with pytest.raises(ModelError, match="can't tell the layers of a bart model"):
        layer_count(AutoModelForSequenceClassification.from_config(config), "x")


def test_more_layers_than_there_are_is_an_error(tiny: Callable[..., str]) -> None:
    with pytest.raises(ModelError, match="student.layers: 3 layers can't be kept of the 2 that"):
        load_student(StudentSettings(model=tiny("bert"), layers=3), NAMES, None)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "electra", "mpnet"])
def test_a_student_of_named_layers_has_just_these_in_this_order(
    family: str, tiny: Callable[..., str]
) -> None:
    source = tiny(family, layers=3)
    whole = load_classifier(source, ("a", "b"))
    stack, _ = layer_stack(whole, source)
    small, _ = load_student(StudentSettings(model=source, layers=(2, 0)), ("a", "b"), None)
    assert small.config.num_hidden_layers == 2
    mine, theirs = small.state_dict(), whole.state_dict()
    for name, weight in mine.items():
        if name.startswith(f"{stack}."):
            place, _, rest = name.removeprefix(f"{stack}.").partition(".")
            assert torch.equal(weight, theirs[f"{stack}.{(2, 0)[int(place)]}.{rest}"])
    assert small(**{"input_ids": torch.tensor([[2, 7, 3]])}).logits.isfinite().all()


def test_a_layer_that_is_not_there_is_an_error(tiny: Callable[..., str]) -> None:
    with pytest.raises(ModelError, match="has no layer 5; its 2 layers are 0 to 1"):
        load_student(StudentSettings(model=tiny("bert", layers=2), layers=(0, 5)), ("a", "b"), None)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "electra", "mpnet"])
def test_a_student_from_scratch_has_the_shape_that_was_asked_for_and_no_weight_of_the_model(
    family: str, tiny: Callable[..., str]
) -> None:
    source = tiny(family, layers=2)
    torch.manual_seed(0)
    wide, _ = load_student(
        StudentSettings(model=source, start="scratch", layers=3, width=48), ("a", "b", "c"), None
    )
    assert (wide.config.num_hidden_layers, wide.config.hidden_size, wide.config.num_labels) == (
        3,
        48,
        3,
    )
    whole = load_classifier(source, ("a", "b", "c"))
    assert (
        wide.config.hidden_size // wide.config.num_attention_heads
        == whole.config.hidden_size // whole.config.num_attention_heads
    )
    assert wide(**{"input_ids": torch.tensor([[2, 7, 3]])}).logits.shape == (1, 3)
    same, _ = load_student(StudentSettings(model=source, start="scratch"), ("a", "b", "c"), None)
    theirs = whole.state_dict()
    assert same.state_dict().keys() == theirs.keys()
    assert not any(
        torch.equal(weight, theirs[name])
        for name, weight in same.state_dict().items()
        if weight.ndim == 2 and "position_ids" not in name
    )
    torch.manual_seed(0)
    again, _ = load_student(
        StudentSettings(model=source, start="scratch", layers=3, width=48), ("a", "b", "c"), None
    )
    assert all(
        torch.equal(a, b) for a, b in zip(wide.parameters(), again.parameters(), strict=True)
    )


def test_shapes_that_can_not_be_are_refused(tiny: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="width needs 'start: scratch'"):
        StudentSettings(model="a", width=48)
    with pytest.raises(
        ModelError, match="a list names layers to keep, and from scratch none are kept"
    ):
        load_student(
            StudentSettings(model=tiny("bert"), start="scratch", layers=(0, 1)), ("a", "b"), None
        )
    assert StudentSettings(model="a", layers=(0, 2)).shape == ", layers 0 2"
    assert (
        StudentSettings(model="a", start="scratch", layers=3, width=48).shape
        == ", 3 layers, width 48, from scratch"
    )


def test_a_student_of_the_teacher_needs_one() -> None:
    with pytest.raises(ModelError, match="'teacher' needs a teacher"):
        load_student(StudentSettings(model="teacher"), NAMES, None)


# --- inputs ----------------------------------------------------------------------------------------------------------


def test_a_tokenizer_that_knows_more_than_the_model_is_refused(
    tiny: Callable[..., str], tmp_path: Path
) -> None:
    small = tiny("bert")
    folder = copy_of(small, tmp_path / "mixed")
    AutoTokenizer.from_pretrained(tiny("bert", words=[*WORDS, "more", "words"])).save_pretrained(
        folder
    )
    with pytest.raises(
        ModelError,
        match=f"knows {len(WORDS) + 2} tokens, the model only {len(WORDS)}: they don't belong together",
    ):
        load_student(StudentSettings(model=str(folder)), NAMES, None)
    check_fits(load_classifier(small, NAMES), load_tokenizer(small), small)


@pytest.mark.parametrize(
    ("family", "longest"),
    [("bert", 66), ("distilbert", 66), ("electra", 66), ("roberta", 65), ("mpnet", 64)],
)
def test_rows_longer_than_the_models_positions_are_refused(
    family: str, longest: int, tiny: Callable[..., str]
) -> None:
    """66 position embeddings; RoBERTa counts from the padding's number (here 0) on, MPNet always from 1 on: that takes 1 and 2 away."""
    source = tiny(family)
    model, tokenizer = load_classifier(source, NAMES).eval(), load_tokenizer(source)
    tokenizer.model_max_length = 10**30
    assert longest_input(model, tokenizer) == longest
    check_length(model, tokenizer, longest, source)
    with pytest.raises(
        ModelError,
        match=f"training.max_length: {longest + 1} tokens are more than the {longest} that",
    ):
        check_length(model, tokenizer, longest + 1, source)
    with torch.no_grad():
        model(input_ids=torch.full((1, longest), 6))
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, longest + 1), 6))


def test_the_tokenizers_own_limit_counts_too(tiny: Callable[..., str]) -> None:
    assert longest_input(load_classifier(tiny("bert"), NAMES), load_tokenizer(tiny("bert"))) == 64


# --- folders that are not what they say ------------------------------------------------------------------------------


def test_weights_in_a_pickle_are_not_loaded(tiny: Callable[..., str], tmp_path: Path) -> None:
    folder = copy_of(tiny("bert"), tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="can't be loaded: .*model.safetensors"):
        load_classifier(str(folder), NAMES)


def test_a_folder_without_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a model folder: it has no config.json"):
        load_classifier(str(tmp_path), NAMES)
    with pytest.raises(ModelError, match="there is no folder"):
        load_config(str(tmp_path / "nothing"))


def test_a_name_of_the_hub_says_that_the_hub_is_out_of_reach() -> None:
    with pytest.raises(
        KdsweepError, match="'nobody/nothing' is not in the local Hub cache"
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
        load_classifier(str(copy_of(tiny("bert"), tmp_path / "other", **config)), NAMES)


def test_weights_of_another_family_are_refused(tiny: Callable[..., str], tmp_path: Path) -> None:
    folder = copy_of(tiny("distilbert"), tmp_path / "mixed")
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
    folder = copy_of(tiny("bert"), tmp_path / "broken folder")
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match="can't be loaded") as caught:
        load_student(StudentSettings(model=str(folder)), NAMES, None)
    assert "\n" not in str(caught.value)


def test_a_folder_without_tokenizer_is_refused(tiny: Callable[..., str], tmp_path: Path) -> None:
    folder = copy_of(tiny("bert"), tmp_path / "wordless")
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        load_tokenizer(str(folder))


def test_a_head_of_the_same_size_is_kept_and_another_is_new(tiny: Callable[..., str]) -> None:
    source = tiny("bert", labels=2)
    stored = load_file(Path(source) / "model.safetensors")
    assert torch.equal(
        load_classifier(source, NAMES).classifier.weight, stored["classifier.weight"]
    )
    assert load_classifier(source, ("a", "b", "c")).classifier.weight.shape == (3, 32)


# --- packages --------------------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that must be found, never imported; beside it something that is not part of it."""
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


# --- facts -----------------------------------------------------------------------------------------------------------


def test_parameters_and_size_are_counted() -> None:
    model = torch.nn.Linear(10, 5)
    assert parameter_count(model) == 55
    assert size_mb(model) == pytest.approx(55 * 4 / 1e6)
    assert size_mb(model.half()) == pytest.approx(55 * 2 / 1e6)


def test_a_fingerprint_follows_the_content_not_the_place(
    tiny: Callable[..., str], tmp_path: Path
) -> None:
    here, there = tiny("bert"), copy_of(tiny("bert"), tmp_path / "there")
    (there / "config.json").write_bytes((Path(here) / "config.json").read_bytes())
    assert model_fingerprint(str(there)) == model_fingerprint(here)
    (there / "notes.md").write_text("no part of the model")
    assert model_fingerprint(str(there)) == model_fingerprint(here)
    weights = bytearray((there / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (there / "model.safetensors").write_bytes(weights)
    assert model_fingerprint(str(there)) != model_fingerprint(here)
