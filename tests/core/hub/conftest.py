"""A Hub with a small dataset, for clients without patience."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub.reading_rows import ROWS, TWO_SUBSETS
from hub.server import Hub

from kdsweep.core.hub import client, fetching


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are as long as they are for a user, but a test has no time for that."""
    monkeypatch.setattr(client, "BUSY_SECONDS", 0.4)
    monkeypatch.setattr(client, "AWAY_SECONDS", 0.2)
    monkeypatch.setattr(fetching, "BUSY_SECONDS", 0.4)
    monkeypatch.setattr(fetching, "SECONDS_BETWEEN_TRIES", 0.05)


@pytest.fixture
def films(hub_here: Hub) -> Hub:
    files = {"README.md": TWO_SUBSETS, "long/train.csv": ROWS, "short/train.csv": ROWS}
    hub_here.add_dataset("someone/films", files)
    return hub_here


@pytest.fixture
def review_parquet(tmp_path: Path) -> bytes:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": [f"text {i}" for i in range(50)], "label": [0, 1] * 25})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    return (tmp_path / "rows.parquet").read_bytes()
