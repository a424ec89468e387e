"""The console that everything is printed to, and lines that wrap at words."""

from __future__ import annotations

import textwrap

from rich.cells import cell_len
from rich.console import Console

WIDTH_WHEN_PIPED = 140


def open_console(*, stderr: bool = False) -> Console:
    # Names of labels, files and strategies are shown as they are: `[spam]`, `:smile:`.
    console = Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH_WHEN_PIPED
    return console


def wrapped(line: str, width: int) -> str:
    """The line, wrapped at spaces; what follows is indented as its start is.

    Paths and commands stay whole, so that they can be copied.
    """
    if cell_len(line) <= width or line.lstrip().startswith("kdsweep "):
        return line
    indent = " " * (len(line) - len(line.lstrip()))
    rows = textwrap.wrap(
        line,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(rows)


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print each line of the text, wrapped at words on a terminal and whole when piped."""
    for line in text.split("\n"):
        shown = wrapped(line, console.width) if console.is_terminal else line
        console.print(shown, style=style)


def say_lines(text: str) -> None:
    """Print the text to standard output as `say` does."""
    say(open_console(), text)
