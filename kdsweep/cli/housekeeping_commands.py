"""The commands that keep a home in order: `list`, `stop`, `remove` and `clean`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kdsweep.cli.completing import completing_folders, completing_sweeps
from kdsweep.cli.options import home_option, json_option, one_line_errors, print_json
from kdsweep.cli.output import go_on_without_output
from kdsweep.errors import KdsweepError
from kdsweep.formatting import file_size

name_argument = click.argument("name", shell_complete=completing_sweeps)


@click.command("list", short_help="List the sweeps in this home.")
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


@click.command(short_help="Save a running sweep and stop it.")
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

    go_on_without_output()
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


@click.command(short_help="Remove a sweep with all that belongs to it.")
@click.argument("name", shell_complete=completing_folders)
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option(
    "--leave-unreachable",
    is_flag=True,
    help="Remove the rest where a database doesn't answer. What it has stays there for good.",
)
@home_option
@json_option
@one_line_errors
def remove(name: str, yes: bool, leave_unreachable: bool, home: Path, as_json: bool) -> None:
    """Remove sweep NAME: its studies, its runs and students in MLflow, and its folder.

    It shows what that is and asks first. What sweeps share in the cache stays: `kdsweep clean`. If
    it is interrupted, the same command removes the rest.

    \b
    Example:
      kdsweep remove sst2-embedded-quick
      kdsweep remove sst2-embedded-quick --yes
    """
    from kdsweep.housekeeping.removing import describe_removal, remove_sweep
    from kdsweep.sweep.folders import Home

    if not yes:
        found = describe_removal(Home(home), name, leave_unreachable=leave_unreachable)
        click.echo(f"to be removed of {name}:", err=as_json)
        for line in found.lines():
            click.echo(f"  {line}", err=as_json)
        ask_or_end("remove it?", err=as_json)
    go_on_without_output()
    removed = remove_sweep(
        Home(home),
        name,
        leave_unreachable=leave_unreachable,
        say=lambda line: click.echo(line, err=as_json),
    )
    if as_json:
        print_json(removed.to_json())
        return
    click.echo(f"{name}: removed; {file_size(removed.bytes)} are free")
    for line in removed.stays:
        click.echo(f"{name}: stays: {line}")


@click.command(short_help="Show and remove what no sweep uses.")
@click.option("--yes", is_flag=True, help="Remove it and don't ask.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Count what sweeps use as unused too. A sweep that is resumed makes it again.",
)
@home_option
@json_option
@one_line_errors
def clean(yes: bool, everything: bool, home: Path, as_json: bool) -> None:
    """Show how large the caches are and what no sweep uses; remove that if you say yes.

    Without --yes nothing is removed unless you say so. Finished sweeps can be compared and exported
    afterwards.

    \b
    Example:
      kdsweep clean
      kdsweep clean --yes
    """
    from kdsweep.housekeeping.cleaning import clean as remove_unused
    from kdsweep.housekeeping.cleaning import describe_caches
    from kdsweep.sweep.folders import Home
    from kdsweep.terminal.caches import show_caches

    found = describe_caches(Home(home), everything=everything)
    if not as_json:
        show_caches(found)
    asks = not yes and not as_json and sys.stdin.isatty()
    if found.unused_bytes and asks:
        ask_or_end(f"remove {file_size(found.unused_bytes)}?", err=False)
        yes = True
    if yes:
        go_on_without_output()
        found = remove_unused(Home(home), everything=everything)
    if as_json:
        print_json(found.to_json())
    elif found.removed_bytes is not None:
        click.echo(f"removed {file_size(found.removed_bytes)}")
    elif found.unused_bytes:
        options = "--all --yes" if everything else "--yes"
        click.echo(f"kdsweep clean {options} removes what is unused")


def ask_or_end(question: str, *, err: bool) -> None:
    """Ask. Raises KdsweepError unless the user says yes."""
    try:
        agreed = click.confirm(question, err=err)
    except click.Abort:
        click.echo("", err=True)
        raise KdsweepError("nothing was removed: nobody answered; add --yes") from None
    if not agreed:
        raise KdsweepError("nothing was removed")
