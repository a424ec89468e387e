"""The error of a broken --set or --name is one line that names the option."""

from __future__ import annotations

from pathlib import Path

import pytest
from broken_variants import TEXTS, shortened

from kdsweep.config import SpaceError, load

BROKEN_ASSIGNMENTS = [
    ("training.epochs", "expected key.path=value"),
    ("", "expected key.path=value"),
    ("=3", "expected key.path=value"),
    ("=", "expected key.path=value"),
    ("training..epochs=3", "expected key.path=value"),
    (".training=3", "expected key.path=value"),
    ("training.=3", "expected key.path=value"),
    ("training.epochs=[", "is no YAML"),
    ("training.epochs={a: 1, a: 2}", "is there twice"),
    ("training.epochs=a\tb: c: d", "is no YAML"),
    ("training.epochs=\0", "is no YAML"),
    ("training.epochs=" + "[" * 50, "is no YAML"),
    ("training.epochs=" + "[" * 50 + "]" * 50, "nested more than"),
    ("training.epochs=0", "training.epochs: must be at least 1, not 0"),
    ("training.epochs=-1", "must be at least 1, not -1"),
    ("training.epochs=3.0", "must be a whole number, not 3.0"),
    ("training.epochs='3'", "must be a whole number, not '3'"),
    ("training.epochs=3\n4", "must be a whole number"),
    ("training.epoch=3", "training: unknown key 'epoch'; did you mean 'epochs'"),
    ("trainin.epochs=3", "unknown key 'trainin'; did you mean 'training'"),
    ("training.epochs.first=3", "training.epochs is 3, so nothing can be set inside it"),
    ("training.new.key=3", "training: unknown key 'new'"),
    ("task.0=3", "task: unknown key '0'"),
    ("task.²=3", "task: unknown key '²'"),
    ("task." + "9" * 5000 + "=3", "task: unknown key '999"),
    ("strategies.combined.alpha.any_of.3=0.5", "is a list of 3: it has no '3'"),
    ("strategies.combined.alpha.any_of.-1=0.5", "is a list of 3: it has no '-1'"),
    ("strategies.combined.alpha.any_of.x.start=0.5", "is a list of 3: it has no 'x'"),
    (
        "strategies.combined.alpha.any_of.0.values.1=1.5",
        "alpha must be between 0 and 1, not 1.5",
    ),
    ("strategies.distill.temperature=0", "temperature must be above 0, not 0"),
    ("strategies.distil.temperature=4", "strategies.distil.alpha is missing"),
    ("strategies={}", "strategies: must have at least 1"),
    ("name=other", "use --name"),
    ("name.x=other", "name is 'sst2', so nothing can be set inside it"),
    ("embedded=true", "'embedded' can't be set: use --embedded"),
    ("embedded.task.label=x", "'embedded' can't be set: use --embedded"),
    ("trials=0", "trials: must be at least 1, not 0"),
    ("trials=many", "trials: must be a whole number, not 'many'"),
    ("trials.x=3", "trials: must be a whole number"),
    ("trails=3", "unknown key 'trails'"),
    ("sampler=grid", "sampler: must be a mapping of keys, not 'grid'"),
    ("sampler.type=grdi", "sampler: unknown type 'grdi'; did you mean 'grid'"),
    ("sampler.type=grid", "grid needs 'choices' or 'step' everywhere"),
    ("sampler.typ=tpe", "sampler: 'type' is missing"),
    ("pruner={}", "pruner: 'type' is missing"),
    ("budget.hours=.nan", "budget.hours: must be a finite number"),
    ("keep.students=-1", "keep.students: must be at least 0, not -1"),
]


@pytest.fixture(scope="module")
def short_space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped space without its last section, which is half the text to parse."""
    path = tmp_path_factory.mktemp("space") / "sst2.yaml"
    path.write_text(shortened(TEXTS["sst2"]), encoding="utf-8")
    load(path)
    return path


@pytest.mark.parametrize(
    ("assignment", "rule"),
    BROKEN_ASSIGNMENTS,
)
def test_a_broken_set_is_named_in_its_error(assignment: str, rule: str, short_space: Path) -> None:
    with pytest.raises(SpaceError, match=rule) as caught:
        load(short_space, assignments=(assignment,))
    assert caught.value.file.startswith("--set")
    assert caught.value.line is None
    assert "\n" not in str(caught.value)
    assert len(caught.value.file) < 100


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "../x", "/etc", "x" * 300, "a b", ".x", "a\nb", "a\0b", "é"]
)
def test_a_broken_name_is_reported(name: str, short_space: Path) -> None:
    with pytest.raises(SpaceError, match="a name is 1 to 100") as caught:
        load(short_space, name=name)
    assert caught.value.file == "--name"
    assert "\n" not in str(caught.value)
