"""Values for the parameters of a trial, for tests that need some."""

from __future__ import annotations

from kdsweep.config.loading import Scalar
from kdsweep.config.parameters import Parameter


def lowest(parameter: Parameter) -> Scalar:
    """The low end of a range, the first of several choices."""
    if isinstance(parameter.domain, tuple):
        return parameter.domain[0]
    return round(parameter.domain.low) if parameter.whole else parameter.domain.low


def highest(parameter: Parameter) -> Scalar:
    """The high end of a range, the last of several choices."""
    if isinstance(parameter.domain, tuple):
        return parameter.domain[-1]
    return round(parameter.domain.high) if parameter.whole else parameter.domain.high
