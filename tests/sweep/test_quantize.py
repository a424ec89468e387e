"""`student.quantize` in a sweep: what is refused before anything trains, and what trials have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from model_families import make_family

from kdsweep.config import load
from kdsweep.config.student_shapes import shapes_of_students
from kdsweep.core.evaluation import onnx_format
from kdsweep.core.evaluation.latency_figures import ModelShape
from kdsweep.errors import KdsweepError, SpaceError
from kdsweep.sweep import run

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
    assert trial.student.shape == ", 1 layers, int8"
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
