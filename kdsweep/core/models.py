"""Teachers and students: any sequence-classification model of transformers, whole or with some of its layers."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from kdsweep.core.files import file_fingerprint, fingerprint
from kdsweep.core.settings import Kind, StudentSettings
from kdsweep.core.sources import hub_answers, local_path, looks_like_a_path, unreachable
from kdsweep.errors import ModelError, first_line


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


def load_classifier(source: str, label_names: tuple[str, ...], *, kind: Kind = "classification", trust_remote_code: bool = False) -> PreTrainedModel:
    """The model with a head for these classes, in fp32 and train mode. A head of its own of the same size is kept.

    Raises ModelError where the weights in the folder are not this model's: a body that starts from random numbers is never
    trained in silence.
    """
    with _loading(source) as where:
        config = with_labels(AutoConfig.from_pretrained(**where, trust_remote_code=trust_remote_code), label_names, kind)
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


def load_masked_lm(source: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A masked language model in eval mode, and its tokenizer. Raises ModelError where it is none, or its weights have no such head."""
    tokenizer = load_tokenizer(source)
    with _loading(source) as where:
        model, info = AutoModelForMaskedLM.from_pretrained(**where, dtype=torch.float32, use_safetensors=True, output_loading_info=True)
    if missing := info["missing_keys"]:
        raise ModelError(f"augment.masked_lm: {source} is no masked language model: its weights lack {min(missing)}")
    check_fits(model, tokenizer, source)
    model.eval()
    return model, tokenizer


def describe_masked_lm(source: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """What `load_masked_lm` gives and raises; where the weights aren't on this machine yet, the model's shape alone (on the meta device)."""
    if local_path(source, ModelError) is not None or _weights_are_cached(source):
        return load_masked_lm(source)
    tokenizer, config = load_tokenizer(source), load_config(source)
    with _loading(source), torch.device("meta"):
        return AutoModelForMaskedLM.from_config(config).eval(), tokenizer


# What transformers calls them; its pipelines ask for it: a regression's output is told as it is, several labels by their sigmoids.
PROBLEM_TYPES: dict[Kind, Literal["single_label_classification", "regression", "multi_label_classification"]] = {
    "classification": "single_label_classification",
    "regression": "regression",
    "multi_label": "multi_label_classification",
}


def with_labels(config: PretrainedConfig, label_names: tuple[str, ...], kind: Kind = "classification") -> PretrainedConfig:
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: i for i, name in enumerate(label_names)}
    config.problem_type = PROBLEM_TYPES[kind]
    return config


def own_labels(source: str, *, trust_remote_code: bool = False) -> tuple[tuple[str, ...], Kind]:
    """What a model in a folder of kdsweep's own says that its outputs are called, and of which kind its task is."""
    config = load_config(source, trust_remote_code=trust_remote_code)
    names: Any = config.id2label
    kinds: dict[Any, Kind] = {problem: kind for kind, problem in PROBLEM_TYPES.items()}
    return tuple(names[i] for i in range(len(names))), kinds.get(config.problem_type, "classification")


def load_student(
    student: StudentSettings, label_names: tuple[str, ...], teacher_folder: Path | None, kind: Kind = "classification"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The student as it is before its first step, and its tokenizer. New weights come from torch's global generator."""
    source = student_source(student, teacher_folder)
    tokenizer = load_tokenizer(source, trust_remote_code=student.trust_remote_code)
    if student.start == "scratch":
        model = new_model(student, label_names, source, kind)
    else:
        model = load_classifier(source, label_names, kind=kind, trust_remote_code=student.trust_remote_code)
        model = keep_layers(model, kept_layers(layer_count(model, source), student.layers, source), source) if student.layers is not None else model
    check_fits(model, tokenizer, source)
    return model, tokenizer


def student_source(student: StudentSettings, teacher_folder: Path | None) -> str:
    if student.model != "teacher":
        return student.model
    if teacher_folder is None:
        raise ModelError("student.model: 'teacher' needs a teacher")
    return str(teacher_folder)


def describe_model(
    source: str, label_names: tuple[str, ...], *, kind: Kind = "classification", trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model with its weights where they are on this machine; where they aren't yet, its shape alone (on the meta device)."""
    tokenizer = load_tokenizer(source, trust_remote_code=trust_remote_code)
    if local_path(source, ModelError) is not None or _weights_are_cached(source) or trust_remote_code:
        return load_classifier(source, label_names, kind=kind, trust_remote_code=trust_remote_code), tokenizer
    config = with_labels(load_config(source), label_names, kind)
    with _loading(source), torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config), tokenizer


def _weights_are_cached(source: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(source, name), str) for name in ("model.safetensors", "model.safetensors.index.json"))


# --- layers ----------------------------------------------------------------------------------------------------------


def kept_layers(available: int, kept: int | Sequence[int], source: str) -> list[int]:
    """The layers listed, or `kept` of `available`, evenly spaced, the first and the last among them: 3 of 12 are 0, 6, 11."""
    if isinstance(kept, int):
        if kept > available:
            raise ModelError(f"student.layers: {kept} layers can't be kept of the {available} that {source} has")
        return [round(position) for position in np.linspace(0, available - 1, kept)]
    if max(kept) >= available:
        raise ModelError(f"student.layers: {source} has no layer {max(kept)}; its {available} layers are 0 to {available - 1}")
    return list(kept)


FEED_FORWARD = ("intermediate_size", "hidden_dim", "ffn_dim")  # what families call the width inside a layer


def new_model(student: StudentSettings, label_names: tuple[str, ...], source: str, kind: Kind = "classification") -> PreTrainedModel:
    """A model in the shape of `source` with random weights, as many layers as `layers` says, and hidden states of `width`.

    Another width keeps the width of a head as near as the new one can be divided, and the feed-forward part in proportion.
    """
    config = with_labels(load_config(source, trust_remote_code=student.trust_remote_code), label_names, kind)
    if isinstance(student.layers, tuple):
        raise ModelError("student.layers: a list names layers to keep, and from scratch none are kept; give their number")
    if student.layers is not None:
        for name, value in config.to_dict().items():
            if isinstance(value, list) and len(value) == config.num_hidden_layers and name != "architectures":
                setattr(config, name, [value[i % len(value)] for i in range(student.layers)])  # such as ModernBERT's layer_types
        config.num_hidden_layers = student.layers
    if student.width is not None:
        width, before, head = student.width, config.hidden_size, config.hidden_size // config.num_attention_heads
        config.num_attention_heads = min((heads for heads in range(1, width + 1) if width % heads == 0), key=lambda heads: abs(width / heads - head))
        for name in FEED_FORWARD:
            if hasattr(config, name):
                setattr(config, name, max(1, round(getattr(config, name) * student.width / before)))
        config.hidden_size = student.width
    try:
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32, trust_remote_code=student.trust_remote_code)
    except (ValueError, RuntimeError, AssertionError) as error:
        raise ModelError(f"student.width: a {config.model_type} model of width {student.width} can't be made: {first_line(error)}") from error
    model.train()
    return model


def layer_count(model: PreTrainedModel, source: str) -> int:
    return len(layer_stack(model, source)[1])


def layer_stack(model: PreTrainedModel, source: str) -> tuple[str, nn.ModuleList]:
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
            f"model: kdsweep can't tell the layers of a {model.config.model_type} model ({source}) apart: it has no single stack of them; leave out "
            "what asks for one (student.layers, training.layer_decay, distill.attention: {match: values}), or take another model (BERT, DistilBERT, "
            "RoBERTa, MPNet and ELECTRA work, among others)"
        )
    return outer[0]


def keep_layers(model: PreTrainedModel, kept: list[int], source: str) -> PreTrainedModel:
    """A new model with these layers of `model`, in this order, and everything else of it."""
    stack, layers = layer_stack(model, source)
    config = copy.deepcopy(model.config)
    for name, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == len(layers) and name != "architectures":
            setattr(config, name, [value[i] for i in kept])  # such as ModernBERT's layer_types
    config.num_hidden_layers = len(kept)
    with no_init_weights():  # all of them are about to be replaced
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


def depths(model: PreTrainedModel, source: str) -> dict[str, int]:
    """Each weight's name -> how far it is from the inputs: 0 what comes before the layers, 1 the first layer, ..., the most what comes after."""
    stack, layers = layer_stack(model, source)
    order = [name for name, _ in model.named_parameters()]
    first = next(i for i, name in enumerate(order) if name.startswith(f"{stack}."))
    found = {}
    for i, name in enumerate(order):
        inside = name.startswith(f"{stack}.")
        found[name] = int(name.removeprefix(f"{stack}.").split(".")[0]) + 1 if inside else 0 if i < first else len(layers) + 1
    return found


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
    vocabulary = int(model.get_input_embeddings().num_embeddings)
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
