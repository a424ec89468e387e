"""Inner states as they are before a model drops parts of them.

In training, transformers returns attention maps after dropout: some probabilities are 0 and the
others are scaled up.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class BeforeDropout(TorchFunctionMode):
    """Inside, remembers what goes into each dropout, for any model.

    maps_only: only square matrices for each row and head, so that no other state is kept in memory.
    """

    def __init__(self, *, maps_only: bool = True) -> None:
        super().__init__()
        self.maps_only = maps_only
        # By the output's id; the output is kept, so that no other tensor gets that id.
        self._inputs: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        if function is functional.dropout:
            before = args[0] if args else kwargs["input"]
            if output is not before and (not self.maps_only or _is_map(before)):
                self._inputs[id(output)] = (output, before)
        return output

    def was_dropped(self, state: Tensor) -> bool:
        """Whether this state came out of a dropout."""
        return id(state) in self._inputs

    def of(self, state: Tensor) -> Tensor:
        """The state as it was before its dropout; the state itself if it has none."""
        return self._inputs[id(state)][1] if self.was_dropped(state) else state


def _is_map(state: Tensor) -> bool:
    return state.dim() == 4 and state.shape[-1] == state.shape[-2]
