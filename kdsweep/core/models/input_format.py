"""How a model reads rows: with which inputs, and how its batches are padded.

Padding is settled here for all that run a model: training, evaluation, serving, ONNX and latency.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import AddedToken

from kdsweep.core.data.encode import InputFormat, Padding, Side
from kdsweep.core.data.tokenize import TokenizedSplit, tokenize_texts
from kdsweep.core.device import to_device
from kdsweep.core.models.inputs import reads_token_types
from kdsweep.core.models.loading import quiet_transformers
from kdsweep.core.settings import Truncation
from kdsweep.errors import ModelError, first_line

# Words of the rows with which a model shows whether it ignores padding, and their longest length.
WORDS_OF_TRIED_ROWS = (1, 3, 6, 12)
LONGEST_TRIED_ROW = 32
# A model that reads in blocks of tokens may treat rows of several blocks in another way. Names in
# configs that say so, and the words that are tried then.
BLOCKS = ("chunk_length", "chunk_width", "block_size", "window", "local_attention")
WORDS_FOR_BLOCKS = (1, 12, 40, 160)
LONGEST_FOR_BLOCKS = 192
# Differences between the logits of padded rows and of the same rows alone, relative to the largest
# logit. fp32 rounds to 1e-7, which grows to 1e-5 in some families, and ConvBERT's leak can be as
# small as 4e-5. So what is between these two is computed again in fp64.
SURELY_ROUNDING, SURELY_PADDING = 3e-6, 1e-2
LARGEST_IN_FP64 = 2e-5
FULL_ATTENTION = "original_full"
# Where fp64 can't be had.
LARGEST_IN_FP32 = 1e-4
# A copy of a larger model's weights in fp64 may not fit into memory.
LARGEST_MODEL_IN_FP64 = 1_000_000_000


def input_format_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    truncation: Truncation = "head",
) -> InputFormat:
    """How this model reads rows of at most `max_length` tokens.

    The padding token and its side are written into the model's config and into the tokenizer, so
    that they are saved with them. Raises ModelError if there is no token to pad with, or if the
    model can't read a row.
    """
    earlier = replace(Padding.of_tokenizer(tokenizer), side="right")
    notes_of_attention = _settle_attention(model, max_length)
    token_id, notes_of_token = _settle_token(model, tokenizer)
    notes = (*notes_of_attention, *notes_of_token)
    padding = replace(Padding.of_tokenizer(tokenizer), token_id=token_id)
    plain = InputFormat(
        max_length, reads_token_types(model), truncation, end_token=_end_of_rows(model)
    )
    is_mended = False
    # Without weights there are no logits to compare.
    if model.device.type != "meta":
        in_blocks = _reads_in_blocks(model.config)
        tried = _tried_rows(tokenizer, replace(plain, padding=padding), in_blocks=in_blocks)
        tried = _readable(model, tried)
        padding, note = _settle_side(model, tried)
        notes += note
        is_mended = padding != earlier and sees_padding(model, replace(tried, padding=earlier))
    tokenizer.padding_side = padding.side
    return replace(plain, padding=replace(padding, notes=notes, is_mended=is_mended))


def _end_of_rows(model: PreTrainedModel) -> int | None:
    """The token at which the model answers: BART, T5 and other encoder-decoders."""
    end = model.config.eos_token_id if model.config.is_encoder_decoder else None
    return None if end is None else int(end)


# --- attention -----------------------------------------------------------------------------------


def _settle_attention(model: PreTrainedModel, max_length: int) -> tuple[str, ...]:
    """Let a model that chooses its attention by the longest row of a batch have full attention.

    BigBird does, and it keeps full attention after its first short batch: what it answers for a
    row would depend on other rows, and on earlier ones.
    """
    if getattr(model.config, "attention_type", None) != "block_sparse":
        return ()
    # It makes layers with new weights, and then takes the old ones.
    with torch.random.fork_rng(devices=[]):
        for module in list(model.modules()):
            if hasattr(module, "set_attention_type"):
                module.set_attention_type(FULL_ATTENTION)
    model.config.attention_type = FULL_ATTENTION
    block, random = model.config.block_size, model.config.num_random_blocks
    if max_length <= (5 + 2 * random) * block:
        return ()
    return (
        f"{name_of(model)}: attends to all tokens of a row (attention_type: {FULL_ATTENTION}); "
        "with block_sparse its answers would depend on the other rows of a batch",
    )


# --- the token -----------------------------------------------------------------------------------


def _settle_token(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, tuple[str, ...]]:
    """The id that fills batches, and what a user should know of it."""
    config = model.config.get_text_config()
    own = tokenizer.pad_token_id
    used = getattr(config, "pad_token_id", None)
    notes: tuple[str, ...] = ()
    if used is None:
        used = own if own is not None else _end_token(config, tokenizer)
    if used is None:
        raise ModelError(
            f"model: {name_of(model)} has no padding token and no end token, so rows of different "
            "length can't share a batch; give its tokenizer a pad_token"
        )
    token = _token_of(tokenizer, int(used))
    if token is None:
        raise ModelError(
            f"model: the config of {name_of(model)} names {used} as its pad_token_id, but its "
            "tokenizer has no such token; set pad_token_id in config.json to a token's number"
        )
    if own is not None and own != used:
        notes = (
            f"{name_of(model)}: padded with token {used} ({token!r}), its config's pad_token_id; "
            f"its tokenizer would pad with {own} ({tokenizer.pad_token!r})",
        )
    if own != used:
        _name_padding(tokenizer, token)
    pad_with(model, int(used))
    return int(used), notes


def pad_with(model: PreTrainedModel, token_id: int) -> None:
    """Name the padding token in the model's config, where some models look for it.

    They answer at the last token that isn't padding, and read no batch without such a token.
    """
    for one in (model.config, model.config.get_text_config()):
        one.pad_token_id = token_id


def _end_token(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int | None:
    if tokenizer.eos_token_id is not None:
        return int(tokenizer.eos_token_id)
    found = getattr(config, "eos_token_id", None)
    # Models that can end in several ways list them.
    if isinstance(found, list):
        found = found[0] if found else None
    return None if found is None else int(found)


def _token_of(tokenizer: PreTrainedTokenizerBase, number: int) -> str | None:
    """The token of this number, or None."""
    if number < 0:
        return None
    try:
        token = tokenizer.convert_ids_to_tokens(number)
    except (IndexError, KeyError, ValueError, OverflowError):
        return None
    if token is None or tokenizer.convert_tokens_to_ids(token) != number:
        return None
    return str(token)


def _name_padding(tokenizer: PreTrainedTokenizerBase, token: str) -> None:
    """Make this token the tokenizer's padding.

    A tokenizer that is loaded looks for its special tokens in texts before it cuts them. So that
    it reads texts in the same way now, the token is added now. As a whole word, it is the
    vocabulary's own; it must not be looked for inside of other words.
    """
    if token in tokenizer.get_added_vocab():
        tokenizer.pad_token = token
    else:
        tokenizer.add_special_tokens(
            {"pad_token": AddedToken(token, single_word=True, normalized=False, special=True)}
        )


def name_of(model: PreTrainedModel) -> str:
    """What a message calls the model: where it was loaded from, or its family."""
    return str(model.config.name_or_path or f"a {model.config.model_type} model")


# --- the side ------------------------------------------------------------------------------------


def _settle_side(model: PreTrainedModel, tried: TokenizedSplit) -> tuple[Padding, tuple[str, ...]]:
    """The padding of these rows if the model ignores it, else that on the other side.

    If the model ignores it on neither side, rows are put together by their length.
    """
    padding = tried.padding
    if not sees_padding(model, tried):
        return padding, ()
    other: Side = "right" if padding.side == "left" else "left"
    turned = replace(padding, side=other)
    if not sees_padding(model, replace(tried, padding=turned)):
        return turned, (
            f"{name_of(model)}: padded on the {other}; with padding on the {padding.side}, its "
            "tokenizer's side, what it answers for a row would depend on the other rows of its "
            "batch",
        )
    return replace(padding, by_length=True), (
        f"{name_of(model)}: only rows of the same length share a batch, because a "
        f"{model.config.model_type} model can't ignore padding; pipelines must read rows one by "
        "one",
    )


def _reads_in_blocks(config: PretrainedConfig) -> bool:
    return any(part in name for name, value in vars(config).items() if value for part in BLOCKS)


def _tried_rows(
    tokenizer: PreTrainedTokenizerBase, input_format: InputFormat, *, in_blocks: bool
) -> TokenizedSplit:
    """Some made-up rows of different length. Real ones would make a model's padding depend on the
    data.
    """
    counts, longest = WORDS_OF_TRIED_ROWS, LONGEST_TRIED_ROW
    if in_blocks:
        counts, longest = WORDS_FOR_BLOCKS, LONGEST_FOR_BLOCKS
    vocabulary = sorted(tokenizer.get_vocab().values())
    spread = np.linspace(0, len(vocabulary) - 1, max(counts) + 2).astype(int)[1:-1]
    special = set(tokenizer.all_special_ids)
    words = [
        tokenizer.decode([vocabulary[i]]).strip() or "a"
        for i in spread
        if vocabulary[i] not in special
    ]
    texts = [" ".join((words or ["a"])[:count]) for count in counts]
    length = min(input_format.max_length, longest)
    made = replace(input_format, max_length=length, truncation="head")
    return tokenize_texts(tokenizer, [texts], made)


def _readable(model: PreTrainedModel, tried: TokenizedSplit) -> TokenizedSplit:
    """These rows without the short ones that the model can't read: CANINE needs four characters.

    Raises ModelError if it can't read the longest two.
    """
    while True:
        try:
            _logits(model, tried, np.arange(1))
        except ModelError:
            if len(tried) <= 2:
                raise
            tried = replace(tried, offsets=tried.offsets[1:], labels=tried.labels[1:])
        else:
            return tried


def sees_padding(model: PreTrainedModel, tokens: TokenizedSplit) -> bool:
    """Whether the logits of these rows depend on the padding that they get in one batch."""
    if len(np.unique(tokens.lengths)) == 1:
        return False
    apart = _largest_difference(model, tokens)
    if apart <= SURELY_ROUNDING or apart > SURELY_PADDING:
        return apart > SURELY_PADDING
    if model.num_parameters() <= LARGEST_MODEL_IN_FP64:
        # Some families compute in fp32 or not at all in fp64.
        with _in_fp64(model), contextlib.suppress(ModelError):
            exact = _largest_difference(model, tokens)
            if np.isfinite(exact):
                return exact > LARGEST_IN_FP64
    return apart > LARGEST_IN_FP32


def _largest_difference(model: PreTrainedModel, tokens: TokenizedSplit) -> float:
    """Between the logits of padded rows and of the same rows alone, relative to the largest."""
    rows = np.arange(len(tokens))
    alone = np.concatenate([_logits(model, tokens, rows[i : i + 1]) for i in rows])
    try:
        together = _logits(model, tokens, rows)
    except ModelError:
        return float("inf")
    largest = np.abs(alone).max()
    if not np.isfinite(together).all() or largest == 0:
        return 0.0 if largest == 0 else float("inf")
    return float(np.abs(together - alone).max() / largest)


@torch.no_grad()
def _logits(model: PreTrainedModel, tokens: TokenizedSplit, rows: np.ndarray) -> np.ndarray:
    """fp64 [rows, classes]. Draws no random number."""
    was_training = model.training
    model.eval()
    inputs = to_device(tokens.batch(rows), model.device)
    try:
        with torch.random.fork_rng(devices=[]), quiet_transformers():
            logits: np.ndarray = model(**inputs).logits.double().cpu().numpy()
    # A model's own code may raise any error.
    except Exception as error:
        length = int(tokens.lengths[rows].max())
        raise ModelError(
            f"model: {name_of(model)} can't read rows of {length} tokens: {first_line(error)}"
        ) from error
    finally:
        model.train(was_training)
    return logits


@contextlib.contextmanager
def _in_fp64(model: PreTrainedModel) -> Iterator[None]:
    """The model with its weights in fp64. They are the same as before, to the last bit."""
    model.double()
    try:
        yield
    finally:
        model.float()
