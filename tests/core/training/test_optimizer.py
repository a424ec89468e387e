"""AdamW that updates only the embedding rows that are read must do what the dense one does."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import others_slow
from torch import nn
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    LongformerConfig,
    LongformerForSequenceClassification,
    PreTrainedModel,
)

from kdsweep.core.models.loading import load_classifier
from kdsweep.core.training.optimizer import AdamW, RowEmbedding, decayed_groups

STEPS = 60


def rate(step: int) -> float:
    """Rises, falls, and is 0 at some steps."""
    return 0.0 if step % 13 == 12 else 1e-2 * min(1.0, (step + 1) / 8) * (1 - step / STEPS / 2)


def tokens(step: int) -> np.ndarray:
    """[4, 6] token numbers; many are read in few steps, some in none."""
    random = np.random.default_rng([7, step])
    return random.choice(
        20, size=(4, 6), p=np.arange(1, 21) ** -1.5 / (np.arange(1, 21) ** -1.5).sum()
    )


def take_steps(model: PreTrainedModel, optimizer: Any, steps: range, longest: float = 0.5) -> None:
    model.eval()  # no dropout
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        ids = tokens(step)
        if isinstance(optimizer, AdamW):
            optimizer.read(ids[:1], ids[1:])
        loss = nn.functional.cross_entropy(
            model(input_ids=torch.from_numpy(ids)).logits, torch.tensor([0, 1, 1, 0])
        ) * (1 + step % 5)
        loss.backward()
        if isinstance(optimizer, AdamW):
            optimizer.clip(longest)
        else:
            nn.utils.clip_grad_norm_(model.parameters(), longest)
        optimizer.step()
        optimizer.zero_grad()


def dense(model: PreTrainedModel, weight_decay: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(decayed_groups(model, weight_decay), lr=1.0, fused=True)


def saved_and_loaded(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("family", others_slow(["bert", "distilbert", "roberta"]))
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_weights_and_moments_are_those_of_the_dense_update(
    family: str, weight_decay: float, tiny: Callable[..., str]
) -> None:
    torch.manual_seed(0)
    # In fp64, so that rounding doesn't grow over the steps.
    ours, reference = (load_classifier(tiny(family), ("a", "b")).double() for _ in range(2))
    reference.load_state_dict(ours.state_dict())
    before = ours.get_input_embeddings().weight.detach().clone()  # type: ignore[operator]
    optimizer, expected = AdamW(ours, weight_decay), dense(reference, weight_decay)
    take_steps(ours, optimizer, range(STEPS))
    take_steps(reference, expected, range(STEPS))
    optimizer.settle()
    for (name, weight), other in zip(ours.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(
            weight, other, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
        for moment in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(
                optimizer.state[weight][moment], expected.state[other][moment], rtol=1e-3, atol=1e-5
            )
    assert isinstance(ours.get_input_embeddings(), RowEmbedding)
    moved = ours.get_input_embeddings().weight - before  # type: ignore[operator]
    assert moved.abs().max() > 0.05


def test_only_rows_that_are_read_get_a_gradient_and_settling_updates_the_others(
    tiny: Callable[..., str],
) -> None:
    model = load_classifier(tiny("bert"), ("a", "b"))
    optimizer = AdamW(model, 0.1)
    weight = model.get_input_embeddings().weight  # type: ignore[operator]
    take_steps(model, optimizer, range(3))
    before = weight.detach().clone()
    take_steps(model, optimizer, range(3, 4))
    read = np.unique(tokens(3))
    unread = np.setdiff1d(np.arange(len(before)), read)
    assert torch.equal(weight[unread], before[unread])
    assert not torch.equal(weight[read], before[read])
    assert weight.grad is None
    optimizer.settle()
    seen_before = np.setdiff1d(np.unique(np.concatenate([tokens(step) for step in range(3)])), read)
    assert len(seen_before) > 0
    # Momentum still moves them.
    assert (weight[seen_before] != before[seen_before]).any(dim=1).all()
    settled = weight.detach().clone()
    optimizer.settle()
    assert torch.equal(weight, settled)


@pytest.mark.parametrize("stopped_at", others_slow([17, 1, 40]))
def test_resuming_from_a_saved_state_gives_bit_identical_weights(
    stopped_at: int, tiny: Callable[..., str]
) -> None:
    whole, first, second = (load_classifier(tiny("bert"), ("a", "b")) for _ in range(3))
    first.load_state_dict(whole.state_dict())
    optimizers = [AdamW(model, 0.1) for model in (whole, first, second)]
    take_steps(whole, optimizers[0], range(STEPS))
    take_steps(first, optimizers[1], range(stopped_at))
    second.load_state_dict(first.state_dict())
    optimizers[2].load_state_dict(saved_and_loaded(optimizers[1].state_dict()))
    take_steps(second, optimizers[2], range(stopped_at, STEPS))
    for optimizer in (optimizers[0], optimizers[2]):
        optimizer.settle()
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True)
    )


def test_only_moments_of_rows_that_were_read_are_saved(tiny: Callable[..., str]) -> None:
    model = load_classifier(tiny("bert"), ("a", "b"))
    optimizer = AdamW(model, 0.1)
    take_steps(model, optimizer, range(4))
    rows = optimizer.state_dict()["rows"]
    read = np.unique(np.concatenate([tokens(step) for step in range(4)]))
    # The padding's gradient is 0.
    assert set(rows["seen"].tolist()) == set(read.tolist()) - {model.config.pad_token_id}
    assert len(rows["exp_avg"]) == len(rows["seen"]) < model.config.vocab_size


def test_a_state_saved_on_a_gpu_resumes_on_a_cpu_and_the_other_way_round(
    tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's state is dense, a CPU's is one of rows."""
    torch.manual_seed(0)
    start = load_classifier(tiny("bert"), ("a", "b")).double()
    results = []
    for kinds in (("rows", "rows"), ("rows", "dense"), ("dense", "rows")):
        model, state = load_classifier(tiny("bert"), ("a", "b")).double(), None
        model.load_state_dict(start.state_dict())
        for kind, steps in zip(kinds, (range(20), range(20, STEPS)), strict=True):
            if state is not None:
                model = load_classifier(tiny("bert"), ("a", "b")).double()
                model.load_state_dict(state[0])
            with monkeypatch.context() as patched:
                if kind == "dense":
                    patched.setattr(
                        "kdsweep.core.training.optimizer.rows_are_read_by_number",
                        lambda model: False,
                    )
                optimizer = AdamW(model, 0.1)
            if state is not None:
                optimizer.load_state_dict(state[1])
            take_steps(model, optimizer, steps)
            state = saved_and_loaded((model.state_dict(), optimizer.state_dict()))
        optimizer.settle()
        results.append([parameter.detach() for parameter in model.parameters()])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_token_that_was_not_announced_is_an_error_and_never_a_wrong_row(
    tiny: Callable[..., str],
) -> None:
    model = load_classifier(tiny("bert"), ("a", "b"))
    optimizer = AdamW(model, 0.0)
    optimizer.read(np.array([[2, 5, 3]]))
    with pytest.raises(IndexError):
        model(input_ids=torch.tensor([[2, 6, 3]]))


def test_a_model_that_pads_its_batches_itself_is_trained_like_any_other() -> None:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "attention_window": [8],
    }
    # It pads 6 tokens to 8.
    config = LongformerConfig(
        vocab_size=28, max_position_embeddings=66, pad_token_id=27, initializer_range=0.2, **sizes
    )
    ours, reference = (LongformerForSequenceClassification(config).double() for _ in range(2))
    reference.load_state_dict(ours.state_dict())
    optimizer, expected = AdamW(ours, 0.1), dense(reference, 0.1)
    take_steps(ours, optimizer, range(12))
    take_steps(reference, expected, range(12))
    optimizer.settle()
    assert isinstance(ours.get_input_embeddings(), RowEmbedding)
    for (name, weight), other in zip(ours.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(
            weight, other, rtol=1e-3, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_the_rows_of_a_step_that_was_not_taken_are_dropped(tiny: Callable[..., str]) -> None:
    model = load_classifier(tiny("bert"), ("a", "b"))
    padding = model.config.pad_token_id
    optimizer = AdamW(model, 0.0)
    optimizer.read(np.array([[2, 5, padding]]))
    optimizer.read(np.array([[5, 6, 7]]))
    module = model.get_input_embeddings()  # type: ignore[operator]
    assert torch.equal(module(torch.tensor([5, 6, 7])), module.weight[[5, 6, 7]])
    module(torch.tensor([padding, 5, 6, 7])).sum().backward()
    # Only the padding's row has no gradient.
    assert torch.equal(module.leaf.grad[:, 0], torch.tensor([0.0, 1.0, 1.0, 1.0]))
    with pytest.raises(IndexError):
        module(torch.tensor([2]))


def test_an_embedding_with_another_use_stays_dense(tiny: Callable[..., str]) -> None:
    shape = {
        "d_model": 8,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    shared = BartForSequenceClassification(
        BartConfig(
            vocab_size=30, encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=16, **shape
        )
    )
    AdamW(shared, 0.0)
    assert not isinstance(shared.get_input_embeddings(), RowEmbedding)
    frozen = load_classifier(tiny("bert"), ("a", "b"))
    frozen.get_input_embeddings().requires_grad_(False)  # type: ignore[operator]
    AdamW(frozen, 0.0)
    assert not isinstance(frozen.get_input_embeddings(), RowEmbedding)


def test_the_model_is_saved_like_any_other(tiny: Callable[..., str], tmp_path: Path) -> None:
    model = load_classifier(tiny("bert"), ("a", "b"))
    names = list(model.state_dict())
    optimizer = AdamW(model, 0.1)
    assert list(model.state_dict()) == names
    take_steps(model, optimizer, range(5))
    optimizer.settle()
    model.save_pretrained(tmp_path / "saved")
    again = load_classifier(str(tmp_path / "saved"), ("a", "b"))
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )


def test_matrices_decay_biases_and_norms_do_not(tiny: Callable[..., str]) -> None:
    model = load_classifier(tiny("bert"), ("a", "b"))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, plain = decayed_groups(model, 0.01)
    assert decayed["weight_decay"] == 0.01
    assert plain["weight_decay"] == 0.0
    assert all(
        "bias" not in names[id(parameter)] and "LayerNorm" not in names[id(parameter)]
        for parameter in decayed["params"]
    )
    assert all(
        "bias" in names[id(parameter)] or "LayerNorm" in names[id(parameter)]
        for parameter in plain["params"]
    )
    assert len(decayed["params"]) + len(plain["params"]) == len(names)
