"""Models and tokenizers from folders, packages and the Hub."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers.dynamic_module_utils
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from kdsweep.core.hub.repository import shown
from kdsweep.core.models.borrowed_code import where_code_is
from kdsweep.core.models.inputs import check_fits
from kdsweep.core.models.model_snapshot import model_folder
from kdsweep.core.models.weights import LoadedWeights, check_not_quantized, check_weights
from kdsweep.core.tasks import DEFAULT_KIND, kind_of_problem
from kdsweep.core.tasks.base import TaskKind
from kdsweep.errors import LONGEST_REASON, ModelError, first_line

# transformers asks whether a model's own code may run where nobody told it, and "y" runs it. The
# search space alone may say so: without time to wait for an answer, transformers raises.
transformers.dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' reports and bars on loading and saving."""
    verbosity = transformers_logging.get_verbosity()
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a Hugging Face folder: config, weights, tokenizer. Raises OSError on a full disk."""
    try:
        with quiet_transformers():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except Exception as error:
        # safetensors and tokenizers, written in Rust, report a full disk by errors of their own.
        if (found := re.search(r"\(os error (\d+)\)", str(error))) is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(folder)) from error


@contextlib.contextmanager
def loading_from(
    source: str, *, weights: bool = False, trust_remote_code: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the first arguments of `from_pretrained`; whatever it raises becomes a ModelError.

    What the Hub alone has is fetched first; with `weights`, they are too.
    """
    path = model_folder(source, weights=weights, trust_remote_code=trust_remote_code)
    if not (path / "config.json").is_file():
        raise ModelError(f"model: {source} is not a model folder: it has no config.json")
    try:
        with quiet_transformers():
            where: dict[str, Any] = {
                "pretrained_model_name_or_path": str(path),
                "local_files_only": True,
            }
            with consenting_to_code(source, trust_remote_code=trust_remote_code):
                yield where | (where_code_is(source, path) if trust_remote_code else {})
    except ModelError:
        raise
    except Exception as error:
        # The errors of safetensors and tokenizers have no common class; some are a bare Exception.
        reason = first_line(error)
        if reason.endswith(":"):
            # A list follows.
            reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise ModelError(f"model: {shown(source)} can't be loaded: {reason}") from error


@contextlib.contextmanager
def consenting_to_code(source: str, *, trust_remote_code: bool) -> Iterator[None]:
    """Raises ModelError where transformers would need code that comes with the model and may not
    run it."""
    try:
        yield
    except ValueError as error:
        # transformers has no class of its own for it.
        if trust_remote_code or "trust_remote_code" not in str(error):
            raise
        raise ModelError(
            f"model: {shown(source)} comes with code of its own, which is not run; if you trust "
            "it, set trust_remote_code: true beside the model in the search space, or pass "
            "trust_remote_code=True in Python"
        ) from error


def load_config(source: str, *, trust_remote_code: bool = False) -> PretrainedConfig:
    with loading_from(source, trust_remote_code=trust_remote_code) as where:
        return AutoConfig.from_pretrained(**where, trust_remote_code=trust_remote_code)


def load_tokenizer(
    source: str, *, trust_remote_code: bool = False, **changed: object
) -> PreTrainedTokenizerBase:
    """changed: settings of the tokenizer that are others than those that were saved."""
    with loading_from(source, trust_remote_code=trust_remote_code) as where:
        tokenizer = AutoTokenizer.from_pretrained(
            **where, **changed, trust_remote_code=trust_remote_code
        )
    # From a folder without tokenizer files transformers makes a tokenizer with special tokens only.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ModelError(
            f"model: {source} has no tokenizer, or one without a vocabulary; "
            "put the model's tokenizer files into its folder"
        )
    return tokenizer


def load_classifier(
    source: str,
    label_names: tuple[str, ...],
    *,
    kind: TaskKind = DEFAULT_KIND,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """The model of `load_weights`."""
    return load_weights(source, label_names, kind=kind, trust_remote_code=trust_remote_code)[0]


def load_weights(
    source: str,
    label_names: tuple[str, ...],
    *,
    kind: TaskKind = DEFAULT_KIND,
    trust_remote_code: bool = False,
    is_complete: bool = False,
) -> tuple[PreTrainedModel, LoadedWeights]:
    """The model with a head for these classes, in fp32 and train mode; and what of it is new.

    If it has a head of this size, that one is kept. Raises ModelError if more than a head (and a
    pooler) is missing, and with `is_complete` if anything is.
    """
    with loading_from(source, weights=True, trust_remote_code=trust_remote_code) as where:
        config = with_labels(
            AutoConfig.from_pretrained(**where, trust_remote_code=trust_remote_code),
            label_names,
            kind,
        )
        model, info = kind.model_class().from_pretrained(
            **where,
            config=config,
            dtype=torch.float32,
            # Never load weights from a pickle.
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
        )
    weights = check_weights(model, info, source, is_complete=is_complete)
    check_not_quantized(model, Path(where["pretrained_model_name_or_path"]), source)
    model.train()
    return model, weights


def load_masked_lm(
    source: str, *, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A masked language model in eval mode, and its tokenizer.

    Raises ModelError if its weights have no head for masked words.
    """
    tokenizer = load_tokenizer(source, trust_remote_code=trust_remote_code)
    with loading_from(source, weights=True, trust_remote_code=trust_remote_code) as where:
        model, info = AutoModelForMaskedLM.from_pretrained(
            **where,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
        )
    if missing := info["missing_keys"]:
        raise ModelError(
            f"augment.masked_lm: {source} is no masked language model: its weights lack "
            f"{min(missing)}"
        )
    check_fits(model, tokenizer, source)
    model.eval()
    return model, tokenizer


def with_labels(
    config: PretrainedConfig, label_names: tuple[str, ...], kind: TaskKind = DEFAULT_KIND
) -> PretrainedConfig:
    """The config, changed to name these outputs and this kind of task."""
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: i for i, name in enumerate(label_names)}
    config.problem_type = kind.problem_type
    return config


def own_labels(source: str, *, trust_remote_code: bool = False) -> tuple[tuple[str, ...], TaskKind]:
    """The outputs' names and the kind of task, from the config of a model that kdsweep saved."""
    config = load_config(source, trust_remote_code=trust_remote_code)
    names: Any = config.id2label
    return tuple(names[i] for i in range(len(names))), kind_of_problem(config.problem_type)
