"""Large files that are written piece by piece and read in pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from task_rows import ROWS

from kdsweep.core.data.mapped_arrays import GrowingArray, MappedTexts


def test_mapped_texts_are_read_like_a_list(tmp_path: Path) -> None:
    texts = [text * (i % 3) for i, (text, _) in enumerate(ROWS)] + ["中文🎬", ""]
    MappedTexts.write(tmp_path / "texts.npy", texts)
    mapped = MappedTexts(tmp_path / "texts.npy")
    assert list(mapped) == texts and len(mapped) == len(texts)
    for part in (
        slice(None),
        slice(3, 9),
        slice(-4, None),
        slice(5, 2),
        slice(0, 90, 7),
        slice(None, None, -1),
        slice(100, 900),
    ):
        assert mapped[part] == texts[part]
    assert [mapped[i] for i in (0, -1, np.int64(7))] == [texts[i] for i in (0, -1, 7)]
    with pytest.raises(IndexError):
        mapped[len(texts)]


def test_a_grown_array_is_an_ordinary_npy_file(tmp_path: Path) -> None:
    parts = [np.arange(5), np.arange(0), np.arange(70_000) % 60_000]
    with GrowingArray(tmp_path / "grown.npy", np.uint16) as file:
        for part in parts:
            file.append(part)
    found = np.load(tmp_path / "grown.npy")
    assert found.dtype == np.uint16 and found.tolist() == np.concatenate(parts).tolist()
