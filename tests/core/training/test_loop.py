"""The training loop on tiny real models: resumed, repeated, stopped and finished trials."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import WORDS, file_times, make_model, sentences, write_csv
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdsweep.core import TrialSettings, train
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.core.evaluation.metrics import score_logits
from kdsweep.core.evaluation.predict import predict
from kdsweep.core.models.loading import load_classifier, load_tokenizer
from kdsweep.core.models.student import load_student
from kdsweep.core.settings import StudentSettings
from kdsweep.core.teachers.artifact import frozen_teacher
from kdsweep.core.teachers.logits import teacher_logits
from kdsweep.core.teachers.selection import prepare_teacher
from kdsweep.core.trial_folder import TrialFolder
from kdsweep.errors import Interrupted, SettingsConflict, TrialDiverged


@pytest.fixture(scope="module")
def make(plain_trial: dict[str, Any]) -> Callable[..., TrialSettings]:
    def build(**changes: Any) -> TrialSettings:
        return TrialSettings.model_validate(
            plain_trial | {"alpha": {"shape": "linear", "start": 0.1, "end": 0.9}} | changes
        )

    return build


def metrics(evaluations: Any) -> list[dict[str, float]]:
    return [evaluation.metrics for evaluation in evaluations]


@pytest.mark.parametrize(
    ("stops", "precision"), [({3}, "fp32"), ({7, 8}, "fp32"), ({12, 20}, "fp32"), ({3, 20}, "bf16")]
)
def test_an_interrupted_trial_ends_with_bit_identical_numbers_and_weights(
    stops: set[int],
    precision: str,
    make: Callable[..., TrialSettings],
    cache: Path,
    tmp_path: Path,
) -> None:
    settings = make(settled_precision=precision)
    whole = metrics(train(settings, tmp_path / "whole", cache=cache))
    left = set(stops)

    def on_step(step: int, total_steps: int) -> bool:
        return step in left and not left.discard(step)  # type: ignore[func-returns-value]

    for _ in stops:
        with pytest.raises(Interrupted):
            list(train(settings, tmp_path / "parts", cache=cache, on_step=on_step))
    assert metrics(train(settings, tmp_path / "parts", cache=cache, on_step=on_step)) == whole
    one, two = (
        load_file(tmp_path / name / "student" / "model.safetensors") for name in ("whole", "parts")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not (tmp_path / "parts" / "checkpoint").exists()


def test_a_learning_rate_schedule_is_resumed_and_followed(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    settings = make(
        learning_rate={"shape": "linear", "start": 2e-3, "end": 0.0},
        training={"epochs": 2, "batch_size": 16, "max_length": 24, "warmup": 0.0},
    )
    whole = metrics(train(settings, tmp_path / "whole", cache=cache))
    with pytest.raises(Interrupted):
        list(
            train(settings, tmp_path / "parts", cache=cache, on_step=lambda step, total: step == 5)
        )
    assert metrics(train(settings, tmp_path / "parts", cache=cache)) == whole
    total = 2 * 12
    assert [round(found["train/learning_rate"], 9) for found in whole] == [
        round(2e-3 * (1 - (step - 1) / total), 9) for step in (6, 12, 18, 24)
    ]


def test_a_trial_whose_iteration_was_stopped_resumes_when_it_is_started_again(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    settings = make(seed=5)
    whole = metrics(train(settings, tmp_path / "whole", cache=cache))
    stream = train(settings, tmp_path / "parts", cache=cache)
    assert next(stream).metrics == whole[0]
    stream.close()
    assert metrics(train(settings, tmp_path / "parts", cache=cache)) == whole
    # Finished: its evaluations are yielded again.
    assert metrics(train(settings, tmp_path / "parts", cache=cache)) == whole
    with pytest.raises(SettingsConflict):
        list(train(make(seed=6), tmp_path / "parts", cache=cache))


def test_a_trial_whose_rows_changed_is_refused_before_a_teacher_is_made(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    file = write_csv(tmp_path / "reviews.csv", sentences(300))
    settings = make(
        alpha=0.5, task={"dataset": str(file), "text": "text", "label": "label", "holdout": 0.2}
    )
    whole = metrics(train(settings, tmp_path / "whole", cache=cache))
    with pytest.raises(Interrupted):
        list(
            train(settings, tmp_path / "parts", cache=cache, on_step=lambda step, total: step == 7)
        )
    teachers = file_times(cache / "teachers")
    write_csv(file, sentences(301))
    with pytest.raises(
        SettingsConflict,
        match=r"parts holds a trial that started with other rows: .*; restore the data, .*--fresh",
    ):
        list(train(settings, tmp_path / "parts", cache=cache))
    assert file_times(cache / "teachers") == teachers
    write_csv(file, sentences(300))
    assert metrics(train(settings, tmp_path / "parts", cache=cache)) == whole


def test_a_trial_reads_the_cached_logits_and_never_the_teacher_s_weights(
    make: Callable[..., TrialSettings], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    list(train(make(), tmp_path / "first", cache=cache))
    logits = file_times(cache / "logits")
    [weights] = (cache / "teachers").glob("*/model.safetensors")
    numbers = load_file(weights)
    nothing = {name: torch.full_like(one, math.nan) for name, one in numbers.items()}
    save_file(nothing, weights, metadata={"format": "pt"})
    list(train(make(alpha=0.5, temperature=7.0), tmp_path / "second", cache=cache))
    assert file_times(cache / "logits") == logits


def test_fine_tuning_makes_no_teacher_even_where_the_settings_name_one(
    make: Callable[..., TrialSettings], tmp_path: Path
) -> None:
    settings = make(alpha=1.0)
    assert settings.teacher is not None
    list(train(settings, tmp_path / "trial", cache=tmp_path / "cache"))
    assert not (tmp_path / "cache" / "teachers").exists()


def test_accumulation_gives_equal_results(
    make: Callable[..., TrialSettings], without_dropout: str, cache: Path, tmp_path: Path
) -> None:
    found = []
    for steps in (1, 4, 8):
        training = {"epochs": 1, "batch_size": 16, "max_length": 24, "accumulation_steps": steps}
        found.append(
            metrics(
                train(
                    make(student={"model": without_dropout}, training=training),
                    tmp_path / str(steps),
                    cache=cache,
                )
            )
        )
    for other in found[1:]:
        for expected, got in zip(found[0], other, strict=True):
            assert got == pytest.approx(expected, abs=2e-4)


def test_a_loss_that_is_not_finite_ends_the_trial_with_its_step(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    settings = make(alpha=1.0, learning_rate=1e30)
    with pytest.raises(TrialDiverged) as diverged:
        list(train(settings, tmp_path / "trial", cache=cache))
    # The first step has a learning rate of 0 (warm-up); the next ones break the weights.
    assert 0 < diverged.value.step < 5
    assert not (tmp_path / "trial" / "student").exists()


def test_the_result_is_the_best_evaluation_not_the_last(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    # A learning rate that jumps up late spoils the student after its best evaluation.
    settings = make(
        alpha=1.0,
        learning_rate={"shape": "step", "values": [2e-3, 1.0], "at": 0.7},
        training={"epochs": 4, "batch_size": 16, "max_length": 24},
    )
    evaluations = list(train(settings, tmp_path, cache=cache))
    result = TrialFolder(tmp_path).read_result()
    assert result is not None
    assert result.best is not None
    best = max(evaluation.metrics["validation/accuracy"] for evaluation in evaluations)
    assert (
        result.best.metrics["validation/accuracy"]
        == best
        > evaluations[-1].metrics["validation/accuracy"]
    )
    data = load_task(settings.task)
    model, tokenizer = (
        load_classifier(str(tmp_path / "student"), data.label_names).eval(),
        load_tokenizer(str(tmp_path / "student")),
    )
    with torch.inference_mode():
        logits = model(
            **tokenizer(*data.validation.texts, padding=True, return_tensors="pt")
        ).logits.numpy()
    assert float(np.mean(logits.argmax(axis=1) == data.validation.labels)) == pytest.approx(best)


def test_teacher_and_student_may_differ_in_architecture_and_tokenizer(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    other_words = [*WORDS[:5], *reversed(WORDS[5:])]
    student = make_model(tmp_path / "student", "distilbert", words=other_words)
    evaluations = list(
        train(make(student={"model": str(student)}, alpha=0.0), tmp_path / "trial", cache=cache)
    )
    assert evaluations[-1].metrics["train/distill_loss"] > 0


def test_a_student_can_take_its_layers_from_the_fine_tuned_teacher(
    make: Callable[..., TrialSettings], cache: Path
) -> None:
    settings = make()
    assert settings.teacher is not None
    teacher = prepare_teacher(settings.task, settings.teacher, cache)
    student, _ = load_student(
        StudentSettings(model="teacher", layers=1), ("neg", "pos"), teacher.folder
    )
    whole = load_classifier(str(teacher.folder), ("neg", "pos")).state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in student.state_dict().items())


def test_the_logits_are_the_frozen_teacher_s(
    make: Callable[..., TrialSettings], cache: Path
) -> None:
    settings = make()
    assert settings.teacher is not None
    data, teacher = (
        load_task(settings.task),
        prepare_teacher(settings.task, settings.teacher, cache),
    )
    logits = teacher_logits(teacher, data, cache=cache)
    assert isinstance(logits, np.memmap)
    model, tokenizer = (
        frozen_teacher(teacher, data.label_names, data.kind),
        load_tokenizer(str(teacher.folder)),
    )
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with torch.inference_mode():
        expected = model(
            **tokenizer(*data.train.texts, padding=True, return_tensors="pt")
        ).logits.numpy()
    assert np.abs(logits - expected).max() < 1e-4


def test_the_same_settings_and_seed_give_the_same_numbers_and_another_seed_others(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    # Random numbers that were drawn before change nothing.
    torch.manual_seed(123)
    one = metrics(train(make(), tmp_path / "one", cache=cache))
    torch.rand(7)
    assert metrics(train(make(), tmp_path / "two", cache=cache)) == one
    assert metrics(train(make(seed=1), tmp_path / "three", cache=cache)) != one


def test_fine_tuning_has_no_teacher_in_its_settings_or_its_cache(
    make: Callable[..., TrialSettings], tmp_path: Path
) -> None:
    evaluations = list(
        train(make(alpha=1.0, teacher=None), tmp_path / "trial", cache=tmp_path / "cache")
    )
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"rows", "tokens"}
    for found in metrics(evaluations):
        assert found["train/distill_loss"] == 0.0
        assert found["train/loss"] == found["train/task_loss"]


def test_the_caller_may_draw_random_numbers_even_after_a_resume(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    settings = make(seed=9)
    whole = metrics(train(settings, tmp_path / "whole", cache=cache))
    with pytest.raises(Interrupted):
        list(
            train(settings, tmp_path / "parts", cache=cache, on_step=lambda step, total: step == 15)
        )
    found = []
    for evaluation in train(settings, tmp_path / "parts", cache=cache):
        found.append(evaluation.metrics)
        torch.rand(3)
    assert found == whole


def test_schedules_are_reported_with_their_values_at_the_last_step(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    settings = make(
        alpha={"shape": "per_epoch", "values": [0.7, 0.5], "after": 0.2},
        temperature={"shape": "linear", "start": 5.0, "end": 1.0},
        training={"epochs": 3, "batch_size": 16, "max_length": 24, "evaluations_per_epoch": 1},
    )
    evaluations = list(train(settings, tmp_path, cache=cache))
    assert [found["train/alpha"] for found in metrics(evaluations)] == [0.7, 0.5, 0.2]
    total = evaluations[-1].step
    assert [found["train/temperature"] for found in metrics(evaluations)] == pytest.approx(
        [5 - 4 * (total * part // 3 - 1) / total for part in (1, 2, 3)]
    )
    assert [evaluation.epoch for evaluation in evaluations] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("evaluations_per_epoch", [1, 100])
def test_a_diverged_trial_says_so_in_its_result_and_is_not_trained_again(
    evaluations_per_epoch: int,
    make: Callable[..., TrialSettings],
    cache: Path,
    tmp_path: Path,
) -> None:
    training = {
        "epochs": 1,
        "batch_size": 16,
        "max_length": 24,
        "warmup": 0.0,
        "evaluations_per_epoch": evaluations_per_epoch,
    }
    settings = make(alpha=1.0, learning_rate=1e30, training=training)
    with pytest.raises(TrialDiverged, match="the loss is not finite at step 1") as diverged:
        list(train(settings, tmp_path, cache=cache))
    result = TrialFolder(tmp_path).read_result()
    assert result is not None
    assert (result.state, result.steps, result.best, result.student) == (
        "diverged",
        diverged.value.step,
        None,
        None,
    )
    assert not (tmp_path / "student").exists()
    written, steps = file_times(tmp_path), []
    with pytest.raises(TrialDiverged, match="at step 1"):
        list(train(settings, tmp_path, cache=cache, on_step=lambda step, _: steps.append(step)))
    assert (file_times(tmp_path), steps) == (written, [])


def test_a_finished_trial_yields_its_evaluations_without_reading_its_data(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    file = write_csv(tmp_path / "reviews.csv", sentences(300))
    settings = make(
        alpha=1.0, task={"dataset": str(file), "text": "text", "label": "label", "holdout": 0.2}
    )
    folder = tmp_path / "trial"
    evaluations = list(train(settings, folder, cache=cache))
    file.unlink()
    written = file_times(folder)
    assert list(train(settings, folder, cache=cache)) == evaluations
    other = settings.model_copy(update={"seed": 1})
    with pytest.raises(SettingsConflict, match="holds a trial with other settings"):
        list(train(other, folder, cache=cache))
    assert file_times(folder) == written


def test_the_student_s_folder_is_loaded_by_transformers_and_scores_as_reported(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    settings = make()
    list(train(settings, tmp_path, cache=cache))
    result, data = TrialFolder(tmp_path).read_result(), load_task(settings.task)
    assert result is not None
    assert result.best is not None
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "student"),
        AutoTokenizer.from_pretrained(tmp_path / "student"),
    )
    tokens = tokenize_split(
        data.validation, tokenizer, InputFormat(24, token_types=True), cache=tmp_path / "cache"
    )
    judged = score_logits(
        "accuracy", data.validation.labels, predict(model, tokens, torch.float32), data.kind
    )
    assert judged["accuracy"] == result.best.metrics["validation/accuracy"]
    assert judged["loss"] == pytest.approx(result.best.metrics["validation/loss"], rel=1e-5)
    assert model.config.id2label == {0: "neg", 1: "pos"}
    assert (tmp_path / "student" / "README.md").read_text(encoding="utf-8").startswith("---\n")
    assert result.student is not None
    assert result.student["parameters"] == sum(
        parameter.numel() for parameter in model.parameters()
    )
