"""A model or a dataset on the Hub, and the version of it that is meant.

Settings have a version beside the name (`revision`). Where one text has to hold both, it is
`NAME@REVISION`: no name on the Hub has an `@`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

COMMIT = re.compile(r"[0-9a-f]{40}")
MAIN = "main"
SHORT = 7


@dataclass(frozen=True, order=True)
class Repository:
    """revision: a branch, a tag or a commit; None means `main`."""

    kind: Literal["model", "dataset"]
    name: str
    revision: str | None = None

    @property
    def words(self) -> str:
        """For use in a line: `the model 'x'`, `the model 'x' at v2`."""
        revision = self.revision
        at = "" if revision is None else f" at {short(revision)}"
        return f"the {self.kind} {self.name!r}{at}"

    @property
    def page(self) -> str:
        """Its page's path on the Hub's site."""
        return self.name if self.kind == "model" else f"datasets/{self.name}"

    @property
    def folder(self) -> str:
        """The name of its folder in a cache, as huggingface_hub has it."""
        return f"{self.kind}s--{self.name.replace('/', '--')}"

    def at(self, commit: str) -> Repository:
        return Repository(self.kind, self.name, commit)


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a commit written out, which never means anything else later."""
    return revision is not None and COMMIT.fullmatch(revision) is not None


def short(revision: str) -> str:
    """A commit as people write it; any other revision as it is."""
    return revision[:SHORT] if is_commit(revision) else revision


def at_revision(name: str, revision: str | None) -> str:
    """A source that names the version too: `NAME@REVISION`."""
    return name if revision is None else f"{name}@{revision}"


def model_named(source: str) -> Repository:
    """The model that a source means that is no path."""
    name, _, revision = source.partition("@")
    return Repository("model", name, revision or None)


def shown(source: str) -> str:
    """A source for a line, its commit cut short."""
    name, at, revision = source.rpartition("@")
    return f"{name}@{short(revision)}" if at and is_commit(revision) else source
