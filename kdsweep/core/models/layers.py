"""Which layers a student keeps, and models of new shapes."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.initialization import no_init_weights

from kdsweep.core.models.loading import load_config, with_labels
from kdsweep.core.settings import Kind, StudentSettings
from kdsweep.errors import ModelError, first_line

# --- layers ----------------------------------------------------------------------------------------------------------


def kept_layers(available: int, kept: int | Sequence[int], source: str) -> list[int]:
    """The layers listed, or `kept` of `available`, evenly spaced, the first and the last among them: 3 of 12 are 0, 6, 11."""
    if isinstance(kept, int):
        if kept > available:
            raise ModelError(
                f"student.layers: {kept} layers can't be kept of the {available} that {source} has"
            )
        return [round(position) for position in np.linspace(0, available - 1, kept)]
    if max(kept) >= available:
        raise ModelError(
            f"student.layers: {source} has no layer {max(kept)}; its {available} layers are 0 to {available - 1}"
        )
    return list(kept)


FEED_FORWARD = (
    "intermediate_size",
    "hidden_dim",
    "ffn_dim",
)  # what families call the width inside a layer


def new_model(
    student: StudentSettings,
    label_names: tuple[str, ...],
    source: str,
    kind: Kind = "classification",
) -> PreTrainedModel:
    """A model in the shape of `source` with random weights, as many layers as `layers` says, and hidden states of `width`.

    Another width keeps the width of a head as near as the new one can be divided, and the feed-forward part in proportion.
    """
    config = with_labels(
        load_config(source, trust_remote_code=student.trust_remote_code), label_names, kind
    )
    if isinstance(student.layers, tuple):
        raise ModelError(
            "student.layers: a list names layers to keep, and from scratch none are kept; give their number"
        )
    if student.layers is not None:
        for name, value in config.to_dict().items():
            if (
                isinstance(value, list)
                and len(value) == config.num_hidden_layers
                and name != "architectures"
            ):
                setattr(
                    config, name, [value[i % len(value)] for i in range(student.layers)]
                )  # such as ModernBERT's layer_types
        config.num_hidden_layers = student.layers
    if student.width is not None:
        width, before, head = (
            student.width,
            config.hidden_size,
            config.hidden_size // config.num_attention_heads,
        )
        config.num_attention_heads = min(
            (heads for heads in range(1, width + 1) if width % heads == 0),
            key=lambda heads: abs(width / heads - head),
        )
        for name in FEED_FORWARD:
            if hasattr(config, name):
                setattr(config, name, max(1, round(getattr(config, name) * student.width / before)))
        config.hidden_size = student.width
    try:
        model = AutoModelForSequenceClassification.from_config(
            config, dtype=torch.float32, trust_remote_code=student.trust_remote_code
        )
    except (ValueError, RuntimeError, AssertionError) as error:
        raise ModelError(
            f"student.width: a {config.model_type} model of width {student.width} can't be made: {first_line(error)}"
        ) from error
    model.train()
    return model


def layer_count(model: PreTrainedModel, source: str) -> int:
    return len(layer_stack(model, source)[1])


def layer_stack(model: PreTrainedModel, source: str) -> tuple[str, nn.ModuleList]:
    """The one stack of layers: the only list of as many like modules as the config has layers."""
    count = getattr(model.config, "num_hidden_layers", None)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == count
        and len({type(layer) for layer in module}) == 1
    ]
    # In a model of one layer, lists of one module are common; the stack is the outermost of them.
    outer = [
        (name, module)
        for name, module in found
        if not any(name.startswith(f"{other}.") for other, _ in found if other != name)
    ]
    if len(outer) != 1:
        raise ModelError(
            f"model: kdsweep can't tell the layers of a {model.config.model_type} model ({source}) apart: it has no single stack of them; leave out "
            "what asks for one (student.layers, training.layer_decay, distill.attention: {match: values}), or take another model (BERT, DistilBERT, "
            "RoBERTa, MPNet and ELECTRA work, among others)"
        )
    return outer[0]


def keep_layers(model: PreTrainedModel, kept: list[int], source: str) -> PreTrainedModel:
    """A new model with these layers of `model`, in this order, and everything else of it."""
    stack, layers = layer_stack(model, source)
    config = copy.deepcopy(model.config)
    for name, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == len(layers) and name != "architectures":
            setattr(config, name, [value[i] for i in kept])  # such as ModernBERT's layer_types
    config.num_hidden_layers = len(kept)
    with no_init_weights():  # all of them are about to be replaced
        small = type(model)(config)
    new_place = {f"{stack}.{old}.": f"{stack}.{new}." for new, old in enumerate(kept)}
    state = {}
    for name, tensor in model.state_dict().items():
        if not name.startswith(f"{stack}."):
            state[name] = tensor
            continue
        layer = name[: name.index(".", len(stack) + 1) + 1]
        if layer in new_place:
            state[new_place[layer] + name.removeprefix(layer)] = tensor
    small.load_state_dict(state)
    small.train()
    return small


def depths(model: PreTrainedModel, source: str) -> dict[str, int]:
    """Each weight's name -> how far it is from the inputs: 0 what comes before the layers, 1 the first layer, ..., the most what comes after."""
    stack, layers = layer_stack(model, source)
    order = [name for name, _ in model.named_parameters()]
    first = next(i for i, name in enumerate(order) if name.startswith(f"{stack}."))
    found = {}
    for i, name in enumerate(order):
        inside = name.startswith(f"{stack}.")
        found[name] = (
            int(name.removeprefix(f"{stack}.").split(".")[0]) + 1
            if inside
            else 0
            if i < first
            else len(layers) + 1
        )
    return found
