"""The sweep: what it is called, what makes it the same sweep, and which samplers fit which space."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsweep.config import Plan, SpaceError, SweepConfig, load, load_sweep

ROOT = Path(__file__).parents[2]
SPACE = """\
name: small
task: {dataset: d, text: t, label: l, metric: f1}
student: {model: little}
training: {learning_rate: 1.0e-5}
strategies:
  plain: {alpha: 1.0, batch_size: {choices: [16, 32]}}
embedded: {task: {dataset: e, text: t, label: l}}
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE, encoding="utf-8")
    return path


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text("name: quick\nset: {training.epochs: 1}\ntrials: 3\n", encoding="utf-8")
    return path


def test_without_a_file_a_sweep_is_the_default_one() -> None:
    assert load_sweep() == load_sweep(None) == SweepConfig()
    assert (load_sweep().trials, load_sweep().sampler.type, load_sweep().pruner.type, load_sweep().keep.students) == (20, "tpe", "hyperband", 3)


def test_load_sweep_leaves_the_set_to_the_space(sweep: Path) -> None:
    assert (load_sweep(sweep).name, load_sweep(sweep).trials) == ("quick", 3)


# --- names -----------------------------------------------------------------------------------------------------------


def test_the_name_is_made_of_space_embedded_and_sweep(space: Path, sweep: Path) -> None:
    assert load(space).name == "small"
    assert load(space, embedded=True).name == "small-embedded"
    assert load(space, sweep).name == "small-quick"
    assert load(space, sweep, embedded=True).name == "small-embedded-quick"
    assert load(ROOT / "search_spaces" / "sst2.yaml", ROOT / "sweeps" / "quick.yaml", embedded=True).name == "sst2-embedded-quick"


def test_a_name_that_is_given_overrides_all_that(space: Path, sweep: Path) -> None:
    plan = load(space, sweep, embedded=True, name="mine")
    assert (plan.name, plan.experiment) == ("mine", "small-embedded")


def test_a_name_that_gets_too_long_is_not_blamed_on_an_option_that_was_not_given(space: Path) -> None:
    space.write_text(SPACE.replace("name: small", "name: " + "n" * 95), encoding="utf-8")
    assert load(space).name == "n" * 95
    with pytest.raises(SpaceError, match="a name is 1 to 100") as caught:
        load(space, embedded=True)
    assert caught.value.file == "the sweep's name (see --name)"


# --- identity --------------------------------------------------------------------------------------------------------


def plan_with(space: Path, *assignments: str, **options: object) -> Plan:
    return load(space, assignments=assignments, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "assignment",
    [
        "trials=5",
        "budget.hours=2",
        "budget.gpu_hours=2",
        "budget.patience=3",
        "keep.students=1",
        "storage=sqlite:///x.db",
        "tracking=http://x",
        "engine.type=inline",
    ],
)
def test_how_much_and_where_are_no_part_of_the_identity(space: Path, assignment: str) -> None:
    assert plan_with(space, assignment).identity == plan_with(space).identity


@pytest.mark.parametrize(
    "assignment",
    [
        "sampler.type=random",
        "sampler={type: tpe, seed: 1}",
        "sampler={type: tpe, startup_trials: 5}",
        "pruner.type=none",
        "pruner={type: hyperband, reduction_factor: 4}",
        "task.metric=accuracy",
        "task.limit.train=10",
        "training.epochs=2",
        "training.warmup=0.2",
        "student.layers=3",
        "strategies.plain.batch_size=16",
        "strategies.other={alpha: 1.0}",
        "strategies.plain.start_with=[{batch_size: 16}]",
    ],
)
def test_what_decides_on_the_trials_is_the_identity(space: Path, assignment: str) -> None:
    assert plan_with(space, assignment).identity != plan_with(space).identity


def test_the_identity_is_plain_and_does_not_depend_on_what_is_written_out(space: Path) -> None:
    import json

    identity = plan_with(space).identity
    assert json.loads(json.dumps(identity)) == identity
    assert identity["objective"] == {"metric": "f1", "direction": "maximize"}
    assert plan_with(space, "training.epochs=3", "training.batch_size=32", "sampler={type: tpe, seed: 0}").identity == identity
    assert plan_with(space, name="other").identity == identity
    assert plan_with(space, embedded=True).identity != identity


# --- samplers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid", "gp"])
def test_each_sampler_can_be_chosen(space: Path, sampler: str) -> None:
    assert plan_with(space, f"sampler.type={sampler}").sweep.sampler.type == sampler


@pytest.mark.parametrize("pruner", ["none", "median", "hyperband", "asha"])
def test_each_pruner_can_be_chosen(space: Path, pruner: str) -> None:
    assert plan_with(space, f"pruner.type={pruner}").sweep.pruner.type == pruner


@pytest.mark.parametrize("rate", ["{choices: [1.0e-5, 2.0e-5]}", "{low: 1.0e-5, high: 5.0e-5, step: 1.0e-5}", "1.0e-5"])
def test_a_grid_takes_choices_steps_and_whole_numbers(space: Path, rate: str) -> None:
    assert plan_with(space, "sampler.type=grid", f"training.learning_rate={rate}", "training.epochs={low: 1, high: 3}")


def test_a_grid_refuses_a_range_without_a_step_at_the_line_of_the_sampler(space: Path, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("trials: 3\nsampler:\n  seed: 1\n  type: grid\n", encoding="utf-8")
    with pytest.raises(SpaceError, match=r"strategies\.plain: learning_rate is a range without a step") as caught:
        load(space, path, assignments=("training.learning_rate={low: 1.0e-5, high: 1.0e-4}",))
    assert (caught.value.file, caught.value.line) == (str(path), 4)


@pytest.mark.parametrize("assignment", ["training.epochs={low: 1, high: 100000000}", "training.learning_rate={low: 1.0, high: 2.0, step: 1.0e-9}"])
def test_a_grid_of_millions_is_refused_without_being_listed(space: Path, assignment: str) -> None:
    with pytest.raises(SpaceError, match=r"a grid has at most 100,000 points; strategies\.plain has"):
        plan_with(space, "sampler.type=grid", assignment)
