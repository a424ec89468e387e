"""What is known of the settings that the search chose, in words.

The best of many trials is a choice by the highest validation value. These sentences say how far it
is more than that, and charts that draw single trials repeat it.
"""

from __future__ import annotations

from collections.abc import Collection

from kdsweep.compare.findings import SettingsComparison
from kdsweep.formatting import count, joined
from kdsweep.report.model import Report

# Not said where the sweep looked for the cheapest student.
CHOICE = "; the choice among them is the highest validation value"
UNKNOWN = (
    "can't be known: trials of version 0.1.0 kept no predictions for validation, so it is only the "
    "one with the highest value"
)


def settings_in_words(report: Report) -> dict[str, str]:
    """For each strategy with several complete trials, how sure its best settings are."""
    return {
        name: _in_report(report, name, found.settings_comparison)
        for name, found in report.strategies.items()
        if found.settings_comparison is not None
    }


def settings_said_once(report: Report) -> list[str]:
    """The same sentences; strategies of which the same is known share one."""
    groups: dict[str, tuple[SettingsComparison, list[str]]] = {}
    for name, found in report.strategies.items():
        if (one := found.settings_comparison) is not None:
            says_little = one.alike is None or one.tells_nothing
            words = _in_report(report, "any strategy" if says_little else name, one)
            groups.setdefault(words, (one, []))[1].append(name)
    return [
        _in_report(report, names[0] if len(names) == 1 else f"each of {joined(names)}", one)
        for one, names in groups.values()
    ]


def _in_report(report: Report, strategy: str, found: SettingsComparison) -> str:
    words = in_words(strategy, found)
    return words if report.cheapest is None else words.removesuffix(CHOICE)


def in_words(strategy: str, found: SettingsComparison) -> str:
    """A sentence without its full stop."""
    if found.alike is None:
        return f"whether the best settings of {strategy} are better than others {UNKNOWN}"
    alike, tried = len(found.alike), _tried(found)
    if alike == 1 and not found.seeds:
        return (
            f"the student of {strategy}'s best trial is shown to be better than all others of "
            f"{tried} on validation, but whether its settings are isn't known ({_counted(found)})"
        )
    if alike == 1:
        return (
            f"the best settings of {strategy} are shown to be better than all others of {tried} "
            f"on validation ({_counted(found)})"
        )
    # Noise between seeds could only add to them.
    least = "" if found.seeds else "at least "
    words = (
        f"{least}{alike} of {tried} settings of {strategy} can't be told apart from the best one"
    )
    if found.tells_nothing:
        words = f"none of {tried} settings of {strategy} is shown to be worse than the best one"
    return f"{words} ({_counted(found)}){CHOICE}"


def _tried(found: SettingsComparison) -> str:
    if found.compared < found.complete:
        return f"the {found.compared:,} highest of {found.complete:,}"
    return f"{found.compared:,}"


def _counted(found: SettingsComparison) -> str:
    """Which noise the statement counts."""
    if found.seeds:
        return f"validation rows and {count(found.seeds, 'seed')} of confirm counted"
    return (
        "only validation rows counted: without two runs of confirm, the noise between seeds isn't "
        "known"
    )


def effects_in_words(report: Report, strategies: Collection[str]) -> str:
    """Which parameters are shown to have an effect; starts with a space, or is empty."""
    tested = {name: report.shown_to_matter[name] for name in strategies if _tested(report, name)}
    if not tested:
        return ""
    shown = {
        name: [parameter for parameter, is_shown in found.items() if is_shown]
        for name, found in tested.items()
    }
    words = "; ".join(f"{name}: {joined(found)}" for name, found in shown.items() if found)
    what = "by more than noise (permutation tests, corrected for all parameters)"
    if not words:
        return f" No parameter is shown to matter {what}."
    return f" Shown to matter {what}: {words}."


def effect_note(report: Report, parameter: str, strategies: Collection[str]) -> str:
    """Whether a parameter is shown to matter, such as `alpha` with its parts; starts with a space.

    Empty if no strategy could be tested for it.
    """
    tested = {
        name: [
            is_shown
            for part, is_shown in report.shown_to_matter[name].items()
            if part.split(".")[0] == parameter
        ]
        for name in strategies
        if _tested(report, name)
    }
    known = [name for name, found in tested.items() if found]
    shown = [name for name in known if any(tested[name])]
    if not known:
        return ""
    what = parameter.replace("_", " ")
    if not shown:
        return f" No effect of {what} is shown to be more than noise."
    return f" An effect of {what} that is more than noise is shown for {joined(shown)}."


def _tested(report: Report, strategy: str) -> bool:
    return bool(report.shown_to_matter.get(strategy))


def noise_note(report: Report, strategies: Collection[str]) -> str:
    """What a chart of single trials must not hide; starts with a space, or is empty.

    strategies: those that the chart shows.
    """
    found = {
        name: one
        for name in strategies
        if (one := report.strategies[name].settings_comparison) is not None
    }
    nothing = [name for name, one in found.items() if one.tells_nothing]
    unknown = [name for name, one in found.items() if one.alike is None]
    words = ""
    if nothing:
        words += (
            f" None of the trials of {joined(nothing)} is shown to be worse than the strategy's "
            "best one, so what differs here may be noise alone."
        )
    for name, one in found.items():
        if one.alike is not None and len(one.alike) > 1 and not one.tells_nothing:
            words += (
                f" {len(one.alike)} of {_tried(one)} trials of {name} can't be told apart from the "
                "best one: differences among them may be noise."
            )
    if unknown:
        words += (
            f" Whether trials of {joined(unknown)} differ by more than noise can't be known: they "
            "kept no predictions for validation."
        )
    return words
