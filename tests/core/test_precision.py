"""What models are computed in: what `auto` means, and what stays in fp32 beside bf16."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fine_tuned_teacher import FineTuned
from torch import nn
from torch.nn import functional

from kdsweep.core import TrialSettings, device, train
from kdsweep.core.data.loading import load_task
from kdsweep.core.device import autocast, best_precision, bf16_instructions, resolve_precision
from kdsweep.core.evaluation.predict import predict
from kdsweep.core.models.input_format import input_format_of
from kdsweep.core.models.loading import load_classifier, load_tokenizer
from kdsweep.core.settings import TeacherSettings
from kdsweep.core.teachers.artifact import teacher_key
from kdsweep.core.teachers.logits import teacher_logits
from kdsweep.core.teachers.selection import prepare_teacher
from kdsweep.core.training.dropout import cheap_dropout
from kdsweep.core.training.model_card import model_card
from kdsweep.core.training.prepare import ReadingModel
from kdsweep.core.trial_folder import Evaluation

CPU = torch.device("cpu")
TRIALS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@pytest.mark.parametrize(
    ("flags", "limit", "expected"),
    [
        ("sse4_2 avx512f amx_tile avx512_bf16 amx_bf16", None, "AMX-BF16"),
        ("avx512f avx512_bf16", None, "AVX512-BF16"),
        ("avx2 avx512f amx_tile amx_int8", None, None),
        (None, None, None),
        ("avx512_bf16 amx_bf16", "AVX512_CORE_AMX", "AMX-BF16"),
        ("avx512_bf16 amx_bf16", "avx512_core", None),
        ("avx512_bf16 amx_bf16", "AVX2", None),
    ],
)
def test_auto_follows_what_a_processor_can_do_and_what_the_user_allows(
    flags: str | None, limit: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_of_processor", {"flags": flags}.get)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if limit is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert bf16_instructions() == expected
    assert best_precision(CPU) == ("fp32" if expected is None else "bf16")
    # What nothing has settled is what it was before CPUs counted.
    assert resolve_precision("auto", CPU) == torch.float32


def test_only_a_teacher_that_is_not_fp32_has_another_key(fine_tuned: FineTuned) -> None:
    data, task = load_task(fine_tuned.task), fine_tuned.task

    def key(precision: str, settled: str | None) -> str:
        training = fine_tuned.settings.training.model_copy(update={"precision": precision})
        changed = {"training": training, "settled_precision": settled}
        return teacher_key(task, fine_tuned.settings.model_copy(update=changed), data)

    assert key("auto", "fp32") == key("auto", None)
    assert key("fp32", "fp32") == key("fp32", None)
    # Earlier versions labeled in fp32 on a CPU whatever `training.precision` said.
    others = {key("auto", "bf16"), key("bf16", "bf16"), key("bf16", None), key("auto", None)}
    assert len(others) == 4
    checkpoint = TeacherSettings(checkpoint=str(fine_tuned.teacher.folder))
    settled = checkpoint.model_copy(update={"settled_precision": "bf16"})
    assert teacher_key(task, checkpoint, data) != teacher_key(task, settled, data)


def test_a_teacher_labels_in_its_precision_and_is_judged_on_test_in_fp32(
    fine_tuned: FineTuned, tmp_path: Path
) -> None:
    task, data = fine_tuned.task, load_task(fine_tuned.task)
    logits: dict[str, dict[str, np.ndarray]] = {}
    for precision in TRIALS:
        settings = TeacherSettings.model_validate(
            {
                "checkpoint": str(fine_tuned.teacher.folder),
                "training": {"max_length": 24},
                "settled_precision": precision,
            }
        )
        teacher = prepare_teacher(task, settings, tmp_path)
        logits[precision] = {
            split: np.array(teacher_logits(teacher, data, cache=tmp_path, split=split))
            for split in ("train", "validation", "test")
        }
    for split in ("train", "validation"):
        assert not np.array_equal(logits["bf16"][split], logits["fp32"][split])
        np.testing.assert_allclose(logits["bf16"][split], logits["fp32"][split], atol=0.1)
    np.testing.assert_array_equal(logits["bf16"]["test"], logits["fp32"]["test"])


def test_a_student_trained_in_bf16_is_judged_on_test_as_it_is_saved(
    plain_trial: dict[str, Any], cache: Path, tmp_path: Path
) -> None:
    settings = TrialSettings.model_validate(
        plain_trial | {"alpha": 1.0, "settled_precision": "bf16", "judge_test": True}
    )
    evaluations = list(train(settings, tmp_path / "trial", cache=cache))
    data = load_task(settings.task, cache)
    student = str(tmp_path / "trial" / "student")
    model, tokenizer = load_classifier(student, data.label_names), load_tokenizer(student)
    assert model.dtype == torch.float32
    reading = ReadingModel(
        model, tokenizer, input_format_of(model, tokenizer, 24), cache, lambda line: None
    )
    expected = predict(model, reading.tokenized(data.test), torch.float32)
    np.testing.assert_array_equal(np.load(tmp_path / "trial" / "test_logits.npy"), expected)
    assert "- trained in: bf16" in model_card(settings, evaluations[-1])


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("training", [True, False])
def test_normalization_softmax_loss_and_weights_stay_in_fp32(
    family: str, training: bool, tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_classifier(tiny(family), ("neg", "pos")).train(training)
    normalized: list[torch.dtype] = []
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_pre_hook(lambda _, inputs: normalized.append(inputs[0].dtype))
    softmax = torch.Tensor.softmax
    softened: list[torch.dtype] = []

    def watched(scores: torch.Tensor, *arguments: Any, **more: Any) -> torch.Tensor:
        found = softmax(scores, *arguments, **more)
        softened.append(found.dtype)
        return found

    monkeypatch.setattr(torch.Tensor, "softmax", watched)
    ids = torch.randint(5, 20, (4, 64))
    with autocast(CPU, torch.bfloat16), cheap_dropout(CPU):
        logits = model(input_ids=ids).logits
    assert logits.dtype == torch.bfloat16
    assert set(normalized) == {torch.float32} and len(normalized) >= 4
    assert set(softened) <= {torch.float32} and bool(softened) == training
    functional.cross_entropy(logits.float(), torch.zeros(4, dtype=torch.long)).backward()
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    assert {one.dtype for one in (*model.parameters(), *gradients)} == {torch.float32}


def test_a_card_of_an_unsettled_precision_says_nothing_of_it(plain_trial: dict[str, Any]) -> None:
    evaluation = Evaluation(1, 1.0, {"validation/accuracy": 0.5}, 1.0, 0)
    assert "trained in" not in model_card(TrialSettings.model_validate(plain_trial), evaluation)
