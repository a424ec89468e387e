"""Tiny real models and data, made by the tests: random weights, a vocabulary of their own, and
sentences whose words decide the label.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from packed_home import unpack
from sweep_processes import Sweep

pytest_plugins = ["servers", "fine_tuned_teacher", "hub.fixtures"]

# Several files of tests run at once, so that a second thread only waits for a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Ray's workers would leave the cores to the tests that run beside them.
os.environ.setdefault("RAY_worker_niceness", "0")
# No test uses the network.
os.environ["HF_HUB_OFFLINE"] = "1"
# Under nohup a process ignores SIGHUP, and so would every sweep that a test starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The longest files start first, so that no process waits for another one at the end.
LONGEST = [
    "test_ray_faults.py",
    "test_slurm.py",
    "test_cluster.py",
    "test_ray_daemons.py",
    "test_faults.py",
    "test_run.py",
    "test_cut_network.py",
    "test_out_of_memory.py",
    "test_confirm.py",
    "test_cli.py",
    "test_postgresql.py",
    "test_full_disk.py",
    "test_smoke.py",
    "test_passwords.py",
    "test_terminals.py",
    "test_ray.py",
]

GOOD = ["fine", "great", "lovely", "superb", "warm"]
BAD = ["awful", "dull", "poor", "stale", "weak"]
PLAIN = ["the", "film", "plot", "actor", "scene", "was", "is", "and", "a", "very"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *PLAIN, "yes", "no", "##s"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(
        key=lambda item: (
            LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST)
        )
    )


def others_slow(values: Sequence[Any]) -> list[Any]:
    """Values to parametrize with: the first in `make test`, the others in `make test-slow`."""
    return [values[0], *(pytest.param(value, marks=pytest.mark.slow) for value in values[1:])]


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(text, label) rows; the label is `pos` or `neg` and can be learned from single words."""
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        label = "pos" if i % 2 else "neg"
        words = [draw.choice(PLAIN) for _ in range(draw.randint(1, 6))] + [
            draw.choice(GOOD if label == "pos" else BAD) for _ in range(3)
        ]
        draw.shuffle(words)
        rows.append((" ".join(words), label))
    return rows


def write_csv(
    path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("text", "label")
) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def file_times(*folders: Path) -> dict[Path, int]:
    """Every file under these folders with the time when it was last written.

    Equal before and after some work, they show that the work wrote nothing there.
    """
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return {file: file.stat().st_mtime_ns for file in files}


def make_tokenizer(vocabulary: list[str]) -> Any:
    """A fast WordPiece tokenizer that reads BERT's way."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def make_model(
    folder: Path,
    family: str = "bert",
    *,
    layers: int = 2,
    hidden: int = 32,
    labels: int | None = None,
    words: list[str] | None = None,
) -> Path:
    """A model folder of `family` with random weights and a WordPiece tokenizer.

    With `labels` it is a classifier.
    """
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    vocabulary = words or WORDS
    fast = make_tokenizer(vocabulary)
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_attention_heads": 2,
        "num_hidden_layers": layers,
    }
    if family == "distilbert":
        sizes = {"dim": hidden, "hidden_dim": 2 * hidden, "n_heads": 2, "n_layers": layers}
    if family == "electra":
        sizes["embedding_size"] = hidden
    # Weights of the usual 0.02 would leave so small a model deaf: it would need thousands of steps.
    config = AutoConfig.for_model(
        family,
        vocab_size=len(vocabulary),
        max_position_embeddings=66,
        pad_token_id=0,
        initializer_range=0.2,
        **sizes,
    )
    if labels:
        config.num_labels = labels
    torch.manual_seed(0)
    model = (AutoModelForSequenceClassification if labels else AutoModel).from_config(config)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """tiny(family, layers=..., ...) -> the folder of a model, made once a session."""
    made: dict[tuple, Path] = {}

    def build(family: str = "bert", **sizes: Any) -> str:
        key = (family, *((name, str(value)) for name, value in sorted(sizes.items())))
        if key not in made:
            made[key] = make_model(tmp_path_factory.mktemp(family), family, **sizes)
        return str(made[key])

    return build


def copy_model(source: str, folder: Path, **config: object) -> Path:
    """A copy of a model's folder, with these keys of its config changed."""
    shutil.copytree(source, folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return folder


@pytest.fixture(scope="session")
def without_dropout(tiny: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT of two layers without dropout, so that how a batch is cut makes no difference."""
    folder = tmp_path_factory.mktemp("models") / "no dropout"
    nothing = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return str(copy_model(tiny("bert", layers=2), folder, **nothing))


@pytest.fixture(scope="session")
def review_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 rows that a tiny model learns within seconds."""
    return write_csv(tmp_path_factory.mktemp("data") / "reviews.csv", sentences(300))


# Rows for `task.unlabelled` that share no text with `review_csv`.
UNLABELLED_ROWS = [(f"{text} film", "") for text, _ in sentences(90, seed=7)]


@pytest.fixture(scope="session")
def unlabelled_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """UNLABELLED_ROWS, 60 from the source "here" and 30 from "there", and 10 texts of `review_csv`
    with other case and white space, from "here".
    """
    rows = [
        (text, label, "here" if i < 60 else "there")
        for i, (text, label) in enumerate(UNLABELLED_ROWS)
    ]
    own = [(f" {text.upper()} ", "", "here") for text, _ in sentences(10)]
    path = tmp_path_factory.mktemp("more") / "more.csv"
    return write_csv(path, rows + own, ("text", "label", "source"))


SPACE = """\
name: tiny
task: {{dataset: "{data}", text: text, label: label, holdout: 0.2}}
teacher:
  model: "{teacher}"
  training:
    {{epochs: 4, batch_size: 16, learning_rate: 2.0e-3, max_length: 24, precision: fp32}}
student: {{model: "{student}", layers: 1}}
training:
  {{epochs: 2, batch_size: 16, max_length: 24, evaluations_per_epoch: 2, precision: fp32}}
strategies:
  finetune:
    alpha: 1.0
    learning_rate: {{low: 2.0e-4, high: 3.0e-3, log: true}}
    start_with: [{{learning_rate: 1.0e-3}}]
  distill:
    alpha: {{low: 0.0, high: 1.0}}
    temperature: {{low: 1.0, high: 10.0}}
    learning_rate: {{low: 2.0e-4, high: 3.0e-3, log: true}}
    start_with: [{{alpha: 0.5, temperature: 4.0, learning_rate: 1.0e-3}}]
  combined:
    alpha:
      any_of:
        - {{shape: per_epoch, values: [0.7, 0.5, 0.3], after: 0.2}}
        - {{shape: linear, start: {{low: 0.0, high: 0.5}}, end: {{low: 0.5, high: 1.0}}}}
    temperature:
      any_of:
        - {{low: 1.0, high: 10.0}}
        - {{shape: linear, start: {{low: 4.0, high: 10.0}}, end: 1.0}}
    learning_rate: {{low: 2.0e-4, high: 3.0e-3, log: true}}
"""


@pytest.fixture(scope="session")
def plain_trial(tiny: Callable[..., str], review_csv: Path) -> dict[str, Any]:
    """The settings of a short distilling trial; tests change what they are about."""
    return {
        "task": {"dataset": str(review_csv), "text": "text", "label": "label", "holdout": 0.2},
        "teacher": {
            "model": tiny("bert", layers=2),
            "training": {"epochs": 4, "batch_size": 16, "learning_rate": 2e-3, "max_length": 24},
        },
        "student": {"model": tiny("bert", layers=2), "layers": 1},
        "training": {"epochs": 2, "batch_size": 16, "max_length": 24},
        "alpha": 0.5,
        "temperature": 3.0,
        "learning_rate": 2e-3,
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a module's trials share: rows, tokens, teachers and their logits."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny_space(tmp_path: Path, tiny: Callable[..., str], review_csv: Path) -> Path:
    """A space whose sweep takes seconds."""
    path = tmp_path / "tiny.yaml"
    path.write_text(
        SPACE.format(
            data=review_csv, teacher=tiny("bert", layers=2), student=tiny("bert", layers=2)
        ),
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="session")
def space(
    tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., str], review_csv: Path
) -> Path:
    path = (
        tmp_path_factory.mktemp("space's «folder»") / "tiny.yaml"
    )  # a path with a space, a quote and letters beyond ASCII
    path.write_text(
        SPACE.format(
            data=review_csv, teacher=tiny("bert", layers=2), student=tiny("bert", layers=2)
        ),
        encoding="utf-8",
    )
    return path


@pytest.fixture
def sweep(space: Path) -> Any:
    """sweep(home, *assignments) starts one; what is left of it is killed at the end."""
    started: list[Sweep] = []

    def start(home: Path, *assignments: str) -> Sweep:
        started.append(Sweep(space, home, assignments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.kill()


@pytest.fixture(scope="session")
def empty_mlflow_db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database as MLflow makes it: seconds of migrations, the same each time."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def only_readable() -> Iterator[Callable[[Path], None]]:
    """only_readable(path) makes a file or a folder one that can only be read, for root too."""
    mounted: list[Path] = []

    def mount(path: Path) -> None:
        command = ["mount", "--bind", str(path), str(path)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount a folder read-only")
        mounted.append(path)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(path)], check=True)

    yield mount
    for path in reversed(mounted):
        # Databases may still be open.
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture(scope="module")
def finished_sweep(empty_mlflow_db: Path) -> Callable[..., Any]:
    """finished_sweep(space, *assignments) runs a sweep in a home next to it; returns the home."""

    def sweep(space: Path, *assignments: str) -> Any:
        from kdsweep.sweep import run
        from kdsweep.sweep.folders import Home

        home = Home(space.parent / "home")
        home.root.mkdir()
        shutil.copy(empty_mlflow_db, home.mlflow_db)
        run(space, home=home.root, assignments=assignments)
        return home

    return sweep


@pytest.fixture(scope="module")
def two_strategies(
    tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., str]
) -> Callable[[str, int], Path]:
    """two_strategies(name, rows): a space without `combined`, with data of its own.

    Its folder has a name with a quote, letters beyond ASCII, and what means something in a URL.
    """

    def space(name: str, rows: int) -> Path:
        folder = tmp_path_factory.mktemp(f"{name}'s «50%2F?#folder»")
        data = write_csv(folder / "reviews.csv", sentences(rows))
        text = SPACE.format(
            data=data, teacher=tiny("bert", layers=2), student=tiny("bert", layers=2)
        )
        (folder / "tiny.yaml").write_text(text.split("  combined:")[0], encoding="utf-8")
        return folder / "tiny.yaml"

    return space


@pytest.fixture
def old_home(tmp_path: Path) -> Path:
    """A folder with a home that kdsweep 0.1.0 wrote, its spaces, models and data: a fresh copy."""
    return unpack(Path(__file__).parent / "fixtures" / "home-0.1.0.tar.gz", tmp_path / "old")


@pytest.fixture(autouse=True)
def _home_with_an_empty_mlflow_db(request: pytest.FixtureRequest) -> None:
    """Sweeps that write into `tmp_path` find MLflow's database there: making one takes seconds."""
    folders = request.path.relative_to(Path(__file__).parent).parts
    runs_sweeps = {"sweep", "housekeeping"} & set(folders)
    if runs_sweeps and "tmp_path" in request.fixturenames:
        shutil.copy(
            request.getfixturevalue("empty_mlflow_db"),
            request.getfixturevalue("tmp_path") / "mlflow.db",
        )
