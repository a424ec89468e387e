"""A student of a sweep as a folder that others can use: Hugging Face, and ONNX where asked for, with a card that says what it is."""

from kdsweep.export.folder import export

__all__ = ["export"]
