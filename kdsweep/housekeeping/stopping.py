"""`kdsweep stop`: ask the driver of a sweep to save and stop, wherever it runs, and wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from kdsweep.core.files import only_read
from kdsweep.errors import KdsweepError, first_few
from kdsweep.formatting import count, count_range, duration
from kdsweep.housekeeping.listing import ListedSweep, describe
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.stop_file import ask_to_stop, withdraw
from kdsweep.sweep.sweep_lock import Holder

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BETWEEN_LINES = 15.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Stopped:
    """What came of it.

    outcome: `asked`: nobody waited for the end. seconds: that it took. sweep: as it is now.
    """

    outcome: Literal["not running", "asked", "stopped"]
    holder: Holder | None
    seconds: float
    sweep: ListedSweep

    def to_json(self) -> dict[str, object]:
        """As `kdsweep stop --json` prints it."""
        return asdict(self)

    @property
    def words(self) -> str:
        """What happened, in one line."""
        name = self.sweep.name
        if self.outcome == "asked":
            return f"{name}: asked to stop; kdsweep status {name} shows when it has"
        how_far = _how_far(self.sweep)
        if self.outcome == "not running":
            return f"{name} isn't running{how_far}"
        return f"{name}: stopped after {duration(self.seconds)}{how_far}"


def stop(home: Home, name: str, *, patience_seconds: float, say: Say) -> Stopped:
    """Ask the driver to save and stop, and wait until it has. patience_seconds: 0 doesn't wait.

    Raises UnknownSweep, and KdsweepError where the driver can't be asked or hasn't stopped in time.
    """
    home.check_usable()
    folder = home.sweep(name)
    holder = folder.holder() if name in _folders_of(home) else None
    if holder is None:
        return Stopped("not running", None, 0.0, describe(home.existing(name)))
    _check_can_be_asked(folder, holder)
    ask_to_stop(folder.stop_file, holder)
    say(f"{name}: asked {holder.words} to save and stop")
    if patience_seconds <= 0:
        return Stopped("asked", holder, 0.0, describe(folder))
    started = time.monotonic()
    _wait(folder, holder, patience_seconds, say)
    withdraw(folder.stop_file, holder)
    return Stopped("stopped", holder, time.monotonic() - started, describe(folder))


def _folders_of(home: Home) -> set[str]:
    """The names of all folders of sweeps: one that starts has no `sweep.json` yet."""
    if not home.sweeps.is_dir():
        return set()
    return {root.name for root in home.sweeps.iterdir()}


def _check_can_be_asked(folder: SweepFolder, holder: Holder) -> None:
    name = folder.name
    if holder.doing == "remove":
        raise KdsweepError(f"sweep {name!r} is being removed by {holder.words}; nothing to stop")
    if only_read(folder.root):
        raise KdsweepError(
            f"sweep {name!r} is run by {holder.words}; you may not write to {folder.root}, so ask "
            "who runs it to stop it"
        )
    if holder.run is None:
        raise KdsweepError(
            f"sweep {name!r} is run by {holder.words} with an earlier version, which can't be "
            "asked; press Ctrl-C there"
        )


def _wait(folder: SweepFolder, holder: Holder, patience_seconds: float, say: Say) -> None:
    """Wait until this holder has let go. What others start afterwards isn't waited for."""
    started = time.monotonic()
    last_line = started
    while (now := folder.holder()) is not None and now.run == holder.run:
        waited = time.monotonic() - started
        if waited > patience_seconds:
            raise KdsweepError(
                f"{folder.name}: {holder.words} hasn't stopped within {duration(waited)}; it stops "
                f"at its next step; kdsweep status {folder.name} shows when it has"
            )
        if time.monotonic() - last_line > SECONDS_BETWEEN_LINES:
            last_line = time.monotonic()
            say(f"{folder.name}: waiting for {holder.words} for {duration(waited)}")
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _how_far(sweep: ListedSweep) -> str:
    """What is done and what is saved half-way, and how to resume."""
    if sweep.counts is None:
        return ""
    if sweep.state == "done":
        return ": all its trials are done"
    if sweep.state == "running":
        assert sweep.holder is not None
        return f"; {sweep.holder.words} runs it again"
    counts = sweep.counts
    words = f"; {counts.ended:,} of {count(counts.trials, 'trial')} are done"
    if counts.finalists_ended:
        words += f", {counts.finalists_ended:,} of {counts.finalists:,} runs of finalists"
    if counts.confirmed:
        runs = count_range(counts.to_confirm, counts.to_confirm_at_most, "confirm run")
        words += f", {counts.confirmed:,} of {runs}"
    if sweep.open_trials:
        words += f"; started and saved: {first_few(sweep.open_trials)}"
    return f"{words}; run the same command again to resume"
