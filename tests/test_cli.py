"""The command line as a process, as a user has it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kdsweep.cli import main

COMMANDS = sorted(main.commands)


def kdsweep(*arguments: str | Path, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kdsweep", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ | environment, check=False)


def test_help_answers_in_under_half_a_second() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert kdsweep("--help").returncode == 0
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5, seconds


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_that_parses(name: str) -> None:
    command = main.commands[name]
    text = command.get_help(click.Context(command, info_name=name))
    examples = re.findall(rf"^\s*kdsweep {name} (.*)$", text, flags=re.MULTILINE)
    assert examples, f"{name} has no example"
    for example in examples:
        command.make_context(name, example.split(), resilient_parsing=False)  # raises where an option doesn't exist


def test_the_page_of_commands_has_every_command() -> None:
    page = (Path(__file__).parents[1] / "docs" / "commands.md").read_text(encoding="utf-8")
    assert set(COMMANDS) <= set(re.findall(r"^## kdsweep (\w+)$", page, flags=re.MULTILINE))


def test_wrong_usage_has_exit_status_2() -> None:
    assert kdsweep("run").returncode == 2
    assert kdsweep("runn").returncode == 2


def test_an_unknown_sweep_is_one_line_with_the_names_there_are(tmp_path: Path) -> None:
    for command in ("status", "compare", "ui"):
        done = kdsweep(command, "nope", "--home", tmp_path)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "nope" in done.stderr
    assert not list(tmp_path.iterdir())


def test_without_a_network_and_a_cache_the_answer_is_one_line_that_names_embedded(tmp_path: Path) -> None:
    start = time.monotonic()
    # A port of this machine that nobody listens on stands for a Hub that can't be reached.
    done = kdsweep(
        "run", "search_spaces/sst2.yaml", "--home", tmp_path / "home", HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path / "hub")
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "--embedded" in done.stderr
    assert time.monotonic() - start < 15 + 10  # what is measured is the waiting; importing torch takes its time here
    assert not (tmp_path / "home").exists()


def test_a_minus_one_label_in_a_split_that_is_used_is_an_error(tmp_path: Path, tiny_space: Path) -> None:
    (tmp_path / "bad.csv").write_text("text,label\n" + "".join(f"film {i},{i % 2 if i % 9 else -1}\n" for i in range(90)), encoding="utf-8")
    done = kdsweep("run", tiny_space, "--home", tmp_path / "home", "--set", f"task.dataset={tmp_path / 'bad.csv'}")
    assert done.returncode == 1
    assert "-1" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "home").exists()


def test_plan_checks_everything_and_writes_nothing(tmp_path: Path, tiny_space: Path) -> None:
    done = kdsweep("plan", tiny_space, "--home", tmp_path / "home", "--json", "--set", "trials=7")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["task"]["labels"] == ["neg", "pos"]
    assert sum(split["rows"] for split in facts["task"]["splits"].values()) == 300
    assert [model["role"] for model in facts["models"]] == ["teacher", "student"]
    assert facts["models"][0]["parameters"] > facts["models"][1]["parameters"] > 0
    assert set(facts["studies"]) == {"finetune", "distill", "combined"}
    assert facts["studies"]["finetune"]["trials"] == 7
    assert len(facts["studies"]["combined"]["samples"]) == 2
    assert facts["estimate"]["seconds_without_pruning"] > 0
    assert not (tmp_path / "home").exists()
    shown = kdsweep("plan", tiny_space, "--home", tmp_path / "home")
    assert shown.returncode == 0
    assert "alpha.start" in shown.stdout


@pytest.mark.parametrize(
    "assignment", ["student.model=./nowhere", "student.layers=9", "training.max_length=5000", "student.model=package://no_such_package/model", "task.text=txt"]
)
def test_a_model_or_column_that_can_not_be_used_is_one_line(assignment: str, tmp_path: Path, tiny_space: Path) -> None:
    done = CliRunner().invoke(main, ["plan", str(tiny_space), "--home", str(tmp_path / "home"), "--set", assignment])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "home").exists()
