"""The best student in MLflow's registry: MLflow loads and serves it. A task of sentence pairs."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import copy_model, sentences, write_csv
from transformers import pipeline

from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.rows import Split
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.core.evaluation.predict import predict
from kdsweep.core.files import read_json, write_json
from kdsweep.errors import DataError, ModelError
from kdsweep.export import export
from kdsweep.predict.request import Request
from kdsweep.predict.writing import predict as predict_file
from kdsweep.serving import _load_pyfunc, load, write_settings
from kdsweep.sweep.folders import Home

PAIRS = """\
name: pairs
task: {{dataset: "{data}", text: [premise, hypothesis], label: label, holdout: 0.2}}
student: {{model: "{student}", layers: 1}}
training:
  {{epochs: 2, batch_size: 16, max_length: 20, evaluations_per_epoch: 1, precision: fp32}}
strategies:
  finetune: {{alpha: 1.0, learning_rate: 2.0e-3}}
"""
ASSIGNMENTS = (
    "trials=1",
    "pruner={type: none}",
    "confirm={seeds: 1, finalists: 1}",
    "keep={students: 1}",
    "engine={type: inline}",
)


@pytest.fixture(scope="module")
def swept(
    tmp_path_factory: pytest.TempPathFactory,
    tiny: Callable[..., str],
    finished_sweep: Callable[..., Any],
) -> Home:
    """A finished sweep of pairs.

    Its student, a DistilBERT, has no token types, though its tokenizer would give some.
    """
    folder = tmp_path_factory.mktemp("serving")
    draw = random.Random(0)
    rows = [
        (" ".join(text.split()[:3]), " ".join(draw.sample(text.split(), 4)), label)
        for text, label in sentences(200)
    ]
    header = ("premise", "hypothesis", "label")
    data = write_csv(folder / "pairs.csv", rows, header=header)  # type: ignore[arg-type]
    (folder / "pairs.yaml").write_text(
        PAIRS.format(data=data, student=tiny("distilbert")), encoding="utf-8"
    )
    home: Home = finished_sweep(folder / "pairs.yaml", *ASSIGNMENTS)
    return home


@pytest.fixture
def tracking(swept: Home) -> Any:
    """Points MLflow's own functions at the home."""
    uri = swept.tracking_uri("sqlite")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(before)


ASKED = [
    {"premise": "the film was superb", "hypothesis": "a great plot"},
    {"premise": "dull", "hypothesis": "the actor was poor and weak and stale and awful"},
]


# --- MLflow loads and serves it ---


def test_mlflow_loads_the_best_student_and_it_predicts_like_its_export(
    swept: Home, tracking: str, tmp_path: Path
) -> None:
    model = mlflow.pyfunc.load_model("models:/pairs@best")
    assert model.metadata.get_output_schema().input_names() == ["label", "score"]
    answers = model.predict(ASKED)
    assert answers["label"].isin(["neg", "pos"]).all()
    assert list(answers.columns) == ["label", "score"]
    frame = pd.DataFrame(ASKED, index=[7, 9]).assign(number=[1, 2])
    pd.testing.assert_frame_equal(model.predict(frame), answers.set_index(frame.index))
    pd.testing.assert_frame_equal(
        model.predict([[row["premise"], row["hypothesis"]] for row in ASKED]), answers
    )

    facts = export(swept, "pairs", tmp_path / "student")
    assert not (tmp_path / "student" / "MLmodel").exists()
    pd.testing.assert_frame_equal(load(facts.folder).predict(ASKED), answers)
    classify = pipeline("text-classification", model=str(facts.folder), device="cpu")
    piped = [
        classify({"text": row["premise"], "text_pair": row["hypothesis"]}, truncation=True)
        for row in ASKED
    ]
    assert [answer["label"] for answer in piped] == answers["label"].tolist()
    np.testing.assert_allclose([answer["score"] for answer in piped], answers["score"], atol=1e-5)


def test_predict_reads_pairs_by_their_columns(swept: Home, tmp_path: Path) -> None:
    frame = pd.DataFrame(ASKED).iloc[:, ::-1]
    frame.to_parquet(tmp_path / "pairs.parquet")
    found = predict_file(swept, "pairs", Request(tmp_path / "pairs.parquet"))
    served = load(export(swept, "pairs", tmp_path / "student").folder).predict(ASKED)
    written = pd.read_parquet(found.out)
    assert list(written.columns[:2]) == ["hypothesis", "premise"]
    assert written["prediction"].tolist() == served["label"].tolist()
    np.testing.assert_allclose(written.iloc[:, -2:].max(axis=1), served["score"], atol=2e-6)


@pytest.mark.slow
def test_mlflow_serves_the_best_student(swept: Home, tracking: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        "models:/pairs@best",
        "--env-manager",
        "local",
        "--host",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": tracking,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=swept.root, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/ping", server, tmp_path / "log")
        served = [
            _post(f"http://127.0.0.1:{port}/invocations", body)
            for body in (
                {"dataframe_records": ASKED},
                {
                    "dataframe_split": {
                        "columns": ["premise", "hypothesis"],
                        "data": [list(row.values()) for row in ASKED],
                    }
                },
                {"inputs": {name: [row[name] for row in ASKED] for name in ASKED[0]}},
                {"instances": ASKED},
            )
        ]
        with pytest.raises(urllib.error.HTTPError) as refused:
            _post(
                f"http://127.0.0.1:{port}/invocations",
                {"dataframe_records": [{"premise": "alone", "other": 1, "more": 2}]},
            )
        assert refused.value.code == 400
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(120)
    answers = mlflow.pyfunc.load_model("models:/pairs@best").predict(ASKED)
    for predictions in served:
        assert [row["label"] for row in predictions] == answers["label"].tolist()
        np.testing.assert_allclose(
            [row["score"] for row in predictions], answers["score"], atol=1e-6
        )


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the server didn't answer: {log.read_text(encoding='utf-8')}")


def _post(address: str, body: Any) -> list[dict[str, Any]]:
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        predictions: list[dict[str, Any]] = json.load(answer)["predictions"]
        return predictions


# --- what a student reads ---


@pytest.fixture(scope="module")
def student(tiny: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's folder as MLflow keeps it; the student reads one text."""
    folder = tmp_path_factory.mktemp("student") / "student"
    shutil.copytree(tiny("bert", labels=3), folder)
    config = read_json(folder / "config.json")
    write_json(
        folder / "config.json",
        config
        | {
            "id2label": {"0": "bad", "1": "so-so", "2": "good"},
            "label2id": {"bad": 0, "so-so": 1, "good": 2},
        },
    )
    write_json(folder / "kdsweep.json", {"text": ["review"], "max_length": 12})
    return folder


def test_predictions_are_those_of_the_evaluation_in_the_order_of_the_rows(
    student: Path, tmp_path: Path
) -> None:
    classifier, texts = load(student), [text for text, _ in sentences(70)]
    tokens = tokenize_split(
        Split("x", (texts,), np.zeros(70, dtype=np.int64), "x"),
        classifier.tokenizer,
        InputFormat(12, token_types=True),
        cache=tmp_path,
    )
    logits = predict(classifier.model, tokens, classifier.model.dtype)
    probabilities = classifier.kind.probabilities(logits)
    answers = classifier.predict(texts)
    assert answers["label"].tolist() == [
        ["bad", "so-so", "good"][i] for i in probabilities.argmax(axis=1)
    ]
    np.testing.assert_allclose(answers["score"], probabilities.max(axis=1), atol=1e-6)


def test_texts_can_come_in_any_usual_form(student: Path) -> None:
    classifier = load(student)
    # The last text is longer than what the student reads.
    texts = ["the film was superb", "dull", "the " * 60]
    expected = classifier.predict(texts)
    index = pd.Index(["a", "b", "c"])
    frame = pd.DataFrame({"id": [1, 2, 3], "review": texts}, index=index)
    for given in (
        tuple(texts),
        np.array(texts),
        np.array(texts).reshape(-1, 1),
        [{"review": text} for text in texts],
        {"review": texts},
        pd.Series(texts),
    ):
        pd.testing.assert_frame_equal(classifier.predict(given), expected)
    for given in (
        frame,
        frame["review"],
        frame[["review"]].rename(columns={"review": "anything"}),
        frame.rename(columns={"review": "text"}),
    ):
        pd.testing.assert_frame_equal(classifier.predict(given), expected.set_index(index))
    pd.testing.assert_frame_equal(classifier.predict(texts[0]), expected[:1], atol=1e-6)
    assert list(classifier.predict([]).columns) == ["label", "score"]
    assert len(classifier.predict(frame[:0])) == 0


def test_input_without_texts_is_refused(student: Path) -> None:
    classifier = load(student)
    for given, words in (
        ([1.5], "1.5 is no text"),
        ([None], "None is no text"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), "no column 'review', only"),
        (3, "int is nothing to classify"),
        ([["a", "b"]], "is no text"),
    ):
        with pytest.raises(DataError, match=words):
            classifier.predict(given)


def test_threads_get_the_predictions_for_their_own_texts(student: Path) -> None:
    classifier, texts = load(student), [text for text, _ in sentences(24)]
    expected = [classifier.predict([text])["score"][0] for text in texts]
    found: dict[int, float] = {}

    def ask(i: int) -> None:
        found[i] = classifier.predict([texts[i]])["score"][0]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(len(texts))] == expected


def test_serving_needs_no_mlflow() -> None:
    code = (
        "import sys, kdsweep.serving; "
        "assert not {'mlflow', 'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


OWN_CODE = """\
from transformers import BertConfig, BertForSequenceClassification


class OwnConfig(BertConfig):
    model_type = "own-code"


class OwnClassifier(BertForSequenceClassification):
    config_class = OwnConfig
"""


def test_a_student_with_its_own_code_is_served_where_the_user_consented(
    tiny: Callable[..., str], tmp_path: Path
) -> None:
    folder = copy_model(
        tiny("bert", labels=2),
        tmp_path / "own",
        model_type="own-code",
        auto_map={
            "AutoConfig": "own.OwnConfig",
            "AutoModelForSequenceClassification": "own.OwnClassifier",
        },
    )
    (folder / "own.py").write_text(OWN_CODE)
    with pytest.raises(ModelError, match="code of its own, which is not run"):
        load(folder)
    rows = ["the film was fine", "a dull plot"]
    expected = load(folder, trust_remote_code=True).predict(rows)
    # MLflow loads a student that a sweep made with consent, and no other one.
    with pytest.raises(ModelError, match="code of its own, which is not run"):
        _load_pyfunc(str(folder))
    write_settings(folder, text=["text"], max_length=24, trust_remote_code=True)
    assert _load_pyfunc(str(folder)).predict(rows).equals(expected)
    with pytest.raises(ModelError, match="code of its own, which is not run"):
        load(folder)
