"""The folder of a model: one on this machine, or a snapshot of the Hub with the files it is read
from. Pickled weights are never among them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from kdsweep.core.data.sources import local_path, looks_like_a_path
from kdsweep.core.hub.fetching import Progress, commit_of, files_of, snapshot_with, where_all_see_it
from kdsweep.core.hub.repository import Repository, model_named
from kdsweep.core.hub.snapshots import Listing, snapshots_of
from kdsweep.errors import HubUnreachable, ModelError

KEY = "model"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack"}
# Weights, configs and vocabularies. Others, such as pickled weights, are never read.
READ = {".json", ".safetensors", ".txt", ".model"}
# Vocabularies of less common tokenizers.
READ_BY_FEW = {".bpe", ".codes", ".vocab", ".spm", ".tiktoken", ".dict"}


def model_folder(
    source: str,
    *,
    weights: bool,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Path:
    """A folder that the model can be loaded from; what the Hub alone has is fetched first.

    weights: whether they are needed too. Raises ModelError for what isn't there or can't be read,
    and HubUnreachable.
    """
    if (path := local_path(source, ModelError)) is not None:
        return path
    if looks_like_a_path(source):
        raise ModelError(f"model: there is no folder {source!r}; check the path")
    repository = model_named(source)
    commit = commit_of(repository, key=KEY)
    try:
        listing = files_of(repository, commit, key=KEY)
    except (HubUnreachable, ModelError):
        # A version that the Hub has no more may be here whole.
        if (found := _complete_as_it_is(repository, commit, weights=weights)) is None:
            raise
        return found
    small, heavy = _check_listing(repository, listing)
    wanted = [*small, *(_code(listing) if trust_remote_code else [])]
    folder = snapshot_with(repository, commit, wanted, key=KEY, progress=progress)
    if not weights:
        return folder
    parts = _shards(folder) if heavy == INDEX else [heavy]
    return snapshot_with(repository, commit, [*wanted, *parts], key=KEY, progress=progress)


def weights_are_here(source: str) -> bool:
    """Whether the model can be loaded without a download."""
    if local_path(source, ModelError) is not None:
        return True
    repository = model_named(source)
    commit = commit_of(repository, key=KEY)
    return any(_has_weights(folder) for folder in snapshots_of(repository, commit))


def _check_listing(repository: Repository, listing: Listing) -> tuple[list[str], str]:
    """The small files to read, and the weights or their index.

    Raises ModelError for a repository that holds no model, or one in pickles alone.
    """
    top = [name for name in listing if "/" not in name]
    if "config.json" not in top:
        raise ModelError(
            f"model: {repository.name} on the Hub is no model of transformers: it has no "
            "config.json"
        )
    small = [
        name
        for name in top
        if PurePosixPath(name).suffix in READ | READ_BY_FEW - {".safetensors"}
        and PurePosixPath(name).suffix != ".safetensors"
    ]
    for heavy in (WEIGHTS, INDEX):
        if heavy in top:
            return small, heavy
    pickled = sorted(name for name in top if PurePosixPath(name).suffix in PICKLED)
    if pickled:
        raise ModelError(
            f"model: {repository.name} has its weights in {pickled[0]} alone, and a pickle from a "
            "download is never loaded; use a model with model.safetensors, or convert this one on "
            "a machine that you trust with it (load it there and call save_pretrained) and name "
            "the folder"
        )
    raise ModelError(
        f"model: {repository.name} on the Hub has no weights: neither {WEIGHTS} nor {INDEX}"
    )


def _code(listing: Listing) -> list[str]:
    return [name for name in listing if name.endswith(".py")]


def _shards(folder: Path) -> Sequence[str]:
    try:
        found = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        return sorted(set(found.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"model: {folder / INDEX} is damaged; remove it and run the same command again"
        ) from error


def _complete_as_it_is(repository: Repository, commit: str, *, weights: bool) -> Path | None:
    """A snapshot that looks complete, where nobody can tell what it consists of."""
    for folder in snapshots_of(repository, commit):
        if not (folder / "config.json").is_file():
            continue
        if not weights or _has_weights(folder):
            return where_all_see_it(folder, [one.name for one in folder.iterdir()])
    return None


def _has_weights(folder: Path) -> bool:
    if (folder / WEIGHTS).is_file():
        return True
    return (folder / INDEX).is_file() and all((folder / name).is_file() for name in _shards(folder))
