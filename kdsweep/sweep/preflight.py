"""The checks of data and models that a sweep makes before anything is written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from pathlib import Path
from typing import cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.config import SearchSpace
from kdsweep.config.extremes import numbers_in, plain_values
from kdsweep.config.loading import Scalar
from kdsweep.config.parameters import Parameter
from kdsweep.config.teacher_values import TeacherValues
from kdsweep.core.augmentation.masked_lm import offered_words
from kdsweep.core.augmentation.views import mask_token
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import Split, TaskData
from kdsweep.core.data.unlabelled import load_unlabelled
from kdsweep.core.device import pick_device, resolve_precision
from kdsweep.core.evaluation.quantized import check_can_quantize, rehearse_quantized
from kdsweep.core.hub.repository import shown
from kdsweep.core.models.describing import describe_masked_lm, describe_model
from kdsweep.core.models.input_format import input_format_of
from kdsweep.core.models.inputs import check_fits, check_length
from kdsweep.core.models.layers import keep_layers, kept_layers, layer_count, new_model
from kdsweep.core.models.rehearsal import rehearse, shortest_and_longest
from kdsweep.core.models.weights import LoadedWeights
from kdsweep.core.objective.inner_states import check_match, check_same_tokens
from kdsweep.core.objective.returned_states import NeededStates, maps_are_dropped
from kdsweep.core.settings import Precision, StudentSettings, TrainingSettings
from kdsweep.core.tasks.base import TaskKind
from kdsweep.core.teachers.checks import check_labels
from kdsweep.core.teachers.selection import check_folds
from kdsweep.errors import ModelError, first_few

# What of a config a small model leaves aside, or what says nothing about how the model computes.
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
NAMES = ("_name_or_path", "architectures", "dtype", "id2label", "label2id", "transformers_version")
# Enough that layers which differ, as ModernBERT's do, are among them.
FEW_LAYERS = 3


@dataclass(frozen=True, eq=False)
class PlannedModel:
    """A model that trials will train, or a teacher, as far as it is known before training.

    source: its name and shape. loads_from: what its shape is taken from.
    """

    source: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    input_format: InputFormat
    loads_from: str
    trust_remote_code: bool = False
    weights: LoadedWeights = field(default_factory=LoadedWeights)

    @property
    def on_meta(self) -> bool:
        """Whether only its shape is known, because its weights aren't on this machine yet."""
        return self.model.device.type == "meta"


@dataclass(frozen=True)
class Checked:
    """Data and models that passed all checks.

    notes: what a user should know about the rows. model_notes: and about the models. students:
    each that a trial can have. with_dropped_maps: strategies that compare attention maps, with a
    student that drops parts of its maps.
    """

    data: TaskData
    unlabelled: Split | None
    notes: tuple[str, ...]
    teachers: list[PlannedModel]
    students: list[PlannedModel]
    with_dropped_maps: list[str]

    @property
    def model_notes(self) -> list[str]:
        found: list[str] = []
        for planned in (*self.teachers, *self.students):
            padding = planned.input_format.padding
            found += [] if padding is None else padding.notes
        return list(dict.fromkeys(found))

    @property
    def weight_notes(self) -> list[str]:
        """What of the models starts from random numbers, and what of their files isn't used."""
        found: list[str] = []
        for one in (*self.teachers, *self.students):
            if one.weights.new:
                found.append(f"{shown(one.source)}: new weights: {', '.join(one.weights.new)}")
            if one.weights.unused:
                found.append(
                    f"{shown(one.source)}: weights not used: {first_few(one.weights.unused)}"
                )
        return list(dict.fromkeys(found))


def check_models(space: SearchSpace, cache: Path) -> Checked:
    """Load the task's rows, each teacher, and each student that a trial may have.

    Raises what a trial would raise, before there is any.
    """
    data = load_task(space.task, cache, publish=False)
    unlabelled: Split | None = None
    notes: tuple[str, ...] = ()
    if space.task.unlabelled is not None:
        unlabelled, notes = load_unlabelled(space.task, data, cache, publish=False)
    teachers = _teachers(space, data)
    students = _students(space, data, teachers)
    splits = [*data.splits.values(), *([] if unlabelled is None else [unlabelled])]
    _rehearse([*teachers.values(), *students], splits)
    if space.may_quantize:
        check_can_quantize()
        _rehearse_quantized(students, splits, data)
    for strategy in space.strategies:
        _check_inner_states(space, strategy, teachers, students)
        _check_masking(space, strategy, [*students, *teachers.values()], students)
    # Each is read once, however many strategies have it.
    for words in space.masked_lms():
        trusted = words.trust_remote_code
        offered_words(describe_masked_lm(words.loads_from, trust_remote_code=trusted)[1])
    for precision in dict.fromkeys(_precisions(space)):
        resolve_precision(precision, pick_device())
    dropped = [name for name in space.strategies if _drops_maps(space, name, students)]
    notes = data.notes + notes + _scale_notes(data)
    return Checked(data, unlabelled, notes, list(teachers.values()), students, dropped)


def _scale_notes(data: TaskData) -> tuple[str, ...]:
    """A line if models learn standardized labels."""
    scale = data.kind.label_scale(data.train.labels)
    if scale.is_plain:
        return ()
    return (
        f"labels: models learn (label - {scale.mean:.4g}) / {scale.deviation:.4g}, by train's mean "
        "and deviation; predictions and scores are in the labels' unit",
    )


def _teachers(space: SearchSpace, data: TaskData) -> dict[str, PlannedModel]:
    """source -> the teacher's model, with the longest input of all teachers that share it."""
    found: dict[str, PlannedModel] = {}
    for one in space.teachers():
        if one.checkpoint:
            check_labels(one, data)
        if one.folds is not None:
            check_folds(data, one.folds)
        resolve_precision(one.training.precision, pick_device())
        source = one.loads_from
        if source not in found or found[source].max_length < one.training.max_length:
            found[source] = _planned(
                source,
                data,
                one.trust_remote_code,
                one.training.max_length,
                is_complete=bool(one.checkpoint),
            )
    return found


def _students(
    space: SearchSpace, data: TaskData, teachers: dict[str, PlannedModel]
) -> list[PlannedModel]:
    """Every student that a trial can have."""
    max_length = max(whole_numbers(space, "max_length"))
    trusted = space.student.trust_remote_code
    students: list[PlannedModel] = []
    for model, grouped in groupby(space.students(), key=lambda shape: shape.loads_from):
        shapes = list(grouped)
        if model == "teacher":
            first = chain.from_iterable(_first_sources(space, name) for name in space.strategies)
            loaded = [teachers[source] for source in dict.fromkeys(first)]
        elif model in teachers and trusted == teachers[model].trust_remote_code:
            loaded = [teachers[model]]
        else:
            loaded = [_planned(model, data, trusted, max_length)]
        for whole in loaded:
            check_length(whole.model, whole.tokenizer, max_length, whole.source)
            students += [_shaped(whole, shape, max_length, data) for shape in shapes]
    return students


def _planned(
    source: str,
    data: TaskData,
    trust_remote_code: bool,
    max_length: int,
    *,
    is_complete: bool = False,
) -> PlannedModel:
    model, tokenizer, weights = describe_model(
        source,
        data.label_names,
        kind=data.kind,
        trust_remote_code=trust_remote_code,
        is_complete=is_complete,
    )
    check_fits(model, tokenizer, source)
    check_length(model, tokenizer, max_length, source)
    input_format = input_format_of(model, tokenizer, max_length)
    return PlannedModel(
        source, model, tokenizer, max_length, input_format, source, trust_remote_code, weights
    )


def _rehearse(all_models: Iterable[PlannedModel], splits: Iterable[Split]) -> None:
    """Let each model whose weights are here read a few rows."""
    texts = shortest_and_longest(splits)
    # A student may be the teacher's model as it is.
    for one in {id(planned.model): planned for planned in all_models}.values():
        if not one.on_meta:
            rehearse(one.model, one.tokenizer, one.input_format, texts, one.source)


def _rehearse_quantized(
    students: Iterable[PlannedModel], splits: Iterable[Split], data: TaskData
) -> None:
    """Quantize a small model of each student's kind, with random weights."""
    texts = shortest_and_longest(splits)
    for one in {_kind_of_model(planned): planned for planned in students}.values():
        with torch.random.fork_rng():
            model = small_model(one, data.label_names, data.kind)
        rehearse_quantized(model, one.tokenizer, one.input_format, texts)


def _kind_of_model(one: PlannedModel) -> tuple[object, ...]:
    """What students share that differ in sizes alone.

    Two models of one class may have other switches, as another kind of positions.
    """
    config = one.model.config
    left_out = {*NAMES, *SIZES, *(config.attribute_map.get(name, name) for name in SIZES)}
    switches = {key: value for key, value in config.to_dict().items() if key not in left_out}
    text = json.dumps(switches, sort_keys=True, default=str)
    return type(one.model), text, type(one.tokenizer), replace(one.input_format, max_length=0)


def small_model(one: PlannedModel, label_names: tuple[str, ...], kind: TaskKind) -> PreTrainedModel:
    """A model of the same family with random weights and few layers, if their number can be set."""
    few = StudentSettings(
        model=one.loads_from,
        layers=min(FEW_LAYERS, getattr(one.model.config, "num_hidden_layers", 0)) or None,
        start="scratch",
        trust_remote_code=one.trust_remote_code,
    )
    try:
        return new_model(few, label_names, one.loads_from, kind)
    except ModelError:
        whole = few.model_copy(update={"layers": None})
        return new_model(whole, label_names, one.loads_from, kind)


def _shaped(
    whole: PlannedModel, shape: StudentSettings, max_length: int, data: TaskData
) -> PlannedModel:
    """The student of this shape: some layers of a model, or random weights."""
    model = whole.model
    with torch.device(whole.model.device):
        if shape.start == "scratch":
            model = new_model(shape, data.label_names, whole.source, data.kind)
        elif shape.layers is not None:
            count = layer_count(whole.model, whole.source)
            kept = kept_layers(count, shape.layers, whole.source)
            model = keep_layers(whole.model, kept, whole.source)
    return replace(
        whole,
        source=f"{whole.source}{shape.shape}",
        model=model,
        max_length=max_length,
        input_format=replace(whole.input_format, max_length=max_length),
        weights=LoadedWeights(),
    )


# --- what a strategy asks of the models ----------------------------------------------------------


def _check_inner_states(
    space: SearchSpace,
    strategy: str,
    teachers: dict[str, PlannedModel],
    students: Iterable[PlannedModel],
) -> None:
    """Hidden states and attentions can be compared: the same tokens, layers that match."""
    matched = space.settle(strategy, lowest, 0).distill
    if not matched.online:
        return
    for source in _first_sources(space, strategy):
        for student in students:
            check_same_tokens(matched, student.tokenizer, teachers[source].tokenizer)
            check_match(matched, student.model, teachers[source].model)


def _drops_maps(space: SearchSpace, strategy: str, students: Iterable[PlannedModel]) -> bool:
    """Whether the strategy compares attention maps that a student drops parts of."""
    if not NeededStates.of(space.settle(strategy, lowest, 0).distill).attentions:
        return False
    return any(maps_are_dropped(student.model) for student in students)


def _check_masking(
    space: SearchSpace, strategy: str, all_models: list[PlannedModel], students: list[PlannedModel]
) -> None:
    """Every model that reads masked words has a token for them."""
    augment = space.strategies[strategy].augment
    if augment is None or not any(share > 0 for share in numbers_in(augment.mask)):
        return
    for planned in all_models if space.may_be_taught(strategy) else students:
        mask_token(planned.tokenizer, planned.source)


def _first_sources(space: SearchSpace, strategy: str) -> list[str]:
    """The models that the strategy's first teacher can be."""
    firsts: tuple[TeacherValues, ...] = space.teachers_of(strategy)[:1]
    every = [space.at_commit(one) for first in firsts for one in first.every()]
    return list(dict.fromkeys(one.loads_from for one in every))


# --- what values can be --------------------------------------------------------------------------


def lowest(parameter: Parameter) -> Scalar:
    """The lowest value of a parameter, or its first choice."""
    if isinstance(parameter.domain, tuple):
        return parameter.domain[0]
    return round(parameter.domain.low) if parameter.whole else parameter.domain.low


def whole_numbers(space: SearchSpace, name: str, strategy: str | None = None) -> list[int]:
    """The ends and choices of a training setting, in one strategy or in all."""
    strategies = list(space.strategies) if strategy is None else [strategy]
    values = [_training_value(space, one, name) for one in strategies]
    return [round(number) for value in values for number in numbers_in(value)]


def _precisions(space: SearchSpace) -> list[Precision]:
    values = [_training_value(space, strategy, "precision") for strategy in space.strategies]
    return [cast(Precision, plain) for value in values for _, plain in plain_values(value)]


def _training_value(space: SearchSpace, strategy: str, name: str) -> object:
    """What the strategy says about a training setting, or its default."""
    return space.values(strategy).get(name, getattr(TrainingSettings(), name))
