"""Whether the task's rows are still those that a sweep ran with."""

from __future__ import annotations

from kdsweep.core.data.loading import load_task
from kdsweep.core.data.unlabelled import load_unlabelled
from kdsweep.core.settings import TaskSettings
from kdsweep.errors import DataError
from kdsweep.sweep.folders import Home, SweepFolder


def check_rows(
    home: Home, folder: SweepFolder, task: TaskSettings, *, unlabelled: bool = False
) -> None:
    """Raise DataError if the rows have changed since the sweep ran.

    unlabelled: compare the text without labels too. It changes what a trial learns, but judges no
    student.
    """
    recorded = dict(folder.read_facts().data or {})
    data = load_task(task, home.cache, publish=False)
    now = {name: split.key for name, split in data.splits.items()}
    if not unlabelled:
        recorded.pop("unlabelled", None)
    elif task.unlabelled is not None:
        now["unlabelled"] = load_unlabelled(task, data, home.cache, publish=False)[0].key
    if changed := [name for name, key in recorded.items() if now.get(name) != key]:
        raise DataError(
            f"sweep {folder.name!r}: the rows of {' and '.join(changed)} have changed since it "
            "ran; restore the data and try again"
        )
