"""What `sweep.json` keeps: what the sweep is, how it was last run, and what its runs found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, Self, cast

from kdsweep import __version__
from kdsweep.compare.rungs import ExpectedComplete
from kdsweep.compare.teacher_record import TeacherRecord
from kdsweep.config import SweepConfig
from kdsweep.config.loading import Plain
from kdsweep.config.older_sweeps import stored_lag
from kdsweep.core.hub.repository import Repository
from kdsweep.core.settings import SettledPrecision
from kdsweep.core.strict_model import of_newer_version
from kdsweep.errors import NewerFiles
from kdsweep.formatting import joined
from kdsweep.sweep.pins import Pins
from kdsweep.trial_id import TrialId

# Raised when earlier versions would misread a sweep's files, or continue it wrongly. They refuse a
# higher number than their own. A key that they can ignore, or refuse by its name, needs none.
FORMAT = 2
# Of a sweep whose space has changed. Earlier versions would count trials that don't any more.
CHANGED_FORMAT = 2
# Facts that aren't plain values.
OBJECTS = ("teachers", "plugins", "pins", "commits", "confirm", "looked", "changed", "expected")


@dataclass(frozen=True)
class ConfirmRules:
    """What a sweep can't change once a trial was trained again: values of `Confirm`.

    most: with `seeds: auto`; None with a number of seeds. first: how many seeds there were before,
    with a number of seeds; the first look is at them. favorite: the strategy that was ahead on
    validation before the first look.
    """

    finalists: int
    margin: float
    most: int | None = None
    first: int | None = None
    favorite: str | None = None

    def to_json(self) -> dict[str, object]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class LookedAt:
    """What the looks of `confirm.seeds: auto` have asked for so far, all by strategy.

    trials: the number of the trial that is confirmed. judged: how many of its seeds the last look
    judged. wanted: how many there should be; as many where no more are wanted.
    """

    trials: dict[str, int]
    judged: dict[str, int]
    wanted: dict[str, int]

    @classmethod
    def before(cls, trials: dict[str, int], first: int) -> LookedAt:
        """Before the first look, which is at `first` seeds."""
        return cls(trials, dict.fromkeys(trials, 0), dict.fromkeys(trials, first))

    def is_open(self, strategy: str) -> bool:
        """Whether this strategy is to get more seeds than were judged."""
        return self.wanted[strategy] > self.judged[strategy]

    def is_due(self, ended: Mapping[str, int]) -> bool:
        """Whether all seeds of the next look have ended. ended: how many, without a gap."""
        open_ones = [strategy for strategy in self.trials if self.is_open(strategy)]
        return bool(open_ones) and all(ended[one] >= self.wanted[one] for one in open_ones)

    @property
    def words(self) -> str:
        """`look after 3 seeds: distill and combined get seeds up to 5, finetune gets no more`."""
        open_ones = [strategy for strategy in self.trials if self.is_open(strategy)]
        others = [strategy for strategy in self.trials if not self.is_open(strategy)]
        after = f"look after {max(self.judged.values())} seeds"
        if not open_ones:
            return f"{after}: no strategy gets more"
        more = f"{joined(open_ones)} get seeds up to {self.wanted[open_ones[0]]}"
        if not others:
            return f"{after}: {more}"
        verb = "gets" if len(others) == 1 else "get"
        return f"{after}: {more}, {joined(others)} {verb} no more"


@dataclass(frozen=True)
class ChangedStrategy:
    """A strategy whose space was changed, or only its `start_with`.

    version: the number of this space, from 1; each space has its own study. before: how many trials
    had started before the last change. outside: those of them that don't fit the new space.
    """

    version: int = 1
    before: int = 0
    outside: tuple[int, ...] = ()


@dataclass(frozen=True)
class SweepFacts:
    """The content of `sweep.json`. Only the driver writes it.

    kdsweep: the version that ran the sweep last. identity: what must stay the same when the sweep
    runs again. experiment: its MLflow experiment. sweep: the sweep file's values as last run,
    without passwords.
    connected: whether the tracker ever answered. tracked: whether the tracker has everything.
    pins: what its numbers rest on. teachers: the one that students are measured by comes first.
    teachers_found: the names of those that were in the cache before the sweep made one; None until
    it starts to.
    notified: a hash of the end of the sweep that `on_done` was told about.
    latency: who measures it: `once`, the sweep, for each architecture before its first trial; `each
    trial`, as earlier versions did, its own student when it ends.
    teacher_threads: of CPU, with which its teachers are made; None: those of a slot, as on GPUs, on
    a cluster, and where an earlier version started the sweep.
    precision: what `precision: auto` means in the sweep; `unsettled` until its first slot is there;
    None if an earlier version started it.
    mended: faults of earlier versions that the numbers are free of (see `mended_faults`).
    plugins: metric or divergence -> the installed package that adds it, and its version.
    commits: of each repository of the Hub; None if an earlier version started the sweep.
    changed: strategies whose space isn't the one that the sweep was started with, and those that
    were removed.
    unversioned: the version that trained the trials of which none was noted; None where there is no
    such trial, or if no other version has run the sweep since.
    confirm: the rules since the first run of a finalist or of confirm; None before it, and where an
    earlier version trained that run.
    looked: what the looks of confirm found; None before the first one.
    expected: how many trials of each strategy were expected to run to their end; empty until the
    search has ended.
    format: of the sweep's files. 1 isn't written, because the first versions had no such number.
    unknown: keys that a newer version wrote; they are kept.
    """

    kdsweep: str
    identity: dict[str, Plain]
    experiment: str
    sweep: dict[str, Plain]
    connected: bool = False
    tracked: bool = False
    pins: Pins = field(default_factory=Pins)
    teachers: tuple[TeacherRecord, ...] = ()
    teachers_found: tuple[str, ...] | None = None
    teacher_threads: int | None = None
    notified: str | None = None
    latency: Literal["once", "each trial"] = "each trial"
    precision: SettledPrecision | Literal["unsettled"] | None = None
    mended: tuple[str, ...] = ()
    plugins: dict[str, tuple[str, str]] = field(default_factory=dict)
    commits: Mapping[Repository, str] | None = None
    unversioned: str | None = None
    confirm: ConfirmRules | None = None
    looked: LookedAt | None = None
    changed: Mapping[str, ChangedStrategy] = field(default_factory=dict)
    expected: Mapping[str, ExpectedComplete] = field(default_factory=dict)
    format: int = 1
    unknown: dict[str, Plain] = field(default_factory=dict)

    @property
    def data(self) -> dict[str, str] | None:
        """The content hash of each split's rows; None before the rows were read."""
        return {name: split.key for name, split in self.pins.splits.items()} or None

    def has_room_for(self, trial: TrialId) -> bool:
        """Whether the sweep's current space has the trial. If not, the trial is kept as from an
        earlier space."""
        space = cast(dict[str, Plain], self.identity["space"])
        if trial.strategy not in cast(dict[str, Plain], space["strategies"]):
            return False
        return trial.number not in self._outside.get(trial.strategy, ())

    @cached_property
    def _outside(self) -> Mapping[str, frozenset[int]]:
        return {strategy: frozenset(one.outside) for strategy, one in self.changed.items()}

    @property
    def auto(self) -> SettledPrecision | None:
        """What `precision: auto` means; None where nothing has settled it."""
        return None if self.precision == "unsettled" else self.precision

    def config(self, sweep: str, more: Mapping[str, object]) -> SweepConfig:
        """The sweep's configuration as last run. more: values that `sweep.json` doesn't hold.

        Raises NewerFiles where it has keys that this version doesn't know.
        """
        # Sweeps of earlier versions confirm the best trial of the search.
        confirm = {"finalists": 1, **cast(dict[str, Plain], self.sweep.get("confirm", {}))}
        with of_newer_version(f"sweep {sweep!r} has", f"kdsweep {self.kdsweep}"):
            read = SweepConfig.model_validate({**self.sweep, "confirm": confirm, **more})
        return read.with_lag(stored_lag(self.sweep))

    @classmethod
    def from_json(cls, found: dict[str, Any], sweep: str) -> Self:
        """What `to_json` wrote, in this version or another one. sweep: its name.

        Raises NewerFiles where the sweep's files have a higher format number than this version's.
        """
        if found.get("format", 1) > FORMAT:
            raise NewerFiles(
                f"sweep {sweep!r} was written by kdsweep {found.get('kdsweep')}, which kdsweep "
                f"{__version__} can't read: upgrade kdsweep"
            )
        names = {one.name for one in fields(cls)} - {*OBJECTS, "unknown"}
        known = {name: value for name, value in found.items() if name in names}
        # The first versions kept one teacher alone.
        first = [found["teacher"]] if found.get("teacher") is not None else []
        teachers = [TeacherRecord.from_json(one) for one in found.get("teachers") or first]
        known["mended"] = tuple(found.get("mended", ()))
        if known.get("teachers_found") is not None:
            known["teachers_found"] = tuple(found["teachers_found"])
        pins = Pins.from_json(found.get("pins", {}), found.get("data") or {})
        plugins = {name: (package, at) for name, (package, at) in found.get("plugins", {}).items()}
        commits: dict[Repository, str] | None = None
        if "commits" in found:
            commits = {Repository(**one["of"]): one["commit"] for one in found["commits"]}
        confirm = ConfirmRules(**found["confirm"]) if "confirm" in found else None
        looked = LookedAt(**found["looked"]) if "looked" in found else None
        changed = {
            name: ChangedStrategy(one["version"], one["before"], tuple(one["outside"]))
            for name, one in found.get("changed", {}).items()
        }
        expected = {
            name: ExpectedComplete(one["complete"], one["trials"])
            for name, one in found.get("expected", {}).items()
        }
        read = {*names, *OBJECTS, "data", "teacher"}
        unknown = {name: value for name, value in found.items() if name not in read}
        return cls(
            **known,
            teachers=tuple(teachers),
            pins=pins,
            plugins=plugins,
            commits=commits,
            confirm=confirm,
            looked=looked,
            changed=changed,
            expected=expected,
            unknown=unknown,
        )

    def to_json(self) -> dict[str, object]:
        """As `sweep.json` holds it; what isn't known yet is left out."""
        values: dict[str, object] = {
            "kdsweep": self.kdsweep,
            "identity": self.identity,
            "experiment": self.experiment,
            "sweep": self.sweep,
            "connected": self.connected,
            "tracked": self.tracked,
            "data": self.data,
            "teachers_found": self.teachers_found,
            "teacher_threads": self.teacher_threads,
            "notified": self.notified,
            "latency": self.latency if self.latency == "once" else None,
            "precision": self.precision,
            "unversioned": self.unversioned,
            "format": self.format if self.format > 1 else None,
        }
        if self.mended:
            values["mended"] = list(self.mended)
        if self.pins.label_names is not None:
            values["pins"] = self.pins.to_json()
        if self.commits is not None:
            values["commits"] = [
                {"of": asdict(repository), "commit": commit}
                for repository, commit in self.commits.items()
            ]
        if self.confirm is not None:
            values["confirm"] = self.confirm.to_json()
        if self.looked is not None:
            values["looked"] = asdict(self.looked)
        if self.changed:
            values["changed"] = {name: asdict(one) for name, one in self.changed.items()}
        if self.expected:
            values["expected"] = {name: asdict(one) for name, one in self.expected.items()}
        if self.plugins:
            values["plugins"] = self.plugins
        if self.teachers:
            values["teachers"] = [teacher.to_json() for teacher in self.teachers]
            values["teacher"] = self.teachers[0].to_json()
        return self.unknown | {name: value for name, value in values.items() if value is not None}
