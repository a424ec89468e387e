"""`kdsweep init`: writes a draft where no file is, once it reads back as it was meant."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import asdict
from pathlib import Path

from kdsweep.config import checked_name
from kdsweep.config.loading import Document, Plain, parse_yaml
from kdsweep.config.space_loading import build_space
from kdsweep.core.files import write_atomically
from kdsweep.core.tasks import DEFAULT_KIND
from kdsweep.drafting.columns import listed, shown
from kdsweep.drafting.draft import DataRequest, Draft, draft_space
from kdsweep.drafting.space_file import as_yaml
from kdsweep.errors import KdsweepError, SpaceError, did_you_mean
from kdsweep.shipped_files import SPACES


def init(
    request: DataRequest, destination: Path | None = None, *, name: str | None = None
) -> Draft:
    """Look at the data and write a space that `kdsweep plan` accepts; return what was guessed.

    destination: by default NAME.yaml in the current folder. Raises DataError if something can't be
    guessed, and KdsweepError if the file exists or can't be written.
    """
    checked = _name_of(request) if name is None else checked_name(name)
    file = destination or Path(f"{checked}.yaml")
    _check_free(file)
    draft = draft_space(request, file, checked)
    content = as_yaml(draft)
    _check_reads_back(draft, content)
    _write(file, content.encode())
    return draft


def copy_example(name: str, destination: Path | None = None) -> Path:
    """Copy the shipped space `name` to a file, by default NAME.yaml here; return the file.

    Raises SpaceError for an unknown name, and KdsweepError if the file exists or can't be written.
    """
    files = SPACES.files()
    if name not in files:
        near = did_you_mean(name, files) or f"; there are {', '.join(files)}"
        raise SpaceError("--example", None, f"no shipped space has the name {name!r}{near}")
    file = destination or Path(f"{name}.yaml")
    _check_free(file)
    _write(file, SPACES.copy_of(name).encode())
    return file


def _write(file: Path, content: bytes) -> None:
    try:
        write_atomically(file, lambda handle: handle.write(content))
    except OSError as error:
        raise KdsweepError(f"{file}: can't be written: {error.strerror or error}") from error


def _name_of(request: DataRequest) -> str:
    """A name for the space: the subset's, or that of the file, folder or dataset."""
    base = request.subset or Path(request.data.rstrip("/") or "data").stem
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", base).strip("-_")
    return name[:100] or "task"


def _check_free(file: Path) -> None:
    if os.path.lexists(file):
        raise KdsweepError(
            f"{file} exists already and is not overwritten; name another file "
            "(kdsweep init DATA OTHER.yaml) or remove it"
        )
    if not file.parent.is_dir():
        raise KdsweepError(f"{file}: there is no folder {str(file.parent)!r}")


def _check_reads_back(draft: Draft, content: str) -> None:
    """A name or a path that YAML would change is never written."""
    data, origins = parse_yaml(content, str(draft.file))
    assert isinstance(data, dict) and isinstance(data["task"], dict)
    # `build_space` makes paths absolute in place.
    written = dict(data["task"])
    build_space(Document(str(draft.file), data, origins))
    meant = draft.task.as_written()
    if written == meant and data["name"] == draft.name:
        return
    changed = next((key for key in meant if written.get(key) != meant[key]), "name")
    raise KdsweepError(
        f"{draft.file}: task.{changed} can't be written as YAML: "
        f"{meant.get(changed, draft.name)!r}; rename the column or file"
    )


# --- what `kdsweep init` prints ---


def as_json(draft: Draft) -> dict[str, Plain]:
    """The draft as `--json` prints it."""
    columns: list[Plain] = [
        {
            "name": column.name,
            "kind": column.kind,
            "distinct": column.distinct,
            "seen": column.describe(),
        }
        for column in draft.columns
    ]
    return {
        "file": str(draft.file),
        "name": draft.name,
        "task": draft.task.as_written(),
        "kind": draft.data.kind.name,
        "reasons": asdict(draft.reasons),
        "rows": {split: len(rows) for split, rows in draft.data.splits.items()},
        "labels": list(draft.data.label_names),
        "notes": list(draft.notes),
        "columns": columns,
        "next": next_command(draft.file),
    }


def next_command(file: Path) -> str:
    """The command to give after `init` has written the file."""
    return f"kdsweep plan {shlex.quote(str(file))}"


def as_lines(draft: Draft) -> list[str]:
    """What was guessed, why, and what to do next, for a person."""
    task = draft.task
    reasons = draft.reasons
    rows = ", ".join(f"{name} {len(split):,}" for name, split in draft.data.splits.items())
    splits = ", ".join(task.splits.values())
    lines = [
        f"{draft.file}: a search space named {draft.name} (rows: {rows})",
        f"  text    {listed([*map(shown, task.text)])}: {reasons.text}",
        f"  label   {listed([*map(shown, task.label)])}: {reasons.label}",
    ]
    if task.kind is not DEFAULT_KIND:
        lines.append(f"  kind    {task.kind.name}: {task.kind.description}")
    lines += [
        f"  splits  {splits}: {reasons.splits}" if splits else f"  splits  {reasons.splits}",
        f"  metric  {task.metric}: {reasons.metric}",
        *(f"  note    {note}" for note in draft.notes),
        "read it, fix what is wrong, then:",
        f"  {next_command(draft.file)}",
    ]
    return lines
