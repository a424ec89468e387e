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


def _home_of(context: click.Context) -> Path:
    return Path(context.params.get("home") or os.environ.get("KDSWEEP_HOME") or "runs")
