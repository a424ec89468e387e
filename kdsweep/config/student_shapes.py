"""Which shapes the students of a space may have, as far as they can be listed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kdsweep.config.loading import Scalar
from kdsweep.config.parameters import Parameter
from kdsweep.config.space import SearchSpace
from kdsweep.config.values import Range
from kdsweep.core.evaluation.latency_figures import ModelShape

MOST_SHAPES = 24
MOST_TRIED = 1000
MOST_POINTS = 100


def shapes_of_students(space: SearchSpace) -> tuple[ModelShape, ...]:
    """Every shape that a trial of any strategy may have; none where there are too many."""
    found: dict[ModelShape, None] = {}
    for strategy in space.strategies:
        for shape in _of_strategy(space, strategy):
            found[shape] = None
            if len(found) > MOST_SHAPES:
                return ()
    return tuple(found)


def _of_strategy(space: SearchSpace, strategy: str) -> Iterator[ModelShape]:
    """Settles one trial after another, until each parameter of the shape had each of its values."""
    answers = _Answers()
    for _ in range(MOST_TRIED):
        answers.start_again()
        # Values that don't go together are an error here and in the trial that draws them.
        with contextlib.suppress(ValueError):
            yield ModelShape.of_student(space.settle(strategy, answers, seed=0))
        if not answers.advance():
            return


class _Answers:
    """Answers a space's questions, each time with other values.

    The numbers of the chosen values are counted up like an odometer. Which questions are asked may
    depend on the answers before.
    """

    def __init__(self) -> None:
        self._chosen: list[int] = []
        self._possible: list[int] = []

    def __call__(self, parameter: Parameter) -> Scalar:
        points = _points(parameter)
        number = len(self._possible)
        self._possible.append(len(points))
        if number == len(self._chosen):
            self._chosen.append(0)
        return points[self._chosen[number]]

    def start_again(self) -> None:
        self._possible = []

    def advance(self) -> bool:
        """Choose the next values; False if there are none."""
        while self._chosen and self._chosen[-1] + 1 >= self._possible[len(self._chosen) - 1]:
            self._chosen.pop()
        if not self._chosen:
            return False
        self._chosen[-1] += 1
        return True


def _points(parameter: Parameter) -> list[Scalar]:
    """All values of a parameter that shapes the student, and one of any other."""
    domain = parameter.domain
    shapes = parameter.name == "max_length" or parameter.name.startswith("student.")
    if isinstance(domain, Range):
        count = parameter.count()
        if shapes and count is not None and count <= MOST_POINTS:
            return parameter.points() or []
        return [round(domain.low) if parameter.whole else domain.low]
    return list(domain) if shapes else [domain[0]]
