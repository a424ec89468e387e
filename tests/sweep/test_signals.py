"""What a signal does in the moment in which it comes."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kdsweep.sweep.signals import LEAVE_SIGNALS, StopRequest, heeded

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Signalled(io.FileIO):
    """A file at whose first write a signal comes."""

    number: signal.Signals | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        number, self.number = self.number, None
        if number is not None:
            os.kill(os.getpid(), number)
        return super().write(data) or 0


@pytest.mark.parametrize("number", [signal.SIGINT, *LEAVE_SIGNALS])
def test_a_signal_in_the_middle_of_a_print_stops_the_sweep_and_is_said_after_it(
    number: signal.Signals, tmp_path: Path
) -> None:
    file = Signalled(tmp_path / "output", "w")
    output = io.TextIOWrapper(io.BufferedWriter(file), line_buffering=True)
    stop = StopRequest(lambda line: print(line, file=output))
    with stop.listening():
        file.number = number
        stop.say("a line")
    assert stop.requested
    assert stop.resuming == (number != signal.SIGINT)
    first, second = (tmp_path / "output").read_text().splitlines()
    assert first == "a line"
    assert second.startswith("stopping: what runs is saved at its next step")


def test_a_process_that_nohup_started_goes_on_when_its_terminal_closes() -> None:
    stop = StopRequest(lambda line: None)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop.listening():
            os.kill(os.getpid(), signal.SIGHUP)
            assert set(heeded(LEAVE_SIGNALS)) == {signal.SIGTERM, signal.SIGUSR1}
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not stop.requested
