"""Where models and datasets come from: the Hub, a folder or file, or a file inside an installed
package (`package://`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from kdsweep.errors import DataError, HubUnreachable, ModelError, first_line

PACKAGE = "package://"
DATA_SUFFIXES = {".csv", ".tsv", ".json", ".jsonl", ".parquet"}
# What may follow them.
COMPRESSED = {".gz", ".bz2", ".xz"}
HUB_TIMEOUT_SECONDS = 6.0


def package_file(source: str, error: type[DataError] | type[ModelError]) -> Path:
    """`package://NAME/path` as a path on this machine. Raises `error` if it isn't there.

    The package is found but not imported: none of its code runs.
    """
    name, _, inside = source.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise error(
            f"{source}: no Python package {name!r} is installed here; install it "
            "(the shipped spaces need: pip install 'kdsweep[embedded]')"
        )
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    path = (root / inside).resolve()
    if not path.is_relative_to(root):
        raise error(f"{source}: the path leads out of the package")
    if not path.exists():
        raise error(f"{source}: the package {name!r} has no {inside!r}")
    return path


def local_path(source: str, error: type[DataError] | type[ModelError]) -> Path | None:
    """The file or folder that `source` names, or None if nothing on this machine has that name.

    Raises `error` for a `package://` source that isn't installed.
    """
    if source.startswith(PACKAGE):
        return package_file(source, error)
    path = Path(source).expanduser()
    return path if path.exists() else None


def looks_like_a_path(source: str) -> bool:
    """Whether a name that isn't on this machine was meant as a path, not as a name on the Hub.

    Names on the Hub are `owner/name` or `name`.
    """
    return (
        source.startswith(("/", "./", "../", "~"))
        or source.count("/") > 1
        or Path(source).suffix.lower() in DATA_SUFFIXES | COMPRESSED
    )


@functools.cache
def hub_is_reachable() -> bool:
    """Whether the Hub answers; asked once, without a retry, for at most HUB_TIMEOUT_SECONDS."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}:
        return False
    answered = threading.Event()

    def ask() -> None:
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        try:
            request = urllib.request.Request(endpoint, method="HEAD")
            urllib.request.urlopen(request, timeout=HUB_TIMEOUT_SECONDS).close()
        except urllib.error.HTTPError:
            # An error status is an answer too.
            pass
        except (OSError, ValueError):
            return
        answered.set()

    # A name server that doesn't answer can block for longer than a socket's timeout, so a thread
    # asks.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT_SECONDS)
    return answered.is_set()


@contextlib.contextmanager
def reading_hub(what: str, name: str, missing: str) -> Iterator[None]:
    """Let `datasets` read from the Hub inside, or from its local cache if the Hub is away.

    what: what is read, for the message of HubUnreachable. missing: the start of the DataError's
    message where the Hub answers but has no such dataset.
    """
    online = hub_is_reachable()
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    previous = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = previous or not online
    try:
        yield
    except (
        ConnectionError,
        datasets.exceptions.DatasetNotFoundError,
        FileNotFoundError,
        HfHubHTTPError,
    ) as error:
        if not online:
            raise hub_unreachable(what, name) from error
        raise DataError(f"{missing}: {first_line(error)}") from error
    finally:
        datasets.config.HF_HUB_OFFLINE = previous


def hub_unreachable(what: str, name: str) -> HubUnreachable:
    """The error for something that only the Hub has while the Hub doesn't answer."""
    return HubUnreachable(
        f"{what} {name!r} is not in the local Hub cache and the Hub can't be reached from here; "
        "connect once, name a local folder or file, or run with --embedded "
        "(data and models that come as packages)"
    )
