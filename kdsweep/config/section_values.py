"""The sections of a space as values: each field of a trial's settings is a value of the grammar.

`values_of` lists a section's values by dotted names (`distill.hidden.weight`), `nested` is the
way back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, create_model

from kdsweep.config.extremes import plain_values
from kdsweep.config.loading import Plain
from kdsweep.config.teacher_values import Teachers
from kdsweep.config.values import VALUE_KEYS, Value
from kdsweep.core.objective.divergences import DEFAULT
from kdsweep.core.settings import TrainingSettings
from kdsweep.core.strict_model import Strict, Text, as_tuple

# TrainingSettings and the learning rate, their fields values of the grammar.
_training_fields: dict[str, Any] = dict.fromkeys(
    ("learning_rate", *TrainingSettings.model_fields), (Value, None)
)
TrainingValues: type[Any] = create_model("TrainingValues", __base__=Strict, **_training_fields)


class StudentValues(Strict):
    """StudentSettings, its fields values of the grammar."""

    model: Value
    revision: Text | None = None
    layers: Value = None
    start: Value = "checkpoint"
    width: Value = None
    quantize: Value = "none"
    trust_remote_code: bool = False


class HiddenValues(Strict):
    """HiddenTerm, its fields values of the grammar."""

    weight: Value
    layers: Value = "even"


class AttentionValues(Strict):
    """AttentionTerm, its fields values of the grammar."""

    weight: Value
    match: Value = "maps"
    layers: Value = "even"


class CosineValues(Strict):
    """CosineTerm, its fields values of the grammar."""

    weight: Value


def _short_for(key: str) -> BeforeValidator:
    """Reads one value as a section with only this key.

    `hidden: 0.5`, `masked_lm: MODEL` and `distill: mse` are short forms.
    """

    def spell_out(value: object) -> object:
        is_section = isinstance(value, dict) and not VALUE_KEYS & value.keys()
        if value is None or isinstance(value, Strict) or is_section:
            return value
        return {key: value}

    return BeforeValidator(spell_out)


class DistillValues(Strict):
    """DistillSettings, its fields values of the grammar."""

    logits: Value = DEFAULT
    temperature_follows: Value = "nothing"
    combine: Value = "weights"
    hidden: Annotated[HiddenValues | None, _short_for("weight")] = None
    attention: Annotated[AttentionValues | None, _short_for("weight")] = None
    cosine: Annotated[CosineValues | None, _short_for("weight")] = None


class MaskedWordsValues(Strict):
    """MaskedWordsSettings, its fields values of the grammar."""

    model: Value
    revision: Text | None = None
    share: Value = 0.4
    candidates: Value = 15
    trust_remote_code: bool = False


class AugmentValues(Strict):
    """AugmentSettings, its fields values of the grammar."""

    views: Value
    mask: Value = 0.0
    ngram: Value = 0.0
    swap: Value = 0.0
    masked_lm: Annotated[MaskedWordsValues | None, _short_for("model")] = None
    seed: Value = 0
    in_finetuning: Value = False

    @property
    def may_augment_finetuning(self) -> bool:
        """Whether a trial that no teacher teaches can have views."""
        return any(value is True for _, value in plain_values(self.in_finetuning))


def _entries(value: object) -> object:
    return (value,) if isinstance(value, dict) else as_tuple(value)


class Strategy(TrainingValues):
    """A named space of schedules.

    `teacher` and the keys of `training` may be given here too; they then hold for this strategy
    alone.
    """

    alpha: Value
    temperature: Value = 1.0
    distill: Annotated[DistillValues, _short_for("logits")] = DistillValues()
    teacher: Teachers | None = None
    augment: AugmentValues | None = None
    start_with: Annotated[tuple[dict[str, Any], ...], BeforeValidator(_entries)] = ()


# --- from sections to dotted names and back ---


def given_fields(section: Strict) -> dict[str, Any]:
    """The fields that the file gives, in the model's order."""
    return {
        name: getattr(section, name)
        for name in type(section).model_fields
        if name in section.model_fields_set
    }


def values_of(section: Strict, prefix: str) -> dict[str, Value]:
    """The values that a section gives, by their dotted names."""
    values: dict[str, Value] = {}
    for name, value in given_fields(section).items():
        if name in ("trust_remote_code", "revision"):
            continue
        if isinstance(value, HiddenValues | AttentionValues | CosineValues | MaskedWordsValues):
            values |= values_of(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value
    return values


def nested(settled: Mapping[str, Plain], prefix: str) -> dict[str, Any]:
    """What is under `prefix`, as the mapping that settings are validated from."""
    out: dict[str, Any] = {}
    for name, value in settled.items():
        if name.startswith(prefix):
            *sections, last = name.removeprefix(prefix).split(".")
            inner = out
            for section in sections:
                inner = inner.setdefault(section, {})
            inner[last] = value
    return out
