"""What `kdsweep plan` shows: what would run and what it would cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from kdsweep.config import Plan, trials_of
from kdsweep.config.loading import Scalar
from kdsweep.core.data.rows import Split, TaskData
from kdsweep.core.hub.repository import shown
from kdsweep.core.hub.snapshots import hub_cache, snapshots_only
from kdsweep.core.models.describing import parameter_count, size_mb
from kdsweep.core.schedules import Schedule
from kdsweep.errors import DataError, SettingsConflict
from kdsweep.sweep.changed_space import space_change
from kdsweep.sweep.confirm_rules import check_confirm_rules
from kdsweep.sweep.cost_estimate import CostEstimate, Measurements, estimate_costs
from kdsweep.sweep.earlier_sweeps import what_to_start_from
from kdsweep.sweep.engines.memory import memory_limit
from kdsweep.sweep.expected_answers import ExpectedAnswers, expected_answers
from kdsweep.sweep.expected_seed_runs import ExpectedSeedRuns, expected_seed_runs
from kdsweep.sweep.folders import Home
from kdsweep.sweep.identity import check_same_sweep
from kdsweep.sweep.idle_slots import idle_slots
from kdsweep.sweep.input_check import check_same_inputs
from kdsweep.sweep.memory_estimate import MemoryEstimate, estimate_memory
from kdsweep.sweep.planned_slots import PlannedSlots, planned_slots
from kdsweep.sweep.precision import PrecisionFacts, planned_precision
from kdsweep.sweep.preflight import Checked, PlannedModel, check_models
from kdsweep.sweep.random_trials import random_settings
from kdsweep.sweep.start_from import StartedFrom

SAMPLES = 2


@dataclass(frozen=True)
class SplitFacts:
    """A split: its rows, and what the kind of its task says about the labels.

    labels: rows of each label. values: the lowest, mean and highest label.
    """

    rows: int
    labels: dict[str, int] | None = None
    values: dict[str, float] | None = None


@dataclass(frozen=True)
class TaskFacts:
    """The task's rows. unlabelled: how many rows without a label there are."""

    labels: list[str]
    metric: str
    splits: dict[str, SplitFacts]
    unlabelled: int
    notes: list[str]


@dataclass(frozen=True)
class Truncated:
    """How many texts, of those counted, are longer than the model reads."""

    rows: int
    of: int


@dataclass(frozen=True)
class ModelFacts:
    """A teacher or a student. truncated: by split."""

    role: Literal["teacher", "student"]
    model: str
    labels: int
    parameters: int
    size_mb: float
    weights: Literal["here", "not downloaded yet"]
    truncated: dict[str, Truncated]


@dataclass(frozen=True)
class Sample:
    """The schedules of a trial drawn at random."""

    alpha: Schedule
    temperature: Schedule
    learning_rate: Schedule


@dataclass(frozen=True)
class StudyFacts:
    """A strategy's search. parameters: each one's domain in words. start_with: what is tried first;
    tried_by: the trial of an earlier sweep that had these settings, or empty.
    """

    trials: int
    parameters: dict[str, str]
    start_with: list[dict[str, Scalar]]
    tried_by: list[str]
    samples: list[Sample]


@dataclass(frozen=True)
class PlanFacts:
    """What would run and what it would cost.

    seed_runs: how many runs judge finalists and confirm the best ones. notes: what a user should
    know about models and slots. start_from: what is taken from earlier sweeps, and what isn't.
    changed_space: what stays and what is new, if the sweep's strategies have changed.
    """

    sweep: str
    home: str
    precision: PrecisionFacts
    task: TaskFacts
    models: list[ModelFacts]
    notes: list[str]
    start_from: list[str]
    changed_space: list[str]
    studies: dict[str, StudyFacts]
    seed_runs: ExpectedSeedRuns
    estimate: CostEstimate
    slots: PlannedSlots
    memory: MemoryEstimate
    answers: ExpectedAnswers

    def to_json(self) -> dict[str, object]:
        """What `kdsweep plan --json` prints."""
        return {
            "sweep": self.sweep,
            "home": self.home,
            "precision": asdict(self.precision),
            "task": asdict(self.task)
            | {"splits": {name: _without_none(one) for name, one in self.task.splits.items()}},
            "models": [asdict(model) for model in self.models],
            "notes": self.notes,
            "start_from": self.start_from,
            "changed_space": self.changed_space,
            "studies": {name: _study_to_json(study) for name, study in self.studies.items()},
            "seed_runs": asdict(self.seed_runs),
            "estimate": asdict(self.estimate),
            "slots": asdict(self.slots),
            "memory": asdict(self.memory),
            "answers": asdict(self.answers),
        }


def _without_none(split: SplitFacts) -> dict[str, object]:
    return {name: value for name, value in asdict(split).items() if value is not None}


def _study_to_json(study: StudyFacts) -> dict[str, object]:
    samples = [
        {name: schedule.model_dump(mode="json") for name, schedule in vars(sample).items()}
        for sample in study.samples
    ]
    return {
        "trials": study.trials,
        "parameters": study.parameters,
        "start_with": study.start_with,
        "tried_by": study.tried_by,
        "samples": samples,
    }


def describe(plan: Plan, home: Path) -> PlanFacts:
    """What would run and what it would cost. Trains nothing, writes nothing, asks the Hub nothing.

    plan: with its sweep's rules and its inputs (`run_sweep.with_inputs`).
    """
    with snapshots_only(hub_cache(Home(home).cache)):
        return _describe(plan, home)


def _describe(plan: Plan, home: Path) -> PlanFacts:
    space = plan.space
    precision = planned_precision(plan, Home(home).sweep(plan.name))
    checked = check_models(space, Home(home).cache)
    slots = planned_slots(plan, Home(home).sweep(plan.name))
    threads = dict.fromkeys(checked.students, slots.threads)
    threads |= dict.fromkeys(checked.teachers, slots.teacher_threads or slots.threads)
    measured = Measurements(checked.data, precision.used, threads)
    estimate = estimate_costs(plan, checked, measured)
    change = space_change(plan, Home(home).sweep(plan.name))
    starts_from = what_to_start_from(plan, Home(home))
    return PlanFacts(
        sweep=plan.name,
        home=str(home),
        precision=precision,
        task=TaskFacts(
            labels=list(checked.data.label_names),
            metric=space.task.metric,
            splits={
                name: _split_facts(split, checked.data)
                for name, split in checked.data.splits.items()
            },
            unlabelled=len(checked.unlabelled) if checked.unlabelled else 0,
            notes=list(checked.notes),
        ),
        models=[_model_facts("teacher", one, checked, measured) for one in checked.teachers]
        + [_model_facts("student", one, checked, measured) for one in checked.students],
        notes=[
            *_changed(plan, Home(home)),
            *filter(None, [idle_slots(plan, estimate.slots)]),
            *checked.model_notes,
            *checked.weight_notes,
        ],
        start_from=list(starts_from.lines),
        changed_space=[] if change is None else list(change.lines),
        studies={name: _study_facts(plan, name, starts_from) for name in space.strategies},
        seed_runs=expected_seed_runs(plan),
        estimate=estimate,
        slots=slots,
        memory=estimate_memory(checked, plan.sweep.engine, memory_limit()),
        answers=expected_answers(plan, estimate.slots),
    )


def _changed(plan: Plan, home: Home) -> list[str]:
    """Why `run` would refuse to add trials to a sweep: its settings, rows, models or rules of
    confirm have changed."""
    try:
        check_same_sweep(plan, home.sweep(plan.name))
        check_confirm_rules(plan, home.sweep(plan.name))
        check_same_inputs(home, home.sweep(plan.name), plan.space)
    except (DataError, SettingsConflict) as error:
        return [f"run would refuse: {error}"]
    return []


def _split_facts(split: Split, data: TaskData) -> SplitFacts:
    return SplitFacts(len(split), **data.kind.describe_split(split.labels, data.label_names))


def _model_facts(
    role: Literal["teacher", "student"],
    planned: PlannedModel,
    checked: Checked,
    measured: Measurements,
) -> ModelFacts:
    texts = dict(checked.data.splits)
    if checked.unlabelled is not None:
        texts["unlabelled"] = checked.unlabelled
    truncated: dict[str, Truncated] = {}
    for name, split in texts.items():
        lengths = measured.lengths(split, planned)
        longer = int((lengths > planned.max_length).sum())
        truncated[name] = Truncated(longer, of=len(lengths))
    return ModelFacts(
        role=role,
        model=shown(planned.source),
        labels=planned.model.config.num_labels,
        parameters=parameter_count(planned.model),
        size_mb=round(size_mb(planned.model), 1),
        weights="not downloaded yet" if planned.on_meta else "here",
        truncated=truncated,
    )


def _study_facts(plan: Plan, strategy: str, starts_from: StartedFrom) -> StudyFacts:
    parameters = plan.space.parameters(strategy)
    first = starts_from.first_trials(plan.space, strategy)
    return StudyFacts(
        trials=trials_of(plan.space, plan.sweep, strategy),
        parameters={parameter.name: parameter.describe() for parameter in parameters},
        start_with=[dict(one.params) for one in first],
        tried_by=[one.of for one in first],
        samples=[_sample(plan, strategy, number) for number in range(SAMPLES)],
    )


def _sample(plan: Plan, strategy: str, number: int) -> Sample:
    settings = random_settings(plan, strategy, number)
    return Sample(settings.alpha, settings.temperature, settings.learning_rate)
