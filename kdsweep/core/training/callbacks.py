"""What the caller of a trial can observe and decide while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdsweep.core.data.rows import Say

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Called after each optimizer step with the steps done and the steps in all. If it returns True,
# the trial saves its state and stops.
OnStep = Callable[[int, int], bool]

# Called after each epoch with its number, from 1, the student and its tokenizer.
OnEpoch = Callable[[int, "PreTrainedModel", "PreTrainedTokenizerBase"], None]


def never_stop(step: int, total_steps: int) -> bool:
    return False


def be_quiet(line: str) -> None:
    pass


def ignore_epoch(epoch: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    pass


@dataclass(frozen=True)
class Callbacks:
    """`say` receives one line of text for each piece of work that takes a while.

    `on_epoch` sees the student after each epoch, before it is evaluated and saved. After an
    interruption it may see the same epoch again. `latency` is that of a student like this one,
    measured before; None: it is measured when the trial ends.
    """

    on_step: OnStep = never_stop
    say: Say = be_quiet
    on_epoch: OnEpoch = ignore_epoch
    latency: Mapping[str, float] | None = None
