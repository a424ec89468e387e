"""A hash of each row's text, equal for texts that a model reads alike."""

from __future__ import annotations

import functools
import hashlib
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SplitRule:
    """How rows are given to splits, and which texts count as the same one.

    number: 1 is version 0.1.0's rule, by hash alone; 2 is stratified by label. symmetric: the pairs
    (a, b) and (b, a) count as the same text.
    """

    number: int = 2
    symmetric: bool = False


STRATIFIED = SplitRule()


def text_hashes(texts: Sequence[Sequence[str]], salt: bytes, rule: SplitRule) -> np.ndarray:
    """fp64 [rows] in [0, 1), equal for rows whose texts the rule counts as the same."""
    normal = _normal_by_rule_1 if rule.number == 1 else normal_text
    out = np.empty(len(texts[0]), dtype=np.float64)
    for i, columns in enumerate(zip(*texts, strict=True)):
        parts = [normal(column) for column in columns]
        if rule.symmetric:
            parts.sort()
        data = "\x1f".join(parts).encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(data, digest_size=8, salt=salt).digest()
        out[i] = (int.from_bytes(digest, "little") >> 11) / 2**53
    return out


def normal_text(text: str) -> str:
    """The text as models that ignore case, width and invisible characters read it.

    NFKC, casefold and NFKC again (Unicode's caseless matching), without format characters and
    without control characters that aren't white space; each run of white space is one blank.
    """
    if text.isascii():
        folded = text.casefold()
    else:
        folded = unicodedata.normalize("NFKC", text).casefold()
        folded = unicodedata.normalize("NFKC", folded)
    return " ".join(folded.translate(_unseen()).split())


@functools.cache
def _unseen() -> dict[int, None]:
    """Every character of Unicode's categories Cf, and Cc without white space, for `translate`."""
    every = map(chr, range(sys.maxunicode + 1))
    categories = {"Cf", "Cc"}
    unseen = [one for one in every if unicodedata.category(one) in categories and not one.isspace()]
    return dict.fromkeys(map(ord, unseen))


def _normal_by_rule_1(text: str) -> str:
    """Texts that differ in case and white space only are the same one."""
    return " ".join(text.split()).casefold()
