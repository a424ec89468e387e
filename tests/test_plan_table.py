"""What `kdsweep plan` shows of a task's labels."""

from __future__ import annotations

from kdsweep.sweep.plan_facts import SplitFacts
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
