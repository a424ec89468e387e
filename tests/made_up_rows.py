"""Rows for `kdsweep init` to look at, and what it says about them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from kdsweep.config import load_space
from kdsweep.drafting.draft import DataRequest
from kdsweep.drafting.writing import as_json, init

# ask(rows, ...) -> what init says about them, as JSON.
Ask = Callable[..., dict[str, Any]]
# A value of a column, from a random source and the row's number.
Make = Callable[[random.Random, int], Any]

TAGS = ["joy", "anger", "fear", "love"]
WORDS = [
    "please",
    "help",
    "me",
    "with",
    "an",
    "order",
    "that",
    "is",
    "late",
    "and",
    "a",
    "bill",
    "that",
    "is",
    "wrong",
]


def tickets(
    count: int = 200,
    teams: tuple[str, ...] = ("billing", "shipping", "refunds"),
    weights: tuple[float, ...] | None = None,
) -> list[dict[str, Any]]:
    draw = random.Random(0)
    return [
        {
            "id": f"T-{i:05}",
            "opened": f"2024-03-{i % 28 + 1:02}",
            "message": " ".join(draw.choices(WORDS, k=12)) + f" {i}",
            "team": draw.choices(teams, weights)[0],
            "urgent": draw.choice([0, 1]),
        }
        for i in range(count)
    ]


def amount(draw: random.Random, row: int) -> float:
    return round(draw.uniform(0, 5), 2)


def flag(draw: random.Random, row: int) -> int:
    return int(draw.random() < 0.4)


def tags(draw: random.Random, row: int) -> list[str]:
    return draw.sample(TAGS, draw.randint(0, 2))


def one_of(*values: Any) -> Make:
    return lambda draw, row: draw.choice(values)


def rows(count: int = 300, **columns: Make) -> list[dict[str, Any]]:
    """Texts with these columns next to them."""
    draw = random.Random(0)
    return [
        {"message": ticket["message"], **{name: make(draw, i) for name, make in columns.items()}}
        for i, ticket in enumerate(tickets(count))
    ]


def drafts_in(folder: Path, monkeypatch: pytest.MonkeyPatch, suffix: str = "csv") -> Ask:
    """Writes rows as a file in `folder`, which becomes the current one, and a space for them.

    jsonl: rows may hold lists.
    """
    monkeypatch.chdir(folder)

    def ask(
        found: list[dict[str, Any]], *, text: tuple[str, ...] = (), label: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        data = f"rows.{suffix}"
        if suffix == "csv":
            pandas.DataFrame(found).to_csv(data, index=False)
        else:
            Path(data).write_text("\n".join(map(json.dumps, found)))
        Path("space.yaml").unlink(missing_ok=True)
        return drafted(data, text=text, label=label)

    return ask


def drafted(
    data: str,
    file: str | None = "space.yaml",
    *,
    name: str | None = None,
    subset: str | None = None,
    text: tuple[str, ...] = (),
    label: tuple[str, ...] = (),
) -> dict[str, Any]:
    """What init says about a dataset, as JSON."""
    request = DataRequest(data, subset, text, label)
    return as_json(init(request, None if file is None else Path(file), name=name))


def comments() -> str:
    """The written space on one line, without its comment signs."""
    return " ".join(Path("space.yaml").read_text().replace("#", " ").split())


def task_of(facts: dict[str, Any]) -> tuple[Any, str]:
    """The label and the kind that were proposed, which the written file has too."""
    task = load_space("space.yaml").task
    assert task.kind.name == facts["kind"]
    assert list(task.label_columns) == (
        facts["task"]["label"]
        if isinstance(facts["task"]["label"], list)
        else [facts["task"]["label"]]
    )
    return facts["task"]["label"], facts["kind"]
