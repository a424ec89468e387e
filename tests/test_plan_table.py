"""What `kdsweep plan` shows of a task's labels."""

from __future__ import annotations

import pytest
from rich.table import Table

from kdsweep.sweep.plan_facts import SplitFacts
from kdsweep.terminal.console import open_console
from kdsweep.terminal.plan import spread_of_labels


def test_a_split_with_many_labels_shows_the_most_frequent_and_the_rarest() -> None:
    counts = {f"intent {i}": 40 + i for i in range(150)}
    words = spread_of_labels(SplitFacts(rows=sum(counts.values()), labels=counts))
    assert words.count("intent") == 8
    assert words.startswith("intent 149 1.1%, intent 148 1.1%, ")
    assert words.endswith(", 142 more, least intent 0 0.2%")


def test_a_split_with_few_labels_shows_them_in_their_order() -> None:
    assert spread_of_labels(SplitFacts(4, labels={"b": 1, "a": 3})) == "b 25.0%, a 75.0%"
    numbers = SplitFacts(4, values={"least": 0.5, "mean": 2.0})
    assert spread_of_labels(numbers) == "least 0.5, mean 2"


def test_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """A label may look like rich's markup or like an emoji's name."""
    table = Table(title="m[v2]")
    table.add_column("[bold]")
    table.add_row("[spam] 50.0%, [/spam] 25.0%, :smile: 25.0%")
    console = open_console()
    console.print(table)
    console.print("tags: [spam], [/spam], :smile:", style="bold")
    shown = capsys.readouterr().out
    for name in ("m[v2]", "[bold]", "[spam] 50.0%, [/spam] 25.0%, :smile: 25.0%"):
        assert name in shown
    assert "tags: [spam], [/spam], :smile:" in shown
