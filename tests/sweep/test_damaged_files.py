"""Files of a sweep that were cut short, emptied, or hold something else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import others_slow
from servers import SIX, Lines

from kdsweep.errors import DamagedFile, KdsweepError, NewerFiles
from kdsweep.export import export
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.sweep.results import report
from kdsweep.sweep.study_removal import studies_of

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
    except NewerFiles:
        # Keys that this version doesn't know are a newer one's.
        assert (file.name, text) == ("settings.json", TEXTS[2])
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


@pytest.fixture(scope="module")
def with_confirm(space: Path, six_trials: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The sweep of six trials, whose best ones were confirmed too."""
    home = Home(tmp_path_factory.mktemp("confirmed") / "home")
    shutil.copytree(six_trials.root, home.root)
    run(space, home=home.root, assignments=(*SIX, "confirm={seeds: 1, finalists: 1}"))
    return home


@pytest.fixture
def confirmed(tmp_path: Path, with_confirm: Home) -> Home:
    copied = Home(tmp_path / "confirmed")
    shutil.copytree(with_confirm.root, copied.root)
    return copied


def other_shape(file: Path) -> None:
    np.save(file, np.zeros((3, 3)))


def other_type(file: Path) -> None:
    np.save(file, np.full(np.load(file).shape, "x"))


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


ARRAY_DAMAGES: tuple[Callable[[Path], None], ...] = (other_shape, other_type, cut_short)


@pytest.mark.parametrize("damage", [*ARRAY_DAMAGES, Path.unlink])
@pytest.mark.parametrize("name", ["test_labels.npy", "teachers/0.npy"])
def test_labels_and_teachers_logits_are_made_again_from_the_cache(
    confirmed: Home, name: str, damage: Callable[[Path], None]
) -> None:
    file = confirmed.sweep("tiny").root / name
    held, reported = np.load(file), report(confirmed, "tiny").to_json()
    damage(file)
    assert report(confirmed, "tiny").to_json() == reported
    np.testing.assert_array_equal(np.load(file), held, strict=True)


@pytest.mark.parametrize("damage", ARRAY_DAMAGES)
@pytest.mark.parametrize(
    ("name", "what_to_do"),
    [
        ("teachers/0.npy", "delete it: students are then compared without this teacher"),
        ("trials/*/validation_predictions.npy", "delete it: what it tells is then left"),
        ("confirm/*/test_logits.npy", "and run the same command again: that run is trained again"),
    ],
)
def test_an_array_that_cannot_be_made_again_is_one_line(
    confirmed: Home, name: str, what_to_do: str, damage: Callable[[Path], None]
) -> None:
    shutil.rmtree(confirmed.cache / "logits")
    file = min(confirmed.sweep("tiny").root.glob(name))
    damage(file)
    with pytest.raises(DamagedFile, match="can't be read: ") as caught:
        report(confirmed, "tiny")
    assert str(file) in str(caught.value)
    assert what_to_do in str(caught.value)
    if what_to_do.startswith("delete it:"):
        file.unlink()
        report(confirmed, "tiny")


@pytest.mark.parametrize("text", others_slow(["{", None]))
@pytest.mark.parametrize("name", ["settings.json", "result.json"])
def test_a_broken_file_of_an_ended_trial_is_made_again(
    space: Path, home: Home, name: str, text: str | None
) -> None:
    file = home.sweep("tiny").trials / "distill-1" / name
    before = json.loads(file.read_text())
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    lines = Lines()
    assert run(space, home=home.root, assignments=SIX, observer=lines).state == "done"
    assert [line for line in lines.lines if line.startswith(f"distill-1: {file} ")]
    assert not any(": complete" in line for line in lines.lines)
    after = json.loads(file.read_text())
    if name == "result.json":
        # When the trial ended isn't known any more.
        assert after.pop("seconds") <= before.pop("seconds")
    assert after == before
    assert "nothing to run" in again(space, home)[0]


def again(space: Path, home: Home) -> list[str]:
    lines = Lines()
    run(space, home=home.root, assignments=SIX, observer=lines)
    return lines.lines


@pytest.mark.parametrize("text", ["", "[]", "name: [", None])
def test_a_broken_space_is_written_again(home: Home, text: str | None) -> None:
    file = home.sweep("tiny").space
    before, reported = file.read_bytes(), report(home, "tiny").to_json()
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    assert report(home, "tiny").to_json() == reported
    assert file.read_bytes() == before


def test_a_broken_record_of_the_tracker_costs_nothing(
    space: Path, home: Home, tmp_path: Path
) -> None:
    for file in home.sweep("tiny").trials.glob("*/tracked.json"):
        file.write_text("{")
    export(home, "tiny", tmp_path / "exported")
    assert (tmp_path / "exported" / "model.safetensors").exists()
    assert not any(": complete" in line for line in again(space, home))


def test_studies_in_a_damaged_database_are_one_line_for_who_removes_them(home: Home) -> None:
    overwrite(home.optuna_db)
    with pytest.raises(KdsweepError, match=r"^storage: .*optuna\.db can't be (opened|used)"):
        studies_of(home.storage_url("sqlite"), "tiny")


def overwrite(file: Path) -> None:
    for log in file.parent.glob(f"{file.name}-*"):
        log.unlink()
    file.write_bytes(b"\xa5" * file.stat().st_size)
