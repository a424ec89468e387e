"""A sweep that a mended fault touched gets no more trials; one that it didn't touch does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import sentences, write_csv
from model_families import make_family

from kdsweep.cli import main
from kdsweep.replay import replay
from kdsweep.sweep.facts import SweepFacts
from kdsweep.sweep.folders import Home
from kdsweep.sweep.mended_faults import FAULTS
from kdsweep.sweep.swept_trial import SweptTrial
from kdsweep.trial_id import TrialId

SPACE = """\
name: tiny
task: {{dataset: "{data}", text: text, label: label, holdout: 0.2}}
student: {{model: "{student}"}}
training:
  {{epochs: 1, batch_size: 16, max_length: 16, evaluations_per_epoch: 1, precision: fp32}}
strategies:
  finetune: {{alpha: 1.0, learning_rate: {{low: 1.0e-4, high: 1.0e-3}}}}
"""


def run(home: Path, space: Path, *options: str) -> Result:
    sets = ("trials=1", "confirm={seeds: 0}", "engine={type: inline}")
    assignments = [part for one in sets for part in ("--set", one)]
    return CliRunner().invoke(
        main, ["run", str(space), "--home", str(home), *assignments, *options]
    )


def as_0_1_0_wrote_it(home: Path) -> None:
    """Take from sweep.json what 0.1.0 didn't write."""
    file = Home(home).sweep("tiny").facts
    facts = json.loads(file.read_text())
    assert facts.pop("mended") == list(FAULTS)
    file.write_text(json.dumps(facts | {"kdsweep": "0.1.0"}))


@pytest.mark.parametrize(("family", "is_touched"), [("gpt2", True), ("bert", False)])
def test_no_trial_is_added_to_a_sweep_whose_rows_were_padded_wrongly(
    family: str, is_touched: bool, tmp_path: Path
) -> None:
    data = write_csv(tmp_path / "rows.csv", sentences(80))
    student = make_family(family, tmp_path / "student")
    (tmp_path / "space.yaml").write_text(SPACE.format(data=data, student=student))
    first = run(tmp_path, tmp_path / "space.yaml")
    assert first.exit_code == 0, first.output
    again = run(tmp_path, tmp_path / "space.yaml", "--set", "trials=2")
    assert again.exit_code == 0, again.output
    as_0_1_0_wrote_it(tmp_path)
    more = run(tmp_path, tmp_path / "space.yaml", "--set", "trials=3")
    assert more.exit_code == is_touched, more.output
    if is_touched:
        line = more.stderr.splitlines()[-1]
        assert line.startswith("error: sweep 'tiny': kdsweep 0.1.0 padded batches so that")
        assert f"({student})" in line and "no trial can be added" in line
    for command in ("compare", "status"):
        shown = CliRunner().invoke(main, [command, "tiny", "--home", str(tmp_path)])
        assert shown.exit_code == 0, shown.output
    changed_numbers(Home(tmp_path).sweep("tiny").trial(TrialId("finetune", 0)))
    why = replay(Home(tmp_path), "tiny", "finetune-0").why
    assert ("number of threads" in why[-1]) != is_touched
    if is_touched:
        assert why[0].startswith("kdsweep 0.1.0 padded batches so that")
        assert why[0].endswith(f"({student}), which is mended now")


def changed_numbers(trial: SweptTrial) -> None:
    """As if another version had trained it."""
    trial.write_evaluations(
        [
            replace(one, metrics={name: value + 0.5 for name, value in one.metrics.items()})
            for one in trial.read_evaluations()
        ]
    )


def test_facts_keep_what_is_mended() -> None:
    facts = SweepFacts("0.2.0", {}, "tiny", {}, mended=("padding",))
    assert SweepFacts.from_json(json.loads(json.dumps(facts.to_json())), "tiny") == facts
    without: dict[str, Any] = {"kdsweep": "0.1.0", "identity": {}, "experiment": "x", "sweep": {}}
    assert SweepFacts.from_json(without, "tiny").mended == ()
