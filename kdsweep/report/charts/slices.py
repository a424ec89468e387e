"""Any searched parameter against the result: one figure, and a choice of what its x is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from kdsweep.formatting import MISSING, count
from kdsweep.report.charts.against import below_the_frame, layout_against, points_against
from kdsweep.report.charts.figures import Chart, Choice, Panel, Row, axis_of, shown
from kdsweep.report.charts.material import Material, Reached
from kdsweep.report.charts.schedules import ALPHA_ENDS
from kdsweep.report.schedules import mean_over_training, peak_rate, weighs_teacher

FACTOR_FOR_LOG = 30  # the largest value over the smallest
MOST_LETTERS = 40

# Parameter -> what a trial has; None where the trial doesn't have it.
Values = Mapping[str, Sequence[JsonValue]]


def slice_chart(material: Material) -> Chart | None:
    trials = [one for name in material.looks for one in material.complete if one.strategy == name]
    values = {
        name: found for name, found in _values(material, trials).items() if _distinct(found) > 1
    }
    if not values:
        return None
    strategies = [name for name in material.looks if any(one.strategy == name for one in trials)]
    choices = tuple(_choice(name, found, trials, strategies) for name, found in values.items())
    data = points_against(material, trials, lambda one: 0.0)
    for trace, x in zip(data, choices[0].x, strict=True):
        trace |= {"x": x, "hovertemplate": "%{text}<br>at %{x}"}
    layout = layout_against(material, trials, choices[0].axis)
    return Chart(
        "slice",
        "Any parameter against the result",
        f"{count(len(trials), 'complete trial')}. Choose one of "
        f"{count(len(choices), 'parameter')}; the first has the largest share in how trials "
        "differ, as far as that is known. Trials that don't have a parameter are left out of its "
        f"view.{below_the_frame(material, trials)}",
        (Panel("", data, layout, choices=choices),),
        ("parameter", "values tried", "lowest or first", "highest or last", "of the best trial"),
        tuple(_row(name, found, trials) for name, found in values.items()),
    )


def _values(material: Material, trials: Sequence[Reached]) -> dict[str, list[JsonValue]]:
    """Those with the largest share in how trials differ first."""
    shares: dict[str, float] = {}
    for found in material.report.importance.values():
        for name, share in (found or {}).items():
            shares[name] = shares.get(name, 0.0) + share
    drawn = dict.fromkeys(name for one in trials for name in one.trial.params)
    values: dict[str, list[JsonValue]] = {
        name: [one.trial.params.get(name) for one in trials]
        for name in sorted(drawn, key=lambda name: -shares.get(name, 0.0))
    }
    settings = [one.trial.settings for one in trials]
    values["mean alpha over training"] = [mean_over_training(one, "alpha") for one in settings]
    values["mean temperature over training"] = [
        mean_over_training(one, "temperature") if weighs_teacher(one) else None for one in settings
    ]
    values["highest learning rate"] = [peak_rate(one) for one in settings]
    return values


def _distinct(values: Sequence[JsonValue]) -> int:
    return len({str(one) for one in values if one is not None})


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _choice(
    name: str,
    values: Sequence[JsonValue],
    trials: Sequence[Reached],
    strategies: Sequence[str],
) -> Choice:
    known = [one for one in values if one is not None]
    numbers = [float(one) for one in known if isinstance(one, int | float) and _is_number(one)]
    title = shown(name)
    if name.split(".")[0] == "alpha" or name.startswith("mean alpha"):
        title += f" ({ALPHA_ENDS})"
    drawn: list[float | str | None]
    if len(numbers) == len(known):
        drawn = [None if one is None else float(f"{float(str(one)):.5g}") for one in values]
        wide = min(numbers) > 0 and max(numbers) / min(numbers) >= FACTOR_FOR_LOG
        axis = axis_of(title, type="log" if wide else "linear")
    else:
        drawn = [None if one is None else shown(str(one)[:MOST_LETTERS]) for one in values]
        order = sorted({one for one in drawn if isinstance(one, str)})
        axis = axis_of(title, type="category", categoryorder="array", categoryarray=order)
    x = tuple(
        [its for its, one in zip(drawn, trials, strict=True) if one.strategy == strategy]
        for strategy in strategies
    )
    return Choice(name, x, axis)


def _row(name: str, values: Sequence[JsonValue], trials: Sequence[Reached]) -> Row:
    known = [one for one in values if one is not None]
    if all(map(_is_number, known)):
        ordered = [_words(one) for one in sorted(known, key=lambda one: float(str(one)))]
    else:
        ordered = sorted(map(_words, known))
    best = max(range(len(trials)), key=lambda at: trials[at].value)
    return name, str(_distinct(values)), ordered[0], ordered[-1], _words(values[best])


def _words(value: JsonValue) -> str:
    if value is None:
        return MISSING
    return f"{value:.3g}" if isinstance(value, float) else str(value)[:MOST_LETTERS]
