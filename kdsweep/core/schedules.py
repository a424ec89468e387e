"""Values that move while a student trains: alpha, temperature and learning rate.

A schedule is a pure function of training progress (optimizer steps done / all steps, 0 <= progress
< 1) and of the epoch (from 0), so a trial that resumes continues the same curve.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, model_validator


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("must be a finite number")
    return number


Number = Annotated[float, AfterValidator(_finite)]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, serialize_by_alias=True)

    def at(self, progress: float, epoch: int) -> float:
        """The value at `progress` (0 to 1) in `epoch` (from 0)."""
        raise NotImplementedError

    def values_taken(self) -> tuple[float, ...]:
        """The values between which the schedule moves; its least and greatest are among them."""
        raise NotImplementedError


class Constant(_Shape):
    """One value throughout."""

    shape: Literal["constant"] = "constant"
    value: Number

    def at(self, progress: float, epoch: int) -> float:
        return self.value

    def values_taken(self) -> tuple[float, ...]:
        return (self.value,)


class Linear(_Shape):
    """A straight line from `start` to `end`."""

    shape: Literal["linear"] = "linear"
    start: Number
    end: Number

    def at(self, progress: float, epoch: int) -> float:
        return self.start + (self.end - self.start) * progress

    def values_taken(self) -> tuple[float, ...]:
        return (self.start, self.end)


class Cosine(_Shape):
    """Half a cosine from `start` to `end`: slow, fast, slow."""

    shape: Literal["cosine"] = "cosine"
    start: Number
    end: Number

    def at(self, progress: float, epoch: int) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2

    def values_taken(self) -> tuple[float, ...]:
        return (self.start, self.end)


class Step(_Shape):
    """`values[i]` until progress `at[i]`, the last value after that.

    `at` may be a single number if there are two values.
    """

    shape: Literal["step"] = "step"
    values: Annotated[tuple[Number, ...], Field(min_length=2, strict=False)]
    # A field can't share its name with the method `at`, so the key `at` has another name here.
    boundaries: Annotated[tuple[Number, ...], Field(alias="at", strict=False)]

    @model_validator(mode="before")
    @classmethod
    def _one_boundary(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("at"), int | float):
            return data | {"at": (data["at"],)}
        return data

    @model_validator(mode="after")
    def _ordered(self) -> Step:
        if len(self.boundaries) != len(self.values) - 1:
            raise ValueError(
                f"{len(self.values)} values need {len(self.values) - 1} numbers in 'at', not "
                f"{len(self.boundaries)}"
            )
        if any(not 0 < boundary < 1 for boundary in self.boundaries):
            raise ValueError("'at' must lie between 0 and 1: it is a share of the training")
        if any(
            later <= earlier
            for earlier, later in zip(self.boundaries, self.boundaries[1:], strict=False)
        ):
            raise ValueError("the numbers in 'at' must rise")
        return self

    def at(self, progress: float, epoch: int) -> float:
        return self.values[sum(progress >= boundary for boundary in self.boundaries)]

    def values_taken(self) -> tuple[float, ...]:
        return self.values


class PerEpoch(_Shape):
    """`values[epoch]`, and `after` (or the last value) past the end of the list."""

    shape: Literal["per_epoch"] = "per_epoch"
    values: Annotated[tuple[Number, ...], Field(min_length=1, strict=False)]
    after: Number | None = None

    def at(self, progress: float, epoch: int) -> float:
        if epoch < len(self.values):
            return self.values[epoch]
        return self.values[-1] if self.after is None else self.after

    def values_taken(self) -> tuple[float, ...]:
        return self.values if self.after is None else (*self.values, self.after)


def _number_is_constant(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"shape": "constant", "value": value}
    return value


SHAPES: dict[str, type[_Shape]] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "step": Step,
    "per_epoch": PerEpoch,
}

Schedule = Constant | Linear | Cosine | Step | PerEpoch

_adapter: TypeAdapter[Schedule] = TypeAdapter(Annotated[Schedule, Field(discriminator="shape")])


def parse_schedule(value: Any) -> Schedule:
    """A schedule from a number, a mapping with `shape`, or a schedule.

    >>> schedule = parse_schedule({"shape": "per_epoch", "values": [0.7, 0.5, 0.3], "after": 0.2})
    >>> schedule.at(progress=0.9, epoch=4)
    0.2

    Raises ValueError (pydantic's ValidationError is one) for anything else.
    """
    return _adapter.validate_python(_number_is_constant(value))
