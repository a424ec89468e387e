"""How numbers are written for a person, in tables, charts, sentences and messages, and how any
text is written in Markdown, so that a name is never markup.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

MISSING = "–"


def score(value: float | None) -> str:
    """A metric: `0.9123`."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:.4f}"


def score_range(low: float, high: float) -> str:
    """`0.9101 to 0.9223`."""
    return f"{low:.4f} to {high:.4f}"


def percent(share: float) -> str:
    """0.874 -> `87.4%`."""
    return f"{100 * share:.1f}%"


def significant(value: float) -> str:
    """Three significant digits, or two for very small values: `0.125`, `2.3e-05`."""
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"


def parameters(count: float) -> str:
    """`66.4 M`."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            digits = 2 if unit == "B" else 1
            return f"{count / size:.{digits}f} {unit}"
    return f"{count:.0f}"


def megabytes(size_mb: float) -> str:
    """`438 MB`, `66.9 MB`."""
    return _with_unit(size_mb, "MB")


def file_size(size: int) -> str:
    """Bytes on a disk: `412 B`, `3.2 kB`, `438 MB`, `1.2 GB`."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return _with_unit(round(value) if unit == "B" else value, unit)
        value /= 1000
    return _with_unit(value, "TB")


def milliseconds(latency_ms: float) -> str:
    """`31.2 ms`."""
    return _with_unit(latency_ms, "ms")


def _with_unit(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{number} {unit}"


def latencies(p50_ms: float, p95_ms: float | None) -> str:
    """The median and the 95th percentile: `7.1/8.4 ms`."""
    high = "" if p95_ms is None else f"/{_short(p95_ms)}"
    return f"{_short(p50_ms)}{high} ms"


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """`0.42 s`, `42 s`, `3 min 5 s`, `2 h 10 min`."""
    if 0 < seconds < 9.5:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(number: int, noun: str) -> str:
    """`1 seed`, `1,000 seeds`. noun: one that takes an `s`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def count_range(least: int, most: int, noun: str) -> str:
    """`8 to 40 runs`; `1 run` where both are 1."""
    return count(most, noun) if least == most else f"{least:,} to {count(most, noun)}"


def joined(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def precision_in_words(precisions: Sequence[str]) -> str | None:
    """What models are trained in; None where nothing has settled what `auto` is."""
    return None if "auto" in precisions else joined(precisions)


# --- Markdown (CommonMark, with the tables of GitHub) ---


def in_markdown(text: object) -> str:
    """The text on one line, to be read as it is. In a cell of a table `|` is left to be escaped."""
    line = " ".join(str(text).split())
    line = re.sub(r"[\\`*\[\]<>~]|&(?=#?\w+;)", lambda found: f"\\{found[0]}", line)
    # Inside of a word an underscore is none of Markdown's.
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", line)


def code_span(text: object) -> str:
    """The text as code. Its fence is longer than any run of backticks in it (CommonMark 6.1)."""
    line = " ".join(str(text).split())
    fence = "`" * (_longest_run(line) + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def code_block(text: str, language: str = "") -> str:
    """The lines as a block of code."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
