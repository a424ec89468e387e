"""Terms of inner states: the formulas by hand, and gradients that never reach the teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_model, sentences, write_csv
from fine_tuned_teacher import QUICK_TRAINING
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification

from kdsweep.core import TrialSettings, train
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.core.distill_settings import DistillSettings
from kdsweep.core.models.inputs import reads_token_types
from kdsweep.core.models.loading import load_classifier, load_tokenizer
from kdsweep.core.objective.inner_states import (
    Matching,
    attention_loss,
    check_match,
    check_same_tokens,
    cosine_loss,
    hidden_loss,
    layer_pairs,
    relation_heads,
    value_relation_loss,
)
from kdsweep.core.settings import TaskSettings
from kdsweep.core.trial_folder import TrialFolder
from kdsweep.errors import Interrupted, ModelError

REAL = torch.tensor([[True, True, False]])


def test_hidden_states_by_hand() -> None:
    # Squared differences of the two real tokens: 1, 4 and 0, 9. Padding doesn't count: 14 / 4.
    student = torch.tensor([[[1.0, 2.0], [0.0, 3.0], [10.0, 10.0]]])
    teacher = torch.zeros(1, 3, 2)
    assert hidden_loss(student, teacher, REAL).item() == pytest.approx(14 / 4)


def test_attention_maps_by_hand() -> None:
    # Real pairs of the one head: (.5 - .7)^2, (.5 - .3)^2, (.2 - .2)^2, (.8 - .8)^2; their mean.
    student = torch.zeros(1, 1, 3, 3)
    teacher = torch.zeros(1, 1, 3, 3)
    student[0, 0, :2, :2] = torch.tensor([[0.5, 0.5], [0.2, 0.8]])
    teacher[0, 0, :2, :2] = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
    student[0, 0, 2] = 9.0
    teacher[0, 0, :2, 2] = 9.0
    assert attention_loss(student, teacher, REAL).item() == pytest.approx((0.04 + 0.04) / 4)


def test_cosine_by_hand() -> None:
    # The first token is turned by 90 degrees, the second only longer: (1 - 0 + 1 - 1) / 2.
    student = torch.tensor([[[1.0, 0.0], [2.0, 2.0], [5.0, 1.0]]])
    teacher = torch.tensor([[[0.0, 3.0], [1.0, 1.0], [-5.0, -1.0]]])
    assert cosine_loss(student, teacher, REAL).item() == pytest.approx(0.5)


def test_value_relations_by_hand() -> None:
    # One head of width 1. The teacher's values 1, 0 have the scores [1, 0] and [0, 0]; the
    # student's values 0, 0 have the score 0 everywhere.
    student = torch.tensor([[[0.0], [0.0], [7.0]]])
    teacher = torch.tensor([[[1.0], [0.0], [-7.0]]])
    p = math.e / (math.e + 1)
    first = p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
    assert value_relation_loss(student, teacher, REAL, 1).item() == pytest.approx(
        first / 2, abs=1e-6
    )
    # Two heads of width 1 and one of width 2 scale the scores by 1 and by the root of 2.
    wide = torch.tensor([[[1.0, 1.0], [0.0, 0.0], [3.0, 3.0]]])
    q = math.exp(2 / math.sqrt(2)) / (math.exp(2 / math.sqrt(2)) + 1)
    second = q * math.log(q / 0.5) + (1 - q) * math.log((1 - q) / 0.5)
    nothing = torch.zeros_like(wide)
    assert value_relation_loss(nothing, wide, REAL, 2).item() == pytest.approx(first / 2, abs=1e-6)
    assert value_relation_loss(nothing, wide, REAL, 1).item() == pytest.approx(second / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("layers", "mine", "theirs", "pairs"),
    [
        ("even", 3, 6, [(0, 1), (1, 3), (2, 5)]),
        ("even", 4, 12, [(0, 2), (1, 5), (2, 8), (3, 11)]),
        ("even", 2, 2, [(0, 0), (1, 1)]),
        ("first", 2, 6, [(0, 0), (1, 1)]),
        ("last", 2, 6, [(0, 4), (1, 5)]),
        ((5, 0), 2, 6, [(0, 5), (1, 0)]),
    ],
)
def test_layers_are_paired_as_the_setting_says(
    layers: Any, mine: int, theirs: int, pairs: list[tuple[int, int]], tiny: Callable[..., str]
) -> None:
    student, teacher = (load_classifier(tiny("bert", layers=2), ("a", "b")) for _ in range(2))
    student.config.num_hidden_layers, teacher.config.num_hidden_layers = mine, theirs
    assert layer_pairs(layers, student, teacher, "hidden") == pairs


# --- with models ---

EVERYTHING = {"hidden": {"weight": 1.0}, "attention": {"weight": 1.0}, "cosine": {"weight": 1.0}}
VALUES = {"attention": {"weight": 1.0, "match": "values"}}


@pytest.fixture(scope="module")
def make(plain_trial: dict[str, Any]) -> Callable[..., TrialSettings]:
    def build(**changes: Any) -> TrialSettings:
        return TrialSettings.model_validate(
            plain_trial | {"student": {"model": "teacher", "layers": 1}} | changes
        )

    return build


def matched(
    distill: dict[str, Any],
    student: str,
    teacher: str,
    make: Callable[..., TrialSettings],
    cache: Path,
) -> tuple[Matching, dict[str, torch.Tensor]]:
    models = [load_classifier(source, ("neg", "pos")) for source in (student, teacher)]
    models[1].requires_grad_(False).eval()
    models[0].eval()
    tokens = tokenize_split(
        load_task(make().task).train,
        load_tokenizer(teacher),
        InputFormat(24, token_types=reads_token_types(models[1])),
        cache=cache,
    )
    matching = Matching(DistillSettings.model_validate(distill), models[0], models[1], tokens)
    inputs = {name: torch.from_numpy(array) for name, array in tokens.batch(np.arange(6)).items()}
    if not reads_token_types(models[0]):
        inputs.pop("token_type_ids", None)
    return matching, matching.losses(inputs, np.arange(6), torch.float32)[1]


@pytest.mark.parametrize(
    ("student", "teacher"), [("bert", "bert"), ("distilbert", "bert"), ("bert", "electra")]
)
@pytest.mark.parametrize("distill", [EVERYTHING, VALUES], ids=["states", "values"])
def test_a_teacher_gets_no_gradient_and_a_term_reaches_what_it_reads(
    student: str,
    teacher: str,
    distill: dict[str, Any],
    tiny: Callable[..., str],
    make: Callable[..., TrialSettings],
    cache: Path,
) -> None:
    matching, terms = matched(
        distill, tiny(student, layers=1), tiny(teacher, layers=2), make, cache
    )
    assert terms.keys() == distill.keys()
    assert all(term.item() > 0 for term in terms.values())
    for name, term in terms.items():
        matching.student.zero_grad()
        term.backward(retain_graph=True)
        moved = {
            parameter: weight.grad is not None and bool(weight.grad.abs().sum() > 0)
            for parameter, weight in matching.student.named_parameters()
        }
        assert any(
            reached for parameter, reached in moved.items() if "word_embeddings" in parameter
        ), name
        assert not any(
            reached for parameter, reached in moved.items() if "classifier" in parameter
        ), name
        assert all(weight.grad is None for weight in matching.teacher.parameters())
    if "hidden" in terms:
        assert matching.projection.weight.grad is not None  # type: ignore[union-attr]


@pytest.mark.parametrize("distill", [EVERYTHING, VALUES], ids=["states", "values"])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(
    distill: dict[str, Any],
    tiny: Callable[..., str],
    make: Callable[..., TrialSettings],
    cache: Path,
) -> None:
    same = tiny("bert", layers=2)
    _, terms = matched(distill, same, same, make, cache)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        dict.fromkeys(distill, 0.0), abs=1e-6
    )


@pytest.mark.parametrize("distill", [EVERYTHING, VALUES], ids=["states", "values"])
def test_terms_of_micro_batches_add_up_to_those_of_their_batch(
    distill: dict[str, Any],
    tiny: Callable[..., str],
    make: Callable[..., TrialSettings],
    cache: Path,
    tmp_path: Path,
) -> None:
    """Rows of 1 and of 20 words: means over tokens don't weigh as many as means over rows."""
    words = [["fine"], ["a", "slow", "film"] * 7]
    rows = [(" ".join(words[i % 4 == 0]) + f" {i}", ("neg", "pos")[i % 2]) for i in range(60)]
    task = {"dataset": str(write_csv(tmp_path / "rows.csv", rows)), "text": "text"}
    models = [load_classifier(tiny("bert", layers=n), ("neg", "pos")).eval() for n in (1, 2)]
    models[1].requires_grad_(False)
    tokenizer = load_tokenizer(tiny("bert", layers=2))
    data = load_task(TaskSettings.model_validate(task | {"label": "label"}))
    tokens = tokenize_split(data.train, tokenizer, InputFormat(24, token_types=True), cache=cache)
    assert tokens.lengths.max() > 4 * tokens.lengths.min()
    matching = Matching(DistillSettings.model_validate(distill), *models, tokens)
    batch = np.arange(16)

    def terms(rows: np.ndarray) -> dict[str, float]:
        inputs = {name: torch.from_numpy(array) for name, array in tokens.batch(rows).items()}
        found = matching.losses(inputs, rows, torch.float32)[1]
        shares = matching.shares(rows, batch)
        return {name: term.item() * shares[name] for name, term in found.items()}

    whole = terms(batch)
    assert matching.shares(batch, batch) == dict.fromkeys(distill, 1.0)
    for parts in (2, 3, 8):
        each = [terms(rows) for rows in np.array_split(batch, parts)]
        together = {name: sum(one[name] for one in each) for name in distill}
        assert together == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("distill", [EVERYTHING, VALUES], ids=["states", "values"])
def test_accumulation_changes_nothing_with_rows_of_very_different_length(
    distill: dict[str, Any],
    make: Callable[..., TrialSettings],
    without_dropout: str,
    cache: Path,
    tmp_path: Path,
) -> None:
    # Every third text is two words, the others are four sentences.
    rows = [
        (" ".join(text.split()[-2:]) if i % 3 == 0 else " ".join([text] * 4), label)
        for i, (text, label) in enumerate(sentences(160))
    ]
    data = {"dataset": str(write_csv(tmp_path / "rows.csv", rows)), "text": "text"}
    found = []
    for steps in (1, 2, 8):
        training = {"epochs": 1, "batch_size": 16, "max_length": 40, "evaluations_per_epoch": 2}
        trial = make(
            task={"label": "label", "holdout": 0.2} | data,
            teacher={"model": without_dropout, "training": QUICK_TRAINING | {"max_length": 40}},
            student={"model": without_dropout, "layers": 1},
            training=training | {"accumulation_steps": steps},
            alpha=1.0,
            distill=distill,
        )
        found.append([one.metrics for one in train(trial, tmp_path / str(steps), cache=cache)])
    for other in found[1:]:
        for expected, got in zip(found[0], other, strict=True):
            losses = {name: value for name, value in expected.items() if name.startswith("train/")}
            assert {name: got[name] for name in losses} == pytest.approx(losses, rel=1e-3, abs=1e-5)


def test_models_that_can_not_be_compared_are_one_clear_error(
    tiny: Callable[..., str], tmp_path: Path
) -> None:
    narrow = load_classifier(str(make_model(tmp_path / "narrow", hidden=16)), ("a", "b"))
    wide = load_classifier(tiny("bert"), ("a", "b"))
    with pytest.raises(
        ModelError, match="width 16 and 32 have no angle between them; use distill.hidden"
    ):
        check_match(DistillSettings.model_validate({"cosine": {"weight": 1.0}}), narrow, wide)
    narrow.config.num_attention_heads = 1
    with pytest.raises(ModelError, match="1 heads and the teacher 2; .*use 'match: values'"):
        check_match(DistillSettings.model_validate({"attention": {"weight": 1.0}}), narrow, wide)
    check_match(DistillSettings.model_validate(VALUES), narrow, wide)
    assert relation_heads(narrow, wide) == 2
    with pytest.raises(ModelError, match=r"\[0, 2\] must name one of the teacher's 2 layers"):
        check_match(
            DistillSettings.model_validate({"hidden": {"weight": 1.0, "layers": [0, 2]}}),
            narrow,
            wide,
        )
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film"]
    other = load_tokenizer(str(make_model(tmp_path / "words", words=words)))
    message = "distill.hidden: compared token by token, but .* have different tokenizers"
    with pytest.raises(ModelError, match=message):
        check_same_tokens(
            DistillSettings.model_validate({"hidden": {"weight": 1.0}}),
            load_tokenizer(tiny("bert")),
            other,
        )
    check_same_tokens(DistillSettings(), load_tokenizer(tiny("bert")), other)


SIZES = {"vocab_size": 28, "max_position_embeddings": 66, "pad_token_id": 0}
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
}


@pytest.mark.parametrize(
    ("family", "sizes", "distill", "rule"),
    [
        (
            "bart",
            {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2},
            {"hidden": {"weight": 1.0}},
            "has an encoder and a decoder",
        ),
        (
            "longformer",
            SMALL | {"attention_window": [8, 8]},
            {"attention": {"weight": 1.0}},
            "doesn't return its attention maps layer by layer",
        ),
        (
            "longformer",
            SMALL | {"attention_window": [8, 8]},
            VALUES,
            "doesn't return its values layer by layer",
        ),
        (
            "funnel",
            {"block_sizes": [1, 1], "d_model": 32, "n_head": 2},
            {"hidden": {"weight": 1.0}},
            "doesn't return its hidden states layer by layer",
        ),
        (
            "nystromformer",
            SMALL | {"segment_means_seq_len": 64, "num_landmarks": 8},
            {"hidden": {"weight": 1.0}},
            "can't be run on 5 tokens",
        ),
    ],
)
def test_a_model_that_does_not_return_its_inner_states_is_one_clear_error(
    family: str, sizes: dict[str, Any], distill: dict[str, Any], rule: str, tiny: Callable[..., str]
) -> None:
    config = AutoConfig.for_model(family, **SIZES | sizes)
    student = AutoModelForSequenceClassification.from_config(config).train()
    teacher = load_classifier(tiny("bert"), ("a", "b"))
    with pytest.raises(
        ModelError, match=f"distill.{next(iter(distill))}: the student, a {family} model, {rule}"
    ):
        check_match(DistillSettings.model_validate(distill), student, teacher)


def test_checking_whether_a_model_returns_its_states_changes_nothing(
    tiny: Callable[..., str],
) -> None:
    student, teacher = (load_classifier(tiny("bert"), ("a", "b")) for _ in range(2))
    before = student.config._attn_implementation
    state = torch.random.get_rng_state()
    check_match(
        DistillSettings.model_validate({"hidden": {"weight": 1.0}, "attention": {"weight": 1.0}}),
        student.train(),
        teacher.eval(),
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (student.training, teacher.training, student.config._attn_implementation) == (
        True,
        False,
        before,
    )


def test_a_trial_minimizes_its_terms_and_reports_them(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    settings = make(distill=EVERYTHING | {"logits": "mse"})
    found = [one.metrics for one in train(settings, tmp_path / "trial", cache=cache)]
    assert found[-1]["train/hidden_loss"] < found[0]["train/hidden_loss"]
    for one in found:
        parts = (
            0.5 * one["train/task_loss"]
            + 0.5 * one["train/distill_loss"]
            + sum(one[f"train/{name}_loss"] for name in EVERYTHING)
        )
        assert one["train/loss"] == pytest.approx(parts, rel=1e-5)
    assert not any(
        "projection" in name
        for name in load_file(tmp_path / "trial" / "student" / "model.safetensors")
    )


def test_while_a_scheduled_weight_is_zero_the_teacher_does_not_run(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    losses = Matching.losses
    monkeypatch.setattr(
        Matching, "losses", lambda self, *arguments: calls.append(1) or losses(self, *arguments)
    )
    settings = make(
        distill={"hidden": {"weight": {"shape": "step", "values": [2.0, 0.0], "at": 0.5}}}
    )
    found = [one.metrics for one in train(settings, tmp_path / "trial", cache=cache)]
    steps = TrialFolder(tmp_path / "trial").read_evaluations()[-1].step
    assert [one["train/hidden_weight"] for one in found] == [2.0, 2.0, 0.0, 0.0]
    assert len(calls) == steps // 2
    assert found[-1]["train/hidden_loss"] == 0.0


def test_an_interrupted_trial_of_inner_terms_ends_like_one_that_was_not(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    settings = make(
        distill={"hidden": {"weight": 1.0}, "attention": {"weight": 0.5, "match": "values"}}
    )
    whole = [one.metrics for one in train(settings, tmp_path / "whole", cache=cache)]
    with pytest.raises(Interrupted):
        list(
            train(settings, tmp_path / "parts", cache=cache, on_step=lambda step, total: step == 7)
        )
    assert [one.metrics for one in train(settings, tmp_path / "parts", cache=cache)] == whole
    weights = [
        load_file(tmp_path / name / "student" / "model.safetensors") for name in ("whole", "parts")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_inner_terms_without_a_teacher_are_refused(
    make: Callable[..., TrialSettings], tiny: Callable[..., str]
) -> None:
    with pytest.raises(ValueError, match="inner states needs a teacher"):
        make(
            teacher=None,
            alpha=1.0,
            student={"model": tiny("bert")},
            distill={"cosine": {"weight": 1.0}},
        )
    assert make(
        alpha=1.0, student={"model": tiny("bert")}, distill={"cosine": {"weight": 1.0}}
    ).needs_teacher
    assert not make(
        alpha=1.0, student={"model": tiny("bert")}, distill={"cosine": {"weight": 0.0}}
    ).needs_teacher
