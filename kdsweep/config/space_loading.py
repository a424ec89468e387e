"""From a file to a checked search space."""

from __future__ import annotations

import copy
from pathlib import Path

from kdsweep.config.broken_rules import validate
from kdsweep.config.loading import Document, Override, read_document, split_assignment, split_path
from kdsweep.config.older_spaces import name_first_rules
from kdsweep.config.relative_paths import anchor_paths
from kdsweep.config.space import SearchSpace
from kdsweep.config.space_checks import check_space
from kdsweep.config.sweep import check_is_space
from kdsweep.config.teacher_values import Teachers, TeacherValues
from kdsweep.errors import SpaceError, did_you_mean

# What `embedded` may replace, whole or a part of it.
STAND_INS = ("task", "teacher", "student", "training", "strategies")


def read_space(path: Path | str) -> Document:
    """A space's file as data, its `embedded` section with it. Raises SpaceError."""
    document = read_document(path)
    check_is_space(document)
    return document


def space_document(file: Document, *, embedded: bool = False) -> Document:
    """The file's sections; with `embedded`, its `embedded` sections replace the others."""
    document = copy.deepcopy(file)
    stand_ins = document.take_out("embedded")
    if not embedded:
        return document
    if stand_ins is None:
        raise document.error(
            (),
            "has no 'embedded' section, so it can't run with --embedded; add one "
            "(task, teacher, student that come as packages)",
        )
    for key, value in stand_ins.data.items():
        keys = split_path(key)
        if keys[0] not in STAND_INS:
            hint = did_you_mean(key, STAND_INS) or f"; known here: {', '.join(STAND_INS)}"
            raise stand_ins.error((key,), f"embedded: unknown key {key!r}{hint}")
        document.replace(Override(keys, value, stand_ins.origins_under(key)))
    return document


def check_other_sections(file: Document, *, embedded: bool) -> None:
    """Check what the file says for the other case: with `embedded`, without it.

    A mistake there would else be found on the day when the space first runs that way. Raises
    SpaceError.
    """
    if "embedded" not in file.data:
        return
    try:
        build_space(space_document(file, embedded=not embedded), embedded=not embedded)
    except SpaceError as error:
        when = "without --embedded" if embedded else "with --embedded"
        raise SpaceError(error.file, error.line, f"{error.rule} ({when})") from error


def build_space(document: Document, *, embedded: bool = False) -> SearchSpace:
    """The document as a checked SearchSpace. Raises SpaceError with file, line, rule and value."""
    if "embedded" in document.data:
        raise document.error(
            ("embedded",),
            "'embedded' can't be set: use --embedded to take the sections of the space's "
            "'embedded'",
        )
    anchor_paths(document)
    space = validate(SearchSpace, document)
    check_space(space, document)
    return _with_lengths_of_teachers(space.model_copy(update={"embedded": embedded}))


def _with_lengths_of_teachers(space: SearchSpace) -> SearchSpace:
    """The space, its teachers reading as much of a text as the student by default."""
    length = getattr(space.training, "max_length", None)
    if not isinstance(length, int):
        return space

    def limited(teachers: Teachers | None) -> Teachers | None:
        if isinstance(teachers, TeacherValues):
            return teachers.reading_at_most(length)
        if teachers is None:
            return None
        return tuple(teacher.reading_at_most(length) for teacher in teachers)

    strategies = {
        name: strategy.model_copy(update={"teacher": limited(strategy.teacher)})
        for name, strategy in space.strategies.items()
    }
    changes = {"teacher": limited(space.teacher), "strategies": strategies}
    return space.model_copy(update=changes)


def load_space(
    path: Path | str,
    *,
    embedded: bool = False,
    assignments: list[str] | tuple[str, ...] = (),
    is_stored: bool = False,
) -> SearchSpace:
    """A search space from its file; `assignments` are `key.path=value` texts that override it.

    is_stored: the file was written by a sweep, perhaps of an older version. Raises SpaceError
    with file and line.
    """
    document = space_document(read_space(path), embedded=embedded)
    document.is_stored = is_stored
    if is_stored:
        name_first_rules(document.data)
    for text in assignments:
        document.replace(split_assignment(text))
    return build_space(document, embedded=embedded)
