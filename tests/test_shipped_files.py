"""Shipped spaces and sweeps by name: what a name means, and copies of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kdsweep.cli import main
from kdsweep.config import SpaceError, load
from kdsweep.shipped_files import SPACES, SWEEPS

ROOT = Path(__file__).parents[1]
SST2 = ROOT / "search_spaces" / "sst2.yaml"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def kdsweep(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def error_of(space: str, sweep: str | None = None) -> str:
    with pytest.raises(SpaceError) as caught:
        load(space, sweep)
    return str(caught.value)


def test_every_shipped_file_is_found_by_its_name_from_any_folder() -> None:
    assert set(SPACES.files().values()) == set((ROOT / "search_spaces").glob("*.yaml"))
    assert set(SWEEPS.files().values()) == set((ROOT / "sweeps").glob("*.yaml"))
    assert {"sst2", "students"} <= SPACES.files().keys()
    assert {"quick", "local", "pareto", "slurm"} == SWEEPS.files().keys()
    by_name = load("sst2", "quick", embedded=True)
    assert by_name == load(SST2, ROOT / "sweeps" / "quick.yaml", embedded=True)
    assert by_name.name == "sst2-embedded-quick"


def test_no_name_is_that_of_a_space_and_of_a_sweep() -> None:
    assert not SPACES.files().keys() & SWEEPS.files().keys()


@pytest.mark.parametrize(
    ("space", "sweep", "said"),
    [
        ("ss2", None, "ss2: there is no such file, and no shipped space.*did you mean 'sst2'"),
        ("sst2", "quik", "quik: there is no such file, and no shipped sweep.*mean 'quick'"),
        ("sst2-embedded-quick-2", None, "the name of a sweep that was run is for status"),
        ("sst2.yaml", None, "sst2.yaml: there is no such file; .* without a suffix: sst2$"),
        ("search_spaces/sst2.yaml", None, "named without a suffix: sst2$"),
        ("sst2", "sweeps/quick.yaml", "the shipped sweep is named without a suffix: quick$"),
        ("elsewhere/sst2.yaml", None, "elsewhere/sst2.yaml: there is no such file$"),
        ("quick", None, "quick: there is no such file, and no shipped space"),
        ("a" * 300, None, "can't be read: File name too long"),
        ("a\0b", None, "can't be read: "),
        ("", None, "is a folder"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(space: str, sweep: str | None, said: str) -> None:
    with pytest.raises(SpaceError, match=said):
        load(space, sweep)


def test_a_file_here_comes_before_a_shipped_one_and_a_line_says_so() -> None:
    text = SST2.read_text(encoding="utf-8")
    assert kdsweep("plan", "sst2", "--set", "trials=x").stderr.count("\n") == 1
    for name in ("sst2.yaml", "sst2"):
        Path(name).write_text(text.replace("name: sst2", f"name: mine-{len(name)}"))
        assert load("sst2").space.name == f"mine-{len(name)}"
        said = kdsweep("plan", "sst2", "--set", "trials=x").stderr
        assert said.startswith(f"sst2: {name} of this folder, not the shipped space\n")
    # A path is always a path.
    assert load("./sst2.yaml").space.name == "mine-9"
    assert load(str(SST2)).space.name == "sst2"


def test_a_folder_of_that_name_is_no_space_and_hides_none() -> None:
    Path("sst2").mkdir()
    assert load("sst2").space.name == "sst2"
    Path("mine").mkdir()
    assert "is a folder; expected a YAML file" in error_of("mine")


def test_an_example_is_copied_as_it_is_and_never_over_another_file() -> None:
    done = kdsweep("init", "--example", "sst2")
    assert done.exit_code == 0, done.output
    assert "kdsweep plan sst2.yaml" in done.stdout
    assert load("sst2.yaml").resolved == load(SST2).resolved
    again = kdsweep("init", "--example", "sst2")
    assert (again.exit_code, again.stderr.count("\n")) == (1, 1)
    assert "exists already and is not overwritten" in again.stderr
    facts = json.loads(kdsweep("init", "--example", "rte", "my space.yaml", "--json").stdout)
    assert facts == {
        "file": "my space.yaml",
        "example": "rte",
        "next": "kdsweep plan 'my space.yaml'",
    }
    assert load("my space.yaml").space.name == "rte"


def test_an_example_needs_a_known_name_and_nothing_about_data() -> None:
    assert "did you mean 'sst2'?" in kdsweep("init", "--example", "sst").stderr
    assert kdsweep("init", "--example", "sst2", "a.yaml", "b.yaml").exit_code == 2
    assert kdsweep("init", "--example", "sst2", "--text", "t").exit_code == 2
    assert kdsweep("init").exit_code == 2
    assert not list(Path().iterdir())


@pytest.mark.parametrize("name", SPACES.files())
def test_each_example_means_the_same_wherever_it_is_copied_to(name: str) -> None:
    assert kdsweep("init", "--example", name, "copy.yaml").exit_code == 0
    assert load("copy.yaml").resolved == load(name).resolved
