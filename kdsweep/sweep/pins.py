"""What a sweep's stored numbers rest on, by content: the rows of each split, and the models.

They are in `sweep.json` from the sweep's start on. `input_check` compares them with what is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class RowsPin:
    """The rows of a split.

    key: a hash of texts, labels and order. rows: how many. texts: a hash of the texts in their
    order. unordered: of texts and labels in any order. Version 0.1.0 kept the key alone.
    """

    key: str
    rows: int | None = None
    texts: str | None = None
    unordered: str | None = None

    def difference(self, now: RowsPin | None) -> str | None:
        """How these rows differ from those that are there now, in words; None if they don't."""
        if now is None:
            return "gone"
        if now.key == self.key:
            return None
        if self.rows is None:
            return "other rows"
        if self.rows != now.rows:
            return f"{self.rows:,} rows, now {now.rows:,}"
        if self.unordered == now.unordered:
            return "the same rows in another order"
        if self.texts == now.texts:
            return "other labels"
        return f"{self.rows:,} rows, not the same ones"


@dataclass(frozen=True)
class ModelPin:
    """A model. files: the content hash of each (see `model_files`). stamps: when and how large they
    were, so that unchanged ones needn't be read. trust_remote_code: whether its code is one of
    them.
    """

    files: Mapping[str, str]
    stamps: str | None = None
    trust_remote_code: bool = False

    def difference(self, now: Mapping[str, str]) -> list[str]:
        """The files that are others now; a commit that isn't known is no difference."""
        if not self.files or not now:
            return []
        names = sorted({*self.files, *now})
        return [name for name in names if self.files.get(name) != now.get(name)]


@dataclass(frozen=True)
class Pins:
    """label_names: of the task; None where they weren't kept. models: by source."""

    splits: Mapping[str, RowsPin] = field(default_factory=dict)
    label_names: tuple[str, ...] | None = None
    models: Mapping[str, ModelPin] = field(default_factory=dict)

    @classmethod
    def from_json(cls, found: dict[str, Any], keys: Mapping[str, str]) -> Self:
        """What `to_json` wrote. keys: of splits, which `sweep.json` has had since version 0.1.0."""
        splits = found.get("splits", {})
        names = found.get("label_names")
        return cls(
            {name: RowsPin(key, **splits.get(name, {})) for name, key in keys.items()},
            None if names is None else tuple(names),
            {source: ModelPin(**one) for source, one in found.get("models", {}).items()},
        )

    def to_json(self) -> dict[str, object]:
        """Without the keys of splits, which have a place of their own."""
        splits = {
            name: {"rows": one.rows, "texts": one.texts, "unordered": one.unordered}
            for name, one in self.splits.items()
            if one.rows is not None
        }
        names = None if self.label_names is None else list(self.label_names)
        models = {source: asdict(one) for source, one in self.models.items()}
        return {"splits": splits, "label_names": names, "models": models}
