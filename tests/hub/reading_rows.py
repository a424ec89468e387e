"""A small dataset for tests, and what reading it gives or says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kdsweep.core.data.hub_dataset import open_dataset
from kdsweep.errors import DataError, KdsweepError

ROWS = "text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(20))
TWO_SUBSETS = """---
configs:
- config_name: long
  data_files: long/*.csv
- config_name: short
  data_files: short/*.csv
---
"""


def rows_of(name: str = "someone/films", subset: str | None = "short") -> list[str]:
    return open_dataset(name, subset, None, lambda found: list(found["train"]["text"]))


def refused(act: Callable[[], object], kind: type[KdsweepError] = DataError) -> str:
    """The one line of the error."""
    with pytest.raises(KdsweepError) as caught:
        act()
    assert isinstance(caught.value, kind), caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)
