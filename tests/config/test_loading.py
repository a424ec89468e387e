"""Files, places, overlays: what is read, what takes the place of what, and where a message says it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kdsweep.config import SpaceError, load, load_space, load_sweep
from kdsweep.config.loading import (
    Document,
    Origin,
    dotted,
    parse_yaml,
    read_document,
    show,
    split_assignment,
)

ROOT = Path(__file__).parents[2]
SPACES = sorted((ROOT / "search_spaces").rglob("*.y*ml"))
SWEEPS = sorted((ROOT / "sweeps").rglob("*.y*ml"))

SPACE = """\
name: small
task: {dataset: d, text: t, label: l}
teacher: {model: big}
student: {model: little}
training: {epochs: 3, learning_rate: 1.0e-5}
strategies:
  distill:
    alpha: 0.5
    temperature: {low: 1.0, high: 10.0}
  both:
    alpha:
      any_of:
        - 0.5
        - {low: 0.2, high: 0.4}
embedded:
  task:
    dataset: package://p/d.csv
    text: words
    label: l
  strategies.distill.alpha: 0.25
"""


def write(folder: Path, text: str, name: str = "space.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.fixture
def space(tmp_path: Path) -> Path:
    return write(tmp_path, SPACE)


def error_of(*arguments: Any, **named: Any) -> SpaceError:
    with pytest.raises(SpaceError) as caught:
        load(*arguments, **named)
    return caught.value


# --- the shipped files -----------------------------------------------------------------------------------------------


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


# --- what YAML says --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1.0e-5", 1e-5),
        ("2E3", 2000.0),
        ("1", 1),
        ("'1'", "1"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("010", 10),
        ("0o10", 8),
        ("2020-01-01", "2020-01-01"),
        ("[1, a]", [1, "a"]),
    ],
)
def test_yaml_1_2_is_read(text: str, value: Any) -> None:
    parsed, _ = parse_yaml(text, "f")
    assert parsed == value
    assert type(parsed) is type(value)


def test_each_key_and_item_has_its_line(tmp_path: Path) -> None:
    document = read_document(
        write(tmp_path, "# a comment\n\na:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n")
    )
    lines = {dotted(path): line for path, (_, line) in document.origins.items()}
    assert lines == {"": 3, "a": 3, "a.b": 4, "a.c": 5, "a.c.0": 6, "a.c.1": 7, "a.c.1.d": 7}


def test_an_anchor_stands_for_its_value_in_each_place(tmp_path: Path) -> None:
    data = read_document(write(tmp_path, "a: &x {low: 1.0, high: 2.0}\nb: *x\n")).data
    assert data["a"] == data["b"] == {"low": 1.0, "high": 2.0}
    assert data["a"] is not data["b"]


def test_a_value_is_shown_short_and_on_one_line() -> None:
    assert show({"a": 1}) == "a mapping"
    assert show([1]) == "a list"
    assert show(None) == "nothing"
    assert show("a\nb") == "'a\\nb'"
    assert len(show("x" * 1000)) == 60


# --- replacing -------------------------------------------------------------------------------------------------------


def replaced(data: dict[str, Any], *assignments: str) -> Document:
    document = Document("f", data, {(): Origin("f", 1)})
    for text in assignments:
        document.replace(split_assignment(text))
    return document


def test_a_path_replaces_one_key_and_leaves_its_neighbours() -> None:
    assert replaced({"a": {"b": 1, "c": 2}}, "a.b=5").data == {"a": {"b": 5, "c": 2}}


def test_a_path_makes_the_mappings_that_it_needs() -> None:
    assert replaced({}, "a.b.c=5").data == {"a": {"b": {"c": 5}}}
    assert replaced({"a": None}, "a.b=5").data == {"a": {"b": 5}}


def test_a_number_in_a_path_is_an_index_in_a_list_and_else_a_key() -> None:
    assert replaced({"a": [1, {"b": 2}]}, "a.0=7", "a.1.b=8").data == {"a": [7, {"b": 8}]}
    assert replaced({"a": {"1": 2}}, "a.1=3").data == {"a": {"1": 3}}
    assert replaced({}, "a.007=3").data == {"a": {"007": 3}}


@pytest.mark.parametrize("value", ["null", "~", ""])
def test_null_takes_a_key_out(value: str) -> None:
    assert replaced({"a": {"b": 1, "c": 2}}, f"a.b={value}").data == {"a": {"c": 2}}
    assert replaced({"a": 1}, f"b={value}").data == {"a": 1}


def test_the_value_of_a_set_is_yaml_and_may_hold_equals_signs() -> None:
    assert replaced({}, "a={low: 1.0e-5, high: 1}").data == {"a": {"low": 1e-5, "high": 1}}
    assert replaced({}, "a='x=y'").data == {"a": "x=y"}
    assert replaced({}, "a=b=c").data == {"a": "b=c"}
    assert replaced({}, " a.b = 3").data == {"a": {"b": 3}}


def test_the_later_of_two_sets_wins() -> None:
    assert replaced({}, "a={b: 1, c: 2}", "a.b=5", "a.c=null").data == {"a": {"b": 5}}


def test_what_is_replaced_has_the_place_of_its_override() -> None:
    document = replaced({"a": {"b": {"c": 1}}}, "a.b={d: 1}")
    assert str(document.error(("a", "b", "d"), "wrong")) == "--set a.b={d: 1}: wrong"
    assert str(document.error(("a",), "wrong")) == "f:1: wrong"


def test_a_mapping_made_on_the_way_has_the_place_of_its_override() -> None:
    assert str(replaced({}, "x.y=1").error(("x",), "wrong")) == "--set x.y=1: wrong"


# --- embedded --------------------------------------------------------------------------------------------------------


def test_embedded_replaces_whole_sections_and_single_paths(space: Path) -> None:
    plain, embedded = load_space(space), load_space(space, embedded=True)
    assert (plain.task.dataset, plain.task.text, plain.strategies["distill"].alpha) == (
        "d",
        ("t",),
        0.5,
    )
    assert (embedded.task.dataset, embedded.task.text, embedded.strategies["distill"].alpha) == (
        "package://p/d.csv",
        ("words",),
        0.25,
    )
    assert embedded.strategies["both"] == plain.strategies["both"]
    assert embedded.student == plain.student
    assert (plain.embedded, embedded.embedded) == (False, True)


def test_a_broken_embedded_section_says_nothing_unless_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, SPACE.replace("    text: words", "    txt: words"))
    load(path)
    error = error_of(path, embedded=True)
    assert (error.line, error.rule.split(";")[0]) == (18, "task: unknown key 'txt'")


def test_embedded_must_be_there_to_be_used(tmp_path: Path) -> None:
    error = error_of(write(tmp_path, SPACE.split("embedded:")[0]), embedded=True)
    assert "has no 'embedded' section" in error.rule


def test_a_rule_between_keys_is_said_at_the_embedded_line(tmp_path: Path) -> None:
    path = write(tmp_path, SPACE.replace("alpha: 0.25", "alpha: 2.5"))
    error = error_of(path, embedded=True)
    assert (error.file, error.line) == (str(path), 20)
    assert error.rule == "strategies.distill.alpha: alpha must be between 0 and 1, not 2.5"


# --- a sweep's set, and --set ----------------------------------------------------------------------------------------


def test_the_order_is_space_embedded_sweep_command(space: Path, tmp_path: Path) -> None:
    sweep = write(
        tmp_path,
        "set: {strategies.distill.alpha: 0.3, training.epochs: 2}\ntrials: 4\n",
        "sweep.yaml",
    )
    assert load(space).space.strategies["distill"].alpha == 0.5
    assert load(space, embedded=True).space.strategies["distill"].alpha == 0.25
    assert load(space, sweep, embedded=True).space.strategies["distill"].alpha == 0.3
    plan = load(
        space, sweep, embedded=True, assignments=("strategies.distill.alpha=0.4", "trials=7")
    )
    assert (
        plan.space.strategies["distill"].alpha,
        plan.space.training.epochs,
        plan.sweep.trials,
    ) == (0.4, 2, 7)


def test_set_reaches_the_space_and_the_sweep(space: Path) -> None:
    plan = load(
        space,
        assignments=(
            "training.epochs=1",
            "sampler={type: random, seed: 5}",
            "keep.students=0",
            "strategies.both=null",
        ),
    )
    assert (
        plan.space.training.epochs,
        plan.sweep.sampler.type,
        plan.sweep.sampler.seed,
        plan.sweep.keep.students,
    ) == (1, "random", 5, 0)
    assert list(plan.space.strategies) == ["distill"]


def test_set_replaces_one_option_of_a_list(space: Path) -> None:
    plan = load(
        space,
        assignments=(
            "strategies.both.alpha.any_of.1.low=0.1",
            "strategies.both.alpha.any_of.0=0.9",
        ),
    )
    option, low_to_high = plan.space.strategies["both"].alpha.any_of
    assert (option, low_to_high.low, low_to_high.high) == (0.9, 0.1, 0.4)


def test_an_error_in_an_overridden_key_names_the_override(space: Path, tmp_path: Path) -> None:
    sweep = write(
        tmp_path,
        "trials: 3\nset:\n  training.epochs: 2\n  strategies.both.alpha.any_of.1.low: 0.7\n",
        "sweep.yaml",
    )
    error = error_of(space, sweep)
    assert (error.file, error.line) == (
        str(space),
        14,
    )  # the rule is the whole range's, which stands in the space
    assert "low (0.7) must be below high (0.4)" in error.rule
    error = error_of(
        space, write(tmp_path, "trials: 3\nset:\n  training.epochs: 0\n", "sweep.yaml")
    )
    assert (error.file, error.line) == (str(tmp_path / "sweep.yaml"), 3)
    assert (
        error_of(space, sweep, assignments=("training.epochs=0",)).file == "--set training.epochs=0"
    )


def test_an_error_beside_an_override_still_names_the_line_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, SPACE.replace("high: 10.0", "high: 0.5"))
    error = error_of(path, assignments=("training.epochs=2",))
    assert (error.file, error.line) == (str(path), 9)


def test_what_is_taken_out_is_missing_where_it_would_stand(space: Path) -> None:
    error = error_of(space, assignments=("strategies.distill.alpha=null",))
    assert (error.file, error.line, error.rule) == (
        str(space),
        7,
        "strategies.distill.alpha is missing",
    )


def test_the_first_broken_line_is_said_and_the_others_counted(tmp_path: Path) -> None:
    text = (
        SPACE.replace("label: l}", "label: l, metric: acc}")
        .replace("model: big", "modell: big")
        .replace("dataset: d,", "dataset: 3,")
    )
    error = error_of(write(tmp_path, text))
    assert (error.line, error.rule) == (
        2,
        "task.dataset: must be text, not 3 (more mistakes in line 3)",
    )


@pytest.mark.parametrize(
    ("assignment", "hint"),
    [
        ("training.epoch=1", "'epochs'"),
        ("stratgies.distill.alpha=1", "'strategies'"),
        ("task.metric=acuracy", "'accuracy'"),
        ("sampler.type=tpee", "'tpe'"),
        ("strategies.distill.temprature=2", "'temperature'"),
        ("strategies.distill.alpha={shape: cosin, start: 0, end: 1}", "'cosine'"),
        ("budget.hour=1", "'hours'"),
    ],
)
def test_a_near_miss_gets_a_hint(space: Path, assignment: str, hint: str) -> None:
    assert f"did you mean {hint}?" in error_of(space, assignments=(assignment,)).rule


def test_a_hint_needs_a_near_miss(space: Path) -> None:
    error = error_of(space, assignments=("training.zzz=1",))
    assert "did you mean" not in error.rule
    assert "known here: " in error.rule and "epochs" in error.rule


# --- paths that are meant from the space's folder --------------------------------------------------------------------


def test_a_relative_path_is_meant_from_the_folder_of_the_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my spaces 'é'"
    path = write(
        folder,
        SPACE.replace("dataset: d", "dataset: data/rows.csv").replace(
            "model: little", "model: ../models/little"
        ),
    )
    (folder / "data").mkdir()
    (folder / "data" / "rows.csv").touch()
    (tmp_path / "models" / "little").mkdir(parents=True)
    monkeypatch.chdir("/")
    space = load_space(path)
    assert space.task.dataset == str((folder / "data" / "rows.csv").resolve())
    assert space.student.model == str((tmp_path / "models" / "little").resolve())
    assert (
        space.teacher is not None and space.teacher.model == "big"
    )  # isn't there: a name of the Hub


def test_a_set_is_meant_from_the_folder_of_the_space_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "spaces", SPACE)
    (tmp_path / "spaces" / "rows.csv").touch()
    monkeypatch.chdir(tmp_path)
    assert load(path, assignments=("task.dataset=rows.csv",)).space.task.dataset == str(
        (tmp_path / "spaces" / "rows.csv").resolve()
    )


def test_files_of_splits_and_choices_of_models_are_found_too(tmp_path: Path) -> None:
    text = SPACE.replace("dataset: d", "dataset: {train: a.csv, test: b.csv}").replace(
        "model: little", "model: {choices: [small, teacher, hub/name]}"
    )
    path = write(tmp_path, text)
    for name in ("a.csv", "small", "teacher"):
        (tmp_path / name).mkdir()
    space = load_space(path)
    assert space.task.dataset == {"train": str((tmp_path / "a.csv").resolve()), "test": "b.csv"}
    assert space.student.model.choices == (
        str((tmp_path / "small").resolve()),
        "teacher",
        "hub/name",
    )


def test_neither_a_package_nor_the_word_teacher_is_a_path(tmp_path: Path) -> None:
    path = write(tmp_path, SPACE.replace("model: little", "model: teacher"))
    (tmp_path / "teacher").mkdir()
    space = load_space(path, embedded=True)
    assert (space.student.model, space.task.dataset) == ("teacher", "package://p/d.csv")


def test_the_resolved_space_loads_to_the_same_from_another_folder(tmp_path: Path) -> None:
    from ruamel.yaml import YAML

    (tmp_path / "d").mkdir()
    first = load(
        write(tmp_path, SPACE), embedded=True, assignments=("training.epochs=2", "task.dataset=d")
    )
    other = tmp_path / "elsewhere" / "space.yaml"
    other.parent.mkdir()
    YAML(typ="safe").dump(first.resolved, other)
    second = load(other)
    assert second.resolved == first.resolved
    for strategy in first.space.strategies:
        assert second.space.parameters(strategy) == first.space.parameters(strategy)
        lowest = {
            parameter.name: parameter.points()[0] if parameter.points() else parameter.domain.low
            for parameter in first.space.parameters(strategy)
        }
        trials = [
            plan.space.settle(strategy, lambda parameter, at=lowest: at[parameter.name], seed=0)
            for plan in (first, second)
        ]
        assert trials[0] == trials[1]


# --- what isn't imported ---------------------------------------------------------------------------------------------


def test_the_configuration_imports_nothing_heavy() -> None:
    heavy = ("torch", "optuna", "mlflow", "transformers", "ray", "datasets", "pandas", "numpy")
    code = f"import sys, kdsweep.config; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""
