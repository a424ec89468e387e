"""`make sweep`: submit a sweep that workers join (engine {type: ray, address: head}) as Slurm jobs.

    python sweeps/slurm/submit.py SPACE --sweep FILE [all options of `kdsweep run`]

Any other sweep, or one on a machine without Slurm, runs here. WORKERS is the number of worker jobs
(4). SBATCH_DRIVER and SBATCH_WORKER are more options for sbatch and override those of the scripts.
Where the nodes have less than the scripts ask for, the jobs ask for what the nodes have.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import click
from slurm_facts import read_cluster, request_of
from slurm_fit import best_fit

from kdsweep.cli.options import PlanOptions, one_line_errors, takes_plan_options
from kdsweep.cli.passwords import hide_passwords, without_passwords
from kdsweep.cli.sweep_commands import run
from kdsweep.config.sweep import RayEngine
from kdsweep.core.files import read_json
from kdsweep.errors import KdsweepError
from kdsweep.sweep.folders import Home, SweepFolder

HERE = Path(__file__).parent
KDSWEEP = str(Path(sys.executable).with_name("kdsweep"))
# Then a worker frees its GPU until the driver's job starts again.
MINUTES_WITHOUT_A_DRIVER = 10
# Slurm looks at a new job within about a second, and finds then why it can't start.
SECONDS_FOR_A_REASON = 5.0
# The others, such as Resources, Priority and Dependency, pass.
NEVER_PASSES = re.compile(
    r"Partition(NodeLimit|TimeLimit|Down|Inactive|Config)|ReqNodeNotAvail|DependencyNever|"
    r"BadConstraints|Invalid|^Max(Mem|Cpu)PerLimit|PerJob|PerNode|QOSMin|"
    r"not (known|allowed|permitted)|NotAllowed|JobHeld|AssociationJobLimit|UserNotAllowed",
    re.IGNORECASE,
)
# Of an account or QOS, for all its jobs together: another job of it may hold what this one needs.
SHARED_LIMIT = re.compile("QOS|Assoc")


@takes_plan_options
@one_line_errors
def sweep(options: PlanOptions, fresh: bool, home: Path, as_json: bool) -> None:
    """Takes the options of `kdsweep run`."""
    plan = options.load()
    common = [*options.as_arguments(), "--home", str(Home(home).root)]
    command = [KDSWEEP, "run", *common]
    if fresh:
        command.append("--fresh")
    if as_json:
        command.append("--json")
    engine = plan.sweep.engine
    if not (isinstance(engine, RayEngine) and engine.address == "head"):
        _become(command)
    if shutil.which("sbatch") is None:
        click.echo(
            "make sweep: no Slurm here (no sbatch on the PATH); the sweep runs on this machine",
            err=True,
        )
        _become([*command, "--set", "engine={type: auto}"])
    worker = [KDSWEEP, "worker", *common, "--wait", str(MINUTES_WITHOUT_A_DRIVER)]
    count = os.environ.get("WORKERS") or "4"
    if not count.isdecimal() or int(count) < 1:
        raise KdsweepError(f"WORKERS is {count!r}; set it to a number of worker jobs, 1 or more")
    fitting = _fitting(plan.name, engine)
    _submit(Home(home), plan.name, count, command + fitting.both, worker + fitting.both, fitting)


@dataclass(frozen=True)
class Fitting:
    """Options for sbatch, of each job, and for both commands, so that the nodes have enough."""

    driver: tuple[str, ...] = ()
    worker: tuple[str, ...] = ()
    both: list[str] = field(default_factory=list)


def _fitting(name: str, engine: RayEngine) -> Fitting:
    """Says in a line what is asked for in place of what the scripts say.

    Raises KdsweepError where the nodes have too little for one slot beside the driver.
    """
    cluster = read_cluster()
    if cluster is None:
        return Fitting()
    asked = {role: request_of(role, HERE / f"{role}.sbatch") for role in ("driver", "worker")}
    known = {partition for one in asked.values() for partition in one.partitions}
    if not known <= cluster.partitions.keys():
        # sbatch says which it doesn't know.
        return Fitting()
    fit = best_fit(cluster, asked["driver"], asked["worker"], engine)
    driver, worker = fit.driver.options(asked["driver"]), fit.worker.options(asked["worker"])
    cores = fit.worker.cpus if engine.cpus_per_trial > fit.worker.cpus else None
    changes = [
        f"{who} asks for {' '.join(options)}"
        for who, options in (("the driver's job", driver), ("a worker's job", worker))
        if options
    ]
    if cores is not None:
        changes.append(f"a trial gets {cores} of its {engine.cpus_per_trial} cores")
    if changes:
        click.echo(f"{name}: the nodes have less than was asked for: {'; '.join(changes)}")
    if not any(one.is_up for one in cluster.nodes):
        click.echo(f"{name}: no node is up now (`sinfo`), so the jobs wait until one is")
    both = [] if cores is None else ["--set", f"engine.cpus_per_trial={cores}"]
    return Fitting(tuple(driver), tuple(worker), both)


def _submit(
    home: Home, name: str, count: str, driver: list[str], worker: list[str], fitting: Fitting
) -> None:
    logs = home.root / "slurm-logs"
    logs.mkdir(parents=True, exist_ok=True)
    _forget_an_earlier_end(home.sweep(name))
    # sbatch replaces %j in this path; %% is a percent sign.
    log = str(logs).replace("%", "%%")
    output = f"--output={log}/{name}-driver-%j.log"
    driver_job = _sbatch("driver", [output, *fitting.driver], driver)
    options = [
        *fitting.worker,
        f"--array=1-{count}",
        f"--job-name=kdsweep-workers-{driver_job}",
        f"--dependency=after:{driver_job}",
        f"--output={log}/{name}-worker-%A_%a.log",
    ]
    try:
        worker_job = _sbatch("worker", options, worker)
    except KdsweepError:
        subprocess.run(["scancel", driver_job], check=False)
        raise
    click.echo(
        f"{name}: submitted the driver's job {driver_job} and the workers' {worker_job}_1 to "
        f"{worker_job}_{count}"
    )
    driver_log = shlex.quote(f"{logs}/{name}-driver-{driver_job}.log")
    status = shlex.join([KDSWEEP, "status", name, "--home", str(home.root)])
    for line, why in (
        (f"squeue --jobs={driver_job},{worker_job}", "the state of the jobs"),
        (status, "the progress of the sweep"),
        (f"tail -f {driver_log}", "the driver's log; the workers' logs are in the same folder"),
        (
            f"scancel {driver_job} {worker_job}",
            "save everything and stop; run the same `make sweep` to resume",
        ),
    ):
        click.echo(f"  {line}    # {why}")
    reason = _reason_to_wait(driver_job)
    if NEVER_PASSES.search(reason):
        click.echo(
            f"{name}: the driver's job can't start as it is: {reason}; cancel both, set "
            "SBATCH_DRIVER or SBATCH_PARTITION, and run the same `make sweep` again",
            err=True,
        )
    elif SHARED_LIMIT.match(reason):
        click.echo(
            f"{name}: the driver's job waits for a limit of your account or QOS: {reason}; if no "
            "other job holds what it needs, it never starts: cancel both, set SBATCH_ACCOUNT or "
            "SBATCH_QOS, or have the limit raised (`sacctmgr show qos`, `sacctmgr show assoc`)",
            err=True,
        )


def _reason_to_wait(job: str) -> str:
    """Slurm's reason why a job that it accepted is in the queue; empty where it isn't there."""
    until = time.monotonic() + SECONDS_FOR_A_REASON
    while time.monotonic() < until:
        command = ["squeue", "--noheader", "--states=PENDING", "--format=%r", f"--jobs={job}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        reason = done.stdout.strip()
        if reason != "None":
            return reason
        time.sleep(0.2)
    return ""


def _sbatch(role: str, options: list[str], command: list[str]) -> str:
    """Submit a job and return its id.

    The user's options come last: of two that contradict each other, sbatch takes the last.
    """
    variable = f"SBATCH_{role.upper()}"
    script = HERE / f"{role}.sbatch"
    users = shlex.split(os.environ.get(variable, ""))
    words = ["sbatch", "--parsable", *options, *users, str(script), *without_passwords(command)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [""])[-1].removeprefix("sbatch: error: ")
        raise KdsweepError(
            f"sbatch refused the {role}'s job ({why}); change the options in {script}, or set "
            f"{variable}"
        )
    click.echo(done.stderr, nl=False, err=True)
    return done.stdout.strip().split(";")[0]


def _forget_an_earlier_end(folder: SweepFolder) -> None:
    """Workers leave when they read that the sweep is over. These are for a driver that comes."""
    if folder.cluster.exists() and read_json(folder.cluster)["state"] == "over":
        folder.cluster.unlink()


def _become(command: list[str]) -> NoReturn:
    os.execv(command[0], command)


if __name__ == "__main__":
    hide_passwords()
    help_options = {"help_option_names": ["-h", "--help"]}
    click.Command(
        "make sweep", params=run.params, callback=sweep, help=__doc__, context_settings=help_options
    )(prog_name="make sweep")
