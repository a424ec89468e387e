"""`precision: auto` in a sweep: the first slot's device settles it, once and for all workers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from kdsweep.cli import main
from kdsweep.config import load
from kdsweep.core import device
from kdsweep.core.evaluation.latency_figures import Device
from kdsweep.core.files import read_json, write_json
from kdsweep.errors import SettingsConflict
from kdsweep.replay import replay
from kdsweep.sweep import run
from kdsweep.sweep.cost_estimate import Measurements
from kdsweep.sweep.engines.places import Place
from kdsweep.sweep.engines.worker import WorkerHost
from kdsweep.sweep.engines.worker_check import WorkerCheck
from kdsweep.sweep.facts import SweepFacts
from kdsweep.sweep.folders import Home
from kdsweep.sweep.precision import PrecisionStage, planned_precision
from kdsweep.sweep.preflight import check_models

AUTO = ("training.precision=auto", "teacher.training.precision=auto")
SHORT = (
    "pruner={type: none}",
    "confirm={seeds: 1}",
    "engine={type: inline}",
    "training.epochs=1",
    "strategies.combined=",
    *AUTO,
)
FIRST = (*SHORT, "trials=1")
PROCESSOR = Device(name="a processor", threads=1)


@pytest.fixture
def cpu_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """cpu_with(flags): what this machine's processor can do from now on, as the kernel shows it."""
    if torch.cuda.is_available():
        pytest.skip("computes on a GPU")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)

    def pretend(flags: str) -> None:
        monkeypatch.setattr(device, "_of_processor", {"flags": flags}.get)

    return pretend


def settings_of(home: Path) -> dict[str, dict[str, Any]]:
    """Trial or run of confirm -> its settings."""
    files = (home / "sweeps" / "tiny").glob("*/*/settings.json")
    return {file.parent.name: read_json(file) for file in files}


def shown(home: Path, *command: str) -> Any:
    done = CliRunner().invoke(main, [*command, "--home", str(home), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_sweep_keeps_the_precision_of_its_first_slot(
    tiny_space: Path, tmp_path: Path, cpu_with: Callable[[str], None]
) -> None:
    cpu_with("avx512f avx512_bf16")
    sets = [word for text in FIRST for word in ("--set", text)]
    planned = shown(tmp_path, "plan", str(tiny_space), *sets)["precision"]
    assert (planned["auto"], planned["used"]) == ("bf16", ["bf16"])
    assert "AVX512-BF16" in planned["words"]
    report = run(tiny_space, home=tmp_path, assignments=FIRST)
    assert report.precision == "bf16"
    before = settings_of(tmp_path)
    assert len(before) == 4
    for one in before.values():
        assert (one["training"]["precision"], one["settled_precision"]) == ("auto", "bf16")
        if one["teacher"] is not None:
            assert one["teacher"]["settled_precision"] == "bf16"
    assert shown(tmp_path, "status", "tiny")["precision"] == "bf16"
    assert shown(tmp_path, "compare", "tiny")["precision"] == "bf16"
    replayed = replay(Home(tmp_path), "tiny", "distill-0")
    assert replayed.verdict == "identical" and replayed.student is not None
    assert "trained in: bf16" in (replayed.student / "README.md").read_text()

    # A machine that would have to emulate it can't go on with the sweep, and can read it.
    cpu_with("avx512f")
    more = (*SHORT, "trials=2")
    with pytest.raises(SettingsConflict, match=r"sweep 'tiny' computes in bf16.*--fresh"):
        run(tiny_space, home=tmp_path, assignments=more)
    assert settings_of(tmp_path) == before
    assert shown(tmp_path, "status", "tiny")["precision"] == "bf16"
    planned = shown(tmp_path, "plan", str(tiny_space), *sets)["precision"]
    assert planned["words"] == "bf16, as the sweep's first slot settled it"


def test_a_sweep_of_an_earlier_version_stays_in_fp32_when_it_is_extended(
    tiny_space: Path, tmp_path: Path, cpu_with: Callable[[str], None]
) -> None:
    cpu_with("")
    run(tiny_space, home=tmp_path, assignments=FIRST)
    teachers = sorted((tmp_path / "cache" / "teachers").glob("*/teacher.json"))
    folder = tmp_path / "sweeps" / "tiny"
    facts = read_json(folder / "sweep.json")
    assert facts.pop("precision") == "fp32"
    write_json(folder / "sweep.json", facts)
    for file in folder.glob("*/*/settings.json"):
        stored = read_json(file)
        del stored["settled_precision"]
        if stored["teacher"] is not None:
            del stored["teacher"]["settled_precision"]
        write_json(file, stored)

    cpu_with("avx512_bf16 amx_bf16")
    report = run(tiny_space, home=tmp_path, assignments=(*SHORT, "trials=2"))
    assert report.precision is None
    assert all("settled_precision" not in one for one in settings_of(tmp_path).values())
    assert "precision" not in read_json(folder / "sweep.json")
    assert sorted((tmp_path / "cache" / "teachers").glob("*/teacher.json")) == teachers
    assert replay(Home(tmp_path), "tiny", "finetune-1").verdict == "identical"
    assert replay(Home(tmp_path), "tiny", "distill-0").verdict == "identical"


def test_a_space_that_names_its_precision_runs_anywhere(
    tiny_space: Path, tmp_path: Path, cpu_with: Callable[[str], None]
) -> None:
    cpu_with("amx_bf16")
    only = ("strategies.distill=", "strategies.combined=", "confirm={seeds: 0}")
    sets = ("engine={type: inline}", "training.epochs=1", *only)
    run(tiny_space, home=tmp_path, assignments=(*sets, "trials=1"))
    cpu_with("")
    report = run(tiny_space, home=tmp_path, assignments=(*sets, "trials=2"))
    assert report.precision == "fp32"
    assert {one["settled_precision"] for one in settings_of(tmp_path).values()} == {"fp32"}


@pytest.mark.parametrize(
    ("places", "expected"), [(("bf16", "bf16"), "bf16"), (("bf16", "fp32"), "fp32")]
)
def test_the_first_slots_of_a_cluster_settle_it_together(
    places: tuple[str, ...], expected: str, tiny_space: Path, tmp_path: Path
) -> None:
    cluster = "engine={type: ray, address: head, cpus_per_trial: 1}"
    plan, folder = load(tiny_space, assignments=(*AUTO, cluster)), Home(tmp_path).sweep("tiny")
    folder.root.mkdir(parents=True)
    folder.write_facts(SweepFacts("0.2.0", plan.identity, "tiny", {}, precision="unsettled"))
    stage = PrecisionStage(plan, folder)
    stage.settle(())
    assert plan.space.auto is None
    assert planned_precision(plan, folder).auto is None
    stage.settle([Place(f"{i}", PROCESSOR, one) for i, one in enumerate(places)])  # type: ignore[arg-type]
    assert plan.space.auto == folder.read_facts().precision == expected
    stage.settle([Place("later", PROCESSOR, "fp32")])
    assert plan.space.auto == expected


def test_a_worker_that_would_emulate_bf16_is_refused_in_one_line(tmp_path: Path) -> None:
    homes = (Home(tmp_path / str(number)) for number in itertools.count())

    def check(precision: Any, *, says_auto: bool = True) -> Callable[[str], str | None]:
        folder = next(homes).sweep("tiny")
        folder.root.mkdir(parents=True)
        folder.write_facts(SweepFacts("0.2.0", {}, "tiny", {}, precision=precision))
        found = WorkerCheck(folder, {}, local_tracking=False, says_auto=says_auto)

        def why_not(best: Any) -> str | None:
            return found.why_not({}, WorkerHost("far", 1, "", True, PROCESSOR, best_precision=best))

        return why_not

    first_decides = check("unsettled")
    assert first_decides("bf16") is None
    refusal = first_decides("fp32")
    assert refusal is not None and "a processor would have to emulate that" in refusal
    assert "\n" not in refusal
    assert check("bf16")("fp32") is not None
    for anybody in (check("fp32"), check(None), check("bf16", says_auto=False)):
        assert anybody("fp32") is None and anybody("bf16") is None
    first_has_none = check("unsettled")
    assert first_has_none("fp32") is None and first_has_none("bf16") is None


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_plan_times_models_in_the_precision_of_the_trials(
    tiny_space: Path, tmp_path: Path, precision: str
) -> None:
    sets = (f"training.precision={precision}", f"teacher.training.precision={precision}")
    space = load(tiny_space, assignments=sets).space
    checked = check_models(space, tmp_path)
    (student,) = checked.students
    seen = []
    model = type(student.model)(student.model.config)
    model.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    measured = Measurements(checked.data, space.precisions())
    measured.row_seconds(replace(student, model=model), 4)
    assert set(seen) == {precision == "bf16"}
