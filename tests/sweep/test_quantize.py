"""`student.quantize` in a sweep: what is refused before anything trains, and what trials have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import copy_model
from model_families import make_family

from kdsweep.config import load
from kdsweep.config.student_shapes import shapes_of_students
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.rows import Split, TaskData
from kdsweep.core.evaluation import onnx_format
from kdsweep.core.evaluation.architectures import measure_shapes
from kdsweep.core.evaluation.latency_figures import ModelShape
from kdsweep.core.files import name_beside
from kdsweep.core.models.describing import describe_model
from kdsweep.core.models.layers import new_model
from kdsweep.core.settings import StudentSettings
from kdsweep.core.tasks import DEFAULT_KIND
from kdsweep.errors import KdsweepError, ModelError, SpaceError
from kdsweep.sweep import preflight, run
from kdsweep.sweep.folders import Home
from kdsweep.sweep.preflight import PlannedModel, check_models, small_model
from kdsweep.trial_id import TrialId

BOTH = "student.quantize={choices: [none, int8]}"


def refused(space: Path, home: Path, *assignments: str) -> str:
    with pytest.raises(KdsweepError) as told:
        run(space, home=home, assignments=assignments)
    assert not (home / "sweeps").exists()
    return str(told.value)


def test_a_trial_has_its_weights_from_the_space_and_is_the_same_without_the_key(
    tiny_space: Path,
) -> None:
    plan = load(tiny_space, assignments=("student.quantize=int8",))
    trial = plan.space.settle("finetune", lambda parameter: 1e-3, seed=0)
    assert trial.student.quantize == "int8"
    assert trial.student.shape == ", 1 layer, int8"
    assert plan.space.packages() == ("onnx", "onnxscript", "onnxruntime")
    usual = load(tiny_space).space.settle("finetune", lambda parameter: 1e-3, seed=0)
    named = load(tiny_space, assignments=("student.quantize=none",))
    assert named.space.settle("finetune", lambda parameter: 1e-3, seed=0) == usual
    assert "quantize" not in usual.model_dump_json()
    assert not named.space.may_quantize and not named.space.packages()


def test_8_bit_weights_are_an_architecture_of_their_own(tiny_space: Path) -> None:
    plan = load(tiny_space, assignments=(BOTH,))
    shapes = shapes_of_students(plan.space)
    assert [shape.quantize for shape in shapes] == ["none", "int8"]
    # Version 0.1.0 read and wrote shapes without the key.
    assert "quantize" not in shapes[0].model_dump(mode="json")
    assert ModelShape.model_validate(shapes[0].model_dump(mode="json")) == shapes[0]


def test_another_number_of_bits_is_one_line_with_its_place(tiny_space: Path) -> None:
    with pytest.raises(SpaceError, match=r"student\.quantize.*int4"):
        load(tiny_space, assignments=("student.quantize={choices: [none, int4]}",))


def test_without_its_packages_nothing_trains(
    tiny_space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        onnx_format, "find_spec", lambda name: None if name == "onnxruntime" else object()
    )
    assert refused(tiny_space, tmp_path / "home", BOTH) == (
        "student.quantize: int8 needs onnxruntime: pip install 'kdsweep[onnx]'"
    )


def test_what_a_killed_trial_left_of_its_card_does_not_stay_with_its_student(
    tmp_path: Path,
) -> None:
    folder = Home(tmp_path).sweep("one")
    files = [folder.trial(TrialId("distill", one)).student / "README.md" for one in (0, 1)]
    for card in files:
        card.parent.mkdir(parents=True)
        card.write_text("whole", encoding="utf-8")
        name_beside(card).write_text("ha", encoding="utf-8")
    folder.remove_half_written("distill-0")
    assert [len(list(card.parent.iterdir())) for card in files] == [1, 2]
    folder.remove_half_written()
    assert [list(card.parent.iterdir()) for card in files] == [[card] for card in files]


@pytest.mark.slow
def test_a_student_whose_config_names_no_padding_token_is_quantized(
    tiny_space: Path, tmp_path: Path
) -> None:
    """Only the saved student's config names it. GPT-2 reads no batch without one."""
    (tmp_path / "gpt2").mkdir()
    model = str(make_family("gpt2", tmp_path / "gpt2"))
    plan = load(tiny_space, assignments=("student.quantize=int8", f"student.model={model}"))
    checked = check_models(plan.space, tmp_path / "cache")
    assert json.loads((tmp_path / "gpt2" / "config.json").read_text())["pad_token_id"] is None
    assert len(checked.students) == 1
    shapes = [one for one in shapes_of_students(plan.space) if one.quantize == "int8"]
    measured = measure_shapes(
        plan.space.task, shapes, [], tmp_path / "cache", lambda done, left: False, print
    )
    assert [one.precision for one in measured.found] == ["int8"]


def test_a_family_whose_layers_are_in_blocks_is_rehearsed_whole(tmp_path: Path) -> None:
    (tmp_path / "funnel").mkdir()
    source = str(make_family("funnel", tmp_path / "funnel"))
    model, tokenizer, _ = describe_model(source, ("a", "b"))
    planned = PlannedModel(source, model, tokenizer, 24, InputFormat(24, True), source)
    assert small_model(planned, ("a", "b"), DEFAULT_KIND).config.block_sizes == [1, 1]
    with pytest.raises(ModelError, match=r"student\.layers: a funnel model .* can't be set"):
        new_model(StudentSettings(model=source, layers=1, start="scratch"), ("a", "b"), source)


def test_each_student_with_other_switches_is_rehearsed_and_each_size_of_one_only_once(
    tiny: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy_model(tiny("bert"), tmp_path / "other", hidden_act="relu")
    sources = [tiny("bert"), tiny("bert", layers=1), str(other)]
    students = []
    for source in sources:
        model, tokenizer, _ = describe_model(source, ("a", "b"))
        students.append(PlannedModel(source, model, tokenizer, 24, InputFormat(24, True), source))
    rehearsed: list[str] = []

    def note(model: Any, *others: object) -> None:
        rehearsed.append(model.config.hidden_act)

    monkeypatch.setattr(preflight, "rehearse_quantized", note)
    split = Split("train", (["a", "b c"],), np.array([0, 1]), "key")
    data = TaskData(DEFAULT_KIND, ("a", "b"), {"train": split}, (), 2)
    preflight._rehearse_quantized(students, [split], data)
    assert sorted(rehearsed) == ["gelu", "relu"]


@pytest.mark.slow
def test_a_family_without_onnx_is_refused_before_anything_trains(
    tiny_space: Path, tiny: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "xlnet").mkdir()
    model = make_family("xlnet", tmp_path / "xlnet")
    line = refused(tiny_space, tmp_path / "home", BOTH, f"student.model={model}")
    assert "a xlnet model of this kind can't be exported" in line
    assert line.endswith("; leave 'student.quantize' out, or set it to none")
    assert "\n" not in line
