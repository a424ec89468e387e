"""What one trial runs with: settled values, frozen and plain, JSON both ways. No torch here."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from kdsweep.core.schedules import Constant, Number, Schedule, parse_schedule
from kdsweep.errors import did_you_mean

SPLITS = ("train", "validation", "test")
Kind = Literal["classification", "regression", "multi_label"]
Metric = Literal[
    "accuracy",
    "f1",
    "f1_macro",
    "matthews",
    "accuracy_and_f1",
    "pearson",
    "spearman",
    "pearson_and_spearman",
    "f1_micro",
    "subset_accuracy",
]
Truncation = Literal["head", "tail", "head_tail"]
METRICS: dict[Kind, tuple[Metric, ...]] = {
    "classification": ("accuracy", "f1", "f1_macro", "matthews", "accuracy_and_f1"),
    "regression": ("pearson", "spearman", "pearson_and_spearman"),
    "multi_label": ("f1_micro", "f1_macro", "subset_accuracy"),
}
# What GLUE's leaderboard takes for a task of two metrics: their mean. The parts are reported beside it.
MEANS: dict[Metric, tuple[Metric, Metric]] = {
    "accuracy_and_f1": ("accuracy", "f1"),
    "pearson_and_spearman": ("pearson", "spearman"),
}
Precision = Literal["auto", "fp32", "bf16", "fp16"]


class Strict(BaseModel):
    """Frozen, every key known, no type guessed: `epochs: "3"` is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, serialize_by_alias=True, protected_namespaces=()
    )

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
    return PydanticCustomError(
        "unknown_key", "unknown key {key}{hint}", {"key": repr(key), "hint": hint, "name": str(key)}
    )


def added_later(default: Any) -> Any:
    """The default of a field that earlier versions didn't have: written only where it differs, so that what they cached and saved stays valid."""
    return Field(default=default, exclude_if=lambda value: value == default)


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value) or ".." in value:
        raise ValueError(
            "a name is 1 to 100 letters, digits, '-', '_' and single '.', and starts with a letter or digit"
        )
    return value


Name = Annotated[str, AfterValidator(_name)]


def _text(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise ValueError("must not be empty")
    return value


Text = Annotated[str, AfterValidator(_text)]


def as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


LayerNumbers = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(as_tuple), Field(min_length=1)
]


def _one_or_two(value: Any) -> Any:
    return (value,) if isinstance(value, str) else as_tuple(value)


class Limit(Strict):
    """At most so many rows of a split, chosen by hash."""

    train: Annotated[int, Field(ge=1)] | None = None
    validation: Annotated[int, Field(ge=1)] | None = None
    test: Annotated[int, Field(ge=1)] | None = None


class SplitNames(Strict):
    """What the dataset calls its splits. One that isn't named is held out of train. more_tests: splits that are judged beside test."""

    train: Text = "train"
    validation: Text | None = None
    test: Text | None = None
    more_tests: Annotated[tuple[Name, ...], BeforeValidator(_one_or_two)] = added_later(())

    @model_validator(mode="after")
    def _other_names(self) -> SplitNames:
        if clash := [
            name
            for i, name in enumerate(self.more_tests)
            if name in (*SPLITS, *self.more_tests[:i])
        ]:
            raise ValueError(
                f"more_tests: {clash[0]!r} is the name of another split; each of more_tests needs a name of its own"
            )
        return self

    @property
    def named(self) -> dict[str, str]:
        """What a split is to kdsweep -> what the dataset calls it."""
        roles = {name: value for name in SPLITS if (value := getattr(self, name)) is not None}
        return roles | {name: name for name in self.more_tests}


class Fold(Strict):
    """One of so many parts of train, counted from 0; each text is in one of them, by its hash."""

    fold: Annotated[int, Field(ge=0)]
    of: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _one_of_them(self) -> Fold:
        if self.fold >= self.of:
            raise ValueError(f"fold ({self.fold}) counts from 0 and must be below of ({self.of})")
        return self


class UnlabelledSettings(Strict):
    """More text for the teacher to label. What is left out is as it is in the task (`text`), or not there.

    split: what the dataset calls the rows; limit: at most so many of them, chosen by hash.
    """

    dataset: Text
    subset: Text | None = None
    revision: Text | None = None
    where: dict[Text, str | int | float | bool] = {}
    text: (
        Annotated[tuple[Text, ...], BeforeValidator(_one_or_two), Field(min_length=1, max_length=2)]
        | None
    ) = None
    split: Text = "train"
    limit: Annotated[int, Field(ge=1)] | None = None


def _name_for(key: str) -> BeforeValidator:
    """A name alone is short for the settings with that key."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class TaskSettings(Strict):
    """A dataset, its text column(s), label column and metric.

    kind: what a label is: one of several classes, a number, or any number of classes. truncation: what is kept of a text that is
    longer than a model reads: its beginning, its end, or a quarter of the beginning and three of the end. left_out: a fold of train
    that is not trained on.
    """

    dataset: Text | dict[Literal["train", "validation", "test"], Text]
    subset: Text | None = None
    revision: Text | None = None
    where: dict[Text, str | int | float | bool] = {}
    text: Annotated[
        tuple[Text, ...], BeforeValidator(_one_or_two), Field(min_length=1, max_length=2)
    ]
    label: Text | Annotated[tuple[Text, ...], BeforeValidator(as_tuple), Field(min_length=2)]
    labels: Annotated[tuple[Text, ...], BeforeValidator(as_tuple), Field(min_length=2)] | None = (
        None
    )
    splits: SplitNames = SplitNames()
    holdout: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    limit: Limit = Limit()
    metric: Metric = "accuracy"
    kind: Kind = added_later("classification")
    truncation: Truncation = added_later("head")
    left_out: Fold | None = added_later(None)
    unlabelled: Annotated[UnlabelledSettings | None, _name_for("dataset")] = added_later(None)

    @model_validator(mode="after")
    def _metric_of_its_kind(self) -> TaskSettings:
        if self.metric not in METRICS[self.kind]:
            others = [kind for kind in METRICS if self.metric in METRICS[kind]]
            raise ValueError(
                f"metric {self.metric} is for kind: {others[0]}; a task of kind: {self.kind} has {', '.join(METRICS[self.kind])}"
            )
        if isinstance(self.label, tuple) and self.kind != "multi_label":
            raise ValueError(
                f"label names {len(self.label)} columns, one for each label, which is for kind: multi_label"
            )
        if self.kind == "regression" and self.labels is not None:
            raise ValueError("labels name classes, and a regression has none; leave 'labels' out")
        return self

    @model_validator(mode="after")
    def _pairs_keep_their_heads(self) -> TaskSettings:
        if self.truncation != "head" and len(self.text) == 2:
            raise ValueError(
                f"truncation: {self.truncation} is for one text; of a pair the longer one loses its end (leave it out, or 'head')"
            )
        return self

    @property
    def label_columns(self) -> tuple[str, ...]:
        return (self.label,) if isinstance(self.label, str) else self.label

    @model_validator(mode="after")
    def _as_many_texts(self) -> TaskSettings:
        other = self.unlabelled.text if self.unlabelled else None
        if other is not None and len(other) != len(self.text):
            raise ValueError(
                f"unlabelled.text names {len(other)} and text {len(self.text)} columns: both must be as many"
            )
        return self


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
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = added_later(0.0)
    layer_decay: Annotated[Number, Field(gt=0, le=1)] = added_later(1.0)
    frozen_until: Annotated[Number, Field(ge=0, lt=1)] = added_later(0.0)


class TeacherTraining(TrainingSettings):
    """How the teacher is fine-tuned on the task."""

    learning_rate: Annotated[Number, Field(gt=0)] = 2.0e-5
    seed: Annotated[int, Field(ge=0)] = 0


class TeacherSettings(Strict):
    """A model to fine-tune first, or the folder of one that is fine-tuned already (`checkpoint`).

    epoch: the teacher as it was after so many epochs of its fine-tuning, instead of at its best evaluation. seeds: fine-tune so many, keep
    the best on validation. folds: so many further teachers label the rows of train, each those that it was not trained on. weight: beside
    other teachers; no part of what the teacher is.
    """

    model: Text | None = None
    checkpoint: Text | None = None
    labels: Annotated[tuple[Text, ...], BeforeValidator(as_tuple), Field(min_length=2)] | None = (
        None
    )
    trust_remote_code: bool = False
    training: TeacherTraining = TeacherTraining()
    epoch: Annotated[int, Field(ge=1)] | None = added_later(None)
    seeds: Annotated[int, Field(ge=1)] = added_later(1)
    folds: Annotated[int, Field(ge=2)] | None = added_later(None)
    weight: Annotated[Number, Field(gt=0)] = added_later(1.0)

    @model_validator(mode="after")
    def _one_source(self) -> TeacherSettings:
        if (self.model is None) == (self.checkpoint is None):
            raise ValueError(
                "a teacher needs either 'model' (to fine-tune first) or 'checkpoint' (fine-tuned already)"
            )
        if self.labels is not None and self.checkpoint is None:
            raise ValueError(
                "'labels' names the outputs of a 'checkpoint', in its order; a 'model' to fine-tune has none"
            )
        if self.checkpoint is not None and (
            given := [name for name in ("epoch", "seeds", "folds") if name in self.model_dump()]
        ):
            raise ValueError(
                f"'{given[0]}' says how a 'model' is fine-tuned; a 'checkpoint' is taken as it is"
            )
        if self.epoch is not None and self.epoch > self.training.epochs:
            raise ValueError(
                f"epoch {self.epoch} is past the end: the teacher is fine-tuned for {self.training.epochs} epochs (training.epochs)"
            )
        return self

    @property
    def source(self) -> str:
        """What its weights come from."""
        return self.model or self.checkpoint or ""

    @property
    def words(self) -> str:
        """Its name and how it is chosen, to stand in a line: `bert-base (epoch 1)`."""
        chosen = [
            f"epoch {self.epoch}" if self.epoch is not None else "",
            f"best of {self.seeds} seeds" if self.seeds > 1 else "",
            f"{self.folds} folds" if self.folds is not None else "",
            f"seed {self.training.seed}" if self.training.seed else "",
        ]
        return self.source + (f" ({', '.join(filter(None, chosen))})" if any(chosen) else "")


class StudentSettings(Strict):
    """The small model. `model: teacher` takes it from the fine-tuned teacher; `layers` keeps so many, evenly spaced, or those listed, from 0.

    start: `checkpoint` begins with the model's weights, `scratch` with random ones in its shape. width: of the hidden states, from scratch alone.
    """

    model: Text
    layers: Annotated[int, Field(ge=1)] | LayerNumbers | None = None
    start: Literal["checkpoint", "scratch"] = added_later("checkpoint")
    width: Annotated[int, Field(ge=1)] | None = added_later(None)
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _width_from_scratch(self) -> StudentSettings:
        if self.width is not None and self.start != "scratch":
            raise ValueError("width needs 'start: scratch': weights of another width can't be kept")
        return self

    @property
    def shape(self) -> str:
        """What is made of the model, to stand after its name: `, 3 layers`."""
        layers = (
            f"layers {' '.join(map(str, self.layers))}"
            if isinstance(self.layers, tuple)
            else f"{self.layers} layers"
            if self.layers
            else ""
        )
        parts = [
            layers,
            f"width {self.width}" if self.width else "",
            "from scratch" if self.start == "scratch" else "",
        ]
        return "".join(f", {part}" for part in parts if part)


# What a schedule of each kind may reach: (least, greatest, whether the least itself is allowed, the rule in words).
BOUNDS: dict[str, tuple[float, float, bool, str]] = {
    "alpha": (0.0, 1.0, True, "alpha must be between 0 and 1"),
    "temperature": (0.0, float("inf"), False, "temperature must be above 0"),
    "learning_rate": (0.0, float("inf"), True, "learning_rate must not be below 0"),
    "weight": (0.0, float("inf"), True, "a weight must not be below 0"),
}


def outside_bounds(name: str, number: float) -> str | None:
    """The rule that `number` breaks as a value of alpha, temperature, learning rate or a weight, in words; None where it breaks none."""
    least, greatest, inclusive, rule = BOUNDS[name]
    inside = number <= greatest and (number >= least if inclusive else number > least)
    return None if inside else f"{rule}, not {number:g}"


def _schedule(name: str) -> Any:
    def check(schedule: Schedule) -> Schedule:
        for number in schedule.values_taken():
            if broken := outside_bounds(name, number):
                raise ValueError(broken)
        return schedule

    return Annotated[
        Schedule, BeforeValidator(lambda value: parse_schedule(value)), AfterValidator(check)
    ]


# Which of the teacher's layers each of the student's learns from: evenly spread, the first ones, the last ones, or one for each of the student's.
LayerMap = Literal["even", "first", "last"] | LayerNumbers


class HiddenTerm(Strict):
    """The hidden states after each layer of the student: mean squared error to the teacher's, through a learned projection."""

    weight: _schedule("weight")  # type: ignore[valid-type]
    layers: LayerMap = "even"


class AttentionTerm(Strict):
    """Where the student looks. `maps`: the attention probabilities of each layer; `values`: how the values of the last layer relate to each other."""

    weight: _schedule("weight")  # type: ignore[valid-type]
    match: Literal["maps", "values"] = "maps"
    layers: LayerMap = "even"

    @model_validator(mode="after")
    def _last_layer_alone(self) -> AttentionTerm:
        if self.match == "values" and self.layers != "even":
            raise ValueError("match: values compares the last layers alone; leave 'layers' out")
        return self


class CosineTerm(Strict):
    """The direction of the last hidden state of each token."""

    weight: _schedule("weight")  # type: ignore[valid-type]


class DistillSettings(Strict):
    """What of the teacher the student learns: its logits, in one of four ways, and any of its inner states beside.

    temperature_follows: `confidence` lowers the temperature where the teacher is in doubt. combine: what several teachers are weighed by
    beside their own weights, row by row: nothing, how probable the row's label is to each, or how sure each is.
    """

    logits: Literal["kl", "soft_ce", "reverse_kl", "mse"] = "kl"
    temperature_follows: Literal["nothing", "confidence"] = "nothing"
    combine: Literal["weights", "label_confidence", "certainty"] = added_later("weights")
    hidden: HiddenTerm | None = None
    attention: AttentionTerm | None = None
    cosine: CosineTerm | None = None

    @property
    def online(self) -> dict[str, HiddenTerm | AttentionTerm | CosineTerm]:
        """The terms that no cache of logits serves, by name: they run the teacher in each step."""
        found = {"hidden": self.hidden, "attention": self.attention, "cosine": self.cosine}
        return {
            name: term
            for name, term in found.items()
            if term is not None and max(term.weight.values_taken()) > 0
        }


def unfit(kind: Kind, name: str, value: Any) -> str | None:
    """Why a setting makes no sense for a task of that kind, in words; None where it does."""
    match kind, name, value:
        case "regression", "distill.logits", "soft_ce" | "reverse_kl":
            return f"distill: {value} compares probabilities, and a regression has none: its outputs are matched by squared error (leave it out, or 'mse')"
        case "regression", "label_smoothing", float() | int() if value:
            return "label_smoothing: a regression has no classes to smooth over; leave it out"
        case "regression" | "multi_label", "distill.temperature_follows", "confidence":
            return f"distill.temperature_follows: confidence is that of one answer among classes, which a task of kind: {kind} doesn't have; leave it out"
    return None


Share = Annotated[Number, Field(ge=0, le=1)]


class MaskedWordsSettings(Strict):
    """Words replaced by what a masked language model would put there: a sample of its `candidates` likeliest whole words."""

    model: Text
    share: Share = 0.4
    candidates: Annotated[int, Field(ge=1)] = 15


class AugmentSettings(Strict):
    """Copies of the rows of train with other words (`views` of each), which the teacher labels; see `kdsweep.core.augmentation.word_edits` for the shares.

    in_finetuning: where no teacher teaches, the copies have the label of their row instead of being left out.
    """

    views: Annotated[int, Field(ge=0)]
    mask: Share = 0.0
    ngram: Share = 0.0
    swap: Share = 0.0
    masked_lm: Annotated[MaskedWordsSettings | None, _name_for("model")] = None
    seed: Annotated[int, Field(ge=0)] = 0
    in_finetuning: bool = False


class TrialSettings(Strict):
    """One student training with settled values. `model_dump_json` and `model_validate_json` are each other's inverse.

    further_teachers: their logits are mixed with those of `teacher`, which alone gives layers and inner states.
    judge_test: the student is judged on the test split too, once, at the end.
    """

    task: TaskSettings
    teacher: TeacherSettings | None = None
    further_teachers: Annotated[tuple[TeacherSettings, ...], BeforeValidator(as_tuple)] = (
        added_later(())
    )
    student: StudentSettings
    training: TrainingSettings = TrainingSettings()
    alpha: _schedule("alpha")  # type: ignore[valid-type]
    temperature: _schedule("temperature") = Constant(value=1.0)  # type: ignore[valid-type]
    learning_rate: _schedule("learning_rate")  # type: ignore[valid-type]
    distill: DistillSettings = added_later(DistillSettings())
    augment: AugmentSettings | None = added_later(None)
    seed: Annotated[int, Field(ge=0)] = 0
    judge_test: bool = Field(default=False, exclude_if=lambda value: not value)

    @model_validator(mode="after")
    def _teacher_where_needed(self) -> TrialSettings:
        if self.teacher is None and self.needs_teacher:
            raise ValueError(
                "an alpha below 1, a student with 'model: teacher', or a term of the teacher's inner states needs a teacher"
            )
        if self.task.kind != "classification":
            for name, value in (
                ("logits", self.distill.logits),
                ("temperature_follows", self.distill.temperature_follows),
            ):
                if broken := unfit(self.task.kind, f"distill.{name}", value):
                    raise ValueError(broken)
            if broken := unfit(self.task.kind, "label_smoothing", self.training.label_smoothing):
                raise ValueError(broken)
        if self.teacher is None and self.further_teachers:
            raise ValueError("further_teachers stand beside 'teacher', which is missing")
        return self

    @property
    def teachers(self) -> tuple[TeacherSettings, ...]:
        """All that the trial learns from, the first one first; none where it needs none."""
        return (
            (self.teacher, *self.further_teachers)
            if self.teacher is not None and self.needs_teacher
            else ()
        )

    @property
    def needs_logits(self) -> bool:
        """Whether any step weighs the teacher."""
        return min(self.alpha.values_taken()) < 1

    @property
    def is_taught(self) -> bool:
        """Whether any step learns from the teacher: then rows without a label are of use."""
        return self.needs_logits or bool(self.distill.online)

    @property
    def needs_teacher(self) -> bool:
        return self.is_taught or self.student.model == "teacher"
