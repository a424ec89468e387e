"""The command line: help, exit status, one line for an error, and `plan`."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner
from conftest import sentences, write_csv
from transformers import AutoModelForMaskedLM, AutoTokenizer

from kdsweep.cli import main
from kdsweep.cli.options import print_json
from kdsweep.cli.output import flush_output, open_output

COMMANDS = sorted(main.commands)


def kdsweep(
    *arguments: str | Path, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kdsweep", *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | environment,
        check=False,
    )


def test_help_answers_in_under_half_a_second() -> None:
    # Other tests may occupy the cores, so one of several tries must be fast.
    seconds: list[float] = []
    while len(seconds) < 10 and min(seconds, default=1.0) >= 0.5:
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
        # This raises if an option doesn't exist.
        command.make_context(name, example.split(), resilient_parsing=False)


@pytest.mark.parametrize("columns", [80, 200])
def test_the_list_of_commands_is_in_the_order_of_use_and_cuts_nothing_off(columns: int) -> None:
    listed = CliRunner().invoke(main, ["--help"], terminal_width=columns).stdout
    lines = dict(re.findall(r"^  ([a-z]+) {2,}(.+)$", listed.partition("Commands:")[2], re.M))
    assert list(lines) == list(main.commands)
    assert all(text.endswith(".") and not text.endswith("...") for text in lines.values()), lines
    assert max(map(len, listed.splitlines())) <= columns
    in_order = ["init", "plan", "run", "status", "stop", "compare", "ui", "export", "list", "clean"]
    assert [name for name in lines if name in in_order] == in_order


def test_without_any_sweep_ui_says_how_to_start_one(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["ui", "--home", str(tmp_path)])
    assert (done.exit_code, done.stderr) == (
        1,
        f"error: no sweep in {tmp_path}: there are none yet: start one (kdsweep run SPACE), or "
        "name another home (--home)\n",
    )
    assert not list(tmp_path.iterdir())


def test_the_page_on_commands_has_every_command() -> None:
    page = (Path(__file__).parents[1] / "docs" / "commands.md").read_text(encoding="utf-8")
    assert set(COMMANDS) <= set(re.findall(r"^## kdsweep (\w+)$", page, flags=re.MULTILINE))


def test_wrong_usage_has_exit_status_2() -> None:
    assert kdsweep("run").returncode == 2
    assert kdsweep("runn").returncode == 2


def test_an_unknown_sweep_is_one_line(tmp_path: Path) -> None:
    for command in ("status", "compare", "ui"):
        done = kdsweep(command, "nope", "--home", tmp_path)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "nope" in done.stderr
    assert not list(tmp_path.iterdir())


def test_without_a_network_and_a_cache_the_error_is_one_line_that_names_embedded(
    tmp_path: Path,
) -> None:
    start = time.monotonic()
    # A port of this machine without a server simulates a Hub that can't be reached.
    done = kdsweep(
        "run",
        "search_spaces/sst2.yaml",
        "--home",
        tmp_path / "home",
        HF_HUB_OFFLINE="0",
        HF_ENDPOINT="http://127.0.0.1:9",
        HF_HOME=str(tmp_path / "hub"),
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "--embedded" in done.stderr
    # If the Hub's client retries, it takes minutes. Importing torch may be slow.
    assert time.monotonic() - start < 60
    assert not (tmp_path / "home").exists()


def test_a_minus_one_label_in_a_split_that_is_used_is_an_error(
    tmp_path: Path, tiny_space: Path
) -> None:
    labels = [i % 2 if i % 9 else -1 for i in range(90)]
    rows = "".join(f"film {i},{label}\n" for i, label in enumerate(labels))
    (tmp_path / "bad.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    done = CliRunner().invoke(
        main,
        [
            "run",
            str(tiny_space),
            "--home",
            str(tmp_path / "home"),
            "--set",
            f"task.dataset={tmp_path / 'bad.csv'}",
        ],
    )
    assert done.exit_code == 1
    assert "-1" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "home").exists()


def test_plan_describes_what_would_run_and_writes_nothing(tmp_path: Path, tiny_space: Path) -> None:
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
    assert facts["answers"]["complete"].keys() == facts["studies"].keys()
    assert not (tmp_path / "home").exists()
    shown = CliRunner().invoke(main, ["plan", str(tiny_space), "--home", str(tmp_path / "home")])
    assert shown.exit_code == 0
    assert "alpha.start" in shown.stdout
    assert "Questions: complete trials expected" in shown.stdout
    assert "memory: about " in shown.stdout
    if not torch.cuda.is_available():
        assert "Slots: one, this process, with " in shown.stdout
        assert "(engine: auto, and this machine has no GPU)" in shown.stdout
    assert 0 < facts["memory"]["a_slot"] < facts["memory"]["there"]
    several = len(os.sched_getaffinity(0)) > 1 and not torch.cuda.is_available()
    assert (
        "--set 'engine={type: ray, cpus_per_trial: 1}'" in " ".join(shown.stdout.split())
    ) == several
    on_ray = ["--set", "engine={type: ray, cpus_per_trial: 1, cpus: 2}"]
    facts = json.loads(
        CliRunner()
        .invoke(
            main, ["plan", str(tiny_space), "--home", str(tmp_path / "home"), "--json", *on_ray]
        )
        .stdout
    )
    assert (facts["estimate"]["slots"], facts["estimate"]["slots_instead"]) == (2, None)
    assert facts["slots"]["words"].startswith("2, with 1 thread each (engine: {type: ray")


def test_plan_counts_the_rows_that_only_the_teacher_labels(
    tmp_path: Path, tiny_space: Path
) -> None:
    more = write_csv(
        tmp_path / "more.csv",
        [(f"{text} film", "") for text, _ in sentences(80, seed=3)] + sentences(20),
    )
    sets = (
        f"task.unlabelled={more}",
        "strategies.combined.augment={views: 3, mask: {choices: [0.1, 0.2]}, "
        "seed: {choices: [0, 1]}}",
        "trials=7",
    )
    views = "strategies.distill.augment={views: {low: 0, high: 2}, swap: {low: 0.0, high: 0.5}}"
    sets_of_all = [part for assignment in (*sets, views) for part in ("--set", assignment)]
    arguments = ["plan", str(tiny_space), "--home", str(tmp_path / "home"), *sets_of_all]
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == 0, done.stderr
    facts = json.loads(done.stdout)
    train = facts["task"]["splits"]["train"]["rows"]
    assert facts["task"]["unlabelled"] == 80
    assert (
        "unlabelled: 20 rows dropped: their text is in a split of the task too"
        in facts["task"]["notes"]
    )
    found = facts["estimate"]["more_rows"]
    assert {
        strategy: (one["unlabelled"], one["views"], one["rows"], one["sets_of_views"])
        for strategy, one in found.items()
    } == {
        # `swap` is a range, so each trial has different views.
        "distill": (80, 2, 80 + 2 * train, 7),
        "combined": (80, 3, 80 + 3 * train, 4),
    }
    assert all(one["seconds_a_trial"] > 0 and one["views_mb"] > 0 for one in found.values())
    shown = CliRunner().invoke(main, arguments).stdout
    rows = f"more rows: {80 + 3 * train:,} (80 unlabeled and up to 3 views of each row of train)"
    assert rows in shown
    assert "up to 4 different sets of views" in shown


def test_plan_estimates_the_time_for_words_of_a_masked_language_model(
    tmp_path: Path, tiny_space: Path, tiny: Callable[..., str]
) -> None:
    folder = tmp_path / "words"
    AutoModelForMaskedLM.from_pretrained(tiny("bert", layers=2)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny("bert", layers=2)).save_pretrained(folder)

    def estimate(share: str) -> tuple[dict[str, Any], str]:
        words = f"{{model: {folder}, share: {share}}}"
        views = f"strategies.distill.augment={{views: 2, masked_lm: {words}}}"
        arguments = ["plan", str(tiny_space), "--home", str(tmp_path / "home"), "--set", views]
        done = [CliRunner().invoke(main, [*arguments, *more]) for more in (["--json"], [])]
        assert [one.exit_code for one in done] == [0, 0], done[0].output
        return json.loads(done[0].stdout)["estimate"], done[1].stdout

    some, shown = estimate("{choices: [0.0, 0.9]}")
    none, without = estimate("0.0")
    assert some["more_rows"]["distill"]["seconds_for_words"] > 0
    assert none["more_rows"]["distill"]["seconds_for_words"] == 0
    assert "for the words of a masked language model, " in shown
    assert "words of a masked" not in without


def test_plan_refuses_a_masked_language_model_that_has_no_head(
    tmp_path: Path, tiny_space: Path, tiny: Callable[..., str]
) -> None:
    views = f"strategies.distill.augment={{views: 1, masked_lm: {tiny('bert', layers=2)}}}"
    done = CliRunner().invoke(
        main, ["plan", str(tiny_space), "--home", str(tmp_path / "home"), "--set", views]
    )
    assert done.exit_code == 1
    assert "is no masked language model: its weights lack cls.predictions" in done.output


@pytest.mark.parametrize(
    "assignment",
    [
        "student.model=./nowhere",
        "student.layers=9",
        "training.max_length=5000",
        "student.model=package://no_such_package/model",
        "task.text=txt",
    ],
)
def test_a_model_or_column_that_cannot_be_used_is_one_line(
    assignment: str, tmp_path: Path, tiny_space: Path
) -> None:
    done = CliRunner().invoke(
        main, ["plan", str(tiny_space), "--home", str(tmp_path / "home"), "--set", assignment]
    )
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "home").exists()


def test_letters_that_the_terminal_does_not_have_are_shown_as_well_as_can_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "written").open("w", encoding="latin-1") as file:
        monkeypatch.setattr(sys, "stdout", file)
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        print_json({"label": "高評価 é"})
        open_output()
        sys.stdout.write("高評価 é")
        assert flush_output() is None
    as_json, text = (tmp_path / "written").read_text("latin-1").rsplit("\n", 1)
    assert json.loads(as_json) == {"label": "高評価 é"} and text == "??? é"


def printed_to(target: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command with `target` in the shell behind it."""
    command = shlex.join([sys.executable, "-m", "kdsweep", *arguments])
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{command} {target}"],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("arguments", [("completion", "bash"), ("list", "--json"), ("--help",)])
def test_a_full_output_ends_a_command_that_only_prints_in_one_line(
    arguments: tuple[str, ...],
) -> None:
    done = printed_to("> /dev/full", *arguments)
    assert done.returncode == 1
    assert done.stderr == "error: output: No space left on device\n"
    # Who closes a pipe is told nothing.
    assert printed_to("| true", *arguments).stderr == ""
    # There is no place for a line.
    assert printed_to("> /dev/full 2> /dev/full", *arguments).returncode == 1


def test_a_pipe_that_another_program_made_non_blocking_loses_no_letter() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        [sys.executable, "-m", "kdsweep", "completion", "bash"],
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    # It is full from the start.
    written = os.write(writing, bytes(4096))
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = pipe.read()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), errors) == (0, b"")
    expected = CliRunner().invoke(main, ["completion", "bash"]).stdout
    assert found[written:].decode() == expected


@pytest.mark.parametrize(
    ("target", "arguments"),
    [(">&- 2>&-", ("list", "--json")), ("<&-", ("clean",)), ("<&-", ("remove", "name"))],
)
def test_a_stream_that_is_closed_is_like_one_that_nobody_reads(
    target: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "sweeps" / "name").mkdir(parents=True)
    done = printed_to(target, *arguments, "--home", str(tmp_path))
    asks = arguments[0] == "remove"
    line = "error: nothing was removed: nobody answered; add --yes"
    assert done.stderr.strip() == line * asks
    assert done.returncode == int(asks)


def test_a_space_is_written_with_status_0_where_nobody_reads_what_is_said(tmp_path: Path) -> None:
    rows = [("good words", "good"), ("bad words", "bad")] * 30
    write_csv(
        tmp_path / "rows.csv", [(f"{text} {at}", label) for at, (text, label) in enumerate(rows)]
    )
    space = tmp_path / "space.yaml"
    done = printed_to("| true", "init", str(tmp_path / "rows.csv"), str(space))
    assert (done.returncode, done.stderr) == (0, "")
    assert space.exists()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["> /dev/full", "2> /dev/full", "| head -n 1", ">&- 2>&-"])
def test_a_sweep_goes_on_where_nothing_can_be_printed(
    target: str, space: Path, tmp_path: Path
) -> None:
    sets = ("trials=1", "confirm={seeds: 0}", "engine={type: inline}", "training.epochs=1")
    options = [part for one in sets for part in ("--set", one)]
    done = printed_to(target, "run", str(space), "--home", str(tmp_path), *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "sweeps" / "tiny" / "report.json").exists()
