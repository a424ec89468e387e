"""The pages say what is true of the command line and of the files beside them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kdsweep.cli import main

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], key=lambda page: page.name != "README.md"
)
# The changelog also has commands and files of earlier versions.
PAGES = [page for page in PAGES if page.name != "CHANGELOG.md"]
ids = {"ids": lambda page: page.name}


def _code(page: Path) -> str:
    """The page's code blocks, with continued lines joined."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"^ {4}\S.*", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return re.sub(r"\\\n\s*", " ", "\n".join(blocks))


def _commands(page: Path) -> Iterator[str]:
    for line in _code(page).splitlines():
        found = re.match(r"\s*(?:\$ |!)?(?:\S*/)?kdsweep (.+)", line)
        if found and not found[1].startswith("-"):
            yield found[1]


@pytest.mark.parametrize("page", PAGES, **ids)
def test_every_command_of_a_page_is_one_that_the_command_line_takes(page: Path) -> None:
    for line in _commands(page):
        usage = "[" in line or "NAME..." in line
        words = re.sub(r"[\[\]|]|\.\.\.", " ", line).split() if usage else _words(line)
        command = main.commands.get(words[0])
        assert command is not None, f"{page.name}: kdsweep {line}"
        if usage:
            known = {name for one in command.params for name in one.opts + one.secondary_opts}
            assert {word for word in words if word.startswith("--")} <= known, line
            continue
        context = click.Context(command, info_name=words[0], resilient_parsing=True)
        command.make_parser(context).parse_args(list(words[1:]))


def _words(line: str) -> list[str]:
    """Those of the command, without a comment and what its output goes to."""
    words = []
    for word in shlex.split(line, comments=True):
        if word in ("|", ">", "&", "&&", ";"):
            break
        words.append(word)
    return words


@pytest.mark.parametrize("page", PAGES, **ids)
def test_every_space_and_sweep_that_a_page_names_is_shipped(page: Path) -> None:
    named = re.findall(r"(?:search_spaces|sweeps)/[\w/-]+\.(?:yaml|sbatch)", page.read_text())
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES, **ids)
def test_every_make_target_that_a_page_names_is_one(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`make ((?:[A-Z]+=\S+ )*)([a-z][\w-]*)", text)
    named += re.findall(r"^\s*make ((?:[A-Z]+=\S+ )*)([a-z][\w-]*)", _code(page), re.MULTILINE)
    assert {target for _, target in named} <= targets


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    files = [link for link in links if "://" not in link]
    assert files
    assert not [link for link in files if not (ROOT / link).exists()]


def test_the_site_is_built_with_every_link_and_anchor_right(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").exists()
    # Nothing is loaded from elsewhere.
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r'<(?:script|link)[^>]*(?:src|href)="(?:https?:)?//', page)
