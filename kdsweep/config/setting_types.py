"""What the setting of each dotted name may be: `student.layers`, `distill.hidden.weight`, ..."""

from __future__ import annotations

import re
from typing import Any, get_args

from pydantic.fields import FieldInfo

from kdsweep.core.augment_settings import AugmentSettings, MaskedWordsSettings
from kdsweep.core.distill_settings import AttentionTerm, CosineTerm, DistillSettings, HiddenTerm
from kdsweep.core.settings import (
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
)
from kdsweep.core.strict_model import Strict

SECTIONS: dict[str, type[Strict]] = {
    "": TrainingSettings,
    "student.": StudentSettings,
    "teacher.": TeacherSettings,
    "distill.": DistillSettings,
    "distill.hidden.": HiddenTerm,
    "distill.attention.": AttentionTerm,
    "distill.cosine.": CosineTerm,
    "augment.": AugmentSettings,
    "augment.masked_lm.": MaskedWordsSettings,
}
SETTINGS: dict[str, FieldInfo] = {
    f"{prefix}{name}": field
    for prefix, section in SECTIONS.items()
    for name, field in section.model_fields.items()
}


def setting_named(name: str) -> FieldInfo | None:
    """The setting that a value is for; `teacher.1.epoch` is for `teacher.epoch`."""
    return SETTINGS.get(re.sub(r"^teacher\.\d+\.", "teacher.", name))


def is_whole(name: str) -> bool:
    """Whether the setting of that name is a whole number."""
    field = setting_named(name)
    if field is None:
        return False
    kinds = (field.annotation, *get_args(field.annotation))
    return any(_bare(kind) is int for kind in kinds)


def _bare(kind: Any) -> object:
    """`int` of Annotated[int, ...]; any other type as it is."""
    return kind.__origin__ if hasattr(kind, "__metadata__") else kind
