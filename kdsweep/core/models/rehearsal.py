"""Whether a model can read the task's rows: tried on a few of them before anything is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.rows import Split
from kdsweep.core.data.tokenize import TokenizedSplit, tokenize_texts
from kdsweep.core.device import random_state, restore_random_state, to_device
from kdsweep.core.models.inputs import too_long
from kdsweep.core.models.loading import quiet_transformers
from kdsweep.errors import ModelError, first_line

# The fewest tokens that every model is asked to read when the longest row is looked for.
FEWEST_TOKENS = 8
# How often texts are repeated, at most, to fill a row.
MOST_REPEATS = 64


def rehearse(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    input_format: InputFormat,
    columns: Sequence[Sequence[str]],
    source: str,
) -> None:
    """Run the model on some rows, as training and evaluation will. No weight changes.

    columns: the texts of `shortest_and_longest`. Raises ModelError if the model can't read them,
    or a row of `max_length` tokens, in training or in evaluation.
    """
    rows = [list(column) for column in columns]
    _check_full_row(model, tokenizer, input_format, [column[-1] for column in rows], source)
    tokens = tokenize_texts(tokenizer, rows, input_format)
    for training in (False, True):
        if (problem := _problem(model, tokens, training=training)) is not None:
            when = "in training" if training else "in evaluation"
            lengths = " and ".join(str(length) for length in sorted(set(tokens.lengths.tolist())))
            raise ModelError(
                f"model: {source} can't read rows of {lengths} tokens {when}: {problem}; use "
                "another model"
            )


def shortest_and_longest(splits: Iterable[Split]) -> list[list[str]]:
    """The rows of each split with the fewest and the most characters, as columns of texts.

    The longest of all is the last one.
    """
    found: list[tuple[int, tuple[str, ...]]] = []
    for split in splits:
        sizes = np.zeros(len(split), dtype=np.int64)
        for column in split.texts:
            sizes += np.fromiter(map(len, column), dtype=np.int64, count=len(sizes))
        for i in {int(sizes.argmin()), int(sizes.argmax())}:
            found.append((int(sizes[i]), tuple(column[i] for column in split.texts)))
    found.sort()
    return [list(column) for column in zip(*(row for _, row in found), strict=True)]


def _check_full_row(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    input_format: InputFormat,
    texts: list[str],
    source: str,
) -> None:
    """Raise ModelError unless the model can read a row of `max_length` tokens."""
    long_texts = [" ".join([text] * MOST_REPEATS) for text in texts]

    def problem_with(length: int) -> str | None:
        short = replace(input_format, max_length=length, truncation="head")
        tokens = tokenize_texts(tokenizer, [[text] for text in long_texts], short)
        return _problem(model, tokens, training=False)

    problem = problem_with(input_format.max_length)
    if problem is None:
        return
    readable, unreadable = FEWEST_TOKENS, input_format.max_length
    if unreadable <= readable or problem_with(readable) is not None:
        raise ModelError(
            f"model: {source} can't read a row of {unreadable} tokens: {problem}; use another model"
        )
    while unreadable - readable > 1:
        middle = (readable + unreadable) // 2
        if problem_with(middle) is None:
            readable = middle
        else:
            unreadable = middle
    raise too_long(input_format.max_length, readable, source)


def _problem(model: PreTrainedModel, tokens: TokenizedSplit, *, training: bool) -> str | None:
    """Why the model can't read these rows, or None."""
    with _as_before(model):
        model.train(training)
        for rows in tokens.parts_of(np.arange(len(tokens))):
            inputs = to_device(tokens.batch(rows), model.device)
            try:
                with torch.no_grad(), quiet_transformers():
                    logits = model(**inputs).logits
            # A model's own code may raise any error.
            except Exception as error:
                return first_line(error)
            if tuple(logits.shape) != (len(rows), model.config.num_labels):
                return f"it gives logits of shape {tuple(logits.shape)}"
            if not torch.isfinite(logits).all():
                return "its logits are not finite"
    return None


@contextlib.contextmanager
def _as_before(model: PreTrainedModel) -> Iterator[None]:
    """Afterwards mode, random numbers and buffers (means that training moves) are as before."""
    was_training, random = model.training, random_state(model.device)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        model.train(was_training)
        restore_random_state(random, model.device)
        for name, buffer in model.named_buffers():
            if name in buffers and buffer.shape == buffers[name].shape:
                buffer.copy_(buffers[name])
