"""The command line: parse, call, and turn a KdsweepError into one line.

Only this package knows Click. `kdsweep --help` must answer at once, so each command imports inside
what is heavy.
"""

from kdsweep.cli.main import command_line, main

__all__ = ["command_line", "main"]
