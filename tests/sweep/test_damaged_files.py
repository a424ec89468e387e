"""Files of a sweep that were cut short, emptied, or hold something else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from servers import SIX, Lines

from kdsweep.errors import DamagedFile
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.sweep.results import report

TEXTS = ("", "[]", '{"new": 1}', '{"kdsweep": ')


@pytest.fixture
def home(tmp_path: Path, six_trials: Home) -> Home:
    copied = Home(tmp_path / "copied")
    shutil.copytree(six_trials.root, copied.root)
    return copied


@pytest.mark.parametrize("text", TEXTS)
def test_a_broken_report_is_written_again_and_nothing_is_trained(
    space: Path, home: Home, six_trials: Home, text: str
) -> None:
    file = home.sweep("tiny").report
    file.write_text(text)
    assert report(home, "tiny").verdict == report(six_trials, "tiny").verdict
    lines = Lines()
    assert run(space, home=home.root, assignments=SIX, observer=lines).state == "done"
    assert not any(": complete" in line for line in lines.lines)
    assert "verdict" in file.read_text()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    ("name", "what_to_do"),
    [
        ("sweep.json", "delete it and run the same command again: finished trials are kept"),
        ("clock.json", "delete it: the time that was spent so far is then not counted"),
        ("latency.json", "delete it: latencies are then measured again"),
        ("trials/distill-0/metrics.jsonl", "delete it: this trial's curve is then not shown"),
        ("trials/distill-0/settings.json", "restore it from a copy"),
        ("trials/distill-0/result.json", "restore it from a copy"),
    ],
)
def test_a_broken_file_is_one_line_that_says_what_to_do(
    home: Home, name: str, what_to_do: str, text: str
) -> None:
    file = home.sweep("tiny").root / name
    file.write_text(text)
    try:
        report(home, "tiny")
    except DamagedFile as error:
        assert str(error).startswith(f"{file} can't be read: ")
        assert what_to_do in str(error)
        assert "\n" not in str(error)
    else:
        # A clock without known keys is one of another version; no evaluation is none.
        assert (name, text) in (
            ("clock.json", TEXTS[2]),
            ("trials/distill-0/metrics.jsonl", ""),
        )
    if what_to_do.startswith("delete it:"):
        file.unlink()
        report(home, "tiny")


def test_a_sweep_without_its_facts_keeps_its_trials(space: Path, home: Home) -> None:
    home.sweep("tiny").facts.unlink()
    lines = Lines()
    assert run(space, home=home.root, assignments=SIX, observer=lines).state == "done"
    assert not any(": complete" in line for line in lines.lines)
