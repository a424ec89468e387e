"""Where models and datasets come from: the Hub, a folder or file, or a file inside an installed package (`package://`)."""

from __future__ import annotations

import functools
import importlib.util
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path

from kdsweep.errors import DataError, HubUnreachable, ModelError

PACKAGE = "package://"
HUB_TIMEOUT_SECONDS = 6.0


def package_file(source: str, error: type[DataError] | type[ModelError]) -> Path:
    """`package://NAME/path` as a path on this machine. The package is found, not imported: no code of it runs."""
    name, _, inside = source.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise error(
            f"{source}: no Python package {name!r} is installed here; install it (the shipped spaces need: pip install 'kdsweep[embedded]')"
        )
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    path = (root / inside).resolve()
    if not path.is_relative_to(root):
        raise error(f"{source}: the path leads out of the package")
    if not path.exists():
        raise error(f"{source}: the package {name!r} has no {inside!r}")
    return path


def local_path(source: str, error: type[DataError] | type[ModelError]) -> Path | None:
    """The file or folder on this machine that `source` names, or None where it is the name of something on the Hub."""
    if source.startswith(PACKAGE):
        return package_file(source, error)
    path = Path(source).expanduser()
    return path if path.exists() else None


def looks_like_a_path(source: str) -> bool:
    """Whether a name that isn't on this machine was meant as a path, not as a Hub name (`owner/name` or `name`)."""
    return (
        source.startswith(("/", "./", "../", "~"))
        or source.count("/") > 1
        or Path(source).suffix in DATA_SUFFIXES
    )


DATA_SUFFIXES = {".csv", ".tsv", ".json", ".jsonl", ".parquet"}


@functools.cache
def hub_answers() -> bool:
    """Whether the Hub can be reached from here, found out once, in seconds, and without a retry."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}:
        return False
    answered = threading.Event()

    def ask() -> None:
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        try:
            urllib.request.urlopen(
                urllib.request.Request(endpoint, method="HEAD"), timeout=HUB_TIMEOUT_SECONDS
            ).close()
        except urllib.error.HTTPError:
            pass  # an answer, if not a nice one
        except (OSError, ValueError):
            return
        answered.set()

    # A name server that doesn't answer can hold the look-up longer than any timeout of the socket's, hence the thread.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT_SECONDS)
    return answered.is_set()


def unreachable(what: str, name: str) -> HubUnreachable:
    return HubUnreachable(
        f"{what} {name!r} is not in the local Hub cache and the Hub can't be reached from here; "
        "connect once, name a local folder or file, or run with --embedded (data and models that come as packages)"
    )
