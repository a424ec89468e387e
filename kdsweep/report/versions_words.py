"""Which versions trained the trials of a sweep, and in which precision, in words."""

from __future__ import annotations

from collections.abc import Iterable

from kdsweep.core.versions import PACKAGES, Versions, of_package
from kdsweep.formatting import count, joined
from kdsweep.report.model import Report


def versions_in_words(report: Report) -> list[tuple[str, str]]:
    """(title, words): the precision, and versions where the trials were trained by several."""
    found = [] if report.precision is None else [("Precision", _of_training(report.precision))]
    return found + _versions(report)


def _of_training(precision: str) -> str:
    if precision == "fp32":
        return precision
    return f"{precision} in training; fp32 on the test split, and for latency and exported models"


def _versions(report: Report) -> list[tuple[str, str]]:
    groups = report.reproduce.trained_by if report.reproduce else ()
    every = [version for group in groups for version in group.versions]
    differing = [name for name in PACKAGES if len(set(of_package(name, every))) > 1]
    if not differing:
        return []
    # Groups that differ in what isn't shown are one.
    numbers: dict[str, tuple[int, int, int]] = {}
    for group in groups:
        words = _named(group.versions, differing)
        trials, finalists, runs = numbers.get(words, (0, 0, 0))
        numbers[words] = (
            trials + group.trials,
            finalists + group.finalist_runs,
            runs + group.confirm_runs,
        )
    said = [f"{_counted(*found)} by {words}" for words, found in numbers.items()]
    return [("Versions", "; ".join(said))]


def _named(versions: Iterable[Versions], packages: Iterable[str]) -> str:
    """`kdsweep 0.1.0, then 0.2.0 with torch 2.13.0`."""
    own = list(versions)
    named = [(name, of_package(name, own)) for name in packages]
    return " with ".join(f"{name} {', then '.join(found)}" for name, found in named if found)


def _counted(trials: int, finalists: int, runs: int) -> str:
    said = []
    if trials:
        said.append(count(trials, "trial"))
    if finalists:
        said.append(f"{count(finalists, 'run')} of finalists")
    if runs:
        said.append(f"{count(runs, 'run')} of confirm")
    return joined(said)
