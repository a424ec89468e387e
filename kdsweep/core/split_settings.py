"""What a task says of its splits: their names, how many rows they keep, and folds of train."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from kdsweep.core.strict_model import Name, Strict, Text, added_later, one_or_more

SPLITS = ("train", "validation", "test")


class Limit(Strict):
    """The most rows that a split keeps, of each label in its share."""

    train: Annotated[int, Field(ge=1)] | None = None
    validation: Annotated[int, Field(ge=1)] | None = None
    test: Annotated[int, Field(ge=1)] | None = None


class SplitNames(Strict):
    """What the dataset calls its splits. A split that isn't named is held out of train.

    more_tests: splits that students are judged on in addition to test.
    """

    train: Text = "train"
    validation: Text | None = None
    test: Text | None = None
    more_tests: Annotated[tuple[Name, ...], BeforeValidator(one_or_more)] = added_later(())

    @model_validator(mode="after")
    def _other_names(self) -> SplitNames:
        for i, name in enumerate(self.more_tests):
            if name in (*SPLITS, *self.more_tests[:i]):
                raise ValueError(
                    f"more_tests: {name!r} is the name of another split; each of more_tests needs "
                    "a name of its own"
                )
        return self

    @property
    def named(self) -> dict[str, str]:
        """kdsweep's name of a split -> the dataset's."""
        roles = {name: value for name in SPLITS if (value := getattr(self, name)) is not None}
        return roles | {name: name for name in self.more_tests}


class Fold(Strict):
    """One of `of` parts of train, counted from 0 (`kdsweep.core.data.splits`)."""

    fold: Annotated[int, Field(ge=0)]
    of: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _one_of_them(self) -> Fold:
        if self.fold >= self.of:
            raise ValueError(f"fold ({self.fold}) counts from 0 and must be below of ({self.of})")
        return self
