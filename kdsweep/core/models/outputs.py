"""Which output of a checkpoint means which label, by the names in its config."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from kdsweep.core.tasks.label_scale import LabelScale
from kdsweep.errors import ModelError


def order_of_outputs(own: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """For each wanted name the output that has it; None if the names aren't the same ones.

    Case makes no difference, unless two names differ in nothing else.
    """
    for alike in (list(own), [name.casefold() for name in own]):
        names = list(wanted) if alike == list(own) else [name.casefold() for name in wanted]
        if sorted(alike) == sorted(names) and len(set(names)) == len(names):
            return [alike.index(name) for name in names]
    return None


@torch.no_grad()
def rescale_outputs(
    model: PreTrainedModel, wanted: LabelScale, source: str, *, adds_bias: bool = False
) -> None:
    """Standardize the model's outputs by `wanted` instead of by its own scale.

    adds_bias: an output layer without a bias gets one, so that the model can't be saved any more.
    Raises ModelError if the model has no linear output layer, or one without a bias.
    """
    now = LabelScale.of_model(model.config)
    if now != wanted:
        heads = [
            module
            for module in model.modules()
            if isinstance(module, nn.Linear) and module.out_features == 1
        ]
        if heads and heads[-1].bias is None and adds_bias:
            heads[-1].bias = nn.Parameter(heads[-1].weight.new_zeros(1))
        if not heads or heads[-1].bias is None:
            raise ModelError(
                f"model: the outputs of {source} can't be put on the scale of the labels, because "
                "it has no linear output layer with a bias; start from a model that isn't "
                "fine-tuned"
            )
        factor = now.deviation / wanted.deviation
        heads[-1].weight.mul_(factor)
        heads[-1].bias.mul_(factor).add_((now.mean - wanted.mean) / wanted.deviation)
    wanted.write(model.config)


def with_outputs_in_unit(model: PreTrainedModel, source: str) -> PreTrainedModel:
    """The model, or a copy of it whose outputs have the labels' unit if its own are standardized.

    The copy may have a bias that its family doesn't save. Raises ModelError if the model has no
    linear output layer.
    """
    if LabelScale.of_model(model.config).is_plain:
        return model
    model = copy.deepcopy(model)
    rescale_outputs(model, LabelScale(), source, adds_bias=True)
    return model


@torch.no_grad()
def reorder_outputs(model: PreTrainedModel, order: Sequence[int], source: str) -> None:
    """Move output order[i] to i. Raises ModelError for a model without a linear output layer."""
    heads = [
        module
        for _, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == len(order)
    ]
    if not heads:
        raise ModelError(
            f"model: the outputs of {source} can't be put into the task's order, because it has "
            "no linear output layer; use a checkpoint whose labels have that order"
        )
    head = heads[-1]
    head.weight.copy_(head.weight[list(order)].clone())
    if head.bias is not None:
        head.bias.copy_(head.bias[list(order)].clone())
