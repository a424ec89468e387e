"""Parts of items that have several labels each, with the same share of every label in each part.

Items are dealt one by one, those of the rarest label first. Each goes to the part that lacks most
of its labels by then (compare iterative stratification, Sechidis et al. 2011,
https://doi.org/10.1007/978-3-642-23808-6_10). A part's count of a label is within two or three of
its share, however the labels overlap. All arithmetic is on whole numbers, so that every machine
deals alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# A label with fewer texts can't be in train, validation and test.
FEWEST_TEXTS = 3
# Shares are whole numbers of this.
WHOLE = 1_000_000


def deal(labels: np.ndarray, order: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """The part of each item, int64 [items].

    labels: bool [items, labels]. order: of the items, int64 [items]. shares: of the parts, which
    add up to 1.
    """
    weights = np.array([round(share * WHOLE) for share in shares], dtype=np.int64)
    counted = np.concatenate([labels, np.ones((len(labels), 1), dtype=bool)], axis=1)
    # How far each part is above its share of what was dealt; the last column counts all items.
    above = np.zeros((len(weights), counted.shape[1]), dtype=np.int64)
    parts = np.empty(len(labels), dtype=np.int64)
    for item in order.tolist():
        own = np.flatnonzero(counted[item])
        above[:, own] -= weights[:, None]
        part = int(above[:, own].sum(axis=1).argmin())
        above[part, own] += WHOLE
        parts[item] = part
    return parts


def hold_out(labels: np.ndarray, order: np.ndarray, share: float, parts: int) -> np.ndarray:
    """The part of each item, int64 [items]: 0 is what stays, 1 to `parts` are held out.

    Where labels allow it, each part has at least one item of each label that has `FEWEST_TEXTS`,
    and what stays has one of each label.
    """
    dealt = deal(labels, order, [1 - parts * share, *[share] * parts])
    counts = np.stack([labels[dealt == part].sum(axis=0) for part in range(parts + 1)])

    sizes = labels.sum(axis=0)

    def move(label: int, source: int, target: int) -> None:
        """Move the first item of this label that takes no label's last item from `source`."""
        needed = np.ones(len(sizes), dtype=bool) if source == 0 else sizes >= FEWEST_TEXTS
        for item in order[labels[order, label] & (dealt[order] == source)].tolist():
            if (counts[source] <= 1)[labels[item] & needed].any():
                continue
            put(item, target)
            if source == 0:
                give_back(item, target)
            return

    def put(item: int, target: int) -> None:
        counts[dealt[item]] -= labels[item]
        counts[target] += labels[item]
        dealt[item] = target

    def give_back(item: int, part: int) -> None:
        """Return an item that has only some of this one's labels, which are too many there now."""
        shared = (labels & labels[item]).sum(axis=1)
        spare = (dealt == part) & (shared == labels.sum(axis=1)) & (shared < shared[item])
        spare &= ~(labels & (counts[part] <= 1)).any(axis=1)
        if spare.any():
            places = order[spare[order]]
            put(int(places[shared[places].argmax()]), 0)

    for label in np.argsort(sizes, kind="stable").tolist():
        if not counts[0, label]:
            move(label, int(counts[1:, label].argmax()) + 1, 0)
        for part in range(1, parts + 1):
            if sizes[label] >= FEWEST_TEXTS and not counts[part, label]:
                move(label, int(counts[:, label].argmax()), part)
    return dealt


def first_items(labels: np.ndarray, order: np.ndarray, most: int) -> np.ndarray:
    """`most` of the items, bool [items]: halves are dealt until they are that many.

    If there is room, each label that has `FEWEST_TEXTS` items has one.
    """
    chosen = np.zeros(len(labels), dtype=bool)
    left, rest = most, order
    while left > 0:
        if left >= len(rest):
            chosen[rest] = True
            break
        in_second = deal(labels[rest], np.arange(len(rest)), [0.5, 0.5]).astype(bool)
        first, second = rest[~in_second], rest[in_second]
        if left < len(first):
            rest = first
        else:
            chosen[first] = True
            left, rest = left - len(first), second
    _take_one_of_each_label(labels, order, chosen)
    return chosen


def _take_one_of_each_label(labels: np.ndarray, order: np.ndarray, chosen: np.ndarray) -> None:
    """Exchange items whose labels have others for the first item of each label without one."""
    counts, sizes = labels[chosen].sum(axis=0), labels.sum(axis=0)
    for label in np.argsort(-sizes, kind="stable").tolist():
        if counts[label] or sizes[label] < FEWEST_TEXTS:
            continue
        spare = [item for item in order[chosen[order]].tolist() if (counts[labels[item]] > 1).all()]
        if not spare:
            return
        item = int(order[labels[order, label]][0])
        chosen[item], chosen[spare[-1]] = True, False
        counts += labels[item].astype(counts.dtype) - labels[spare[-1]]
