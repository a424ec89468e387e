"""Rows, splits, tokens and models."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_model, sentences, write_csv

from kdsweep.core.data.batches import batches, evaluation_batches
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import TaskData
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.core.models.inputs import check_length, reads_token_types
from kdsweep.core.models.layers import keep_layers, kept_layers
from kdsweep.core.models.loading import load_classifier, load_tokenizer
from kdsweep.core.models.student import load_student
from kdsweep.core.settings import StudentSettings, TaskSettings
from kdsweep.errors import DataError, ModelError


def load(dataset: object, **more: Any) -> TaskData:
    return load_task(
        TaskSettings(
            **(
                {
                    "dataset": str(dataset) if isinstance(dataset, Path) else dataset,
                    "text": "text",
                    "label": "label",
                }
                | more
            )
        )
    )


def rows_of(data: TaskData) -> dict[str, set[str]]:
    return {name: set(split.texts[0]) for name, split in data.splits.items()}


def test_a_users_csv_with_commas_quotes_emoji_and_empty_texts(tmp_path: Path) -> None:
    rows = [
        (f'film {i}, "quoted" 🎬\nsecond line', ["so-so", "bad", "good"][i % 3]) for i in range(120)
    ]
    data = load(
        write_csv(
            tmp_path / "a.csv",
            [*rows, ("", "bad"), ("   ", "good"), ("NA", "good"), ("null", "bad")],
        ),
        holdout=0.2,
    )
    assert data.label_names == ("bad", "good", "so-so")
    assert sum(len(split) for split in data.splits.values()) == 122
    assert any("2 of 124 rows dropped" in note for note in data.notes)
    assert {"NA", "null"} <= set().union(*rows_of(data).values())
    for split in data.splits.values():
        for text, label in zip(split.texts[0], split.labels, strict=True):
            if text.startswith("film"):
                assert data.label_names[label] == dict(rows)[text]


def test_no_text_is_in_two_splits_not_even_in_another_case(tmp_path: Path) -> None:
    rows = sentences(200)
    doubled = rows + [(text.upper() + "  ", label) for text, label in rows]
    data = load(write_csv(tmp_path / "a.csv", doubled), holdout=0.2)
    folded = {
        name: {" ".join(text.split()).casefold() for text in texts}
        for name, texts in rows_of(data).items()
    }
    assert not folded["train"] & folded["validation"]
    assert not folded["train"] & folded["test"]
    assert not folded["validation"] & folded["test"]


def test_named_splits_lose_the_rows_that_they_share_with_test_and_say_so(tmp_path: Path) -> None:
    rows = [(f"{text} {i}", label) for i, (text, label) in enumerate(sentences(100))]
    data = load(
        {
            "train": str(write_csv(tmp_path / "train.csv", rows)),
            "test": str(write_csv(tmp_path / "test.csv", rows[:30])),
        }
    )
    assert len(data.test) == 30
    assert not rows_of(data)["train"] & rows_of(data)["test"]
    assert any("30 rows dropped" in note for note in data.notes)


def test_splits_and_limits_depend_on_the_rows_not_on_their_order(tmp_path: Path) -> None:
    rows = [(f"{text} {i}", label) for i, (text, label) in enumerate(sentences(300))]
    shuffled = random.Random(3).sample(rows, len(rows))
    one = load(write_csv(tmp_path / "a.csv", rows), limit={"train": 50, "validation": 10})
    two = load(write_csv(tmp_path / "b.csv", shuffled), limit={"train": 50, "validation": 10})
    assert rows_of(one) == rows_of(two)
    assert (len(one.train), len(one.validation)) == (50, 10)


def test_every_file_format_gives_the_same_rows(tmp_path: Path) -> None:
    import pandas

    rows = [(f"{text} {i}", i % 2) for i, (text, _) in enumerate(sentences(60))]
    frame = pandas.DataFrame(rows, columns=["text", "label"])
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv", sep="\t", index=False)
    frame.to_json(tmp_path / "a.json", orient="records")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "a.parquet")
    keys = {
        load(tmp_path / f"a.{suffix}").key for suffix in ("csv", "tsv", "json", "jsonl", "parquet")
    }
    assert len(keys) == 1


def test_quotes_in_a_tab_separated_file_are_text(tmp_path: Path) -> None:
    lines = [f'"open quote {i}\t{i % 2}' for i in range(40)]
    (tmp_path / "a.tsv").write_text("text\tlabel\n" + "\n".join(lines) + "\n", encoding="utf-8")
    assert sum(len(split) for split in load(tmp_path / "a.tsv").splits.values()) == 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "lable"}, "did you mean 'label'"),
        ({"text": "txt"}, "did you mean 'text'"),
        ({"label": "text"}, "no label column"),
        ({"where": {"label": "nobody"}}, "nobody"),
        ({"splits": {"test": "test"}}, "one file"),
        ({"dataset": "./nowhere.csv"}, "no file"),
    ],
)
def test_mistakes_in_a_task_say_what_and_where(
    change: dict[str, Any], message: str, review_csv: Path
) -> None:
    with pytest.raises(DataError, match=message):
        load(**({"dataset": str(review_csv)} | change))


def test_labels_that_can_not_be_used_are_errors(tmp_path: Path) -> None:
    def texts(labels: list[object]) -> Path:
        return write_csv(
            tmp_path / f"{len(list(tmp_path.iterdir()))}.csv",
            [(f"text {i}", str(labels[i % len(labels)])) for i in range(90)],
        )

    with pytest.raises(DataError, match="-1"):
        load(texts([0, 1, -1]))
    with pytest.raises(DataError, match="same label"):
        load(texts(["yes"]))
    with pytest.raises(DataError, match="f1 is for 2 classes"):
        load(texts(["a", "b", "c"]), metric="f1")
    with pytest.raises(DataError, match="whole number"):
        load(texts([0.5, 1]))
    assert load(texts(["1.0", "0", "1"])).label_names == ("0", "1")
    (tmp_path / "latin.csv").write_bytes("text,label\ncafé,1\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        load(tmp_path / "latin.csv")


def test_tokens_are_made_once_and_pairs_are_told_apart_where_the_model_can(
    tmp_path: Path, tiny: Callable[..., str]
) -> None:
    rows = [(f"the film {'fine' if i % 2 else 'dull'}", f"a scene {i}", i % 2) for i in range(60)]
    path = write_csv(tmp_path / "pairs.csv", rows, ("text", "other", "label"))  # type: ignore[arg-type]
    data = load(path, text=["text", "other"])
    bert, distilbert = (
        load_classifier(tiny("bert"), data.label_names),
        load_classifier(tiny("distilbert"), data.label_names),
    )
    assert reads_token_types(bert)
    assert not reads_token_types(distilbert)
    tokenizer = load_tokenizer(tiny("bert"))
    first = tokenize_split(
        data.train, tokenizer, InputFormat(16, token_types=True), cache=tmp_path / "cache"
    )
    assert isinstance(first.input_ids, np.memmap)
    batch = first.batch(np.arange(4))
    whole = tokenizer(
        data.train.texts[0][:4],
        data.train.texts[1][:4],
        padding=True,
        return_tensors="np",
        return_token_type_ids=True,
    )
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert (batch[name] == whole[name]).all()
    assert batch["token_type_ids"].any()
    said: list[str] = []
    tokenize_split(
        data.train,
        tokenizer,
        InputFormat(16, token_types=True),
        cache=tmp_path / "cache",
        say=said.append,
    )
    assert not said
    assert tokenize_split(
        data.train, tokenizer, InputFormat(5, token_types=True), cache=tmp_path / "cache"
    ).truncated == len(data.train)


def test_an_epoch_has_every_row_once_in_batches_of_similar_length_as_a_function_of_seed_and_epoch() -> (
    None
):
    lengths = np.random.default_rng(0).integers(4, 60, 1000)
    epoch = batches(lengths, 16, seed=1, epoch=0)
    assert sorted(np.concatenate(epoch)) == list(range(1000))
    assert len(epoch) == 63
    again, other, seed = (
        batches(lengths, 16, 1, 0),
        batches(lengths, 16, 1, 1),
        batches(lengths, 16, 2, 0),
    )
    assert all((a == b).all() for a, b in zip(epoch, again, strict=True))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(epoch, other, strict=True))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(epoch, seed, strict=True))
    padded = sum(lengths[rows].max() * len(rows) for rows in epoch)
    assert padded < 1.1 * lengths.sum()
    assert sorted(np.concatenate(list(evaluation_batches(lengths, 512)))) == list(range(1000))
    assert all(lengths[rows].max() * len(rows) <= 512 for rows in evaluation_batches(lengths, 512))


def test_layers_are_evenly_spaced_with_the_first_and_the_last() -> None:
    assert kept_layers(12, 6, "x") == [0, 2, 4, 7, 9, 11]
    assert kept_layers(6, 6, "x") == [0, 1, 2, 3, 4, 5]
    assert kept_layers(12, 1, "x") == [0]
    with pytest.raises(ModelError, match="7 layers"):
        kept_layers(6, 7, "x")


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "mpnet", "electra"])
def test_kept_layers_are_the_source_s_own(family: str, tiny: Callable[..., str]) -> None:
    source = load_classifier(tiny(family, layers=4), ("a", "b"))
    small = keep_layers(source, [0, 3], family)
    assert small.config.num_hidden_layers == 2
    before, after = source.state_dict(), small.state_dict()
    for name, tensor in after.items():
        origin = name.replace("layer.1.", "layer.3.") if "layer.1." in name else name
        assert torch.equal(tensor, before[origin]), name
    assert (
        len([name for name in after if "layer.1." in name])
        == len([name for name in before if "layer.3." in name])
        > 0
    )
    assert torch.isfinite(small(input_ids=torch.tensor([[2, 6, 7, 3]])).logits).all()


def test_a_family_without_a_single_stack_of_layers_is_a_clear_error(
    tiny: Callable[..., str],
) -> None:
    with pytest.raises(ModelError, match="albert"):
        load_student(StudentSettings(model=tiny("albert", layers=3), layers=2), ("a", "b"), None)


def test_models_that_can_not_be_used_are_errors(tmp_path: Path, tiny: Callable[..., str]) -> None:
    pickled = make_model(tmp_path / "pickled")
    model = load_classifier(str(pickled), ("a", "b"))
    (pickled / "model.safetensors").unlink()
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match="can't be loaded"):
        load_classifier(str(pickled), ("a", "b"))
    with pytest.raises(ModelError, match=r"config\.json"):
        load_classifier(str(tmp_path), ("a", "b"))
    foreign = make_model(tmp_path / "foreign", "distilbert")
    config = json.loads((Path(tiny("bert")) / "config.json").read_text())
    (foreign / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="other weights"):
        load_classifier(str(foreign), ("a", "b"))
    large = make_model(
        tmp_path / "large",
        words=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(90))],
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "mixed").mkdir(exist_ok=True)
        (tmp_path / "mixed" / name).write_bytes((large / name).read_bytes())
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "mixed" / name).write_bytes((Path(tiny("bert")) / name).read_bytes())
    with pytest.raises(ModelError, match="don't belong together"):
        load_student(StudentSettings(model=str(tmp_path / "mixed")), ("a", "b"), None)
    bert = load_classifier(tiny("bert"), ("a", "b"))
    with pytest.raises(ModelError, match="64"):
        check_length(bert, load_tokenizer(tiny("bert")), 65, "bert")


def test_a_package_path_can_not_lead_out_of_the_package() -> None:
    for source, message in (
        ("package://torch/../../x", "out of the package"),
        ("package://no_such_thing/x", "no Python package"),
        ("package://torch/none", "has no"),
    ):
        with pytest.raises(ModelError, match=message):
            load_tokenizer(source)
