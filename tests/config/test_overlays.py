"""What overrides what: the space, `embedded`, a sweep's `set`, `--set`; and where errors point."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from kdsweep.config import SpaceError, load, load_space

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


@pytest.mark.parametrize(
    ("written", "broken", "rule"),
    [
        ("    text: words", "    txt: words", "task: unknown key 'txt'"),
        ("    text: words", "    text: 3", "task.text: must be text"),
        ("    label: l", "    label: l\n    holdout: 0.7", "task.holdout: must be below 0.5"),
        ("dataset: d, text", "datset: d, text", "task: unknown key 'datset'"),
        ("text: t, label", "text: t, holdout: 2, label", "task.holdout: must be below 0.5"),
        ("alpha: 0.25", "alpha: 2.5", "alpha must be between 0 and 1"),
        ("alpha: 0.25", "alpha: {low: 1, high: 0}", r"low \(1\) must be below high \(0\)"),
        ("alpha: 0.5", "alpha: 1.5", "alpha must be between 0 and 1"),
        ("alpha: 0.5", "alpha: {low: 0.1}", "strategies.distill.alpha.high is missing"),
        ("strategies.distill.alpha: 0.25", "stratgies: {}", "embedded: unknown key 'stratgies'"),
    ],
)
def test_a_mistake_in_sections_that_embedded_replaces_is_an_error_with_and_without_it(
    written: str, broken: str, rule: str, tmp_path: Path
) -> None:
    text = SPACE.replace(written, broken, 1)
    assert text != SPACE
    path = write(tmp_path, text)
    line = next(i for i, one in enumerate(text.splitlines(), 1) if one not in SPACE.splitlines())
    found = [error_of(path), error_of(path, embedded=True)]
    assert [(error.file, error.line) for error in found] == [(str(path), line)] * 2
    assert all(re.search(rule, error.rule) for error in found), found
    # The one that isn't run says which one it is.
    said = [re.findall(r"\((with|without) --embedded\)", error.rule) for error in found]
    assert sorted(said) in ([[], ["with"]], [[], ["without"]])


def test_an_override_reaches_only_what_is_run(tmp_path: Path) -> None:
    path = write(tmp_path, SPACE)
    assert load(path, assignments=("task.holdout=0.2",)).space.task.holdout == 0.2
    # `embedded` replaces the task, and the override would reach both.
    assert load(path, embedded=True, assignments=("task.text=x",)).space.task.text == ("x",)


def test_embedded_needs_an_embedded_section(tmp_path: Path) -> None:
    error = error_of(write(tmp_path, SPACE.split("embedded:")[0]), embedded=True)
    assert "has no 'embedded' section" in error.rule


def test_a_value_of_embedded_that_breaks_a_rule_is_reported_at_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, SPACE.replace("alpha: 0.25", "alpha: 2.5"))
    error = error_of(path, embedded=True)
    assert (error.file, error.line) == (str(path), 20)
    assert error.rule == "strategies.distill.alpha: alpha must be between 0 and 1, not 2.5"


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
    # The rule is that of the whole range, which is in the space.
    assert (error.file, error.line) == (str(space), 14)
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


def test_a_removed_key_is_missing_at_its_section(space: Path) -> None:
    error = error_of(space, assignments=("strategies.distill.alpha=null",))
    assert (error.file, error.line, error.rule) == (
        str(space),
        7,
        "strategies.distill.alpha is missing",
    )


def test_the_first_mistake_is_reported_with_the_lines_of_the_others(tmp_path: Path) -> None:
    text = (
        SPACE.replace("label: l}", "label: l, metric: acc}")
        .replace("model: big", "modell: big")
        .replace("dataset: d,", "dataset: 3,")
    )
    error = error_of(write(tmp_path, text))
    assert (error.line, error.rule) == (
        2,
        "task.dataset: must be text, not 3; put quotes around it (more mistakes in line 3)",
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
def test_a_misspelled_word_gets_a_hint(space: Path, assignment: str, hint: str) -> None:
    assert f"did you mean {hint}?" in error_of(space, assignments=(assignment,)).rule


def test_a_word_unlike_any_key_gets_no_hint(space: Path) -> None:
    error = error_of(space, assignments=("training.zzz=1",))
    assert "did you mean" not in error.rule
    assert "known here: " in error.rule and "epochs" in error.rule
