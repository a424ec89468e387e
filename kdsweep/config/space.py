"""The search space: WHAT one trial may be."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Annotated, Any, cast, get_args

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    create_model,
)

from kdsweep.config.loading import (
    Document,
    Path_,
    dotted,
    read_document,
    rule,
    show,
    split_assignment,
    split_path,
    validate,
)
from kdsweep.config.values import (
    AnyOf,
    Choices,
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
from kdsweep.core.settings import (
    BOUNDS,
    AttentionTerm,
    AugmentSettings,
    CosineTerm,
    DistillSettings,
    HiddenTerm,
    MaskedWordsSettings,
    Name,
    Strict,
    StudentSettings,
    TaskSettings,
    TeacherSettings,
    TeacherTraining,
    Text,
    TrainingSettings,
    TrialSettings,
    added_later,
    as_tuple,
    outside_bounds,
    unfit,
)
from kdsweep.errors import did_you_mean

STAND_INS = (
    "task",
    "teacher",
    "student",
    "training",
    "strategies",
)  # what `embedded` may replace, whole or a part of it
SCHEDULED = ("alpha", "temperature", "learning_rate")
GRAMMAR = {
    "low",
    "high",
    "choices",
    "any_of",
    "shape",
}  # a mapping with one of these is a value, not a section

# The fields of the trial's settings, each of which a space gives as a value of the grammar.
_training_fields: dict[str, Any] = dict.fromkeys(
    ("learning_rate", *TrainingSettings.model_fields), (Value, None)
)
TrainingValues: type[Any] = create_model("TrainingValues", __base__=Strict, **_training_fields)


class StudentValues(Strict):
    """StudentSettings, its fields values of the grammar."""

    model: Value
    layers: Value = None
    start: Value = "checkpoint"
    width: Value = None
    trust_remote_code: bool = False


TEACHER_VALUES = ("model", "epoch", "folds", "weight")


class TeacherValues(Strict):
    """TeacherSettings, some of its fields values of the grammar: trials may learn from different teachers.

    One without `model` and `checkpoint`, under a strategy, is the space's teacher with these fields changed.
    """

    model: Value = None
    checkpoint: Text | None = None
    labels: Annotated[tuple[Text, ...], BeforeValidator(as_tuple), Field(min_length=2)] | None = (
        None
    )
    trust_remote_code: bool = False
    training: TeacherTraining = TeacherTraining()
    epoch: Value = added_later(None)
    seeds: Annotated[int, Field(ge=1)] = added_later(1)
    folds: Value = added_later(None)
    weight: Value = added_later(1.0)

    @property
    def is_whole(self) -> bool:
        return self.model is not None or self.checkpoint is not None

    def values(self, prefix: str) -> dict[str, Value]:
        return {
            f"{prefix}{name}": value
            for name in TEACHER_VALUES
            if (value := getattr(self, name)) is not None
        }

    def settled(self, values: dict[str, Any]) -> TeacherSettings:
        """The teacher with these in the place of its values."""
        plain = {
            name: getattr(self, name)
            for name in ("checkpoint", "labels", "trust_remote_code", "training", "seeds")
        }
        return TeacherSettings.model_validate(plain | values)

    def every(self) -> list[TeacherSettings]:
        """Each teacher that its values can mean; what it weighs is no part of what it is."""
        values = self.values("")
        values.pop("weight")
        return [
            self.settled(dict(zip(values, chosen, strict=True)))
            for chosen in product(
                *(_every(value, f"teacher.{name}") for name, value in values.items())
            )
        ]

    def on(self, base: TeacherValues) -> TeacherValues:
        """`base` with the fields that are given here."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        if "training" in given:
            changed = {
                name: getattr(self.training, name) for name in self.training.model_fields_set
            }
            given["training"] = base.training.model_copy(update=changed)
        return base.model_copy(update=given)


def _every(value: Value, name: str) -> list[Any]:
    """Every settled value of one that is finite."""
    if isinstance(value, AnyOf):
        return list(
            dict.fromkeys(found for option in value.any_of for found in _every(option, name))
        )
    return (
        (parameters(value, name, whole=is_whole(name))[0].points() or [])
        if isinstance(value, Range | Choices)
        else [value]
    )


# One teacher, or a list of them.
Teachers = Annotated[
    Annotated[TeacherValues, Tag("one")]
    | Annotated[
        tuple[TeacherValues, ...], BeforeValidator(as_tuple), Field(min_length=1), Tag("several")
    ],
    Discriminator(lambda value: "several" if isinstance(value, list | tuple) else "one"),
]


class HiddenValues(Strict):
    """HiddenTerm, its fields values of the grammar."""

    weight: Value
    layers: Value = "even"


class AttentionValues(Strict):
    """AttentionTerm, its fields values of the grammar."""

    weight: Value
    match: Value = "maps"
    layers: Value = "even"


class CosineValues(Strict):
    """CosineTerm, its fields values of the grammar."""

    weight: Value


def _short_for(key: str) -> BeforeValidator:
    """One value where a group is due is short for the group with that key alone: `hidden: 0.5`, `masked_lm: MODEL`, `distill: mse`."""

    def spell_out(value: Any) -> Any:
        is_group = (
            value is None
            or isinstance(value, Strict)
            or (isinstance(value, dict) and not GRAMMAR & value.keys())
        )
        return value if is_group else {key: value}

    return BeforeValidator(spell_out)


class DistillValues(Strict):
    """DistillSettings, its fields values of the grammar."""

    logits: Value = "kl"
    temperature_follows: Value = "nothing"
    combine: Value = "weights"
    hidden: Annotated[HiddenValues | None, _short_for("weight")] = None
    attention: Annotated[AttentionValues | None, _short_for("weight")] = None
    cosine: Annotated[CosineValues | None, _short_for("weight")] = None


class MaskedWordsValues(Strict):
    """MaskedWordsSettings, its fields values of the grammar."""

    model: Value
    share: Value = 0.4
    candidates: Value = 15


class AugmentValues(Strict):
    """AugmentSettings, its fields values of the grammar."""

    views: Value
    mask: Value = 0.0
    ngram: Value = 0.0
    swap: Value = 0.0
    masked_lm: Annotated[MaskedWordsValues | None, _short_for("model")] = None
    seed: Value = 0
    in_finetuning: Value = False


class Strategy(TrainingValues):
    """A named space of schedules. Keys of `training`, and `teacher`, may stand here too and then hold for this strategy alone."""

    alpha: Value
    temperature: Value = 1.0
    distill: Annotated[DistillValues, _short_for("logits")] = DistillValues()
    teacher: Teachers | None = None
    augment: AugmentValues | None = None
    start_with: Annotated[tuple[dict[str, Any], ...], BeforeValidator(as_tuple)] = ()


class SearchSpace(Strict):
    """Task, teacher, student, fixed training settings, and the strategies to search."""

    name: Name
    task: TaskSettings
    teacher: Teachers | None = None
    student: StudentValues
    training: TrainingValues = TrainingValues()
    strategies: Annotated[dict[Name, Strategy], Field(min_length=1)]
    embedded: bool = Field(default=False, exclude=True)

    def values(self, strategy: str) -> dict[str, Value]:
        """name -> value for everything that a trial of this strategy is asked about, in order."""
        chosen = self.strategies[strategy]
        training = {name: getattr(self.training, name) for name in self.training.model_fields_set}
        training |= {
            name: getattr(chosen, name)
            for name in chosen.model_fields_set & TrainingValues.model_fields.keys()
        }
        first = {
            "alpha": chosen.alpha,
            "temperature": chosen.temperature,
            "learning_rate": training.pop("learning_rate", None),
        }
        sections = _flat(self.student, "student.") | _flat(chosen.distill, "distill.")
        for prefix, teacher in self._named_teachers(strategy):
            sections |= teacher.values(prefix)
        sections |= {} if chosen.augment is None else _flat(chosen.augment, "augment.")
        return (
            first
            | sections
            | {name: training[name] for name in TrainingSettings.model_fields if name in training}
        )

    def teachers_of(self, strategy: str) -> tuple[TeacherValues, ...]:
        """The teachers of the strategy, the first one first; none where no trial of it can need one."""
        own = self.strategies[strategy].teacher
        chosen = self.teacher if own is None else own
        if (
            isinstance(own, TeacherValues)
            and not own.is_whole
            and isinstance(self.teacher, TeacherValues)
        ):
            chosen = own.on(self.teacher)
        if chosen is None or not self.may_need_teacher(strategy):
            return ()
        return chosen if isinstance(chosen, tuple) else (chosen,)

    def _named_teachers(self, strategy: str) -> list[tuple[str, TeacherValues]]:
        """Each with what the names of its values begin with."""
        teachers = self.teachers_of(strategy)
        return [
            ("teacher." if len(teachers) == 1 else f"teacher.{i}.", teacher)
            for i, teacher in enumerate(teachers)
        ]

    def teachers(self) -> list[TeacherSettings]:
        """Every teacher that a trial can need, each once; the first of each strategy come first."""
        listed = [self.teachers_of(strategy) for strategy in self.strategies]
        ordered = [
            *(teachers[0] for teachers in listed if teachers),
            *(teacher for teachers in listed for teacher in teachers[1:]),
        ]
        return list(
            {one.model_dump_json(): one for teacher in ordered for one in teacher.every()}.values()
        )

    def parameters(self, strategy: str) -> list[Parameter]:
        """The dimensions of the strategy's study."""
        return [
            found
            for name, value in self.values(strategy).items()
            for found in parameters(value, name, whole=is_whole(name))
        ]

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
        settled = {
            name: settle(value, name, suggest, whole=is_whole(name))
            for name, value in self.values(strategy).items()
        }
        return self.trial(strategy, settled, seed)

    def trial(self, strategy: str, settled: dict[str, Any], seed: int) -> TrialSettings:
        student, distill, augment = (
            _nested(settled, prefix) for prefix in ("student.", "distill.", "augment.")
        )
        training = {
            name: value for name, value in settled.items() if name in TrainingSettings.model_fields
        }
        schedules = {name: parse_schedule(settled[name]) for name in SCHEDULED}
        matched = DistillSettings.model_validate(distill)
        needs_teacher = (
            min(schedules["alpha"].values_taken()) < 1
            or student["model"] == "teacher"
            or bool(matched.online)
        )
        teachers = (
            [
                teacher.settled(_nested(settled, prefix))
                for prefix, teacher in self._named_teachers(strategy)
            ]
            if needs_teacher
            else []
        )
        return TrialSettings(
            task=self.task,
            teacher=teachers[0] if teachers else None,
            further_teachers=tuple(teachers[1:]),
            student=StudentSettings(**student, trust_remote_code=self.student.trust_remote_code),
            training=TrainingSettings(**training),
            seed=seed,
            alpha=schedules["alpha"],
            temperature=schedules["temperature"],
            learning_rate=schedules["learning_rate"],
            distill=matched,
            augment=AugmentSettings.model_validate(augment) if augment else None,
        )

    def first_trials(self, strategy: str) -> list[dict[str, Any]]:
        """The parameters of each `start_with` entry; what an entry leaves open is for the sampler."""
        return [self._admit(strategy, entry) for entry in self.strategies[strategy].start_with]

    def _admit(self, strategy: str, entry: dict[str, Any]) -> dict[str, Any]:
        values, known = (
            self.values(strategy),
            {parameter.name: parameter for parameter in self.parameters(strategy)},
        )
        found: dict[str, Any] = {}
        for name, settled in entry.items():
            if name in values:
                found |= admit(values[name], settled, name, whole=is_whole(name))
            elif name in known:
                domain = known[name].domain
                found |= (
                    admit(domain, settled, name)
                    if not isinstance(domain, tuple)
                    else {name: settled}
                )
                if isinstance(domain, tuple) and settled not in domain:
                    raise NotAdmitted(
                        f"{name}: {settled!r} is none of {', '.join(map(str, domain))}"
                    )
            else:
                raise NotAdmitted(f"unknown key {name!r}{did_you_mean(name, [*values, *known])}")
        return found

    def students(self) -> list[StudentSettings]:
        """Each choice of a student, with the least and the greatest of what is a range."""
        found: dict[str, StudentSettings] = {}
        student = self.student
        for model in dict.fromkeys(str(value) for _, value in each_number(student.model)):
            for start in dict.fromkeys(value for _, value in each_number(student.start)):
                for layers, width in product(
                    extremes(student.layers, whole=True),
                    extremes(student.width, whole=True) if start == "scratch" else [None],
                ):
                    shape = StudentSettings(
                        model=model,
                        layers=layers,
                        start=start,
                        width=width,
                        trust_remote_code=student.trust_remote_code,
                    )
                    found.setdefault(shape.model_dump_json(), shape)
        return list(found.values())

    @property
    def needs_teacher(self) -> bool:
        """Whether any trial can need the teacher."""
        return any(self.may_need_teacher(strategy) for strategy in self.strategies)

    def may_need_teacher(self, strategy: str) -> bool:
        """Whether a trial of the strategy can need the teacher."""
        student_from_teacher = any(
            model == "teacher" for _, model in each_number(self.student.model)
        )
        return student_from_teacher or self.may_be_taught(strategy)

    def may_be_taught(self, strategy: str) -> bool:
        """Whether any step of a trial of the strategy can learn from the teacher."""
        weights = [
            value
            for name, value in _flat(self.strategies[strategy].distill, "distill.").items()
            if name.endswith(".weight")
        ]
        inner_states = any(number > 0 for value in weights for _, number in each_number(value))
        return inner_states or any(
            number < 1 for _, number in each_number(self.strategies[strategy].alpha)
        )

    def most_views(self, strategy: str) -> int:
        """How many views of a row the strategy's trials can have at most."""
        augment = self.strategies[strategy].augment
        used = augment is not None and (
            self.may_be_taught(strategy)
            or any(value is True for _, value in each_number(augment.in_finetuning))
        )
        return (
            round(max(number for _, number in each_number(augment.views)))
            if used and augment is not None
            else 0
        )

    def resolved(self, document_data: dict[str, Any]) -> dict[str, Any]:
        """What decides on the trials, written out: a space that loads to the same trials wherever it lies."""
        out: dict[str, Any] = {
            "name": self.name,
            "task": self.task.model_dump(mode="json", exclude_none=True),
        }
        if self.teacher is not None:
            several = isinstance(self.teacher, tuple)
            dumped = [
                one.model_dump(mode="json", exclude_none=True)
                for one in (self.teacher if isinstance(self.teacher, tuple) else (self.teacher,))
            ]
            out["teacher"] = dumped if several else dumped[0]
        training = TrainingSettings().model_dump(mode="json") | document_data.get("training", {})
        return out | {
            "student": document_data["student"],
            "training": training,
            "strategies": document_data["strategies"],
        }


def _flat(section: Strict, prefix: str) -> dict[str, Value]:
    """The values that a section gives, by their dotted names."""
    given = {
        name: getattr(section, name)
        for name in type(section).model_fields
        if name in section.model_fields_set and name != "trust_remote_code"
    }
    out: dict[str, Value] = {}
    for name, value in given.items():
        out |= (
            _flat(value, f"{prefix}{name}.")
            if isinstance(value, HiddenValues | AttentionValues | CosineValues | MaskedWordsValues)
            else {f"{prefix}{name}": value}
        )
    return out


def _nested(settled: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The other way: what is under `prefix`, as settings."""
    out: dict[str, Any] = {}
    for name, value in settled.items():
        if name.startswith(prefix):
            *sections, last = name.removeprefix(prefix).split(".")
            inner = out
            for section in sections:
                inner = inner.setdefault(section, {})
            inner[last] = value
    return out


# What a trial's setting may be, by the dotted name of its value.
_SECTIONS: dict[str, type[Strict]] = {
    "": TrainingSettings,
    "student.": StudentSettings,
    "teacher.": TeacherSettings,
    "distill.": DistillSettings,
    "distill.hidden.": HiddenTerm,
    "distill.attention.": AttentionTerm,
    "distill.cosine.": CosineTerm,
    "augment.": AugmentSettings,
    "augment.masked_lm.": MaskedWordsSettings,
}
SETTINGS: dict[str, Any] = {
    f"{prefix}{name}": field
    for prefix, section in _SECTIONS.items()
    for name, field in section.model_fields.items()
}


def is_whole(name: str) -> bool:
    """Whether the setting of that name is a whole number."""
    field = SETTINGS.get(_one_of_several(name))
    return field is not None and any(
        _bare(kind) is int for kind in (field.annotation, *get_args(field.annotation))
    )


def _one_of_several(name: str) -> str:
    """`teacher.epoch` of `teacher.1.epoch`."""
    return re.sub(r"^teacher\.\d+\.", "teacher.", name)


def _bare(kind: Any) -> Any:
    """`int` of Annotated[int, ...]; any other type as it is."""
    return kind.__origin__ if hasattr(kind, "__metadata__") else kind


def space_document(path: Path | str, *, embedded: bool = False) -> Document:
    """A space file as data, with its `embedded` sections in place where asked for."""
    document = read_document(path)
    stand_ins = document.take_out("embedded")
    if embedded:
        if stand_ins is None:
            raise document.error(
                (),
                "has no 'embedded' section, so it can't run with --embedded; add one (task, teacher, student that come as packages)",
            )
        for key in stand_ins.data:
            keys = split_path(key)
            if keys[0] not in STAND_INS:
                raise stand_ins.error(
                    (key,),
                    f"embedded: unknown key {key!r}{did_you_mean(key, STAND_INS) or '; known here: ' + ', '.join(STAND_INS)}",
                )
            places = {
                inner[1:]: place for inner, place in stand_ins.places.items() if inner[:1] == (key,)
            }
            document.replace(keys, stand_ins.data[key], places)
    return document


def build_space(document: Document, *, embedded: bool = False) -> SearchSpace:
    """The document as a checked SearchSpace. Raises SpaceError with file, line, rule and value."""
    if "embedded" in document.data:
        raise document.error(
            ("embedded",),
            "'embedded' can't be set: use --embedded to take the sections of the space's 'embedded'",
        )
    _anchor_paths(document)
    space = validate(SearchSpace, document)
    _check(space, document)
    own = {
        name: strategy.model_copy(update={"teacher": _reading_as_much(strategy.teacher, space)})
        for name, strategy in space.strategies.items()
    }
    return space.model_copy(
        update={
            "embedded": embedded,
            "teacher": _reading_as_much(space.teacher, space),
            "strategies": own,
        }
    )


def _reading_as_much(
    teacher: TeacherValues | tuple[TeacherValues, ...] | None, space: SearchSpace
) -> Any:
    """The teacher, which reads as much of a text as the student unless told otherwise."""
    length = getattr(space.training, "max_length", None)
    if isinstance(teacher, tuple):
        return tuple(_reading_as_much(one, space) for one in teacher)
    if (
        teacher is None
        or not teacher.is_whole
        or "max_length" in teacher.training.model_fields_set
        or not isinstance(length, int)
    ):
        return teacher
    return teacher.model_copy(
        update={"training": teacher.training.model_copy(update={"max_length": length})}
    )


def load_space(
    path: Path | str, *, embedded: bool = False, assignments: list[str] | tuple[str, ...] = ()
) -> SearchSpace:
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
        if (
            isinstance(value, str)
            and value not in ("", "teacher")
            and "\0" not in value
            and not value.startswith(("package://", "/"))
            and len(value) < 4096
        ):
            try:
                return str((folder / value).resolve()) if (folder / value).exists() else value
            except OSError:
                return value
        if isinstance(value, dict):
            return {key: anchor(inner) for key, inner in value.items()}
        return [anchor(inner) for inner in value] if isinstance(value, list) else value

    strategies = document.data.get("strategies")
    own = (
        [strategy.get("teacher") for strategy in strategies.values() if isinstance(strategy, dict)]
        if isinstance(strategies, dict)
        else []
    )
    teachers = [
        one
        for part in (document.data.get("teacher"), *own)
        for one in (part if isinstance(part, list) else [part])
    ]
    sections = [
        (document.data.get("task"), ("dataset",)),
        (document.data.get("student"), ("model",)),
        *((one, ("model", "checkpoint")) for one in teachers),
    ]
    for part, keys in sections:
        if isinstance(part, dict):
            for key in keys:
                if key in part:
                    part[key] = anchor(part[key])
    unlabelled = (
        document.data["task"].get("unlabelled")
        if isinstance(document.data.get("task"), dict)
        else None
    )
    if isinstance(unlabelled, str):
        document.data["task"]["unlabelled"] = anchor(unlabelled)
    elif isinstance(unlabelled, dict) and "dataset" in unlabelled:
        unlabelled["dataset"] = anchor(unlabelled["dataset"])
    for strategy in (
        strategies.values()
        if isinstance(strategies := document.data.get("strategies"), dict)
        else ()
    ):
        augment = strategy.get("augment") if isinstance(strategy, dict) else None
        if isinstance(augment, dict) and "masked_lm" in augment:
            words = augment["masked_lm"]
            if isinstance(words, dict) and "model" in words:
                words["model"] = anchor(words["model"])
            elif not isinstance(words, dict) or GRAMMAR & words.keys():
                augment["masked_lm"] = anchor(words)


# --- rules that no single key can keep -------------------------------------------------------------------------------


def _check(space: SearchSpace, document: Document) -> None:
    for key, value in _given(space.training):
        _check_value(document, ("training", key), key, value)
        _check_kind(document, ("training", key), key, value, space)
    for key, value in _flat(space.student, "student.").items():
        _check_value(document, tuple(key.split(".")), key, value)
    if space.student.width is not None and space.student.start != "scratch":
        raise document.error(
            ("student", "width"),
            "student.width: needs 'start: scratch': weights of another width can't be kept",
        )
    if space.teacher is not None:
        _check_each_teacher(document, ("teacher",), space.teacher)
    for name, strategy in space.strategies.items():
        here: Path_ = ("strategies", name)
        for key, value in _given(strategy):
            if key not in ("start_with", "distill", "teacher", "augment"):
                _check_value(document, (*here, key), key, value)
                _check_kind(document, (*here, key), key, value, space)
        _check_teachers(space, document, name)
        matched = document.data["strategies"][name].get("distill")
        for key, value in _flat(strategy.distill, "distill.").items():
            short = key == "distill.logits" and not (
                isinstance(matched, dict) and "logits" in matched
            )
            place = (*here, "distill") if short else (*here, *key.split("."))
            _check_value(document, place, key, value)
            _check_kind(document, place, key, value, space)
        if strategy.augment is not None:
            _check_augment(space, document, name)
        if "learning_rate" not in strategy.model_fields_set | space.training.model_fields_set:
            raise document.error(
                here, f"strategies.{name}: learning_rate is missing (here or under training)"
            )
        for i, entry in enumerate(strategy.start_with):
            try:
                space._admit(name, entry)
            except NotAdmitted as error:
                raise document.error(
                    (*here, "start_with", i), f"strategies.{name}.start_with: {error}"
                ) from error
    for name in space.strategies:
        if space.may_need_teacher(name) and not space.teachers_of(name):
            raise document.error(
                ("strategies",),
                "teacher is missing: an alpha below 1, or a student with 'model: teacher', needs one",
            )


def _check_teachers(space: SearchSpace, document: Document, strategy: str) -> None:
    """The strategy's teachers, its own or the space's: every one that their values can mean must be one."""
    own = space.strategies[strategy].teacher
    if (
        isinstance(own, TeacherValues)
        and not own.is_whole
        and not isinstance(space.teacher, TeacherValues)
    ):
        broken = "changes the space's teacher, and there is not just one: name 'model' or 'checkpoint' here"
        raise document.error(
            ("strategies", strategy, "teacher"), f"strategies.{strategy}.teacher: {broken}"
        )
    if own is not None:
        changed = (
            own.on(space.teacher)
            if isinstance(own, TeacherValues)
            and not own.is_whole
            and isinstance(space.teacher, TeacherValues)
            else own
        )
        _check_each_teacher(document, ("strategies", strategy, "teacher"), changed)


def _check_each_teacher(
    document: Document, here: Path_, teachers: TeacherValues | tuple[TeacherValues, ...]
) -> None:
    """Every teacher that their values can mean must be one."""
    for i, teacher in enumerate(teachers if isinstance(teachers, tuple) else (teachers,)):
        place = (*here, i) if isinstance(teachers, tuple) else here
        for name, value in teacher.values("").items():
            if name != "weight" and not all(
                _every(one, f"teacher.{name}") for one in _ranges(value)
            ):
                raise document.error(
                    (*place, name),
                    f"{dotted((*place, name))}: each of its values is a teacher to be made: a range must not be log",
                )
            _check_against(document, (*place, name), f"teacher.{name}", value)
        try:
            teacher.every()
        except ValidationError as error:
            details = error.errors(include_url=False)[0]
            raise document.error(
                place, f"{dotted(place)}: {rule(dict(details), details['input'])}"
            ) from error


def _ranges(value: Value) -> list[Range]:
    if isinstance(value, AnyOf):
        return [found for option in value.any_of for found in _ranges(option)]
    return [value] if isinstance(value, Range) else []


KINDS_OF_VIEWS = ("mask", "ngram", "swap", "masked_lm")


def _check_augment(space: SearchSpace, document: Document, name: str) -> None:
    augment, here = space.strategies[name].augment, ("strategies", name, "augment")
    assert augment is not None
    for key, value in _flat(augment, "augment.").items():
        _check_value(document, (*here[:-1], *key.split(".")), key, value)
    if not augment.model_fields_set & set(KINDS_OF_VIEWS):
        raise document.error(
            here,
            f"{dotted(here)}: says how many views, but not how they differ from their rows; give one of {', '.join(KINDS_OF_VIEWS)}",
        )
    if not space.may_be_taught(name) and not any(
        value is True for _, value in each_number(augment.in_finetuning)
    ):
        rule = "views are labelled by the teacher, and where alpha is always 1 no teacher teaches; 'in_finetuning: true' gives them the label of their row"
        raise document.error(here, f"{dotted(here)}: {rule}")


def _given(values: Any) -> list[tuple[str, Value]]:
    return [
        (key, getattr(values, key))
        for key in type(values).model_fields
        if key in values.model_fields_set
    ]


def _check_kind(
    document: Document, path: Path_, key: str, value: Value, space: SearchSpace
) -> None:
    for _, settled in each_number(value):
        if broken := unfit(space.task.kind, key, settled):
            raise document.error(path, f"{dotted(path)}: {broken}")


def _check_value(document: Document, path: Path_, key: str, value: Value) -> None:
    if (kind := key.rpartition(".")[2]) in BOUNDS:
        for inner, number in each_number(value):
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise document.error(
                    path + inner,
                    f"{dotted(path + inner)}: must be a number, a range or a schedule, not {show(number)}",
                )
            if broken := outside_bounds(kind, number):
                raise document.error(path + inner, f"{dotted(path + inner)}: {broken}")
        for schedule in extremes(value):
            try:
                parse_schedule(schedule)
            except ValidationError as error:
                details = error.errors(include_url=False)[0]
                field = dotted(details["loc"][1:])  # the first is the shape
                raise document.error(
                    path,
                    f"{dotted(path)}: {field + ': ' if field else ''}{rule(details, details['input'])}",
                ) from error
        if crossing := crossing_boundaries(value):
            raise document.error(path, f"{dotted(path)}: {crossing}")
        if key == "learning_rate" and all(number == 0 for _, number in each_number(value)):
            raise document.error(path, f"{dotted(path)}: learning_rate must be above 0, not 0")
        return
    _check_against(document, path, key, value)


def _check_against(document: Document, path: Path_, key: str, value: Value) -> None:
    """Every value that the setting can take must be one that the setting allows."""
    field, whole = SETTINGS[_one_of_several(key)], is_whole(key)
    allowed: TypeAdapter[Any] = TypeAdapter(
        cast(Any, Annotated[cast(Any, field.annotation), *(field.metadata or [None])])
    )
    listed = key.endswith(".layers")  # these may be lists: whole ones are judged
    for settled in extremes(value, whole=whole):
        if isinstance(settled, dict) or (isinstance(settled, list) and not listed):
            raise document.error(
                path,
                f"{dotted(path)}: takes one value for the whole training, not {'a schedule' if isinstance(settled, dict) else 'a list'}",
            )
    for inner, candidate in (
        (((), settled) for settled in extremes(value, whole=whole))
        if listed
        else each_number(value)
    ):
        if whole and inner[-1:] in (("low",), ("high",)) and candidate.is_integer():
            candidate = int(candidate)
        try:
            allowed.validate_python(candidate, strict=True)
        except ValidationError as error:
            found = error.errors(include_url=False)[
                -1 if isinstance(candidate, list) else 0
            ]  # of a list, what is wrong with it as a list
            raise document.error(
                path + inner, f"{dotted(path + inner)}: {rule(dict(found), found['input'])}"
            ) from error
    for parameter in parameters(value, key, whole=whole):
        if (
            whole
            and isinstance(parameter.domain, Range)
            and parameter.domain.step is not None
            and not parameter.domain.step.is_integer()
        ):
            raise document.error(
                path, f"{dotted(path)}: step must be a whole number, not {parameter.domain.step:g}"
            )
