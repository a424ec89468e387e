"""Looking before leaping: the checks that `run` makes before it writes anything, and the facts that `plan` shows."""

from __future__ import annotations

import functools
import math
import random
import statistics
import time
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.config import Plan, SearchSpace, trials_of
from kdsweep.config.extremes import numbers_in, plain_values
from kdsweep.config.parameters import Parameter, count_points
from kdsweep.config.setting_types import is_whole
from kdsweep.config.teacher_values import TeacherValues
from kdsweep.core.augmentation.masked_lm import ROWS_PER_BATCH, MaskedWords, offered_words
from kdsweep.core.augmentation.views import mask_token
from kdsweep.core.augmentation.word_edits import choose_words
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import Split, TaskData
from kdsweep.core.data.unlabelled import load_unlabelled
from kdsweep.core.device import pick_device, resolve_precision
from kdsweep.core.models.describing import (
    describe_masked_lm,
    describe_model,
    parameter_count,
    size_mb,
)
from kdsweep.core.models.inputs import check_fits, check_length, reads_token_types
from kdsweep.core.models.layers import keep_layers, kept_layers, layer_count, new_model
from kdsweep.core.objective.inner_states import check_match, check_same_tokens
from kdsweep.core.settings import StudentSettings, TeacherSettings, TrainingSettings
from kdsweep.core.teachers.checks import check_labels
from kdsweep.core.teachers.selection import check_folds
from kdsweep.sweep.engines.slots import slots_here, slots_instead
from kdsweep.sweep.folders import Home
from kdsweep.sweep.seeds import derived_seed

ROWS_TO_MEASURE = 2000
STEPS_TO_TIME = 3


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model that trials will train, or their teacher, as far as it is known before."""

    source: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    trust_remote_code: bool = False

    @property
    def on_meta(self) -> bool:
        """Whether only its shape is known here, its weights not being on this machine yet."""
        return self.model.device.type == "meta"


def check_models(
    space: SearchSpace, cache: Path
) -> tuple[TaskData, list[Candidate], list[Candidate]]:
    """Load the task's rows, each teacher and each student that a trial may have. Raises what a trial would raise, before any."""
    data = load_task(space.task, cache, publish=False)
    _unlabelled(space, data, cache)
    teachers = _teachers(space, data)
    lengths = _constants(space, "max_length")
    students = []
    firsts = {
        strategy: [source for one in space.teachers_of(strategy)[:1] for source in _sources(one)]
        for strategy in space.strategies
    }
    for model, grouped in groupby(space.students(), key=lambda shape: shape.model):
        shapes = list(grouped)
        if model == "teacher":
            loaded = [
                teachers[source] for source in dict.fromkeys(chain.from_iterable(firsts.values()))
            ]
        elif (
            model in teachers
            and space.student.trust_remote_code == teachers[model].trust_remote_code
        ):
            loaded = [teachers[model]]
        else:
            loaded = [_candidate(model, data, space.student.trust_remote_code, max(lengths))]
        for whole in loaded:
            check_length(whole.model, whole.tokenizer, max(lengths), whole.source)
            students += [_shaped(whole, shape, max(lengths), data) for shape in shapes]
    masked_lms: set[str] = set()
    for strategy in space.strategies:
        matched = space.settle(strategy, _first, 0).distill
        for source in firsts[strategy] if matched.online else ():
            for student in students:
                check_same_tokens(matched, student.tokenizer, teachers[source].tokenizer)
                check_match(matched, student.model, teachers[source].model)
        if (augment := space.strategies[strategy].augment) is not None:
            if any(share > 0 for share in numbers_in(augment.mask)):
                for candidate in [
                    *students,
                    *(teachers.values() if space.may_be_taught(strategy) else ()),
                ]:
                    mask_token(candidate.tokenizer, candidate.source)
            masked_lms |= (
                {str(source) for _, source in plain_values(augment.masked_lm.model)}
                if augment.masked_lm
                else set()
            )
    for source in sorted(masked_lms):  # each is read once, however many strategies have it
        offered_words(describe_masked_lm(source)[1])
    for precision in dict.fromkeys(_constants(space, "precision")):
        resolve_precision(precision, pick_device())
    return data, list(teachers.values()), students


def _teachers(space: SearchSpace, data: TaskData) -> dict[str, Candidate]:
    """Each teacher's model by its source, reading as much as the one that reads most."""
    found: dict[str, Candidate] = {}
    for one in space.teachers():
        if one.checkpoint:
            check_labels(one, data)
        if one.folds is not None:
            check_folds(data, one.folds)
        resolve_precision(one.training.precision, pick_device())
        if one.source not in found or found[one.source].max_length < one.training.max_length:
            found[one.source] = _candidate(
                one.source, data, one.trust_remote_code, one.training.max_length
            )
    return found


def _sources(teacher: TeacherValues) -> list[str]:
    return list(dict.fromkeys(one.source for one in teacher.every()))


def _unlabelled(
    space: SearchSpace, data: TaskData, cache: Path
) -> tuple[Split | None, tuple[str, ...]]:
    return (
        (None, ())
        if space.task.unlabelled is None
        else load_unlabelled(space.task, data, cache, publish=False)
    )


def _constants(space: SearchSpace, name: str) -> list[Any]:
    """Everything that a training setting can be in any strategy."""
    return [
        value for strategy in space.strategies for value in _constants_of(space, strategy, name)
    ]


def _constants_of(space: SearchSpace, strategy: str, name: str) -> list[Any]:
    found = [
        value
        for _, value in plain_values(
            space.values(strategy).get(name, getattr(TrainingSettings(), name))
        )
    ]
    return [round(value) if isinstance(value, float) else value for value in found]


def _candidate(source: str, data: TaskData, trust_remote_code: bool, max_length: int) -> Candidate:
    model, tokenizer = describe_model(
        source, data.label_names, kind=data.kind, trust_remote_code=trust_remote_code
    )
    check_fits(model, tokenizer, source)
    check_length(model, tokenizer, max_length, source)
    return Candidate(source, model, tokenizer, max_length, trust_remote_code)


def _first(parameter: Parameter) -> Any:
    """The lowest value, or the first choice."""
    if isinstance(parameter.domain, tuple):
        return parameter.domain[0]
    return round(parameter.domain.low) if parameter.whole else parameter.domain.low


def _shaped(whole: Candidate, shape: StudentSettings, max_length: int, data: TaskData) -> Candidate:
    with torch.device(whole.model.device):
        if shape.start == "scratch":
            model = new_model(shape, data.label_names, whole.source, data.kind)
        elif shape.layers is not None:
            model = keep_layers(
                whole.model,
                kept_layers(layer_count(whole.model, whole.source), shape.layers, whole.source),
                whole.source,
            )
        else:
            model = whole.model
    return Candidate(f"{whole.source}{shape.shape}", model, whole.tokenizer, max_length)


def describe(plan: Plan, home: Path) -> dict[str, Any]:
    """What would run and what it would cost; trains nothing and writes nothing."""
    for measured in (_lengths, _row_seconds):
        measured.cache_clear()  # they hold the models of an earlier plan
    space = plan.space
    data, teachers, students = check_models(space, Home(home).cache)
    unlabelled, notes = _unlabelled(space, data, Home(home).cache)
    texts = data.splits | ({} if unlabelled is None else {"unlabelled": unlabelled})
    splits = {name: _describe_split(split, data) for name, split in data.splits.items()}
    models = [("teacher", teacher) for teacher in teachers]
    models += [("student", student) for student in students]
    described = [
        {
            "role": role,
            "model": candidate.source,
            "labels": candidate.model.config.num_labels,
            "parameters": parameter_count(candidate.model),
            "size_mb": round(size_mb(candidate.model), 1),
            "weights": "not downloaded yet" if candidate.on_meta else "here",
            "truncated": {name: _truncated(split, candidate) for name, split in texts.items()},
        }
        for role, candidate in models
    ]
    return {
        "sweep": plan.name,
        "home": str(home),
        "task": {
            "labels": list(data.label_names),
            "metric": space.task.metric,
            "splits": splits,
            "unlabelled": len(unlabelled) if unlabelled else 0,
            "notes": [*data.notes, *notes],
        },
        "models": described,
        "studies": {strategy: _describe_study(plan, strategy) for strategy in space.strategies},
        "estimate": _estimate(plan, data, unlabelled, teachers, students),
    }


def _describe_split(split: Split, data: TaskData) -> dict[str, Any]:
    return {"rows": len(split)} | data.kind.describe_split(split.labels, data.label_names)


def _truncated(split: Split, candidate: Candidate) -> dict[str, Any]:
    """How many texts are longer than the model will read, counted on at most 2,000 rows."""
    lengths = _lengths(split, candidate)
    return {"rows": int((lengths > candidate.max_length).sum()), "of": len(lengths)}


@functools.cache  # each is asked for several times: for what is cut off, for the time of a step, for the size of a view
def _lengths(split: Split, candidate: Candidate) -> np.ndarray:
    chosen = np.linspace(0, len(split) - 1, min(len(split), ROWS_TO_MEASURE)).astype(int)
    texts = [[column[i] for i in chosen] for column in split.texts]
    return np.array(
        [
            len(row)
            for row in candidate.tokenizer(
                *texts, truncation=False, return_attention_mask=False, verbose=False
            )["input_ids"]
        ]
    )


def _describe_study(plan: Plan, strategy: str) -> dict[str, Any]:
    parameters = plan.space.parameters(strategy)
    samples = []
    for number in range(2):
        generator = np.random.default_rng(derived_seed("sample", plan.sweep.sampler.seed, number))

        def draw(parameter: Any, generator: np.random.Generator = generator) -> Any:
            if isinstance(parameter.domain, tuple):
                return parameter.domain[generator.integers(len(parameter.domain))]
            low, high, step = parameter.domain.low, parameter.domain.high, parameter.domain.step
            if step is not None:
                drawn = low + step * generator.integers(int((high - low) / step + 1e-9) + 1)
            elif parameter.domain.log:
                drawn = np.exp(generator.uniform(np.log(low), np.log(high)))
            else:
                drawn = generator.uniform(low, high)
            return round(drawn) if parameter.whole else float(drawn)

        settings = plan.space.settle(
            strategy, draw, seed=derived_seed("trial", plan.sweep.sampler.seed, number)
        )
        samples.append(
            {
                name: getattr(settings, name).model_dump(mode="json")
                for name in ("alpha", "temperature", "learning_rate")
            }
        )
    return {
        "trials": trials_of(plan.space, plan.sweep, strategy),
        "parameters": {parameter.name: parameter.describe() for parameter in parameters},
        "start_with": plan.space.first_trials(strategy),
        "samples": samples,
    }


# --- what it would cost ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _MoreRows:
    """What a strategy's trials read beside train: `rows` a trial at most; of views `views` a row and `sets` different ones over all trials.

    `as_long`: as many rows of train would be as much to read.
    """

    unlabelled: int
    views: int
    sets: int
    rows: int
    as_long: float


def _more_rows(
    plan: Plan, strategy: str, data: TaskData, unlabelled: Split | None, student: Candidate
) -> _MoreRows:
    space, taught = plan.space, plan.space.may_be_taught(strategy)
    texts, views = len(unlabelled) if unlabelled and taught else 0, space.most_views(strategy)
    counts = [
        count_points(value, name, whole=is_whole(name))
        for name, value in space.values(strategy).items()
        if name.startswith("augment.") and name not in ("augment.views", "augment.in_finetuning")
    ]
    trials = trials_of(space, plan.sweep, strategy)
    sets = (
        min(trials, math.prod(trials if count is None else count for count in counts))
        if views
        else 0
    )
    length = (
        _read_length(unlabelled, student) / _read_length(data.train, student)
        if unlabelled and texts
        else 1.0
    )
    return _MoreRows(
        texts,
        views,
        sets,
        texts + views * len(data.train),
        texts * length + views * len(data.train),
    )


def _read_length(split: Split, candidate: Candidate) -> float:
    """Tokens of a row that the model reads, the mean."""
    return float(np.minimum(_lengths(split, candidate), candidate.max_length).mean())


def _estimate(
    plan: Plan,
    data: TaskData,
    unlabelled: Split | None,
    teachers: list[Candidate],
    students: list[Candidate],
) -> dict[str, Any]:
    """Seconds and megabytes, from timing a few forward and backward passes of the largest student and of the teacher here."""
    epochs, batch_size = (
        max(_constants(plan.space, "epochs")),
        max(_constants(plan.space, "batch_size")),
    )
    evaluations = max(_constants(plan.space, "evaluations_per_epoch"))
    student = max(students, key=lambda candidate: parameter_count(candidate.model))
    trials = {
        strategy: trials_of(plan.space, plan.sweep, strategy) for strategy in plan.space.strategies
    }
    trial = _training_seconds(student, data, epochs, batch_size, evaluations)
    more = {
        strategy: _more_rows(plan, strategy, data, unlabelled, student)
        for strategy in plan.space.strategies
    }
    step = (
        _row_seconds(student, data, batch_size)[0]
        if any(found.rows for found in more.values())
        else 0.0
    )
    teacher_seconds, forward, beside = 0.0, 0.0, {}
    if teachers:
        rows, forward = len(data.train), _row_seconds(teachers[0], data, 32)[1]
        teacher_seconds = sum(_teacher_seconds(one, data, plan.space) for one in teachers)
        teacher_seconds += (
            max(found.as_long - found.views * rows for found in more.values()) * forward
        )
        inner = {
            strategy: list(plan.space.settle(strategy, _first, 0).distill.online)
            for strategy in plan.space.strategies
        }
        beside = {
            strategy: {
                "terms": terms,
                "seconds_a_trial": round(
                    max(_constants_of(plan.space, strategy, "epochs"))
                    * (rows + more[strategy].as_long)
                    * forward,
                    1,
                ),
            }
            for strategy, terms in inner.items()
            if terms
        }
    size = _view_bytes(data, student)
    words = {
        strategy: found.sets
        * found.views
        * len(data.train)
        * _seconds_for_words(plan.space, strategy, data)
        for strategy, found in more.items()
    }
    added = {
        strategy: {
            "unlabelled": found.unlabelled,
            "views": found.views,
            "rows": found.rows,
            "seconds_a_trial": round(
                max(_constants_of(plan.space, strategy, "epochs")) * found.as_long * step, 1
            ),
            "sets_of_views": found.sets,
            "seconds_for_the_teacher": round(
                found.sets
                * found.views
                * len(data.train)
                * forward
                * plan.space.may_be_taught(strategy),
                1,
            ),
            "seconds_for_words": round(words[strategy], 1),
            "views_mb": round(found.sets * found.views * len(data.train) * size / 1e6, 1),
        }
        for strategy, found in more.items()
        if found.rows
    }
    slots = slots_here(plan.sweep.engine)
    kept = min(plan.sweep.keep.students, plan.sweep.trials) * len(plan.space.strategies)
    extra_seconds = sum(
        trials[strategy] * extra["seconds_a_trial"]
        for extras in (beside, added)
        for strategy, extra in extras.items()
    )
    extra_seconds += sum(
        extra["seconds_for_the_teacher"] + extra["seconds_for_words"] for extra in added.values()
    )
    disk = (
        sum(extra["views_mb"] for extra in added.values())
        + kept * size_mb(student.model)
        + 4 * size_mb(student.model)
        + sum(size_mb(teacher.model) * 5 for teacher in teachers)
    )
    return {
        "device": str(pick_device()),
        "slots": slots,
        "slots_instead": slots_instead(plan.sweep.engine),
        "seconds_a_trial": round(trial, 1),
        "seconds_for_the_teacher": round(teacher_seconds, 1),
        "seconds_for_the_teacher_in_each_step": beside,
        "more_rows": added,
        "seconds_without_pruning": round(
            math.ceil(sum(trials.values()) / (slots or 1)) * trial
            + teacher_seconds
            + extra_seconds / (slots or 1),
            1,
        ),
        "disk_mb": round(disk),
    }


def _teacher_seconds(candidate: Candidate, data: TaskData, space: SearchSpace) -> float:
    """Of all teachers from this model: those of several epochs share a run, seeds and folds have one each (a fold's is shorter by its fold)."""
    forward, seconds = _row_seconds(candidate, data, 32)[1], 0.0
    runs: dict[str, TeacherSettings] = {}
    for one in space.teachers():
        if one.source == candidate.source:
            seconds += len(data.train) * forward * (1 if one.folds is None else 2)
            shared = one.model_copy(update={"epoch": None if one.epoch is None else 1})
            if shared.model_dump_json() not in runs or (one.epoch or 0) > (
                runs[shared.model_dump_json()].epoch or 0
            ):
                runs[shared.model_dump_json()] = one
    for one in runs.values() if candidate.source in {one.model for one in runs.values()} else ():
        own = one.training
        trained = one.seeds * (
            1 if one.folds is None else one.folds
        )  # K runs of (K - 1)/K of the rows and one of all: K in all
        seconds += trained * _training_seconds(
            candidate, data, one.epoch or own.epochs, own.batch_size, own.evaluations_per_epoch
        )
    return seconds


def _seconds_for_words(space: SearchSpace, strategy: str, data: TaskData) -> float:
    """Seconds a row of a view for the words of the strategy's slowest masked language model; 0 where none replaces any."""
    augment = space.strategies[strategy].augment
    if augment is None or augment.masked_lm is None or space.most_views(strategy) == 0:
        return 0.0
    share = max(numbers_in(augment.masked_lm.share))
    chosen_rows = np.linspace(0, len(data.train) - 1, min(len(data.train), ROWS_PER_BATCH)).astype(
        int
    )
    rows = [data.train.texts[0][i].split() for i in chosen_rows]
    draws = [random.Random(int(i)) for i in chosen_rows]
    chosen = [choose_words(row, draw, share) for row, draw in zip(rows, draws, strict=True)]
    slowest = 0.0
    for source in dict.fromkeys(str(source) for _, source in plain_values(augment.masked_lm.model)):
        model, tokenizer = describe_masked_lm(source)
        offers = MaskedWords(
            type(model)(model.config).eval() if model.device.type == "meta" else model, tokenizer, 1
        )
        seconds = []
        for _ in range(STEPS_TO_TIME):
            start = time.perf_counter()
            offers.replace(rows, chosen, draws)
            seconds.append(time.perf_counter() - start)
        slowest = max(slowest, statistics.median(seconds) / len(rows))
    return slowest


def _view_bytes(data: TaskData, student: Candidate) -> float:
    """What a row of a view takes in the cache: its text, tokens and logits."""
    chosen = np.linspace(0, len(data.train) - 1, min(len(data.train), ROWS_TO_MEASURE)).astype(int)
    text = float(
        np.mean([sum(len(column[i].encode()) for column in data.train.texts) for i in chosen])
    )
    return text + 2 * _read_length(data.train, student) + 4 * len(data.label_names)


def _training_seconds(
    candidate: Candidate, data: TaskData, epochs: int, batch_size: int, evaluations: int
) -> float:
    step, forward = _row_seconds(candidate, data, batch_size)
    return epochs * (len(data.train) * step + evaluations * len(data.validation) * forward)


@functools.cache
def _row_seconds(candidate: Candidate, data: TaskData, batch_size: int) -> tuple[float, float]:
    """Seconds a row for a step and for an evaluation, in a batch of median length. Gradients are computed, no weight moves."""
    device = pick_device()
    model = candidate.model
    if candidate.on_meta:
        model = type(model)(model.config)  # random weights take as long as trained ones
    model = model.to(device)
    length = int(min(candidate.max_length, max(4, np.median(_lengths(data.train, candidate)))))
    rows = min(batch_size, len(data.train))
    inputs = {
        name: torch.ones((rows, length), dtype=torch.long, device=device)
        for name in ("input_ids", "attention_mask")
    }
    if reads_token_types(model):
        inputs["token_type_ids"] = torch.zeros((rows, length), dtype=torch.long, device=device)
    steps, forwards = [], []
    for _ in range(STEPS_TO_TIME):
        start = time.perf_counter()
        loss = model(**inputs).logits.float().square().sum()
        loss.item()
        forwards.append(time.perf_counter() - start)
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        steps.append(time.perf_counter() - start)
        model.zero_grad()
    return 1.15 * statistics.median(steps) / rows, statistics.median(
        forwards
    ) / rows  # the optimizer's share is about 15%
