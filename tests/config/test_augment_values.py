"""`task.unlabelled` and `augment` in a space: parameters, short forms, paths and mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from suggested import lowest

from kdsweep.config import SearchSpace, SpaceError, load_space

SPACE = """\
name: small
task: {dataset: d, text: t, label: l}
teacher: {model: big}
student: {model: little}
training: {learning_rate: 1.0e-5}
strategies:
  plain: {alpha: 1.0}
  views:
    alpha: {low: 0, high: 1}
    augment:
      views: {low: 1, high: 4}
      mask: {low: 0.0, high: 0.3}
      masked_lm: {model: {choices: [one, two]}, share: 0.2}
"""


def made(folder: Path, *assignments: str) -> SearchSpace:
    path = folder / "space.yaml"
    path.write_text(SPACE, encoding="utf-8")
    return load_space(path, assignments=assignments)


def test_shares_and_numbers_of_views_are_parameters_that_a_trial_settles(
    tmp_path: Path,
) -> None:
    space = made(tmp_path)
    names = [parameter.name for parameter in space.parameters("views")]
    assert names == ["alpha", "augment.views", "augment.mask", "augment.masked_lm.model"]
    augment = space.settle("views", lowest, 0).augment
    assert augment is not None
    assert augment.masked_lm is not None
    assert (
        augment.views,
        augment.mask,
        augment.ngram,
        augment.masked_lm.model,
        augment.masked_lm.share,
    ) == (1, 0.0, 0.0, "one", 0.2)
    assert isinstance(augment.views, int)
    assert space.settle("plain", lowest, 0).augment is None
    assert (space.most_views("views"), space.most_views("plain")) == (4, 0)


def test_a_model_or_a_dataset_is_a_short_form_and_its_path_starts_from_the_file(
    tmp_path: Path,
) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "more.csv").touch()
    space = made(tmp_path, "strategies.views.augment.masked_lm=words", "task.unlabelled=more.csv")
    augment = space.settle("views", lowest, 0).augment
    assert augment is not None
    assert augment.masked_lm is not None
    assert (augment.masked_lm.model, augment.masked_lm.share) == (str(tmp_path / "words"), 0.4)
    assert space.task.unlabelled is not None
    assert space.task.unlabelled.dataset == str(tmp_path / "more.csv")
    assert made(
        tmp_path, "task.unlabelled={dataset: more.csv, where: {source: words}}"
    ).task.unlabelled.where == {"source": "words"}  # type: ignore[union-attr]
    longer = (
        made(tmp_path, "strategies.views.augment.masked_lm={model: words}")
        .settle("views", lowest, 0)
        .augment
    )
    assert longer == augment


def test_views_for_fine_tuning_need_no_teacher(tmp_path: Path) -> None:
    space = made(tmp_path, "strategies.plain.augment={views: 2, swap: 0.1, in_finetuning: true}")
    settings = space.settle("plain", lowest, 0)
    assert settings.teacher is None
    assert settings.augment is not None
    assert settings.augment.in_finetuning
    assert space.most_views("plain") == 2


# (assignment, how the rule starts)
MISTAKES = [
    (
        "strategies.views.augment.views=-1",
        "strategies.views.augment.views: must be at least 0, not -1",
    ),
    (
        "strategies.views.augment.views=1.5",
        "strategies.views.augment.views: must be a whole number",
    ),
    (
        "strategies.views.augment.mask=1.2",
        "strategies.views.augment.mask: must be at most 1, not 1.2",
    ),
    (
        "strategies.views.augment.swap={low: -0.1, high: 0.5}",
        "strategies.views.augment.swap.low: must be at least 0, not -0.1",
    ),
    (
        "strategies.views.augment.ngram={shape: linear, start: 0.0, end: 1.0}",
        "strategies.views.augment.ngram: takes one value for the whole training",
    ),
    (
        "strategies.views.augment.masks=0.1",
        "strategies.views.augment: unknown key 'masks'; did you mean 'mask'?",
    ),
    (
        "strategies.views.augment.masked_lm={share: 0.1}",
        "strategies.views.augment.masked_lm.model is missing",
    ),
    (
        "strategies.views.augment.masked_lm.candidates=0",
        "strategies.views.augment.masked_lm.candidates: must be at least 1, not 0",
    ),
    ("strategies.views.augment={mask: 0.1}", "strategies.views.augment.views is missing"),
    (
        "strategies.views.augment={views: 2}",
        "strategies.views.augment: says how many views, but not how they differ from",
    ),
    (
        "strategies.plain.augment={views: 2, mask: 0.1}",
        "strategies.plain.augment: views are labeled by the teacher, and where alpha is",
    ),
    (
        "task.unlabelled={datasets: d}",
        "task.unlabelled: unknown key 'datasets'; did you mean 'dataset'?",
    ),
    (
        "task.unlabelled={dataset: d, text: [a, b]}",
        "task: unlabelled.text names 2 columns and text names 1: both must name the same number",
    ),
    (
        "task.unlabelled={dataset: d, limit: 0}",
        "task.unlabelled.limit: must be at least 1, not 0",
    ),
]


@pytest.mark.parametrize(("assignment", "rule"), MISTAKES)
def test_a_mistake_names_its_key_and_its_rule(tmp_path: Path, assignment: str, rule: str) -> None:
    with pytest.raises(SpaceError) as raised:
        made(tmp_path, assignment)
    assert raised.value.rule.startswith(rule)


def test_a_mistake_has_its_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE.replace("high: 0.3", "high: 3"), encoding="utf-8")
    with pytest.raises(
        SpaceError,
        match=r"space.yaml:12: strategies.views.augment.mask.high: must be at most 1, not 3",
    ):
        load_space(path)
