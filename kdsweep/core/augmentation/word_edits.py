"""Edits of a row's words: text that a teacher can label and that nobody has written.

Pure functions of a text, random numbers and shares. Words are what white space separates, so in a
language without it each text is one word, and there is little to change. A view is never empty, and
no view has a label.

    mask      each word becomes the mask token with this probability
              (Tang et al. 2019, https://arxiv.org/abs/1903.12136, section 3.2)
    ngram     with this probability the view is a run of 1 to 5 words of the text
              (the same section)
    swap      each word changes places with the next one with this probability; both are then done
              (after Wei, Zou 2019, https://arxiv.org/abs/1901.11196, who swap any two)
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

LONGEST_NGRAM = 5


def draws(text: str, seed: int, view: int) -> random.Random:
    """The random numbers of one view of a text, whatever the row's number in its dataset is."""
    data = f"{seed} {view} {text}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(data, digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "little"))


def edit_text(
    text: str,
    draw: random.Random,
    *,
    mask: float = 0.0,
    ngram: float = 0.0,
    swap: float = 0.0,
    mask_token: str = "",
) -> str:
    """The text with its words masked, swapped, then cut to a run, with these probabilities."""
    words = swap_words(mask_words(text.split(), draw, mask, mask_token), draw, swap)
    return " ".join(run_of_words(words, draw) if draw.random() < ngram else words)


def mask_words(
    words: Sequence[str], draw: random.Random, share: float, mask_token: str
) -> list[str]:
    return [mask_token if draw.random() < share else word for word in words]


def swap_words(words: Sequence[str], draw: random.Random, share: float) -> list[str]:
    out = list(words)
    i = 0
    while i + 1 < len(out):
        if draw.random() < share:
            out[i], out[i + 1] = out[i + 1], out[i]
            i += 1
        i += 1
    return out


def run_of_words(words: Sequence[str], draw: random.Random) -> Sequence[str]:
    """A run of 1 to 5 words, at most all of them, each start as likely as any other."""
    length = min(draw.randint(1, LONGEST_NGRAM), len(words))
    start = draw.randint(0, len(words) - length)
    return words[start : start + length]


def choose_words(words: Sequence[str], draw: random.Random, share: float) -> list[int]:
    """The numbers of the words that a masked language model replaces."""
    return [i for i in range(len(words)) if draw.random() < share]
