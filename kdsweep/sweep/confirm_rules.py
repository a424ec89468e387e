"""What of `confirm` can't change once a trial of the sweep was trained again with a fresh seed.

A value that the sweep file doesn't name is the one that the sweep has. A sweep of an earlier
version has one finalist: the best trial of its search.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from kdsweep.config import Plan, SweepConfig
from kdsweep.config.older_spaces import as_trained
from kdsweep.config.sweep import Confirm
from kdsweep.errors import SettingsConflict
from kdsweep.sweep.facts import ConfirmRules, SweepFacts
from kdsweep.sweep.folders import SweepFolder


def with_kept_rules(sweep: SweepConfig, facts: SweepFacts) -> SweepConfig:
    """The sweep's configuration, with the kept value of each rule of confirm that it leaves out."""
    confirm = sweep.confirm
    # Nothing else of it is read: `on_done` is stored without its secret.
    before = SweepFacts(facts.kdsweep, {}, "", {"confirm": facts.sweep.get("confirm", {})})
    kept = asdict(facts.confirm or rules_of(before.config("", {}).confirm))
    # Before the first run, a margin is whatever this run of the sweep says.
    names = kept if facts.confirm is not None else ("finalists",)
    left_out = {name: kept[name] for name in names if name not in confirm.model_fields_set}
    return sweep.model_copy(update={"confirm": confirm.model_copy(update=left_out)})


def rules_of(confirm: Confirm) -> ConfirmRules:
    return ConfirmRules(finalists=confirm.finalists, margin=confirm.margin)


def check_confirm_rules(plan: Plan, folder: SweepFolder) -> None:
    """Raise SettingsConflict if a rule is another one than the sweep's runs were trained by.

    A sweep with another identity is left to who compares those.
    """
    if not folder.exists():
        return
    facts = folder.read_facts()
    if as_trained(facts.identity) != as_trained(plan.identity):
        return
    kept = facts.confirm
    asked = rules_of(plan.sweep.confirm)
    if kept is None and folder.confirm.is_dir() and any(folder.confirm.iterdir()):
        # An earlier version, which had no other way, confirmed the best trial of a search.
        kept = replace(asked, finalists=1)
    if kept is None or kept == asked:
        return
    before, after = asdict(kept), asdict(asked)
    changed = [name for name in before if before[name] != after[name]]
    differences = ", ".join(f"confirm.{name}: {before[name]} -> {after[name]}" for name in changed)
    stored = " ".join(f"--set confirm.{name}={before[name]}" for name in changed)
    raise SettingsConflict(
        f"sweep {folder.name!r} has trained finalists or confirm runs by another rule "
        f"({differences}); leave it out or use {stored}; --fresh starts a new sweep"
    )


def keep_rules(plan: Plan, folder: SweepFolder) -> None:
    """Store the rules, unless they are. For the driver, before the first of these runs."""
    facts = folder.read_facts()
    if facts.confirm is None:
        folder.write_facts(replace(facts, confirm=rules_of(plan.sweep.confirm)))
