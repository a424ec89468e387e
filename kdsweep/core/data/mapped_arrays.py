"""Large flat files, written piece by piece and mapped into memory, where processes share them."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, overload

import numpy as np
import numpy.typing as npt

from kdsweep.core.files import RESTORE, read_array, whole
from kdsweep.errors import DamagedFile


class GrowingArray:
    """A .npy file of one dimension to which arrays are appended.

    The whole array never has to be in memory.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike) -> None:
        self._path = path
        self._dtype = np.dtype(dtype)
        self._length = 0

    def __enter__(self) -> GrowingArray:
        self._file: BinaryIO = self._path.open("wb")
        self._write_header()
        self._data_at = self._file.tell()
        return self

    def append(self, array: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(array, dtype=self._dtype).data)
        self._length += len(array)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file:
            # The header was written for length 0. NumPy pads headers with room for any length.
            self._file.seek(0)
            self._write_header()
            assert self._file.tell() == self._data_at

    def _write_header(self) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._length,),
        }
        np.lib.format.write_array_header_1_0(self._file, header)


def map_array(path: Path) -> np.ndarray:
    """The array of a .npy file, read as it is used.

    It is a plain ndarray, because each slice of a np.memmap costs some microseconds.
    """
    return read_array(path, mmap_mode="r").view(np.ndarray)


def check_offsets(offsets: np.ndarray, length: int) -> None:
    """Raise ValueError unless these offsets cut something of this length into rows."""
    fits = offsets.ndim == 1 and offsets.dtype == np.int64 and len(offsets) > 0
    if not fits or offsets[0] != 0 or offsets[-1] != length:
        raise ValueError("it doesn't fit the file next to it")


def joined_arrays(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of all arrays, one after the other.

    A single array is returned as it is, so that a memory-mapped one stays in its file.
    """
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


class MappedTexts(Sequence[str]):
    """Texts in a file, read as they are asked for. A slice is a list."""

    ROWS_AT_ONCE = 4096

    def __init__(self, path: Path) -> None:
        """Raises DamagedFile if the two files aren't whole, or don't fit each other."""
        self._path = path
        self._bytes = map_array(path)
        self._offsets = map_array(_offsets_file(path))
        with whole(_offsets_file(path)):
            check_offsets(self._offsets, len(self._bytes))

    @staticmethod
    def write(path: Path, texts: Sequence[str]) -> None:
        """Write the texts' UTF-8 bytes into `path` and their offsets into a file next to it."""
        lengths = np.empty(len(texts), dtype=np.int64)
        with GrowingArray(path, np.uint8) as file:
            for start in range(0, len(texts), MappedTexts.ROWS_AT_ONCE):
                part = [text.encode() for text in texts[start : start + MappedTexts.ROWS_AT_ONCE]]
                lengths[start : start + len(part)] = np.fromiter(
                    map(len, part), dtype=np.int64, count=len(part)
                )
                file.append(np.frombuffer(b"".join(part), dtype=np.uint8))
        np.save(_offsets_file(path), np.concatenate([[0], np.cumsum(lengths)]))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            start, end, step = row.indices(len(self))
            if step == 1:
                return self._between(start, end)
            return [self[i] for i in range(start, end, step)]
        # Negative numbers count from the end and IndexError is raised, as in a list.
        number = range(len(self))[operator.index(row)]
        return self._between(number, number + 1)[0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), self.ROWS_AT_ONCE):
            yield from self._between(start, min(start + self.ROWS_AT_ONCE, len(self)))

    def _between(self, start: int, end: int) -> list[str]:
        if end <= start:
            return []
        offsets = self._offsets[start : end + 1].tolist()
        first = offsets[0]
        data = self._bytes[first : offsets[-1]].tobytes()
        try:
            return [data[one - first : other - first].decode() for one, other in pairwise(offsets)]
        except UnicodeDecodeError as error:
            raise DamagedFile(f"{self._path} holds something else than text", RESTORE) from error


def _offsets_file(path: Path) -> Path:
    return path.with_name(f"{path.stem}-offsets.npy")
