"""What one trial runs with: settled values, frozen and plain, JSON both ways. No torch here."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from kdsweep.core.augment_settings import AugmentSettings
from kdsweep.core.distill_settings import DistillSettings, bounded_schedule
from kdsweep.core.hub.repository import at_revision
from kdsweep.core.objective.divergences import DEFAULT
from kdsweep.core.schedules import Constant, Number
from kdsweep.core.split_settings import Fold, Limit, SplitNames
from kdsweep.core.strict_model import (
    Kind,
    LayerNumbers,
    MetricName,
    Strict,
    Text,
    added_later,
    as_tuple,
    named_once,
    one_or_more,
    short_for,
)
from kdsweep.core.tasks import DEFAULT_KIND, unfit_labels

Truncation = Literal["head", "tail", "head_tail"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Quantize = Literal["none", "int8"]
# What `auto` is once it is known where a sweep computes.
SettledPrecision = Literal["fp32", "bf16", "fp16"]
# A rule that later versions changed. 1: that of version 0.1.0.
Rule = Literal[1, 2]
# The rules that a task keeps from its first run on.
RULES = ("split_rule", "label_rule")
LabelNames = Annotated[
    tuple[Text, ...],
    BeforeValidator(as_tuple),
    Field(min_length=2),
    AfterValidator(named_once),
]


class UnlabelledSettings(Strict):
    """More text for the teacher to label.

    text: the task's, if left out. split: what the dataset calls the rows. limit: the most rows
    that are kept, chosen by hash.
    """

    dataset: Text
    subset: Text | None = None
    revision: Text | None = None
    where: dict[Text, str | int | float | bool] = Field(default={})
    text: (
        Annotated[tuple[Text, ...], BeforeValidator(one_or_more), Field(min_length=1, max_length=2)]
        | None
    ) = None
    split: Text = "train"
    limit: Annotated[int, Field(ge=1)] | None = None


class TaskSettings(Strict):
    """A dataset, its text column(s), label column and metric.

    kind: what a label is (`kdsweep.core.tasks`). truncation: what is kept of a text that is longer
    than a model reads: its beginning, its end, or one quarter from the beginning and three from
    the end. left_out: a fold of train that is not trained on. symmetric: the two texts of a pair
    may change places. blank_labels: `drop` leaves out rows whose label is empty. split_rule: how
    rows are given to splits (`kdsweep.core.data.splits`). label_rule: what labels are called.

    In JSON, a rule that isn't named is rule 1: it is what version 0.1.0 stored.
    """

    dataset: Text | dict[Literal["train", "validation", "test"], Text]
    subset: Text | None = None
    revision: Text | None = None
    where: dict[Text, str | int | float | bool] = Field(default={})
    text: Annotated[
        tuple[Text, ...], BeforeValidator(one_or_more), Field(min_length=1, max_length=2)
    ]
    label: Text | LabelNames
    labels: LabelNames | None = None
    splits: SplitNames = SplitNames()
    holdout: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    limit: Limit = Limit()
    metric: MetricName = DEFAULT_KIND.default_metric
    kind: Kind = added_later(DEFAULT_KIND)
    truncation: Truncation = added_later("head")
    left_out: Fold | None = added_later(None)
    unlabelled: Annotated[UnlabelledSettings | None, short_for("dataset")] = added_later(None)
    symmetric: bool = added_later(False)
    blank_labels: Literal["refuse", "drop"] = added_later("refuse")
    split_rule: Rule = Field(default=2, exclude_if=lambda value: value == 1)
    label_rule: Rule = Field(default=2, exclude_if=lambda value: value == 1)

    @model_validator(mode="before")
    @classmethod
    def _rules_of_stored_tasks(cls, data: Any, info: ValidationInfo) -> Any:
        if info.mode == "json" and isinstance(data, dict):
            return dict.fromkeys(RULES, 1) | data
        return data

    @model_validator(mode="after")
    def _symmetric_pairs(self) -> TaskSettings:
        if self.symmetric and len(self.text) != 2:
            raise ValueError(
                "symmetric: says that the two texts of a pair may change places, and text names "
                "one column; leave 'symmetric' out"
            )
        if self.symmetric and self.split_rule == 1:
            raise ValueError("symmetric needs split_rule: 2; leave one of the two out")
        return self

    @model_validator(mode="after")
    def _fits_its_kind(self) -> TaskSettings:
        # Imported here: the table needs numpy, and a command that reads no task should start
        # without.
        from kdsweep.core.evaluation.metric_table import metric_named, metrics_for

        fitting = metric_named(self.metric).kinds
        if self.kind.name not in fitting:
            raise ValueError(
                f"metric {self.metric} is for kind: {' or '.join(fitting)}; a task of kind: "
                f"{self.kind} has {', '.join(metrics_for(self.kind))}"
            )
        if broken := unfit_labels(self.kind, self.label, self.labels):
            raise ValueError(broken)
        return self

    @model_validator(mode="after")
    def _pairs_keep_their_heads(self) -> TaskSettings:
        if self.truncation != "head" and len(self.text) == 2:
            raise ValueError(
                f"truncation: {self.truncation} is for one text; of a pair the longer one loses "
                "its end (leave it out, or 'head')"
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
                f"unlabelled.text names {len(other)} columns and text names {len(self.text)}: both "
                "must name the same number"
            )
        return self


class TrainingSettings(Strict):
    """How a model is trained; the same for every strategy unless the space says otherwise."""

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

    epoch: take the teacher after this many epochs of fine-tuning, instead of at its best
    evaluation. seeds: how many to fine-tune; the best on validation is kept. folds: how many
    further teachers label train, each the rows that it was not trained on. weight: relative to
    other teachers; no part of what the teacher is. revision: of a model or checkpoint on the Hub;
    a sweep's trials have its commit there. settled_precision: as of `TrialSettings`; it holds for
    labelling too.
    """

    model: Text | None = None
    checkpoint: Text | None = None
    revision: Text | None = added_later(None)
    labels: LabelNames | None = None
    trust_remote_code: bool = False
    training: TeacherTraining = TeacherTraining()
    epoch: Annotated[int, Field(ge=1)] | None = added_later(None)
    seeds: Annotated[int, Field(ge=1)] = added_later(1)
    folds: Annotated[int, Field(ge=2)] | None = added_later(None)
    weight: Annotated[Number, Field(gt=0)] = added_later(1.0)
    settled_precision: SettledPrecision | None = added_later(None)

    @model_validator(mode="after")
    def _one_source(self) -> TeacherSettings:
        if (self.model is None) == (self.checkpoint is None):
            raise ValueError(
                "a teacher needs either 'model' (to fine-tune first) or 'checkpoint' (fine-tuned "
                "already)"
            )
        if self.labels is not None and self.checkpoint is None:
            raise ValueError(
                "'labels' names the outputs of a 'checkpoint', in its order; a 'model' to "
                "fine-tune has none"
            )
        given = [name for name in ("epoch", "seeds", "folds") if name in self.model_dump()]
        if self.checkpoint is not None and given:
            raise ValueError(
                f"'{given[0]}' says how a 'model' is fine-tuned; a 'checkpoint' is taken as it is"
            )
        if self.epoch is not None and self.epoch > self.training.epochs:
            raise ValueError(
                f"epoch {self.epoch} is past the end: the teacher is fine-tuned for "
                f"{self.training.epochs} epochs (training.epochs)"
            )
        return self

    @property
    def precision(self) -> Precision:
        """Of its matrix products in fine-tuning."""
        return self.settled_precision or self.training.precision

    @property
    def source(self) -> str:
        """The name of what it is made from."""
        return self.model or self.checkpoint or ""

    @property
    def loads_from(self) -> str:
        """Where its weights come from, with the version of a model on the Hub."""
        return at_revision(self.source, self.revision)

    @property
    def words(self) -> str:
        """Its name and how it is chosen, for use in a line: `bert-base (epoch 1)`."""
        chosen = []
        if self.epoch is not None:
            chosen.append(f"epoch {self.epoch}")
        if self.seeds > 1:
            chosen.append(f"best of {self.seeds} seeds")
        if self.folds is not None:
            chosen.append(f"{self.folds} folds")
        if self.training.seed:
            chosen.append(f"seed {self.training.seed}")
        return f"{self.source} ({', '.join(chosen)})" if chosen else self.source


OtherTeachers = Annotated[tuple[TeacherSettings, ...], BeforeValidator(as_tuple)]


class StudentSettings(Strict):
    """The small model. `model: teacher` takes it from the fine-tuned teacher.

    layers: how many to keep, evenly spaced, or which ones, from 0. start: `checkpoint` starts from
    the model's weights, `scratch` from random ones in its shape. width: of the hidden states; only
    from scratch. quantize: `int8` is judged, measured and exported with 8-bit weights; it trains as
    any other. revision: of a model on the Hub; a sweep's trials have its commit there.
    """

    model: Text
    revision: Text | None = added_later(None)
    layers: Annotated[int, Field(ge=1)] | LayerNumbers | None = None
    start: Literal["checkpoint", "scratch"] = added_later("checkpoint")
    width: Annotated[int, Field(ge=1)] | None = added_later(None)
    quantize: Quantize = added_later("none")
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _width_from_scratch(self) -> StudentSettings:
        if self.width is not None and self.start != "scratch":
            raise ValueError("width needs 'start: scratch': weights of another width can't be kept")
        return self

    @property
    def loads_from(self) -> str:
        """Where its weights come from, with the version of a model on the Hub."""
        return at_revision(self.model, self.revision)

    @property
    def shape(self) -> str:
        """How it differs from the model, for use after its name: `, 3 layers`."""
        parts = []
        if isinstance(self.layers, tuple):
            parts.append(f"layers {' '.join(map(str, self.layers))}")
        elif self.layers is not None:
            parts.append(f"{self.layers} layer{'s' * (self.layers > 1)}")
        if self.width is not None:
            parts.append(f"width {self.width}")
        if self.start == "scratch":
            parts.append("from scratch")
        if self.quantize != "none":
            parts.append(self.quantize)
        return "".join(f", {part}" for part in parts)


class TrialSettings(Strict):
    """One student training with settled values.

    `model_dump_json` and `model_validate_json` are each other's inverse. further_teachers: their
    logits are mixed with those of `teacher`, which alone gives layers and inner states.
    judge_test: the student is judged on the test split too, once, at the end. settled_precision:
    what its sweep has settled `training.precision` to; None: nothing settled it, as in sweeps of
    version 0.1.0, and `auto` is fp32 on every CPU.
    """

    task: TaskSettings
    teacher: TeacherSettings | None = None
    further_teachers: OtherTeachers = added_later(())
    student: StudentSettings
    training: TrainingSettings = TrainingSettings()
    alpha: bounded_schedule("alpha")  # type: ignore[valid-type]
    temperature: bounded_schedule("temperature") = Constant(value=1.0)  # type: ignore[valid-type]
    learning_rate: bounded_schedule("learning_rate")  # type: ignore[valid-type]
    distill: DistillSettings = added_later(DistillSettings())
    augment: AugmentSettings | None = added_later(None)
    seed: Annotated[int, Field(ge=0)] = 0
    judge_test: bool = Field(default=False, exclude_if=lambda value: not value)
    settled_precision: SettledPrecision | None = added_later(None)

    @model_validator(mode="after")
    def _teacher_where_needed(self) -> TrialSettings:
        if self.teacher is None and self.needs_teacher:
            raise ValueError(
                "an alpha below 1, a student with 'model: teacher', or a term of the teacher's "
                "inner states needs a teacher"
            )
        if self.teacher is None and self.further_teachers:
            raise ValueError("further_teachers needs 'teacher' too; set it")
        return self

    @model_validator(mode="after")
    def _fits_its_kind(self) -> TrialSettings:
        values: dict[str, object] = {
            "distill.logits": self.divergence,
            "distill.temperature_follows": self.distill.temperature_follows,
            "label_smoothing": self.training.label_smoothing,
        }
        for name, value in values.items():
            if broken := self.task.kind.unfit(name, value):
                raise ValueError(broken)
        return self

    @property
    def precision(self) -> Precision:
        """Of the student's matrix products in training."""
        return self.settled_precision or self.training.precision

    @property
    def divergence(self) -> str:
        """What the logits' term is trained with.

        The stored default stands for the kind's own. Settings of older versions may name it in a
        regression, which was trained with squared error even then.
        """
        named = self.distill.logits
        return self.task.kind.default_divergence if named == DEFAULT else named

    def trains_as(self, stored: dict[str, object]) -> bool:
        """Whether stored settings, perhaps of an older version, train the same student."""
        if stored == self.model_dump(mode="json"):
            return True
        other = TrialSettings.model_validate_json(json.dumps(stored))
        return self._with_divergence() == other._with_divergence()

    def _with_divergence(self) -> TrialSettings:
        """The settings with what the default divergence stands for."""
        distill = self.distill.model_copy(update={"logits": self.divergence})
        return self.model_copy(update={"distill": distill})

    @property
    def teachers(self) -> tuple[TeacherSettings, ...]:
        """All that the trial learns from, the first one first; empty if it needs none."""
        if self.teacher is None or not self.needs_teacher:
            return ()
        return (self.teacher, *self.further_teachers)

    @property
    def needs_logits(self) -> bool:
        """Whether any step weighs the teacher."""
        return min(self.alpha.values_taken()) < 1

    @property
    def is_taught(self) -> bool:
        """Whether any step learns from the teacher, so that rows without a label are useful."""
        return self.needs_logits or bool(self.distill.online)

    @property
    def needs_teacher(self) -> bool:
        return self.is_taught or self.student.model == "teacher"
