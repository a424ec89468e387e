"""The scale of a regression's labels: models put out standardized values where it is large.

A new head starts near 0, and a learning rate moves it by little: from there labels of 0 to 5,000
are never reached. The two numbers stand in the model's config. Labels, logits in the cache,
predictions and scores have the labels' own unit; only the loss is of standardized values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

# Labels whose mean and deviation are at most this are learned as they are.
LARGEST = 10.0
# Their names in a model's config.
MEAN, DEVIATION = "label_mean", "label_deviation"

Values = TypeVar("Values", np.ndarray, "torch.Tensor")


@dataclass(frozen=True)
class LabelScale:
    """Train's mean and standard deviation."""

    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def of_labels(cls, labels: np.ndarray) -> Self:
        """That of the labels of train; 0 and 1 if they are learned as they are."""
        known = np.asarray(labels, dtype=np.float64)
        known = known[~np.isnan(known)]
        mean, deviation = float(known.mean()), float(known.std())
        if max(abs(mean), deviation) <= LARGEST:
            return cls()
        return cls(mean, deviation or 1.0)

    @classmethod
    def of_model(cls, config: PretrainedConfig) -> Self:
        """That of a model's outputs; 0 and 1 if they have the labels' unit."""
        return cls(getattr(config, MEAN, 0.0), getattr(config, DEVIATION, 1.0))

    @property
    def is_plain(self) -> bool:
        """Whether values are left as they are."""
        return self == LabelScale()

    @property
    def how_to_convert(self) -> str:
        """For a model card: how a raw output that is standardized becomes a label."""
        return (
            f"The model's raw output is standardized: multiply it by {self.deviation!r} and add "
            f"{self.mean!r} (`{DEVIATION}` and `{MEAN}` in config.json). `kdsweep.serving` and the "
            "ONNX files do that themselves."
        )

    def write(self, config: PretrainedConfig) -> None:
        """Make it that of the model with this config."""
        for name, value in ((MEAN, self.mean), (DEVIATION, self.deviation)):
            if not self.is_plain:
                setattr(config, name, value)
            elif hasattr(config, name):
                delattr(config, name)

    def standard(self, values: Values) -> Values:
        """Values in the labels' unit as a model puts them out."""
        return values if self.is_plain else (values - self.mean) / self.deviation

    def in_unit(self, outputs: Values) -> Values:
        """A model's outputs in the labels' unit."""
        return outputs if self.is_plain else outputs * self.deviation + self.mean


PLAIN = LabelScale()
