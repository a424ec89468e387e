"""The report of a sweep, as typed and frozen values. `report.json` and `--json` hold its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Protocol, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
)

from kdsweep.compare.findings import (
    AgainstTeacher,
    Pair,
    ParetoEntry,
    Question,
    SettingsComparison,
)
from kdsweep.compare.rungs import ExpectedComplete, Rung
from kdsweep.core.evaluation.latency_figures import ArchitectureLatency
from kdsweep.core.files import read_json, whole
from kdsweep.core.settings import TrialSettings
from kdsweep.core.versions import Versions
from kdsweep.trial_id import TrialId

Json = dict[str, JsonValue]
Importance = dict[str, float]  # parameter -> its share, 0 to 1


class _Part(BaseModel):
    """Frozen. Unknown keys are ignored, so that an older version reads a newer report."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", protected_namespaces=(), ser_json_inf_nan="constants"
    )

    @classmethod
    def from_json(cls, data: object) -> Self:
        """What `to_json` wrote, in this version or an older one."""
        return cls.model_validate(data)

    @classmethod
    def read(cls, file: Path) -> Self:
        """What the file holds. Raises KdsweepError if it is missing or damaged."""
        with whole(file):
            return cls.from_json(read_json(file))

    def to_json(self) -> Json:
        return self.model_dump(mode="json")


class Measured(Protocol):
    """What using a model costs. parameters: a count; size_mb: on disk; latency: of one text."""

    @property
    def parameters(self) -> float | None: ...
    @property
    def size_mb(self) -> float | None: ...
    @property
    def latency_ms(self) -> float | None: ...
    @property
    def latency_p95_ms(self) -> float | None: ...


class ModelCosts(_Part):
    """What using a student costs."""

    parameters: int | float | None = None
    size_mb: float | None = None
    latency_ms: float | None = None
    latency_p95_ms: float | None = None


class TeacherFacts(_Part):
    """A fine-tuned teacher.

    validation, test: the task's metric; `test` is None until the teacher is judged.
    ci95: of `test`, for the choice of test rows; None where its predictions weren't kept.
    selected: validation by seed, where the teacher is the best of several seeds; None for a seed
    that learned nothing.
    """

    validation: float
    parameters: int | float | None = None
    size_mb: float | None = None
    latency_ms: float | None = None
    latency_p95_ms: float | None = None
    test: float | None = None
    ci95: tuple[float, float] | None = None
    name: str = "teacher"
    selected: dict[str, float | None] | None = None


class TrialCounts(_Part):
    """The trials of a search that have ended; `failed` includes the diverged ones.

    earlier_space: those that the strategy's space doesn't have any more; they count nowhere.
    """

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    earlier_space: int = Field(default=0, exclude_if=lambda trials: trials == 0)

    @property
    def total(self) -> int:
        return self.complete + self.pruned + self.failed


class BestTrial(_Part):
    """The best trial of a strategy.

    trial: its number. params: what the sampler drew. validation: the task's metric in the search.
    teachers: the metric that its teachers reach together, where there are several.
    """

    trial: int
    params: Mapping[str, JsonValue]
    settings: TrialSettings
    validation: float
    student: ModelCosts | None = None
    teachers: float | None = None


class Finalist(_Part):
    """One of a strategy's best trials, trained again with fresh seeds and judged on validation.

    seeds: how many of these runs have ended. values: the metric of each, by seed; None where one
    failed. mean: of those that didn't. chosen: whether it is the one that confirm trains.
    """

    trial: int
    seeds: int
    values: tuple[float | None, ...]
    mean: float | None
    chosen: bool


class ConfirmResult(_Part):
    """The best trial's settings with fresh seeds, judged on the test split.

    seeds: how many finished of those `asked`. test, validation: the metric of each seed.
    mean: over seeds, on test. ci95: those of all strategies hold together in 95% of sweeps.
    retention: mean / teacher on test. against_teacher: the mean minus the teacher, on test.
    """

    seeds: int
    asked: int
    failed: int
    test: tuple[float, ...]
    validation: tuple[float, ...]
    mean: float | None
    ci95: tuple[float, float] | None
    retention: float | None
    against_teacher: AgainstTeacher | None = None


class StrategyResult(_Part):
    """What a strategy reached and cost.

    best: the best finalist once that is known, before it the search's best trial. finalists: the
    best first; empty before their first run, and where the search's best trial is confirmed.
    confirm: None until a run of confirm has ended. settings_comparison: None with fewer than two
    complete trials, and in reports of version 0.1.0. rungs: how well the metric on the way told the
    one at the end; empty with fewer than five complete trials. expected: how many trials were
    expected to run to their end; None before the end, and in sweeps of earlier versions.
    """

    trials: TrialCounts
    best: BestTrial | None
    slot_hours: float
    confirm: ConfirmResult | None
    finalists: tuple[Finalist, ...] = Field(default=(), exclude_if=lambda found: not found)
    settings_comparison: SettingsComparison | None = Field(
        default=None, exclude_if=lambda found: found is None
    )

    rungs: tuple[Rung, ...] = Field(default=(), exclude_if=lambda found: not found)
    expected: ExpectedComplete | None = Field(default=None, exclude_if=lambda found: found is None)

    @property
    def reached(self) -> float | None:
        """The metric on test if that was confirmed, else on validation; None without a trial."""
        if self.best is None:
            return None
        if self.confirm is None or self.confirm.mean is None:
            return self.best.validation
        return self.confirm.mean


class Recommendation(_Part):
    """The strategy to use, by the rule of `kdsweep.compare.recommendation`, and its student.

    trial, seed_index: the student with the best validation value among the strategy's.
    first_choice: the candidate with the highest mean on validation. candidates: the strategies that
    no other one beats on test. equivalent: those of them that are equivalent to the first choice.
    """

    strategy: str
    trial: int
    seed_index: int | None
    first_choice: str
    candidates: tuple[str, ...]
    equivalent: tuple[str, ...]

    @property
    def student(self) -> TrialId:
        return TrialId(self.strategy, self.trial, self.seed_index)


class CheapestStudent(_Part):
    """The cheapest student that is good enough, or else the nearest one.

    least, within, of: the sweep's `objective`. reference: the metric on validation that it is
    compared with. cost, teachers_cost: in milliseconds, MB, or as a count. seeds: how many runs
    judged it; 1: the trial of the search. loss: the reference minus its mean over these. most_loss:
    at the end of the one-sided 80% interval; None with one run, or where one failed. good_enough:
    whether that is `within` or less; None with one run, which shows neither.
    """

    least: str
    within: float
    of: str
    reference: float
    strategy: str
    trial: int
    good_enough: bool | None
    cost: float
    teachers_cost: float | None
    seeds: int
    loss: float | None
    most_loss: float | None


class MoreTest(_Part):
    """A further test split (`task.splits.more_tests`): the metric of the teacher, and by seed.

    teacher_ci95: for the choice of the split's rows; None where its predictions weren't kept.
    """

    teacher: float | None
    teacher_ci95: tuple[float, float] | None = None
    strategies: dict[str, tuple[float, ...]]


class EarlierSweeps(_Part):
    """What the sweep started from (`start_from`).

    known: how many of their trials the sampler knew from the start, by strategy. tried_first: how
    many of their best settings were its first trials.
    """

    sweeps: tuple[str, ...]
    known: dict[str, int]
    tried_first: dict[str, int]


class SlotUse(_Part):
    """Shares of the sweep's slot time by purpose, 0 to 1; `busy` is training and evaluating."""

    busy: float
    slot_seconds: float
    training: float = 0.0
    evaluating: float = 0.0
    start: float = 0.0
    saving: float = 0.0
    asking: float = 0.0
    waiting: float = 0.0
    lost: float = 0.0


class TrainedBy(_Part):
    """How many trials, and runs of finalists and of confirm, these versions trained.

    versions: more than one where trials were resumed with another version, in this order.
    """

    versions: tuple[Versions, ...]
    trials: int
    finalist_runs: int = Field(default=0, exclude_if=lambda found: not found)
    confirm_runs: int


class Reproduction(_Part):
    """How to run the sweep again: the command, versions of packages, hashes of sweep and data.

    commits: of what it has from the Hub, by the path of its page there. trained_by: empty where no
    trial has noted it.
    """

    command: str
    versions: dict[str, str]
    hashes: dict[str, str | dict[str, str] | None]
    commits: dict[str, str] = Field(default={}, exclude_if=lambda found: not found)
    trained_by: tuple[TrainedBy, ...] = Field(default=(), exclude_if=lambda found: not found)


def _winner_from_json(data: object) -> object:
    if isinstance(data, dict):
        return TrialId(data["strategy"], data["trial"], data["seed_index"])
    return data


def _winner_to_json(winner: TrialId | None) -> Json | None:
    if winner is None:
        return None
    return {
        "strategy": winner.strategy,
        "trial": winner.number,
        "seed_index": winner.seed_index,
    }


def _entry_from_json(data: object) -> object:
    if not isinstance(data, dict):
        return data
    costs = dict(data)
    trial_id = TrialId(costs.pop("strategy"), costs.pop("trial"))
    return ParetoEntry(trial_id, costs.pop("validation"), costs)


def _entry_to_json(entry: ParetoEntry) -> dict[str, str | int | float]:
    """The costs are keys next to the others."""
    return {
        "strategy": entry.id.strategy,
        "trial": entry.id.number,
        "validation": entry.validation,
        **entry.costs,
    }


Winner = Annotated[
    TrialId | None, BeforeValidator(_winner_from_json), PlainSerializer(_winner_to_json)
]
FrontEntry = Annotated[
    ParetoEntry, BeforeValidator(_entry_from_json), PlainSerializer(_entry_to_json)
]


class Report(_Part):
    """The report of a sweep.

    teacher: the one that students are measured by, the best on validation. teachers: all of them.
    verdict, rests_on, next_step: one sentence, and one line each; the last two are None in reports
    of earlier versions. margin: `confirm.margin`. recommended: the strategy to use; None in a
    report of version 0.1, and until a trial has finished. winner: the trial whose student is
    published.
    importance: for each strategy, or None where the trials can't tell. shown_to_matter: for each
    strategy, the parameters that were tested, and whether their effect is more than noise.
    cheapest: only where the sweep looked for the cheapest student. pareto: only where the sweep has
    several objectives; empty where all students cost the same.
    latencies: of each architecture that the sweep has measured. latency_note: how latency was
    measured, and what of it isn't sure. precision: what models were trained in; None where nothing
    has settled it. start_from: None where the sweep started from no other. state: `done`, or
    `stopped` before its end.
    """

    sweep: str
    metric: str
    teacher: TeacherFacts | None
    teachers: tuple[TeacherFacts, ...] = ()
    strategies: dict[str, StrategyResult]
    pairs: tuple[Pair, ...]
    questions: tuple[Question, ...]
    verdict: str
    rests_on: str | None = None
    next_step: str | None = None
    margin: float | None = None
    recommended: Recommendation | None = None
    more_tests: dict[str, MoreTest] = Field(default={}, exclude_if=lambda found: not found)
    cheapest: CheapestStudent | None = Field(default=None, exclude_if=lambda found: found is None)
    pareto: tuple[FrontEntry, ...] | None = Field(
        default=None, exclude_if=lambda front: front is None
    )
    latencies: tuple[ArchitectureLatency, ...] = Field(
        default=(), exclude_if=lambda found: not found
    )
    latency_note: str | None = Field(default=None, exclude_if=lambda note: note is None)
    importance: dict[str, Importance | None] = {}
    shown_to_matter: dict[str, dict[str, bool]] = Field(
        default={}, exclude_if=lambda found: not found
    )
    winner: Winner = None
    slots: SlotUse | None = None
    reproduce: Reproduction | None = None
    precision: str | None = Field(default=None, exclude_if=lambda found: found is None)
    start_from: EarlierSweeps | None = Field(default=None, exclude_if=lambda found: found is None)
    state: str = "done"

    @property
    def more_of_the_verdict(self) -> list[str]:
        """The lines after its sentence."""
        return [line for line in (self.rests_on, self.next_step) if line is not None]
