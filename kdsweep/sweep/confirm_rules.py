"""What of `confirm` can't change once a trial of the sweep was trained again with a fresh seed.

A value that the sweep file doesn't name is the one that the sweep has. A sweep of an earlier
version has one finalist: the best trial of its search.
"""

from __future__ import annotations

from dataclasses import replace

from kdsweep.compare.looks import LookRules
from kdsweep.config import Plan, SweepConfig
from kdsweep.config.sweep import LOOKS, Confirm
from kdsweep.errors import SettingsConflict
from kdsweep.sweep.facts import ConfirmRules, SweepFacts
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.identity import is_same_sweep


def with_kept_rules(sweep: SweepConfig, facts: SweepFacts) -> SweepConfig:
    """The sweep's configuration, with the kept value of each rule of confirm that it leaves out."""
    confirm = sweep.confirm
    # Nothing else of it is read: `on_done` is stored without its secret.
    before = SweepFacts(facts.kdsweep, {}, "", {"confirm": facts.sweep.get("confirm", {})})
    kept = _values(facts.confirm or rules_of(before.config("", {}).confirm))
    # Before the first run, other rules are whatever this run of the sweep says.
    names = kept if facts.confirm is not None else ("finalists",)
    left_out = {name: kept[name] for name in names if name not in confirm.model_fields_set}
    return sweep.model_copy(update={"confirm": confirm.model_copy(update=left_out)})


def rules_of(confirm: Confirm) -> ConfirmRules:
    most = confirm.most if confirm.seeds == "auto" else None
    return ConfirmRules(finalists=confirm.finalists, margin=confirm.margin, most=most)


def _values(rules: ConfirmRules) -> dict[str, object]:
    """The values of `confirm` that these rules fix."""
    values: dict[str, object] = {"finalists": rules.finalists, "margin": rules.margin}
    return values if rules.most is None else values | {"seeds": "auto", "most": rules.most}


def check_confirm_rules(plan: Plan, folder: SweepFolder) -> None:
    """Raise SettingsConflict if a rule is another one than the sweep's runs were trained by.

    A number of seeds may change, also to `auto`; `auto` may not change to a number. A sweep with
    another identity is left to who compares those.
    """
    if not folder.exists():
        return
    facts = folder.read_facts()
    if not is_same_sweep(plan, facts.identity):
        return
    kept = facts.confirm
    confirm = plan.sweep.confirm
    if kept is None and folder.confirm.is_dir() and any(folder.confirm.iterdir()):
        # An earlier version, which had no other way, confirmed the best trial of a search.
        kept = ConfirmRules(finalists=1, margin=confirm.margin)
    if kept is None:
        return
    before, after = _values(kept), dict(confirm)
    changed = [name for name in before if before[name] != after[name]]
    if not changed:
        return
    differences = ", ".join(f"confirm.{name}: {before[name]} -> {after[name]}" for name in changed)
    stored = " ".join(f"--set confirm.{name}={before[name]}" for name in changed)
    raise SettingsConflict(
        f"sweep {folder.name!r} has trained finalists or confirm runs by another rule "
        f"({differences}); leave it out or use {stored}; --fresh starts a new sweep"
    )


def keep_rules(plan: Plan, folder: SweepFolder, favorite: str | None = None) -> None:
    """Store the rules, unless they are. For the driver, before the first of these runs.

    favorite: of the first look, which is judged now.
    """
    facts = folder.read_facts()
    kept = facts.confirm or rules_of(plan.sweep.confirm)
    kept = replace(kept, favorite=kept.favorite or favorite)
    if kept != facts.confirm:
        folder.write_facts(replace(facts, confirm=kept))


# --- looks ---------------------------------------------------------------------------------------


def starts_looks(plan: Plan, facts: SweepFacts) -> bool:
    """Whether this run of the sweep is the first one with `seeds: auto`, as far as is stored."""
    is_kept = facts.confirm is not None and facts.confirm.most is not None
    return plan.sweep.confirm.seeds == "auto" and not is_kept


def rules_at_start(plan: Plan, folder: SweepFolder, facts: SweepFacts) -> ConfirmRules | None:
    """The rules that a run of the sweep starts with; None where they aren't settled yet.

    Seeds that were spent under a number of seeds are the first look of `seeds: auto`.
    """
    if not starts_looks(plan, facts):
        return facts.confirm
    spent = [
        run.seed_index + 1
        for strategy in plan.space.strategies
        for run in folder.ended_runs("confirm", strategy)
        if run.seed_index is not None
    ]
    if facts.confirm is None and not spent:
        return None
    return replace(rules_of(plan.sweep.confirm), first=max(spent, default=None))


def look_rules(confirm: Confirm, kept: ConfirmRules | None, favorite: str | None) -> LookRules:
    """With `seeds: auto`. favorite: the one of a sweep that hasn't stored any yet."""
    stored = kept or rules_of(confirm)
    return LookRules(
        margin=confirm.margin,
        most=confirm.most,
        first=stored.first or LOOKS[0],
        favorite=stored.favorite or favorite,
    )


def look_of(kept: ConfirmRules | None, seed_index: int) -> int | None:
    """After how many seeds the look is to which this one belongs; None without looks."""
    if kept is None or kept.most is None:
        return None
    looks = LookRules(most=kept.most, first=kept.first or LOOKS[0]).looks
    return next((look for look in looks if seed_index < look), None)
