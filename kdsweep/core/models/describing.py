"""What is known of a model before it is trained, with or without its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoModelForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from kdsweep.core.data.sources import local_path
from kdsweep.core.files import fingerprint
from kdsweep.core.models.loading import (
    load_config,
    load_masked_lm,
    load_tokenizer,
    load_weights,
    loading_from,
    with_labels,
)
from kdsweep.core.models.model_files import COMMIT, model_files
from kdsweep.core.models.model_snapshot import READ, weights_are_here
from kdsweep.core.models.weights import LoadedWeights
from kdsweep.core.tasks import DEFAULT_KIND
from kdsweep.core.tasks.base import TaskKind
from kdsweep.errors import ModelError


def describe_masked_lm(
    source: str, *, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The same as `load_masked_lm`.

    If the weights aren't on this machine yet, the model has only its shape (on the meta device).
    """
    if trust_remote_code or weights_are_here(source):
        return load_masked_lm(source, trust_remote_code=trust_remote_code)
    tokenizer, config = load_tokenizer(source), load_config(source)
    with loading_from(source), torch.device("meta"):
        model = AutoModelForMaskedLM.from_config(config, trust_remote_code=False)
    return model.eval(), tokenizer


def describe_model(
    source: str,
    label_names: tuple[str, ...],
    *,
    kind: TaskKind = DEFAULT_KIND,
    trust_remote_code: bool = False,
    is_complete: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, LoadedWeights]:
    """The model, its tokenizer, and what of its weights is new (see `load_weights`).

    If the weights aren't on this machine yet, the model has only its shape (on the meta device).
    """
    tokenizer = load_tokenizer(source, trust_remote_code=trust_remote_code)
    if trust_remote_code or weights_are_here(source):
        model, weights = load_weights(
            source,
            label_names,
            kind=kind,
            trust_remote_code=trust_remote_code,
            is_complete=is_complete,
        )
        return model, tokenizer, weights
    config = with_labels(load_config(source), label_names, kind)
    with loading_from(source), torch.device("meta"):
        model = kind.model_class().from_config(config, trust_remote_code=False)
    return model, tokenizer, LoadedWeights()


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def size_mb(model: nn.Module) -> float:
    """The stored weights in millions of bytes."""
    count = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return count / 1e6


def model_fingerprint(source: str, *, trust_remote_code: bool = False) -> str:
    """A hash of the content of a model's folder, or of the commit of a model on the Hub.

    With `trust_remote_code` the model's own code is a part of it.
    """
    files = model_files(source, trust_remote_code=trust_remote_code)
    if local_path(source, ModelError) is None:
        borrowed = [(name, commit) for name, commit in files.items() if name != COMMIT]
        return fingerprint(source, files.get(COMMIT), *([sorted(borrowed)] if borrowed else []))
    # Teachers in the cache have this in their key, so what it hashes stays what it was.
    names = [name for name in sorted(files, key=Path) if Path(name).suffix in READ | {".py"}]
    return fingerprint([(name, files[name]) for name in names])
