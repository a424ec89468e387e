"""Tiny random models of many families, each with a tokenizer that reads as its family does."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, *(f"w{i}" for i in range(40))]
# Rows of 3 to 20 words.
TEXTS = [
    " ".join(f"w{(7 * row + 3 * place) % 40}" for place in range(words))
    for row, words in enumerate([3, 5, 9, 12, 17, 20, 4, 7, 11, 15])
]
FIRST_AND_LAST = processors.TemplateProcessing(
    single="[CLS] $A [SEP]",
    pair="[CLS] $A [SEP] $B:1 [SEP]:1",
    special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
)
LAST = processors.TemplateProcessing(
    single="$A [SEP]", pair="$A [SEP] $B [SEP]", special_tokens=[("[SEP]", 3)]
)
# How a tokenizer marks where a row starts and ends.
ENDS = {"both": FIRST_AND_LAST, "last": LAST, "none": None}


@dataclass(frozen=True)
class Family:
    """A family's config beside the usual sizes.

    ends: which special tokens its tokenizer puts around a row. side: where it pads. refused: what
    the one line says if no such model can be used.
    """

    config: dict[str, Any] = field(default_factory=dict)
    ends: str = "both"
    side: str = "right"
    pad: str | None = "[PAD]"
    refused: str | None = None


SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 66}
XLM = {"emb_dim": 32, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 66}
TWO_STACKS = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 66,
}
T5 = {"d_model": 32, "num_layers": 2, "num_heads": 2, "d_ff": 64, "d_kv": 16}
FAMILIES = {
    "bert": Family(SIZES),
    "gpt2": Family(GPT, "none", pad=None),
    "xlnet": Family({"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64}, "last", "left"),
    "bart": Family(TWO_STACKS),
    "fnet": Family(SIZES),
    "llama": Family(GROUPED, "none", "left", None),
    "roberta": Family(SIZES),
    "distilbert": Family(
        {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 66}
    ),
    "albert": Family(SIZES | {"embedding_size": 16}),
    "electra": Family(SIZES | {"embedding_size": 16}),
    "mpnet": Family(SIZES),
    "deberta": Family(SIZES),
    "deberta-v2": Family(
        SIZES | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
    ),
    "modernbert": Family(SIZES | {"global_attn_every_n_layers": 2, "local_attention": 8}),
    "gpt_neo": Family(
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 2,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": 66,
        },
        "none",
    ),
    "gptj": Family(GPT | {"rotary_dim": 8}, "none"),
    "openai-gpt": Family(GPT, "none"),
    "ctrl": Family(GPT | {"dff": 64}, "none"),
    "opt": Family(
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "ffn_dim": 64,
            "max_position_embeddings": 66,
            "word_embed_proj_dim": 32,
        }
    ),
    "bloom": Family({"hidden_size": 32, "n_layer": 2, "n_head": 2}, "none", "left"),
    "falcon": Family({"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}, "none"),
    "starcoder2": Family(GROUPED, "none"),
    "mistral": Family(GROUPED, "none", "left"),
    "gemma": Family(GROUPED | {"head_dim": 16}, "none"),
    "modernbert-decoder": Family(SIZES | {"local_attention": 8}, "none"),
    "t5": Family(T5 | {"decoder_start_token_id": 0}, "last"),
    "mbart": Family(TWO_STACKS),
    "plbart": Family(TWO_STACKS),
    "funnel": Family(
        {"block_sizes": [1, 1], "d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 64}
    ),
    "longformer": Family(SIZES | {"attention_window": [8, 8]}),
    "big_bird": Family(SIZES),
    "convbert": Family(SIZES | {"embedding_size": 16, "head_ratio": 2}),
    "yoso": Family(SIZES),
    "reformer": Family(
        {
            "attn_layers": ["local", "local"],
            "hidden_size": 32,
            "num_attention_heads": 2,
            "attention_head_size": 16,
            "feed_forward_size": 64,
            "axial_pos_shape": [8, 8],
            "axial_pos_embds_dim": [16, 16],
            "max_position_embeddings": 64,
            "local_attn_chunk_length": 8,
        },
        refused="in training",
    ),
    "nystromformer": Family(
        SIZES | {"num_landmarks": 4, "segment_means_seq_len": 64}, refused="can't read rows"
    ),
    "canine": Family(SIZES | {"num_hash_buckets": 64}),
    "mobilebert": Family(
        SIZES | {"embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32}
    ),
    "squeezebert": Family(SIZES | {"embedding_size": 32}),
    "roformer": Family(SIZES | {"embedding_size": 16}),
    "camembert": Family(SIZES),
    "xlm-roberta": Family(SIZES),
    "ernie": Family(SIZES),
    "rembert": Family(SIZES | {"input_embedding_size": 16}),
    "megatron-bert": Family(SIZES),
    "ibert": Family(SIZES),
    "xlm": Family(XLM),
    "flaubert": Family(XLM),
    "luke": Family(SIZES | {"entity_vocab_size": 10, "entity_emb_size": 16}),
    "esm": Family(SIZES | {"mask_token_id": 4}),
    "mra": Family(SIZES),
    "data2vec-text": Family(SIZES),
    "roc_bert": Family(SIZES | {"enable_pronunciation": False, "enable_shape": False}),
    "eurobert": Family(GROUPED),
    "xmod": Family(SIZES | {"languages": ["en_XX"], "default_language": "en_XX"}),
    "nomic_bert": Family(SIZES),
    "perceiver": Family(
        {
            "d_latents": 32,
            "d_model": 32,
            "num_latents": 8,
            "num_blocks": 1,
            "num_self_attends_per_block": 1,
            "num_self_attention_heads": 2,
            "num_cross_attention_heads": 2,
            "max_position_embeddings": 66,
            "qk_channels": 16,
            "v_channels": 32,
        }
    ),
}


def family_tokenizer(ends: str, side: str, pad: str | None) -> PreTrainedTokenizerBase:
    """A tokenizer that cuts texts at white space and punctuation."""
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if ENDS[ends] is not None:
        tokenizer.post_processor = ENDS[ends]
    names = {"unk_token": "[UNK]", "eos_token": "[SEP]", "padding_side": side}
    if ends != "none":
        names |= {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    if pad is not None:
        names["pad_token"] = pad
    made: PreTrainedTokenizerBase = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    return made


def make_family(name: str, folder: Path, **config: object) -> Path:
    """The folder of a tiny model of this family; `config` changes its config."""
    family = FAMILIES[name]
    usual = {
        "vocab_size": len(WORDS),
        "pad_token_id": None if family.pad is None else 0,
        "eos_token_id": 3,
        "bos_token_id": 2,
        # So small a model would hardly read its input with the usual 0.02.
        "initializer_range": 0.5,
    }
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(name, **usual | family.config | config)
    )
    model.save_pretrained(folder)
    family_tokenizer(family.ends, family.side, family.pad).save_pretrained(folder)
    return folder
