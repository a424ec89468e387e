"""Code that comes with a model runs where the space says so, and nowhere else.

Each test plants a model whose code leaves a mark when it is imported, and answers "y" to whoever
asks.
"""

from __future__ import annotations

import ast
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import copy_model, sentences, write_csv
from fine_tuned_teacher import TRAINING
from hub.server import Hub
from transformers import BertConfig, BertForMaskedLM

from kdsweep.cli import main
from kdsweep.core.models.describing import describe_masked_lm, describe_model
from kdsweep.core.models.layers import new_model
from kdsweep.core.models.loading import (
    load_classifier,
    load_config,
    load_masked_lm,
    load_tokenizer,
    own_labels,
)
from kdsweep.core.settings import StudentSettings, TaskSettings, TeacherSettings
from kdsweep.core.tasks import CLASSIFICATION
from kdsweep.core.teachers.artifact import frozen_teacher, tokenizer_of
from kdsweep.core.teachers.selection import cached_teacher, prepare_teacher
from kdsweep.errors import ModelError
from kdsweep.serving import load as load_student

REFUSED = "comes with code of its own, which is not run; .* set trust_remote_code: true"
OWN_CODE = """\
from pathlib import Path
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

Path({mark!r}).touch()


class OwnConfig(BertConfig):
    model_type = "own-code"


class OwnClassifier(BertForSequenceClassification):
    config_class = OwnConfig


class OwnMaskedLM(BertForMaskedLM):
    config_class = OwnConfig
"""
CLASSES = {
    "AutoConfig": "own.OwnConfig",
    "AutoModel": "own.OwnClassifier",
    "AutoModelForSequenceClassification": "own.OwnClassifier",
    "AutoModelForMaskedLM": "own.OwnMaskedLM",
}


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that planted code writes; whoever asks whether it may run is told "y"."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 20))
    return tmp_path / "it ran"


@pytest.fixture
def plant(tiny: Callable[..., str], tmp_path: Path, mark: Path) -> Callable[..., Path]:
    """plant(form) -> the folder of a model of that form with its own code."""

    def made(form: str = "config", name: str = "planted") -> Path:
        folder = tmp_path / name
        code = folder
        if form == "nested":
            shutil.copytree(tiny("bert", labels=2), folder)
            # A model of transformers, made of another one that only the folder's code has.
            sizes = {
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
            }
            inner = {
                "model_type": "clipseg_text_model",
                "auto_map": {"AutoModel": f"{folder}--own.OwnClassifier"},
                **sizes,
            }
            labels = {"id2label": {"0": "neg", "1": "pos"}, "label2id": {"neg": 0, "pos": 1}}
            outer = {"model_type": "modernvbert", "text_config": inner, "vision_config": sizes}
            (folder / "config.json").write_text(json.dumps(outer | labels))
        elif form == "tokenizer":
            shutil.copytree(tiny("bert", labels=2), folder)
            file = folder / "tokenizer_config.json"
            auto_map = {"AutoTokenizer": ["own.OwnTokenizer", None]}
            found = json.loads(file.read_text()) | {"auto_map": auto_map}
            file.write_text(json.dumps(found | {"tokenizer_class": "OwnTokenizer"}))
        else:
            classes = CLASSES
            if form == "elsewhere":
                code = tmp_path / "elsewhere"
                code.mkdir()
                classes = {key: f"{code}--{value}" for key, value in CLASSES.items()}
            copy_model(tiny("bert", labels=2), folder, model_type="own-code", auto_map=classes)
        (code / "own.py").write_text(OWN_CODE.format(mark=str(mark)))
        (code / "custom_generate").mkdir()
        (code / "custom_generate" / "generate.py").write_text(OWN_CODE.format(mark=str(mark)))
        return folder

    return made


# --- where a space names a model ---


SPACE = """\
name: planted
task: {{dataset: "{data}", text: text, label: label, holdout: 0.2}}
teacher: {teacher}
student: {student}
training:
  {{epochs: 1, batch_size: 16, max_length: 24, evaluations_per_epoch: 1, precision: fp32}}
strategies:
  distill: {{alpha: 0.5, temperature: 2.0, learning_rate: 1.0e-3{more}}}
"""
PLACES = {
    "student": {"student": '{{model: "{0}"{1}}}'},
    "student from scratch": {"student": '{{model: "{0}", start: scratch, layers: 1{1}}}'},
    "teacher": {"teacher": '{{model: "{0}"{1}}}'},
    "checkpoint": {"teacher": '{{checkpoint: "{0}"{1}}}'},
    "second teacher": {"teacher": '[{{model: "{plain}"}}, {{model: "{0}"{1}}}]'},
    "strategy's teacher": {"more": ', teacher: {{model: "{0}"{1}}}'},
    "masked_lm": {"more": ', augment: {{views: 1, masked_lm: {{model: "{0}"{1}}}}}'},
}


@pytest.fixture
def space_with(
    tmp_path: Path, tiny: Callable[..., str], review_csv: Path
) -> Callable[[str, object, str], Path]:
    """space_with(place, model, more) -> a space with the model, and more keys beside it, there."""

    def made(place: str, model: object, more: str = "") -> Path:
        plain = tiny("bert", layers=2)
        parts = {"teacher": f'{{model: "{plain}"}}', "student": f'{{model: "{plain}"}}', "more": ""}
        own = {key: text.format(model, more, plain=plain) for key, text in PLACES[place].items()}
        path = tmp_path / "space.yaml"
        path.write_text(SPACE.format(data=review_csv, **(parts | own)), encoding="utf-8")
        return path

    return made


def check_refused(space: Path, home: Path, *commands: str) -> None:
    for command in commands:
        done = CliRunner().invoke(
            main, [command, str(space), "--home", str(home)], input="y\n" * 20
        )
        assert done.exit_code == 1, done.output
        assert done.stderr.count("\n") == 1, done.stderr
        assert "trust_remote_code: true" in done.stderr


@pytest.mark.parametrize("place", PLACES)
def test_no_model_that_a_space_names_runs_its_own_code(
    place: str,
    space_with: Callable[..., Path],
    plant: Callable[..., Path],
    mark: Path,
    tmp_path: Path,
) -> None:
    check_refused(space_with(place, plant()), tmp_path / "home", "plan", "run")
    assert not mark.exists()


def test_no_model_runs_its_own_code_wherever_it_comes_from(
    space_with: Callable[..., Path],
    plant: Callable[..., Path],
    mark: Path,
    tmp_path: Path,
    hub_here: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = tmp_path / "packages" / "planted_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    folder = plant()
    shutil.copytree(folder, package / "model")
    monkeypatch.syspath_prepend(package.parent)
    hub_here.add_model("someone/own", folder)
    for source in ("package://planted_package/model", "someone/own"):
        for place in ("student", "masked_lm"):
            check_refused(space_with(place, source), tmp_path / "home", "plan")
    check_refused(space_with("teacher", "someone/own"), tmp_path / "home", "advise")
    assert not mark.exists()


@pytest.mark.parametrize("place", ["student", "teacher", "masked_lm"])
def test_a_space_that_says_so_lets_the_code_run(
    place: str,
    space_with: Callable[..., Path],
    plant: Callable[..., Path],
    mark: Path,
    tmp_path: Path,
) -> None:
    folder = plant()
    if place == "masked_lm":
        own = (folder / "config.json").read_text()
        BertForMaskedLM(BertConfig(**json.loads(own))).save_pretrained(folder)
        (folder / "config.json").write_text(own)
    space = space_with(place, folder, ", trust_remote_code: true")
    done = CliRunner().invoke(main, ["plan", str(space), "--home", str(tmp_path / "home")])
    assert done.exit_code == 0, done.output
    assert mark.exists()


# --- whatever the form, and whoever loads ---


LOADERS: dict[str, Callable[[str], object]] = {
    "config": load_config,
    "tokenizer": load_tokenizer,
    "labels": own_labels,
    "classifier": lambda source: load_classifier(source, ("neg", "pos")),
    "masked_lm": load_masked_lm,
    "described": lambda source: describe_model(source, ("neg", "pos")),
    "described masked_lm": describe_masked_lm,
    "new": lambda source: new_model(StudentSettings(model=source), ("neg", "pos"), source),
    "served": load_student,
}


@pytest.mark.parametrize("form", ["config", "elsewhere", "nested", "tokenizer"])
def test_no_form_of_own_code_runs(form: str, plant: Callable[..., Path], mark: Path) -> None:
    folder = plant(form)
    refused = set()
    for name, load in LOADERS.items():
        try:
            load(str(folder))
        except ModelError as error:
            refused |= {name} if "trust_remote_code: true" in str(error) else set()
        assert not mark.exists(), name
    if form in ("config", "elsewhere"):
        # The tokenizer is one of transformers' own.
        assert refused == set(LOADERS) - {"tokenizer"}
    if form == "nested":
        # transformers doesn't hand on what it was told about the outer model.
        assert {"classifier", "new", "served"} <= refused


# --- what was planted later ---


def test_a_cached_teacher_does_not_consent_to_its_own_code(
    tiny: Callable[..., str], review_csv: Path, mark: Path, tmp_path: Path
) -> None:
    task = TaskSettings(dataset=str(review_csv), text="text", label="label", holdout=0.2)
    settings = TeacherSettings(model=tiny("bert"), training=TRAINING)
    folder = prepare_teacher(task, settings, tmp_path).folder
    config = json.loads((folder / "config.json").read_text())
    own = {"model_type": "own-code", "auto_map": CLASSES}
    (folder / "config.json").write_text(json.dumps(config | own))
    facts = json.loads((folder / "teacher.json").read_text())
    (folder / "teacher.json").write_text(json.dumps(facts | {"trust_remote_code": True}))
    (folder / "own.py").write_text(OWN_CODE.format(mark=str(mark)))
    found = cached_teacher(task, settings, tmp_path)
    assert found is not None
    with pytest.raises(ModelError, match=REFUSED):
        frozen_teacher(found, ("neg", "pos"), CLASSIFICATION)
    tokenizer_of(found)
    assert not mark.exists()


@pytest.mark.parametrize("place", ["dataset", "unlabelled"])
def test_no_folder_of_rows_runs_a_script(
    place: str, tmp_path: Path, tiny: Callable[..., str], review_csv: Path, mark: Path
) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    write_csv(rows / "train.csv", sentences(90, seed=3))
    (rows / "rows.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    plain = f'{{model: "{tiny("bert", layers=2)}"}}'
    text = SPACE.format(data=review_csv, teacher=plain, student=plain, more="")
    if place == "dataset":
        text = text.replace(str(review_csv), str(rows))
    else:
        more = f'holdout: 0.2, unlabelled: {{dataset: "{rows}", text: text, split: train}}'
        text = text.replace("holdout: 0.2", more)
    (tmp_path / "space.yaml").write_text(text, encoding="utf-8")
    command = ["plan", str(tmp_path / "space.yaml"), "--home", str(tmp_path / "home")]
    done = CliRunner().invoke(main, command, input="y\n" * 20)
    assert done.exit_code == 0, done.output
    assert not mark.exists()


# --- the source ---


MUST_SAY = {
    "from_pretrained": "trust_remote_code",
    "from_config": "trust_remote_code",
    "torch.load": "weights_only",
}
NEVER = {"pickle.load", "pickle.loads", "read_pickle", "cloudpickle", "yaml.load", "pipeline"}


def test_every_call_that_can_load_code_says_whether_it_may() -> None:
    found = set()
    for file in sorted((Path(__file__).parents[1] / "kdsweep").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            last = called.rpartition(".")[2]
            assert called not in NEVER and last not in NEVER, f"{file}:{node.lineno}: {called}"
            for name, keyword in MUST_SAY.items():
                if name in (called, last):
                    found.add(name)
                    given = {one.arg for one in node.keywords}
                    assert keyword in given, f"{file}:{node.lineno}: {called} without {keyword}"
    assert found == set(MUST_SAY)
