"""A key that stands in a wrong section, or a file in a wrong place: the message says the right one.

Every key of the models is found again from a section that doesn't have it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsweep.config import SearchSpace, SpaceError, SweepConfig, load
from kdsweep.config.known_keys import keys_of, meant

ROOT = Path(__file__).parents[2]
SST2 = ROOT / "search_spaces" / "sst2.yaml"
QUICK = ROOT / "sweeps" / "quick.yaml"


def test_every_key_of_a_space_and_a_sweep_is_known() -> None:
    space = {".".join(path) for path in keys_of(SearchSpace)}
    assert {"task.holdout", "task.splits.train", "task.unlabelled.limit"} <= space
    assert "strategies.NAME.distill.hidden.layers" in space
    assert "strategies.NAME.teacher.training.epochs" in space
    assert "embedded" not in space
    assert not any(path.endswith((".low", ".choices", ".any_of")) for path in space)
    assert {"budget.hours", "engine.gpus_per_trial", "sampler.lag", "objective.within"} <= {
        ".".join(path) for path in keys_of(SweepConfig)
    }


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("splits.holdout=0.2", "did you mean 'task.holdout'?"),
        ("task.splits.holdout=0.2", "did you mean 'task.holdout'?"),
        ("splits.train=x", "did you mean 'task.splits.train'?"),
        ("splits.holdot=0.2", "did you mean 'task.holdout'?"),
        ("limit.train=5", "did you mean 'task.limit.train'?"),
        ("training.alpha=0.5", "did you mean 'strategies.NAME.alpha'?"),
        ("strategies.distill.distill.alpha=0.5", "did you mean 'strategies.distill.alpha'?"),
        ("max_length=64", "did you mean 'training.max_length'"),
        ("task.quantize=int8", "did you mean 'student.quantize'?"),
        ("hours=2", "did you mean 'budget.hours'?"),
        ("gpus_per_trial=2", "did you mean 'engine.gpus_per_trial'?"),
        # A key that its own section nearly has.
        ("training.epoch=2", "did you mean 'epochs'?"),
        # Nothing is near.
        ("xyzzy=2", "known in a space or a sweep: "),
        ("task.xyzzy=2", "known here: dataset, "),
    ],
)
def test_a_key_in_a_wrong_section_names_the_right_one(written: str, said: str) -> None:
    with pytest.raises(SpaceError) as caught:
        load(SST2, assignments=(written,))
    assert said in caught.value.rule
    assert caught.value.file == f"--set {written}"


def test_every_key_is_found_from_where_it_is_not() -> None:
    for model in (SearchSpace, SweepConfig):
        for path in keys_of(model):
            assert meant(("elsewhere", *path), model).startswith(repr(".".join(path)))


def test_a_sweep_in_the_place_of_a_space_is_recognized_and_the_other_way_round() -> None:
    with pytest.raises(SpaceError, match=r"is a sweep, not a search space.*--sweep .*quick\.yaml"):
        load(QUICK)
    with pytest.raises(SpaceError, match=r"is a search space, not a sweep.*run .*sst2\.yaml"):
        load(SST2, SST2)
    for sweep in sorted((ROOT / "sweeps").glob("*.yaml")):
        with pytest.raises(SpaceError, match="is a sweep"):
            load(sweep, embedded=True)
    for space in sorted((ROOT / "search_spaces").glob("*.yaml")):
        with pytest.raises(SpaceError, match="is a search space"):
            load(SST2, space)
