"""The commands that run a sweep: `run`, `worker` and `plan`."""

from __future__ import annotations

from pathlib import Path

import click

from kdsweep.cli.options import (
    PlanOptions,
    home_option,
    json_option,
    one_line_errors,
    plan_options,
    print_json,
)
from kdsweep.cli.output import go_on_without_output
from kdsweep.errors import KdsweepError


@click.command(short_help="Run a sweep, or resume it.")
@plan_options
@click.option(
    "--fresh",
    is_flag=True,
    help="Start over. The existing sweep is renamed to NAME.1.",
)
@home_option
@json_option
@one_line_errors
def run(options: PlanOptions, fresh: bool, home: Path, as_json: bool) -> None:
    """Run the sweep of SPACE: teacher, search, result.

    Run the same command again to resume.

    \b
    Example:
      kdsweep run sst2 --sweep quick --embedded
      kdsweep run sst2 --set training.epochs=2 --set trials=5
    """
    # A mistake in a file is reported before torch is imported, which takes seconds.
    plan = options.load()
    from kdsweep.sweep.startup_timer import StartupTimer, process_started, without_collecting

    startup_timer = StartupTimer(process_started())
    with without_collecting():
        from kdsweep.sweep.folders import Home
        from kdsweep.sweep.run_sweep import run_plan
        from kdsweep.terminal.progress import observing
        from kdsweep.terminal.report import show_report

    go_on_without_output()
    with observing(stderr=as_json) as observer:
        report = run_plan(
            plan, Home(home), fresh=fresh, observer=observer, startup_timer=startup_timer
        )
    if as_json:
        print_json(report.to_json())
    else:
        show_report(report, home)


@click.command(short_help="Let this machine run trials of a sweep.")
@plan_options
@home_option
@click.option(
    "--gpus",
    type=click.IntRange(0),
    help="How many GPUs this machine offers. Default: those that Slurm gave, or all.",
)
@click.option(
    "--cpus",
    type=click.IntRange(1),
    help="How many CPU cores this machine offers. Default: those that Slurm gave, or all.",
)
@click.option(
    "--wait",
    "patience_minutes",
    type=float,
    default=30.0,
    show_default=True,
    help="How many minutes to wait for the driver, before it starts and while it is gone.",
)
@one_line_errors
def worker(
    options: PlanOptions,
    home: Path,
    gpus: int | None,
    cpus: int | None,
    patience_minutes: float,
) -> None:
    """Let this machine run trials of a sweep that another machine drives.

    The sweep's engine is {type: ray, address: head}, and the driver runs with the same arguments.
    Home must be on a file system that both machines share. SIGTERM, SIGUSR1, SIGHUP and
    Ctrl-C save the running trials and end the worker.

    \b
    Example:
      kdsweep worker sst2 --sweep slurm
    """
    from kdsweep.config.sweep import RayEngine

    plan = options.load()
    engine = plan.sweep.engine
    if not isinstance(engine, RayEngine) or engine.address != "head":
        raise KdsweepError(
            "worker: only a sweep with engine {type: ray, address: head} takes workers; this one "
            f"has {engine.model_dump_json()}"
        )
    from kdsweep.sweep.engines.join import join
    from kdsweep.sweep.folders import Home

    go_on_without_output()
    join(
        Home(home).sweep(plan.name),
        gpus=gpus,
        cpus=cpus,
        patience_minutes=patience_minutes,
        say=lambda line: click.echo(line),
    )


@click.command(short_help="Check a space; show what would run and cost.")
@plan_options
@click.option(
    "--fetch",
    is_flag=True,
    help="Bring the weights too, so that `run` needs no network.",
)
@home_option
@json_option
@one_line_errors
def plan(options: PlanOptions, fetch: bool, home: Path, as_json: bool) -> None:
    """Check SPACE, its data and its models; show what would run and what it would cost.

    Trains nothing. Rows, configs and tokenizers that only the Hub has are brought to home.

    \b
    Example:
      kdsweep plan sst2 --embedded
      kdsweep plan sst2 --fetch
    """
    loaded = options.load()
    from kdsweep.sweep.folders import Home
    from kdsweep.sweep.run_sweep import with_inputs, with_sweeps_rules
    from kdsweep.terminal.progress import observing

    if fetch:
        go_on_without_output()
    place = Home(home)
    with observing(stderr=True) as observer:
        # A mistake in the data is reported before torch is imported.
        ruled = with_sweeps_rules(loaded, place.sweep(loaded.name))
        ready = with_inputs(ruled, place, observer, weights=fetch)
    from kdsweep.sweep.plan_facts import describe
    from kdsweep.terminal.plan import show_plan

    facts = describe(ready, home)
    if as_json:
        print_json(facts.to_json())
    else:
        show_plan(facts)
