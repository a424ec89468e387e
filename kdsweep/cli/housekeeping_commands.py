"""The commands that keep a home in order: `list`, `stop`, `remove` and `clean`."""

from __future__ import annotations

from pathlib import Path

import click

from kdsweep.cli.completing import completing_sweeps
from kdsweep.cli.options import home_option, json_option, one_line_errors, print_json

name_argument = click.argument("name", shell_complete=completing_sweeps)


@click.command("list")
@home_option
@json_option
@one_line_errors
def list_command(home: Path, as_json: bool) -> None:
    """List the sweeps in this home, the last used first.

    It shows whether each runs, is done, or was stopped and can be resumed, how far it is, its best
    student, and how much space it takes.

    \b
    Example:
      kdsweep list
      kdsweep list --home runs --json
    """
    from kdsweep.housekeeping.listing import list_sweeps
    from kdsweep.sweep.folders import Home
    from kdsweep.terminal.listing import show_sweeps

    found = Home(home)
    sweeps = list_sweeps(found)
    if as_json:
        print_json({"home": str(found.root), "sweeps": [one.to_json() for one in sweeps]})
    else:
        show_sweeps(found.root, sweeps)


@click.command()
@name_argument
@click.option(
    "--wait",
    "patience_minutes",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="How many minutes to wait until it has stopped. 0: ask and don't wait.",
)
@home_option
@json_option
@one_line_errors
def stop(name: str, patience_minutes: float, home: Path, as_json: bool) -> None:
    """Stop the running sweep NAME as Ctrl-C does: save what runs at its next step.

    It reaches a driver on any machine that shares this home, within a second or two. Run the
    sweep's command again to resume it.

    \b
    Example:
      kdsweep stop sst2-embedded-quick
    """
    from kdsweep.housekeeping.stopping import stop as ask_and_wait
    from kdsweep.sweep.folders import Home

    found = ask_and_wait(
        Home(home),
        name,
        patience_seconds=60 * patience_minutes,
        say=lambda line: click.echo(line, err=as_json),
    )
    if as_json:
        print_json(found.to_json())
    else:
        click.echo(found.words)
