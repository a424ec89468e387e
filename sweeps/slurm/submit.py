"""`make sweep`: submit a sweep that workers join (engine {type: ray, address: head}) as Slurm jobs.

    python sweeps/slurm/submit.py SPACE --sweep FILE [all options of `kdsweep run`]

Any other sweep, or one on a machine without Slurm, runs here. WORKERS is the number of worker jobs
(4). SBATCH_DRIVER and SBATCH_WORKER are more options for sbatch and override those of the scripts.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click

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
    _submit(Home(home), plan.name, command, worker)


def _submit(home: Home, name: str, driver: list[str], worker: list[str]) -> None:
    count = os.environ.get("WORKERS") or "4"
    if not count.isdecimal() or int(count) < 1:
        raise KdsweepError(f"WORKERS is {count!r}; set it to a number of worker jobs, 1 or more")
    logs = home.root / "slurm-logs"
    logs.mkdir(parents=True, exist_ok=True)
    _forget_an_earlier_end(home.sweep(name))
    # sbatch replaces %j in this path; %% is a percent sign.
    log = str(logs).replace("%", "%%")
    driver_job = _sbatch("driver", [f"--output={log}/{name}-driver-%j.log"], driver)
    options = [
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


def _sbatch(role: str, options: list[str], command: list[str]) -> str:
    """Submit a job and return its id.

    The user's options come last: of two that contradict each other, sbatch takes the last.
    """
    variable = f"SBATCH_{role.upper()}"
    script = HERE / f"{role}.sbatch"
    users = shlex.split(os.environ.get(variable, ""))
    words = ["sbatch", "--parsable", *options, *users, str(script), *without_passwords(command)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise KdsweepError(
            f"sbatch refused the {role}'s job; change the options in {script}, or set {variable}"
        )
    return done.stdout.strip().split(";")[0]


def _forget_an_earlier_end(folder: SweepFolder) -> None:
    """Workers leave when they read that the sweep is over. These are for a driver that comes."""
    if folder.cluster.exists() and read_json(folder.cluster)["state"] == "over":
        folder.cluster.unlink()


def _become(command: list[str]) -> None:
    os.execv(command[0], command)


if __name__ == "__main__":
    hide_passwords()
    help_options = {"help_option_names": ["-h", "--help"]}
    click.Command(
        "make sweep", params=run.params, callback=sweep, help=__doc__, context_settings=help_options
    )(prog_name="make sweep")
