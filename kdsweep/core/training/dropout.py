"""Dropout whose random numbers are cheap on a CPU.

On a CPU torch draws each element of a mask by itself, at about 9 ns per element: an eighth of a
small student's step. Here 16 random bits per element come in bulk from NumPy's SFC64, which takes
less than a tenth of that. The probability is p to the nearest 1/65536. Kept elements are scaled by
the share that is really kept, so the expectation is exact. On a GPU torch's own dropout is fused
and stays in use.
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
# Elements: for smaller tensors, building a mask here costs more than torch's own dropout.
SMALLEST = 1 << 12


class BulkDropout(TorchFunctionMode):
    """Inside, `functional.dropout` and attention's dropout draw their masks in bulk, for any model.

    All masks follow from one number, which is drawn from torch's CPU generator on entry. Restoring
    that generator's state gives the same masks again.
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
        """0 with `probability`, else 1 / (1 - probability), in the shape and dtype of `like`."""
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
        """dropout(softmax(query key^T * scale + mask)) value, as torch computes it on a CPU.

        It has the parameters of `functional.scaled_dot_product_attention`, whose place it takes.
        """
        known_mask = attn_mask is None or attn_mask.dtype in (torch.bool, query.dtype)
        if not 0 < dropout_p < 1 - 1 / LEVELS or is_causal or enable_gqa or not known_mask:
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
        if scale is None:
            scale = 1 / math.sqrt(query.shape[-1])
        scores = (query * scale) @ key.transpose(-2, -1)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
        elif attn_mask is not None:
            scores = scores + attn_mask
        # In fp32 also where the matrix products are bf16; nothing changes where they are fp32.
        weights = scores.softmax(dim=-1, dtype=torch.float32)
        return (weights * self.mask(weights, dropout_p)).to(value.dtype) @ value


def cheap_dropout(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The context for a forward pass of training on this device."""
    return BulkDropout() if device.type == "cpu" else contextlib.nullcontext()
