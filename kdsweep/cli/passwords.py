"""Keeps passwords out of the process list, which `ps` shows to everybody on the machine."""

from __future__ import annotations

import json
import os
import re
import sys

from kdsweep.errors import without_password

# The arguments that have a password, as JSON: what is shown in their place -> the argument.
ARGUMENTS = "KDSWEEP_ARGUMENTS"
# A webhook's secret is its path.
WEBHOOK = r"""(\bwebhook["']?\s*[=:]\s*["']?https?://[^\s/?#'"{}]+)[^\s'"{}]+"""


def hide_passwords() -> None:
    """Restart this process if an argument has a password; the environment then carries it."""
    shown = without_passwords(sys.argv[1:])
    if shown != sys.argv[1:]:
        before = sys.orig_argv[1 : len(sys.orig_argv) - len(shown)]
        os.execv(sys.executable, [sys.executable, *before, *shown])
    hidden = _hidden()
    sys.argv[1:] = [hidden.get(argument, argument) for argument in shown]


def without_passwords(arguments: list[str]) -> list[str]:
    """The arguments as anybody may see them.

    A kdsweep that inherits this process's environment and gets these arguments knows the passwords.
    """
    shown = [re.sub(WEBHOOK, r"\1/***", without_password(argument)) for argument in arguments]
    changed = {
        one: argument for one, argument in zip(shown, arguments, strict=True) if one != argument
    }
    if changed:
        os.environ[ARGUMENTS] = json.dumps(_hidden() | changed)
    return shown


def _hidden() -> dict[str, str]:
    hidden: dict[str, str] = json.loads(os.environ.get(ARGUMENTS, "{}"))
    return hidden
