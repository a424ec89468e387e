"""A student as ONNX, compared with torch, and the same with 8-bit weights.

The only file that imports onnxruntime.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kdsweep.core.data.batches import evaluation_batches
from kdsweep.core.data.tokenize import TokenizedSplit
from kdsweep.core.evaluation.file_costs import ONNX_PACKAGES, FileCosts, LogitDifference
from kdsweep.core.evaluation.latency import timed, typical
from kdsweep.core.evaluation.predict import TOKENS_A_BATCH
from kdsweep.core.models.inputs import reads_token_types
from kdsweep.errors import KdsweepError, first_line

LARGEST_DIFFERENCE = 1e-4
WITHOUT = "export it without --onnx"
BATCH_SIZES = (1, 2, 3, 8, 1, 16, 32)
ROWS_TO_CHECK = 256


def check_packages(wanted: str = "--onnx and --int8 need") -> None:
    """Raise KdsweepError if a package that is needed isn't installed.

    wanted: the beginning of its line, which says what needs them.
    """
    if missing := [name for name in ONNX_PACKAGES if find_spec(name) is None]:
        raise KdsweepError(f"{wanted} {', '.join(missing)}: pip install 'kdsweep[onnx]'")


def convert(model: PreTrainedModel, file: Path, instead: str = WITHOUT) -> None:
    """Write the classifier as ONNX.

    Inputs are int64 [batch, sequence], both sizes free. The output is `logits`, fp32
    [batch, classes]. instead: what to do where torch's exporter can't follow the model, for the
    line of the KdsweepError that is raised then.
    """
    names = input_names(model)
    batch = torch.export.Dim("batch")
    sequence = torch.export.Dim("sequence")
    # No size is 1: the exporter would take that for a constant.
    example = {name: torch.ones(2, 8, dtype=torch.int64) for name in names}
    model.eval()
    file.parent.mkdir(parents=True, exist_ok=True)
    with _quiet(), _without_cache(model):
        try:
            torch.onnx.export(
                _LogitsAlone(model),
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
        # Exporter, tracer and protobuf share no class of errors.
        except Exception as error:
            # A full disk or memory says nothing about the model.
            for cause in _causes(error):
                if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno):
                    raise cause from None
            raise KdsweepError(
                f"onnx: a {model.config.model_type} model of this kind can't be exported by torch "
                f"{torch.__version__}: {_reason(error)}; {instead}"
            ) from error


class _LogitsAlone(nn.Module):
    """The model with its logits alone, and its inputs by name: FNet takes some of them unnamed."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)[
            "logits"
        ]
        return logits


def _reason(error: BaseException) -> str:
    """The first line of what is behind an exporter's error; the exporter's own is advice for its
    developers.
    """
    return first_line(_causes(error)[-1])


def _causes(error: BaseException) -> list[BaseException]:
    """The error, what it was raised from, and so on."""
    found = [error]
    while (cause := found[-1].__cause__) is not None:
        found.append(cause)
    return found


@contextlib.contextmanager
def _without_cache(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model returns no keys and values for a next token, which GPT-2's export can't."""
    before = getattr(model.config, "use_cache", None)
    if before:
        model.config.use_cache = False
    try:
        yield
    finally:
        if before:
            model.config.use_cache = before


def input_names(model: PreTrainedModel) -> list[str]:
    """The inputs that the model reads, in the order of the ONNX file."""
    names = ["input_ids", "attention_mask"]
    return [*names, "token_type_ids"] if reads_token_types(model) else names


class OnnxModel:
    """An ONNX file that runs on the CPU."""

    def __init__(self, file: Path) -> None:
        import onnxruntime

        self.file = file
        with _quiet():
            # As many threads as torch has: a slot may be one core of many.
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            self._session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )

    def logits(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """fp32 [rows, classes] for inputs int64 [rows, longest]."""
        found: np.ndarray = self._session.run(["logits"], inputs)[0]
        return found

    def predict(self, tokens: TokenizedSplit) -> np.ndarray:
        """fp32 [rows, classes], in the order of the rows."""
        batches = evaluation_batches(tokens.lengths, TOKENS_A_BATCH["cpu"])
        order = [rows for batch in batches for rows in tokens.parts_of(batch)]
        by_batch = np.concatenate([self.logits(tokens.batch(rows)) for rows in order])
        logits = np.empty_like(by_batch)
        logits[np.concatenate(order)] = by_batch
        return logits

    def answering(self, tokens: TokenizedSplit) -> Callable[[], object]:
        """A function that runs the file on the typical row of these."""
        inputs = typical(tokens)
        return lambda: self.logits(inputs)

    @property
    def size_mb(self) -> float:
        return self.file.stat().st_size / 1e6

    def costs(self, tokens: TokenizedSplit) -> FileCosts:
        """The size of the file, and the latency of one row of median length, alone."""
        found = timed(self.answering(tokens))
        return FileCosts(self.size_mb, found["latency_ms"], found["latency_p95_ms"])


def check_equal(
    model: PreTrainedModel, onnx_model: OnnxModel, tokens: TokenizedSplit, unit: float = 1.0
) -> LogitDifference:
    """The largest difference between torch and ONNX, in rows of all lengths.

    unit: the deviation of a regression's labels. Raises KdsweepError if it is above 1e-4 of it.
    """
    count = min(len(tokens), ROWS_TO_CHECK)
    spread = np.linspace(0, len(tokens) - 1, count).round().astype(np.int64)
    rows = np.argsort(tokens.lengths, kind="stable")[spread]
    # Short and long rows must meet in a batch, so that short ones are padded.
    rows = np.random.default_rng(0).permutation(rows)
    model.eval()
    check_free_length(model, onnx_model, tokens)
    worst = 0.0
    for part in (one for batch in _parts(rows) for one in tokens.parts_of(batch)):
        inputs = tokens.batch(part)
        difference = np.abs(onnx_model.logits(inputs) - _torch_logits(model, inputs)).max()
        worst = max(worst, float(difference)) if np.isfinite(difference) else float("inf")
    allowed = LARGEST_DIFFERENCE * unit
    if worst > allowed:
        raise KdsweepError(
            f"onnx: the file's logits differ from torch's by up to {worst:.2g} in {len(rows)} rows "
            f"of validation (at most {allowed:g} is allowed); nothing was written"
        )
    return LogitDifference(worst, len(rows))


def check_free_length(
    model: PreTrainedModel, onnx_model: OnnxModel, tokens: TokenizedSplit, instead: str = WITHOUT
) -> None:
    """Raise KdsweepError if the file can't read the shortest and the longest row."""
    for row in (tokens.lengths.argmin(), tokens.lengths.argmax()):
        try:
            onnx_model.logits(tokens.batch(np.array([row])))
        # onnxruntime's errors have no common class.
        except Exception as error:
            raise KdsweepError(
                f"onnx: torch {torch.__version__} can't export a {model.config.model_type} model "
                f"for rows of any length (here {tokens.lengths[row]} tokens): {first_line(error)}; "
                f"{instead}"
            ) from error


@torch.inference_mode()
def _torch_logits(model: PreTrainedModel, inputs: dict[str, np.ndarray]) -> np.ndarray:
    tensors = {name: torch.from_numpy(value).to(model.device) for name, value in inputs.items()}
    logits: np.ndarray = model(**tensors).logits.float().cpu().numpy()
    return logits


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

    One scale for each channel costs nothing and keeps more predictions than one for each matrix.
    Only 7 of the 8 bits are used: without VNNI, a CPU's sums of two products saturate at 16 bits
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
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
    """Hides what exporters and quantizers print for their developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
