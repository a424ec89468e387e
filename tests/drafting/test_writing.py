"""`kdsweep init`: `kdsweep plan` accepts what it writes, for each kind of data and label."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from click.testing import CliRunner
from conftest import sentences, write_csv
from made_up_rows import TAGS, Ask, drafted, drafts_in, flag, tags, tickets

from kdsweep.cli import main
from kdsweep.config import load_space
from kdsweep.config.loading import parse_yaml
from kdsweep.drafting.space_file import scalar
from kdsweep.errors import KdsweepError

HOSTILE = 'the: «message», [a] {b} #1\'s "text"\\'


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    return drafts_in(tmp_path, monkeypatch)


def plan(space: Path, tiny: Callable[..., str], home: Path) -> dict[str, Any]:
    models = (
        "--set",
        f"teacher.model={tiny('bert', layers=2)}",
        "--set",
        f"student.model={tiny('bert', layers=2)}",
        "--set",
        "training.max_length=24",
    )
    done = CliRunner().invoke(main, ["plan", str(space), "--home", str(home), "--json", *models])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def as_csv(folder: Path, frame: pandas.DataFrame) -> str:
    frame.to_csv(folder / "rows of «May» #1.csv", index=False)
    return "rows of «May» #1.csv"


def as_tsv(folder: Path, frame: pandas.DataFrame) -> str:
    frame.to_csv(folder / "rows.tsv", index=False, sep="\t")
    return "rows.tsv"


def as_json(folder: Path, frame: pandas.DataFrame) -> str:
    frame.to_json(folder / "rows.json", orient="records")
    return "rows.json"


def as_jsonl(folder: Path, frame: pandas.DataFrame) -> str:
    frame.to_json(folder / "rows.jsonl", orient="records", lines=True)
    return "rows.jsonl"


def as_parquet(folder: Path, frame: pandas.DataFrame) -> str:
    frame.to_parquet(folder / "rows.parquet")
    return "rows.parquet"


def as_folder(folder: Path, frame: pandas.DataFrame) -> str:
    (folder / "data").mkdir()
    frame[:220].to_csv(folder / "data" / "train.csv", index=False)
    frame[220:260].to_csv(folder / "data" / "dev.csv", index=False)
    frame[260:].to_csv(folder / "data" / "test.csv", index=False)
    return "data"


def as_saved_dataset(folder: Path, frame: pandas.DataFrame) -> str:
    import datasets

    whole = datasets.Dataset.from_pandas(frame, preserve_index=False).class_encode_column("label")
    split = whole.train_test_split(0.2, seed=0)
    datasets.DatasetDict(train=split["train"], validation=split["test"]).save_to_disk(
        str(folder / "saved")
    )
    return "saved"


@pytest.mark.parametrize(
    "write", [as_csv, as_tsv, as_json, as_jsonl, as_parquet, as_folder, as_saved_dataset]
)
def test_plan_accepts_the_space_for_every_kind_of_data(
    write: Callable[[Path, pandas.DataFrame], str],
    tmp_path: Path,
    tiny: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write(
        tmp_path, pandas.DataFrame(sentences(300), columns=["text", "label"]).assign(id=range(300))
    )
    (tmp_path / "spaces").mkdir()
    done = CliRunner().invoke(main, ["init", data, "spaces/mine.yaml", "--name", "mine"])
    assert done.exit_code == 0, done.output
    assert "kdsweep plan spaces/mine.yaml" in done.stdout
    monkeypatch.chdir("/")
    facts = plan(tmp_path / "spaces" / "mine.yaml", tiny, tmp_path / "home")
    assert facts["task"]["labels"] == ["neg", "pos"]
    assert facts["sweep"] == "mine"
    assert set(facts["studies"]) == {"finetune", "distill", "combined", "distill_then_finetune"}
    assert not (tmp_path / "home").exists()


def as_fractions(folder: Path, draw: random.Random) -> str:
    return as_csv(
        folder,
        pandas.DataFrame([{"text": text, "score": draw.random()} for text, _ in sentences(300)]),
    )


def as_lists(folder: Path, draw: random.Random) -> str:
    return as_parquet(
        folder,
        pandas.DataFrame([{"text": text, "tags": tags(draw, 0)} for text, _ in sentences(300)]),
    )


def as_booleans(folder: Path, draw: random.Random) -> str:
    return as_csv(
        folder,
        pandas.DataFrame(
            [
                {"text": text, "#1": bool(flag(draw, 0)), "yes, no": bool(flag(draw, 0))}
                for text, _ in sentences(300)
            ]
        ),
    )


@pytest.mark.parametrize(
    ("write", "labels"),
    [(as_fractions, ["score"]), (as_lists, sorted(TAGS)), (as_booleans, ["#1", "yes, no"])],
    ids=["fractions", "lists", "booleans"],
)
def test_plan_accepts_the_space_for_every_kind_of_label(
    write: Callable[[Path, random.Random], str],
    labels: list[str],
    tmp_path: Path,
    tiny: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(
        main, ["init", write(tmp_path, random.Random(0)), "mine.yaml", "--name", "mine"]
    )
    assert done.exit_code == 0, done.output
    facts = plan(tmp_path / "mine.yaml", tiny, tmp_path / "home")
    assert facts["task"]["labels"] == labels
    assert set(facts["studies"]) == {"finetune", "distill", "combined", "distill_then_finetune"}


def test_names_and_paths_with_a_meaning_in_yaml_survive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "it's: «data», {1} #2"
    folder.mkdir()
    write_csv(folder / "- rows, [x].csv", sentences(200), header=(HOSTILE, "yes"))
    facts = drafted(f"{folder.name}/- rows, [x].csv", name="on")
    task = load_space(tmp_path / "space.yaml").task
    assert task.text == (HOSTILE,)
    assert task.label == "yes"
    assert task.dataset == str(folder / "- rows, [x].csv")
    assert facts["task"]["text"] == HOSTILE


@pytest.mark.parametrize(
    "text",
    [
        "true",
        "no",
        "1.5",
        "null",
        "~",
        "a b",
        "x: y",
        "#",
        "- a",
        "\u2028",
        "\x85",
        "\ufeff",
        "😀",
        "a\nb",
        "'",
        '"',
        "\\",
        ".5",
        ".inf",
        "...",
        "",
    ],
)
def test_a_scalar_reads_back_unchanged(text: str) -> None:
    assert parse_yaml(f"a: [{scalar(text)}, {{b: {scalar(text)}}}]\nc: {scalar(text)}\n", "x")[
        0
    ] == {"a": [text, {"b": text}], "c": text}


def test_no_file_is_overwritten_and_no_folder_is_made(ask: Ask) -> None:
    ask(tickets())
    before = Path("space.yaml").read_text()
    with pytest.raises(KdsweepError, match="exists already"):
        drafted("rows.csv")
    assert Path("space.yaml").read_text() == before
    with pytest.raises(KdsweepError, match="no folder"):
        drafted("rows.csv", "nowhere/space.yaml")
