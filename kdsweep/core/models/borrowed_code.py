"""Code that a model takes from another repository or folder.

`auto_map` in a model's config may say `OTHER--module.Class`, where OTHER is a repository on the Hub
or a folder. Such code is no file of the model's own folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from kdsweep.core.hub.fetching import commit_of, files_of, snapshot_with
from kdsweep.core.hub.repository import Repository, model_named
from kdsweep.core.hub.snapshots import remember_commit, snapshots_of
from kdsweep.errors import HubUnreachable, ModelError

CONFIGS = ("config.json", "tokenizer_config.json")


def borrowed_code(source: str, folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The Python files of other folders, and the commit of each other repository; by a name that
    ends with `.py`.

    folder: the model's. Raises ModelError for a repository that isn't there: what can't be pinned
    doesn't run.
    """
    files: dict[str, Path] = {}
    commits: dict[str, str] = {}
    for other, module in _references(folder):
        if _is_own(source, other) or other == str(folder):
            continue
        # transformers too reads a folder of that name first.
        if Path(other).is_dir():
            for file in sorted(Path(other).rglob("*.py")):
                files[f"{other}--{file.relative_to(other).as_posix()}"] = file
        elif (name := f"{other}--{module}.py") not in commits:
            commits[name] = _snapshot(source, other, f"{module}.py").name
    return files, commits


def fetch_borrowed_code(
    source: str, folder: Path, kept: Mapping[Repository, str]
) -> dict[Repository, str]:
    """Bring the code that the model in this folder takes from repositories of the Hub, its own too,
    to this machine. Returns the commits of the other ones, which are those in `kept` if it has
    them."""
    commits: dict[Repository, str] = {}
    for other, module in _references(folder):
        if Path(other).is_dir():
            continue
        repository = _repository(source, other)
        snapshot = _snapshot(source, other, f"{module}.py", kept.get(repository))
        if not _is_own(source, other):
            commits[repository] = snapshot.name
            remember_commit(repository, snapshot.name)
    return commits


def where_code_is(source: str, folder: Path) -> dict[str, str]:
    """What `from_pretrained` must be told to find the code of another repository here.

    Nothing for a model that takes none, or code of several: these are looked for in the user's own
    cache.
    """
    modules = {
        other: f"{module}.py" for other, module in _references(folder) if not Path(other).is_dir()
    }
    if len(modules) != 1:
        return {}
    ((other, file),) = modules.items()
    snapshot = _snapshot(source, other, file)
    # CACHE/models--OWNER--NAME/snapshots/COMMIT
    return {"cache_dir": str(snapshot.parents[2]), "code_revision": snapshot.name}


def _is_own(source: str, other: str) -> bool:
    """Whether the repository is the model's own: its code then is of the model's version."""
    return model_named(source).name == other


def _references(folder: Path) -> Iterator[tuple[str, str]]:
    """(repository or folder, module) of each class in `auto_map`."""
    for name in CONFIGS:
        file = folder / name
        if not file.is_file():
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


def _repository(source: str, other: str) -> Repository:
    return model_named(source) if _is_own(source, other) else Repository("model", other)


def _snapshot(source: str, other: str, file: str, commit: str | None = None) -> Path:
    """The folder of the repository's version, with its code. commit: None means the one that its
    revision has now."""
    repository = _repository(source, other)
    reason = f"it has no {file}"
    try:
        commit = commit or commit_of(repository, key="model")
        try:
            listing = files_of(repository, commit, key="model")
            code = sorted(name for name in listing if name.endswith(".py"))
            if file in code:
                return snapshot_with(repository, commit, code, key="model")
        except HubUnreachable as error:
            reason = str(error)
        for folder in snapshots_of(repository, commit):
            if (folder / file).is_file():
                return folder
    except (HubUnreachable, ModelError) as error:
        raise ModelError(_not_there(source, other, f" ({error})")) from error
    raise ModelError(_not_there(source, other, f" ({reason})"))


def _not_there(source: str, other: str, why: str) -> str:
    return (
        f"model: {source} takes its code from {other}, which isn't there{why}; put the code into "
        "the model's own folder, and its own module into auto_map"
    )
