"""Which layers a student keeps, and models with a new shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import others_slow
from model_families import make_family
from transformers import AutoModelForSequenceClassification, BartConfig

from kdsweep.core.models.layers import keep_layers, kept_layers, layer_count, layer_stack
from kdsweep.core.models.loading import load_classifier, load_tokenizer, save_model
from kdsweep.core.models.student import load_student
from kdsweep.core.settings import StudentSettings
from kdsweep.errors import ModelError

NAMES = ("neg", "pos")
STACK = {
    "bert": "bert.encoder.layer",
    "distilbert": "distilbert.transformer.layer",
    "roberta": "roberta.encoder.layer",
    "mpnet": "mpnet.encoder.layer",
    "electra": "electra.encoder.layer",
}


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


@pytest.mark.parametrize("family", others_slow(list(STACK)))
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


@pytest.mark.parametrize("family", others_slow(list(STACK)))
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
        match="can't tell the layers of a albert model .* apart: .*student.layers, training",
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


@pytest.mark.parametrize(
    "family", others_slow(["bert", "distilbert", "roberta", "electra", "mpnet"])
)
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
            number, _, rest = name.removeprefix(f"{stack}.").partition(".")
            assert torch.equal(weight, theirs[f"{stack}.{(2, 0)[int(number)]}.{rest}"])
    assert small(**{"input_ids": torch.tensor([[2, 7, 3]])}).logits.isfinite().all()


def test_a_layer_that_is_not_there_is_an_error(tiny: Callable[..., str]) -> None:
    with pytest.raises(ModelError, match="has no layer 5; its 2 layers are 0 to 1"):
        load_student(StudentSettings(model=tiny("bert", layers=2), layers=(0, 5)), ("a", "b"), None)


@pytest.mark.parametrize(
    "family", others_slow(["bert", "distilbert", "roberta", "electra", "mpnet"])
)
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
        ModelError, match="a list names layers to keep, but a student from scratch keeps none"
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


def test_layers_that_differ_in_their_weights_keep_their_place(tmp_path: Path) -> None:
    """ModernBERT's first layer has no norm of its own."""
    source = str(make_family("modernbert", tmp_path / "model", num_hidden_layers=4))
    student, _ = load_student(StudentSettings(model=source, layers=(0, 3)), NAMES, None)
    assert student.config.num_hidden_layers == 2
    for layers in ((1, 2), (2, 0)):
        with pytest.raises(ModelError, match="keep the first layer first"):
            load_student(StudentSettings(model=source, layers=layers), NAMES, None)


@pytest.mark.parametrize("family", ["gpt_neo", "deberta-v2", "gpt2", "modernbert", "opt"])
def test_a_student_of_some_layers_is_saved_and_loaded_or_refused(
    family: str, tmp_path: Path
) -> None:
    config = {}
    if family == "gpt_neo":
        config = {"num_layers": 4, "attention_types": [[["global", "local"], 2]]}
    source = str(make_family(family, tmp_path / "model", **config))
    try:
        student, tokenizer = load_student(StudentSettings(model=source, layers=1), NAMES, None)
    except ModelError as error:
        assert family == "gpt_neo" and "can't be saved and loaded again" in str(error)
        return
    save_model(student, tokenizer, tmp_path / "saved")
    again = load_classifier(str(tmp_path / "saved"), NAMES).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in student.state_dict().items())
