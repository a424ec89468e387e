"""What a student learns from its teacher: settings of the logits' term and of inner states."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, model_validator

from kdsweep.core.objective.divergences import DEFAULT
from kdsweep.core.schedules import Schedule, parse_schedule
from kdsweep.core.strict_model import DivergenceName, LayerNumbers, Strict, added_later

# What a schedule of each name may reach: its least and greatest value, whether the least itself is
# allowed, and the rule in words.
BOUNDS: dict[str, tuple[float, float, bool, str]] = {
    "alpha": (0.0, 1.0, True, "alpha must be between 0 and 1"),
    "temperature": (0.0, float("inf"), False, "temperature must be above 0"),
    "learning_rate": (0.0, float("inf"), True, "learning_rate must not be below 0"),
    "weight": (0.0, float("inf"), True, "a weight must not be below 0"),
}


def outside_bounds(name: str, number: float) -> str | None:
    """The rule that `number` breaks, in words; None if it breaks none.

    name: alpha, temperature, learning_rate or weight.
    """
    least, greatest, inclusive, rule = BOUNDS[name]
    is_above = number >= least if inclusive else number > least
    return None if is_above and number <= greatest else f"{rule}, not {number:g}"


# A type that is made by a call: type checkers can't follow it, so it is Any to them.
def bounded_schedule(name: str) -> Any:
    """The type of a schedule whose values keep the bounds of `name`."""

    def check(schedule: Schedule) -> Schedule:
        for number in schedule.values_taken():
            if broken := outside_bounds(name, number):
                raise ValueError(broken)
        return schedule

    return Annotated[Schedule, BeforeValidator(parse_schedule), AfterValidator(check)]


# Why terms of inner states and a first teacher with `folds` don't go together.
STATES_OF_FOLDS = (
    "terms of inner states run the teacher of all rows, which was trained on each row, so "
    "teacher.folds can't be had; match logits alone, or leave 'folds' out"
)

# Which of the teacher's layers each of the student's learns from: evenly spread, the first ones,
# the last ones, or those listed, one for each of the student's.
LayerMap = Literal["even", "first", "last"] | LayerNumbers


class HiddenTerm(Strict):
    """The hidden states after each layer of the student.

    Mean squared error to the teacher's, through a learned projection.
    """

    weight: bounded_schedule("weight")  # type: ignore[valid-type]
    layers: LayerMap = "even"


class AttentionTerm(Strict):
    """Where the student looks.

    match: `maps` compares the attention probabilities of each layer; `values` compares how the
    values of the last layer relate to each other.
    """

    weight: bounded_schedule("weight")  # type: ignore[valid-type]
    match: Literal["maps", "values"] = "maps"
    layers: LayerMap = "even"

    @model_validator(mode="after")
    def _last_layer_alone(self) -> AttentionTerm:
        if self.match == "values" and self.layers != "even":
            raise ValueError("match: values compares the last layers alone; leave 'layers' out")
        return self


class CosineTerm(Strict):
    """The direction of the last hidden state of each token."""

    weight: bounded_schedule("weight")  # type: ignore[valid-type]


class DistillSettings(Strict):
    """What the student learns from the teacher: its logits, and any of its inner states.

    logits: the divergence. The default stands for the default of the task's kind
    (`TrialSettings.divergence`).
    temperature_follows: `confidence` lowers the temperature for rows that the teacher doubts.
    combine: what several teachers are weighed by in each row, on top of their own weights: nothing,
    the probability that each gives to the row's label, or how sure each is.
    """

    logits: DivergenceName = DEFAULT
    temperature_follows: Literal["nothing", "confidence"] = "nothing"
    combine: Literal["weights", "label_confidence", "certainty"] = added_later("weights")
    hidden: HiddenTerm | None = None
    attention: AttentionTerm | None = None
    cosine: CosineTerm | None = None

    @property
    def online(self) -> dict[str, HiddenTerm | AttentionTerm | CosineTerm]:
        """The terms of inner states, by name: they run the teacher in each step."""
        found = {"hidden": self.hidden, "attention": self.attention, "cosine": self.cosine}
        return {
            name: term
            for name, term in found.items()
            if term is not None and max(term.weight.values_taken()) > 0
        }
