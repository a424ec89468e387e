"""kdsweep: fine-tune, distill, or both? Sweeps that answer it for your task and models."""

__version__ = "0.2.0.dev0"
