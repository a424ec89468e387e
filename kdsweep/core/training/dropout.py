"""Dropout whose random numbers are cheap on a CPU.

torch draws each element of a mask on a CPU by itself, about 9 ns an element: an eighth of a small student's step. Here 16 random
bits an element come in bulk from numpy's SFC64, at less than a tenth of that. The probability is p to the nearest 1/65536, and
what is kept is scaled by what is really kept, so that the expectation is exact. On a GPU torch's own dropout is fused and stays.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

LEVELS = 1 << 16
SMALLEST = 1 << 12  # elements: below, handing a mask over costs more than torch's own


class BulkDropout(TorchFunctionMode):
    """Inside, `functional.dropout` and the dropout of attention draw their masks in bulk, whatever model calls them.

    The masks follow from one number of torch's CPU generator, drawn on entry: whoever saves and restores that generator's state
    gets the same masks again.
    """

    def __enter__(self) -> BulkDropout:
        self._random = np.random.SFC64(int(torch.randint(2**63 - 1, ())))
        super().__enter__()
        return self

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is functional.dropout:
            return self._dropout(*args, **kwargs)
        if function is functional.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        return function(*args, **kwargs)

    def mask(self, like: Tensor, probability: float) -> Tensor:
        """0 with `probability`, else 1 / (1 - probability): of the shape and type of `like`."""
        dropped = round(probability * LEVELS)
        bits = self._random.random_raw(math.ceil(like.numel() / 4)).view(np.uint16)[: like.numel()]
        kept = torch.from_numpy(bits >= dropped).view(like.shape)
        return kept.to(like.dtype).mul_(LEVELS / (LEVELS - dropped))

    def _dropout(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or inplace or not 0 < p < 1 - 1 / LEVELS or input.numel() < SMALLEST:
            return functional.dropout(input, p, training, inplace)
        return input * self.mask(input, p)

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """softmax(query key^T * scale + mask), dropped, times value: what torch does itself on a CPU where there is dropout."""
        if (
            not 0 < dropout_p < 1 - 1 / LEVELS
            or is_causal
            or enable_gqa
            or (attn_mask is not None and attn_mask.dtype not in (torch.bool, query.dtype))
        ):
            return functional.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask,
                dropout_p,
                is_causal,
                scale=scale,
                enable_gqa=enable_gqa,
            )
        scores = (
            query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        ) @ key.transpose(-2, -1)
        if attn_mask is not None:
            scores = (
                scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
                if attn_mask.dtype == torch.bool
                else scores + attn_mask
            )
        weights = scores.softmax(dim=-1)
        return (weights * self.mask(weights, dropout_p)) @ value


def cheap_dropout(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """What to run a forward pass of training in, on this device."""
    return BulkDropout() if device.type == "cpu" else contextlib.nullcontext()
