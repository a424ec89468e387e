"""What the shell's Tab offers: files, names of sweeps and names of trials. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import CompletionItem


def completing_sweeps(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Names of sweeps, the last used first, without those that were typed already."""
    from kdsweep.sweep.folders import Home

    typed = context.params.get(parameter.name or "") or ()
    names = Home(_home_of(context)).names()
    return [name for name in names if name.startswith(incomplete) and name not in typed]


def completing_folders(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Names of sweeps, damaged ones too."""
    from kdsweep.sweep.folders import Home

    found = Home(_home_of(context)).sweeps.glob("[!.]*")
    names = sorted(folder.name for folder in found if folder.is_dir())
    return [name for name in names if name.startswith(incomplete)]


def completing_trials(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Names of the trials of the sweep that was typed before."""
    from kdsweep.sweep.folders import Home

    folder = Home(_home_of(context)).sweep(str(context.params.get("name")))
    return [trial.name for trial in folder.started_trials() if trial.name.startswith(incomplete)]


def completing_files(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Tells the shell to complete a file's name by itself."""
    return [CompletionItem(incomplete, type="file")]


def completing_spaces(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of shipped spaces, and files."""
    from kdsweep.shipped_files import SPACES

    return _names_and_files(list(SPACES.files()), incomplete)


def completing_examples(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Names of shipped spaces."""
    from kdsweep.shipped_files import SPACES

    return [name for name in SPACES.files() if name.startswith(incomplete)]


def completing_sweep_files(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of shipped sweeps, and files."""
    from kdsweep.shipped_files import SWEEPS

    return _names_and_files(list(SWEEPS.files()), incomplete)


def _names_and_files(names: list[str], incomplete: str) -> list[CompletionItem]:
    """The names that fit and the YAML files here; if no name does, the shell looks for files.

    A shell that looks for files itself ignores the names that it gets.
    """
    fitting = [name for name in names if name.startswith(incomplete)]
    if not fitting:
        return [CompletionItem(incomplete, type="file")]
    here = sorted(file.name for file in Path().glob("*.y*ml") if file.name.startswith(incomplete))
    return [CompletionItem(name) for name in [*fitting, *here]]


def _home_of(context: click.Context) -> Path:
    return Path(context.params.get("home") or os.environ.get("KDSWEEP_HOME") or "runs")
