"""Teachers and students: any sequence-classification model of transformers, whole or with some of its layers."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from kdsweep.core.files import file_fingerprint, fingerprint
from kdsweep.core.settings import StudentSettings
from kdsweep.core.sources import hub_answers, local_path, looks_like_a_path, unreachable
from kdsweep.errors import ModelError


@contextlib.contextmanager
def quiet_transformers(*, progress: bool = False) -> Iterator[None]:
    """Keep transformers' reports on loading and saving to itself, and its progress bars too unless something is downloaded."""
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    if not progress:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """A Hugging Face folder: config, safetensors, tokenizer. Raises OSError where the disk is full."""
    try:
        with quiet_transformers():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except Exception as error:  # safetensors and tokenizers are written in Rust and raise a full disk as errors of their own
        if (found := re.search(r"\(os error (\d+)\)", str(error))) is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(folder)) from error


@contextlib.contextmanager
def _loading(source: str) -> Iterator[dict[str, Any]]:
    """Give `from_pretrained` its first arguments; turn whatever it raises into one line."""
    path = local_path(source, ModelError)
    if path is None and looks_like_a_path(source):
        raise ModelError(f"model: there is no folder {source!r}")
    if path is not None and not (path / "config.json").is_file():
        raise ModelError(f"model: {source} is not a model folder: it has no config.json")
    online = path is None and hub_answers()
    try:
        with quiet_transformers(progress=online):
            yield {"pretrained_model_name_or_path": str(path or source), "local_files_only": not online}
    except Exception as error:  # safetensors and tokenizers raise errors of no common kind, some a bare Exception
        if path is None and not online:
            raise unreachable("the model", source) from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"model: {source} can't be loaded: {reason}") from error


def load_config(source: str, *, trust_remote_code: bool = False) -> PretrainedConfig:
    with _loading(source) as where:
        return AutoConfig.from_pretrained(**where, trust_remote_code=trust_remote_code)


def load_tokenizer(source: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    with _loading(source) as where:
        tokenizer = AutoTokenizer.from_pretrained(**where, trust_remote_code=trust_remote_code)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what transformers makes of a folder without tokenizer files
        raise ModelError(f"model: {source} has no tokenizer, or one without a vocabulary; put the model's tokenizer files into its folder")
    return tokenizer


def load_classifier(source: str, label_names: tuple[str, ...], *, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model with a head for these classes, in fp32 and train mode. A head of its own of the same size is kept.

    Raises ModelError where the weights in the folder are not this model's: a body that starts from random numbers is never
    trained in silence.
    """
    with _loading(source) as where:
        config = with_labels(AutoConfig.from_pretrained(**where, trust_remote_code=trust_remote_code), label_names)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            **where,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,  # weights in a pickle are not loaded
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
        )
    body = [name for name, _ in model.base_model.named_parameters(prefix=model.base_model_prefix)]
    missing = set(info["missing_keys"]) & set(body)
    if len(missing) > len(body) / 4:
        raise ModelError(f"model: {source} holds other weights than its config says: {len(missing)} of {len(body)} are missing, {min(missing)} for one")
    changed = sorted(str(entry[0]) for entry in info["mismatched_keys"] if entry[0] in set(body))
    if changed:
        raise ModelError(f"model: {source} holds other weights than its config says: {changed[0]} has another shape")
    model.train()
    return model


def with_labels(config: PretrainedConfig, label_names: tuple[str, ...]) -> PretrainedConfig:
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: i for i, name in enumerate(label_names)}
    config.problem_type = "single_label_classification"
    return config


def load_student(student: StudentSettings, label_names: tuple[str, ...], teacher_folder: Path | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The student as it is before its first step, and its tokenizer. New weights come from torch's global generator."""
    source = student_source(student, teacher_folder)
    model = load_classifier(source, label_names, trust_remote_code=student.trust_remote_code)
    tokenizer = load_tokenizer(source, trust_remote_code=student.trust_remote_code)
    if student.layers is not None:
        model = keep_layers(model, spaced_layers(layer_count(model, source), student.layers, source), source)
    check_fits(model, tokenizer, source)
    return model, tokenizer


def student_source(student: StudentSettings, teacher_folder: Path | None) -> str:
    if student.model != "teacher":
        return student.model
    if teacher_folder is None:
        raise ModelError("student.model: 'teacher' needs a teacher")
    return str(teacher_folder)


def describe_model(source: str, label_names: tuple[str, ...], *, trust_remote_code: bool = False) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model with its weights where they are on this machine; where they aren't yet, its shape alone (on the meta device)."""
    tokenizer = load_tokenizer(source, trust_remote_code=trust_remote_code)
    if local_path(source, ModelError) is not None or _weights_are_cached(source) or trust_remote_code:
        return load_classifier(source, label_names, trust_remote_code=trust_remote_code), tokenizer
    config = with_labels(load_config(source), label_names)
    with _loading(source), torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config), tokenizer


def _weights_are_cached(source: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(source, name), str) for name in ("model.safetensors", "model.safetensors.index.json"))


# --- layers ----------------------------------------------------------------------------------------------------------


def spaced_layers(available: int, kept: int, source: str) -> list[int]:
    """`kept` of `available` layers, evenly spaced, the first and the last among them: 3 of 12 are 0, 6, 11."""
    if kept > available:
        raise ModelError(f"student.layers: {kept} layers can't be kept of the {available} that {source} has")
    return [round(position) for position in np.linspace(0, available - 1, kept)]


def layer_count(model: PreTrainedModel, source: str) -> int:
    return len(_layers(model, source)[1])


def _layers(model: PreTrainedModel, source: str) -> tuple[str, nn.ModuleList]:
    """The one stack of layers: the only list of as many like modules as the config has layers."""
    count = getattr(model.config, "num_hidden_layers", None)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and len({type(layer) for layer in module}) == 1
    ]
    # In a model of one layer, lists of one module are common; the stack is the outermost of them.
    outer = [(name, module) for name, module in found if not any(name.startswith(f"{other}.") for other, _ in found if other != name)]
    if len(outer) != 1:
        raise ModelError(
            f"student.layers: kdsweep can't pick layers of a {model.config.model_type} model ({source}): it has no single stack of them; "
            "leave 'layers' out, or name a smaller model (BERT, DistilBERT, RoBERTa, MPNet and ELECTRA work, among others)"
        )
    return outer[0]


def keep_layers(model: PreTrainedModel, kept: list[int], source: str) -> PreTrainedModel:
    """A new model with these layers of `model`, in this order, and everything else of it."""
    stack, layers = _layers(model, source)
    config = copy.deepcopy(model.config)
    for name, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == len(layers) and name != "architectures":
            setattr(config, name, [value[i] for i in kept])  # such as ModernBERT's layer_types
    config.num_hidden_layers = len(kept)
    small = type(model)(config)
    new_place = {f"{stack}.{old}.": f"{stack}.{new}." for new, old in enumerate(kept)}
    state = {}
    for name, tensor in model.state_dict().items():
        if not name.startswith(f"{stack}."):
            state[name] = tensor
            continue
        layer = name[: name.index(".", len(stack) + 1) + 1]
        if layer in new_place:
            state[new_place[layer] + name.removeprefix(layer)] = tensor
    small.load_state_dict(state)
    small.train()
    return small


# --- inputs ----------------------------------------------------------------------------------------------------------


def reads_token_types(model: PreTrainedModel) -> bool:
    """Whether the model tells the first text from the second by token_type_ids (BERT does, DistilBERT and RoBERTa don't)."""
    return "token_type_ids" in inspect.signature(model.forward).parameters and getattr(model.config, "type_vocab_size", 0) > 1


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The most tokens of one row that the model has positions for."""
    limits = [tokenizer.model_max_length]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa and MPNet count positions from the padding's number on
            limits.append(module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    return int(min(limits))


def check_fits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    vocabulary = int(model.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
    if len(tokenizer) > vocabulary:
        raise ModelError(f"model: the tokenizer of {source} knows {len(tokenizer):,} tokens, the model only {vocabulary:,}: they don't belong together")


def check_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int, source: str) -> None:
    longest = longest_input(model, tokenizer)
    if max_length > longest:
        raise ModelError(f"training.max_length: {max_length} tokens are more than the {longest} that {source} can read")


# --- facts -----------------------------------------------------------------------------------------------------------


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def size_mb(model: nn.Module) -> float:
    """Millions of bytes of the weights as they are stored."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) / 1e6


def model_fingerprint(source: str, *, trust_remote_code: bool = False) -> str:
    """A hash of what is in a model's folder, or the commit of a model on the Hub."""
    path = local_path(source, ModelError)
    if path is None:
        return fingerprint(source, getattr(load_config(source, trust_remote_code=trust_remote_code), "_commit_hash", None))
    if not path.is_dir():
        raise ModelError(f"model: {source} is not a model folder")
    files = [file for file in sorted(path.iterdir()) if file.suffix in {".json", ".safetensors", ".txt", ".model"}]
    return fingerprint([(file.name, _unchanged_file_fingerprint(file, file.stat().st_mtime_ns, file.stat().st_size)) for file in files])


@functools.lru_cache(maxsize=256)
def _unchanged_file_fingerprint(file: Path, modified: int, size: int) -> str:
    """Weights are hundreds of megabytes: each file is read once in a process, as long as it stays what it is."""
    return file_fingerprint(file)
