"""A trial's folder: other rows are refused, and a full disk harms no file that exists."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from safetensors.torch import load_file

from kdsweep.core import TrialSettings, train
from kdsweep.core.models.loading import load_classifier, load_tokenizer, save_model
from kdsweep.core.trial_folder import TrialFolder
from kdsweep.errors import SettingsConflict


@pytest.fixture
def settings(tiny: Callable[..., str], review_csv: Path) -> TrialSettings:
    return TrialSettings.model_validate(
        {
            "task": {"dataset": str(review_csv), "text": "text", "label": "label", "holdout": 0.2},
            "student": {"model": tiny("bert", layers=2), "layers": 1},
            "training": {
                "epochs": 1,
                "batch_size": 16,
                "max_length": 24,
                "evaluations_per_epoch": 4,
            },
            "alpha": 1.0,
            "learning_rate": 2e-3,
        }
    )


@contextmanager
def small_disk() -> Iterator[None]:
    """No file of this process may grow beyond 20 kB: the kernel refuses, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half_a_state(state: dict[str, Any], file: BinaryIO) -> None:
    file.write(b"PK half a checkpoint")
    raise full_disk()


def half_a_model(model: Any, tokenizer: Any, folder: Path) -> None:
    (folder / "config.json").write_text("{")
    raise full_disk()


def test_the_earlier_checkpoint_stays_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = TrialFolder(tmp_path / "a trial's folder")
    folder.save_state({"step": 1, "model": {"weight": torch.ones(3)}})
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(torch, "save", half_a_state)
        folder.save_state({"step": 2})
    found = folder.load_state()
    assert found is not None
    assert found["step"] == 1
    assert torch.equal(found["model"]["weight"], torch.ones(3))
    assert list(folder.state.parent.iterdir()) == [folder.state]


def test_without_an_earlier_checkpoint_there_is_none_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = TrialFolder(tmp_path)
    monkeypatch.setattr(torch, "save", half_a_state)
    with pytest.raises(OSError):
        folder.save_state({"step": 2})
    assert folder.load_state() is None


def test_a_full_disk_is_an_oserror_and_not_an_error_of_torch(
    tmp_path: Path,
) -> None:
    folder = TrialFolder(tmp_path)
    folder.save_state({"step": 1})
    with small_disk(), pytest.raises(OSError, match="File too large"):
        folder.save_state({"step": 2, "model": {str(i): torch.zeros(4000) for i in range(20)}})
    assert folder.load_state() == {"step": 1}
    assert folder.saved_step() == 1
    whole = folder.state.read_bytes()
    folder.state.write_bytes(whole[: len(whole) // 2])
    assert folder.saved_step() is None
    assert folder.drop_damaged_checkpoint() and not folder.drop_damaged_checkpoint()
    assert folder.saved_step() == 0


def test_a_full_disk_is_an_oserror_and_not_an_error_of_safetensors(
    tmp_path: Path, tiny: Callable[..., str]
) -> None:
    model, tokenizer = load_classifier(tiny("bert"), ("a", "b")), load_tokenizer(tiny("bert"))
    with small_disk(), pytest.raises(OSError, match="File too large") as raised:
        TrialFolder(tmp_path).save_student(model, tokenizer, "card")
    assert raised.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_another_error_while_saving_a_model_stays_as_it_is(
    tmp_path: Path, tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_classifier(tiny("bert"), ("a", "b")), load_tokenizer(tiny("bert"))

    def broken(folder: Path) -> None:
        raise ValueError("no such weights")

    monkeypatch.setattr(model, "save_pretrained", broken)
    with pytest.raises(ValueError, match="no such weights"):
        save_model(model, tokenizer, tmp_path)


@pytest.mark.parametrize("what", ["second checkpoint", "student"])
def test_a_trial_resumes_bit_identically_when_there_is_room_again(
    what: str, settings: TrialSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    whole = [evaluation.metrics for evaluation in train(settings, tmp_path / "whole", cache=cache)]
    stream = train(settings, tmp_path / "parts", cache=cache)
    next(stream)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        if what == "student":
            patch.setattr("kdsweep.core.trial_folder.save_model", half_a_model)
        else:
            patch.setattr(torch, "save", half_a_state)
        list(stream)
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {
        "settings.json",
        "metrics.jsonl",
        "evaluation_predictions.npy",
        "checkpoint",
        "versions.json",
    }
    assert [
        evaluation.metrics for evaluation in train(settings, tmp_path / "parts", cache=cache)
    ] == whole
    one, two = (
        load_file(tmp_path / name / "student" / "model.safetensors") for name in ("whole", "parts")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ("train", "train changed"),
        ("validation", "validation changed"),
        ("both", "train and validation changed"),
    ],
)
def test_a_conflict_of_rows_names_the_split(changed: str, named: str, tmp_path: Path) -> None:
    saved, folder = {"train": "a", "validation": "b"}, TrialFolder(tmp_path)
    folder.check_same_rows({"train": "c"})  # nothing is saved yet
    folder.save_state({"data": saved})
    folder.check_same_rows(saved)
    now = {name: "x" if changed in (name, "both") else key for name, key in saved.items()}
    with pytest.raises(SettingsConflict, match=f"other rows: {named} since"):
        folder.check_same_rows(now)


def test_a_trial_with_a_broken_checkpoint_starts_over(
    tmp_path: Path, settings: TrialSettings
) -> None:
    folder = TrialFolder(tmp_path / "trial")
    first = next(iter(train(settings, folder.root, cache=tmp_path / "cache")))
    file = folder.state
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    lines: list[str] = []
    again = list(train(settings, folder.root, cache=tmp_path / "cache", say=lines.append))
    assert "trial: its checkpoint can't be read; it starts over" in lines
    assert again[0].metrics == first.metrics
    assert folder.is_over
