"""The one place where a sweep's `tracking` becomes a tracker and a store for students."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdsweep.tracking.base import Tracking


def open_tracking(
    uri: str,
    *,
    experiment: str,
    sweep: str,
    artifacts: Path,
    say: Callable[[str], None] = lambda line: None,
) -> Tracking:
    """The tracker and the student store at `uri`. Connects with the first call of either.

    artifacts: where files go if `uri` is a database; a server has a folder of its own. say: is told
    what is restored, and of a damaged database that is replaced.
    Another tracker than MLflow is one more case here, chosen by how `uri` starts.
    """
    # Takes a second to import, and only what trains or fetches needs it.
    from kdsweep.tracking.mlflow_connection import MlflowConnection
    from kdsweep.tracking.mlflow_students import MlflowStudents
    from kdsweep.tracking.mlflow_tracker import MlflowTracker

    connection = MlflowConnection(uri, experiment=experiment, sweep=sweep, artifacts=artifacts)
    connection.say = say
    return Tracking(MlflowTracker(connection), MlflowStudents(connection))
