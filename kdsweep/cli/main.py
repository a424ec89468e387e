"""`kdsweep` and its list of commands."""

from __future__ import annotations

import os
import sys

import click

from kdsweep import __version__
from kdsweep.cli.drafting_commands import advise, init
from kdsweep.cli.export_command import export
from kdsweep.cli.housekeeping_commands import clean, list_command, remove, stop
from kdsweep.cli.options import (
    json_option,
    one_line_errors,
    print_json,
)
from kdsweep.cli.output import flush_output, go_on_without_output, open_output
from kdsweep.cli.passwords import hide_passwords
from kdsweep.cli.predict_command import predict
from kdsweep.cli.result_commands import compare, replay, status, ui
from kdsweep.cli.schema_command import schema
from kdsweep.cli.sweep_commands import plan, run, worker

# OpenMP's threads spin while they wait, which slows training several times if a second program uses
# the same cores. torch reads this when it is imported, which no import above does.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class _InOrderOfUse(click.Group):
    """Lists its commands in the order in which they were added, not by name."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrderOfUse, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kdsweep")
def main() -> None:
    """Fine-tune, distill, or both? kdsweep runs the sweep that answers it.

    It compares the strategies for your task, teacher and student.

    \b
    Example:
      kdsweep run sst2 --sweep quick --embedded
    """


@click.command(short_help="Print the script for Tab in your shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
@one_line_errors
def completion(shell: str, as_json: bool) -> None:
    """Print the script that makes SHELL complete commands, options, sweeps and trials.

    \b
    Example:
      kdsweep completion bash
    In ~/.bashrc:                 eval "$(kdsweep completion bash)"
    In ~/.zshrc:                  eval "$(kdsweep completion zsh)"
    In ~/.config/fish/config.fish: kdsweep completion fish | source
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    script = found(main, {}, "kdsweep", "_KDSWEEP_COMPLETE").source()
    if as_json:
        print_json({"shell": shell, "script": script})
    else:
        click.echo(script)


# As one uses them: before a sweep, during it, after it, and what keeps a home in order.
for command in (
    init,
    advise,
    plan,
    run,
    worker,
    status,
    stop,
    compare,
    ui,
    export,
    predict,
    replay,
):
    main.add_command(command)
for command in (list_command, remove, clean, schema, completion):
    main.add_command(command)


def command_line() -> None:
    """What `kdsweep` runs in a shell."""
    hide_passwords()
    open_output()
    try:
        main(prog_name="kdsweep")
    # Of Click's own pages, such as --help.
    except OSError as error:
        print(f"error: output: {error.strerror or error}", file=sys.stderr)
        go_on_without_output()
        sys.exit(1)
    finally:
        if (problem := flush_output()) is not None:
            if problem:
                print(f"error: {problem}", file=sys.stderr)
            sys.exit(1)
