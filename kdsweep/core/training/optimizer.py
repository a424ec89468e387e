"""AdamW whose cost doesn't grow with the vocabulary.

Loshchilov, Hutter (2019), "Decoupled Weight Decay Regularization", algorithm 2. A batch reads some hundred rows of the word
embedding, which is two thirds of a small student's weights: the other rows have no gradient. On a CPU only those that are read
get a gradient, are normed, clipped and updated. What the others go through meanwhile (their moments fade, and with them the
weights still move and decay) is made up when they are next read: without a gradient all of a row's elements share their factors,
so that a few numbers a row are enough. The weights are those of the dense update but for rounding. On a GPU, where memory is
fast and each kernel costs a launch, the dense update stays.
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
MOMENTS = ("exp_avg", "exp_avg_sq")  # torch's names in the optimizer's state
ROWS_AT_ONCE = 4096


class AdamW(torch.optim.AdamW):
    """Over all weights of `model`, and those of `beside` that are trained with it. Matrices decay, biases and norms don't; the learning
    rate is 1 until a scheduler says otherwise, and `layer_decay` times that of the layer above in each layer
    (Howard, Ruder 2018, "Universal Language Model Fine-tuning", section 3.2: discriminative fine-tuning).

    A step is `read` with its tokens, forward and backward passes, `clip`, `step`, `zero_grad`. Before anybody but the next step looks
    at the weights, `settle` brings all of them up to date.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        weight_decay: float,
        *,
        layer_decay: float = 1.0,
        beside: nn.Module | None = None,
    ) -> None:
        groups = decayed_groups(model, weight_decay, layer_decay) + (
            decayed_groups(beside, weight_decay) if beside else []
        )
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
        """The next step reads these tokens, and what the model may put beside them."""
        if self._rows is not None:
            self._rows.read(
                np.unique(np.concatenate([self._own_tokens, *(part.ravel() for part in input_ids)]))
            )

    def clip(self, longest: float) -> None:
        """Scale all gradients down together until they are no longer than this, in the L2 norm."""
        nn.utils.clip_grad_norm_(
            self._weights if self._rows is None else [*self._weights, self._rows.leaf], longest
        )

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        super().step()
        if self._rows is not None:
            self._rows.step()

    def settle(self) -> None:
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
        """Also what was saved by a machine of the other kind."""
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
    """Matrices decay, biases and the weights of norms don't; a group for each depth where the layers learn at different rates."""
    depth = depths(model, model.config.model_type) if layer_decay != 1 else {}  # type: ignore[arg-type,union-attr]
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
    """Whether the word embedding is used for nothing but looking up a batch's own tokens, on a CPU."""
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
    """The tokens, of `rows` in all, that the model's config knows by their role: Longformer and BigBird pad a batch once more themselves."""
    named = [value for name, value in model.config.to_dict().items() if name.endswith("_token_id")]
    numbers = {
        number
        for value in named
        for number in (value if isinstance(value, list) else [value])
        if number is not None
    }
    return np.array(sorted(number for number in numbers if 0 <= number < rows), dtype=np.int64)


class RowEmbedding(nn.Embedding):
    """An embedding that, while `leaf` is there, looks up in it what of the weights was read for a step: fp32 [rows read, width]."""

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
        self.place = torch.full(
            (embedding.num_embeddings,), -1
        )  # where in the leaf a row is; an error to look up where it is not

    def forward(self, input: Tensor) -> Tensor:
        if self.leaf is None:
            return super().forward(input)
        padding = -1 if self.padding_idx is None else int(self.place[self.padding_idx])
        return functional.embedding(self.place[input], self.leaf, None if padding < 0 else padding)


# What is pending for a row since its last step, fp64 each: the product of the decays; the factors of its first and second moment;
# the sum of the steps' sizes by which the old moments' ratio moves it; and that sum with each step's epsilon as its weight.
DECAY, FADE, FADE_OF_SQUARES, MOVED, EPSILONS = range(5)
NOTHING_PENDING = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64)


class _Rows:
    """The embedding's part of the optimizer. The moments are in the optimizer's own state, under its own names."""

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
        """The state to be saved: moments of those rows that have any, which are few where the data set is small."""
        seen = self.state["exp_avg_sq"].any(dim=1).nonzero().squeeze(1)
        moments = {moment: self.state[moment][seen] for moment in MOMENTS}
        return {"pending": self.pending, "step": self.state["step"], "seen": seen, **moments}

    def resume(self, packed: dict[str, Tensor] | None) -> None:
        """Go on from a state that was saved, or from weights that are up to date."""
        device = self.weight.device
        self.pending = (
            NOTHING_PENDING[:, None].repeat(1, len(self.weight))
            if packed is None
            else packed["pending"]
        ).to(device)
        self.state = self.optimizer.state[self.weight]
        if "exp_avg" not in self.state:
            self.state |= {"step": torch.tensor(0.0)} | {
                moment: torch.zeros_like(self.weight) for moment in MOMENTS
            }
        if packed is not None:
            self.state["step"] = packed["step"]
            for moment in MOMENTS:
                self.state[moment].detach()[packed["seen"].to(device)] = packed[moment].to(device)
        self.moving = self.state["exp_avg_sq"].any(
            dim=1
        )  # the others have no moments: nothing but decay reaches them

    @torch.no_grad()
    def read(self, rows: np.ndarray) -> None:
        assert self.module is not None
        self._put_away()  # what was read for a step that was not taken
        self.rows = torch.from_numpy(rows)
        leaf, self.mean, self.mean_square = self._up_to_date(self.rows)
        self.leaf = leaf.requires_grad_(self.weight.requires_grad)
        self.module.leaf = self.leaf
        self.module.place[self.rows] = torch.arange(len(self.rows))

    @torch.no_grad()
    def step(self) -> None:
        """Update what was read, and note what the other rows will have to make up for."""
        assert self.module is not None
        if self.leaf.grad is None:  # frozen: nothing moves, read or not
            self._put_away()
            return
        group = self.optimizer.param_groups[self.group]
        rate, decay, (beta, beta_of_squares) = (
            group["lr"],
            1 - group["lr"] * group["weight_decay"],
            BETAS,
        )
        self.state["step"] += 1
        step = int(self.state["step"])
        size, root = rate / (1 - beta**step), math.sqrt(1 - beta_of_squares**step)

        pending = self.pending
        pending[FADE].mul_(beta).clamp_(min=1e-150)  # smaller numbers would soon be slow ones
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
        self._put(self.rows, leaf, self.mean, self.mean_square)
        self.moving[self.rows] = True
        self._put_away()

    def _put_away(self) -> None:
        if self.module is not None and self.module.leaf is not None:
            self.module.place[self.rows] = -1
            self.module.leaf = None

    @torch.no_grad()
    def settle(self) -> None:
        for rows in self.moving.nonzero().squeeze(1).split(ROWS_AT_ONCE):
            self._put(rows, *self._up_to_date(rows))
        self.weight.detach().mul_(
            self.pending[DECAY].to(self.weight.dtype).unsqueeze(-1)
        )  # what was put just now has 1 there
        self.pending[:] = NOTHING_PENDING[:, None].to(self.pending.device)

    def _up_to_date(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """These rows of weights, first and second moments: with what was pending."""
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

    def _put(self, rows: Tensor, weight: Tensor, mean: Tensor, mean_square: Tensor) -> None:
        self.weight.detach()[rows] = weight
        self.state["exp_avg"][rows], self.state["exp_avg_sq"][rows] = mean, mean_square
        self.pending[:, rows] = NOTHING_PENDING[:, None].to(self.pending.device)
