"""What measurements share: values with targets, arms that take turns, the table and the file."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[2] / "build" / "benchmarks"


@dataclass(frozen=True)
class Row:
    """A measured value: of several values, their median, with `least` and `most` of them.

    The target is an upper bound (`at_most`) or a lower one (`at_least`).
    """

    what: str
    value: float | str
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None
    least: float | None = None
    most: float | None = None

    @property
    def target(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"

    @property
    def met(self) -> bool:
        if self.at_most is not None and float(self.value) > self.at_most:
            return False
        return self.at_least is None or float(self.value) >= self.at_least


def median(
    what: str,
    values: list[float],
    unit: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Row:
    return Row(what, statistics.median(values), unit, at_most, at_least, min(values), max(values))


def seconds(work: Callable[[], object]) -> float:
    """The wall seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def take_turns(arms: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each arm measures, `rounds` times, in the order A B C, C B A, A B C, ...

    So a machine that becomes slower slows down all of them.
    """
    found: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds):
        for name in list(arms)[:: -1 if number % 2 else 1]:
            found[name].append(arms[name]())
    return found


def ratios(over: list[float], under: list[float]) -> list[float]:
    """One ratio per round, so that only what was measured side by side is compared."""
    return [a / b for a, b in zip(over, under, strict=True)]


def show(name: str, rows: list[Row]) -> str:
    """The rows as a table of plain text."""
    lines = [name]
    for row in rows:
        value = row.value
        if not isinstance(value, str):
            value = f"{_number(value)} {row.unit}".rstrip()
        spread = ""
        if row.least is not None and row.most is not None:
            spread = f"({_number(row.least)} to {_number(row.most)})"
        verdict = "met" if row.met else "NOT MET"
        target = f"target {row.target}: {verdict}" if row.target else ""
        lines.append(f"  {row.what:<78} {value:>14} {spread:<22} {target}".rstrip())
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"


def keep(name: str, rows: list[Row]) -> None:
    """Write the rows and a description of this machine to build/benchmarks/NAME.json."""
    OUT.mkdir(parents=True, exist_ok=True)
    found = {
        "machine": machine(),
        "rows": [asdict(row) | {"target": row.target, "met": row.met} for row in rows],
    }
    (OUT / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """What the figures depend on in addition to the code."""
    import torch
    import transformers

    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "gpus": gpus,
    } | versions
