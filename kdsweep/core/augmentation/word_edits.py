"""Other words for the same row: what a teacher can label and nobody has written.

Pure functions of a text, a seed and shares. Words are what stands between white space; a language that writes none has one word a
text, which is little to change. A view is never empty, and no view has a label of its own.

    mask      each word becomes the mask token with this probability (Tang et al. 2019, https://arxiv.org/abs/1903.12136, section 3.2)
    ngram     with this probability the view is a run of 1 to 5 words of the text alone (the same section)
    swap      each word changes places with the next one with this probability, and then both stay
              (after Wei, Zou 2019, https://arxiv.org/abs/1901.11196, who swap any two)
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

LONGEST_NGRAM = 5


def draws(text: str, seed: int, view: int) -> random.Random:
    """The random numbers of one view of a text: the same wherever the row stands in its dataset."""
    digest = hashlib.blake2b(
        f"{seed} {view} {text}".encode("utf-8", "surrogatepass"), digest_size=8
    ).digest()
    return random.Random(int.from_bytes(digest, "little"))


def view(
    text: str,
    draw: random.Random,
    *,
    mask: float = 0.0,
    ngram: float = 0.0,
    swap: float = 0.0,
    mask_token: str = "",
) -> str:
    """The text with its words masked, swapped, then cut, as the shares say."""
    words = swapped(masked(text.split(), draw, mask, mask_token), draw, swap)
    return " ".join(cut(words, draw) if draw.random() < ngram else words)


def masked(words: Sequence[str], draw: random.Random, share: float, mask_token: str) -> list[str]:
    return [mask_token if draw.random() < share else word for word in words]


def swapped(words: Sequence[str], draw: random.Random, share: float) -> list[str]:
    out, i = list(words), 0
    while i + 1 < len(out):
        if draw.random() < share:
            out[i], out[i + 1] = out[i + 1], out[i]
            i += 1
        i += 1
    return out


def cut(words: Sequence[str], draw: random.Random) -> Sequence[str]:
    """A run of 1 to 5 words, or all of them where they are fewer; each place as likely as any other."""
    length = min(draw.randint(1, LONGEST_NGRAM), len(words))
    start = draw.randint(0, len(words) - length)
    return words[start : start + length]


def chosen(words: Sequence[str], draw: random.Random, share: float) -> list[int]:
    """The numbers of the words that a masked language model is to replace."""
    return [i for i in range(len(words)) if draw.random() < share]
