"""Texts in groups of the same label, so that a part of them has the shares that all of them have.

Rows whose texts count as the same one are one text here. A text has the label that most of its rows
have. No function here depends on the order of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from kdsweep.core.data import overlapping_labels
from kdsweep.core.data.overlapping_labels import FEWEST_TEXTS
from kdsweep.core.tasks.base import TaskKind


@dataclass(frozen=True, eq=False)
class Strata:
    """The texts of some rows, counted from 0 in the order of their hashes.

    text_of_row: int64 [rows]. members: for each label the texts that have it, int64 each, the
    rarest label first. A text may have several labels, and has at least one.
    """

    text_of_row: np.ndarray
    members: list[np.ndarray]

    @classmethod
    def of(cls, hashes: np.ndarray, labels: np.ndarray, kind: TaskKind) -> Self:
        """hashes: fp64 [rows], of the rows' texts. labels: of the rows, as the kind has them."""
        distinct, text_of_row = np.unique(hashes, return_inverse=True)
        members = kind.strata(_label_of_each_text(text_of_row, labels, len(distinct)))
        return cls(text_of_row, sorted((one for one in members if len(one)), key=len))

    @property
    def texts(self) -> int:
        return int(self.text_of_row.max(initial=-1)) + 1

    def hold_out(self, share: float, parts: int) -> list[np.ndarray]:
        """The rows of `parts` parts, bool [rows] each; no text is in two of them.

        Of each label a part gets the `share` of its texts, at least one if the label has
        `FEWEST_TEXTS`; those with the lowest hashes, where no text has two labels. What isn't held
        out keeps a text of each label.
        """
        if self._has_overlaps:
            dealt = overlapping_labels.hold_out(*self._labels_and_order(), share, parts)
            return [(dealt == part + 1)[self.text_of_row] for part in range(parts)]
        held = [np.zeros(self.texts, dtype=bool) for _ in range(parts)]
        for texts in self.members:
            wanted = _part_of(len(texts), share, parts)
            for number, part in enumerate(held):
                part[texts[number * wanted : (number + 1) * wanted]] = True
        return [part[self.text_of_row] for part in held]

    def fold_of_each_row(self, folds: int) -> np.ndarray:
        """int64 [rows]: the texts of each label are spread over all folds, in the order of their
        hashes.
        """
        if self._has_overlaps:
            labels, order = self._labels_and_order()
            return overlapping_labels.deal(labels, order, [1 / folds] * folds)[self.text_of_row]
        fold = np.empty(self.texts, dtype=np.int64)
        # By stratum, then by hash. The next stratum starts with the fold after the last one, so
        # that all folds are of about the same size.
        fold[np.argsort(self._rarest_label(), kind="stable")] = np.arange(self.texts) % folds
        return fold[self.text_of_row]

    def first_rows(self, most: int, ties: np.ndarray) -> np.ndarray:
        """`most` rows with the same share of each label, int64 [most], in their order.

        There is one row of each label with `FEWEST_TEXTS` rows, if `most` has room for that.
        ties: orders rows of the same text.
        """
        if self._has_overlaps:
            labels, _ = self._labels_and_order()
            order = np.lexsort((ties, self.text_of_row, self._rarest_label()[self.text_of_row]))
            chosen = overlapping_labels.first_items(labels[self.text_of_row], order, most)
            return np.flatnonzero(chosen)
        return np.sort(self._order(ties)[:most])

    def _order(self, ties: np.ndarray) -> np.ndarray:
        """The rows in an order of which each beginning has about the same share of each label.

        The first row of each label with `FEWEST_TEXTS` rows comes before all others.
        """
        stratum = self._rarest_label()[self.text_of_row]
        order = np.lexsort((ties, self.text_of_row, stratum))
        sizes = np.bincount(stratum)
        size = sizes[stratum[order]]
        starts = np.cumsum(sizes) - sizes
        rank = np.arange(len(order)) - starts[stratum[order]]
        # The n-th row stands where its label has n - 1/2 rows, which rounds its share.
        position = (rank + 0.5) / size
        is_first = (rank == 0) & (size >= FEWEST_TEXTS)
        position[is_first] = -size[is_first]
        by_position = np.lexsort((self.text_of_row[order], position))
        found: np.ndarray = order[by_position]
        return found

    def _rarest_label(self) -> np.ndarray:
        """The place in `members` of each text's rarest label, int64 [texts]."""
        rarest = np.full(self.texts, -1, dtype=np.int64)
        for number, texts in enumerate(self.members):
            rarest[texts[rarest[texts] < 0]] = number
        return rarest

    @property
    def _has_overlaps(self) -> bool:
        """Whether a text has several labels."""
        return sum(map(len, self.members)) > self.texts

    def _labels_and_order(self) -> tuple[np.ndarray, np.ndarray]:
        """Which label each text has, bool [texts, labels]; and the texts, the rarest label first,
        then by hash.
        """
        labels = np.zeros((self.texts, len(self.members)), dtype=bool)
        for label, texts in enumerate(self.members):
            labels[texts, label] = True
        return labels, np.argsort(self._rarest_label(), kind="stable")


def _part_of(texts: int, share: float, parts: int) -> int:
    """How many texts of a label a part gets. At least one is left for train."""
    least = 1 if texts >= FEWEST_TEXTS else 0
    return min(max(round(texts * share), least), (texts - 1) // parts)


def _label_of_each_text(text_of_row: np.ndarray, labels: np.ndarray, texts: int) -> np.ndarray:
    """The most frequent label of each text's rows; of equally frequent ones the smallest."""
    known, number = np.unique(labels, axis=0, return_inverse=True)
    pairs, rows = np.unique(text_of_row * len(known) + number.reshape(-1), return_counts=True)
    text, label = np.divmod(pairs, len(known))
    order = np.lexsort((label, -rows, text))
    _, first = np.unique(text[order], return_index=True)
    chosen: np.ndarray = known[label[order[first]]]
    return chosen
