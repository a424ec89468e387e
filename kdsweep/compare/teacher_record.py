"""A teacher as `sweep.json` keeps it. Imports no torch."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, JsonValue

from kdsweep.formatting import duration


class TeacherRecord(BaseModel):
    """A teacher as `sweep.json` keeps it. Keys that a newer version wrote are kept.

    validation, test: metric -> value; `test` is None until the teacher is judged. selected: the
    task's metric on validation by seed, where the teacher is the best of several seeds; None for a
    seed that learned nothing. seconds: what its fine-tuning took, with all its seeds and folds; 0
    for a checkpoint. from_cache: whether it was there before the sweep. keys: what it and the
    teachers of its folds are called in the cache. All three are None if an earlier version recorded
    the teacher.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    validation: dict[str, float]
    parameters: int | float | None = None
    size_mb: float | None = None
    latency_ms: float | None = None
    latency_p95_ms: float | None = None
    test: dict[str, float] | None = None
    name: str = "teacher"
    selected: dict[str, float | None] | None = None
    seconds: float | None = None
    from_cache: bool | None = None
    keys: tuple[str, ...] | None = None

    @property
    def origin_in_words(self) -> str:
        """Where the teacher came from, unless this sweep fine-tuned it."""
        if self.seconds == 0:
            return "which is a checkpoint that was fine-tuned elsewhere"
        if not self.from_cache:
            return ""
        if self.seconds is None:
            return "which came from the cache"
        return f"which came from the cache; its fine-tuning had taken {duration(self.seconds)}"

    @classmethod
    def from_json(cls, data: object) -> Self:
        return cls.model_validate(data)

    def to_json(self) -> dict[str, JsonValue]:
        return self.model_dump(mode="json")
