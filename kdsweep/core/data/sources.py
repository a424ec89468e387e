"""Where models and datasets come from: the Hub, a folder or file, or a file inside an installed
package (`package://`).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from kdsweep.errors import DataError, ModelError, did_you_mean

PACKAGE = "package://"
DATA_SUFFIXES = {".csv", ".tsv", ".json", ".jsonl", ".parquet"}
# What may follow them.
COMPRESSED = {".gz", ".bz2", ".xz"}


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


def nearest_file(missing: str) -> str:
    """A hint with the name of a file in the folder of the missing one; may be empty."""
    folder = Path(missing).expanduser().parent
    if not folder.is_dir():
        return ""
    return did_you_mean(Path(missing).name, [other.name for other in folder.iterdir()])


def may_be_on_hub(source: object) -> bool:
    """Whether it can only be a name on the Hub: nothing here has it, and it isn't meant as a path.

    Of a mapping of files, False.
    """
    if not isinstance(source, str) or source.startswith(PACKAGE) or looks_like_a_path(source):
        return False
    return not Path(source).expanduser().exists()


def looks_like_a_path(source: str) -> bool:
    """Whether a name that isn't on this machine was meant as a path, not as a name on the Hub.

    Names on the Hub are `owner/name` or `name`.
    """
    return (
        source.startswith(("/", "./", "../", "~"))
        or source.count("/") > 1
        or Path(source).suffix.lower() in DATA_SUFFIXES | COMPRESSED
    )
