"""The JSON schemas: every shipped file fits, and common mistakes that the loader refuses don't."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from all_broken import VARIANTS
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from kdsweep.cli import main
from kdsweep.config import SearchSpace, SpaceError, SweepConfig, load
from kdsweep.config.json_schema import space_schema, sweep_schema
from kdsweep.config.known_keys import keys_of
from kdsweep.config.loading import parse_yaml, read_document, split_assignment
from kdsweep.shipped_files import SCHEMA_LINE, SPACES, SWEEPS

SCHEMAS = Path(__file__).parents[2] / "kdsweep" / "schemas"
SPACE = Draft202012Validator(space_schema())
SWEEP = Draft202012Validator(sweep_schema())
# Of the variants that are YAML. The others break rules of several keys, of `start_with`, or of
# numbers that JSON doesn't have.
REFUSED = 0.7


@pytest.mark.parametrize("file", [*SPACES.files().values(), *SWEEPS.files().values()], ids=str)
def test_every_shipped_file_fits_its_schema_and_names_it(file: Path) -> None:
    schema = SPACE if file.parent.name == "search_spaces" else SWEEP
    assert not [error.message for error in schema.iter_errors(read_document(file).data)]
    first = file.read_text(encoding="utf-8").split("\n")[0]
    assert first.startswith(SCHEMA_LINE)
    assert (file.parent / first.removeprefix(SCHEMA_LINE)).resolve().parent == SCHEMAS


def test_the_files_of_the_package_are_what_the_command_prints() -> None:
    for name, options in (("space", []), ("sweep", ["--sweep"])):
        printed = CliRunner().invoke(main, ["schema", *options]).stdout
        written = (SCHEMAS / f"{name}.json").read_text(encoding="utf-8")
        assert written == printed, f"kdsweep schema {' '.join(options)} > {SCHEMAS}/{name}.json"
        Draft202012Validator.check_schema(json.loads(printed))


def test_a_copied_example_names_the_schema_that_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["init", "--example", "sst2"]).exit_code == 0
    first = Path("sst2.yaml").read_text(encoding="utf-8").split("\n")[0]
    assert first == f"{SCHEMA_LINE}{SCHEMAS / 'space.json'}"


def changed(*assignments: str) -> dict[str, Any]:
    document = read_document(SPACES.files()["sst2"])
    for assignment in assignments:
        document.replace(split_assignment(assignment))
    return document.data


@pytest.mark.parametrize(
    "mistake",
    [
        "task.datset=x",
        "trainng={epochs: 3}",
        "training.epochs='3'",
        "training.epochs=0",
        "training.epochs=2.5",
        "training.precision=fp8",
        "training.scheduler={choices: [linear, quadratic]}",
        "task.holdout=0.7",
        "task.metric=acuracy",
        "task.kind=regresion",
        "task.splits={holdout: 0.2}",
        "student.layers={low: 0, high: 3}",
        "student.quantize=int4",
        "teacher.seeds=0",
        "strategies.distill.alpha=1.5",
        "strategies.distill.alpha={low: 0.5}",
        "strategies.distill.alpha={low: 0.0, high: 2.0}",
        "strategies.distill.alpha={low: 0.0, hihg: 1.0}",
        "strategies.distill.alpha={choices: []}",
        "strategies.distill.alpha={any_of: [0.5]}",
        "strategies.distill.alpha={any_of: [0.5, {low: 0.0, high: 2.0}]}",
        "strategies.distill.alpha={shape: liner, start: 0.0, end: 1.0}",
        "strategies.distill.alpha={shape: linear, start: 0.0}",
        "strategies.distill.temperature=0",
        "strategies.distill.distill=mze",
        "strategies.distill.distill={hidden: {wieght: 0.5}}",
        "strategies.distill.augment={mask: 0.1}",
        "embedded={tsk: {}}",
        "embedded={strategies.distill.alpha: 2.0}",
        "embedded={strategies.distill.alhpa: 0.5}",
    ],
)
def test_common_mistakes_are_refused_as_the_loader_refuses_them(mistake: str) -> None:
    assert not SPACE.is_valid(changed(mistake))
    if not mistake.startswith("embedded"):
        with pytest.raises(SpaceError):
            load("sst2", assignments=(mistake,))


@pytest.mark.parametrize(
    "value",
    [
        "training.epochs={low: 1, high: 3, step: 1}",
        "training.batch_size={choices: [16, 32]}",
        "training.gradient_clip={any_of: [1.0, {low: 0.5, high: 2.0, log: true}]}",
        "student.layers={any_of: [3, [0, 2, 5]]}",
        "student.model={choices: [teacher, distilbert/distilbert-base-uncased]}",
        "strategies.distill.alpha={shape: cosine, start: {low: 0.1, high: 0.5}, end: 1.0}",
        "strategies.combined.start_with={learning_rate: 5.0e-5}",
        "strategies.distill.alpha={shape: step, values: [0, 1, 0], at: [0.2, {choices: [0.5]}]}",
        "strategies.distill.alpha={shape: per_epoch, values: [0.7, {choices: [0.5, 0.3]}]}",
        "strategies.distill.distill={hidden: {low: 0.1, high: 1.0}, attention: {weight: 0.5}}",
        "strategies.distill.distill=reverse_kl",
        "strategies.distill.augment={views: 2, masked_lm: distilbert/distilbert-base-uncased}",
        "strategies.distill.teacher={epoch: {choices: [1, 2]}}",
        "teacher=[{model: a/b}, {model: c/d, weight: {low: 0.5, high: 2.0}}]",
        "task.unlabelled=nyu-mll/other",
        "task.blank_labels=drop",
        "task.text=[sentence, other]",
    ],
)
def test_the_whole_grammar_is_allowed(value: str) -> None:
    load("sst2", assignments=("strategies.distill.start_with=", value))
    assert not [error.message for error in SPACE.iter_errors(changed(value))]


def test_most_broken_variants_of_the_shipped_files_are_refused() -> None:
    refused, total = 0, 0
    # All of them take a minute.
    for variant in VARIANTS[::20]:
        try:
            data, _ = parse_yaml(variant.text, "variant")
        except SpaceError:
            continue
        total += 1
        refused += not (SPACE if variant.file == "sst2" else SWEEP).is_valid(data)
    assert total > 25
    assert refused / total > REFUSED, (refused, total)


def test_every_key_of_the_models_is_in_the_schema_and_documented_ones_say_what_they_mean() -> None:
    for model, schema in ((SearchSpace, space_schema()), (SweepConfig, sweep_schema())):
        text = json.dumps(schema)
        assert all(f'"{path[-1]}"' in text for path in keys_of(model) if path[-1] != "NAME")
    teacher = space_schema()["$defs"]["TeacherValues"]["properties"]
    assert teacher["seeds"]["description"].startswith("how many to fine-tune")
    assert "settled_precision" not in json.dumps(space_schema())
