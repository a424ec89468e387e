"""`kdsweep advise`: the rule at its edges, sizes from configs alone, and what sweeps showed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import SPACE
from made_up_sweeps import settings_of

from kdsweep.advise import (
    Advice,
    Approach,
    ModelSizes,
    Vote,
    _by_rows,
    advise,
    approach_of,
    as_lines,
    decide,
)
from kdsweep.cli import main
from kdsweep.compare.findings import Pair
from kdsweep.config import load
from kdsweep.core.files import write_json
from kdsweep.core.models.describing import describe_model, parameter_count
from kdsweep.report.model import (
    BestTrial,
    ConfirmResult,
    Report,
    StrategyResult,
    TrialCounts,
)
from kdsweep.sweep.facts import SweepFacts
from kdsweep.sweep.folders import Home

KINDS = ("finetune", "distill", "combined")


def votes(*approaches: Approach | None) -> list[Vote]:
    return [Vote(f"criterion {i}", "", one, "") for i, one in enumerate(approaches)]


# --- the rule ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "advised"),
    [
        (("finetune", "finetune", "distill"), "finetune"),
        (("distill", "distill", "combined", None), "distill"),
        (("combined", "distill", "combined"), "combined"),
        (("finetune", "distill"), "distill_then_finetune"),
        (("finetune", "distill", "combined", "finetune", "distill"), "distill_then_finetune"),
        (("finetune", "combined"), "combined"),
        (("finetune", "distill", "combined"), "combined"),
        ((None, None), "combined"),
    ],
)
def test_most_votes_decide_and_a_tie_is_combined(
    given: tuple[Approach | None, ...], advised: Approach
) -> None:
    assert decide(votes(*given), has_teacher=True)[0] == advised
    assert decide(votes(*given), has_teacher=False)[0] == "finetune"


def vote(advice: Advice, criterion: str) -> str | None:
    return next(vote.votes_for for vote in advice.votes if vote.criterion == criterion)


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("compute", "low", "finetune"),
        ("compute", "medium", None),
        ("compute", "high", "combined"),
        ("deploy", "server", None),
        ("deploy", "edge", "distill"),
        ("deploy", "mobile", "distill"),
        ("goal", "balance", "combined"),
        ("goal", "size", "distill"),
    ],
)
def test_each_option_votes_as_the_rule_says(
    option: str, value: str, kind: str | None, tiny_space: Path, tmp_path: Path
) -> None:
    advice = advise(load(tiny_space), tmp_path, **{option: value})  # type: ignore[arg-type]
    assert vote(advice, option) == kind
    others = {"compute", "deploy", "goal"} - {option}
    assert all(vote(advice, other) is None for other in others)


@pytest.mark.parametrize(
    ("rows", "kind"),
    [(1_999, "distill"), (2_000, "combined"), (19_999, "combined"), (20_000, "finetune")],
)
def test_few_labels_vote_for_the_teacher_and_many_for_fine_tuning(rows: int, kind: str) -> None:
    assert _by_rows(rows, "2 classes").votes_for == kind


@pytest.mark.parametrize(
    ("layers", "hidden", "kind"), [(2, 32, "finetune"), (2, 64, "combined"), (24, 64, "distill")]
)
def test_compression_is_read_from_the_configs_alone(
    layers: int,
    hidden: int,
    kind: str,
    tmp_path: Path,
    tiny: Callable[..., str],
    review_csv: Path,
) -> None:
    teacher = shutil.copytree(tiny("bert", layers=layers, hidden=hidden), tmp_path / "teacher")
    student = shutil.copytree(tiny("bert", layers=2), tmp_path / "student")
    sizes = ModelSizes(*(_parameters(folder) for folder in (teacher, student)))
    for weights in tmp_path.glob("*/*.safetensors"):
        weights.unlink()
    path = tmp_path / "space.yaml"
    path.write_text(SPACE.format(data=review_csv, teacher=teacher, student=student))
    advice = advise(load(path, assignments=("student.layers=2",)), tmp_path)
    assert advice.parameters == sizes
    assert vote(advice, "size") == kind
    smaller = advise(load(path, assignments=("student.layers={low: 1, high: 2}",)), tmp_path)
    assert smaller.parameters.student < sizes.student
    from_teacher = advise(
        load(path, assignments=("student.model=teacher", "student.layers=1")), tmp_path
    )
    assert sizes.teacher is not None
    assert from_teacher.parameters.student < sizes.teacher


def _parameters(folder: Path) -> int:
    return parameter_count(describe_model(str(folder), ("a", "b"))[0])


def test_a_strategy_is_recognized_by_its_alpha_not_by_its_name(tiny_space: Path) -> None:
    def called(alpha: str) -> str:
        return approach_of(
            load(
                tiny_space,
                assignments=(
                    f"strategies.mine.alpha={alpha}",
                    "strategies.mine.learning_rate=1e-4",
                ),
            ).space,
            "mine",
        )

    assert called("1.0") == "finetune"
    assert (
        called("0.3")
        == called("{low: 0, high: 1}")
        == called("{choices: [0.1, 1.0]}")
        == called("{shape: constant, value: 0.5}")
        == "distill"
    )
    assert (
        called("{shape: step, values: [0.0, 1.0], at: {low: 0.4, high: 0.6}}")
        == "distill_then_finetune"
    )
    assert (
        called("{shape: step, values: [1.0, 0.0], at: 0.5}")
        == called("{shape: linear, start: 0, end: 1}")
        == "combined"
    )
    assert called("{any_of: [0.5, {shape: linear, start: 0, end: 1}]}") == "combined"


def test_the_advice_shows_each_vote_and_the_strategy_of_the_space(
    tiny_space: Path, tmp_path: Path
) -> None:
    done = CliRunner().invoke(
        main,
        [
            "advise",
            str(tiny_space),
            "--home",
            str(tmp_path / "home"),
            "--deploy",
            "edge",
            "--goal",
            "size",
        ],
    )
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("tiny: the rule advises distill: learn from the teacher")
    for words in (
        "rows for 2 classes",
        "to 1",
        "edge",
        "size",
        "compute  not given",
        "in this space: distill",
        "no sweep of this space",
    ):
        assert words in done.stdout
    facts = json.loads(
        CliRunner()
        .invoke(main, ["advise", str(tiny_space), "--home", str(tmp_path / "home"), "--json"])
        .stdout
    )
    assert [vote["criterion"] for vote in facts["votes"]] == [
        "labels",
        "size",
        "compute",
        "deploy",
        "goal",
    ]
    assert not (tmp_path / "home").exists()


# --- after a sweep -------------------------------------------------------------------------------


def _result(mean: float | None) -> StrategyResult:
    """Of a strategy with this mean on test; None: no trial finished."""
    if mean is None:
        return StrategyResult(trials=TrialCounts(), best=None, slot_hours=0.0, confirm=None)
    settings = settings_of()
    return StrategyResult(
        trials=TrialCounts(complete=1),
        best=BestTrial(trial=0, params={}, settings=settings, validation=0.5),
        slot_hours=0.1,
        confirm=ConfirmResult(
            seeds=1,
            asked=1,
            failed=0,
            test=(mean,),
            validation=(0.5,),
            mean=mean,
            ci95=None,
            retention=None,
        ),
    )


@pytest.fixture
def after(tiny_space: Path, tmp_path: Path) -> Callable[..., Advice]:
    """after(means, beaten): the advice after a sweep whose best strategy beats `beaten`."""

    def build(
        means: dict[str, float | None],
        beaten: tuple[str, ...] = (),
        *,
        name: str = "tiny",
        experiment: str = "tiny",
    ) -> Advice:
        folder = Home(tmp_path).sweep(name)
        known = {strategy: mean for strategy, mean in means.items() if mean is not None}
        best = max(known, key=lambda strategy: known[strategy], default="")
        verdicts = dict.fromkeys((one for one in means if one != best), "no difference shown")
        verdicts |= {other: f"{best} beats {other} by 1.5 points" for other in beaten}
        report = Report(
            sweep=name,
            metric="accuracy",
            teacher=None,
            strategies={strategy: _result(mean) for strategy, mean in means.items()},
            pairs=tuple(
                Pair(best, other, 0.015, (0.01, 0.02), 0.01, 5, 5, verdict)
                for other, verdict in verdicts.items()
            ),
            questions=(),
            verdict="as it was measured.",
        )
        folder.write_facts(SweepFacts("0.1.0", {}, experiment, {}))
        write_json(folder.report, report.to_json())
        return advise(load(tiny_space), tmp_path, deploy="edge", goal="size")  # the rule: distill

    return build


@pytest.mark.parametrize(
    ("means", "beaten", "agrees", "words"),
    [
        (
            {"distill": 0.9, "finetune": 0.8},
            ("finetune",),
            True,
            "the same as the rule: it recommends distill",
        ),
        (
            {"distill": 0.9, "finetune": 0.8},
            (),
            True,
            "the same as the rule: it recommends distill, though not shown to beat finetune",
        ),
        (
            {"distill": 0.8, "finetune": 0.9},
            ("distill",),
            False,
            "not what the rule says: it recommends finetune",
        ),
        (
            {"distill": 0.8, "finetune": 0.9},
            (),
            True,
            "it recommends finetune, which isn't shown to beat distill",
        ),
        (
            {"finetune": 0.9, "combined": None},
            (),
            False,
            "there is no result for the rule's advice (distill)",
        ),
        ({"distill": None, "finetune": 0.9}, (), False, "there is no result"),
    ],
)
def test_evidence_stands_beside_the_rule_and_says_where_it_differs(
    means: dict[str, float | None],
    beaten: tuple[str, ...],
    agrees: bool,
    words: str,
    after: Callable[..., Advice],
) -> None:
    advice = after(means, beaten)
    assert advice.rule.advice == "distill"
    found = advice.evidence[0]
    assert found.agrees is agrees
    assert words in found.says
    shown = "\n".join(as_lines(advice))
    assert words in shown
    assert "as it was measured." in shown


def test_sweeps_of_other_spaces_or_without_a_result_are_no_evidence(
    after: Callable[..., Advice],
) -> None:
    assert after({"distill": 0.9}, name="other", experiment="other").evidence == ()
    assert after({"distill": None}).evidence == ()
    advice = after({"distill": 0.9}, name="tiny-quick")
    assert [found.sweep for found in advice.evidence] == ["tiny-quick"]
