"""The search space: WHAT one trial may be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, create_model

from kdsweep.config.loading import Document, Path_, dotted, read_document, rule, show, split_assignment, split_path, validate
from kdsweep.config.values import (
    NotAdmitted,
    Parameter,
    Range,
    Suggest,
    Value,
    admit,
    count_points,
    crossing_boundaries,
    each_number,
    extremes,
    parameters,
    settle,
)
from kdsweep.core.schedules import parse_schedule
from kdsweep.core.settings import BOUNDS, Name, Strict, StudentSettings, TaskSettings, TeacherSettings, TrainingSettings, TrialSettings, outside_bounds
from kdsweep.errors import did_you_mean

STAND_INS = ("task", "teacher", "student", "training", "strategies")  # what `embedded` may replace, whole or a part of it
SCHEDULED = tuple(BOUNDS)  # alpha, temperature, learning_rate

# The fields of the trial's settings, each of which a space gives as a value of the grammar.
_training_fields: dict[str, Any] = dict.fromkeys(("learning_rate", *TrainingSettings.model_fields), (Value, None))
TrainingValues: type[Any] = create_model("TrainingValues", __base__=Strict, **_training_fields)


class StudentValues(Strict):
    """StudentSettings, its fields values of the grammar."""

    model: Value
    layers: Value = None
    trust_remote_code: bool = False


class Strategy(TrainingValues):
    """A named space of schedules. Keys of `training` may stand here too and then hold for this strategy alone."""

    alpha: Value
    temperature: Value = 1.0
    start_with: Annotated[tuple[dict[str, Any], ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)] = ()


class SearchSpace(Strict):
    """Task, teacher, student, fixed training settings, and the strategies to search."""

    name: Name
    task: TaskSettings
    teacher: TeacherSettings | None = None
    student: StudentValues
    training: TrainingValues = TrainingValues()
    strategies: Annotated[dict[Name, Strategy], Field(min_length=1)]
    embedded: bool = Field(default=False, exclude=True)

    def values(self, strategy: str) -> dict[str, Value]:
        """name -> value for everything that a trial of this strategy is asked about, in order."""
        chosen = self.strategies[strategy]
        training = {name: getattr(self.training, name) for name in self.training.model_fields_set}
        training |= {name: getattr(chosen, name) for name in chosen.model_fields_set - {"alpha", "temperature", "start_with"}}
        student = {f"student.{name}": getattr(self.student, name) for name in ("model", "layers") if name in self.student.model_fields_set}
        first = {"alpha": chosen.alpha, "temperature": chosen.temperature, "learning_rate": training.pop("learning_rate", None)}
        return first | student | {name: training[name] for name in TrainingSettings.model_fields if name in training}

    def parameters(self, strategy: str) -> list[Parameter]:
        """The dimensions of the strategy's study."""
        return [found for name, value in self.values(strategy).items() for found in parameters(value, name, whole=is_whole(name))]

    def count_points(self, strategy: str) -> int | None:
        """How many different trials the strategy has, or None where there is no end of them."""
        total = 1
        for name, value in self.values(strategy).items():
            count = count_points(value, name, whole=is_whole(name))
            if count is None:
                return None
            total *= count
        return total

    def settle(self, strategy: str, suggest: Suggest, seed: int) -> TrialSettings:
        """One trial of the strategy, with each parameter as `suggest` says."""
        settled = {name: settle(value, name, suggest, whole=is_whole(name)) for name, value in self.values(strategy).items()}
        return self.trial(settled, seed)

    def trial(self, settled: dict[str, Any], seed: int) -> TrialSettings:
        student = {name.removeprefix("student."): value for name, value in settled.items() if name.startswith("student.")}
        training = {name: value for name, value in settled.items() if name in TrainingSettings.model_fields}
        schedules = {name: parse_schedule(settled[name]) for name in SCHEDULED}
        needs_teacher = min(schedules["alpha"].values_taken()) < 1 or student["model"] == "teacher"
        return TrialSettings(
            task=self.task,
            teacher=self.teacher if needs_teacher else None,
            student=StudentSettings(**student, trust_remote_code=self.student.trust_remote_code),
            training=TrainingSettings(**training),
            seed=seed,
            alpha=schedules["alpha"],
            temperature=schedules["temperature"],
            learning_rate=schedules["learning_rate"],
        )

    def first_trials(self, strategy: str) -> list[dict[str, Any]]:
        """The parameters of each `start_with` entry; what an entry leaves open is for the sampler."""
        return [self._admit(strategy, entry) for entry in self.strategies[strategy].start_with]

    def _admit(self, strategy: str, entry: dict[str, Any]) -> dict[str, Any]:
        values, known = self.values(strategy), {parameter.name: parameter for parameter in self.parameters(strategy)}
        found: dict[str, Any] = {}
        for name, settled in entry.items():
            if name in values:
                found |= admit(values[name], settled, name, whole=is_whole(name))
            elif name in known:
                domain = known[name].domain
                found |= admit(domain, settled, name) if not isinstance(domain, tuple) else {name: settled}
                if isinstance(domain, tuple) and settled not in domain:
                    raise NotAdmitted(f"{name}: {settled!r} is none of {', '.join(map(str, domain))}")
            else:
                raise NotAdmitted(f"unknown key {name!r}{did_you_mean(name, [*values, *known])}")
        return found

    @property
    def needs_teacher(self) -> bool:
        """Whether any trial can need the teacher."""
        return any(self.may_need_teacher(strategy) for strategy in self.strategies)

    def may_need_teacher(self, strategy: str) -> bool:
        """Whether a trial of the strategy can need the teacher."""
        student_from_teacher = any(model == "teacher" for _, model in each_number(self.student.model))
        return student_from_teacher or any(number < 1 for _, number in each_number(self.strategies[strategy].alpha))

    def resolved(self, document_data: dict[str, Any]) -> dict[str, Any]:
        """What decides on the trials, written out: a space that loads to the same trials wherever it lies."""
        out: dict[str, Any] = {"name": self.name, "task": self.task.model_dump(mode="json", exclude_none=True)}
        if self.teacher is not None:
            out["teacher"] = self.teacher.model_dump(mode="json", exclude_none=True)
        training = TrainingSettings().model_dump(mode="json") | document_data.get("training", {})
        return out | {"student": document_data["student"], "training": training, "strategies": document_data["strategies"]}


def is_whole(name: str) -> bool:
    """Whether the setting of that name is a whole number."""
    if name == "student.layers":
        return True
    field = TrainingSettings.model_fields.get(name)
    return field is not None and field.annotation is int


def space_document(path: Path | str, *, embedded: bool = False) -> Document:
    """A space file as data, with its `embedded` sections in place where asked for."""
    document = read_document(path)
    stand_ins = document.take_out("embedded")
    if embedded:
        if stand_ins is None:
            raise document.error((), "has no 'embedded' section, so it can't run with --embedded; add one (task, teacher, student that come as packages)")
        for key in stand_ins.data:
            keys = split_path(key)
            if keys[0] not in STAND_INS:
                raise stand_ins.error((key,), f"embedded: unknown key {key!r}{did_you_mean(key, STAND_INS) or '; known here: ' + ', '.join(STAND_INS)}")
            places = {inner[1:]: place for inner, place in stand_ins.places.items() if inner[:1] == (key,)}
            document.replace(keys, stand_ins.data[key], places)
    return document


def build_space(document: Document, *, embedded: bool = False) -> SearchSpace:
    """The document as a checked SearchSpace. Raises SpaceError with file, line, rule and value."""
    if "embedded" in document.data:
        raise document.error(("embedded",), "'embedded' can't be set: use --embedded to take the sections of the space's 'embedded'")
    _anchor_paths(document)
    space = validate(SearchSpace, document)
    _check(space, document)
    return space.model_copy(update={"embedded": embedded, "teacher": _reading_as_much(space)})


def _reading_as_much(space: SearchSpace) -> TeacherSettings | None:
    """The teacher, which reads as much of a text as the student unless told otherwise."""
    teacher, length = space.teacher, getattr(space.training, "max_length", None)
    if teacher is None or "max_length" in teacher.training.model_fields_set or not isinstance(length, int):
        return teacher
    return teacher.model_copy(update={"training": teacher.training.model_copy(update={"max_length": length})})


def load_space(path: Path | str, *, embedded: bool = False, assignments: list[str] | tuple[str, ...] = ()) -> SearchSpace:
    """A search space from its file; `assignments` are `key.path=value` texts that override it.

    Raises SpaceError with file and line.
    """
    document = space_document(path, embedded=embedded)
    for text in assignments:
        document.replace(*split_assignment(text))
    return build_space(document, embedded=embedded)


def _anchor_paths(document: Document) -> None:
    """A relative path is meant from the folder of the space file; what isn't there stays as it is (another folder, or the Hub)."""
    folder = Path(document.file).parent

    def anchor(value: Any) -> Any:
        if isinstance(value, str) and value not in ("", "teacher") and "\0" not in value and not value.startswith(("package://", "/")) and len(value) < 4096:
            try:
                return str((folder / value).resolve()) if (folder / value).exists() else value
            except OSError:
                return value
        if isinstance(value, dict):
            return {key: anchor(inner) for key, inner in value.items()}
        return [anchor(inner) for inner in value] if isinstance(value, list) else value

    for section, keys in (("task", ("dataset",)), ("teacher", ("model", "checkpoint")), ("student", ("model",))):
        part = document.data.get(section)
        if isinstance(part, dict):
            for key in keys:
                if key in part:
                    part[key] = anchor(part[key])


# --- rules that no single key can keep -------------------------------------------------------------------------------


def _check(space: SearchSpace, document: Document) -> None:
    for key, value in _given(space.training):
        _check_value(document, ("training", key), key, value)
    for key in ("model", "layers"):
        if key in space.student.model_fields_set:
            _check_student(document, key, getattr(space.student, key))
    for name, strategy in space.strategies.items():
        here: Path_ = ("strategies", name)
        for key, value in _given(strategy):
            if key != "start_with":
                _check_value(document, (*here, key), key, value)
        if "learning_rate" not in strategy.model_fields_set | space.training.model_fields_set:
            raise document.error(here, f"strategies.{name}: learning_rate is missing (here or under training)")
        for i, entry in enumerate(strategy.start_with):
            try:
                space._admit(name, entry)
            except NotAdmitted as error:
                raise document.error((*here, "start_with", i), f"strategies.{name}.start_with: {error}") from error
    if space.teacher is None and space.needs_teacher:
        raise document.error(("strategies",), "teacher is missing: an alpha below 1, or a student with 'model: teacher', needs one")


def _given(values: Any) -> list[tuple[str, Value]]:
    return [(key, getattr(values, key)) for key in type(values).model_fields if key in values.model_fields_set]


def _check_value(document: Document, path: Path_, key: str, value: Value) -> None:
    if key in BOUNDS:
        for inner, number in each_number(value):
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise document.error(path + inner, f"{dotted(path + inner)}: must be a number, a range or a schedule, not {show(number)}")
            if broken := outside_bounds(key, number):
                raise document.error(path + inner, f"{dotted(path + inner)}: {broken}")
        for schedule in extremes(value):
            try:
                parse_schedule(schedule)
            except ValidationError as error:
                details = error.errors(include_url=False)[0]
                field = dotted(details["loc"][1:])  # the first is the shape
                raise document.error(path, f"{dotted(path)}: {field + ': ' if field else ''}{rule(details, details['input'])}") from error
        if crossing := crossing_boundaries(value):
            raise document.error(path, f"{dotted(path)}: {crossing}")
        if key == "learning_rate" and all(number == 0 for _, number in each_number(value)):
            raise document.error(path, f"{dotted(path)}: learning_rate must be above 0, not 0")
        return
    _check_against(document, path, TrainingSettings, key, value)


def _check_student(document: Document, key: str, value: Value) -> None:
    _check_against(document, ("student", key), StudentSettings, key, value)


def _check_against(document: Document, path: Path_, model: type[Strict], key: str, value: Value) -> None:
    """Every value that the setting can take must be one that the setting allows."""
    field = model.model_fields[key]
    allowed: TypeAdapter[Any] = TypeAdapter(cast(Any, Annotated[cast(Any, field.annotation), *(field.metadata or [None])]))
    whole = is_whole(key if model is TrainingSettings else f"student.{key}")
    for inner, candidate in each_number(value):
        if whole and inner[-1:] in (("low",), ("high",)) and candidate.is_integer():
            candidate = int(candidate)
        try:
            allowed.validate_python(candidate, strict=True)
        except ValidationError as error:
            broken = rule(dict(error.errors(include_url=False)[0]), candidate)
            raise document.error(path + inner, f"{dotted(path + inner)}: {broken}") from error
    for settled in extremes(value, whole=whole):
        if isinstance(settled, dict | list):
            raise document.error(path, f"{dotted(path)}: takes one value for the whole training, not {'a schedule' if isinstance(settled, dict) else 'a list'}")
    for found in parameters(value, key, whole=whole):
        if whole and isinstance(found.domain, Range) and found.domain.step is not None and not found.domain.step.is_integer():
            raise document.error(path, f"{dotted(path)}: step must be a whole number, not {found.domain.step:g}")
