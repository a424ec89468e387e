"""Relative paths in a space are relative to the folder of the space's file.

A text that names nothing there stays as it is: it may be a dataset or a model on the Hub.
"""

from __future__ import annotations

from pathlib import Path

from kdsweep.config.loading import Document, Plain
from kdsweep.config.values import VALUE_KEYS

LONGEST_PATH = 4096


def anchor_paths(document: Document) -> None:
    """Make each dataset and model that is a relative path absolute, in place."""
    folder = Path(document.file).parent
    task = document.data.get("task")
    _anchor_key(task, "dataset", folder)
    _anchor_section(task, "unlabelled", "dataset", folder)
    _anchor_key(document.data.get("student"), "model", folder)
    _anchor_teachers(document.data.get("teacher"), folder)
    strategies = document.data.get("strategies")
    for strategy in strategies.values() if isinstance(strategies, dict) else ():
        if isinstance(strategy, dict):
            _anchor_teachers(strategy.get("teacher"), folder)
            _anchor_section(strategy.get("augment"), "masked_lm", "model", folder)


def _anchor_teachers(teachers: Plain, folder: Path) -> None:
    for teacher in teachers if isinstance(teachers, list) else [teachers]:
        _anchor_key(teacher, "model", folder)
        _anchor_key(teacher, "checkpoint", folder)


def _anchor_section(section: Plain, key: str, inner_key: str, folder: Path) -> None:
    """Anchor `inner_key` of the section at `key`, or `key` itself if it is the short form."""
    if not isinstance(section, dict):
        return
    inner = section.get(key)
    if isinstance(inner, dict) and not VALUE_KEYS & inner.keys():
        _anchor_key(inner, inner_key, folder)
    else:
        _anchor_key(section, key, folder)


def _anchor_key(section: Plain, key: str, folder: Path) -> None:
    if isinstance(section, dict) and key in section:
        section[key] = _anchored(section[key], folder)


def _anchored(value: Plain, folder: Path) -> Plain:
    if isinstance(value, dict):
        return {key: _anchored(inner, folder) for key, inner in value.items()}
    if isinstance(value, list):
        return [_anchored(inner, folder) for inner in value]
    if not isinstance(value, str) or not _may_be_relative(value):
        return value
    try:
        path = folder / value
        return str(path.resolve()) if path.exists() else value
    except OSError:
        return value


def _may_be_relative(text: str) -> bool:
    # `model: teacher` means the fine-tuned teacher, even if there is a folder of that name.
    is_path = text not in ("", "teacher") and not text.startswith(("package://", "/"))
    return is_path and "\0" not in text and len(text) < LONGEST_PATH
