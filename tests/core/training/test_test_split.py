"""The test split is read only if the settings ask for it, once, by the best weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import file_times

from kdsweep.core import TrialSettings, train
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.core.evaluation.metrics import score_logits
from kdsweep.core.evaluation.predict import predict
from kdsweep.core.models.loading import load_classifier, load_tokenizer
from kdsweep.core.trial_folder import TrialFolder, TrialResult
from kdsweep.errors import SettingsConflict


@pytest.fixture(scope="module")
def make(plain_trial: dict[str, Any]) -> Callable[..., TrialSettings]:
    def build(**changes: Any) -> TrialSettings:
        return TrialSettings.model_validate(
            plain_trial | {"task": plain_trial["task"] | {"metric": "f1"}} | changes
        )

    return build


def first_tokenized(settings: TrialSettings, cache: Path, split: str) -> bool:
    """Whether no model has read the split yet: its tokens are not in the cache until now."""
    rows, said = load_task(settings.task).splits[split], []
    tokenizer = load_tokenizer(settings.student.model)
    tokenize_split(rows, tokenizer, InputFormat(24, True), cache=cache, say=said.append)
    return said == [f"tokenizing {split}: {len(rows):,} rows"]


def result(folder: Path) -> TrialResult:
    found = TrialFolder(folder).read_result()
    assert found is not None
    return found


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_it_is_not_read_unless_the_settings_ask_for_it(
    alpha: float, make: Callable[..., TrialSettings], tmp_path: Path
) -> None:
    settings, cache = make(alpha=alpha), tmp_path / "cache"
    list(train(settings, tmp_path / "trial", cache=cache))
    assert not first_tokenized(settings, cache, "train")
    assert not first_tokenized(settings, cache, "validation")
    assert first_tokenized(settings, cache, "test")
    assert result(tmp_path / "trial").test is None
    assert not TrialFolder(tmp_path / "trial").test_logits.exists()


def test_the_best_evaluation_s_weights_are_judged_on_it_once(
    make: Callable[..., TrialSettings], tmp_path: Path
) -> None:
    # A learning rate that jumps up late spoils the student after its best evaluation.
    spoiled = {"shape": "step", "values": [2e-3, 1.0], "at": 0.7}
    settings = make(
        alpha=1.0,
        judge_test=True,
        learning_rate=spoiled,
        training={"epochs": 4, "batch_size": 16, "max_length": 24},
    )
    evaluations = list(train(settings, tmp_path / "trial", cache=tmp_path / "cache"))
    found, folder, data = (
        result(tmp_path / "trial"),
        TrialFolder(tmp_path / "trial"),
        load_task(settings.task),
    )
    assert found.best is not None and found.best.step < evaluations[-1].step
    model, tokenizer = (
        load_classifier(str(folder.student), data.label_names),
        load_tokenizer(str(folder.student)),
    )
    tokens = tokenize_split(
        data.test, tokenizer, InputFormat(24, token_types=True), cache=tmp_path / "cache"
    )
    logits = folder.read_test_logits()
    assert logits.dtype == np.float32 and logits.shape == (len(data.test), 2)
    np.testing.assert_array_equal(logits, predict(model, tokens, torch.float32))
    assert found.test == score_logits("f1", data.test.labels, logits, data.kind)
    assert {"loss", "accuracy", "f1"} < found.test.keys()
    # A finished trial yields its evaluations again and is not judged again.
    written = file_times(folder.root)
    list(train(settings, tmp_path / "trial", cache=tmp_path / "cache"))
    assert file_times(folder.root) == written


def test_judging_on_it_changes_nothing_else(
    make: Callable[..., TrialSettings], tmp_path: Path
) -> None:
    plain, judged = (
        [
            one.metrics
            for one in train(make(judge_test=test), tmp_path / str(test), cache=tmp_path / "cache")
        ]
        for test in (False, True)
    )
    assert plain == judged


def test_a_result_that_says_test_has_its_answers_beside_it(
    make: Callable[..., TrialSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, folder = make(alpha=1.0, judge_test=True), TrialFolder(tmp_path / "trial")

    def die(self: TrialFolder, found: TrialResult) -> None:
        assert self.test_logits.exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrialFolder, "write_result", die)
        list(train(settings, folder.root, cache=tmp_path / "cache"))
    logits = folder.read_test_logits()
    list(train(settings, folder.root, cache=tmp_path / "cache"))
    np.testing.assert_array_equal(folder.read_test_logits(), logits)
    assert result(folder.root).test is not None


def test_results_and_settings_of_an_earlier_version_are_still_read(
    make: Callable[..., TrialSettings], tmp_path: Path
) -> None:
    settings, folder = make(alpha=1.0), TrialFolder(tmp_path / "trial")
    whole = list(train(settings, folder.root, cache=tmp_path / "cache"))
    written = json.loads(folder.result.read_text())
    del written["test"], written["student"]["latency_p95_ms"]
    folder.result.write_text(json.dumps(written))
    as_before = json.loads(folder.settings.read_text())
    assert "judge_test" not in as_before
    assert (
        list(train(settings, folder.root, cache=tmp_path / "cache")) == whole
    )  # the folder is its own
    assert result(folder.root).test is None
    with pytest.raises(SettingsConflict):
        folder.claim(make(alpha=1.0, judge_test=True))
