"""kdsweep: fine-tune, distill, or both? Sweeps that answer it for your task, teacher and student."""

__version__ = "0.1.0"
