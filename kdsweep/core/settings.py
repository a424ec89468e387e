"""What one trial runs with: settled values, frozen and plain, JSON both ways. No torch here."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from kdsweep.core.schedules import Constant, Number, Schedule, parse_schedule
from kdsweep.errors import did_you_mean

SPLITS = ("train", "validation", "test")
Metric = Literal["accuracy", "f1", "f1_macro", "matthews"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


class Strict(BaseModel):
    """Frozen, every key known, no type guessed: `epochs: "3"` is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, serialize_by_alias=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in known:
                    raise unknown_key(key, known)
        return data


def unknown_key(key: Any, known: list[str]) -> PydanticCustomError:
    hint = did_you_mean(key, known) or f"; known here: {', '.join(known)}"
    return PydanticCustomError("unknown_key", "unknown key {key}{hint}", {"key": repr(key), "hint": hint, "name": str(key)})


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value) or ".." in value:
        raise ValueError("a name is 1 to 100 letters, digits, '-', '_' and single '.', and starts with a letter or digit")
    return value


Name = Annotated[str, AfterValidator(_name)]


def _text(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise ValueError("must not be empty")
    return value


Text = Annotated[str, AfterValidator(_text)]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _one_or_two(value: Any) -> Any:
    return (value,) if isinstance(value, str) else _as_tuple(value)


class Limit(Strict):
    """At most so many rows of a split, chosen by hash."""

    train: Annotated[int, Field(ge=1)] | None = None
    validation: Annotated[int, Field(ge=1)] | None = None
    test: Annotated[int, Field(ge=1)] | None = None


class SplitNames(Strict):
    """What the dataset calls its splits. One that isn't named is held out of train."""

    train: Text = "train"
    validation: Text | None = None
    test: Text | None = None


class TaskSettings(Strict):
    """A dataset, its text column(s), label column and metric."""

    dataset: Text | dict[Literal["train", "validation", "test"], Text]
    subset: Text | None = None
    revision: Text | None = None
    where: dict[Text, str | int | float | bool] = {}
    text: Annotated[tuple[Text, ...], BeforeValidator(_one_or_two), Field(min_length=1, max_length=2)]
    label: Text
    labels: Annotated[tuple[Text, ...], BeforeValidator(_as_tuple), Field(min_length=2)] | None = None
    splits: SplitNames = SplitNames()
    holdout: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    limit: Limit = Limit()
    metric: Metric = "accuracy"


class TrainingSettings(Strict):
    """How long and how a model is trained; the same for every strategy unless the space says otherwise."""

    epochs: Annotated[int, Field(ge=1)] = 3
    batch_size: Annotated[int, Field(ge=1)] = 32
    accumulation_steps: Annotated[int, Field(ge=1)] = 1
    max_length: Annotated[int, Field(ge=4)] = 128
    evaluations_per_epoch: Annotated[int, Field(ge=1)] = 2
    weight_decay: Annotated[Number, Field(ge=0)] = 0.01
    warmup: Annotated[Number, Field(ge=0, lt=1)] = 0.1
    scheduler: Literal["linear", "cosine", "constant"] = "linear"
    gradient_clip: Annotated[Number, Field(gt=0)] | None = 1.0
    precision: Precision = "auto"


class TeacherTraining(TrainingSettings):
    """How the teacher is fine-tuned on the task."""

    learning_rate: Annotated[Number, Field(gt=0)] = 2.0e-5
    seed: Annotated[int, Field(ge=0)] = 0


class TeacherSettings(Strict):
    """A model to fine-tune first, or the folder of one that is fine-tuned already (`checkpoint`)."""

    model: Text | None = None
    checkpoint: Text | None = None
    labels: Annotated[tuple[Text, ...], BeforeValidator(_as_tuple), Field(min_length=2)] | None = None
    trust_remote_code: bool = False
    training: TeacherTraining = TeacherTraining()

    @model_validator(mode="after")
    def _one_source(self) -> TeacherSettings:
        if (self.model is None) == (self.checkpoint is None):
            raise ValueError("a teacher needs either 'model' (to fine-tune first) or 'checkpoint' (fine-tuned already)")
        if self.labels is not None and self.checkpoint is None:
            raise ValueError("'labels' names the outputs of a 'checkpoint', in its order; a 'model' to fine-tune has none")
        return self


class StudentSettings(Strict):
    """The small model. `model: teacher` takes it from the fine-tuned teacher; `layers` keeps so many, evenly spaced."""

    model: Text
    layers: Annotated[int, Field(ge=1)] | None = None
    trust_remote_code: bool = False


# What a schedule of each kind may reach: (least, greatest, whether the least itself is allowed, the rule in words).
BOUNDS: dict[str, tuple[float, float, bool, str]] = {
    "alpha": (0.0, 1.0, True, "alpha must be between 0 and 1"),
    "temperature": (0.0, float("inf"), False, "temperature must be above 0"),
    "learning_rate": (0.0, float("inf"), True, "learning_rate must not be below 0"),
}


def outside_bounds(name: str, number: float) -> str | None:
    """The rule that `number` breaks as a value of alpha, temperature or learning rate, in words; None where it breaks none."""
    least, greatest, inclusive, rule = BOUNDS[name]
    inside = number <= greatest and (number >= least if inclusive else number > least)
    return None if inside else f"{rule}, not {number:g}"


def _schedule(name: str) -> Any:
    def check(schedule: Schedule) -> Schedule:
        for number in schedule.values_taken():
            if broken := outside_bounds(name, number):
                raise ValueError(broken)
        return schedule

    return Annotated[Schedule, BeforeValidator(lambda value: parse_schedule(value)), AfterValidator(check)]


class TrialSettings(Strict):
    """One student training with settled values. `model_dump_json` and `model_validate_json` are each other's inverse.

    judge_test: the student is judged on the test split too, once, at the end.
    """

    task: TaskSettings
    teacher: TeacherSettings | None = None
    student: StudentSettings
    training: TrainingSettings = TrainingSettings()
    alpha: _schedule("alpha")  # type: ignore[valid-type]
    temperature: _schedule("temperature") = Constant(value=1.0)  # type: ignore[valid-type]
    learning_rate: _schedule("learning_rate")  # type: ignore[valid-type]
    seed: Annotated[int, Field(ge=0)] = 0
    judge_test: bool = Field(default=False, exclude_if=lambda value: not value)

    @model_validator(mode="after")
    def _teacher_where_needed(self) -> TrialSettings:
        if self.teacher is None and self.needs_teacher:
            raise ValueError("an alpha below 1, or a student with 'model: teacher', needs a teacher")
        return self

    @property
    def needs_logits(self) -> bool:
        """Whether any step weighs the teacher."""
        return min(self.alpha.values_taken()) < 1

    @property
    def needs_teacher(self) -> bool:
        return self.needs_logits or self.student.model == "teacher"
