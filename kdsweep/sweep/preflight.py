"""Looking before leaping: the checks that `run` makes before it writes anything, and the facts that `plan` shows."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.config import Plan, SearchSpace
from kdsweep.config.values import each_number
from kdsweep.core.data import Split, TaskData, load_task
from kdsweep.core.device import pick_device, resolve_precision
from kdsweep.core.models import check_fits, check_length, describe_model, keep_layers, layer_count, parameter_count, reads_token_types, size_mb, spaced_layers
from kdsweep.core.settings import TrainingSettings
from kdsweep.core.teacher import check_labels
from kdsweep.sweep.engines import slots_here
from kdsweep.sweep.studies import derived_seed

ROWS_TO_MEASURE = 2000
STEPS_TO_TIME = 3


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model that trials will train, or their teacher, as far as it is known before."""

    source: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int

    @property
    def on_meta(self) -> bool:
        """Whether only its shape is known here, its weights not being on this machine yet."""
        return self.model.device.type == "meta"


def check_models(space: SearchSpace) -> tuple[TaskData, Candidate | None, list[Candidate]]:
    """Load the task's rows, the teacher and each student that a trial may have. Raises what a trial would raise, before any."""
    data = load_task(space.task)
    teacher = None
    if space.needs_teacher and space.teacher is not None:
        source = space.teacher.model or space.teacher.checkpoint or ""
        if space.teacher.checkpoint:
            check_labels(space.teacher, data)
        resolve_precision(space.teacher.training.precision, pick_device())
        teacher = _candidate(source, data, space.teacher.trust_remote_code, space.teacher.training.max_length)
    lengths = _constants(space, "max_length")
    students = []
    for model in dict.fromkeys(value for _, value in each_number(space.student.model)):
        whole = teacher if model == "teacher" and teacher else _candidate(model, data, space.student.trust_remote_code, max(lengths))
        layers = [value for _, value in each_number(space.student.layers)] if "layers" in space.student.model_fields_set else [None]
        for count in dict.fromkeys(None if value is None else round(value) for value in layers):
            students.append(_with_layers(whole, count, max(lengths)))
    for precision in dict.fromkeys(_constants(space, "precision")):
        resolve_precision(precision, pick_device())
    return data, teacher, students


def _constants(space: SearchSpace, name: str) -> list[Any]:
    """Everything that a training setting can be in any strategy."""
    found = [value for strategy in space.strategies for _, value in each_number(space.values(strategy).get(name, getattr(TrainingSettings(), name)))]
    return [round(value) if isinstance(value, float) else value for value in found]


def _candidate(source: str, data: TaskData, trust_remote_code: bool, max_length: int) -> Candidate:
    model, tokenizer = describe_model(source, data.label_names, trust_remote_code=trust_remote_code)
    check_fits(model, tokenizer, source)
    check_length(model, tokenizer, max_length, source)
    return Candidate(source, model, tokenizer, max_length)


def _with_layers(whole: Candidate, layers: int | None, max_length: int) -> Candidate:
    if layers is None:
        return Candidate(whole.source, whole.model, whole.tokenizer, max_length)
    kept = spaced_layers(layer_count(whole.model, whole.source), layers, whole.source)
    with torch.device(whole.model.device):
        small = keep_layers(whole.model, kept, whole.source)
    return Candidate(f"{whole.source}, {layers} layers", small, whole.tokenizer, max_length)


def describe(plan: Plan, home: Path) -> dict[str, Any]:
    """What would run and what it would cost; trains nothing and writes nothing."""
    space = plan.space
    data, teacher, students = check_models(space)
    splits = {name: _describe_split(split, data) for name, split in data.splits.items()}
    models = [("teacher", teacher)] if teacher else []
    models += [("student", student) for student in students]
    described = [
        {
            "role": role,
            "model": candidate.source,
            "labels": candidate.model.config.num_labels,
            "parameters": parameter_count(candidate.model),
            "size_mb": round(size_mb(candidate.model), 1),
            "weights": "not downloaded yet" if candidate.on_meta else "here",
            "truncated": {name: _truncated(split, candidate) for name, split in data.splits.items()},
        }
        for role, candidate in models
    ]
    return {
        "sweep": plan.name,
        "home": str(home),
        "task": {"labels": list(data.label_names), "metric": space.task.metric, "splits": splits, "notes": list(data.notes)},
        "models": described,
        "studies": {strategy: _describe_study(plan, strategy) for strategy in space.strategies},
        "estimate": _estimate(plan, data, teacher, students),
    }


def _describe_split(split: Split, data: TaskData) -> dict[str, Any]:
    counts = np.bincount(split.labels, minlength=len(data.label_names))
    return {"rows": len(split), "labels": {name: int(count) for name, count in zip(data.label_names, counts, strict=True)}}


def _truncated(split: Split, candidate: Candidate) -> dict[str, Any]:
    """How many texts are longer than the model will read, counted on at most 2,000 rows."""
    lengths = _lengths(split, candidate)
    return {"rows": int((lengths > candidate.max_length).sum()), "of": len(lengths)}


def _lengths(split: Split, candidate: Candidate) -> np.ndarray:
    chosen = np.linspace(0, len(split) - 1, min(len(split), ROWS_TO_MEASURE)).astype(int)
    texts = [[column[i] for i in chosen] for column in split.texts]
    return np.array([len(row) for row in candidate.tokenizer(*texts, truncation=False, return_attention_mask=False, verbose=False)["input_ids"]])


def _describe_study(plan: Plan, strategy: str) -> dict[str, Any]:
    parameters = plan.space.parameters(strategy)
    samples = []
    for number in range(2):
        random = np.random.default_rng(derived_seed("sample", plan.sweep.sampler.seed, number))

        def draw(parameter: Any, random: np.random.Generator = random) -> Any:
            if isinstance(parameter.domain, tuple):
                return parameter.domain[random.integers(len(parameter.domain))]
            low, high, step = parameter.domain.low, parameter.domain.high, parameter.domain.step
            if step is not None:
                drawn = low + step * random.integers(int((high - low) / step + 1e-9) + 1)
            elif parameter.domain.log:
                drawn = np.exp(random.uniform(np.log(low), np.log(high)))
            else:
                drawn = random.uniform(low, high)
            return round(drawn) if parameter.whole else float(drawn)

        settings = plan.space.settle(strategy, draw, seed=derived_seed("trial", plan.sweep.sampler.seed, number))
        samples.append({name: getattr(settings, name).model_dump(mode="json") for name in ("alpha", "temperature", "learning_rate")})
    points = plan.space.count_points(strategy) if plan.sweep.sampler.type == "grid" else None
    return {
        "trials": plan.sweep.trials if points is None else min(points, plan.sweep.trials),
        "parameters": {parameter.name: parameter.describe() for parameter in parameters},
        "start_with": plan.space.first_trials(strategy),
        "samples": samples,
    }


# --- what it would cost ----------------------------------------------------------------------------------------------


def _estimate(plan: Plan, data: TaskData, teacher: Candidate | None, students: list[Candidate]) -> dict[str, Any]:
    """Seconds and megabytes, from timing a few forward and backward passes of the largest student and of the teacher here."""
    epochs, batch_size = max(_constants(plan.space, "epochs")), max(_constants(plan.space, "batch_size"))
    evaluations = max(_constants(plan.space, "evaluations_per_epoch"))
    student = max(students, key=lambda candidate: parameter_count(candidate.model))
    trials = sum(_describe_study(plan, strategy)["trials"] for strategy in plan.space.strategies)
    trial = _training_seconds(student, data, epochs, batch_size, evaluations)
    teacher_seconds = 0.0
    if teacher is not None:
        own = plan.space.teacher.training if plan.space.teacher and plan.space.teacher.model else None
        rows = len(data.train)
        teacher_seconds = _training_seconds(teacher, data, own.epochs, own.batch_size, own.evaluations_per_epoch) if own else 0.0
        teacher_seconds += rows * _row_seconds(teacher, data, 32)[1]
    slots = slots_here(plan.sweep.engine)
    kept = min(plan.sweep.keep.students, plan.sweep.trials) * len(plan.space.strategies)
    disk = kept * size_mb(student.model) + 4 * size_mb(student.model) + (size_mb(teacher.model) * 5 if teacher else 0)
    return {
        "device": str(pick_device()),
        "slots": slots,
        "seconds_a_trial": round(trial, 1),
        "seconds_for_the_teacher": round(teacher_seconds, 1),
        "seconds_without_pruning": round(math.ceil(trials / (slots or 1)) * trial + teacher_seconds, 1),
        "disk_mb": round(disk),
    }


def _training_seconds(candidate: Candidate, data: TaskData, epochs: int, batch_size: int, evaluations: int) -> float:
    step, forward = _row_seconds(candidate, data, batch_size)
    return epochs * (len(data.train) * step + evaluations * len(data.validation) * forward)


def _row_seconds(candidate: Candidate, data: TaskData, batch_size: int) -> tuple[float, float]:
    """Seconds a row for a step and for an evaluation, in a batch of median length. Gradients are computed, no weight moves."""
    device = pick_device()
    model = candidate.model
    if candidate.on_meta:
        model = type(model)(model.config)  # random weights take as long as trained ones
    model = model.to(device)  # type: ignore[arg-type]
    length = int(min(candidate.max_length, max(4, np.median(_lengths(data.train, candidate)))))
    rows = min(batch_size, len(data.train))
    inputs = {name: torch.ones((rows, length), dtype=torch.long, device=device) for name in ("input_ids", "attention_mask")}
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
    return 1.15 * statistics.median(steps) / rows, statistics.median(forwards) / rows  # the optimizer's share is about 15%
