"""Words replaced by what a masked language model would put in their place.

Jiao et al. (2020), TinyBERT, https://arxiv.org/abs/1909.10351, algorithm 1, with two differences: all words of a view are masked at once
(one forward pass a view, not one a word), and candidates are drawn as likely as the model says, not evenly. A word of several tokens is
masked as one: there is no GloVe here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.core.device import pick_device
from kdsweep.core.models.inputs import longest_input
from kdsweep.errors import ModelError

ROWS_A_BATCH = 64
LONGEST = 512  # tokens; words past what the model reads stay as they are
WORD_STARTS = ("Ġ", "▁")  # how byte-level BPE and SentencePiece mark the first token of a word


class MaskedWords:
    """A masked language model that offers words: of each place's `candidates` likeliest ones, a sample."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, candidates: int
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.model.to(pick_device())
        self.words = offered_words(self.tokenizer)
        self.candidates = min(candidates, len(self.words))
        self._ids = torch.tensor(list(self.words), device=self.model.device)
        self._length = min(longest_input(self.model, self.tokenizer), LONGEST)

    @torch.inference_mode()
    def replace(
        self, rows: Sequence[list[str]], chosen: Sequence[list[int]], draws: Sequence[random.Random]
    ) -> list[list[str]]:
        """The rows' words, those with the numbers `chosen` replaced."""
        out = [list(words) for words in rows]
        concerned = [i for i, numbers in enumerate(chosen) if numbers]
        for start in range(0, len(concerned), ROWS_A_BATCH):
            part = concerned[start : start + ROWS_A_BATCH]
            for (row, word), (ids, shares) in self._offers(
                [out[i] for i in part], [chosen[i] for i in part]
            ).items():
                number = part[row]
                out[number][word] = self.words[draws[number].choices(ids, weights=shares)[0]]
        return out

    def _offers(
        self, rows: list[list[str]], chosen: list[list[int]]
    ) -> dict[tuple[int, int], tuple[list[int], list[float]]]:
        """(row, word) -> token ids and probabilities of its candidates."""
        token = str(self.tokenizer.mask_token)
        masked = [
            [token if i in set(numbers) else word for i, word in enumerate(words)]
            for words, numbers in zip(rows, chosen, strict=True)
        ]
        how = {
            "truncation": True,
            "max_length": self._length,
            "padding": True,
            "return_offsets_mapping": True,
            "return_tensors": "pt",
        }
        encoded = self.tokenizer([" ".join(words) for words in masked], **how)
        offsets = encoded.pop("offset_mapping").numpy()
        places: dict[tuple[int, int], int] = {}
        for row, position in np.argwhere(
            encoded["input_ids"].numpy() == self.tokenizer.mask_token_id
        ):
            ends = np.cumsum([len(word) + 1 for word in masked[row]])  # where the next word begins
            word = int(np.searchsorted(ends, offsets[row, position, 1] - 1, side="right"))
            if word in chosen[row]:  # a text may have a mask of its own
                places[int(row), word] = int(position)
        logits = self.model(
            **{name: values.to(self.model.device) for name, values in encoded.items()}
        ).logits
        where = torch.tensor(
            [(row, position) for (row, _), position in places.items()],
            dtype=torch.long,
            device=logits.device,
        ).reshape(-1, 2)
        best = logits[where[:, 0], where[:, 1]][:, self._ids].float().topk(self.candidates)
        ids, shares = self._ids[best.indices].tolist(), best.values.softmax(dim=-1).tolist()
        return dict(zip(places, zip(ids, shares, strict=True), strict=True))


def offered_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """`whole_words` of a masked language model's tokenizer. Raises ModelError where it can't mask, or has no word to offer."""
    source = tokenizer.name_or_path
    if tokenizer.mask_token_id is None or not tokenizer.is_fast:
        raise ModelError(
            f"augment.masked_lm: {source} needs a fast tokenizer (tokenizer.json) with a mask token"
        )
    if not (words := whole_words(tokenizer)):
        raise ModelError(
            f"augment.masked_lm: no token of {source} is a whole word, so it has none to offer; use mask, ngram or swap, or another model"
        )
    return words


def whole_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Token id -> word, of those tokens that are one: no special ones, no later parts of words, no mere signs."""
    vocabulary = tokenizer.get_vocab()
    marks = tuple(
        mark for mark in WORD_STARTS if any(token.startswith(mark) for token in vocabulary)
    )
    found = {}
    for token, number in sorted(vocabulary.items(), key=lambda entry: entry[1]):
        later = token.startswith("##") or (bool(marks) and not token.startswith(marks))
        text = (
            ""
            if later or number in tokenizer.all_special_ids
            else str(tokenizer.decode([number])).strip()
        )
        if any(letter.isalnum() for letter in text) and len(text.split()) == 1:
            found[number] = text
    return found
