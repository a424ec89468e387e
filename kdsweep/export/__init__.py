"""A student of a sweep as a folder for others: Hugging Face, optionally ONNX, and a model card."""

from kdsweep.export.folder import export

__all__ = ["export"]
