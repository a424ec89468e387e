"""`kdsweep schema`: what editors complete and check spaces and sweeps by."""

from __future__ import annotations

import click

from kdsweep.cli.options import one_line_errors, print_json


@click.command(short_help="Print the JSON schema that editors check files by.")
@click.option("--sweep", is_flag=True, help="Of a sweep's file, instead of a search space's.")
@click.option("--json", is_flag=True, expose_value=False, help="The same: a schema is JSON.")
@one_line_errors
def schema(sweep: bool) -> None:
    """Print the JSON schema (draft 2020-12) of a search space's file, or of a sweep's.

    An editor with the YAML language server completes and checks a file that begins with
    `# yaml-language-server: $schema=FILE`. Rules that need several keys are checked by
    `kdsweep plan` alone.

    \b
    Example:
      kdsweep schema
      kdsweep schema --sweep
    """
    from kdsweep.config.json_schema import space_schema, sweep_schema

    print_json(sweep_schema() if sweep else space_schema())
