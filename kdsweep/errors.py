"""Everything that can go wrong because of a user, a disk, a network or a model.

KdsweepError                  exit status 1, one line for the user
├── SpaceError                a search space or sweep file; knows its file and line
├── DataError                 the task's rows, columns, labels or splits
│   ├── BlankLabels           rows without a label in a split that needs one
│   └── HubUnreachable        a dataset or model of the Hub that isn't in the local cache
├── ModelError                a model, tokenizer or layer selection
├── TeacherError              a teacher that can't be trusted
├── SettingsConflict          a folder that holds another trial or another sweep
├── SweepLocked               another driver runs this sweep
├── UnknownSweep              no sweep of that name in this home
├── DamagedFile               a file of home or of its cache that can't be read as what it is
├── NewerFiles                files that a newer version of kdsweep wrote
├── FolderGone                home, or the sweep's folder, was removed or renamed under a sweep
├── Superseded                a trial that another process writes since; ends it here
├── TrackingUnreachable       MLflow doesn't answer; what it lacks stays on disk
├── TrackingDamaged           MLflow's database is damaged; the next run starts a new one
├── TrackingRefused           MLflow answers and will never take this; nothing sends it again
├── TrialDiverged             a loss that is not finite; ends one trial
├── OutOfMemory               a step doesn't fit into memory in any micro-batch; ends one trial
├── BudgetSpent               exit status 3: no trial finished within the budget
└── Interrupted               exit status 130: stopped on request and saved; can be resumed
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class KdsweepError(Exception):
    """An error with one line for the user: what happened, where, and what to do next."""

    exit_status = 1


class SpaceError(KdsweepError):
    """A search space or a sweep file breaks a rule.

    `file` is the path as the user gave it (or `--set`), `line` counts from 1; None means no line.
    """

    def __init__(self, file: str, line: int | None, message: str) -> None:
        self.file, self.line, self.rule = file, line, message
        super().__init__(f"{file}:{line}: {message}" if line else f"{file}: {message}")


class DataError(KdsweepError):
    """The rows of the task don't fit what the space says about them."""


class BlankLabels(DataError):
    """Rows of a split have no label, and the space doesn't say that they are left out."""


class HubUnreachable(DataError):
    """The Hub doesn't answer, and the local cache lacks what was asked for."""


class ModelError(KdsweepError):
    """A model, its tokenizer or a selection of its layers can't be used."""


class TeacherError(KdsweepError):
    """The teacher knows no more than the majority class, or its labels are not the task's."""


class SettingsConflict(KdsweepError):
    """A folder already holds a trial or a sweep with other settings."""


class SweepLocked(KdsweepError):
    """Another driver runs this sweep."""


class UnknownSweep(KdsweepError):
    """There is no sweep of that name."""


class DamagedFile(KdsweepError):
    """A file that is missing or cut short, or holds something else.

    what: which file it is, and what is wrong with it. todo: what a user can do.
    """

    def __init__(self, what: str, todo: str) -> None:
        self.what = what
        super().__init__(f"{what}; {todo}")


class NewerFiles(KdsweepError):
    """A newer version of kdsweep wrote what this one doesn't know."""


class FolderGone(KdsweepError):
    """A folder that work goes on in was removed, renamed or replaced."""


class Superseded(KdsweepError):
    """This process was cut off while it trained a trial, which was started again elsewhere."""


class TrackingUnreachable(KdsweepError):
    """MLflow doesn't answer now."""


class TrackingDamaged(KdsweepError):
    """The tracker's database is damaged. Asking again is of no use before another one is there."""


class TrackingRefused(KdsweepError):
    """The tracker will never take a part of what it was sent.

    run_id: of the run that has everything else; None if it has nothing.
    """

    def __init__(self, message: str, run_id: str | None = None) -> None:
        self.run_id = run_id
        super().__init__(message)


class TrialDiverged(KdsweepError):
    """The loss of a trial is not finite. `step` counts optimizer steps from 0."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"the loss is not finite at step {step}")


class OutOfMemory(KdsweepError):
    """A step doesn't fit into memory, not even in the smallest micro-batches."""


class BudgetSpent(KdsweepError):
    """The budget ended before any trial finished."""

    exit_status = 3


class Interrupted(KdsweepError):
    """Stopped on request; everything is saved and can be resumed."""

    exit_status = 130


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(str(word), [str(name) for name in known], n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def first_few(names: Iterable[object], most: int = 8) -> str:
    """`a, b, c and 9 more`: at most `most` names, with commas."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


# How much of another library's reason a message repeats, in characters.
LONGEST_REASON = 200


def first_line(error: BaseException) -> str:
    """The first line of another library's error, or the error's name if it has no text.

    Of pydantic's it is the first mistake, with its place: the first line alone only counts them.
    """
    if type(error).__name__ == "ValidationError" and callable(getattr(error, "errors", None)):
        first = error.errors()[0]  # type: ignore[attr-defined]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def without_password(text: str) -> str:
    """The text with each password of a URL as `***`.

    That is `//user:***@` and `?password=***`. A password may contain a `/`: databases accept it,
    though a URL shouldn't have it.
    """
    in_login = re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", text)
    return re.sub(r"([?&](?:\w*password|passwd|pwd)=)[^&\s]*", r"\1***", in_login)
