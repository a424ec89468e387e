"""`kdsweep run` with a broken file prints one line and writes nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from all_broken import VARIANTS
from broken_variants import SPACE
from broken_yaml import NO_YAML

Command = tuple[Callable[[Path], list[str]], str]


def from_variant(title: str, rule: str) -> Command:
    variant = next(variant for variant in VARIANTS if variant.title == title)

    def arguments(folder: Path) -> list[str]:
        path = folder / "broken.yaml"
        path.write_text(variant.text, encoding="utf-8")
        if variant.file != "sst2":
            return [str(SPACE), "--sweep", str(path)]
        return [str(path), "--embedded"] if variant.embedded else [str(path)]

    return arguments, f"broken.yaml:{variant.line}: {rule}"


def from_bytes(title: str, rule: str) -> Command:
    def arguments(folder: Path) -> list[str]:
        content = NO_YAML[title][0]
        path = folder / "broken.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return [str(path)]

    return arguments, f"broken.yaml:{NO_YAML[title][1]}: {rule}"


COMMANDS: dict[str, Command] = {
    "a misspelt key": from_variant(
        "sst2: training.epochs misspelt", "training: unknown key 'epochsx'; did you mean 'epochs'?"
    ),
    "a wrong type": from_variant("sst2: task of a wrong type", "task: must be a mapping of keys"),
    "a missing part": from_variant("sst2: no student.model", "student.model is missing"),
    "an impossible range": from_variant(
        "sst2: distill: {low: 1.0, high: 0.0}",
        "strategies.distill.alpha: low (1) must be below high (0)",
    ),
    "a broken embedded section": from_variant(
        "sst2: embedded.task.label of a wrong type", "task.label: must be text"
    ),
    "a broken sweep": from_variant(
        "local: trials: 20 trials: 0", "trials: must be at least 1, not 0"
    ),
    "tabs": from_bytes("tabs", "is no YAML"),
    "binary": from_bytes("binary", "is not UTF-8 text"),
    "laughs": from_bytes("laughs", "holds more than 50,000 values"),
    "a folder": (lambda folder: [str(folder)], "is a folder"),
    "no file": (
        lambda folder: [str(folder / "nowhere.yaml")],
        "nowhere.yaml: there is no such file",
    ),
    "a broken --set": (
        lambda folder: [str(SPACE), "--set", "strategies.distill.temperature=\n-1"],
        "temperature must be above 0, not -1",
    ),
    "a broken --name": (
        lambda folder: [str(SPACE), "--name", "../../x"],
        "--name: a name is 1 to 100",
    ),
}


@pytest.mark.parametrize("title", COMMANDS)
def test_the_command_prints_one_line_and_writes_nothing(title: str, tmp_path: Path) -> None:
    make, said = COMMANDS[title]
    arguments, home = make(tmp_path), tmp_path / "my home"
    command = [sys.executable, "-m", "kdsweep", "run", *arguments, "--home", str(home)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("\n"), done.stderr
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not home.exists()
    assert not (tmp_path / "runs").exists()
