"""A teacher as `sweep.json` keeps it. Imports no torch."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, JsonValue


class TeacherRecord(BaseModel):
    """A teacher as `sweep.json` keeps it. Keys that a newer version wrote are kept.

    validation, test: metric -> value; `test` is None until the teacher is judged. selected: the
    task's metric on validation by seed, where the teacher is the best of several seeds; None for a
    seed that learned nothing.
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

    @classmethod
    def from_json(cls, data: object) -> Self:
        return cls.model_validate(data)

    def to_json(self) -> dict[str, JsonValue]:
        return self.model_dump(mode="json")
