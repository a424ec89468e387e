"""A machine that can't do a worker's part is refused with what to do."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from kdsweep.core.evaluation.latency_figures import Device
from kdsweep.core.files import read_json, write_json
from kdsweep.errors import KdsweepError
from kdsweep.sweep.engines import worker_actor
from kdsweep.sweep.engines.worker import Worker, WorkerHost
from kdsweep.sweep.engines.worker_actor import CODE, installed
from kdsweep.sweep.engines.worker_check import (
    WorkerCheck,
    check_this_machine,
    deciding_packages,
    difference,
)
from kdsweep.sweep.folders import Home

Make = Callable[..., WorkerCheck]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(packages, local_tracking=): a check that process 1 on machine `far` has answered."""
    folder = Home(tmp_path).sweep("tiny")
    folder.root.mkdir(parents=True)

    def made(
        packages: dict[str, str | None] | None = None, *, local_tracking: bool = False
    ) -> WorkerCheck:
        check = WorkerCheck(folder, packages or {}, local_tracking=local_tracking)
        check.write()
        check.file.with_name(f"{check.file.name}-far-1").write_text(check.content)
        return check

    return made


def far(*, shares_home: bool = True) -> WorkerHost:
    return WorkerHost("far", 1, "", shares_home, Device(name="a processor", threads=1))


def test_a_machine_that_does_not_share_home_is_refused(make: Make) -> None:
    with pytest.raises(KdsweepError, match=r"home: a worker on far can't read .*--home"):
        make().check(far(shares_home=False))


def test_sqlite_tracking_is_refused_with_workers_on_other_machines(make: Make) -> None:
    rule = r"tracking: sqlite works on one machine only.*mlflow server.*--set tracking"
    with pytest.raises(KdsweepError, match=rule):
        make(local_tracking=True).check(far())
    make(local_tracking=False).check(far())


# --- packages ---


WANTED: dict[str, str | None] = {"kdsweep": "0.2.0", "torch": "2.13.0", CODE: "abc"}


@pytest.mark.parametrize(
    ("there", "line"),
    [
        (
            {"torch": "2.12.1"},
            "it has torch 2.12.1, and the sweep uses torch 2.13.0; run `pip install torch==2.13.0` "
            "there",
        ),
        (
            {"kdsweep": "0.1.0", "torch": None, CODE: "def"},
            "it has kdsweep 0.1.0 and torch not at all, and the sweep uses kdsweep 0.2.0 and torch "
            "2.13.0; run `pip install kdsweep==0.2.0 torch==2.13.0` there",
        ),
        (
            {CODE: "def"},
            "its kdsweep 0.2.0 has other code than the sweep's, which has the same version; "
            "install the same kdsweep there",
        ),
    ],
)
def test_other_packages_are_named_with_both_versions(
    there: dict[str, str | None], line: str
) -> None:
    assert difference(WANTED, WANTED | there) == line
    assert difference(WANTED, WANTED) is None


def test_what_a_build_is_for_and_bug_fixes_of_numpy_make_no_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions = {"torch": "2.13.0+cpu", "numpy": "2.4.1"}
    monkeypatch.setattr(worker_actor, "version", versions.__getitem__)
    before = worker_actor.installed(versions)
    versions |= {"torch": "2.13.0+cu130", "numpy": "2.4.3"}
    assert worker_actor.installed(versions) == before
    versions |= {"torch": "2.13.1+cpu", "numpy": "2.5.0"}
    assert worker_actor.installed(versions) == {"torch": "2.13.1", "numpy": "2.5"}


def test_all_that_decides_numbers_is_compared_and_of_other_machines_the_code_too() -> None:
    names = {"kdsweep", "torch", "transformers", "tokenizers", "numpy", "scipy"}
    assert set(deciding_packages(["scipy"], one_machine=True)) == names
    found = deciding_packages(["scipy"], one_machine=False)
    assert set(found) == names | {CODE}
    assert None not in found.values()


def test_a_machine_compares_itself_before_it_joins(make: Make, tmp_path: Path) -> None:
    folder = Home(tmp_path).sweep("tiny")
    check_this_machine(folder)
    make({"numpy": installed(["numpy"])["numpy"]})
    check_this_machine(folder)
    check = make({"numpy": "1.0"})
    rule = f"tiny: {re.escape(socket.gethostname())} can't be used: it has numpy .*numpy==1.0"
    with pytest.raises(KdsweepError, match=rule):
        check_this_machine(folder)
    # Ray is told of another Python in a way that tells nobody else.
    write_json(folder.cluster_packages, read_json(folder.cluster_packages) | {"python": "3.9.1"})
    with pytest.raises(KdsweepError, match="python 3.9.1"):
        check_this_machine(folder)
    check.remove()
    check_this_machine(folder)


def test_a_worker_here_is_taken(make: Make) -> None:
    check = make(local_tracking=True)
    check.check(Worker().hello(check.file, check.content))
    check.remove()
    assert not list(check.file.parent.iterdir())
