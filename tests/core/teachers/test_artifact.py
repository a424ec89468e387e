"""What a teacher is known by, and how it comes from its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from conftest import sentences, write_csv
from fine_tuned_teacher import QUICK_TRAINING, TRAINING, FineTuned

from kdsweep.core.data.loading import load_task
from kdsweep.core.files import fingerprint
from kdsweep.core.models.describing import model_fingerprint
from kdsweep.core.settings import TaskSettings, TeacherSettings
from kdsweep.core.tasks import CLASSIFICATION
from kdsweep.core.teachers.artifact import find_teacher, frozen_teacher, teacher_key


def test_a_teacher_of_earlier_versions_keeps_its_key_and_a_weight_is_no_part_of_it(
    review_task: TaskSettings, quick_teacher: Callable[..., TeacherSettings]
) -> None:
    data, plain = load_task(review_task), quick_teacher()
    how = {
        **QUICK_TRAINING,
        "accumulation_steps": 1,
        "weight_decay": 0.01,
        "scheduler": "linear",
        "gradient_clip": 1.0,
        "precision": "auto",
        "seed": 0,
    }
    before = fingerprint(
        "teacher 1",
        model_fingerprint(plain.source),
        data.train.key,
        data.validation.key,
        data.label_names,
        "accuracy",
        how,
    )
    assert teacher_key(review_task, plain, data) == before
    assert teacher_key(review_task, quick_teacher(weight=2.0), data) == before
    others = [
        quick_teacher(epoch=1),
        quick_teacher(epoch=3),
        quick_teacher(seeds=2),
        quick_teacher(folds=2),
        quick_teacher(folds=3),
        quick_teacher(seeds=2, epoch=1),
    ]
    assert len({before, *(teacher_key(review_task, other, data) for other in others)}) == 7
    assert quick_teacher().model_dump().keys() == {
        "model",
        "checkpoint",
        "labels",
        "trust_remote_code",
        "training",
    }


def test_other_rows_settings_or_weights_are_another_teacher(
    fine_tuned: FineTuned, tiny: Callable[..., str], tmp_path: Path
) -> None:
    _, task, settings, _ = fine_tuned
    other_task = task.model_copy(
        update={"dataset": str(write_csv(tmp_path / "other.csv", sentences(200, seed=5)))}
    )
    keys = [
        teacher_key(task, settings, load_task(task)),
        teacher_key(other_task, settings, load_task(other_task)),
        teacher_key(
            task,
            TeacherSettings(model=tiny("bert"), training=TRAINING | {"seed": 1}),
            load_task(task),
        ),
        teacher_key(
            task, TeacherSettings(model=tiny("bert", layers=3), training=TRAINING), load_task(task)
        ),
    ]
    assert len(set(keys)) == 4


def test_the_cached_folder_is_a_model_that_names_the_classes(fine_tuned: FineTuned) -> None:
    config = json.loads((fine_tuned.teacher.folder / "config.json").read_text())
    assert config["id2label"] == {"0": "neg", "1": "pos"}
    assert (fine_tuned.teacher.folder / "model.safetensors").exists()
    assert fine_tuned.teacher.training_folder is not None
    assert (fine_tuned.teacher.training_folder / "metrics.jsonl").exists()


def test_a_teacher_of_an_earlier_version_is_still_read(
    fine_tuned: FineTuned, tmp_path: Path
) -> None:
    folder = shutil.copytree(fine_tuned.teacher.folder, tmp_path / "teacher")
    facts = json.loads((folder / "teacher.json").read_text())
    for name in ("margin", "entropy", "latency_p95_ms"):
        del facts[name]
    del facts["validation"]["ece"]
    (folder / "teacher.json").write_text(json.dumps(facts))
    found = find_teacher(folder)
    assert found is not None
    assert (found.margin, found.entropy, found.latency_p95_ms) == (None, None, None)
    assert found.validation["accuracy"] == fine_tuned.teacher.validation["accuracy"]


def test_a_frozen_teacher_is_in_eval_mode_without_gradients(fine_tuned: FineTuned) -> None:
    model = frozen_teacher(fine_tuned.teacher, ("neg", "pos"), CLASSIFICATION)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
