"""The page as text: its parts in order, for any sweep."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up_sweeps import full_sweep
from odd_sweeps import ODD, one_has_failed

from kdsweep.compare.pareto import pareto
from kdsweep.report.page import write_page


class Reader(HTMLParser):
    """Headings in order, the text, and ids."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.within = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.within = tag
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_data(self, data: str) -> None:
        if self.within not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.mark.parametrize("name", ODD)
def test_every_page_has_its_parts_in_order(name: str, tmp_path: Path) -> None:
    report, records = ODD[name]()
    write_page(report, records, tmp_path / "report.html")
    read = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert read.headings[0] == 1 and read.headings.count(1) == 1
    assert all(
        later <= earlier + 1
        for earlier, later in zip(read.headings, read.headings[1:], strict=False)
    )
    assert len(set(read.ids)) == len(read.ids)
    parts = [
        report.verdict,
        "Strategies",
        *report.strategies,
        report.questions[1].answer[1:],
        "Charts",
        report.reproduce.command if report.reproduce else "",
    ]
    positions = [read.text.index(" ".join(part.split())) for part in parts[:1] + parts[-3:]]
    assert positions == sorted(positions)
    assert all(part in read.text for part in parts)
    assert ("was stopped before it was done" in read.text) == (report.state == "stopped")
    assert "None" not in read.text and "nan" not in read.text


def test_the_page_says_which_strategy_has_no_finished_trial(tmp_path: Path) -> None:
    report, records = one_has_failed()
    write_page(report, records, tmp_path / "report.html")
    assert (
        "no trial finished" in Reader((tmp_path / "report.html").read_text(encoding="utf-8")).text
    )


def test_what_has_nothing_to_show_yet_takes_one_line(tmp_path: Path) -> None:
    write_page(*ODD["one trial"](), tmp_path / "report.html")
    text = Reader((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "Too few trials for an answer: Does a rising, falling or constant alpha do best?" in text
    assert "not enough trials" not in text
    assert "Nothing to show yet: best so far (two complete trials); alpha (two" in text


def test_hashes_of_data_are_written_as_words(tmp_path: Path) -> None:
    report, records = ODD["two trials"]()
    assert report.reproduce is not None
    hashes = {"data": {"train": "0a1b", "test": "2c3d"}}
    known = report.reproduce.model_copy(update={"hashes": hashes})
    write_page(report.model_copy(update={"reproduce": known}), records, tmp_path / "report.html")
    text = Reader((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "hash of data train 0a1b , test 2c3d" in text and "{'" not in text


def test_with_several_objectives_the_front_is_a_table_with_the_teacher_first(
    tmp_path: Path,
) -> None:
    report, records = full_sweep(6)
    write_page(report, records, tmp_path / "report.html")
    assert "pareto" not in Reader((tmp_path / "report.html").read_text(encoding="utf-8")).ids
    front = pareto("accuracy", {"latency": "latency_ms", "parameters": "parameters"}, records)
    assert len(front) > 1
    write_page(
        report.model_copy(update={"pareto": tuple(front)}), records, tmp_path / "report.html"
    )
    text = Reader((tmp_path / "report.html").read_text(encoding="utf-8")).text
    table = text[
        text.index("Student Validation accuracy Latency Parameters") : text.index(
            "The complete trials of the search"
        )
    ]
    assert table.split()[5:13] == [
        "✶",
        "teacher",
        "0.9300",
        "31.2",
        "ms",
        "109.5",
        "M",
        front[0].id.name,
    ]
    assert table.count(" ms ") == len(front) + 1
    assert all(
        f"{one.id.name} {one.validation:.4f} {one.costs['latency']:.3g} ms" in table
        for one in front
    )
