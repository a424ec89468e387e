"""What a model reads: token types, how many tokens, which vocabulary."""

from __future__ import annotations

import inspect

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.errors import ModelError


def reads_token_types(model: PreTrainedModel) -> bool:
    """Whether the model tells the first text from the second by token_type_ids.

    BERT does, DistilBERT and RoBERTa don't.
    """
    return (
        "token_type_ids" in inspect.signature(model.forward).parameters
        and getattr(model.config, "type_vocab_size", 0) > 1
    )


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The most tokens of one row that the model has positions for."""
    limits = [tokenizer.model_max_length]
    for name, module in model.named_modules():
        if not _is_table_of_positions(name.rpartition(".")[2], module):
            continue
        # RoBERTa and MPNet count positions from the padding's number on, BART and OPT from 2 on.
        padding = getattr(module, "padding_idx", None)
        unused = 0 if padding is None else padding + 1
        limits.append(len(module.weight) - unused - getattr(module, "offset", 0))
        # Some tables have rows to spare.
        limits.append(getattr(model.config, "max_position_embeddings", None) or limits[-1])
    return int(min(limits))


def _is_table_of_positions(name: str, module: nn.Module) -> bool:
    """Whether the module has one vector for each position.

    `wpe` in GPT-2, `embed_positions` in BART, `positions_embed` in GPT. CANINE's are of characters'
    hashes.
    """
    weight = getattr(module, "weight", None)
    is_table = (
        isinstance(weight, Tensor) and weight.dim() == 2 and not isinstance(module, nn.Linear)
    )
    return is_table and (
        name == "wpe" or ("pos" in name and "embed" in name and "char" not in name)
    )


def _vocabulary_of(model: PreTrainedModel) -> int | None:
    """How many tokens the model has embeddings for; None if it has no table of them (CANINE)."""
    try:
        table = model.get_input_embeddings()
    except NotImplementedError:
        return None
    weight = getattr(table, "weight", None)
    return None if weight is None else len(weight)


def check_fits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Raise ModelError if the tokenizer knows tokens that the model has no embedding for."""
    vocabulary = _vocabulary_of(model)
    if vocabulary is None:
        return
    highest = max(tokenizer.get_vocab().values())
    if len(tokenizer) <= vocabulary <= highest:
        token = tokenizer.convert_ids_to_tokens(highest)
        raise ModelError(
            f"model: the tokenizer of {source} has a token of number {highest:,} ({token!r}), but "
            f"the model has embeddings for {vocabulary:,} only: they don't belong together; use "
            "the tokenizer of this model"
        )
    if len(tokenizer) > vocabulary:
        raise ModelError(
            f"model: the tokenizer of {source} knows {len(tokenizer):,} tokens, the model only "
            f"{vocabulary:,}: they don't belong together; use the tokenizer of this model"
        )


def check_length(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int, source: str
) -> None:
    """Raise ModelError if rows of `max_length` tokens are too long for the model."""
    longest = longest_input(model, tokenizer)
    if max_length > longest:
        raise too_long(max_length, longest, source)


def too_long(max_length: int, longest: int, source: str) -> ModelError:
    """Says that the model can't read so many tokens."""
    return ModelError(
        f"training.max_length: {max_length} tokens are more than the {longest} that {source} "
        "can read; set a smaller max_length"
    )
