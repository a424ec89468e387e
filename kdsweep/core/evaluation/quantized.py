"""Students with 8-bit weights: an ONNX file that onnxruntime runs on the CPU."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
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
from kdsweep.core.files import move_durably
from kdsweep.core.models.input_format import pad_with
from kdsweep.core.models.loading import load_classifier, own_labels
from kdsweep.core.models.outputs import with_outputs_in_unit
from kdsweep.core.standing import make_folder

INSTEAD = "leave 'student.quantize' out, or set it to none"


def check_can_quantize() -> None:
    """Raise KdsweepError if a package that quantizing needs isn't installed."""
    check_packages("student.quantize: int8 needs")


def quantize_saved(folder: Path, beside: Path, *, trust_remote_code: bool) -> OnnxModel:
    """Write the student in this Hugging Face folder once more, as `onnx/model_int8.onnx` in it.

    It is made of the files, as `kdsweep export` makes it, and so doesn't depend on the device that
    trained the student. beside: a folder on the same disk for files on the way, which is removed,
    with what a process that was killed left there.
    """
    source = str(folder)
    names, kind = own_labels(source, trust_remote_code=trust_remote_code)
    model = load_classifier(source, names, kind=kind, trust_remote_code=trust_remote_code)
    # Nobody who runs the file reads the config.
    model = with_outputs_in_unit(model, source)
    file = folder / INT8_FILE
    with _emptied(beside):
        quantize_model(model, beside / file.name)
        file.parent.mkdir(exist_ok=True)
        move_durably(beside / file.name, file)
    return OnnxModel(file)


@contextlib.contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """The folder is empty inside, and gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def quantize_model(model: PreTrainedModel, file: Path) -> None:
    """Write the model with 8-bit weights, and for a while with all bits beside it.

    Raises KdsweepError if its family has no ONNX.
    """
    whole = file.with_name(f"whole-{file.name}")
    convert(model, whole, INSTEAD)
    quantize(whole, file)
    whole.unlink()


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
        file = Path(temporary) / "int8.onnx"
        # As a student is saved that was trained.
        pad_with(model, tokens.padding.token_id)
        with torch.random.fork_rng():
            quantize_model(model.eval(), file)
        check_free_length(model, OnnxModel(file), tokens, INSTEAD)
