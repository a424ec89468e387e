"""Models of the shapes that students have, made to be measured before any of them is trained.

Their weights are random: how long a model takes depends on its shape alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedModel

from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import Say, TaskData
from kdsweep.core.data.tokenize import TokenizedSplit, tokenize_split
from kdsweep.core.device import pick_device, this_device
from kdsweep.core.evaluation.latency import ROUNDS, answering, timed_in_turn, typical
from kdsweep.core.evaluation.latency_figures import (
    ArchitectureLatency,
    Latency,
    MeasuredShapes,
    ModelShape,
)
from kdsweep.core.evaluation.onnx_format import OnnxModel
from kdsweep.core.evaluation.quantized import quantize_model
from kdsweep.core.models.describing import parameter_count
from kdsweep.core.models.input_format import input_format_of, pad_with
from kdsweep.core.models.layers import new_model
from kdsweep.core.models.loading import load_tokenizer
from kdsweep.core.settings import StudentSettings, TaskSettings
from kdsweep.errors import Interrupted, ModelError

# Models that take turns are all in memory. Training one takes twice as much at least.
MOST_MEMORY = 2

# Called between two rounds with what is done and what there is to do. True: stop.
OnRound = Callable[[int, int], bool]
Key = tuple[object, ...]


@dataclass
class _Candidate:
    """An architecture that is to be measured. described: it without its latency, which is `known`
    where it was measured before."""

    described: dict[str, object]
    tokens: TokenizedSplit
    parameters: int
    asked: list[ModelShape] = field(default_factory=list)

    def with_latency(self, first: Latency) -> ArchitectureLatency:
        return ArchitectureLatency.model_validate(
            self.described | {"asked": tuple(self.asked), "first": first}
        )


def measure_shapes(
    task: TaskSettings,
    shapes: Sequence[ModelShape],
    known: Sequence[ArchitectureLatency],
    cache: Path,
    on_round: OnRound,
    say: Say,
) -> MeasuredShapes:
    """The latency of each shape, in turn. Those that mean the same architecture are measured once.

    known: architectures that aren't measured again. Raises Interrupted if `on_round` asked to stop.
    """
    data = load_task(task, cache, say=say)
    candidates, unmeasured = _candidates(task, shapes, data, cache)
    before = {one.key: one.first for one in known}
    found: list[ArchitectureLatency] = []
    left: list[_Candidate] = []
    for key, candidate in candidates.items():
        if key in before:
            found.append(candidate.with_latency(before[key]))
        else:
            left.append(candidate)
    parts = list(_fitting_in_memory(left))
    with torch.random.fork_rng():
        for number, part in enumerate(parts):
            found += _measure(part, data, on_round, number, len(parts))
    return MeasuredShapes(tuple(found), tuple(unmeasured))


def _candidates(
    task: TaskSettings, shapes: Sequence[ModelShape], data: TaskData, cache: Path
) -> tuple[dict[Key, _Candidate], list[tuple[ModelShape, str]]]:
    """The architectures that these shapes mean, and the shapes that no model can have."""
    found: dict[Key, _Candidate] = {}
    unmeasured: list[tuple[ModelShape, str]] = []
    for shape in shapes:
        try:
            key, candidate = _describe(task, shape, data, cache)
        except ModelError as error:
            unmeasured.append((shape, str(error)))
            continue
        found.setdefault(key, candidate).asked.append(shape)
    return found, unmeasured


def _describe(
    task: TaskSettings, shape: ModelShape, data: TaskData, cache: Path
) -> tuple[Key, _Candidate]:
    tokenizer = load_tokenizer(shape.model, trust_remote_code=shape.trust_remote_code)
    with torch.device("meta"):
        model = _model(shape, data)
    input_format = input_format_of(model, tokenizer, shape.max_length, task.truncation)
    tokens = tokenize_split(data.validation, tokenizer, input_format, cache=cache)
    described: dict[str, object] = {
        "model": shape.model,
        "layers": getattr(model.config, "num_hidden_layers", None),
        "width": getattr(model.config, "hidden_size", None),
        "precision": "fp32" if shape.quantize == "none" else shape.quantize,
        "tokens": typical(tokens)["input_ids"].shape[1],
        "device": this_device(),
    }
    return tuple(described.values()), _Candidate(described, tokens, parameter_count(model))


def _model(shape: ModelShape, data: TaskData) -> PreTrainedModel:
    student = StudentSettings(
        model=shape.model,
        layers=shape.layers,
        width=shape.width,
        start="scratch",
        trust_remote_code=shape.trust_remote_code,
    )
    return new_model(student, data.label_names, shape.model, data.kind)


def _fitting_in_memory(candidates: Sequence[_Candidate]) -> Iterator[list[_Candidate]]:
    """As many at a time as are together not much larger than the largest."""
    most = MOST_MEMORY * max((one.parameters for one in candidates), default=0)
    part: list[_Candidate] = []
    for candidate in candidates:
        if part and sum(one.parameters for one in [*part, candidate]) > most:
            yield part
            part = []
        part.append(candidate)
    if part:
        yield part


def _measure(
    part: Sequence[_Candidate], data: TaskData, on_round: OnRound, number: int, parts: int
) -> list[ArchitectureLatency]:
    def before_round(done: int) -> None:
        if on_round(number * ROUNDS + done, parts * ROUNDS):
            raise Interrupted("stopped between two rounds of measuring latency")

    with tempfile.TemporaryDirectory(prefix="kdsweep-latency-") as temporary:
        answers = []
        for i, candidate in enumerate(part):
            model = _model(candidate.asked[0], data).eval()
            if candidate.asked[0].quantize == "none":
                answers.append(answering(model.to(pick_device()), candidate.tokens))
            else:
                file = Path(temporary) / f"{i}.onnx"
                pad_with(model, candidate.tokens.padding.token_id)
                quantize_model(model, file)
                answers.append(OnnxModel(file).answering(candidate.tokens))
        with torch.inference_mode():
            figures = timed_in_turn(answers, before_round)
    return [one.with_latency(figure) for one, figure in zip(part, figures, strict=True)]
