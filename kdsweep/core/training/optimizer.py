"""AdamW whose cost doesn't grow with the vocabulary.

Loshchilov, Hutter (2019), "Decoupled Weight Decay Regularization", algorithm 2.

The word embedding holds two thirds of a small student's weights, but a batch reads only some
hundred of its rows; the other rows have no gradient. On a CPU only the rows that a batch reads get
a gradient and are clipped and updated. An unread row still changes in the dense update: its moments
fade, and its weights move by them and decay. That is applied when the row is next read. Without a
gradient all elements of a row share the same factors, so a few numbers per row are enough. The
weights equal those of the dense update except for rounding, as long as gradients are far above
AdamW's epsilon (1e-8): from 1e-4 on. An unread row then moves by the ratio of its moments. Below,
epsilon counts, and one mean of it stands for all unread steps: over 300 steps a row's movement was
wrong by up to 0.1% for gradients of 1e-6, and by up to 6% for 1e-9, where rows hardly move. On a
GPU, where memory is fast and each kernel costs a launch, the dense update stays in use.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from kdsweep.core.models.layers import depths

BETAS, EPSILON = (0.9, 0.999), 1e-8
# torch's names in the optimizer's state.
MOMENTS = ("exp_avg", "exp_avg_sq")
ROWS_AT_ONCE = 4096


class AdamW(torch.optim.AdamW):
    """Optimizes all weights of `model`, and those of `beside`, which is trained with it.

    Matrices decay; biases and norms don't. The learning rate is 1 until a scheduler changes it.
    Each layer learns at `layer_decay` times the rate of the layer above it (Howard, Ruder 2018,
    "Universal Language Model Fine-tuning", section 3.2: discriminative fine-tuning).

    A step calls `read` with its tokens, runs the forward and backward passes, and calls `clip`,
    `step` and `zero_grad`. Call `settle` before anything but the next step reads the weights.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        weight_decay: float,
        *,
        layer_decay: float = 1.0,
        beside: nn.Module | None = None,
    ) -> None:
        groups = decayed_groups(model, weight_decay, layer_decay)
        if beside is not None:
            groups += decayed_groups(beside, weight_decay)
        super().__init__(groups, lr=1.0, betas=BETAS, eps=EPSILON, fused=True)
        self._weights = [parameter for group in self.param_groups for parameter in group["params"]]
        embedding = model.get_input_embeddings()
        self._embedding = embedding if type(embedding) is nn.Embedding else None
        self._rows: _Rows | None = None
        if self._embedding is not None and rows_are_read_by_number(model):
            module = RowEmbedding(self._embedding)
            model.set_input_embeddings(module)
            self._rows = _Rows(self, module.weight, module)
            self._own_tokens = own_tokens(model, module.num_embeddings)

    def read(self, *input_ids: np.ndarray) -> None:
        """Announce the tokens of the next step; the model may add special tokens itself."""
        if self._rows is not None:
            self._rows.read(
                np.unique(np.concatenate([self._own_tokens, *(part.ravel() for part in input_ids)]))
            )

    def clip(self, longest: float) -> None:
        """Scale all gradients down together until their L2 norm is at most this."""
        weights = self._weights
        if self._rows is not None:
            weights = [*weights, self._rows.leaf]
        nn.utils.clip_grad_norm_(weights, longest)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        super().step()
        if self._rows is not None:
            self._rows.step()

    def settle(self) -> None:
        """Bring all weights up to date."""
        if self._rows is not None:
            self._rows.settle()

    def state_dict(self) -> dict[str, Any]:
        found = super().state_dict()
        if self._rows is None:
            return found
        number = next(i for i, weight in enumerate(self._weights) if weight is self._rows.weight)
        return found | {
            "state": {key: value for key, value in found["state"].items() if key != number},
            "rows": self._rows.packed(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A state that was saved on a CPU also loads on a GPU, and the other way round."""
        super().load_state_dict(
            {name: value for name, value in state_dict.items() if name != "rows"}
        )
        if self._rows is not None:
            self._rows.resume(state_dict.get("rows"))
        elif "rows" in state_dict and self._embedding is not None:
            rows = _Rows(self, self._embedding.weight)
            rows.resume(state_dict["rows"])
            rows.settle()


def decayed_groups(
    model: nn.Module, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """One group for what decays (matrices) and one for what doesn't (biases, the weights of norms).

    If the layers learn at different rates, there are two groups for each depth.
    """
    depth: dict[str, int] = {}
    if layer_decay != 1:
        assert isinstance(model, PreTrainedModel)
        depth = depths(model, model.config.model_type)
    top = max(depth.values(), default=0)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (top - depth.get(name, top), parameter.ndim >= 2)
            group = {
                "params": [],
                "weight_decay": weight_decay if key[1] else 0.0,
                "lr": layer_decay ** key[0],
            }
            groups.setdefault(key, group)["params"].append(parameter)
    return sorted(groups.values(), key=lambda group: (-group["lr"], -group["weight_decay"]))


def rows_are_read_by_number(model: PreTrainedModel) -> bool:
    """Whether a CPU computes here and the word embedding only looks up the tokens of a batch."""
    weight = model.get_input_embeddings().weight
    names = [
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter is weight
    ]
    return (
        model.device.type == "cpu"
        and len(names) == 1
        and bool(weight.requires_grad)
        and not model.config.is_encoder_decoder
    )


def own_tokens(model: PreTrainedModel, rows: int) -> np.ndarray:
    """The tokens below `rows` that the model's config names by their role.

    Models such as Longformer and BigBird pad a batch once more themselves.
    """
    named = [value for name, value in model.config.to_dict().items() if name.endswith("_token_id")]
    numbers = {
        number
        for value in named
        for number in (value if isinstance(value, list) else [value])
        if number is not None
    }
    return np.array(sorted(number for number in numbers if 0 <= number < rows), dtype=np.int64)


class RowEmbedding(nn.Embedding):
    """An embedding that reads from `leaf` while there is one: a step's rows, fp32 [rows, width].

    `row_in_leaf` [vocabulary] has the position of each row in the leaf, or -1, with which a look-up
    fails.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__(
            embedding.num_embeddings,
            embedding.embedding_dim,
            embedding.padding_idx,
            _weight=embedding.weight,
        )
        self.weight = embedding.weight
        self.train(embedding.training)
        self.leaf: Tensor | None = None
        self.row_in_leaf = torch.full((embedding.num_embeddings,), -1)

    def forward(self, input: Tensor) -> Tensor:
        if self.leaf is None:
            return super().forward(input)
        padding = -1 if self.padding_idx is None else int(self.row_in_leaf[self.padding_idx])
        return functional.embedding(
            self.row_in_leaf[input], self.leaf, None if padding < 0 else padding
        )


# What is pending for a row since its last step, in fp64: the product of the decays; the factors of
# its first and of its second moment; the sum of the step sizes by which the ratio of its old
# moments moves it; and that sum weighted by each step's epsilon.
DECAY, FADE, FADE_OF_SQUARES, MOVED, EPSILONS = range(5)
NOTHING_PENDING = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64)


class _Rows:
    """The embedding's part of the optimizer. The moments stay in the optimizer's own state."""

    def __init__(
        self, optimizer: AdamW, weight: Tensor, module: RowEmbedding | None = None
    ) -> None:
        self.optimizer, self.weight, self.module = optimizer, weight, module
        self.group = next(
            i
            for i, group in enumerate(optimizer.param_groups)
            if any(parameter is weight for parameter in group["params"])
        )
        self.pending = torch.empty(0)
        self.resume(None)

    def packed(self) -> dict[str, Tensor]:
        """The state to save. Only the rows that batches have read have moments."""
        seen = self.state["exp_avg_sq"].any(dim=1).nonzero().squeeze(1)
        moments = {moment: self.state[moment][seen] for moment in MOMENTS}
        return {"pending": self.pending, "step": self.state["step"], "seen": seen, **moments}

    def resume(self, packed: dict[str, Tensor] | None) -> None:
        """Continue from a saved state, or from weights that are up to date."""
        device = self.weight.device
        pending = NOTHING_PENDING[:, None].repeat(1, len(self.weight))
        if packed is not None:
            pending = packed["pending"]
        self.pending = pending.to(device)
        self.state = self.optimizer.state[self.weight]
        if "exp_avg" not in self.state:
            self.state |= {"step": torch.tensor(0.0)} | {
                moment: torch.zeros_like(self.weight) for moment in MOMENTS
            }
        if packed is not None:
            self.state["step"] = packed["step"]
            for moment in MOMENTS:
                self.state[moment].detach()[packed["seen"].to(device)] = packed[moment].to(device)
        # The other rows have no moments: only decay changes them.
        self.moving = self.state["exp_avg_sq"].any(dim=1)

    @torch.no_grad()
    def read(self, rows: np.ndarray) -> None:
        assert self.module is not None
        # Drop the rows of a step that was announced and not taken.
        self._drop_leaf()
        self.rows = torch.from_numpy(rows)
        leaf, self.mean, self.mean_square = self._up_to_date(self.rows)
        self.leaf = leaf.requires_grad_(self.weight.requires_grad)
        self.module.leaf = self.leaf
        self.module.row_in_leaf[self.rows] = torch.arange(len(self.rows))

    @torch.no_grad()
    def step(self) -> None:
        """Update the rows that were read, and add this step to what is pending for the others."""
        assert self.module is not None
        # Without a gradient the embedding is frozen: no row moves, read or not.
        if self.leaf.grad is None:
            self._drop_leaf()
            return
        group = self.optimizer.param_groups[self.group]
        rate = group["lr"]
        decay = 1 - rate * group["weight_decay"]
        beta, beta_of_squares = BETAS
        self.state["step"] += 1
        step = int(self.state["step"])
        size, root = rate / (1 - beta**step), math.sqrt(1 - beta_of_squares**step)

        pending = self.pending
        # Smaller numbers would soon be denormal, which are slow.
        pending[FADE].mul_(beta).clamp_(min=1e-150)
        pending[FADE_OF_SQUARES].mul_(beta_of_squares)
        pending[[DECAY, MOVED, EPSILONS]] *= decay
        root_faded = pending[FADE_OF_SQUARES].sqrt()
        moved = size * root * pending[FADE] / root_faded
        pending[MOVED] += moved
        pending[EPSILONS] += moved * (EPSILON * root) / root_faded

        gradient = self.leaf.grad
        self.mean.lerp_(gradient, 1 - beta)
        self.mean_square.mul_(beta_of_squares).addcmul_(
            gradient, gradient, value=1 - beta_of_squares
        )
        leaf = (
            self.leaf.detach()
            .mul_(decay)
            .addcdiv_(self.mean, self.mean_square.sqrt().div_(root).add_(EPSILON), value=-size)
        )
        self._write(self.rows, leaf, self.mean, self.mean_square)
        self.moving[self.rows] = True
        self._drop_leaf()

    def _drop_leaf(self) -> None:
        if self.module is not None and self.module.leaf is not None:
            self.module.row_in_leaf[self.rows] = -1
            self.module.leaf = None

    @torch.no_grad()
    def settle(self) -> None:
        for rows in self.moving.nonzero().squeeze(1).split(ROWS_AT_ONCE):
            self._write(rows, *self._up_to_date(rows))
        # The rows that were just written have a pending decay of 1.
        self.weight.detach().mul_(self.pending[DECAY].to(self.weight.dtype).unsqueeze(-1))
        self.pending[:] = NOTHING_PENDING[:, None].to(self.pending.device)

    def _up_to_date(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The weights, first and second moments of these rows, with what was pending for them."""
        pending = self.pending[:, rows]
        decay, fade, fade_of_squares, moved = pending[:4].to(self.weight.dtype).unsqueeze(-1)
        epsilon = (
            torch.where(pending[MOVED] > 0, pending[EPSILONS] / pending[MOVED], EPSILON)
            .to(self.weight.dtype)
            .unsqueeze(-1)
        )
        mean, mean_square = self.state["exp_avg"][rows], self.state["exp_avg_sq"][rows]
        weight = (
            self.weight.detach()[rows]
            .mul_(decay)
            .sub_(mean / mean_square.sqrt().add_(epsilon) * moved)
        )
        return weight, mean.mul_(fade), mean_square.mul_(fade_of_squares)

    def _write(self, rows: Tensor, weight: Tensor, mean: Tensor, mean_square: Tensor) -> None:
        self.weight.detach()[rows] = weight
        self.state["exp_avg"][rows], self.state["exp_avg_sq"][rows] = mean, mean_square
        self.pending[:, rows] = NOTHING_PENDING[:, None].to(self.pending.device)
