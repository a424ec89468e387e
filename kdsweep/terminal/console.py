"""The console that everything is printed to."""

from __future__ import annotations

from rich.console import Console

WIDTH_WHEN_PIPED = 140


def open_console(*, stderr: bool = False) -> Console:
    # Names of labels, files and strategies are shown as they are: `[spam]`, `:smile:`.
    console = Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH_WHEN_PIPED
    return console
