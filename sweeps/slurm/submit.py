"""`make sweep`: submit the two Slurm jobs of a sweep that workers join (engine {type: ray, address: head}); run any other here.

    python sweeps/slurm/submit.py SPACE --sweep FILE [whatever `kdsweep run` takes]

WORKERS says how many worker jobs (4); SBATCH_DRIVER and SBATCH_WORKER are more options for sbatch, before those of the scripts.
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
MINUTES_WITHOUT_A_DRIVER = 10  # then a worker frees its GPU until the driver's job begins again


@takes_plan_options
@one_line_errors
def sweep(options: PlanOptions, fresh: bool, home: Path, as_json: bool) -> None:
    plan = options.load()
    common = [*options.as_arguments(), "--home", str(Home(home).root)]
    command = [KDSWEEP, "run", *common]
    command += ["--fresh"] if fresh else []
    command += ["--json"] if as_json else []
    if not (isinstance(plan.sweep.engine, RayEngine) and plan.sweep.engine.address == "head"):
        _become(command)
    if shutil.which("sbatch") is None:
        click.echo(
            "make sweep: there is no Slurm here (no sbatch on the PATH): the sweep runs on this machine alone",
            err=True,
        )
        _become([*command, "--set", "engine={type: auto}"])
    _submit(
        Home(home),
        plan.name,
        command,
        [KDSWEEP, "worker", *common, "--wait", str(MINUTES_WITHOUT_A_DRIVER)],
    )


def _submit(home: Home, name: str, driver: list[str], worker: list[str]) -> None:
    count = os.environ.get("WORKERS") or "4"
    if not count.isdecimal() or int(count) < 1:
        raise KdsweepError(
            f"WORKERS is {count!r}; it says how many worker jobs there are, 1 or more"
        )
    logs = home.root / "slurm-logs"
    logs.mkdir(parents=True, exist_ok=True)
    _forget_an_earlier_end(home.sweep(name))
    log = str(logs).replace("%", "%%")
    driver_job = _sbatch("driver", [f"--output={log}/{name}-driver-%j.log"], driver)
    options = [
        f"--array=1-{count}",
        f"--job-name=kdsweep-workers-{driver_job}",
        f"--dependency=after:{driver_job}",
    ]
    try:
        worker_job = _sbatch(
            "worker", [*options, f"--output={log}/{name}-worker-%A_%a.log"], worker
        )
    except KdsweepError:
        subprocess.run(["scancel", driver_job], check=False)
        raise
    click.echo(
        f"{name}: submitted the driver's job {driver_job} and the workers' {worker_job}_1 to {worker_job}_{count}"
    )
    for line, why in (
        (f"squeue --jobs={driver_job},{worker_job}", "where they are"),
        (shlex.join([KDSWEEP, "status", name, "--home", str(home.root)]), "how far the sweep is"),
        (
            f"tail -f {shlex.quote(f'{logs}/{name}-driver-{driver_job}.log')}",
            "what the driver says; the workers' logs are beside it",
        ),
        (
            f"scancel {driver_job} {worker_job}",
            "saves what runs and stops; the same `make sweep` goes on",
        ),
    ):
        click.echo(f"  {line}    # {why}")


def _sbatch(role: str, options: list[str], command: list[str]) -> str:
    """Submit a job; return its id. The user's options come last: sbatch takes the last of two that contradict each other."""
    own = shlex.split(os.environ.get(f"SBATCH_{role.upper()}", ""))
    words = [
        "sbatch",
        "--parsable",
        *options,
        *own,
        str(HERE / f"{role}.sbatch"),
        *without_passwords(command),
    ]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise KdsweepError(
            f"sbatch took no {role}'s job; change the options in {HERE / f'{role}.sbatch'}, or give others in SBATCH_{role.upper()}"
        )
    return done.stdout.strip().split(";")[0]


def _forget_an_earlier_end(folder: SweepFolder) -> None:
    """Workers leave when they read that the sweep is over; those submitted now are for the driver submitted now."""
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
