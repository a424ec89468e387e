"""What `precision: auto` means in a sweep: the device of its first slot says it, once.

On this machine it is known before there is a slot. On a cluster the first slots say it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch

from kdsweep.config import Plan
from kdsweep.config.sweep import InlineEngine
from kdsweep.core.device import best_precision, bf16_instructions, pick_device, this_device
from kdsweep.core.settings import SettledPrecision
from kdsweep.errors import SettingsConflict
from kdsweep.formatting import joined
from kdsweep.sweep.engines.places import Place
from kdsweep.sweep.engines.slots import EngineConfig, settle_engine
from kdsweep.sweep.engines.worker_check import refusal
from kdsweep.sweep.folders import SweepFolder


class PrecisionStage:
    """Settles `precision: auto` for a sweep that is run.

    Raises SettingsConflict where the sweep has settled on bf16 and this machine, which is to run
    it, would have to emulate that.
    """

    def __init__(self, plan: Plan, folder: SweepFolder) -> None:
        self._space, self._folder = plan.space, folder
        facts = folder.read_facts()
        here = best_here(plan.sweep.engine)
        self._is_open = facts.precision == "unsettled"
        if self._is_open and here is not None:
            self._settle(here)
        self._space.settle_auto(facts.auto)
        if facts.auto == "bf16" and here == "fp32" and self._space.says_auto:
            raise SettingsConflict(refusal(folder.name, this_device().name))

    def settle(self, places: Collection[Place]) -> None:
        """Let the places of the first slots say what `auto` means: bf16 where all of them have it.

        Nothing happens once it is settled.
        """
        if self._is_open and places:
            has_bf16 = all(place.best_precision == "bf16" for place in places)
            self._settle("bf16" if has_bf16 else "fp32")

    def _settle(self, auto: SettledPrecision) -> None:
        # Written first: whoever continues the sweep computes as its first trial did.
        self._folder.write_facts(replace(self._folder.read_facts(), precision=auto))
        self._space.settle_auto(auto)
        self._is_open = False


def best_here(engine: EngineConfig) -> SettledPrecision | None:
    """What `auto` means in a new sweep on this machine; None if its slots may be elsewhere."""
    settled = settle_engine(engine)
    if isinstance(settled, InlineEngine):
        return best_precision(pick_device())
    if settled.address != "local":
        return None
    without_gpu = settled.gpus_per_trial == 0
    return best_precision(torch.device("cpu") if without_gpu else pick_device())


@dataclass(frozen=True)
class PrecisionFacts:
    """What trials and teachers of a plan compute in. auto: what `precision: auto` means; None
    where that isn't known yet. words: all of it, for people."""

    auto: SettledPrecision | None
    used: tuple[str, ...]
    words: str


def planned_precision(plan: Plan, folder: SweepFolder) -> PrecisionFacts:
    """What a sweep would compute in, or does, where it exists."""
    space = plan.space
    stored = folder.read_facts().precision if folder.exists() else "unsettled"
    if not space.says_auto:
        return PrecisionFacts(space.auto, space.precisions(), joined(space.precisions()))
    if space.auto is not None:
        words = f"{joined(space.precisions())}, as the sweep's first slot settled it"
        return PrecisionFacts(space.auto, space.precisions(), words)
    if stored is None:
        words = "auto: bf16 on a GPU that has it, fp32 on a CPU, as when the sweep was started"
        return PrecisionFacts(None, space.precisions(), words)
    here = best_here(plan.sweep.engine)
    if here is None:
        words = "auto: bf16 if the first slot's device has it, else fp32"
        return PrecisionFacts(None, space.precisions(), words)
    space.settle_auto(here)
    words = f"{joined(space.precisions())} (auto: {_why(here)})"
    return PrecisionFacts(here, space.precisions(), words)


def _why(here: SettledPrecision) -> str:
    if here == "bf16" and pick_device().type == "cpu":
        return f"this CPU has {bf16_instructions()}"
    return "this GPU has bf16" if here == "bf16" else "no bf16 instructions here"
