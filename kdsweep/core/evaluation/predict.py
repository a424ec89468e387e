"""A model's logits for a split."""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedModel

from kdsweep.core.data.batches import evaluation_batches
from kdsweep.core.data.tokenize import TokenizedSplit
from kdsweep.core.device import autocast, to_device
from kdsweep.core.tasks.label_scale import LabelScale

TOKENS_A_BATCH = {"cpu": 2048, "cuda": 65536}


@torch.inference_mode()
def predict(model: PreTrainedModel, tokens: TokenizedSplit, dtype: torch.dtype) -> np.ndarray:
    """Raw logits, fp32 [rows, classes], in the order of the rows.

    Those of a regression are in the labels' unit, whatever the model's outputs are standardized by.
    The model runs in eval mode. Afterwards it is in the mode that it was in before.
    """
    was_training = model.training
    model.eval()
    device = model.device
    order: list[np.ndarray] = []
    parts: list[torch.Tensor] = []
    for batch in evaluation_batches(tokens.lengths, TOKENS_A_BATCH[device.type]):
        for rows in tokens.parts_of(batch):
            with autocast(device, dtype):
                parts.append(model(**to_device(tokens.batch(rows), device)).logits.float())
            order.append(rows)
    model.train(was_training)
    sorted_logits = torch.cat(parts).cpu().numpy()
    logits = np.empty_like(sorted_logits)
    logits[np.concatenate(order)] = sorted_logits
    return LabelScale.of_model(model.config).in_unit(logits)
