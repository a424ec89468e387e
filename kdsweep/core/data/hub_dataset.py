"""Rows of a dataset on the Hub, read from a snapshot of one version.

`datasets` decides which files are which split of which subset, as it does for a folder on this
machine: it is shown a folder with the version's files, and a card that has the wanted subset
alone. Files that aren't here yet are empty in that folder, so the Hub need not send all subsets.
The tables that `datasets` makes of them are kept no longer than reading takes; kdsweep keeps the
rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from kdsweep.core.hub.fetching import Progress, commit_of, files_of, snapshot_with
from kdsweep.core.hub.repository import Repository
from kdsweep.core.hub.snapshots import READING, Listing, place_for_downloads, snapshots_of
from kdsweep.core.standing import make_folder
from kdsweep.errors import LONGEST_REASON, DataError, did_you_mean, first_few

if TYPE_CHECKING:
    from datasets import DatasetDict

KEY = "task.dataset"
CARD, YAML, LEGACY = "README.md", ".huggingface.yaml", "dataset_infos.json"
# What says how a dataset's files are read.
ABOUT = (CARD, YAML, LEGACY)
# How `datasets` says that a split has other rows than its card says.
ROW_COUNTS = re.compile(
    r"'expected': SplitInfo\(name='([^']*)'.*?num_examples=(\d+).*?"
    r"'recorded': SplitInfo\(.*?num_examples=(\d+)"
)
SHARD = re.compile(r"(.*)-\d{5}-of-(\d{5})(.*)")
SHA256 = re.compile(r"[0-9a-f]{64}")
ARCHIVES = {".zip", ".tar", ".tgz", ".7z", ".rar"}
Made = TypeVar("Made")


def dataset_commit(name: str, revision: str | None) -> str:
    """The commit that a revision of a dataset means. Raises HubUnreachable and DataError."""
    return commit_of(Repository("dataset", name, revision), key=KEY)


def fetch_dataset(
    name: str, subset: str | None, revision: str | None, *, progress: Progress | None = None
) -> None:
    """Bring the files of the subset to this machine. Raises HubUnreachable and DataError."""
    _files_of_subset(Repository("dataset", name, revision), subset, progress)


def open_dataset(
    name: str, subset: str | None, revision: str | None, use: Callable[[DatasetDict], Made]
) -> Made:
    """What `use` makes of the dataset, with all its splits. Files that aren't here are fetched.

    Raises DataError for a dataset or subset that isn't there or can't be read, and HubUnreachable.
    """
    repository = Repository("dataset", name, revision)
    files = _files_of_subset(repository, subset, None)
    import datasets

    with _view(repository, files, subset) as (folder, config):
        try:
            with _quiet():
                found = datasets.load_dataset(
                    str(folder), config, cache_dir=str(folder.with_name("tables"))
                )
            return use(found)
        except DataError:
            raise
        except Exception as error:
            raise DataError(_why_unreadable(repository, files, error)) from error


# --- which files ---------------------------------------------------------------------------------


def _files_of_subset(
    repository: Repository, subset: str | None, progress: Progress | None
) -> dict[str, Path]:
    """name in the repository -> file on this machine, for all files of the subset."""
    commit = commit_of(repository, key=KEY)
    try:
        listing = files_of(repository, commit, key=KEY)
    except DataError:
        # A version that the Hub has no more may be here whole.
        found = _files_as_they_are(repository, commit)
        if found is None or not _has_all_shards(found, _data_files(repository, found, subset)):
            raise
        return found
    about = [name for name in ABOUT if name in listing]
    _check_no_script(repository, listing)
    files: dict[str, Path | None] = dict.fromkeys(listing)

    def bring(names: list[str]) -> None:
        folder = snapshot_with(repository, commit, names, key=KEY, progress=progress)
        files.update({name: folder / name for name in names})

    if about:
        bring(about)
    try:
        wanted = _data_files(repository, files, subset)
    except _NeedsArchives:
        bring([name for name in listing if PurePosixPath(name).suffix in ARCHIVES])
        wanted = _data_files(repository, files, subset)
    bring([*about, *wanted])
    return {name: file for name, file in files.items() if file is not None}


def _files_as_they_are(repository: Repository, commit: str) -> dict[str, Path] | None:
    """All files of a snapshot, where nobody can tell what it consists of."""
    for folder in snapshots_of(repository, commit):
        found = sorted(file for file in folder.rglob("*") if file.is_file())
        if any(file.name not in ABOUT for file in found):
            return {file.relative_to(folder).as_posix(): file for file in found}
    return None


def _has_all_shards(files: Mapping[str, Path], wanted: list[str]) -> bool:
    """Whether no file is missing that the names of others tell of: `train-00000-of-00002`."""
    for shard in filter(None, map(SHARD.fullmatch, wanted)):
        before, count, after = shard.groups()
        names = (f"{before}-{number:05}-of-{count}{after}" for number in range(int(count)))
        if any(name not in files for name in names):
            return False
    return True


class _NeedsArchives(Exception):
    """What the files are is known only from the content of archives."""


def _data_files(
    repository: Repository, files: Mapping[str, Path | None], subset: str | None
) -> list[str]:
    """The names of the files that the subset's rows are read from. None of them is opened."""
    import datasets

    with _view(repository, files, subset) as (folder, config):
        try:
            with _quiet():
                builder = datasets.load_dataset_builder(
                    str(folder), config, cache_dir=str(folder.with_name("tables"))
                )
        except DataError:
            raise
        except Exception as error:
            archives = [name for name in files if PurePosixPath(name).suffix in ARCHIVES]
            if any(files[name] is None for name in archives):
                raise _NeedsArchives from error
            raise DataError(
                f"{KEY}: {repository.name} holds no files that can be read as rows (csv, json, "
                f"parquet, text): {_short(error)}"
            ) from error
        found = builder.config.data_files or {}
        every = dict.fromkeys(path for paths in found.values() for path in paths)
        return [_name_in(repository, folder, path) for path in every]


def _name_in(repository: Repository, folder: Path, path: str) -> str:
    """The name in the repository of a file in the folder that `datasets` was shown."""
    for root in (folder, folder.resolve()):
        if Path(path).is_relative_to(root):
            return Path(path).relative_to(root).as_posix()
    raise DataError(
        f"{KEY}: the card of {repository.name} names {path}, which is no file of the repository; "
        "download it and name the folder"
    )


def _check_no_script(repository: Repository, listing: Listing) -> None:
    script = f"{repository.name.rpartition('/')[2]}.py"
    if script in listing:
        others = [name for name in listing if PurePosixPath(name).suffix in (".parquet", ".csv")]
        if not others:
            raise DataError(
                f"{KEY}: {repository.name} is a script ({script}), which is never run; name the "
                "revision that holds its rows as files (often task.revision: "
                "refs/convert/parquet), or download them and name the folder"
            )


# --- the folder that `datasets` is shown ---------------------------------------------------------


@contextlib.contextmanager
def _view(
    repository: Repository, files: Mapping[str, Path | None], subset: str | None
) -> Iterator[tuple[Path, str | None]]:
    """A folder with these files, empty where they aren't here, and the name of its subset."""
    place = place_for_downloads()
    make_folder(place)
    with tempfile.TemporaryDirectory(prefix=READING, dir=place) as made:
        folder = Path(made) / repository.name.rpartition("/")[2]
        folder.mkdir()
        for name, file in files.items():
            if name in ABOUT:
                continue
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if file is None:
                target.touch()
            else:
                target.symlink_to(file.absolute())
        yield folder, _write_card(repository, files, subset, folder)


def _write_card(
    repository: Repository, files: Mapping[str, Path | None], subset: str | None, folder: Path
) -> str | None:
    """Write the card with the wanted subset alone; returns what that is called."""
    import yaml

    about = _card_of(repository, files)
    config = _checked_subset(repository, about, subset)
    if about.configs:
        about.configs = [one for one in about.configs if str(one["config_name"]) == config]
    about.infos = [
        one for one in about.infos if one.get("config_name", "default") in (config, "default")
    ]
    kept = {"configs": about.configs, "dataset_info": about.infos}
    kept = {key: value for key, value in kept.items() if value}
    if kept:
        text = f"---\n{yaml.safe_dump(kept, allow_unicode=True)}---\n"
        (folder / CARD).write_text(text, encoding="utf-8")
    legacy = files.get(LEGACY)
    if legacy is not None and not about.infos:
        (folder / LEGACY).symlink_to(legacy.absolute())
    return config


@dataclass
class _Card:
    """What a card says about subsets (`configs`) and their columns (`dataset_info`)."""

    configs: list[dict[str, Any]]
    infos: list[dict[str, Any]]


def _card_of(repository: Repository, files: Mapping[str, Path | None]) -> _Card:
    import yaml
    from huggingface_hub import DatasetCard

    about: dict[str, Any] = {}
    try:
        if (card := files.get(CARD)) is not None:
            about |= DatasetCard.load(card, ignore_metadata_errors=True).data.to_dict()
        if (own := files.get(YAML)) is not None:
            about |= yaml.safe_load(own.read_text(encoding="utf-8")) or {}
    except (ValueError, TypeError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(
            f"{KEY}: the card of {repository.name} can't be read: {_short(error)}"
        ) from error
    infos = about.get("dataset_info") or []
    configs = about.get("configs") or []
    return _Card(
        [one for one in configs if isinstance(one, dict) and "config_name" in one],
        [infos] if isinstance(infos, dict) else list(infos),
    )


def _checked_subset(repository: Repository, about: _Card, subset: str | None) -> str | None:
    """The name of the wanted subset. Raises DataError with those there are."""
    names = [str(one["config_name"]) for one in about.configs]
    if not names:
        known = {str(one.get("config_name", "default")) for one in about.infos} | {"default"}
        if subset is not None and subset not in known:
            raise DataError(
                f"task.subset: {repository.name} has no subsets, so none is called {subset!r}; "
                "leave task.subset out"
            )
        return subset
    if subset is None:
        default = [str(one["config_name"]) for one in about.configs if one.get("default")]
        default += [name for name in names if name == "default"]
        if not default and len(names) > 1:
            raise DataError(
                f"{KEY}: {repository.name} has several subsets; name one in task.subset: "
                f"{first_few(names, 20)}"
            )
        return (default or names)[0]
    if subset not in names:
        raise DataError(
            f"task.subset: {repository.name} has no subset {subset!r}"
            f"{did_you_mean(subset, names)}; it has {first_few(names, 20)}"
        )
    return subset


# --- what can't be read --------------------------------------------------------------------------


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars and log lines of `datasets`."""
    import datasets
    from datasets.utils import logging

    level, bars = logging.get_verbosity(), datasets.are_progress_bars_disabled()
    logging.set_verbosity(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()


def _why_unreadable(repository: Repository, files: Mapping[str, Path], error: Exception) -> str:
    """What is wrong with a dataset that `datasets` can't read, and what to do."""
    from datasets.exceptions import DatasetGenerationError
    from datasets.utils.info_utils import NonMatchingSplitsSizesError

    name = repository.name
    if isinstance(error, NonMatchingSplitsSizesError):
        rows = ""
        if (found := ROW_COUNTS.search(str(error))) is not None:
            split, said, there = found[1], int(found[2]), int(found[3])
            rows = f" ({split}: {said:,} rows, and there are {there:,})"
        return (
            f"{KEY}: the card of {name} says other numbers of rows than its files have{rows}; name "
            "a revision where both agree (task.revision), or download the files and name the folder"
        )
    for file in files.values():
        if (damage := _damage(repository, file)) is not None:
            return f"{KEY}: {name}: {damage}"
    cause = error
    while isinstance(cause, DatasetGenerationError) and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__
    return f"{KEY}: {name} can't be read: {_short(cause)}"


def _damage(repository: Repository, file: Path) -> str | None:
    """What is wrong with a file in a cache; None if nothing is seen."""
    import pyarrow
    import pyarrow.parquet

    remedy = "remove it and run the same command again"
    # huggingface_hub names a large file by the hash of its content.
    blob = file.resolve()
    if SHA256.fullmatch(blob.name):
        with blob.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != blob.name:
                return f"the cached file {file} is damaged; {remedy}"
    if file.suffix == ".parquet":
        try:
            pyarrow.parquet.ParquetFile(file).read()
        except (pyarrow.ArrowException, OSError) as error:
            return f"the cached file {file} can't be read as parquet ({_short(error)}); {remedy}"
    return None


def _short(error: BaseException) -> str:
    # The folder that `datasets` is shown has the repository's name.
    text = re.sub(rf"/\S*/{re.escape(READING)}[^/\s]+/", "", str(error))
    return " ".join(text.split())[:LONGEST_REASON] or type(error).__name__
