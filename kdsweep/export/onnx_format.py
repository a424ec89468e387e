"""A student as an ONNX file, checked against torch; and the same with 8-bit weights, with what that costs. The only file that imports onnxruntime."""

from __future__ import annotations

import contextlib
import itertools
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from kdsweep.core.data.batches import evaluation_batches
from kdsweep.core.data.tokenize import TokenizedSplit
from kdsweep.core.evaluation.latency import timed, typical
from kdsweep.core.evaluation.predict import TOKENS_A_BATCH
from kdsweep.core.models.inputs import reads_token_types
from kdsweep.errors import KdsweepError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
LARGEST_DIFFERENCE = 1e-4
BATCH_SIZES = (1, 2, 3, 8, 1, 16, 32)
ROWS_TO_CHECK = 256


def check_packages() -> None:
    """Raise KdsweepError where a package that is needed isn't installed."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise KdsweepError(
            f"--onnx and --int8 need {', '.join(missing)}: pip install 'kdsweep[onnx]'"
        )


def convert(model: PreTrainedModel, file: Path) -> None:
    """Write the classifier as ONNX. Inputs are int64 [batch, sequence], both free; the output is `logits`, fp32 [batch, classes].

    Raises KdsweepError where torch's exporter can't follow the model.
    """
    names = input_names(model)
    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence")
    example = {
        name: torch.ones(2, 8, dtype=torch.int64) for name in names
    }  # not of size 1 anywhere: the exporter would take that for a constant
    model.eval()
    file.parent.mkdir(parents=True, exist_ok=True)
    with _quiet():
        try:
            torch.onnx.export(
                model,
                (),
                str(file),
                kwargs=example,
                input_names=names,
                output_names=["logits"],
                dynamic_shapes={name: {0: batch, 1: sequence} for name in names},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # exporter, tracer and protobuf have errors of no common kind
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise KdsweepError(
                f"onnx: a {model.config.model_type} model of this kind can't be exported by torch {torch.__version__}: {reason}"
            ) from error


def input_names(model: PreTrainedModel) -> list[str]:
    return ["input_ids", "attention_mask"] + (
        ["token_type_ids"] if reads_token_types(model) else []
    )


class OnnxModel:
    """An ONNX file that answers on the CPU."""

    def __init__(self, file: Path) -> None:
        import onnxruntime

        self.file = file
        with _quiet():
            self._session = onnxruntime.InferenceSession(
                str(file), providers=["CPUExecutionProvider"]
            )

    def logits(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """fp32 [rows, classes] for inputs int64 [rows, longest]."""
        answer: np.ndarray = self._session.run(["logits"], inputs)[0]
        return answer

    def predict(self, tokens: TokenizedSplit) -> np.ndarray:
        """fp32 [rows, classes], in the order of the rows."""
        order = list(evaluation_batches(tokens.lengths, TOKENS_A_BATCH["cpu"]))
        by_batch = np.concatenate([self.logits(tokens.batch(rows)) for rows in order])
        logits = np.empty_like(by_batch)
        logits[np.concatenate(order)] = by_batch
        return logits

    def facts(self, tokens: TokenizedSplit) -> dict[str, Any]:
        """`size_mb`, the file's; `latency_ms` and `latency_p95_ms`, for one row of median length alone in its batch."""
        inputs = typical(tokens)
        return {"size_mb": self.file.stat().st_size / 1e6, **timed(lambda: self.logits(inputs))}


def check_equal(
    model: PreTrainedModel, onnx_model: OnnxModel, tokens: TokenizedSplit
) -> dict[str, Any]:
    """`difference`, the largest between a logit of torch and of ONNX, and `rows`, how many were compared: of all lengths that there
    are, in batches of several sizes. Raises KdsweepError where it is above 1e-4.
    """
    spread = (
        np.linspace(0, len(tokens) - 1, min(len(tokens), ROWS_TO_CHECK)).round().astype(np.int64)
    )
    rows = np.argsort(tokens.lengths, kind="stable")[spread]
    rows = np.random.default_rng(0).permutation(
        rows
    )  # so that short and long rows meet in a batch, and padding with them
    model.eval()
    worst = 0.0
    for part in _parts(rows):
        inputs = tokens.batch(part)
        with torch.inference_mode():
            expected = (
                model(
                    **{
                        name: torch.from_numpy(value).to(model.device)
                        for name, value in inputs.items()
                    }
                )
                .logits.float()
                .cpu()
                .numpy()
            )
        apart = np.abs(onnx_model.logits(inputs) - expected).max()
        worst = max(worst, float(apart)) if np.isfinite(apart) else float("inf")
    if worst > LARGEST_DIFFERENCE:
        raise KdsweepError(
            f"onnx: the file answers otherwise than torch, by up to {worst:.2g} in {len(rows)} rows of validation (at most {LARGEST_DIFFERENCE:g} is allowed); "
            "nothing was written"
        )
    return {"difference": worst, "rows": len(rows)}


def _parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows in batches of all these sizes in turn."""
    start = 0
    for size in itertools.cycle(BATCH_SIZES):
        if start >= len(rows):
            return
        yield rows[start : start + size]
        start += size


def quantize(source: Path, target: Path) -> None:
    """Write `source` with 8-bit weights; activations are quantized as they come ("dynamic").

    A scale for each channel costs nothing and keeps more answers than one for each matrix. 7 of the 8 bits: without VNNI, a CPU's
    sums of two products saturate at 16 bits (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            str(source),
            str(target),
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what exporters and quantizers say to their developers to themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
