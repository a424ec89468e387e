"""Who waits for a job in Slurm's queue is told why it doesn't start. Slurm's commands are fakes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdsweep.sweep.folders import Home

SCRIPTS = Path(__file__).parents[1] / "sweeps" / "slurm"
sys.path.insert(0, str(SCRIPTS))

import submit

# What it says of a job in a state is in a file of that name.
SQUEUE = """#!/bin/bash
for word; do [[ $word == --states=* ]] && cat "{folder}/${{word#--states=}}" 2>/dev/null; done
exit 0
"""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with Slurm's commands, first on the PATH."""
    scripts = {"squeue": SQUEUE, "sbatch": "#!/bin/sh\necho 7\n", "scancel": "#!/bin/sh\n"}
    for name, text in scripts.items():
        (tmp_path / name).write_text(text.format(folder=tmp_path))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("QOSMaxCpuPerJobLimit", "can't start as it is: QOSMaxCpuPerJobLimit; "),
        ("QOSMaxCpuPerNode", "can't start as it is: QOSMaxCpuPerNode; "),
        ("QOSGrpCpuLimit", "waits for a limit of your account or QOS: QOSGrpCpuLimit; "),
        ("AssocMaxJobsLimit", "waits for a limit of your account or QOS: AssocMaxJobsLimit; "),
        ("Priority", None),
        ("Resources", None),
    ],
)
def test_a_drivers_job_that_a_limit_keeps_waiting_is_told_in_one_line(
    queue: Path, reason: str, words: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    (queue / "PENDING").write_text(f"{reason}\n")
    submit._submit(Home(queue / "home"), "tiny", "1", ["run"], ["worker"], submit.Fitting())
    errors = capfd.readouterr().err
    if words is None:
        assert not errors
    else:
        assert errors.startswith(f"tiny: the driver's job {words}") and errors.count("\n") == 1


def test_a_driver_says_once_which_limit_keeps_its_workers_waiting(queue: Path) -> None:
    log, over, asked = queue / "log", queue / "over", queue / "asked"
    squeue = (queue / "squeue").read_text().replace("exit 0", f"echo >> {asked}; exit 0")
    (queue / "squeue").write_text(squeue)
    wait = f"while [ ! -e {over} ]; do sleep 0.05; done"
    with log.open("w") as file:
        driver = subprocess.Popen(
            ["bash", str(SCRIPTS / "driver.sbatch"), "bash", "-c", wait],
            stdout=file,
            stderr=file,
            env=os.environ | {"SLURM_JOB_ID": "7", "KDSWEEP_SECONDS_BETWEEN_LOOKS": "0.05"},
        )
        until = time.monotonic() + 60
        # An empty answer is one that failed: it makes no reason new.
        for reason in ("AssocGrpCpuLimit", "", "AssocGrpCpuLimit", "QOSMaxCpuPerNode"):
            (queue / "next").write_text(f"{reason}\n{reason}\nPriority\n" if reason else "")
            (queue / "next").replace(queue / "PENDING")
            asked.write_text("")
            # The last look but one began after that.
            while asked.read_text().count("\n") < 5:
                assert time.monotonic() < until
                time.sleep(0.02)
        over.touch()
        assert driver.wait(60) == 0
    first, second = log.read_text().splitlines()
    assert first.startswith("driver: queued workers wait for a limit of your account or QOS: Assoc")
    assert "AssocGrpCpuLimit; this job counts too" in first
    assert second.startswith("driver: queued workers can't start as they are: QOSMaxCpuPerNode; ")


def test_a_driver_says_nothing_of_limits_while_a_worker_runs(queue: Path) -> None:
    log = queue / "log"
    (queue / "PENDING").write_text("AssocGrpCpuLimit\n")
    (queue / "RUNNING").write_text("7_1\n")
    asked = queue / "asked"
    # It has looked several times.
    squeue = (queue / "squeue").read_text().replace("exit 0", f"echo >> {asked}; exit 0")
    (queue / "squeue").write_text(squeue)
    wait = f"until [ $(wc -l < {asked}) -ge 5 ] 2>/dev/null; do sleep 0.05; done"
    with log.open("w") as file:
        subprocess.run(
            ["bash", str(SCRIPTS / "driver.sbatch"), "bash", "-c", wait],
            stdout=file,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"SLURM_JOB_ID": "7", "KDSWEEP_SECONDS_BETWEEN_LOOKS": "0.05"},
            check=True,
            timeout=60,
        )
    assert not log.read_text()
