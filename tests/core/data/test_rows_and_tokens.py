"""Rows kept in the cache, tokens by the backend and batches in little memory: all as if each process read and did everything itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import sentences, write_csv
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, PreTrainedTokenizerFast
from transformers.tokenization_python import PreTrainedTokenizer

from kdsweep.core.data import encode
from kdsweep.core.data import tokenize as tokenizing
from kdsweep.core.data.batches import BATCHES_PER_POOL, batches
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.mapped_arrays import GrowingArray, MappedTexts
from kdsweep.core.data.rows import Split, TaskData
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.core.settings import TaskSettings

ROWS = sentences(120)


def task_of(dataset: Path | str, **keys: Any) -> TaskSettings:
    return TaskSettings(
        **({"dataset": str(dataset), "text": ("text",), "label": "label", "holdout": 0.2} | keys)
    )


def same(one: TaskData, other: TaskData) -> bool:
    facts = [
        (
            data.label_names,
            data.notes,
            list(data.splits),
            [split.key for split in data.splits.values()],
        )
        for data in (one, other)
    ]
    rows = [
        [
            (list(map(list, split.texts)), split.labels.tolist(), split.labels.dtype)
            for split in data.splits.values()
        ]
        for data in (one, other)
    ]
    return facts[0] == facts[1] and rows[0] == rows[1]


def kept(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "rows").glob("*") if path.is_dir())


# --- rows in the cache -----------------------------------------------------------------------------------------------


def test_rows_from_the_cache_are_those_that_were_read(tmp_path: Path) -> None:
    rows = [*ROWS, ("", "pos"), ("🎬 très bien\nzwei Zeilen 中文", "neg"), ("\x00 and \x1e", "pos")]
    task = task_of(write_csv(tmp_path / "rows.csv", rows), limit={"train": 70})
    cached = load_task(task, tmp_path / "the cache")
    assert all(
        isinstance(column, MappedTexts)
        for split in cached.splits.values()
        for column in split.texts
    )
    assert same(cached, load_task(task))
    pairs = [(f"premise {i // 2}", f"hypothesis {i % 2}", str(i % 2)) for i in range(200)]
    task = task_of(
        write_csv(tmp_path / "pairs.csv", pairs, ("premise", "hypothesis", "label")),
        text=("premise", "hypothesis"),
    )  # type: ignore[arg-type]
    assert same(load_task(task, tmp_path / "the cache"), load_task(task))
    assert len(kept(tmp_path / "the cache")) == 2


def test_keys_are_what_they_always_were_so_that_what_was_made_before_stays_of_use(
    tmp_path: Path,
) -> None:
    task = task_of(
        write_csv(tmp_path / "rows.csv", [*ROWS, ("", "pos"), ("中文 très 🎬", "neg")]),
        limit={"train": 50},
    )
    for data in (load_task(task), load_task(task, tmp_path / "cache")):
        keys = {
            "train": "ba02a89e1bc80489",
            "validation": "71a44da2106629da",
            "test": "a4be1576fdb1b21e",
        }  # as the first version had them
        assert {name: split.key for name, split in data.splits.items()} == keys
        assert data.key == "4d952eb52ba4af1d"


def test_another_process_maps_the_rows_and_never_opens_the_file(tmp_path: Path) -> None:
    path, cache = write_csv(tmp_path / "rows.csv", ROWS), tmp_path / "cache"
    task = task_of(path)
    here = load_task(task, cache)
    code = (
        "import json, sys; from pathlib import Path; from kdsweep.core.data import loading, readers; from kdsweep.core.settings import TaskSettings\n"
        "readers._parse_file = lambda path: sys.exit('read again')\n"
        "found = loading.load_task(TaskSettings.model_validate_json(sys.argv[1]), Path(sys.argv[2]))\n"
        "print(json.dumps([[split.key, list(split.texts[0]), split.labels.tolist()] for split in found.splits.values()]))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, task.model_dump_json(), str(cache)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert json.loads(out) == [
        [split.key, list(split.texts[0]), split.labels.tolist()] for split in here.splits.values()
    ]


def test_a_file_of_the_same_size_and_the_time_set_back_is_read_again(tmp_path: Path) -> None:
    path, cache = write_csv(tmp_path / "rows.csv", ROWS), tmp_path / "cache"
    before, stat = load_task(task_of(path), cache), path.stat()
    swapped = path.read_bytes().replace(b"fine", b"warm")
    assert len(swapped) == stat.st_size and swapped != path.read_bytes()
    path.write_bytes(swapped)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = load_task(task_of(path), cache)
    assert same(after, load_task(task_of(path))) and not same(before, after)
    assert len(kept(cache)) == 2


def test_writing_twice_in_a_row_is_seen_each_time(tmp_path: Path) -> None:
    path, cache = tmp_path / "rows.csv", tmp_path / "cache"
    for word in ("some", "many", "more", "less"):
        write_csv(path, [(f"{word} {text} {i}", label) for i, (text, label) in enumerate(ROWS)])
        assert all(text.startswith(word) for text in load_task(task_of(path), cache).train.texts[0])


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdsweep.core.data import loading as data

    path, cache, read = write_csv(tmp_path / "rows.csv", ROWS), tmp_path / "cache", data.read_splits

    def slowly(*arguments: Any) -> Any:
        found = read(*arguments)
        write_csv(path, ROWS[:60])
        return found

    monkeypatch.setattr(data, "read_splits", slowly)
    assert sum(map(len, load_task(task_of(path), cache).splits.values())) == 120
    assert kept(cache) == []
    monkeypatch.setattr(data, "read_splits", read)
    assert sum(map(len, load_task(task_of(path), cache).splits.values())) == 60


def test_a_file_in_a_folder_that_changed_is_read_again_and_a_cache_in_that_folder_changes_nothing(
    tmp_path: Path,
) -> None:
    path, cache = write_csv(tmp_path / "train.csv", ROWS), tmp_path / "cache"
    for rows in (ROWS, ROWS[:60]):
        write_csv(path, rows)
        for _ in range(2):
            assert sum(map(len, load_task(task_of(tmp_path), cache).splits.values())) == len(rows)
    assert len(kept(cache)) == 2


def test_a_dataset_saved_to_disk_whose_arrow_file_changed_is_read_again(tmp_path: Path) -> None:
    import datasets

    cache = tmp_path / "cache"
    for word in ("first", "second"):
        rows = datasets.Dataset.from_list(
            [{"text": f"{word} {i}", "label": i % 2} for i in range(100)]
        )
        datasets.DatasetDict(train=rows).save_to_disk(tmp_path / "saved")
        assert all(
            text.startswith(word)
            for text in load_task(task_of(tmp_path / "saved"), cache).train.texts[0]
        )


def test_nothing_is_written_without_a_cache_or_where_that_is_not_wanted(tmp_path: Path) -> None:
    task, cache = task_of(write_csv(tmp_path / "rows.csv", ROWS)), tmp_path / "cache"
    read = load_task(task, cache, publish=False)
    assert not cache.exists()
    load_task(task, cache)
    found = load_task(task, cache, publish=False)
    assert isinstance(found.train.texts[0], MappedTexts) and same(read, found)


def test_a_dataset_of_the_hub_is_kept_under_its_own_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    from kdsweep.core.data import loading, readers

    def hub(word: str) -> datasets.DatasetDict:
        rows = datasets.Dataset.from_list(
            [{"sentence": f"{word} {i}", "label": i % 2} for i in range(100)]
        )
        return datasets.DatasetDict(
            train=rows.cast_column("label", datasets.ClassLabel(names=["negative", "positive"]))
        )

    task, cache = task_of("someone/films", text=("sentence",)), tmp_path / "cache"
    monkeypatch.setattr(readers, "hub_is_reachable", lambda: True)
    for word in ("first", "second"):
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, word=word, **__: hub(word))
        loading._LOADED.clear()
        readers.open_hub.cache_clear()  # as in a new process
        found = load_task(task, cache)
        assert all(text.startswith(word) for text in found.train.texts[0])
        assert found.label_names == ("negative", "positive")
    assert len(kept(cache)) == 2
    monkeypatch.setattr(readers, "_from_dataset", lambda *_: pytest.fail("read again"))
    loading._LOADED.clear()
    assert same(load_task(task, cache), found)


def test_mapped_texts_are_read_like_a_list(tmp_path: Path) -> None:
    texts = [text * (i % 3) for i, (text, _) in enumerate(ROWS)] + ["中文🎬", ""]
    MappedTexts.write(tmp_path / "texts.npy", texts)
    mapped = MappedTexts(tmp_path / "texts.npy")
    assert list(mapped) == texts and len(mapped) == len(texts)
    for part in (
        slice(None),
        slice(3, 9),
        slice(-4, None),
        slice(5, 2),
        slice(0, 90, 7),
        slice(None, None, -1),
        slice(100, 900),
    ):
        assert mapped[part] == texts[part]
    assert [mapped[i] for i in (0, -1, np.int64(7))] == [texts[i] for i in (0, -1, 7)]
    with pytest.raises(IndexError):
        mapped[len(texts)]


def test_an_array_that_grew_is_an_array_file_like_any_other(tmp_path: Path) -> None:
    parts = [np.arange(5), np.arange(0), np.arange(70_000) % 60_000]
    with GrowingArray(tmp_path / "grown.npy", np.uint16) as file:
        for part in parts:
            file.append(part)
    found = np.load(tmp_path / "grown.npy")
    assert found.dtype == np.uint16 and found.tolist() == np.concatenate(parts).tolist()


# --- tokens ----------------------------------------------------------------------------------------------------------

CORPUS = [text for text, _ in ROWS] + [
    "中文 🎬 naïve café",
    "  spaced   out ",
    "don't-stop @ 3.14%",
    "a" * 90,
]


def trained(model: Any, trainer: Any, pre_tokenizer: Any, post_processor: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(CORPUS, trainer)
    if post_processor is not None:
        tokenizer.post_processor = post_processor
    return tokenizer


def word_piece() -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    template = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    made = trained(
        models.WordPiece(unk_token="[UNK]"), trainer, pre_tokenizers.BertPreTokenizer(), template
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def byte_level() -> PreTrainedTokenizerFast:
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made = trained(
        models.BPE(),
        trainer,
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        processors.RobertaProcessing(("</s>", 2), ("<s>", 0)),
    )
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        truncation_side="left",
    )


def unigram() -> PreTrainedTokenizerFast:
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=["<unk>", "<pad>"], unk_token="<unk>", show_progress=False
    )
    made = trained(models.Unigram(), trainer, pre_tokenizers.Metaspace())
    made.add_special_tokens(["<extra>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", padding_side="left"
    )


class Spaces(PreTrainedTokenizer):
    """One without a Rust half."""

    def __init__(self, **options: Any) -> None:
        self.words = {"[PAD]": 0, "[UNK]": 1} | {
            word: i + 2
            for i, word in enumerate(sorted({word for text in CORPUS for word in text.split()}))
        }
        super().__init__(pad_token="[PAD]", unk_token="[UNK]", **options)

    @property
    def vocab_size(self) -> int:
        return len(self.words)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.words)

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return text.split()

    def _convert_token_to_id(self, token: str) -> int:
        return self.words.get(token, 1)


class Shouting(BertTokenizer):
    """One that prepares the texts before its Rust half sees them."""

    def _encode_plus(self, text: Any, *arguments: Any, **options: Any) -> Any:
        return super()._encode_plus(
            [one.upper() for one in text] if isinstance(text, list) else text.upper(),
            *arguments,
            **options,
        )


def shouting() -> Shouting:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg", "F", "##I", "##N", "##E"]
    return Shouting(vocab={word: i for i, word in enumerate(words)}, do_lower_case=False)


def assert_as_called(
    tokenizer: Any, columns: tuple[list[str], ...], max_length: int, token_types: bool, cache: Path
) -> None:
    """What is in the cache, row by row, is what a plain call of the tokenizer gives for that row alone."""
    key = f"{len(columns)}"
    made = tokenize_split(
        Split("x", columns, np.zeros(len(columns[0]), np.int64), key),
        tokenizer,
        InputFormat(max_length, token_types=token_types),
        cache=cache,
    )
    truncated = 0
    for i, texts in enumerate(zip(*columns, strict=True)):
        plain = tokenizer(
            *texts, truncation=True, max_length=max_length, return_token_type_ids=token_types
        )
        row = slice(made.offsets[i], made.offsets[i + 1])
        assert made.input_ids[row].tolist() == plain["input_ids"], texts
        assert made.lengths[i] == len(plain["input_ids"])
        if token_types:
            assert made.token_type_ids is not None
            assert made.token_type_ids[row].tolist() == plain["token_type_ids"]
        truncated += (
            len(tokenizer(*texts, truncation=False, verbose=False)["input_ids"]) > max_length
        )
    assert made.truncated == truncated
    assert made.offsets[-1] == len(made.input_ids)


@pytest.mark.parametrize(
    "make", [word_piece, byte_level, unigram, Spaces, shouting], ids=lambda make: make.__name__
)
@pytest.mark.parametrize("token_types", [True, False])
def test_tokens_are_those_of_a_plain_call_row_by_row(
    make: Callable[[], Any], token_types: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizing, "ROWS_PER_CALL", 50)  # the rows span several calls
    tokenizer = make()
    assert encode.backend_does_it_all(tokenizer) is (make in (word_piece, byte_level, unigram))
    for max_length in (5, 8, 64):
        assert_as_called(tokenizer, (CORPUS,), max_length, token_types, tmp_path)
        assert_as_called(tokenizer, (CORPUS, CORPUS[::-1]), max_length, token_types, tmp_path)


def test_what_a_caller_told_the_tokenizer_before_plays_no_part(tmp_path: Path) -> None:
    tokenizer = word_piece()
    tokenizer(
        CORPUS,
        padding="max_length",
        truncation=True,
        max_length=6,
        stride=1,
        return_overflowing_tokens=True,
    )
    assert_as_called(tokenizer, (CORPUS,), 8, True, tmp_path)


def test_tokens_take_two_bytes_where_the_vocabulary_allows_and_four_where_not(
    tmp_path: Path,
) -> None:
    small = word_piece()
    words = {"[UNK]": 0, "fine": 70_000, "plot": 65_535} | {f"w{i}": i for i in range(1, 300)}
    large = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="[UNK]")), pad_token="[UNK]"
    )
    large.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for tokenizer, dtype in ((small, np.uint16), (large, np.int32)):
        made = tokenize_split(
            Split("x", (["fine plot"],), np.zeros(1, np.int64), "x"),
            tokenizer,
            InputFormat(8, token_types=False),
            cache=tmp_path,
        )
        assert made.input_ids.dtype == dtype
        assert made.batch(np.array([0]))["input_ids"].tolist() == [
            tokenizer("fine plot")["input_ids"]
        ]
    assert made.input_ids.tolist() == [70_000, 65_535]


def test_tokens_of_an_earlier_version_are_still_read(tmp_path: Path) -> None:
    split, tokenizer = Split("x", (CORPUS,), np.zeros(len(CORPUS), np.int64), "x"), word_piece()
    now = tokenize_split(split, tokenizer, InputFormat(8, token_types=True), cache=tmp_path)
    rows, folder = np.arange(len(CORPUS)), tmp_path / "tokens" / now.key
    lengths, batch = (
        now.lengths.tolist(),
        now.batch(rows),
    )  # now: the file that is mapped is written over
    ids = np.load(folder / "input_ids.npy").astype(np.int32)
    np.save(folder / "input_ids.npy", ids)
    (folder / "lengths.npy").unlink()
    then = tokenize_split(
        split, tokenizer, InputFormat(8, token_types=True), cache=tmp_path, say=pytest.fail
    )
    assert then.lengths.tolist() == lengths
    assert all((then.batch(rows)[name] == array).all() for name, array in batch.items())


def test_long_work_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing, "ROWS_PER_CALL", 50)
    monkeypatch.setattr(tokenizing, "SECONDS_BETWEEN_LINES", 0.0)
    said: list[str] = []
    split = Split("train", (CORPUS,), np.zeros(len(CORPUS), np.int64), "x")
    tokenize_split(
        split, word_piece(), InputFormat(8, token_types=True), cache=tmp_path, say=said.append
    )
    assert said == [
        "tokenizing train: 124 rows",
        "tokenizing train: 50 of 124 rows done",
        "tokenizing train: 100 of 124 rows done",
    ]


# --- batches ---------------------------------------------------------------------------------------------------------


def batches_as_lists(
    lengths: np.ndarray, batch_size: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """How batches were first made, an array for each: a trial that began then must go on with the same ones."""
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    pool = batch_size * BATCHES_PER_POOL
    out: list[np.ndarray] = []
    for start in range(0, len(order), pool):
        rows = order[start : start + pool]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        out += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return [out[i] for i in random.permutation(len(out))]


@pytest.mark.parametrize("rows", [1, 7, 16, 799, 800, 801, 5_003, 70_001])
@pytest.mark.parametrize(
    ("batch_size", "seed", "epoch"), [(1, 0, 0), (16, 1, 2), (17, 3, 1), (128, 9, 0)]
)
def test_batches_are_those_that_they_always_were(
    rows: int, batch_size: int, seed: int, epoch: int
) -> None:
    if rows > 6_000 and batch_size == 1:
        rows = 6_000
    lengths = np.random.default_rng(rows).integers(3, 60, rows)
    now, before = (
        batches(lengths, batch_size, seed, epoch),
        batches_as_lists(lengths, batch_size, seed, epoch),
    )
    assert len(now) == len(before)
    assert all(one.tolist() == other.tolist() for one, other in zip(now, before, strict=True))
    assert now[-1].tolist() == before[-1].tolist() and [one.tolist() for one in now[1:3]] == [
        one.tolist() for one in before[1:3]
    ]
    with pytest.raises(IndexError):
        now[len(now)]


def test_an_epoch_of_batches_is_held_in_four_bytes_a_row() -> None:
    made = batches(np.random.default_rng(0).integers(3, 60, 100_000), 32, 0, 0)
    assert made.rows.nbytes + made.order.nbytes < 5 * 100_000
