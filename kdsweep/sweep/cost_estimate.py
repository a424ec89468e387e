"""What a sweep would cost: seconds and megabytes, from timing its models on this machine.

A few forward and backward passes of the largest student and of each teacher are timed. Gradients
are computed, but no weight changes.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from kdsweep.config import Plan, SearchSpace, trials_of
from kdsweep.config.extremes import numbers_in
from kdsweep.config.parameters import count_points
from kdsweep.config.setting_types import is_whole
from kdsweep.core.augmentation.masked_lm import ROWS_PER_BATCH, MaskedWords
from kdsweep.core.augmentation.word_edits import choose_words
from kdsweep.core.data.rows import Split, TaskData
from kdsweep.core.data.tokenize import tokenize_texts
from kdsweep.core.device import autocast, pick_device, resolve_precision, to_device, using_threads
from kdsweep.core.models.describing import describe_masked_lm, parameter_count, size_mb
from kdsweep.core.settings import TeacherSettings
from kdsweep.sweep.engines.slots import slots_here, slots_instead
from kdsweep.sweep.expected_seed_runs import expected_seed_runs
from kdsweep.sweep.preflight import Checked, PlannedModel, lowest, whole_numbers

ROWS_TO_MEASURE = 2000
STEPS_TO_TIME = 3
TEACHER_BATCH_SIZE = 32
# A step's time with the optimizer's share of about 15%.
STEP_FACTOR = 1.15
# Checkpoints on disk, in sizes of the model: of a trial that runs, and of a teacher.
CHECKPOINT_FACTOR = 4
TEACHER_FACTOR = 5


@dataclass(frozen=True)
class TeacherInSteps:
    """A strategy whose trials run the teacher in each step. terms: the ones that need it."""

    terms: list[str]
    seconds_a_trial: float


@dataclass(frozen=True)
class MoreRows:
    """What a strategy's trials read in addition to train, and what that costs.

    unlabelled, rows: rows of a trial at most. views: views of each row. sets_of_views: different
    ones over all trials. seconds_for_the_teacher: to label the views. seconds_for_words: of a
    masked language model. views_mb: of cache.
    """

    unlabelled: int
    views: int
    rows: int
    seconds_a_trial: float
    sets_of_views: int
    seconds_for_the_teacher: float
    seconds_for_words: float
    views_mb: float


@dataclass(frozen=True)
class CostEstimate:
    """Seconds and megabytes of a sweep on this machine.

    slots: how many trials run at once; None for a cluster. slots_instead: how many slots of one
    core there could be. The dicts have strategies as keys. seconds_without_pruning: with as few
    confirm runs as there may be; seconds_at_most: with as many.
    """

    device: str
    slots: int | None
    slots_instead: int | None
    seconds_a_trial: float
    seconds_for_the_teacher: float
    seconds_for_the_teacher_in_each_step: dict[str, TeacherInSteps]
    more_rows: dict[str, MoreRows]
    seconds_without_pruning: float
    seconds_at_most: float
    disk_mb: int


@dataclass(frozen=True)
class _Reading:
    """What a strategy's trials read in addition to train.

    as_long: as many rows of train would be as much to read.
    """

    unlabelled: int
    views: int
    sets: int
    rows: int
    as_long: float


class Measurements:
    """Lengths of texts and times of models, each measured once.

    precisions: of the sweep's students and teachers. Times are those of the slowest one. threads:
    of CPU, with which a model will compute; those that torch has, where it isn't among them.
    """

    def __init__(
        self,
        data: TaskData,
        precisions: Collection[str],
        threads: Mapping[PlannedModel, int] | None = None,
    ) -> None:
        self.data = data
        self._precisions = precisions
        self._threads = threads or {}
        self._lengths: dict[tuple[str, int], np.ndarray] = {}
        self._row_seconds: dict[tuple[int, int], tuple[float, float]] = {}

    def lengths(self, split: Split, planned: PlannedModel) -> np.ndarray:
        """Tokens of a row, for at most 2,000 rows."""
        key = (split.key, id(planned))
        if key not in self._lengths:
            rows = _spread(len(split), ROWS_TO_MEASURE)
            texts = [[column[i] for i in rows] for column in split.texts]
            tokenized = planned.tokenizer(
                *texts, truncation=False, return_attention_mask=False, verbose=False
            )
            self._lengths[key] = np.array([len(row) for row in tokenized["input_ids"]])
        return self._lengths[key]

    def read_length(self, split: Split, planned: PlannedModel) -> float:
        """Tokens of a row that the model reads, on average."""
        lengths = self.lengths(split, planned)
        return float(np.minimum(lengths, planned.max_length).mean())

    def row_seconds(self, planned: PlannedModel, batch_size: int) -> tuple[float, float]:
        """Seconds per row of a training step and of an evaluation, in a batch of median length."""
        key = (id(planned), batch_size)
        if key not in self._row_seconds:
            with using_threads(self._threads.get(planned)):
                self._row_seconds[key] = self._time_steps(planned, batch_size)
        return self._row_seconds[key]

    def _time_steps(self, planned: PlannedModel, batch_size: int) -> tuple[float, float]:
        device = pick_device()
        model = planned.model
        if planned.on_meta:
            # Random weights take as long as trained ones.
            model = type(model)(model.config)
        model = model.to(device)
        rows = min(batch_size, len(self.data.train))
        inputs = to_device(self._typical_batch(planned, rows), device)
        steps: list[float] = []
        forwards: list[float] = []
        for _ in range(STEPS_TO_TIME):
            start = time.perf_counter()
            with autocast(device, self._dtype(device)):
                loss = model(**inputs).logits.float().square().sum()
            loss.item()
            forwards.append(time.perf_counter() - start)
            loss.backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
            steps.append(time.perf_counter() - start)
            model.zero_grad()
        return STEP_FACTOR * statistics.median(steps) / rows, statistics.median(forwards) / rows

    def _dtype(self, device: torch.device) -> torch.dtype:
        """Of the slowest precision. A CPU that only plans has no fp16, and measures fp32."""
        if set(self._precisions) == {"bf16"}:
            return resolve_precision("bf16", device)
        if "fp32" in self._precisions or device.type == "cpu":
            return torch.float32
        return resolve_precision("auto", device)

    def _typical_batch(self, planned: PlannedModel, count: int) -> dict[str, np.ndarray]:
        """What the model reads of `count` rows of train whose length is nearest to the median."""
        train = self.data.train
        lengths = self.lengths(train, planned)
        from_median = np.abs(lengths - np.median(lengths))
        measured = _spread(len(train), ROWS_TO_MEASURE)
        nearest = np.argsort(from_median, kind="stable")[np.arange(count) % len(lengths)]
        texts = [[column[measured[i]] for i in nearest] for column in train.texts]
        tokens = tokenize_texts(planned.tokenizer, texts, planned.input_format)
        return tokens.batch(np.arange(count))

    def training_seconds(
        self, planned: PlannedModel, epochs: int, batch_size: int, evaluations_per_epoch: int
    ) -> float:
        step, forward = self.row_seconds(planned, batch_size)
        evaluated = evaluations_per_epoch * len(self.data.validation) * forward
        return epochs * (len(self.data.train) * step + evaluated)


def estimate_costs(plan: Plan, checked: Checked, measured: Measurements) -> CostEstimate:
    """Seconds and megabytes of the whole sweep if nothing is pruned."""
    space = plan.space
    student = max(checked.students, key=lambda planned: parameter_count(planned.model))
    trials = {name: trials_of(space, plan.sweep, name) for name in space.strategies}
    again = {name: expected_seed_runs(plan, name) for name in trials}
    trial = measured.training_seconds(
        student,
        max(whole_numbers(space, "epochs")),
        max(whole_numbers(space, "batch_size")),
        max(whole_numbers(space, "evaluations_per_epoch")),
    )
    reading = {name: _reading(plan, name, checked, student, measured) for name in trials}
    teacher = _seconds_for_teachers(space, checked, reading, measured)
    in_steps = _teachers_in_steps(space, checked, reading, measured)
    more_rows = _more_rows(space, checked, reading, student, measured)
    slots = slots_here(plan.sweep.engine)
    more = sum(one.seconds_for_the_teacher + one.seconds_for_words for one in more_rows.values())

    def total(runs: Mapping[str, int]) -> float:
        """Seconds of so many trainings of each strategy, and of what they need."""
        extra = sum(runs[name] * one.seconds_a_trial for name, one in in_steps.items()) + more
        extra += sum(runs[name] * one.seconds_a_trial for name, one in more_rows.items())
        rounds = math.ceil(sum(runs.values()) / (slots or 1))
        return round(rounds * trial + teacher + extra / (slots or 1), 1)

    return CostEstimate(
        device=str(pick_device()),
        slots=slots,
        slots_instead=slots_instead(plan.sweep.engine),
        seconds_a_trial=round(trial, 1),
        seconds_for_the_teacher=round(teacher, 1),
        seconds_for_the_teacher_in_each_step=in_steps,
        more_rows=more_rows,
        seconds_without_pruning=total({name: n + again[name].least for name, n in trials.items()}),
        seconds_at_most=total({name: n + again[name].most for name, n in trials.items()}),
        disk_mb=_disk_mb(plan, checked, student, more_rows),
    )


def _disk_mb(
    plan: Plan, checked: Checked, student: PlannedModel, more_rows: dict[str, MoreRows]
) -> int:
    kept = min(plan.sweep.keep.students, plan.sweep.trials) * len(plan.space.strategies)
    views = sum(one.views_mb for one in more_rows.values())
    students = (kept + CHECKPOINT_FACTOR) * size_mb(student.model)
    teachers = sum(TEACHER_FACTOR * size_mb(teacher.model) for teacher in checked.teachers)
    return round(views + students + teachers)


# --- teachers ------------------------------------------------------------------------------------


def _seconds_for_teachers(
    space: SearchSpace, checked: Checked, reading: dict[str, _Reading], measured: Measurements
) -> float:
    """To train all teachers and to save the logits of all rows but the views."""
    if not checked.teachers:
        return 0.0
    rows = len(checked.data.train)
    forward = measured.row_seconds(checked.teachers[0], TEACHER_BATCH_SIZE)[1]
    seconds = sum(_teacher_seconds(one, space, measured) for one in checked.teachers)
    unlabelled = max(found.as_long - found.views * rows for found in reading.values())
    return seconds + unlabelled * forward


def _teacher_seconds(planned: PlannedModel, space: SearchSpace, measured: Measurements) -> float:
    """Of all teachers from this model.

    Those of several epochs share a run; seeds and folds have one each.
    """
    rows = len(measured.data.train)
    forward = measured.row_seconds(planned, TEACHER_BATCH_SIZE)[1]
    seconds = 0.0
    runs: dict[str, TeacherSettings] = {}
    for one in space.teachers():
        if one.loads_from != planned.source:
            continue
        seconds += rows * forward * (1 if one.folds is None else 2)
        shared = one.model_copy(update={"epoch": None if one.epoch is None else 1})
        longest = runs.setdefault(shared.model_dump_json(), one)
        if (one.epoch or 0) > (longest.epoch or 0):
            runs[shared.model_dump_json()] = one
    # A finished checkpoint isn't trained.
    if all(one.model is None for one in runs.values()):
        return seconds
    for one in runs.values():
        own = one.training
        # K folds: K runs on (K - 1)/K of the rows and one on all of them, which makes K.
        trained = one.seeds * (1 if one.folds is None else one.folds)
        seconds += trained * measured.training_seconds(
            planned, one.epoch or own.epochs, own.batch_size, own.evaluations_per_epoch
        )
    return seconds


def _teachers_in_steps(
    space: SearchSpace, checked: Checked, reading: dict[str, _Reading], measured: Measurements
) -> dict[str, TeacherInSteps]:
    """Strategies that run the teacher in each step."""
    if not checked.teachers:
        return {}
    forward = measured.row_seconds(checked.teachers[0], TEACHER_BATCH_SIZE)[1]
    found: dict[str, TeacherInSteps] = {}
    for strategy in space.strategies:
        terms = list(space.settle(strategy, lowest, 0).distill.online)
        if terms:
            rows = len(checked.data.train) + reading[strategy].as_long
            epochs = max(whole_numbers(space, "epochs", strategy))
            found[strategy] = TeacherInSteps(terms, round(epochs * rows * forward, 1))
    return found


# --- rows in addition to train -------------------------------------------------------------------


def _reading(
    plan: Plan, strategy: str, checked: Checked, student: PlannedModel, measured: Measurements
) -> _Reading:
    space = plan.space
    train = checked.data.train
    unlabelled = checked.unlabelled
    texts = len(unlabelled) if unlabelled and space.may_be_taught(strategy) else 0
    views = space.most_views(strategy)
    sets = 0
    if views:
        trials = trials_of(space, plan.sweep, strategy)
        counts = [
            count_points(value, name, whole=is_whole(name))
            for name, value in space.values(strategy).items()
            if name.startswith("augment.")
            and name not in ("augment.views", "augment.in_finetuning")
        ]
        sets = min(trials, math.prod(trials if count is None else count for count in counts))
    length = 1.0
    if unlabelled and texts:
        length = measured.read_length(unlabelled, student) / measured.read_length(train, student)
    viewed = views * len(train)
    return _Reading(texts, views, sets, texts + viewed, texts * length + viewed)


def _more_rows(
    space: SearchSpace,
    checked: Checked,
    reading: dict[str, _Reading],
    student: PlannedModel,
    measured: Measurements,
) -> dict[str, MoreRows]:
    """Of the strategies that read more than train."""
    if not any(one.rows for one in reading.values()):
        return {}
    rows = len(checked.data.train)
    step = measured.row_seconds(student, max(whole_numbers(space, "batch_size")))[0]
    forward = 0.0
    if checked.teachers:
        forward = measured.row_seconds(checked.teachers[0], TEACHER_BATCH_SIZE)[1]
    row_bytes = _view_bytes(checked.data, student, measured)
    found: dict[str, MoreRows] = {}
    for strategy, one in reading.items():
        if not one.rows:
            continue
        viewed = one.sets * one.views * rows
        taught = space.may_be_taught(strategy)
        epochs = max(whole_numbers(space, "epochs", strategy))
        words = viewed * _seconds_for_words(space, strategy, checked.data)
        found[strategy] = MoreRows(
            unlabelled=one.unlabelled,
            views=one.views,
            rows=one.rows,
            seconds_a_trial=round(epochs * one.as_long * step, 1),
            sets_of_views=one.sets,
            seconds_for_the_teacher=round(viewed * forward * taught, 1),
            seconds_for_words=round(words, 1),
            views_mb=round(viewed * row_bytes / 1e6, 1),
        )
    return found


def _view_bytes(data: TaskData, student: PlannedModel, measured: Measurements) -> float:
    """What a row of a view takes in the cache: its text, its tokens (2 bytes each) and its logits
    (4 bytes each)."""
    rows = _spread(len(data.train), ROWS_TO_MEASURE)
    sizes = [sum(len(column[i].encode()) for column in data.train.texts) for i in rows]
    tokens = measured.read_length(data.train, student)
    return float(np.mean(sizes)) + 2 * tokens + 4 * len(data.label_names)


def _seconds_for_words(space: SearchSpace, strategy: str, data: TaskData) -> float:
    """Seconds per row of a view for the words of the slowest masked language model.

    0 if the strategy replaces no words.
    """
    augment = space.strategies[strategy].augment
    if augment is None or augment.masked_lm is None or space.most_views(strategy) == 0:
        return 0.0
    share = max(numbers_in(augment.masked_lm.share))
    numbers = _spread(len(data.train), ROWS_PER_BATCH)
    rows = [data.train.texts[0][i].split() for i in numbers]
    draws = [random.Random(int(i)) for i in numbers]
    chosen = [choose_words(row, draw, share) for row, draw in zip(rows, draws, strict=True)]
    slowest = 0.0
    for words in space.masked_lms(strategy):
        model, tokenizer = describe_masked_lm(
            words.loads_from, trust_remote_code=words.trust_remote_code
        )
        if model.device.type == "meta":
            model = type(model)(model.config).eval()
        masked_words = MaskedWords(model, tokenizer, 1)
        seconds: list[float] = []
        for _ in range(STEPS_TO_TIME):
            start = time.perf_counter()
            masked_words.replace(rows, chosen, draws)
            seconds.append(time.perf_counter() - start)
        slowest = max(slowest, statistics.median(seconds) / len(rows))
    return slowest


def _spread(rows: int, most: int) -> list[int]:
    """The numbers of at most `most` rows, evenly spread."""
    return [int(i) for i in np.linspace(0, rows - 1, min(rows, most))]
