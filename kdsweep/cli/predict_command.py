"""`kdsweep predict`: a student's answers beside the rows of a file."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdsweep.cli.completing import completing_files, completing_trials
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
    from kdsweep.predict.request import Request


def _request_options(command: Command) -> Command:
    """The file, and all that a user can say of it, which the command gets as one argument."""
    options = (
        click.argument("file", type=click.Path(path_type=Path), shell_complete=completing_files),
        click.option(
            "--trial",
            metavar="TRIAL",
            shell_complete=completing_trials,
            help="Use this trial's student: STRATEGY-NUMBER, or STRATEGY-NUMBER-seed-INDEX.",
        ),
        click.option("--strategy", help="Use the best student of this strategy."),
        click.option(
            "--text",
            metavar="COLUMN",
            multiple=True,
            help="The column with the text, if it has another name than in the task. Twice for "
            "pairs.",
        ),
        click.option(
            "--out",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="The file to write. Default: FILE with '.predicted' before its ending.",
        ),
        click.option("--overwrite", is_flag=True, help="Replace the file to write if it exists."),
        click.option("--prefix", default="", help="What the names of the new columns start with."),
    )

    @functools.wraps(command)
    def wrapped(
        file: Path,
        trial: str | None,
        strategy: str | None,
        text: tuple[str, ...],
        out: Path | None,
        overwrite: bool,
        prefix: str,
        **others: object,
    ) -> None:
        check_one_choice(trial, strategy)
        from kdsweep.predict.request import Request

        command(request=Request(file, trial, strategy, text, out, overwrite, prefix), **others)

    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


@click.command(short_help="Predict the rows of a file with the best student.")
@name_argument
@_request_options
@home_option
@json_option
@one_line_errors
def predict(name: str, request: Request, home: Path, as_json: bool) -> None:
    """Predict the rows of FILE with the recommended student of sweep NAME.

    FILE is a csv, tsv, json, jsonl or parquet file that has the task's text columns. Its rows are
    written to another file of the same kind, with new columns at the end: `prediction`, and
    `probability_LABEL` for each label. Of a regression, `prediction` is the number.

    It needs the home alone: no network, and not the data of the sweep.

    \b
    Example:
      kdsweep predict sst2-embedded-quick reviews.csv
      kdsweep predict sst2-embedded-quick reviews.parquet --trial distill-3 --out labeled.parquet
    """
    from kdsweep.sweep.folders import Home

    Home(home).existing(name)
    from kdsweep.predict.writing import predict as write_predictions
    from kdsweep.terminal.progress import observing

    go_on_without_output()
    with observing(stderr=as_json) as observer:
        found = write_predictions(Home(home), name, request, observer)
    if as_json:
        print_json(found.to_json())
    else:
        click.echo("\n".join(found.as_lines()))
