"""Entries of the cache that are made once and read by all; a damaged one is made again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from kdsweep.core.files import locked, name_beside, only_read
from kdsweep.errors import DamagedFile

T = TypeVar("T")
# Other errors of the system say nothing about the files.
OF_DAMAGE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


@dataclass(frozen=True)
class SharedEntry(Generic[T]):
    """A file or folder of the cache.

    read: reads it; raises DamagedFile. make: writes it, or returns what it made where that can't be
    kept. waiting: what to say while another process makes it. lock: a file next to it by default.
    """

    path: Path
    read: Callable[[], T]
    make: Callable[[], T | None]
    waiting: str
    say: Callable[[str], None]
    lock: Path | None = None

    def get(self) -> T:
        """What the entry holds. It is made first if it isn't there, or is damaged.

        Raises DamagedFile if it is damaged and can only be read.
        """
        if self.path.exists():
            try:
                return self.read()
            except DamagedFile:
                if only_read(self.path.parent):
                    raise
        lock = self.lock or self.path.with_suffix(".lock")
        with locked(lock, lambda: self.say(self.waiting)):
            if self.path.exists():
                try:
                    # Another process has made it meanwhile.
                    return self.read()
                except DamagedFile as error:
                    set_aside(self.path, error, self.say)
            made = self.make()
            return self.read() if made is None else made


def set_aside(path: Path, damage: DamagedFile, say: Callable[[str], None]) -> None:
    """Give a damaged entry another name, so that it is made again. The caller holds its lock.

    Whoever has its files open can still read them; `kdsweep clean` removes it once nobody does.
    Raises the error where the files may be whole, such as those of somebody else.
    """
    cause = damage.__cause__
    if isinstance(cause, OSError) and not isinstance(cause, OF_DAMAGE):
        raise damage
    say(f"cache: {damage.what}; it is made again")
    path.rename(name_beside(path))
