"""A machine that can't do a worker's part is refused with what to do."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from kdsweep.core.evaluation.latency_figures import Device
from kdsweep.errors import KdsweepError
from kdsweep.sweep.engines.worker import Worker, WorkerHost
from kdsweep.sweep.engines.worker_check import WorkerCheck
from kdsweep.sweep.folders import Home

Make = Callable[..., WorkerCheck]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(packages, local_tracking=): a check that process 1 on machine `far` has answered."""
    folder = Home(tmp_path).sweep("tiny")
    folder.root.mkdir(parents=True)

    def made(
        packages: dict[str, str] | None = None, *, local_tracking: bool = False
    ) -> WorkerCheck:
        check = WorkerCheck(folder, packages or {}, local_tracking=local_tracking)
        check.write()
        check.file.with_name(f"{check.file.name}-far-1").write_text(check.content)
        return check

    return made


def far(packages: dict[str, str | None] | None = None, *, shares_home: bool = True) -> WorkerHost:
    device = Device(name="a processor", threads=1)
    return WorkerHost("far", 1, "", shares_home, device, packages or {})


def test_a_machine_that_does_not_share_home_is_refused(make: Make) -> None:
    with pytest.raises(KdsweepError, match=r"home: a worker on far can't read .*--home"):
        make().check(far(shares_home=False))


def test_sqlite_tracking_is_refused_with_workers_on_other_machines(make: Make) -> None:
    rule = r"tracking: sqlite works on one machine only.*mlflow server.*--set tracking"
    with pytest.raises(KdsweepError, match=rule):
        make(local_tracking=True).check(far())
    make(local_tracking=False).check(far())


@pytest.mark.parametrize(
    ("there", "found"), [("1.0", "has version 1.0"), (None, "isn't installed")]
)
def test_another_version_of_a_package_that_the_sweep_uses_is_refused(
    there: str | None, found: str, make: Make
) -> None:
    check = make({"nice-metrics": "1.1"})
    with pytest.raises(KdsweepError) as raised:
        check.check(far({"nice-metrics": there}))
    assert str(raised.value) == (
        f"packages: nice-metrics {found} on far, and the sweep uses 1.1; "
        "run `pip install nice-metrics==1.1` there"
    )
    check.check(far({"nice-metrics": "1.1"}))


def test_a_worker_here_answers_with_its_versions_and_is_taken(make: Make) -> None:
    check = make({"numpy": version("numpy")}, local_tracking=True)
    host = Worker().hello(check.file, check.content, [*check.packages, "no-such-package"])
    assert host.packages == {"numpy": version("numpy"), "no-such-package": None}
    check.check(host)
    check.remove()
    assert not list(check.file.parent.iterdir())
