"""A model's layers: which of them a student keeps, and models with a new shape."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from kdsweep.core.models.loading import consenting_to_code, load_config, with_labels
from kdsweep.core.settings import StudentSettings
from kdsweep.core.tasks import DEFAULT_KIND
from kdsweep.core.tasks.base import TaskKind
from kdsweep.errors import ModelError, first_line


def kept_layers(available: int, kept: int | Sequence[int], source: str) -> list[int]:
    """The listed layers, or `kept` of `available`: evenly spaced, with the first and the last.

    3 of 12 are 0, 6 and 11.
    """
    if isinstance(kept, int):
        if kept > available:
            raise ModelError(
                f"student.layers: {kept} layers can't be kept of the {available} that {source} "
                "has; set fewer layers"
            )
        return [round(position) for position in np.linspace(0, available - 1, kept)]
    if max(kept) >= available:
        raise ModelError(
            f"student.layers: {source} has no layer {max(kept)}; its {available} layers are 0 to "
            f"{available - 1}"
        )
    return list(kept)


# In the names of lists with one item for each layer (layer_types, attention_window). DeBERTa's
# pos_att_type has two items whatever its layers.
BY_LAYER = ("layer", "window")
# How model families call the width of the feed-forward part of a layer.
FEED_FORWARD = ("intermediate_size", "hidden_dim", "ffn_dim")


def new_model(
    student: StudentSettings,
    label_names: tuple[str, ...],
    source: str,
    kind: TaskKind = DEFAULT_KIND,
) -> PreTrainedModel:
    """A model in the shape of `source` with random weights, and with the student's own number of
    layers and width if it names them.
    """
    config = with_labels(
        load_config(source, trust_remote_code=student.trust_remote_code), label_names, kind
    )
    if isinstance(student.layers, tuple):
        raise ModelError(
            "student.layers: a list names layers to keep, but a student from scratch keeps none; "
            "set the number of layers"
        )
    if student.layers is not None:
        _set_layers(config, [i % config.num_hidden_layers for i in range(student.layers)])
    if student.width is not None:
        _set_width(config, student.width)
    try:
        with consenting_to_code(source, trust_remote_code=student.trust_remote_code):
            model = kind.model_class().from_config(
                config, dtype=torch.float32, trust_remote_code=student.trust_remote_code
            )
    except (ValueError, RuntimeError, AssertionError) as error:
        raise ModelError(
            f"student.width: a {config.model_type} model of width {student.width} can't be made: "
            f"{first_line(error)}"
        ) from error
    model.train()
    return model


def _set_layers(config: PretrainedConfig, layers: list[int]) -> None:
    """Keep these layers, also in lists with one item per layer (ModernBERT's layer_types)."""
    for name, value in config.to_dict().items():
        by_layer = any(part in name for part in BY_LAYER)
        if by_layer and isinstance(value, list) and len(value) == config.num_hidden_layers:
            setattr(config, name, [value[i] for i in layers])
    try:
        config.num_hidden_layers = len(layers)
    except NotImplementedError as error:
        raise ModelError(
            f"student.layers: a {config.model_type} model has layers in blocks, whose number can't "
            "be set; leave 'layers' out"
        ) from error


def _set_width(config: PretrainedConfig, width: int) -> None:
    """Give the config hidden states of this width.

    A head's width stays as near to what it was as `width` can be divided. The width of the
    feed-forward part changes in proportion.
    """
    head_width = config.hidden_size // config.num_attention_heads
    config.num_attention_heads = min(
        (heads for heads in range(1, width + 1) if width % heads == 0),
        key=lambda heads: abs(width / heads - head_width),
    )
    for name in FEED_FORWARD:
        if hasattr(config, name):
            scaled = round(getattr(config, name) * width / config.hidden_size)
            setattr(config, name, max(1, scaled))
    config.hidden_size = width


def layer_count(model: PreTrainedModel, source: str) -> int:
    return len(layer_stack(model, source)[1])


def layer_stack(model: PreTrainedModel, source: str) -> tuple[str, nn.ModuleList]:
    """The name and modules of the only stack that has as many modules as the config has layers."""
    count = getattr(model.config, "num_hidden_layers", None)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == count
        and len({type(layer) for layer in module}) == 1
    ]
    # In a model with one layer, lists of one module are common; the stack is the outermost one.
    outer = [
        (name, module)
        for name, module in found
        if not any(name.startswith(f"{other}.") for other, _ in found if other != name)
    ]
    if len(outer) != 1:
        raise ModelError(
            f"model: kdsweep can't tell the layers of a {model.config.model_type} model ({source}) "
            "apart: it has no single stack of them; remove the settings that need one "
            "(student.layers, training.layer_decay, distill.attention: {match: values}), or use "
            "another model (BERT, DistilBERT, RoBERTa, MPNet and ELECTRA work, among others)"
        )
    return outer[0]


def keep_layers(model: PreTrainedModel, kept: list[int], source: str) -> PreTrainedModel:
    """A new model with these layers of `model`, in this order, and all its other weights."""
    stack, _ = layer_stack(model, source)
    config = copy.deepcopy(model.config)
    _set_layers(config, kept)
    # Its random weights would all be replaced.
    with no_init_weights():
        small = type(model)(config)
    new_names = {f"{stack}.{old}.": f"{stack}.{new}." for new, old in enumerate(kept)}
    state = {}
    for name, tensor in model.state_dict().items():
        if not name.startswith(f"{stack}."):
            state[name] = tensor
            continue
        layer = name[: name.index(".", len(stack) + 1) + 1]
        if layer in new_names:
            state[new_names[layer] + name.removeprefix(layer)] = tensor
    try:
        small.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(
            f"student.layers: the layers of {source} differ in their weights, so layers {kept} "
            f"can't become a {config.model_type} model's 0 to {len(kept) - 1}; keep the first "
            "layer first, or use student.start: scratch"
        ) from error
    _check_saved_config(config, source)
    small.train()
    return small


def _check_saved_config(config: PretrainedConfig, source: str) -> None:
    """Raise ModelError if the config would mean another model when it is loaded again."""
    saved = config.to_dict()
    try:
        again = type(config).from_dict(saved).to_dict()
    except (ValueError, TypeError, AttributeError) as error:
        raise _unsaved(config, source, first_line(error)) from error
    if changed := [name for name, value in saved.items() if again.get(name) != value]:
        raise _unsaved(config, source, f"{changed[0]} would be {again.get(changed[0])}")


def _unsaved(config: PretrainedConfig, source: str, reason: str) -> ModelError:
    return ModelError(
        f"student.layers: a {config.model_type} model with some of the layers of {source} can't "
        f"be saved and loaded again: {reason}; use all layers, or another model"
    )


def depths(model: PreTrainedModel, source: str) -> dict[str, int]:
    """How far each weight is from the inputs, by its name.

    0 is what comes before the layers, 1 is the first layer, and what comes after the last layer is
    one more than that layer.
    """
    stack, layers = layer_stack(model, source)
    found = {}
    outside = 0
    for name, _ in model.named_parameters():
        if name.startswith(f"{stack}."):
            found[name] = int(name.removeprefix(f"{stack}.").split(".")[0]) + 1
            outside = len(layers) + 1
        else:
            found[name] = outside
    return found
