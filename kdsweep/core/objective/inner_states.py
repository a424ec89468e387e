"""Learning from the teacher's inner states: terms of the loss that no cache of logits serves, so the teacher runs in each step.

    hidden      mean squared error of hidden states, through a learned projection
                (Jiao et al. 2020, "TinyBERT", equation 8; https://arxiv.org/abs/1909.10351)
    attention   maps: mean squared error of attention probabilities (TinyBERT, equation 7, which takes the scores before the softmax);
                values: KL of the relations between the last layer's values (Wang et al. 2020, "MiniLM", equation 9, with the relation
                heads of "MiniLMv2", section 3.1, so that the numbers of heads may differ; https://arxiv.org/abs/2012.15828)
    cosine      1 - cosine of the last hidden states (Sanh et al. 2019, "DistilBERT", section 3; https://arxiv.org/abs/1910.01108)

All are means over tokens that are no padding, over pairs of layers and over heads, in fp32. They compare token by token, so
teacher and student must read the same tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.core.data.tokenize import SomeTokens, tokenizer_fingerprint
from kdsweep.core.device import autocast, to_device
from kdsweep.core.models.layers import layer_stack
from kdsweep.core.settings import AttentionTerm, DistillSettings, HiddenTerm, LayerMap
from kdsweep.core.teachers.checks import check_frozen
from kdsweep.errors import ModelError

VALUE_NAMES = {"value", "v_lin", "v_proj", "v", "value_proj", "v_head"}


class Matching:
    """The inner terms of one trial. `projection` is trained with the student and is no part of it."""

    def __init__(
        self,
        settings: DistillSettings,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        teacher_tokens: SomeTokens,
    ) -> None:
        self.terms, self.student, self.teacher, self.tokens = (
            settings.online,
            student,
            teacher,
            teacher_tokens,
        )
        check_match(settings, student, teacher)
        check_frozen(teacher)
        layered = {
            name: term
            for name, term in self.terms.items()
            if isinstance(term, HiddenTerm | AttentionTerm)
        }
        self.pairs = {
            name: layer_pairs(term.layers, student, teacher, name) for name, term in layered.items()
        }
        widths = student.config.hidden_size, teacher.config.hidden_size
        self.projection = (
            nn.Linear(*widths).to(student.device) if "hidden" in self.terms else nn.Module()
        )
        if isinstance(self.projection, nn.Linear) and widths[0] == widths[1]:
            nn.init.eye_(self.projection.weight)  # begins as plain squared error
            nn.init.zeros_(self.projection.bias)
        self._wants, self._values = _wanted(settings)
        if "output_attentions" in self._wants:
            for model in (student, teacher):
                model.set_attn_implementation("eager")  # the only one that gives its probabilities

    def losses(
        self, inputs: dict[str, Tensor], rows: np.ndarray, dtype: torch.dtype
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The student's logits for these rows of train, and each term, an fp32 scalar that is not yet weighed."""
        device = self.student.device
        with (
            torch.no_grad(),
            autocast(device, dtype),
            _values_of(self.teacher, self._values) as teacher_values,
        ):
            theirs = self.teacher(**to_device(self.tokens.batch(rows), device), **self._wants)
        with autocast(device, dtype), _values_of(self.student, self._values) as student_values:
            mine = self.student(**inputs, **self._wants)
        real = inputs["attention_mask"].bool()
        found: dict[str, Tensor] = {}
        if "hidden" in self.terms:
            pairs = [
                (self.projection(mine.hidden_states[i + 1].float()), theirs.hidden_states[j + 1])
                for i, j in self.pairs["hidden"]
            ]
            found["hidden"] = torch.stack([hidden_loss(*pair, real) for pair in pairs]).mean()
        if self._values:
            heads = relation_heads(self.student, self.teacher)
            found["attention"] = value_relation_loss(
                student_values[0], teacher_values[0], real, heads
            )
        elif "attention" in self.terms:
            found["attention"] = torch.stack(
                [
                    attention_loss(mine.attentions[i], theirs.attentions[j], real)
                    for i, j in self.pairs["attention"]
                ]
            ).mean()
        if "cosine" in self.terms:
            found["cosine"] = cosine_loss(mine.hidden_states[-1], theirs.hidden_states[-1], real)
        return mine.logits, found


# --- the terms -------------------------------------------------------------------------------------------------------


def hidden_loss(student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
    """Mean squared error over real tokens and width. student, teacher: [rows, length, width]; real: [rows, length], bool."""
    return functional.mse_loss(student.float()[real], teacher.detach().float()[real])


def attention_loss(student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
    """Mean squared error of attention probabilities over heads and pairs of real tokens. student, teacher: [rows, heads, length, length]."""
    both = (real[:, None, :, None] & real[:, None, None, :]).expand_as(student)
    return functional.mse_loss(student.float()[both], teacher.detach().float()[both])


def cosine_loss(student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
    """Mean over real tokens of 1 - cosine. student, teacher: [rows, length, width]."""
    return (
        1
        - functional.cosine_similarity(
            student.float()[real], teacher.detach().float()[real], dim=-1
        )
    ).mean()


def value_relation_loss(student: Tensor, teacher: Tensor, real: Tensor, heads: int) -> Tensor:
    """KL(teacher || student) of softmax(V V^T / sqrt(width of a head)), the mean over heads and real tokens. student, teacher: [rows, length, width]."""
    mine, theirs = (
        _log_relations(values.float(), real, heads) for values in (student, teacher.detach())
    )
    parts = torch.where(real[:, None, None, :], theirs.exp() * (theirs - mine), 0.0).sum(
        dim=-1
    )  # [rows, heads, length]
    return parts.transpose(1, 2)[real].mean()


def _log_relations(values: Tensor, real: Tensor, heads: int) -> Tensor:
    """log softmax over real tokens, [rows, heads, length, length]."""
    split = values.unflatten(-1, (heads, -1)).transpose(1, 2)
    scores = split @ split.transpose(-2, -1) / split.shape[-1] ** 0.5
    return scores.masked_fill(~real[:, None, None, :], torch.finfo(scores.dtype).min).log_softmax(
        dim=-1
    )


# --- which layers, and whether they fit ------------------------------------------------------------------------------


def layer_pairs(
    layers: LayerMap, student: PreTrainedModel, teacher: PreTrainedModel, term: str
) -> list[tuple[int, int]]:
    """(student's layer, teacher's layer), both from 0: even is every teacher's layer // student's layers, ending with both last ones."""
    mine, theirs = student.config.num_hidden_layers, teacher.config.num_hidden_layers
    if isinstance(layers, tuple):
        if len(layers) != mine or max(layers) >= theirs:
            raise ModelError(
                f"distill.{term}.layers: {list(layers)} must name one of the teacher's {theirs} layers (from 0) for each of the student's {mine}"
            )
        return list(enumerate(layers))
    if mine > theirs:
        raise ModelError(
            f"distill.{term}.layers: the student has {mine} layers and the teacher {theirs}; list one of the teacher's for each of the student's"
        )
    start = theirs - mine if layers == "last" else 0
    return [
        (i, round((i + 1) * theirs / mine) - 1 if layers == "even" else start + i)
        for i in range(mine)
    ]


def _wanted(settings: DistillSettings) -> tuple[dict[str, bool], bool]:
    """What a model is asked for, and whether the last layer's values are listened to."""
    terms = settings.online
    values = (
        isinstance(attention := terms.get("attention"), AttentionTerm)
        and attention.match == "values"
    )
    wants = {"output_hidden_states": "hidden" in terms or "cosine" in terms}
    return wants | (
        {"output_attentions": True} if "attention" in terms and not values else {}
    ), values


def check_match(
    settings: DistillSettings, student: PreTrainedModel, teacher: PreTrainedModel
) -> None:
    """Raise ModelError where a term can't compare these two."""
    for name, term in settings.online.items():
        if isinstance(term, HiddenTerm | AttentionTerm):
            layer_pairs(term.layers, student, teacher, name)
    if "cosine" in settings.online and student.config.hidden_size != teacher.config.hidden_size:
        raise ModelError(
            f"distill.cosine: hidden states of width {student.config.hidden_size} and {teacher.config.hidden_size} have no angle between them; "
            "use distill.hidden, which has a projection"
        )
    wants, values = _wanted(settings)
    if values:
        for model in (student, teacher):
            value_projection(model)
    if (
        "output_attentions" in wants
        and student.config.num_attention_heads != teacher.config.num_attention_heads
    ):
        raise ModelError(
            f"distill.attention: the student has {student.config.num_attention_heads} heads and the teacher {teacher.config.num_attention_heads}; "
            "maps are compared head by head: use 'match: values'"
        )
    if settings.online:
        check_tells_all(student, "the student", settings)
        check_tells_all(teacher, "the teacher", settings)


@torch.no_grad()
def check_tells_all(model: PreTrainedModel, whose: str, settings: DistillSettings) -> None:
    """Raise ModelError where the model doesn't tell each layer's states of each token: a few tokens show it.

    Without weights (on the meta device) only its kind is looked at.
    """
    names, kind, length = (
        ", ".join(f"distill.{name}" for name in settings.online),
        f"{whose}, a {model.config.model_type} model,",
        5,
    )
    another = "match logits alone, or take another model"
    if model.config.is_encoder_decoder:
        raise ModelError(
            f"{names}: {kind} has an encoder and a decoder, not one stack of layers whose states could be compared; {another}"
        )
    if model.device.type == "meta":
        return
    wants, values = _wanted(settings)
    ids = torch.full((1, length), 0 if model.config.pad_token_id else 1, device=model.device)
    was_training, attention = model.training, model.config._attn_implementation
    try:
        model.eval()  # nothing is drawn: what a trial draws stays the same
        if "output_attentions" in wants:
            model.set_attn_implementation("eager")
        with _values_of(model, values) as seen:
            told = model(input_ids=ids, attention_mask=torch.ones_like(ids), **wants)
    except (RuntimeError, ValueError, IndexError) as error:
        raise ModelError(
            f"{names}: {kind} can't be run on {length} tokens: {' '.join(str(error).split())[:200]}"
        ) from error
    finally:
        model.train(was_training)
        model.set_attn_implementation(attention)
    layers, width, heads = (
        model.config.num_hidden_layers,
        model.config.hidden_size,
        model.config.num_attention_heads,
    )
    wrong = []
    if wants["output_hidden_states"] and _shapes(told, "hidden_states") != [(1, length, width)] * (
        layers + 1
    ):
        wrong.append("hidden states")
    if (
        "output_attentions" in wants
        and _shapes(told, "attentions") != [(1, heads, length, length)] * layers
    ):
        wrong.append("attention maps")
    if values and [tuple(state.shape[:2]) for state in seen] != [(1, length)]:
        wrong.append("values")
    if wrong:
        raise ModelError(
            f"{names}: {kind} doesn't tell its {' and '.join(wrong)} layer by layer and token by token; {another}"
        )


def _shapes(told: Any, name: str) -> list[tuple[int, ...]]:
    return [tuple(state.shape) for state in getattr(told, name, None) or () if state is not None]


def check_same_tokens(
    settings: DistillSettings, student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase
) -> None:
    """Raise ModelError where the terms would compare tokens that are not the same."""
    if settings.online and tokenizer_fingerprint(student) != tokenizer_fingerprint(teacher):
        names = ", ".join(f"distill.{name}" for name in settings.online)
        raise ModelError(
            f"{names}: compared token by token, but teacher and student have different tokenizers; match logits alone, or take a student with the teacher's"
        )


def relation_heads(student: PreTrainedModel, teacher: PreTrainedModel) -> int:
    """As many as the teacher has heads, or the next smaller number that divides both widths."""
    widths = student.config.hidden_size, teacher.config.hidden_size
    return next(
        heads
        for heads in range(teacher.config.num_attention_heads, 0, -1)
        if not any(width % heads for width in widths)
    )


def value_projection(model: PreTrainedModel) -> nn.Module:
    """The last layer's linear map to values. Raises ModelError where there is none of its own."""
    last = layer_stack(model, model.config.model_type)[1][-1]
    found = [
        module
        for name, module in last.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in VALUE_NAMES
    ]
    if len(found) != 1:
        raise ModelError(
            f"distill.attention: kdsweep can't tell the values of a {model.config.model_type} model from its queries and keys; use 'match: maps'"
        )
    return found[0]


@contextmanager
def _values_of(model: PreTrainedModel, wanted: bool) -> Iterator[list[Tensor]]:
    """What the last layer's value projection gives inside: [rows, length, width]."""
    seen: list[Tensor] = []
    with ExitStack() as hooks:
        if wanted:
            hooks.callback(
                value_projection(model)
                .register_forward_hook(lambda module, arguments, output: seen.append(output))
                .remove
            )
        yield seen
