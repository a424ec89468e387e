"""Which inner states a model returns: checked on a few tokens before it is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from kdsweep.core.device import random_state, restore_random_state
from kdsweep.core.distill_settings import AttentionTerm, DistillSettings
from kdsweep.core.models.layers import layer_stack
from kdsweep.core.objective.before_dropout import BeforeDropout
from kdsweep.errors import ModelError

VALUE_NAMES = {"value", "v_lin", "v_proj", "v", "value_proj", "v_head"}
# How many tokens a model reads to show which inner states it returns.
TOKENS_TO_CHECK = 5
# In training so many that each map loses some probabilities to dropout.
TOKENS_IN_TRAINING = 16
# How far the sum of a token's attention may be from 1: rounding, of fp16 too.
LARGEST_FROM_ONE = 5e-3
OTHER_WAYS = "match logits alone, or take another model"


@dataclass(frozen=True)
class NeededStates:
    """Which inner states the terms need of both models."""

    hidden_states: bool
    attentions: bool
    values: bool

    @staticmethod
    def of(settings: DistillSettings) -> NeededStates:
        terms = settings.online
        attention = terms.get("attention")
        values = isinstance(attention, AttentionTerm) and attention.match == "values"
        return NeededStates(
            hidden_states="hidden" in terms or "cosine" in terms,
            attentions=attention is not None and not values,
            values=values,
        )

    @property
    def arguments(self) -> dict[str, bool]:
        """What a model's call needs to return them; values come through a hook."""
        arguments = {"output_hidden_states": self.hidden_states}
        if self.attentions:
            arguments["output_attentions"] = True
        return arguments


def check_returns_states(model: PreTrainedModel, whose: str, settings: DistillSettings) -> None:
    """Raise ModelError unless the model returns each layer's states of each token.

    It reads a few tokens to show that. Without weights (on the meta device) only its kind counts.
    """
    terms = terms_of(settings)
    model_text = f"{whose}, a {model.config.model_type} model,"
    if model.config.is_encoder_decoder:
        raise ModelError(
            f"{terms}: {model_text} has an encoder and a decoder, not one stack of layers whose "
            f"states could be compared; {OTHER_WAYS}"
        )
    if model.device.type == "meta":
        return
    states = NeededStates.of(settings)
    try:
        output, values = _run_on_a_few_tokens(model, states)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{terms}: {model_text} can't be run on {TOKENS_TO_CHECK} tokens: {reason}"
        ) from error
    missing = _missing_states(model, states, output, values)
    if missing:
        raise ModelError(
            f"{terms}: {model_text} doesn't return its {' and '.join(missing)} layer by layer and "
            f"token by token; {OTHER_WAYS}"
        )
    if dropped := _only_after_dropout(model, states):
        raise ModelError(
            f"{terms}: {model_text} returns its {' and '.join(dropped)} only after dropout; "
            f"{OTHER_WAYS}"
        )


def _only_after_dropout(model: PreTrainedModel, states: NeededStates) -> list[str]:
    """The states that can't be had as they are before dropout."""
    if not states.attentions and not states.hidden_states:
        return []
    with BeforeDropout(maps_only=False) as before_dropout:
        output, _ = _run_on_a_few_tokens(model, states, training=True)
    found = []
    # hidden_states[0] is the embeddings', which no term compares.
    if states.hidden_states and any(map(before_dropout.was_dropped, output.hidden_states[1:])):
        found.append("hidden states")
    if states.attentions:
        sums = [before_dropout.of(one).float().sum(dim=-1) for one in output.attentions]
        if any((one - 1).abs().max() > LARGEST_FROM_ONE for one in sums):
            found.append("attention maps")
    return found


def maps_are_dropped(model: PreTrainedModel) -> bool:
    """Whether the model returns its attention maps after dropout in training.

    Versions up to 0.1.0 compared those with the teacher's.
    """
    if model.device.type == "meta":
        return False
    with BeforeDropout() as before_dropout:
        output, _ = _run_on_a_few_tokens(model, NeededStates(False, True, False), training=True)
    return any(map(before_dropout.was_dropped, output.attentions))


@torch.no_grad()
def _run_on_a_few_tokens(
    model: PreTrainedModel, states: NeededStates, *, training: bool = False
) -> tuple[ModelOutput, list[Tensor]]:
    token = 0 if model.config.pad_token_id else 1
    length = TOKENS_IN_TRAINING if training else TOKENS_TO_CHECK
    ids = torch.full((1, length), token, device=model.device)
    was_training = model.training
    attention = model.config._attn_implementation
    random = random_state(model.device)
    try:
        model.train(training)
        if states.attentions:
            model.set_attn_implementation("eager")
        with values_of(model, states.values) as values:
            output = model(input_ids=ids, attention_mask=torch.ones_like(ids), **states.arguments)
        return output, values
    finally:
        # A trial's random numbers stay the same.
        restore_random_state(random, model.device)
        model.train(was_training)
        model.set_attn_implementation(attention)


def _missing_states(
    model: PreTrainedModel, states: NeededStates, output: ModelOutput, values: list[Tensor]
) -> list[str]:
    """The states whose shapes are not those of one stack of layers."""
    config = model.config
    tokens = TOKENS_TO_CHECK
    hidden_shape = (1, tokens, config.hidden_size)
    map_shape = (1, config.num_attention_heads, tokens, tokens)
    layers = config.num_hidden_layers
    missing = []
    hidden_shapes = _shapes(output, "hidden_states")
    if states.hidden_states and hidden_shapes != [hidden_shape] * (layers + 1):
        missing.append("hidden states")
    if states.attentions and _shapes(output, "attentions") != [map_shape] * layers:
        missing.append("attention maps")
    if states.values and [tuple(value.shape[:2]) for value in values] != [(1, tokens)]:
        missing.append("values")
    return missing


def _shapes(output: ModelOutput, name: str) -> list[tuple[int, ...]]:
    states = getattr(output, name, None) or ()
    return [tuple(state.shape) for state in states if state is not None]


def terms_of(settings: DistillSettings) -> str:
    return ", ".join(f"distill.{name}" for name in settings.online)


def value_projection(model: PreTrainedModel) -> nn.Module:
    """The last layer's linear map to values. Raises ModelError if there isn't exactly one."""
    last = layer_stack(model, model.config.model_type)[1][-1]
    found = [
        module
        for name, module in last.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in VALUE_NAMES
    ]
    if len(found) != 1:
        raise ModelError(
            f"distill.attention: kdsweep can't tell the values of a {model.config.model_type} "
            "model from its queries and keys; use 'match: maps'"
        )
    return found[0]


@contextmanager
def values_of(model: PreTrainedModel, wanted: bool) -> Iterator[list[Tensor]]:
    """What the last layer's value projection returns inside, [rows, length, width] for each run."""
    seen: list[Tensor] = []
    with ExitStack() as hooks:
        if wanted:
            hook = value_projection(model).register_forward_hook(
                lambda module, arguments, output: seen.append(output)
            )
            hooks.callback(hook.remove)
        yield seen
