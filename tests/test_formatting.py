"""Names are not markup: a reader of Markdown sees them as they are."""

from __future__ import annotations

import re
from html import unescape

import pytest
from markdown_it import MarkdownIt

from kdsweep.formatting import code_block, code_span, in_markdown

NASTY = [
    "plain",
    "[/spam]",
    "m[v2](https://example.org)",
    "![x](y.png)",
    "a`b",
    "``",
    "`a`",
    "<script>alert(1)</script>",
    "*bold* and _italic_ and __both__",
    "distill_then_finetune",
    "a~~b~~c",
    "&amp; &#38;",
    r"C:\new\[x]",
    "a | b",
    "two\nlines",
]


def read(markdown: str) -> tuple[str, list[str]]:
    """The text that a reader sees, and the tags that it is made of."""
    html = MarkdownIt("gfm-like", {"linkify": False}).render(markdown)
    tags = re.findall(r"<(\w+)", html)
    text = unescape(re.sub(r"<[^>]+>", "", html)).strip()
    return text, tags


@pytest.mark.parametrize("name", NASTY)
def test_a_name_in_text_is_read_as_it_is(name: str) -> None:
    text, tags = read(f"A student of {in_markdown(name)}, trained.")
    assert text == f"A student of {' '.join(name.split())}, trained."
    assert tags == ["p"]


@pytest.mark.parametrize("name", NASTY)
def test_a_name_in_code_is_read_as_it_is(name: str) -> None:
    text, tags = read(f"labels: {code_span(name)}, {code_span('other')}")
    assert text == f"labels: {' '.join(name.split())}, other"
    assert tags == ["p", "code", "code"]


def test_a_block_of_code_holds_fences() -> None:
    text, tags = read(code_block('{"label": "```"}\n~~~', "json"))
    assert text == '{"label": "```"}\n~~~'
    assert tags == ["pre", "code"]
