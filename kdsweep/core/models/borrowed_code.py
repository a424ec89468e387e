"""Code that a model takes from another repository or folder.

`auto_map` in a model's config may say `OTHER--module.Class`, where OTHER is a repository on the Hub
or a folder. Such code is no file of the model's own folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from kdsweep.errors import ModelError

CONFIGS = ("config.json", "tokenizer_config.json")


def borrowed_code(source: str, path: Path | None) -> tuple[dict[str, Path], dict[str, str]]:
    """The Python files of other folders, and the commit of each other repository; by a name that
    ends with `.py`.

    path: the model's folder; None if it is on the Hub. Raises ModelError for a repository that
    isn't there: what can't be pinned doesn't run.
    """
    files: dict[str, Path] = {}
    commits: dict[str, str] = {}
    for other, module in _references(source, path):
        if other in (source, str(path)):
            continue
        # transformers too reads a folder of that name first.
        if Path(other).is_dir():
            for file in sorted(Path(other).rglob("*.py")):
                files[f"{other}--{file.relative_to(other).as_posix()}"] = file
        elif (name := f"{other}--{module}.py") not in commits:
            commits[name] = _commit(source, other, f"{module}.py")
    return files, commits


def _references(source: str, path: Path | None) -> Iterator[tuple[str, str]]:
    """(repository or folder, module) of each class in `auto_map`."""
    for name in CONFIGS:
        file = _cached(source, name) if path is None else path / name
        if file is None or not file.is_file():
            continue
        try:
            auto_map = json.loads(file.read_text(encoding="utf-8"))["auto_map"]
        except (ValueError, KeyError, TypeError):
            # What can't be read is reported where the model is loaded.
            continue
        if not isinstance(auto_map, dict):
            continue
        for value in auto_map.values():
            # A tokenizer has two classes, of which one may be missing.
            for reference in value if isinstance(value, list) else [value]:
                if isinstance(reference, str) and "--" in reference:
                    other, _, name_in_it = reference.partition("--")
                    yield other, name_in_it.rpartition(".")[0]


def _commit(source: str, repository: str, file: str) -> str:
    found = _cached(repository, file) or _downloaded(source, repository, file)
    # HUB_CACHE/models--OWNER--NAME/snapshots/COMMIT/module.py
    folders = found.parts
    return folders[folders.index("snapshots") + 1]


def _cached(repository: str, file: str) -> Path | None:
    try:
        found = try_to_load_from_cache(repository, file)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _downloaded(source: str, repository: str, file: str) -> Path:
    from kdsweep.core.models.loading import loading_from

    try:
        with loading_from(repository) as where:
            from transformers.utils.hub import cached_file

            found = cached_file(repository, file, local_files_only=where["local_files_only"])
    except Exception as error:
        raise ModelError(
            f"model: {source} takes its code from {repository}, which isn't there; put the code "
            "into the model's own folder, and its own module into auto_map"
        ) from error
    return Path(str(found))
