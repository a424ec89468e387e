"""Which output of a checkpoint means which label, by the names in its config."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kdsweep.core.tasks.label_scale import PLAIN, LabelScale
from kdsweep.errors import ModelError

# Between a model's outputs and those of the model that is saved, in deviations of the labels.
LARGEST_DIFFERENCE = 1e-3


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
        head = _output_layer(model)
        if head is not None and head.bias is None and adds_bias:
            head.bias = nn.Parameter(head.weight.new_zeros(1))
        if head is None or head.bias is None:
            raise ModelError(
                f"model: the outputs of {source} can't be put on the scale of the labels, because "
                "it has no linear output layer with a bias; start from a model that isn't "
                "fine-tuned"
            )
        factor = now.deviation / wanted.deviation
        head.weight.mul_(factor)
        head.bias.mul_(factor).add_((now.mean - wanted.mean) / wanted.deviation)
    wanted.write(model.config)


def with_outputs_in_unit(model: PreTrainedModel, source: str) -> PreTrainedModel:
    """The model, or a copy of it whose outputs have the labels' unit if its own are standardized.

    The copy may have a bias that its family doesn't save. Raises ModelError if the model has no
    linear output layer.
    """
    if LabelScale.of_model(model.config).is_plain:
        return model
    model = copy.deepcopy(model)
    rescale_outputs(model, PLAIN, source, adds_bias=True)
    return model


@contextlib.contextmanager
def saved_in_unit(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the model's raw outputs have the labels' unit, so that plain transformers can use
    what is saved. Afterwards the weights are exactly those from before.

    inputs: as for `standardize_outputs`. Outputs that can't be changed stay standardized, and the
    config says by which numbers.
    """
    scale, head = LabelScale.of_model(model.config), _output_layer(model)
    before = None if head is None else _weights(head)
    standardize_outputs(model, PLAIN, inputs)
    try:
        yield
    finally:
        if head is not None and before is not None:
            _put_back(head, before)
        scale.write(model.config)


def standardize_outputs(
    model: PreTrainedModel, wanted: LabelScale, inputs: Mapping[str, Tensor]
) -> None:
    """Standardize the model's outputs by `wanted` instead of by its own scale, if that can be done.

    inputs: of some rows, on which the outputs are compared. The model isn't changed if its last
    linear layer has no bias, or if another layer follows it.
    """
    now, head = LabelScale.of_model(model.config), _output_layer(model)
    if now == wanted or head is None or head.bias is None:
        return
    before = _weights(head)
    expected = now.in_unit(_raw_outputs(model, inputs))
    rescale_outputs(model, wanted, "the model")
    apart = (wanted.in_unit(_raw_outputs(model, inputs)) - expected).abs().max()
    # A comparison with NaN is False.
    if not apart <= LARGEST_DIFFERENCE * max(now.deviation, wanted.deviation):
        _put_back(head, before)
        now.write(model.config)


def _output_layer(model: PreTrainedModel) -> nn.Linear | None:
    """The last linear layer with one output."""
    found = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module.out_features == 1
    ]
    return found[-1] if found else None


def _weights(layer: nn.Linear) -> list[Tensor]:
    return [one.detach().clone() for one in layer.parameters()]


@torch.no_grad()
def _put_back(layer: nn.Linear, weights: Sequence[Tensor]) -> None:
    for parameter, value in zip(layer.parameters(), weights, strict=True):
        parameter.copy_(value)


@torch.no_grad()
def _raw_outputs(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Tensor:
    """fp64 [rows, 1]"""
    was_training = model.training
    model.eval()
    outputs: Tensor = model(**inputs).logits.double()
    model.train(was_training)
    return outputs


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
