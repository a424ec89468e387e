"""What a model's outputs mean, by the kind of the task: which kind labels are of, and what is answered. No torch here."""

from __future__ import annotations

import numpy as np

from kdsweep.core.settings import Kind


def kind_of(labels: np.ndarray) -> Kind:
    """Class numbers are whole [rows], a regression's labels floating [rows], several labels a row [rows, classes] of 0 and 1."""
    if labels.ndim == 2:
        return "multi_label"
    return "regression" if np.issubdtype(labels.dtype, np.floating) else "classification"


def answers(logits: np.ndarray, kind: Kind) -> np.ndarray:
    """What is answered: class numbers [rows], a regression's values [rows], or 0 and 1 [rows, classes], 1 from a probability of a half on.

    logits: [rows, classes].
    """
    match kind:
        case "classification":
            found = logits.argmax(axis=1)
        case "regression":
            found = logits[:, 0]
        case "multi_label":
            found = (logits >= 0).astype(np.int64)
    return np.asarray(found)


def as_classes(logits: np.ndarray, kind: Kind) -> np.ndarray:
    """Logits of which each row is one choice: [rows, classes] as they are; where a row may have several labels no and yes for each
    of them, [rows * labels, 2], whose softmax is the label's sigmoid."""
    return (
        np.stack([np.zeros_like(logits), logits], axis=-1).reshape(-1, 2)
        if kind == "multi_label"
        else logits
    )
