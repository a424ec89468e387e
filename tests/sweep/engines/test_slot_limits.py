"""How many slots a machine has memory for, and whose kill is whose."""

from __future__ import annotations

from collections import Counter

from kdsweep.sweep.engines.slot_limits import SlotLimits


def test_a_machine_without_enough_memory_keeps_one_slot_at_least() -> None:
    limits = SlotLimits()
    assert limits.most("a", 4) == 4
    assert limits.lower("a", 3)
    # Three workers die at once, each when fewer are left.
    assert limits.lower("a", 1)
    assert not limits.lower("a", 0)
    assert not limits.lower("a", 2)
    assert (limits.most("a", 4), limits.most("b", 4)) == (1, 4)
    assert limits.full(Counter(a=1, b=4)) == ["a"]
    assert limits.full(Counter(b=4)) == []


def test_a_kill_is_that_of_one_worker() -> None:
    limits = SlotLimits()
    first = limits.unexplained("a", 5)
    second = limits.unexplained("a", 5)
    # Both are killed before one of them is missed.
    assert limits.unexplained("a", 7) > first
    limits.explain("a")
    assert limits.unexplained("a", 7) > second
    limits.explain("a")
    # A worker that starts afterwards and dies of something else.
    third = limits.unexplained("a", 7)
    assert limits.unexplained("a", 7) == third
