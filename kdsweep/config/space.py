"""The search space: WHAT one trial may be.

The rules that no single key can check are in `space_checks`, and `space_loading` makes a space from
its file.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Annotated, TypeVar, cast

from pydantic import Field, PrivateAttr

from kdsweep.config.extremes import extremes, numbers_in, plain_values
from kdsweep.config.loading import Plain, Scalar
from kdsweep.config.parameters import (
    NotAdmitted,
    Parameter,
    Suggest,
    admit,
    count_points,
    parameters,
    settle,
)
from kdsweep.config.section_values import (
    Strategy,
    StudentValues,
    TrainingValues,
    given_fields,
    nested,
    values_of,
)
from kdsweep.config.setting_types import is_whole
from kdsweep.config.teacher_values import Teachers, TeacherValues, as_teachers
from kdsweep.config.values import Value
from kdsweep.core.augment_settings import AugmentSettings, MaskedWordsSettings
from kdsweep.core.data.sources import may_be_on_hub
from kdsweep.core.distill_settings import DistillSettings
from kdsweep.core.evaluation.file_costs import ONNX_PACKAGES
from kdsweep.core.hub.repository import Repository
from kdsweep.core.objective.divergences import DIVERGENCES
from kdsweep.core.plugins import DIVERGENCES_GROUP, METRICS_GROUP, plugin_package
from kdsweep.core.schedules import parse_schedule
from kdsweep.core.settings import (
    SettledPrecision,
    StudentSettings,
    TaskSettings,
    TeacherSettings,
    TrainingSettings,
    TrialSettings,
)
from kdsweep.core.strict_model import Name, Strict
from kdsweep.errors import did_you_mean

OnHub = TypeVar("OnHub", TeacherSettings, StudentSettings, MaskedWordsSettings)
SCHEDULED = ("alpha", "temperature", "learning_rate")


class SearchSpace(Strict):
    """Task, teacher, student, fixed training settings, and the strategies to search."""

    name: Name
    task: TaskSettings
    teacher: Teachers | None = None
    student: StudentValues
    training: TrainingValues = TrainingValues()
    strategies: Annotated[dict[Name, Strategy], Field(min_length=1)]
    embedded: bool = Field(default=False, exclude=True)
    # The version of each repository of the Hub that trials have in their settings.
    _commits: Mapping[Repository, str] = PrivateAttr(default={})
    # What `precision: auto` means in the trials; None: nothing has settled it.
    _auto: SettledPrecision | None = PrivateAttr(default=None)

    # --- what a strategy asks its trials for ---

    def values(self, strategy: str) -> dict[str, Value]:
        """name -> value for everything that a trial of this strategy is asked for, in order."""
        chosen = self.strategies[strategy]
        training = given_fields(self.training)
        training |= {
            name: value
            for name, value in given_fields(chosen).items()
            if name in TrainingValues.model_fields
        }
        values: dict[str, Value] = {
            "alpha": chosen.alpha,
            "temperature": chosen.temperature,
            "learning_rate": training.get("learning_rate"),
        }
        values |= values_of(self.student, "student.")
        values |= values_of(chosen.distill, "distill.")
        for prefix, teacher in self._named_teachers(strategy):
            values |= teacher.values(prefix)
        if chosen.augment is not None:
            values |= values_of(chosen.augment, "augment.")
        for name in TrainingSettings.model_fields:
            if name in training:
                values[name] = training[name]
        return values

    def parameters(self, strategy: str) -> list[Parameter]:
        """The dimensions of the strategy's study."""
        return [
            found
            for name, value in self.values(strategy).items()
            for found in parameters(value, name, whole=is_whole(name))
        ]

    def count_points(self, strategy: str) -> int | None:
        """How many different trials the strategy has, or None if a range is continuous."""
        total = 1
        for name, value in self.values(strategy).items():
            count = count_points(value, name, whole=is_whole(name))
            if count is None:
                return None
            total *= count
        return total

    # --- one trial ---

    def settle(self, strategy: str, suggest: Suggest, seed: int) -> TrialSettings:
        """One trial of the strategy, with each parameter as `suggest` says."""
        settled = {
            name: settle(value, name, suggest, whole=is_whole(name))
            for name, value in self.values(strategy).items()
        }
        return self.trial(strategy, settled, seed)

    def trial(self, strategy: str, settled: Mapping[str, Plain], seed: int) -> TrialSettings:
        """One trial of the strategy from its settled values, by dotted names."""
        student = nested(settled, "student.")
        training = {
            name: value for name, value in settled.items() if name in TrainingSettings.model_fields
        }
        schedules = {name: parse_schedule(settled[name]) for name in SCHEDULED}
        distill = DistillSettings.model_validate(nested(settled, "distill."))
        needs_teacher = (
            min(schedules["alpha"].values_taken()) < 1
            or student["model"] == "teacher"
            or bool(distill.online)
        )
        teachers = []
        if needs_teacher:
            teachers = [
                self._teacher_of_trials(teacher.settled(nested(settled, prefix)))
                for prefix, teacher in self._named_teachers(strategy)
            ]
        return TrialSettings(
            task=self.task,
            teacher=teachers[0] if teachers else None,
            further_teachers=tuple(teachers[1:]),
            student=self.at_commit(
                StudentSettings(
                    **student,
                    revision=self._revision_of(student["model"]),
                    trust_remote_code=self.student.trust_remote_code,
                )
            ),
            training=TrainingSettings.model_validate(training),
            seed=seed,
            alpha=schedules["alpha"],
            temperature=schedules["temperature"],
            learning_rate=schedules["learning_rate"],
            distill=distill,
            augment=self._views(strategy, nested(settled, "augment.")),
            settled_precision=self._settled(str(training.get("precision", "auto"))),
        )

    def _views(self, strategy: str, settled: dict[str, Plain]) -> AugmentSettings | None:
        """The trial's views, with the constants of the masked language model."""
        if not settled:
            return None
        views = AugmentSettings.model_validate(settled)
        own = self.strategies[strategy].augment
        if views.masked_lm is None or own is None or own.masked_lm is None:
            return views
        given = own.masked_lm
        constants = {"revision": given.revision, "trust_remote_code": given.trust_remote_code}
        words = views.masked_lm.model_copy(update=constants)
        return views.model_copy(update={"masked_lm": self.at_commit(words)})

    def first_trials(self, strategy: str) -> list[dict[str, Scalar]]:
        """The parameters of each `start_with` entry; the sampler chooses those that are left."""
        return [self.admit(strategy, entry) for entry in self.strategies[strategy].start_with]

    def admit(self, strategy: str, entry: Mapping[str, object]) -> dict[str, Scalar]:
        """The parameters of one `start_with` entry. Raises NotAdmitted with the reason."""
        values = self.values(strategy)
        known = {parameter.name: parameter.domain for parameter in self.parameters(strategy)}
        found: dict[str, Scalar] = {}
        for name, settled in entry.items():
            if name in values:
                found |= admit(values[name], settled, name, whole=is_whole(name))
                continue
            if name not in known:
                raise NotAdmitted(f"unknown key {name!r}{did_you_mean(name, [*values, *known])}")
            domain = known[name]
            if not isinstance(domain, tuple):
                found |= admit(domain, settled, name)
                continue
            if settled not in domain:
                choices = ", ".join(map(str, domain))
                raise NotAdmitted(f"{name}: {settled!r} is none of {choices}")
            found[name] = settled
        return found

    # --- teachers ---

    def teachers_of(self, strategy: str) -> tuple[TeacherValues, ...]:
        """The strategy's teachers, its first one first; none if no trial of it can need one."""
        if not self.may_need_teacher(strategy):
            return ()
        own = self.strategies[strategy].teacher
        if own is None:
            return as_teachers(self.teacher)
        if isinstance(own, TeacherValues) and isinstance(self.teacher, TeacherValues):
            return (own if own.is_whole else own.on(self.teacher),)
        return as_teachers(own)

    def _named_teachers(self, strategy: str) -> list[tuple[str, TeacherValues]]:
        """Each with the prefix of its values' names."""
        teachers = self.teachers_of(strategy)
        if len(teachers) == 1:
            return [("teacher.", teachers[0])]
        return [(f"teacher.{i}.", teacher) for i, teacher in enumerate(teachers)]

    def teachers(self) -> list[TeacherSettings]:
        """Every teacher that a trial can need, each once; the strategies' first ones come first."""
        listed = [self.teachers_of(strategy) for strategy in self.strategies]
        first = [teachers[0] for teachers in listed if teachers]
        further = [teacher for teachers in listed for teacher in teachers[1:]]
        every = {
            one.model_dump_json(): self._teacher_of_trials(one)
            for teacher in first + further
            for one in teacher.every()
        }
        return list(every.values())

    @property
    def needs_teacher(self) -> bool:
        """Whether any trial can need a teacher."""
        return any(self.may_need_teacher(strategy) for strategy in self.strategies)

    def may_need_teacher(self, strategy: str) -> bool:
        """Whether a trial of the strategy can need a teacher."""
        models = [model for _, model in plain_values(self.student.model)]
        return "teacher" in models or self.may_be_taught(strategy)

    def may_be_taught(self, strategy: str) -> bool:
        """Whether any step of a trial of the strategy can learn from the teacher."""
        values = values_of(self.strategies[strategy].distill, "distill.")
        for name, value in values.items():
            if name.endswith(".weight") and any(weight > 0 for weight in numbers_in(value)):
                return True
        return any(alpha < 1 for alpha in numbers_in(self.strategies[strategy].alpha))

    # --- precision ---

    @property
    def auto(self) -> SettledPrecision | None:
        """What `precision: auto` means in the trials; None where nothing has settled it."""
        return self._auto

    def settle_auto(self, auto: SettledPrecision | None) -> None:
        """Fix what `precision: auto` means, before the first trial. None changes nothing."""
        self._auto = auto or self._auto

    @property
    def says_auto(self) -> bool:
        """Whether a student or a teacher can have `precision: auto`."""
        return "auto" in self._given_precisions()

    def precisions(self) -> tuple[str, ...]:
        """Each precision that a student or a teacher can have; `auto` where nothing settled it."""
        return tuple(dict.fromkeys(self._settled(one) or one for one in self._given_precisions()))

    def _given_precisions(self) -> list[str]:
        default = TrainingSettings().precision
        given = [self.values(strategy).get("precision", default) for strategy in self.strategies]
        students = [str(plain) for value in given for _, plain in plain_values(value)]
        return [*students, *(one.training.precision for one in self.teachers())]

    def _settled(self, precision: str) -> SettledPrecision | None:
        """None where nothing has settled `auto`: then no other precision is marked either."""
        if self._auto is None or precision == "auto":
            return self._auto
        return cast(SettledPrecision, precision)

    def _teacher_of_trials(self, teacher: TeacherSettings) -> TeacherSettings:
        settled = self._settled(teacher.training.precision)
        return self.at_commit(teacher).model_copy(update={"settled_precision": settled})

    # --- students and views ---

    @property
    def may_quantize(self) -> bool:
        """Whether a student can have 8-bit weights."""
        return any(plain == "int8" for _, plain in plain_values(self.student.quantize))

    def packages(self) -> tuple[str, ...]:
        """The packages that numbers depend on, in addition to those of every sweep."""
        return (*dict(self.plugins().values()), *(ONNX_PACKAGES if self.may_quantize else ()))

    def plugins(self) -> dict[str, tuple[str, str]]:
        """Metric or divergence -> the package that adds it and its version."""
        # Imported here: the table needs numpy, and a command that reads no task should start
        # without.
        from kdsweep.core.evaluation.metric_table import METRICS

        divergences = {
            str(value)
            for strategy in self.strategies.values()
            for _, value in plain_values(strategy.distill.logits)
        }
        metric = self.task.metric
        wanted = [(METRICS_GROUP, metric)] if metric not in METRICS else []
        wanted += [(DIVERGENCES_GROUP, name) for name in sorted(divergences - DIVERGENCES.keys())]
        found = {name: plugin_package(group, name) for group, name in wanted}
        return {name: package for name, package in found.items() if package is not None}

    def students(self) -> list[StudentSettings]:
        """Each choice of a student, with both ends of each range."""
        student = self.student
        found: dict[str, StudentSettings] = {}
        models = dict.fromkeys(str(model) for _, model in plain_values(student.model))
        starts = dict.fromkeys(str(start) for _, start in plain_values(student.start))
        every_layers = list(extremes(student.layers, whole=True))
        for model, start in product(models, starts):
            widths = extremes(student.width, whole=True) if start == "scratch" else [None]
            for layers, width in product(every_layers, widths):
                shape = StudentSettings.model_validate(
                    {
                        "model": model,
                        "revision": self._revision_of(model),
                        "layers": layers,
                        "start": start,
                        "width": width,
                        "trust_remote_code": student.trust_remote_code,
                    }
                )
                found.setdefault(shape.model_dump_json(), self.at_commit(shape))
        return list(found.values())

    def _revision_of(self, model: str) -> str | None:
        """The student's `revision`, which `model: teacher` has none of."""
        return None if model == "teacher" else self.student.revision

    def most_views(self, strategy: str) -> int:
        """How many views of a row the strategy's trials can have at most."""
        augment = self.strategies[strategy].augment
        if augment is None:
            return 0
        if not self.may_be_taught(strategy) and not augment.may_augment_finetuning:
            return 0
        return round(max(numbers_in(augment.views)))

    # --- versions of what is on the Hub ---

    def repositories(self) -> list[Repository]:
        """Each repository of the Hub that a trial can need, with the revision that the space names.

        What is a file or a folder on this machine is none. Asked of a space without commits.
        """
        models = [(one.source, one.revision) for one in self.teachers()]
        models += [(one.model, one.revision) for one in self.students() if one.model != "teacher"]
        models += [(one.model, one.revision) for one in self.masked_lms()]
        rows = [(self.task.dataset, self.task.revision)]
        if (more := self.task.unlabelled) is not None:
            rows.append((more.dataset, more.revision))
        found = [Repository("dataset", str(name), at) for name, at in rows if may_be_on_hub(name)]
        found += [Repository("model", name, at) for name, at in models if may_be_on_hub(name)]
        return list(dict.fromkeys(found))

    def with_commits(self, commits: Mapping[Repository, str]) -> SearchSpace:
        """The space, its trials with these commits in place of the revisions that it names."""
        task = self.task
        if isinstance(task.dataset, str):
            at = commits.get(Repository("dataset", task.dataset, task.revision), task.revision)
            task = task.model_copy(update={"revision": at})
        if (more := task.unlabelled) is not None:
            at = commits.get(Repository("dataset", more.dataset, more.revision), more.revision)
            more = more.model_copy(update={"revision": at})
            task = task.model_copy(update={"unlabelled": more})
        pinned = self.model_copy(update={"task": task})
        pinned._commits = dict(commits)
        return pinned

    @property
    def commits(self) -> Mapping[Repository, str]:
        """The commit of each repository, by the revision that the space names."""
        return self._commits

    def at_commit(self, model: OnHub) -> OnHub:
        """The settings of a model with its commit, where the space has commits."""
        name = model.source if isinstance(model, TeacherSettings) else model.model
        commit = self._commits.get(Repository("model", name, model.revision))
        return model if commit is None else model.model_copy(update={"revision": commit})

    def masked_lms(self, strategy: str | None = None) -> list[MaskedWordsSettings]:
        """The masked language models that replace words in the strategy, or in any."""
        found: dict[str, MaskedWordsSettings] = {}
        for name in self.strategies if strategy is None else [strategy]:
            augment = self.strategies[name].augment
            if augment is None or (words := augment.masked_lm) is None:
                continue
            for _, model in plain_values(words.model):
                one = MaskedWordsSettings(
                    model=str(model),
                    revision=words.revision,
                    trust_remote_code=words.trust_remote_code,
                )
                found.setdefault(one.model_dump_json(), self.at_commit(one))
        return list(found.values())

    # --- written out ---

    def resolved(self, data: Mapping[str, Plain]) -> dict[str, Plain]:
        """The space written out: it loads to the same trials wherever the file is.

        data: the document that the space was built from.
        """
        out: dict[str, Plain] = {
            "name": self.name,
            "task": self.task.model_dump(mode="json", exclude_none=True),
        }
        teachers: list[Plain] = [
            one.model_dump(mode="json", exclude_none=True) for one in as_teachers(self.teacher)
        ]
        if isinstance(self.teacher, tuple):
            out["teacher"] = teachers
        elif teachers:
            out["teacher"] = teachers[0]
        training: dict[str, Plain] = TrainingSettings().model_dump(mode="json")
        given = data.get("training", {})
        assert isinstance(given, dict)
        out["student"] = data["student"]
        out["training"] = training | given
        out["strategies"] = data["strategies"]
        return out
