"""The sweep: its name, its identity, its engine, and which samplers fit which space."""

from __future__ import annotations

import json
import re
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


def test_without_a_file_the_sweep_is_the_default_one() -> None:
    assert load_sweep() == load_sweep(None) == SweepConfig()
    assert (
        load_sweep().trials,
        load_sweep().sampler.type,
        load_sweep().pruner.type,
        load_sweep().keep.students,
    ) == (20, "tpe", "paired", 3)


def test_load_sweep_leaves_the_set_to_the_space(sweep: Path) -> None:
    assert (load_sweep(sweep).name, load_sweep(sweep).trials) == ("quick", 3)


@pytest.mark.parametrize(
    ("key", "alone"),
    [
        ("objective", "f1"),
        ("start_from", "earlier"),
        ("strategies.plain.start_with", "{batch_size: 16}"),
    ],
)
def test_a_value_alone_is_a_list_of_one(space: Path, key: str, alone: str) -> None:
    def read(value: str) -> tuple[object, ...]:
        plan = plan_with(space, f"{key}={value}")
        return plan.sweep, plan.space.strategies

    assert read(alone) == read(f"[{alone}]")


def test_a_name_that_is_a_number_is_told_how_to_be_text(space: Path) -> None:
    with pytest.raises(
        SpaceError, match=r"not 2024; put quotes around it \(--set 'KEY=\"VALUE\"'\)"
    ):
        plan_with(space, "start_from=2024")
    assert plan_with(space, 'start_from="2024"').sweep.start_from == ("2024",)


# --- names ---


def test_the_name_comes_from_the_space_embedded_and_the_sweep(space: Path, sweep: Path) -> None:
    assert load(space).name == "small"
    assert load(space, embedded=True).name == "small-embedded"
    assert load(space, sweep).name == "small-quick"
    assert load(space, sweep, embedded=True).name == "small-embedded-quick"
    assert (
        load(
            ROOT / "search_spaces" / "sst2.yaml", ROOT / "sweeps" / "quick.yaml", embedded=True
        ).name
        == "sst2-embedded-quick"
    )


@pytest.mark.parametrize(
    ("assignment", "hint"),
    [
        ("trails=3", "did you mean 'trials'?"),
        ("strategie.finetune.alpha=1", "did you mean 'strategies'?"),
        ("x=1", "known in"),
    ],
)
def test_the_hint_for_an_unknown_key_considers_both_files(
    space: Path, assignment: str, hint: str
) -> None:
    with pytest.raises(SpaceError, match=re.escape(hint)) as caught:
        load(space, assignments=(assignment,))
    assert caught.value.file == f"--set {assignment}"


def test_name_overrides_the_sweep_s_name(space: Path, sweep: Path) -> None:
    plan = load(space, sweep, embedded=True, name="mine")
    assert (plan.name, plan.experiment) == ("mine", "small-embedded")


def test_a_name_that_becomes_too_long_is_not_blamed_on_an_option(
    space: Path,
) -> None:
    space.write_text(SPACE.replace("name: small", "name: " + "n" * 95), encoding="utf-8")
    assert load(space).name == "n" * 95
    with pytest.raises(SpaceError, match="a name is 1 to 100") as caught:
        load(space, embedded=True)
    assert caught.value.file == "the sweep's name (see --name)"


# --- identity ---


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
def test_how_much_and_where_are_not_part_of_the_identity(space: Path, assignment: str) -> None:
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
def test_what_decides_the_trials_is_part_of_the_identity(space: Path, assignment: str) -> None:
    assert plan_with(space, assignment).identity != plan_with(space).identity


def test_the_identity_is_plain_data_and_writing_out_a_default_does_not_change_it(
    space: Path,
) -> None:
    identity = plan_with(space).identity
    assert json.loads(json.dumps(identity)) == identity
    assert identity["objective"] == {"metric": "f1", "direction": "maximize"}
    assert (
        plan_with(
            space, "training.epochs=3", "training.batch_size=32", "sampler={type: tpe, seed: 0}"
        ).identity
        == identity
    )
    assert plan_with(space, name="other").identity == identity
    assert plan_with(space, embedded=True).identity != identity


# --- samplers ---


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid", "gp"])
def test_each_sampler_can_be_chosen(space: Path, sampler: str) -> None:
    assert plan_with(space, f"sampler.type={sampler}").sweep.sampler.type == sampler


@pytest.mark.parametrize("pruner", ["none", "median", "hyperband", "asha", "paired"])
def test_each_pruner_can_be_chosen(space: Path, pruner: str) -> None:
    assert plan_with(space, f"pruner.type={pruner}").sweep.pruner.type == pruner


@pytest.mark.parametrize(
    "rate", ["{choices: [1.0e-5, 2.0e-5]}", "{low: 1.0e-5, high: 5.0e-5, step: 1.0e-5}", "1.0e-5"]
)
def test_a_grid_takes_choices_steps_and_whole_numbers(space: Path, rate: str) -> None:
    assert plan_with(
        space,
        "sampler.type=grid",
        f"training.learning_rate={rate}",
        "training.epochs={low: 1, high: 3}",
    )


def test_a_grid_refuses_a_range_without_a_step_at_its_own_line(space: Path, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("trials: 3\nsampler:\n  seed: 1\n  type: grid\n", encoding="utf-8")
    with pytest.raises(
        SpaceError, match=r"strategies\.plain: learning_rate is a range without a step"
    ) as caught:
        load(space, path, assignments=("training.learning_rate={low: 1.0e-5, high: 1.0e-4}",))
    assert (caught.value.file, caught.value.line) == (str(path), 4)


@pytest.mark.parametrize(
    "assignment",
    [
        "training.epochs={low: 1, high: 100000000}",
        "training.learning_rate={low: 1.0, high: 2.0, step: 1.0e-9}",
    ],
)
def test_a_grid_of_millions_is_refused_without_being_listed(space: Path, assignment: str) -> None:
    with pytest.raises(
        SpaceError, match=r"a grid has at most 100,000 points; strategies\.plain has"
    ):
        plan_with(space, "sampler.type=grid", assignment)


# --- engines ---


def test_by_default_each_gpu_is_a_slot_and_this_process_without_gpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kdsweep.config.sweep import InlineEngine, RayEngine
    from kdsweep.sweep.engines import slots as engines

    assert SweepConfig().engine.type == "auto"
    for gpus, expected in ((0, InlineEngine), (1, InlineEngine), (4, RayEngine)):
        monkeypatch.setattr(engines, "gpu_count", lambda gpus=gpus: gpus)
        assert isinstance(engines.settle_engine(SweepConfig().engine), expected)
    assert engines.slots_here(SweepConfig().engine) == min(4, engines.cpu_count())


@pytest.mark.parametrize(
    "address", ["local", "head", "auto", "10.0.0.1:6379", "ray://head.example:10001"]
)
def test_every_form_of_an_address_is_accepted(address: str, space: Path) -> None:
    assert (
        load(
            space, assignments=(f"engine={{type: ray, address: '{address}'}}",)
        ).sweep.engine.address
        == address
    )  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("engine", "rule"),
    [
        ("{type: rai}", "'rai'"),
        ("{type: ray, address: lokal}", "did you mean 'local'"),
        ("{type: ray, address: 'http://x:1'}", "address is local, head, auto"),
        ("{type: ray, gpus_per_trial: 2}", "gpus_per_trial"),
        ("{type: ray, gpus_per_trial: -0.5}", "gpus_per_trial"),
        ("{type: ray, cpus_per_trial: 0}", "cpus_per_trial"),
        ("{type: ray, address: auto, gpus: 2}", "'gpus' and 'cpus' say what this machine offers"),
        ("{type: ray, listen: 10.0.0.1}", "'listen' is for 'address: head'"),
        ("{type: inline, slots: 2}", "unknown key 'slots'"),
        ("{type: ray, gpu_per_trial: 1}", "did you mean 'gpus_per_trial'"),
    ],
)
def test_a_wrong_engine_is_an_error_with_its_rule(engine: str, rule: str, space: Path) -> None:
    with pytest.raises(SpaceError, match=rule.replace("(", r"\(")):
        load(space, assignments=(f"engine={engine}",))


def test_engine_budget_and_databases_are_not_part_of_the_identity(space: Path) -> None:
    elsewhere = (
        "engine={type: ray, address: head}",
        "budget={hours: 1}",
        "storage='postgresql://a@b/c'",
        "tracking='http://m:5000'",
    )
    assert load(space, assignments=elsewhere).identity == load(space).identity
