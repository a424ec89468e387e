"""The teacher as an artifact: a folder in the cache, with what is known of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.core.data.encode import Padding
from kdsweep.core.data.rows import TaskData
from kdsweep.core.device import pick_device
from kdsweep.core.files import fingerprint, only_read, read_json, whole, write_json
from kdsweep.core.models.describing import model_fingerprint
from kdsweep.core.models.input_format import input_format_of
from kdsweep.core.models.loading import load_classifier, load_tokenizer, own_labels
from kdsweep.core.settings import Precision, TaskSettings, TeacherSettings, Truncation
from kdsweep.core.tasks.base import TaskKind
from kdsweep.errors import DamagedFile, first_line


@dataclass(frozen=True)
class Teacher:
    """A fine-tuned teacher in `folder`.

    `validation`: what it reaches there, by metric.
    `seconds`: what its fine-tuning took, with all its seeds and folds; 0 for a checkpoint.
    `margin`, `entropy`: how sure it is on train (see `sureness`). A value is None if the version of
    kdsweep that made the teacher did not measure it.
    `selected`: what each seed reached on validation, None for a seed that learned nothing, if the
    teacher is the best of several seeds.
    `trust_remote_code`: whether the user consents to the teacher's own code.
    `padding`: how its batches were padded; None if 0.1.0 made it.
    `folds`: the keys of the teachers that label train fold by fold, if it doesn't do so itself.
    `precision`: what it labels in, as the sweep says now; no part of its folder.
    """

    key: str
    folder: Path
    validation: dict[str, float]
    parameters: int
    size_mb: float
    latency_ms: float
    max_length: int
    seconds: float
    training_folder: Path | None
    latency_p95_ms: float | None = None
    margin: float | None = None
    entropy: float | None = None
    truncation: Truncation = "head"
    selected: dict[int, float | None] | None = None
    folds: tuple[str, ...] = ()
    padding: dict[str, object] | None = None
    trust_remote_code: bool = False
    precision: Precision = "auto"


def teacher_key(task: TaskSettings, teacher: TeacherSettings, data: TaskData) -> str:
    """A hash of what the teacher depends on: its weights, the rows, its training and its metric."""
    source = teacher.loads_from
    weights = model_fingerprint(source, trust_remote_code=teacher.trust_remote_code)
    how = (
        teacher.training.model_dump(mode="json")
        if teacher.model
        else [teacher.training.max_length, teacher.labels]
    )
    cut = [] if task.truncation == "head" else [task.truncation]
    key = fingerprint(
        "teacher 1",
        weights,
        data.train.key,
        data.validation.key,
        data.label_names,
        task.metric,
        how,
        *cut,
    )
    if not (scale := data.kind.label_scale(data.train.labels)).is_plain and teacher.model:
        # Before labels were standardized, such a teacher learned little.
        key = fingerprint(key, "standardized", scale.mean, scale.deviation)
    # Only settings that differ from their default are in the dump: earlier keys stay the same.
    chosen = teacher.model_dump(include={"epoch", "seeds", "folds"})
    if teacher.settled_precision not in (None, "fp32"):
        # On a CPU `auto` was fp32 before it was settled: those keys stay the same.
        chosen["precision"] = teacher.settled_precision
    if "folds" in chosen and data.split_rule.number != 1:
        chosen["split_rule"] = asdict(data.split_rule)
    return fingerprint(key, chosen) if chosen else key


def find_teacher(folder: Path, *, trust_remote_code: bool = False) -> Teacher | None:
    """The teacher of a folder in the cache, or None.

    trust_remote_code: as the space says now; a folder doesn't consent to its own code.
    One that 0.1.0 trained with a padding that changed its logits isn't found: it is made again, and
    so is one that is damaged.
    """
    facts = folder / "teacher.json"
    if not facts.exists() or damage_of_teacher(folder) is not None:
        return None
    found = read_json(facts)
    if "padding" not in found:
        padding = _padding_of(folder, found["max_length"])
        if padding.is_mended:
            return None
        found["padding"] = padding.to_json()
        if not only_read(folder):
            write_json(facts, found)
    if found["training_folder"] is not None:
        found["training_folder"] = Path(found["training_folder"])
    found["trust_remote_code"] = trust_remote_code
    return Teacher(folder=folder, **found)


def damage_of_teacher(folder: Path) -> DamagedFile | None:
    """What is damaged in a teacher's folder. Of its weights the table of contents is read alone."""
    try:
        with whole(folder / "teacher.json"):
            Teacher(folder=folder, **read_json(folder / "teacher.json"))
        read_json(folder / "config.json")
        for file in sorted(folder.glob("tokenizer*.json")):
            read_json(file)
        for file in sorted(folder.glob("*.safetensors")) or [folder / "model.safetensors"]:
            with whole(file), _safetensors_errors(), safe_open(file, framework="pt"):
                pass
    except DamagedFile as damage:
        return damage
    return None


@contextlib.contextmanager
def _safetensors_errors() -> Iterator[None]:
    """Its own error, such as for a file that ends early, has no class that says so."""
    try:
        yield
    except SafetensorError as error:
        raise ValueError(first_line(error)) from error


def _padding_of(folder: Path, max_length: int) -> Padding:
    """How the batches of the model in this folder are padded."""
    source = str(folder)
    names, kind = own_labels(source)
    model, tokenizer = load_classifier(source, names, kind=kind), load_tokenizer(source)
    padding = input_format_of(model, tokenizer, max_length).padding
    assert padding is not None
    return padding


def frozen_teacher(
    teacher: Teacher, label_names: tuple[str, ...], kind: TaskKind
) -> PreTrainedModel:
    """The teacher on its device, in eval mode, without gradients."""
    model = load_classifier(
        str(teacher.folder), label_names, kind=kind, trust_remote_code=teacher.trust_remote_code
    )
    model.to(pick_device())
    model.requires_grad_(False)
    model.eval()
    return model


def tokenizer_of(teacher: Teacher) -> PreTrainedTokenizerBase:
    """The teacher's tokenizer."""
    return load_tokenizer(str(teacher.folder), trust_remote_code=teacher.trust_remote_code)
