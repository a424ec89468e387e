"""`kdsweep export`: a student as a folder, and on the Hub."""

from __future__ import annotations

import functools
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdsweep.cli.completing import completing_trials
from kdsweep.cli.options import (
    Command,
    check_one_choice,
    home_option,
    json_option,
    name_argument,
    one_line_errors,
    print_json,
)
from kdsweep.cli.output import go_on_without_output

if TYPE_CHECKING:
    from kdsweep.export.folder import Format
    from kdsweep.export.push import PushTo


_trial_option = click.option(
    "--trial",
    metavar="TRIAL",
    shell_complete=completing_trials,
    help="Export this trial's student: STRATEGY-NUMBER, or STRATEGY-NUMBER-seed-INDEX.",
)


def _format_options(command: Command) -> Command:
    """`--onnx` and `--int8`, which the command gets as one argument."""
    options = (
        click.option(
            "--onnx", is_flag=True, help="Add ONNX, checked to give the same answers as torch."
        ),
        click.option(
            "--int8",
            is_flag=True,
            help="Add ONNX, and ONNX with 8-bit weights, evaluated before and after.",
        ),
    )

    @functools.wraps(command)
    def wrapped(onnx: bool, int8: bool, **others: Any) -> None:
        asked: dict[Format, bool] = {"onnx": onnx, "int8": int8}
        command(formats=[name for name, is_asked in asked.items() if is_asked], **others)

    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def _push_options(command: Command) -> Command:
    """`--push-to` and how, which the command gets as one argument."""
    options = (
        click.option(
            "--push-to",
            "repository",
            metavar="REPO",
            help="Upload it to the Hugging Face Hub as REPO (MODEL or OWNER/MODEL), where only you "
            "see it. DEST may be left out then.",
        ),
        click.option("--public", is_flag=True, help="With --push-to: everybody sees it."),
        click.option(
            "--overwrite",
            is_flag=True,
            help="With --push-to: replace all files of a model that exists.",
        ),
    )

    @functools.wraps(command)
    def wrapped(repository: str | None, public: bool, overwrite: bool, **others: Any) -> None:
        if repository is None:
            if public or overwrite:
                raise click.UsageError("--public and --overwrite need --push-to REPO")
            command(push_to=None, **others)
            return
        from kdsweep.export.push import PushTo

        command(push_to=PushTo(repository, public, overwrite), **others)

    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


@click.command(short_help="Write the winner as a Hugging Face model.")
@name_argument
@click.argument("destination", metavar="[DEST]", required=False, type=click.Path(path_type=Path))
@_trial_option
@click.option("--strategy", help="Export the best student of this strategy.")
@_format_options
@_push_options
@home_option
@json_option
@one_line_errors
def export(
    name: str,
    destination: Path | None,
    trial: str | None,
    strategy: str | None,
    formats: Collection[Format],
    push_to: PushTo | None,
    home: Path,
    as_json: bool,
) -> None:
    """Write the winner of sweep NAME to the folder DEST as a Hugging Face model.

    Its model card says how it was trained, how good it is and how sure that is. With --push-to, it
    is also uploaded to the Hub, in one commit.

    \b
    Example:
      kdsweep export sst2-embedded-quick student
      kdsweep export sst2-embedded-quick student-int8 --strategy distill --int8
      kdsweep export sst2-embedded-quick --push-to my-student
    """
    check_one_choice(trial, strategy)
    if push_to is None and destination is None:
        raise click.UsageError("name a folder DEST, or a model on the Hub with --push-to REPO")
    from kdsweep.sweep.folders import Home

    Home(home).existing(name)
    from kdsweep.export import export as write_folder
    from kdsweep.export.facts import as_lines
    from kdsweep.terminal.console import say_lines
    from kdsweep.terminal.progress import observing

    go_on_without_output()
    with observing(stderr=as_json) as observer:
        facts = write_folder(
            Home(home),
            name,
            destination,
            trial=trial,
            strategy=strategy,
            formats=formats,
            push_to=push_to,
            observer=observer,
        )
    if as_json:
        print_json(facts.to_json())
    else:
        say_lines("\n".join(as_lines(facts)))
