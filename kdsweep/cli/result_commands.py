"""The commands that read a sweep: `status`, `compare`, `replay` and `ui`."""

from __future__ import annotations

from pathlib import Path

import click

from kdsweep.cli.completing import completing_sweeps, completing_trials
from kdsweep.cli.options import (
    home_option,
    json_option,
    name_argument,
    one_line_errors,
    print_json,
)
from kdsweep.cli.output import go_on_without_output


def _say(line: str) -> None:
    click.echo(line, err=True)


@click.command(short_help="Show how far a sweep is.")
@name_argument
@home_option
@json_option
@one_line_errors
def status(name: str, home: Path, as_json: bool) -> None:
    """Show how far sweep NAME is.

    It counts the trials that are done, pruned, failed and left, and shows the best so far, the time
    spent and the time left.

    \b
    Example:
      kdsweep status sst2-embedded-quick
    """
    from kdsweep.sweep.folders import Home

    Home(home).existing(name)
    from kdsweep.sweep.slow_steps import saying_how_long
    from kdsweep.sweep.status import status as read_status
    from kdsweep.terminal.status import show_status

    with saying_how_long(_say, f"reading {name}"):
        found = read_status(Home(home), name, _say)
    if as_json:
        print_json(found.to_json())
    else:
        show_status(found)


@click.command(short_help="Show the answer of one sweep or several.")
@click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, shell_complete=completing_sweeps
)
@click.option(
    "--all",
    "shows_all",
    is_flag=True,
    help="Show every pair, the questions, and how things were measured.",
)
@home_option
@json_option
@one_line_errors
def compare(names: tuple[str, ...], shows_all: bool, home: Path, as_json: bool) -> None:
    """Show the answer of sweep NAME: each strategy with its interval, each pair with its verdict.

    For several sweeps, show a table of tasks by strategies.

    \b
    Example:
      kdsweep compare sst2-embedded-quick
      kdsweep compare sst2-embedded-quick --all
      kdsweep compare sst2 mrpc rte
    """
    from kdsweep.sweep.folders import Home

    for name in names:
        Home(home).existing(name)
    from kdsweep.report.build import rank_strategies
    from kdsweep.sweep.results import report
    from kdsweep.sweep.slow_steps import saying_how_long
    from kdsweep.terminal.report import show_report, show_reports

    with saying_how_long(_say, f"reading {', '.join(names)}"):
        reports = [report(Home(home), name, _say) for name in names]
    if len(reports) == 1:
        if as_json:
            print_json(reports[0].to_json())
        else:
            show_report(reports[0], home, shows_all=shows_all)
        return
    ranks = rank_strategies(reports)
    if as_json:
        print_json(
            {
                "sweeps": [one.to_json() for one in reports],
                "ranks": ranks.mean,
                "ranks_verdict": ranks.verdict,
            }
        )
    else:
        show_reports(reports, ranks)


@click.command(short_help="Train a trial again, compare the numbers.")
@name_argument
@click.argument("trial", shell_complete=completing_trials)
@home_option
@json_option
@one_line_errors
def replay(name: str, trial: str, home: Path, as_json: bool) -> None:
    """Train TRIAL of sweep NAME again and compare the numbers, bit for bit.

    TRIAL is STRATEGY-NUMBER, STRATEGY-NUMBER-finalist-INDEX for a run that judged it as a finalist,
    or STRATEGY-NUMBER-seed-INDEX for one that confirmed it. The exit status is 0 if all numbers are
    the same, else 1.

    \b
    Example:
      kdsweep replay sst2-embedded-quick distill-0
    """
    from kdsweep.sweep.folders import Home

    Home(home).existing(name)
    from kdsweep.replay import replay as train_again
    from kdsweep.terminal.console import say_lines
    from kdsweep.terminal.progress import observing

    go_on_without_output()
    with observing(stderr=as_json) as observer:
        found = train_again(Home(home), name, trial, observer)
    if as_json:
        print_json(found.to_json())
    else:
        say_lines(found.words)
        if found.student:
            click.echo(f"the replayed student: {found.student}")
    click.get_current_context().exit(0 if found.verdict == "identical" else 1)


@click.command(short_help="Open MLflow's UI on the runs of a sweep.")
@click.argument("name", required=False, shell_complete=completing_sweeps)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="The port on 127.0.0.1. Default: a free one from 5000 on.",
)
@click.option("--open/--no-open", "open_browser", default=True, help="Open the link in a browser.")
@home_option
@one_line_errors
def ui(name: str | None, port: int | None, open_browser: bool, home: Path) -> None:
    """Open MLflow's UI on the runs of sweep NAME. Without NAME: the sweep that was used last.

    \b
    Example:
      kdsweep ui sst2-embedded-quick
    """
    from kdsweep.sweep.folders import Home

    found = Home(home)
    folder = found.last_used() if name is None else found.existing(name)
    from kdsweep.ui import serve

    go_on_without_output()
    serve(found, folder, port, say=lambda line: click.echo(line), open_browser=open_browser)
