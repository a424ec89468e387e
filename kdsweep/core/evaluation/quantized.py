"""A student with 8-bit weights, as it is judged and used: ONNX, run by onnxruntime on the CPU."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.tokenize import tokenize_texts
from kdsweep.core.evaluation.file_costs import INT8_FILE
from kdsweep.core.evaluation.onnx_format import (
    OnnxModel,
    check_free_length,
    check_packages,
    convert,
    quantize,
)
from kdsweep.core.files import write_atomically
from kdsweep.core.models.loading import load_classifier, own_labels
from kdsweep.core.models.outputs import with_outputs_in_unit

INSTEAD = "leave 'student.quantize' out, or set it to none"


def check_can_quantize() -> None:
    """Raise KdsweepError if a package that quantizing needs isn't installed."""
    check_packages("student.quantize: int8 needs")


def quantize_saved(folder: Path, *, trust_remote_code: bool) -> OnnxModel:
    """Write the student in this Hugging Face folder once more, as `onnx/model_int8.onnx` in it.

    It is made of the files, as `kdsweep export` makes it, and so doesn't depend on the device that
    trained the student.
    """
    source = str(folder)
    names, kind = own_labels(source, trust_remote_code=trust_remote_code)
    model = load_classifier(source, names, kind=kind, trust_remote_code=trust_remote_code)
    # Nobody who runs the file reads the config.
    model = with_outputs_in_unit(model, source)
    return quantize_model(model, folder / INT8_FILE)


def quantize_model(model: PreTrainedModel, file: Path) -> OnnxModel:
    """Write the model with 8-bit weights. Raises KdsweepError if its family has no ONNX."""
    with tempfile.TemporaryDirectory(prefix="kdsweep-onnx-") as temporary:
        whole, small = Path(temporary) / "model.onnx", Path(temporary) / "model_int8.onnx"
        convert(model, whole, INSTEAD)
        quantize(whole, small)
        with small.open("rb") as made:
            write_atomically(file, lambda stream: shutil.copyfileobj(made, stream))
    return OnnxModel(file)


def rehearse_quantized(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    input_format: InputFormat,
    columns: Sequence[Sequence[str]],
) -> None:
    """Quantize the model and let it read some rows.

    columns: their texts, the longest row last. Raises KdsweepError if its family has no ONNX, or
    none that reads rows of any length.
    """
    rows = [list(column) for column in columns]
    tokens = tokenize_texts(tokenizer, rows, input_format)
    with tempfile.TemporaryDirectory(prefix="kdsweep-onnx-") as temporary:
        with torch.random.fork_rng():
            quantized = quantize_model(model.eval(), Path(temporary) / "int8.onnx")
        check_free_length(model, quantized, tokens, INSTEAD)
