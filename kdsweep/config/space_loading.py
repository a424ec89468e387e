"""From a file to a checked search space."""

from __future__ import annotations

from pathlib import Path

from kdsweep.config.broken_rules import validate
from kdsweep.config.loading import Document, Override, read_document, split_assignment, split_path
from kdsweep.config.older_spaces import name_first_rules
from kdsweep.config.relative_paths import anchor_paths
from kdsweep.config.space import SearchSpace
from kdsweep.config.space_checks import check_space
from kdsweep.config.teacher_values import Teachers, TeacherValues
from kdsweep.errors import did_you_mean

# What `embedded` may replace, whole or a part of it.
STAND_INS = ("task", "teacher", "student", "training", "strategies")


def space_document(path: Path | str, *, embedded: bool = False) -> Document:
    """A space file as data; with `embedded`, its `embedded` sections replace the others."""
    document = read_document(path)
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
    document = space_document(path, embedded=embedded)
    document.is_stored = is_stored
    if is_stored:
        name_first_rules(document.data)
    for text in assignments:
        document.replace(split_assignment(text))
    return build_space(document, embedded=embedded)
