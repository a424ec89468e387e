"""What is known of a model before it is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import copy_model

from kdsweep.core.models.describing import model_fingerprint, parameter_count, size_mb

NAMES = ("neg", "pos")


def test_parameters_and_size_are_counted() -> None:
    model = torch.nn.Linear(10, 5)
    assert parameter_count(model) == 55
    assert size_mb(model) == pytest.approx(55 * 4 / 1e6)
    assert size_mb(model.half()) == pytest.approx(55 * 2 / 1e6)


def test_a_fingerprint_follows_the_content_not_the_folder(
    tiny: Callable[..., str], tmp_path: Path
) -> None:
    here, there = tiny("bert"), copy_model(tiny("bert"), tmp_path / "there")
    (there / "config.json").write_bytes((Path(here) / "config.json").read_bytes())
    assert model_fingerprint(str(there)) == model_fingerprint(here)
    (there / "notes.md").write_text("no part of the model")
    assert model_fingerprint(str(there)) == model_fingerprint(here)
    weights = bytearray((there / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (there / "model.safetensors").write_bytes(weights)
    assert model_fingerprint(str(there)) != model_fingerprint(here)
