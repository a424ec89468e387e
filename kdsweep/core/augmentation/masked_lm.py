"""Words replaced by what a masked language model would put in their place.

Jiao et al. (2020), TinyBERT, https://arxiv.org/abs/1909.10351, algorithm 1, with two differences:
all chosen words of a view are masked at once (one forward pass per view, not per word), and
candidates are drawn with the model's probabilities, not evenly. A word of several tokens is masked
as one, because there is no GloVe here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.core.device import pick_device
from kdsweep.core.models.inputs import longest_input
from kdsweep.errors import ModelError

ROWS_PER_BATCH = 64
# In tokens. Words past what the model reads stay as they are.
LONGEST = 512
# How byte-level BPE and SentencePiece mark the first token of a word.
WORD_STARTS = ("Ġ", "▁")

# (row, number of the word in the row)
WordPlace = tuple[int, int]


class MaskedWords:
    """A masked language model that replaces words: it draws one of the likeliest `candidates`."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, candidates: int
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.model.to(pick_device())
        self.words = offered_words(self.tokenizer)
        self.candidates = min(candidates, len(self.words))
        self._ids = torch.tensor(list(self.words), device=self.model.device)
        self._max_length = min(longest_input(self.model, self.tokenizer), LONGEST)

    @torch.inference_mode()
    def replace(
        self, rows: Sequence[list[str]], chosen: Sequence[list[int]], draws: Sequence[random.Random]
    ) -> list[list[str]]:
        """The rows' words, those with the numbers `chosen` replaced."""
        out = [list(words) for words in rows]
        concerned = [i for i, numbers in enumerate(chosen) if numbers]
        for start in range(0, len(concerned), ROWS_PER_BATCH):
            part = concerned[start : start + ROWS_PER_BATCH]
            offers = self._offers([out[i] for i in part], [chosen[i] for i in part])
            for (row, word), (ids, probabilities) in offers.items():
                number = part[row]
                (drawn,) = draws[number].choices(ids, weights=probabilities)
                out[number][word] = self.words[drawn]
        return out

    def _offers(
        self, rows: list[list[str]], chosen: list[list[int]]
    ) -> dict[WordPlace, tuple[list[int], list[float]]]:
        """For each chosen word that the model reads: ids and probabilities of its candidates."""
        token = str(self.tokenizer.mask_token)
        masked = [
            [token if i in set(numbers) else word for i, word in enumerate(words)]
            for words, numbers in zip(rows, chosen, strict=True)
        ]
        encoded = self.tokenizer(
            [" ".join(words) for words in masked],
            truncation=True,
            max_length=self._max_length,
            padding=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        offsets = encoded.pop("offset_mapping").numpy()
        positions = self._mask_positions(masked, chosen, encoded["input_ids"].numpy(), offsets)
        inputs = {name: values.to(self.model.device) for name, values in encoded.items()}
        logits = self.model(**inputs).logits
        ids, probabilities = self._candidates(logits, positions)
        return dict(zip(positions, zip(ids, probabilities, strict=True), strict=True))

    def _mask_positions(
        self,
        masked: list[list[str]],
        chosen: list[list[int]],
        input_ids: np.ndarray,
        offsets: np.ndarray,
    ) -> dict[WordPlace, int]:
        """For each chosen word, the position of its mask token.

        offsets: [rows, length, 2], where each token starts and ends in its text.
        """
        positions: dict[WordPlace, int] = {}
        for row, position in np.argwhere(input_ids == self.tokenizer.mask_token_id):
            # Where the next word starts: words are joined by one space.
            ends = np.cumsum([len(word) + 1 for word in masked[row]])
            word = int(np.searchsorted(ends, offsets[row, position, 1] - 1, side="right"))
            # A text may itself contain a mask token.
            if word in chosen[row]:
                positions[int(row), word] = int(position)
        return positions

    def _candidates(
        self, logits: Tensor, positions: dict[WordPlace, int]
    ) -> tuple[list[list[int]], list[list[float]]]:
        """The likeliest words at these positions and their probabilities, [positions, candidates].

        logits: [rows, length, vocabulary].
        """
        where = torch.tensor(
            [(row, position) for (row, _), position in positions.items()],
            dtype=torch.long,
            device=logits.device,
        ).reshape(-1, 2)
        best = logits[where[:, 0], where[:, 1]][:, self._ids].float().topk(self.candidates)
        return self._ids[best.indices].tolist(), best.values.softmax(dim=-1).tolist()


def offered_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """`whole_words` of a masked language model's tokenizer.

    Raises ModelError if it can't mask or has no word to offer.
    """
    source = tokenizer.name_or_path
    if tokenizer.mask_token_id is None or not tokenizer.is_fast:
        raise ModelError(
            f"augment.masked_lm: {source} needs a fast tokenizer (tokenizer.json) with a mask token"
        )
    words = whole_words(tokenizer)
    if not words:
        raise ModelError(
            f"augment.masked_lm: no token of {source} is a whole word, so it has none to offer; "
            "use mask, ngram or swap, or another model"
        )
    return words


def whole_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Token id -> word, for tokens that are a word: not special, not a later part, not a mere sign.

    In the order of the ids.
    """
    vocabulary = tokenizer.get_vocab()
    marks = tuple(
        mark for mark in WORD_STARTS if any(token.startswith(mark) for token in vocabulary)
    )
    special = set(tokenizer.all_special_ids)
    found = {}
    for token, number in sorted(vocabulary.items(), key=lambda entry: entry[1]):
        is_later_part = token.startswith("##") or (bool(marks) and not token.startswith(marks))
        if is_later_part or number in special:
            continue
        text = str(tokenizer.decode([number])).strip()
        if any(letter.isalnum() for letter in text) and len(text.split()) == 1:
            found[number] = text
    return found
