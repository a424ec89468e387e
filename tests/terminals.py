"""Real terminals that close while a command runs in them."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from typing import Any


class Terminal:
    """A command in a terminal of its own, as if it was typed there."""

    def __init__(self, command: Sequence[str]) -> None:
        self.shown = b""
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_control,
        )
        os.close(slave)

    def wait_for(self, condition: Callable[[], Any], seconds: float = 300) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.text
            assert time.monotonic() < until, self.text
            self._read()

    @property
    def text(self) -> str:
        return self.shown.decode(errors="replace")

    def close(self) -> None:
        """Close it, as a window is closed or a connection ends."""
        os.close(self._master)

    def end(self, seconds: float = 120) -> int:
        """The exit status once the command has ended."""
        try:
            return self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)

    def _read(self) -> None:
        if select.select([self._master], [], [], 0.01)[0]:
            try:
                self.shown += os.read(self._master, 65536)
            except OSError:
                # The command has ended.
                time.sleep(0.01)


def _control() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
