"""Terms of the loss that compare inner states of student and teacher.

No cache of logits holds inner states, so the teacher runs in each step.

    hidden      mean squared error of hidden states, through a learned projection
                (Jiao et al. 2020, "TinyBERT", equation 8; https://arxiv.org/abs/1909.10351)
    attention   maps: mean squared error of attention probabilities (TinyBERT, equation 7, which
                takes the scores before the softmax);
                values: KL of the relations between the last layer's values (Wang et al. 2020,
                "MiniLM", equation 9, with the relation heads of "MiniLMv2", section 3.1, so that
                the numbers of heads may differ; https://arxiv.org/abs/2012.15828)
    cosine      1 - cosine of the last hidden states (Sanh et al. 2019, "DistilBERT", section 3;
                https://arxiv.org/abs/1910.01108)

Maps are compared before the student drops parts of them; a teacher drops nothing.

All are means over tokens of the batch that are not padding, over pairs of layers and over heads, in
fp32. They compare token by token, so teacher and student must read the same tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import ModelOutput

from kdsweep.core.data.batches import parts_of_one_length
from kdsweep.core.data.encode import tokenizer_fingerprint
from kdsweep.core.data.tokenize import TokenRows
from kdsweep.core.device import autocast, to_device
from kdsweep.core.distill_settings import AttentionTerm, DistillSettings, HiddenTerm, LayerMap
from kdsweep.core.objective.before_dropout import BeforeDropout
from kdsweep.core.objective.returned_states import (
    NeededStates,
    check_returns_states,
    terms_of,
    value_projection,
    values_of,
)
from kdsweep.core.teachers.checks import check_frozen
from kdsweep.errors import ModelError


class Matching:
    """The inner terms of one trial.

    `projection` is trained with the student, but isn't part of it.
    """

    def __init__(
        self,
        settings: DistillSettings,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        teacher_tokens: TokenRows,
    ) -> None:
        check_match(settings, student, teacher)
        check_frozen(teacher)
        self.terms = settings.online
        self.student = student
        self.teacher = teacher
        self.teacher_tokens = teacher_tokens
        self.pairs = {
            name: layer_pairs(term.layers, student, teacher, name)
            for name, term in self.terms.items()
            if isinstance(term, HiddenTerm | AttentionTerm)
        }
        self.projection = self._new_projection()
        self._states = NeededStates.of(settings)
        if self._states.attentions:
            for model in (student, teacher):
                # No other implementation returns its probabilities.
                model.set_attn_implementation("eager")

    def _new_projection(self) -> nn.Module:
        if "hidden" not in self.terms:
            return nn.Module()
        student_width = self.student.config.hidden_size
        teacher_width = self.teacher.config.hidden_size
        projection = nn.Linear(student_width, teacher_width).to(self.student.device)
        if student_width == teacher_width:
            # The term starts as plain squared error.
            nn.init.eye_(projection.weight)
            nn.init.zeros_(projection.bias)
        return projection

    def parts_of(self, rows: np.ndarray, student_tokens: TokenRows) -> list[np.ndarray]:
        """These rows, cut so that the teacher reads each part beside the student.

        Where the two pad on different sides, no padding may come between their tokens.
        """
        if student_tokens.padding.side != self.teacher_tokens.padding.side:
            return parts_of_one_length(self.teacher_tokens.lengths, rows)
        return self.teacher_tokens.parts_of(rows)

    def shares(self, rows: np.ndarray, batch: np.ndarray) -> dict[str, float]:
        """For each term the part of the batch's mean that the mean over these rows is.

        A term is a mean over real tokens, or over pairs of a row's real tokens for maps. Rows have
        different lengths, so their number says nothing. Exactly 1 if the rows are the batch.
        """
        return {name: self._units(rows, name) / self._units(batch, name) for name in self.terms}

    def _units(self, rows: np.ndarray, term: str) -> int:
        lengths = self.teacher_tokens.lengths[rows].astype(np.int64)
        in_pairs = term == "attention" and self._states.attentions
        return int((lengths**2 if in_pairs else lengths).sum())

    def losses(
        self, inputs: dict[str, Tensor], rows: np.ndarray, dtype: torch.dtype
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The student's logits for these rows, and each term, an fp32 scalar without its weight.

        inputs: the student's, of the same rows. rows: their numbers, for the teacher's tokens.
        """
        device = self.student.device
        arguments = self._states.arguments
        with (
            torch.no_grad(),
            autocast(device, dtype),
            values_of(self.teacher, self._states.values) as teacher_values,
        ):
            teacher = self.teacher(
                **to_device(self.teacher_tokens.batch(rows), device), **arguments
            )
        with (
            autocast(device, dtype),
            values_of(self.student, self._states.values) as student_values,
            BeforeDropout() as before_dropout,
        ):
            student = self.student(**inputs, **arguments)
        real = inputs["attention_mask"].bool()
        found: dict[str, Tensor] = {}
        if "hidden" in self.terms:
            found["hidden"] = self._hidden_term(student, teacher, real)
        if self._states.values:
            heads = relation_heads(self.student, self.teacher)
            found["attention"] = value_relation_loss(
                student_values[0], teacher_values[0], real, heads
            )
        elif self._states.attentions:
            maps = [before_dropout.of(one) for one in student.attentions]
            found["attention"] = self._attention_term(maps, teacher, real)
        if "cosine" in self.terms:
            found["cosine"] = cosine_loss(
                student.hidden_states[-1], teacher.hidden_states[-1], real
            )
        return student.logits, found

    def _hidden_term(self, student: ModelOutput, teacher: ModelOutput, real: Tensor) -> Tensor:
        # hidden_states[0] is the embeddings', so layer i is hidden_states[i + 1].
        losses = [
            hidden_loss(
                self.projection(student.hidden_states[i + 1].float()),
                teacher.hidden_states[j + 1],
                real,
            )
            for i, j in self.pairs["hidden"]
        ]
        return torch.stack(losses).mean()

    def _attention_term(self, maps: list[Tensor], teacher: ModelOutput, real: Tensor) -> Tensor:
        losses = [
            attention_loss(maps[i], teacher.attentions[j], real) for i, j in self.pairs["attention"]
        ]
        return torch.stack(losses).mean()


# --- the terms ---


def hidden_loss(student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
    """Mean squared error over real tokens and width.

    student, teacher: [rows, length, width]. real: bool [rows, length], False for padding.
    """
    return functional.mse_loss(student.float()[real], teacher.detach().float()[real])


def attention_loss(student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
    """Mean squared error of attention probabilities over heads and pairs of real tokens.

    student, teacher: [rows, heads, length, length].
    """
    both = (real[:, None, :, None] & real[:, None, None, :]).expand_as(student)
    return functional.mse_loss(student.float()[both], teacher.detach().float()[both])


def cosine_loss(student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
    """Mean over real tokens of 1 - cosine. student, teacher: [rows, length, width]."""
    cosine = functional.cosine_similarity(
        student.float()[real], teacher.detach().float()[real], dim=-1
    )
    return (1 - cosine).mean()


def value_relation_loss(student: Tensor, teacher: Tensor, real: Tensor, heads: int) -> Tensor:
    """KL(teacher || student) of softmax(V V^T / sqrt(width of a head)), the mean over heads and
    real tokens.

    student, teacher: [rows, length, width].
    """
    of_student = _log_relations(student.float(), real, heads)
    of_teacher = _log_relations(teacher.detach().float(), real, heads)
    terms = of_teacher.exp() * (of_teacher - of_student)
    # [rows, heads, length]
    divergence = torch.where(real[:, None, None, :], terms, 0.0).sum(dim=-1)
    return divergence.transpose(1, 2)[real].mean()


def _log_relations(values: Tensor, real: Tensor, heads: int) -> Tensor:
    """log softmax over real tokens, [rows, heads, length, length]."""
    split = values.unflatten(-1, (heads, -1)).transpose(1, 2)
    scores = split @ split.transpose(-2, -1) / split.shape[-1] ** 0.5
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~real[:, None, None, :], lowest).log_softmax(dim=-1)


# --- which layers and states, and whether they fit ---


def layer_pairs(
    layers: LayerMap, student: PreTrainedModel, teacher: PreTrainedModel, term: str
) -> list[tuple[int, int]]:
    """(student's layer, teacher's layer), both from 0, for each of the student's layers.

    "even" takes every (teacher's layers / student's layers)-th, so that the last ones are a pair.
    Raises ModelError if the teacher has no such layers.
    """
    in_student = student.config.num_hidden_layers
    in_teacher = teacher.config.num_hidden_layers
    if isinstance(layers, tuple):
        if len(layers) != in_student or max(layers) >= in_teacher:
            raise ModelError(
                f"distill.{term}.layers: {list(layers)} must name one of the teacher's "
                f"{in_teacher} layers (from 0) for each of the student's {in_student}"
            )
        return list(enumerate(layers))
    if in_student > in_teacher:
        raise ModelError(
            f"distill.{term}.layers: the student has {in_student} layers and the teacher "
            f"{in_teacher}; list one of the teacher's for each of the student's"
        )
    if layers == "even":
        return [(i, round((i + 1) * in_teacher / in_student) - 1) for i in range(in_student)]
    start = in_teacher - in_student if layers == "last" else 0
    return [(i, start + i) for i in range(in_student)]


def check_match(
    settings: DistillSettings, student: PreTrainedModel, teacher: PreTrainedModel
) -> None:
    """Raise ModelError if a term can't compare these two models."""
    for name, term in settings.online.items():
        if isinstance(term, HiddenTerm | AttentionTerm):
            layer_pairs(term.layers, student, teacher, name)
    if "cosine" in settings.online:
        _check_same_width(student.config.hidden_size, teacher.config.hidden_size)
    states = NeededStates.of(settings)
    if states.values:
        for model in (student, teacher):
            value_projection(model)
    if states.attentions:
        _check_same_heads(student.config.num_attention_heads, teacher.config.num_attention_heads)
    if settings.online:
        check_returns_states(student, "the student", settings)
        check_returns_states(teacher, "the teacher", settings)


def _check_same_width(student: int, teacher: int) -> None:
    if student != teacher:
        raise ModelError(
            f"distill.cosine: hidden states of width {student} and {teacher} have no angle "
            "between them; use distill.hidden, which has a projection"
        )


def _check_same_heads(student: int, teacher: int) -> None:
    if student != teacher:
        raise ModelError(
            f"distill.attention: the student has {student} heads and the teacher {teacher}; "
            "maps are compared head by head: use 'match: values'"
        )


def check_same_tokens(
    settings: DistillSettings, student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase
) -> None:
    """Raise ModelError if the terms would compare tokens that are not the same."""
    if settings.online and tokenizer_fingerprint(student) != tokenizer_fingerprint(teacher):
        raise ModelError(
            f"{terms_of(settings)}: compared token by token, but teacher and student have "
            "different tokenizers; match logits alone, or take a student with the teacher's"
        )


def relation_heads(student: PreTrainedModel, teacher: PreTrainedModel) -> int:
    """The teacher's number of heads, or the next smaller number that divides both widths."""
    widths = student.config.hidden_size, teacher.config.hidden_size
    return next(
        heads
        for heads in range(teacher.config.num_attention_heads, 0, -1)
        if not any(width % heads for width in widths)
    )
