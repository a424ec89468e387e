"""What several commands share: options, one line for an error, and facts as JSON."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from kdsweep.cli.completing import (
    completing_spaces,
    completing_sweep_files,
    completing_sweeps,
)
from kdsweep.cli.output import keep_all_output
from kdsweep.errors import KdsweepError

if TYPE_CHECKING:
    from kdsweep.config import Plan
    from kdsweep.shipped_files import Shipped

# Click calls a command with one keyword argument for each of its options.
Command = Callable[..., None]


class _OneLine(click.ClickException):
    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_code = exit_status  # type: ignore[misc]

    def show(self, file: IO[str] | None = None) -> None:
        prefix = "error: " if self.exit_code in (1, 3) else ""
        click.echo(f"{prefix}{self.message}", err=True)


def one_line_errors(command: Command) -> Command:
    """Turns an error of kdsweep, or of a disk, into one line and its exit status."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KdsweepError as error:
            raise _OneLine(" ".join(str(error).split()), error.exit_status) from error
        except OSError as error:
            # Click knows what to do when nobody reads what is printed.
            if isinstance(error, BrokenPipeError):
                raise
            raise _OneLine(f"{error.filename or 'output'}: {error.strerror or error}", 1) from error
        except KeyboardInterrupt:
            raise _OneLine("stopped; run the same command again to resume", 130) from None

    return wrapped


def print_json(facts: object) -> None:
    """As JSON. A terminal that can't show a letter gets its number, so that nothing is lost."""
    text = json.dumps(facts, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(facts, indent=2)
    keep_all_output()
    sys.stdout.write(f"{text}\n")


home_option = click.option(
    "--home",
    type=click.Path(path_type=Path),
    envvar="KDSWEEP_HOME",
    default=Path("runs"),
    show_default=True,
    help="The folder where everything is written.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
name_argument = click.argument("name", shell_complete=completing_sweeps)
space_argument = click.argument("space", metavar="SPACE", shell_complete=completing_spaces)
embedded_option = click.option(
    "--embedded",
    is_flag=True,
    help="Use the space's 'embedded' sections: data and models that come as packages, no network.",
)


def check_one_choice(trial: str | None, strategy: str | None) -> None:
    """Raises UsageError if a student is chosen in two ways: a trial's name has its strategy."""
    if trial is not None and strategy is not None:
        raise click.UsageError("--trial already names the strategy; leave --strategy out")


def set_option(where: str) -> Callable[[Command], Command]:
    return click.option(
        "--set",
        "assignments",
        metavar="KEY.PATH=VALUE",
        multiple=True,
        help=f"Override a key of {where}. Can be repeated.",
    )


# --- a space, a sweep, and what overrides them ---


def say_which(shipped: Shipped, named: str) -> None:
    """A line if a file here is taken though a shipped one has the name. Raises SpaceError."""
    if (file := shipped.shadowed(named)) is not None:
        click.echo(f"{named}: {file} of this folder, not the shipped {shipped.noun}", err=True)


@dataclass(frozen=True)
class PlanOptions:
    """What `run`, `plan` and `worker` are called with alike."""

    space: str
    sweep: str | None
    embedded: bool
    assignments: tuple[str, ...]
    name: str | None

    def load(self) -> Plan:
        """The space and the sweep. Raises SpaceError."""
        from kdsweep.config import load
        from kdsweep.shipped_files import SPACES, SWEEPS

        say_which(SPACES, self.space)
        if self.sweep is not None:
            say_which(SWEEPS, self.sweep)

        return load(
            self.space,
            self.sweep,
            embedded=self.embedded,
            assignments=self.assignments,
            name=self.name,
        )

    def as_arguments(self) -> list[str]:
        """The same on another command line."""
        arguments = [self.space]
        arguments += ["--sweep", self.sweep] if self.sweep else []
        arguments += ["--embedded"] if self.embedded else []
        for assignment in self.assignments:
            arguments += ["--set", assignment]
        arguments += ["--name", self.name] if self.name else []
        return arguments


def takes_plan_options(command: Command) -> Command:
    """Gives the command its PlanOptions as one argument."""

    @functools.wraps(command)
    def wrapped(
        space: str,
        sweep: str | None,
        embedded: bool,
        assignments: tuple[str, ...],
        name: str | None,
        **others: Any,
    ) -> None:
        command(PlanOptions(space, sweep, embedded, assignments, name), **others)

    return wrapped


def plan_options(command: Command) -> Command:
    """The options of `PlanOptions`, which the command gets as its first argument."""
    options = (
        space_argument,
        click.option(
            "--sweep",
            metavar="FILE",
            shell_complete=completing_sweep_files,
            help="How much to run and where: a file, or quick, local, pareto or slurm. "
            "Default: 20 trials a strategy.",
        ),
        embedded_option,
        set_option("the space or the sweep"),
        click.option("--name", help="The sweep's name. Default: made from the files' names."),
    )
    command = takes_plan_options(command)
    for option in reversed(options):
        command = option(command)
    return command
