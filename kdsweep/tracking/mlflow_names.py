"""Names and values as MLflow accepts them.

MLflow refuses a whole run's parameters because of one name with a `?`. Such names come from users:
a column in `task.where`, a class in `task.labels`, a metric of an installed package.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable

NOTE = "mlflow.note.content"  # the tag that the UI shows as a description, as Markdown
KEY_LENGTH = 250
PARAM_LENGTH = 6000
TAG_LENGTH = 5000
# The tag kdsweep.name.HASH holds the name that a user gave; MLflow's name ends with the same hash.
ORIGINAL = "kdsweep.name."

_ACCEPTED = re.compile(r"[\w.\-/ :]*")
_REFUSED_CHARACTER = re.compile(r"[^\w.\-/ :]")
_CHANGED = re.compile(r".*--[0-9a-f]{10}", re.DOTALL)


def accepted_name(name: str) -> str:
    """The name itself where MLflow accepts it, else one with `--` and a hash at its end.

    A name that has such an end already gets another one, so that two names never become one.
    """
    if _is_accepted(name) and not _CHANGED.fullmatch(name):
        return name
    end = f"--{_hash(name)}"
    start = _REFUSED_CHARACTER.sub("_", name)
    if not _is_path(start):
        start = start.replace("/", "_").replace("..", "__")
    return start[: KEY_LENGTH - len(end)] + end


def original_names(names: Iterable[str]) -> dict[str, str]:
    """A tag for each name that is another one in MLflow: `kdsweep.name.HASH` is what it was."""
    return {ORIGINAL + _hash(name): name for name in names if accepted_name(name) != name}


def accepted_value(value: object, most: int) -> str:
    """The value as text of at most `most` characters; one that was cut says so.

    NUL and halves of characters become `?`: databases refuse them.
    """
    text = str(value).replace("\0", "?").encode(errors="replace").decode()
    if len(text) <= most:
        return text
    cut = f"... ({len(text):,} characters)"
    return text[: most - len(cut)] + cut


def _is_accepted(name: str) -> bool:
    """MLflow's own rule: some characters, and a path that means itself."""
    return len(name) <= KEY_LENGTH and _ACCEPTED.fullmatch(name) is not None and _is_path(name)


def _is_path(name: str) -> bool:
    """Whether it stays what it is when it is read as a path below a folder."""
    return posixpath.normpath(name) == name and name != "." and not name.startswith(("..", "/"))


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:10]
