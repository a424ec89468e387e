"""Masks drawn in bulk: their rate, their scale, and that every dropout of a model gets one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch.nn import functional

from kdsweep.core.models.loading import load_classifier
from kdsweep.core.training.dropout import SMALLEST, BulkDropout

ROWS = 600


def test_a_mask_drops_as_often_as_asked_and_keeps_the_expectation() -> None:
    torch.manual_seed(0)
    ones = torch.ones(ROWS, 1000)
    for p in (0.1, 0.5, 0.9):
        with BulkDropout():
            found = functional.dropout(ones, p)
        dropped, count = (found == 0).double().mean().item(), ones.numel()
        assert abs(dropped - p) < 5 * (p * (1 - p) / count) ** 0.5
        assert found.max().item() == pytest.approx(1 / (1 - p), rel=1e-4)
        assert abs(found.double().mean().item() - 1) < 5 * (p / (1 - p) / count) ** 0.5
        # No pattern along a row or a column: their means spread as those of independent draws.
        for axis in (0, 1):
            spread = (found == 0).double().mean(dim=axis).var().item()
            assert spread == pytest.approx(p * (1 - p) / found.shape[axis], rel=0.25)


def test_the_gradient_passes_where_the_value_did() -> None:
    torch.manual_seed(0)
    x = torch.randn(ROWS, 100, requires_grad=True)
    with BulkDropout():
        y = functional.dropout(x, 0.3)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


def test_the_same_state_of_the_generator_gives_the_same_masks_and_another_entry_others() -> None:
    ones = torch.ones(ROWS, 100)

    def drawn() -> torch.Tensor:
        with BulkDropout():
            return torch.cat([functional.dropout(ones, 0.1), functional.dropout(ones, 0.1)])

    torch.manual_seed(3)
    first, second = drawn(), drawn()
    torch.manual_seed(3)
    assert torch.equal(first, drawn())
    assert not torch.equal(first, second)
    assert not torch.equal(*first.chunk(2))


@pytest.mark.parametrize("kind", ["none", "bool", "float"])
def test_attention_equals_torch_s_except_for_the_dropout_mask(kind: str) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 4, 20, 16, requires_grad=True) for _ in range(3))
    real = torch.arange(20) < torch.tensor([20, 12, 1])[:, None]
    mask = {
        "none": None,
        "bool": real[:, None, None, :],
        "float": torch.where(real, 0.0, torch.finfo(torch.float32).min)[:, None, None, :],
    }[kind]
    upstream = torch.randn(3, 4, 20, 16)
    expected = functional.scaled_dot_product_attention(query, key, value, mask)
    wanted = torch.autograd.grad(expected, (query, key, value), upstream)
    with (
        patch.object(BulkDropout, "mask", lambda self, like, p: torch.ones_like(like)),
        BulkDropout(),
    ):
        found = functional.scaled_dot_product_attention(query, key, value, mask, dropout_p=0.1)
    torch.testing.assert_close(found, expected)
    for a, b in zip(torch.autograd.grad(found, (query, key, value), upstream), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    with BulkDropout():
        dropped = functional.scaled_dot_product_attention(
            query, key, torch.ones_like(value), mask, dropout_p=0.1
        )
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert dropped.std().item() > 0.05


def test_what_drops_nothing_is_left_to_torch() -> None:
    x = torch.randn(ROWS, 100)
    with patch.object(BulkDropout, "mask") as mask, BulkDropout():
        assert torch.equal(functional.dropout(x, 0.5, training=False), x)
        assert torch.equal(functional.dropout(x, 0.0), x)
        assert not functional.dropout(x, 1.0).any()
        functional.scaled_dot_product_attention(
            *(torch.randn(2, 2, 50, 50) for _ in range(3)), is_causal=True, dropout_p=0.1
        )
        functional.dropout(torch.ones(SMALLEST - 1), 0.5)
    mask.assert_not_called()


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "electra", "mpnet"])
def test_every_dropout_of_a_model_is_drawn_in_bulk(family: str, tiny: Callable[..., str]) -> None:
    model = load_classifier(tiny(family), ("a", "b"))
    model.train()
    inputs = {
        "input_ids": torch.randint(5, 20, (64, 16)),
        "attention_mask": torch.ones(64, 16, dtype=torch.long),
    }
    masks: list[Any] = []
    drawn = BulkDropout.mask

    def counted(self: BulkDropout, like: torch.Tensor, probability: float) -> torch.Tensor:
        masks.append(like.shape)
        return drawn(self, like, probability)

    with (
        patch.object(BulkDropout, "mask", counted),
        torch.profiler.profile() as profile,
        BulkDropout(),
    ):
        model(**inputs).logits.sum().backward()
    small = sum(event.count for event in profile.key_averages() if event.key == "aten::bernoulli_")
    # One for the embedding, and in each of two layers one for attention and one for feed-forward.
    assert len(masks) >= 5
    # A classifier's own, on one vector per row.
    assert small <= 2
