"""Which weights move when: a body that is frozen at first, and layers at their own rates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kdsweep.core import TrialSettings, train
from kdsweep.core.models.layers import depths
from kdsweep.core.models.loading import load_classifier
from kdsweep.core.training.optimizer import AdamW, decayed_groups
from kdsweep.errors import Interrupted


@pytest.fixture(scope="module")
def make(plain_trial: dict[str, Any], tiny: Callable[..., str]) -> Callable[..., TrialSettings]:
    plain = {name: plain_trial[name] for name in ("task", "learning_rate")} | {
        "student": {"model": tiny("bert", layers=2)},
        "alpha": 1.0,
    }

    def build(*, training: dict[str, Any] | None = None, **changes: Any) -> TrialSettings:
        return TrialSettings.model_validate(
            plain | {"training": plain_trial["training"] | (training or {})} | changes
        )

    return build


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "student" / "model.safetensors")


# --- frozen until ---


def test_a_frozen_body_stays_bit_for_bit_and_the_head_learns(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path, tiny: Callable[..., str]
) -> None:
    settings = make(training={"frozen_until": 0.999})
    list(train(settings, tmp_path / "trial", cache=cache, on_step=lambda step, total: False))
    torch.manual_seed(settings.seed)
    before = load_classifier(tiny("bert", layers=2), ("neg", "pos")).state_dict()
    after = weights(tmp_path / "trial")
    unmoved = {name for name in after if torch.equal(before[name], after[name])}
    assert "classifier.weight" not in unmoved
    assert {name for name in after if not name.startswith("classifier")} <= unmoved


def test_the_whole_body_learns_later_and_an_interruption_changes_nothing(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path, tiny: Callable[..., str]
) -> None:
    settings = make(training={"frozen_until": 0.5})
    whole = [one.metrics for one in train(settings, tmp_path / "whole", cache=cache)]
    last = whole[-1]["validation/loss"]
    for stop in (3, 15):
        with pytest.raises(Interrupted):
            list(
                train(
                    settings,
                    tmp_path / f"parts {stop}",
                    cache=cache,
                    on_step=lambda step, total, stop=stop: step == stop,
                )
            )
        assert [
            one.metrics for one in train(settings, tmp_path / f"parts {stop}", cache=cache)
        ] == whole
        assert all(
            torch.equal(weight, weights(tmp_path / f"parts {stop}")[name])
            for name, weight in weights(tmp_path / "whole").items()
        )
    free = [one.metrics for one in train(make(), tmp_path / "free", cache=cache)]
    assert free[-1]["validation/loss"] != last


# --- layer decay ---


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "electra"])
def test_weights_are_as_deep_as_the_layers_say(family: str, tiny: Callable[..., str]) -> None:
    model = load_classifier(tiny(family, layers=2), ("a", "b"))
    found = depths(model, family)
    assert set(found.values()) == {0, 1, 2, 3}
    for name, depth in found.items():
        if "embeddings" in name:
            assert depth == 0
        if ".0." in name:
            assert depth == 1
        if ".1." in name:
            assert depth == 2
        if "classifier" in name:
            assert depth == 3


def test_each_layer_learns_at_its_share_of_the_rate_above(
    tiny: Callable[..., str], make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    model = load_classifier(tiny("bert", layers=2), ("a", "b"))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(weight)]: group["lr"]
        for group in decayed_groups(model, 0.01, 0.5)
        for weight in group["params"]
    }
    assert found["classifier.weight"] == 1
    assert found["bert.encoder.layer.1.output.dense.bias"] == 0.5
    assert found["bert.encoder.layer.0.output.dense.weight"] == 0.25
    assert found["bert.embeddings.word_embeddings.weight"] == 0.125
    assert len(found) == len(names)
    # Adam's first step is as long as the rate, whatever the gradient: the moves show the shares.
    optimizer = AdamW(model, 0.0, layer_decay=0.5)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for group in optimizer.param_groups:
        group["lr"] *= 0.01
    model.eval()
    ids = torch.tensor([[2, 7, 9, 3], [2, 8, 11, 3]])
    optimizer.read(ids.numpy())
    torch.nn.functional.cross_entropy(model(input_ids=ids).logits, torch.tensor([0, 1])).backward()
    optimizer.step()
    moved = {
        name: (weight - before[name]).abs().max().item()
        for name, weight in model.named_parameters()
    }
    assert moved["classifier.weight"] == pytest.approx(0.01, rel=0.02)
    assert moved["bert.encoder.layer.1.output.dense.weight"] == pytest.approx(0.005, rel=0.02)
    assert moved["bert.embeddings.word_embeddings.weight"] == pytest.approx(0.00125, rel=0.05)
    told = [
        one.metrics
        for one in train(
            make(training={"layer_decay": 0.5, "warmup": 0.0, "scheduler": "constant"}),
            tmp_path,
            cache=cache,
        )
    ]
    assert told[0]["train/learning_rate"] == 2e-3
