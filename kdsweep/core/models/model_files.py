"""What a model is, by content: a hash of each of its files, or the commit of one on the Hub."""

from __future__ import annotations

import functools
from pathlib import Path

from kdsweep.core.data.sources import local_path
from kdsweep.core.files import file_fingerprint, fingerprint
from kdsweep.core.hub.repository import is_commit, model_named
from kdsweep.core.models.borrowed_code import borrowed_code
from kdsweep.core.models.model_snapshot import READ, READ_BY_FEW, model_folder
from kdsweep.errors import ModelError

COMMIT = "commit"


def model_files(source: str, *, trust_remote_code: bool = False) -> dict[str, str]:
    """The content hash of each file that a model is read from, by its path in the model's folder.

    With `trust_remote_code` its Python files too, and those that it takes from elsewhere. A model
    on the Hub has its commit instead; none where that isn't known. Raises ModelError for what is no
    folder.
    """
    path = local_path(source, ModelError)
    found: dict[str, str] = {}
    if path is None:
        repository = model_named(source)
        if not is_commit(repository.revision):
            # A sweep of an earlier version, which kept no commits.
            return {}
        found[COMMIT] = str(repository.revision)
    files, commits = _files_and_commits(path, source, trust_remote_code)
    for name, file in files.items():
        stat = file.stat()
        found[name] = _unchanged_file_fingerprint(file, stat.st_mtime_ns, stat.st_size)
    return found | commits


def model_stamps(source: str, *, trust_remote_code: bool = False) -> str | None:
    """A hash of names, times and sizes of these files, without reading them; None on the Hub."""
    path = local_path(source, ModelError)
    if path is None:
        return None
    files, commits = _files_and_commits(path, source, trust_remote_code)
    stats = [(name, file.stat()) for name, file in files.items()]
    parts = [(name, one.st_mtime_ns, one.st_ctime_ns, one.st_size) for name, one in stats]
    return fingerprint([*parts, *sorted(commits.items())])


def _files_and_commits(
    path: Path | None, source: str, trust_remote_code: bool
) -> tuple[dict[str, Path], dict[str, str]]:
    """The files of the model's folder by their path in it, none on the Hub; with
    `trust_remote_code` the code from elsewhere too, and the commits of its repositories."""
    files = {} if path is None else _own_files(path, source, trust_remote_code)
    if not trust_remote_code:
        return files, {}
    folder = path or model_folder(source, weights=False, trust_remote_code=True)
    borrowed, commits = borrowed_code(source, folder)
    return files | borrowed, commits


def _own_files(path: Path, source: str, trust_remote_code: bool) -> dict[str, Path]:
    if not path.is_dir():
        raise ModelError(f"model: {source} is not a model folder")
    top = [file for file in path.iterdir() if file.suffix in READ | READ_BY_FEW]
    code = path.rglob("*.py") if trust_remote_code else []
    files = sorted({*top, *code})
    return {file.relative_to(path).as_posix(): file for file in files}


@functools.lru_cache(maxsize=256)
def _unchanged_file_fingerprint(file: Path, modified: int, size: int) -> str:
    """A hash of the file's content. A process reads a file again only after it changed, because
    weights are hundreds of megabytes.
    """
    return file_fingerprint(file)
