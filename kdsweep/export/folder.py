"""`kdsweep export`: a student as a folder that is complete or not there at all."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Literal

from transformers import PreTrainedModel

from kdsweep import __version__, metric_names
from kdsweep.config.loading import Plain
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.tokenize import TokenizedSplit, tokenize_split
from kdsweep.core.evaluation import onnx_format
from kdsweep.core.evaluation.file_costs import INT8_FILE
from kdsweep.core.evaluation.metric_table import metric_named
from kdsweep.core.evaluation.onnx_format import OnnxModel
from kdsweep.core.files import publishing, read_json, whole, write_json
from kdsweep.core.models.input_format import input_format_of
from kdsweep.core.models.loading import (
    load_classifier,
    load_tokenizer,
    own_labels,
    quiet_transformers,
)
from kdsweep.core.models.outputs import with_outputs_in_unit
from kdsweep.core.tasks.label_scale import LabelScale
from kdsweep.errors import KdsweepError, SettingsConflict
from kdsweep.export.card import write_card
from kdsweep.export.facts import ExportFacts, OnnxFile, OnnxFiles, QuantizedFile
from kdsweep.export.push import PushTo, check_target, push
from kdsweep.export.students import Choice, Source, Student
from kdsweep.report.model import ConfirmResult, ModelCosts, Report
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.input_check import check_pinned
from kdsweep.sweep.observer import Observer

ONNX = "onnx/model.onnx"
INT8 = INT8_FILE
# What an export wrote, next to the model, so that the folder is known again.
RECORD = "kdsweep-export.json"
ONLY_FOR_MLFLOW = ("MLmodel", "python_env.yaml", "requirements.txt")

Format = Literal["onnx", "int8"]
Say = Callable[[str], None]


def export(
    home: Home,
    sweep: str,
    destination: Path | None,
    *,
    trial: str | None = None,
    strategy: str | None = None,
    formats: Collection[Format] = (),
    push_to: PushTo | None = None,
    observer: Observer | None = None,
) -> ExportFacts:
    """Write a student to the folder `destination`: the winner, or that of `trial` or `strategy`.

    formats: `onnx` adds ONNX, compared with torch. `int8` adds it too, and again with 8-bit
    weights, and evaluates both on validation. A student that was judged with 8-bit weights has both
    always. push_to: uploads the folder to the Hub, too. Then a
    destination that holds this export already is uploaded as it is, and None means a folder that
    is removed at the end.

    Raises SettingsConflict if `destination` or the name on the Hub is in use, UnknownSweep,
    KdsweepError if there is no such student, ONNX can't be made or the Hub refuses, DataError,
    ModelError, and TrackingUnreachable if the student is in a tracker that doesn't answer. Nothing
    is written then, except that a folder stays whose upload failed.
    """
    observer = observer or Observer()
    say = observer.say
    if destination is not None:
        destination = destination.expanduser().resolve()
    folder = home.existing(sweep)
    is_there = destination is not None and push_to is not None and (destination / RECORD).exists()
    if destination is not None and not is_there:
        _check_free(destination)
    if formats:
        onnx_format.check_packages()
    target = None
    if push_to is not None:
        target = check_target(push_to, destination if is_there else None)
    choice = Choice(home, folder, trial, strategy, say)
    with contextlib.ExitStack() as stack:
        place = destination
        if place is None:
            temporary = tempfile.TemporaryDirectory(prefix="kdsweep-export-")
            place = Path(stack.enter_context(temporary)) / sweep
        if is_there:
            facts = _already_exported(choice.source(), place, formats)
            say(f"{place} holds the export of {facts.trial.name} already; it is uploaded as it is")
        else:
            facts = _write(choice, place, formats, None if target is None else target.name)
        if target is not None:
            left = "run the same command again"
            if destination is not None:
                left = f"the export is in {destination}; run the same command again to upload it"
            pushed = push(place, target, _commit_message(facts), observer, left)
            facts = replace(facts, pushed=pushed)
    return facts if destination is not None else replace(facts, folder=None)


def _write(
    choice: Choice, destination: Path, formats: Collection[Format], hub: str | None
) -> ExportFacts:
    """hub: the name under which others will load the model."""
    home, folder, say = choice.home, choice.folder, choice.say
    try:
        with publishing(destination) as beside:
            source = choice.fetch(choice.source(), beside)
            student = source.student
            if student.settings.student.quantize == "int8":
                onnx_format.check_packages("a student with 8-bit weights needs")
                formats = [*formats, "int8"]
            if formats:
                _check_same_rows(home, folder, student)
            model = _settle(beside, student)
            files = OnnxFiles()
            if formats:
                tokens = _validation(model, beside, student, home.cache)
                files = _convert(model, tokens, beside, student, "int8" in formats, say)
            labels: dict[int, str] = dict(model.config.id2label)
            names = tuple(labels[i] for i in range(len(labels)))
            facts = _facts(source, destination, names, files)
            facts = replace(facts, scale=LabelScale.of_model(model.config))
            write_json(beside / RECORD, _recorded(facts))
            write_card(beside / "README.md", folder, student, source.report, facts, hub)
    except OSError as error:
        where = error.filename or destination
        raise KdsweepError(f"{where}: {error.strerror or error}; nothing was exported") from error
    # Another process may have made a folder of this name meanwhile.
    if not (destination / "README.md").exists():
        raise SettingsConflict(f"{destination} is in use; name a folder that doesn't exist yet")
    return facts


def _recorded(facts: ExportFacts) -> dict[str, Plain]:
    """The facts as the folder holds them, for others: without names of this machine's folders."""
    return {name: value for name, value in facts.to_json().items() if name not in ("folder", "hub")}


def _already_exported(
    source: Source, destination: Path, formats: Collection[Format]
) -> ExportFacts:
    """The facts of an export of this student, with all these formats, that is there already.

    Raises SettingsConflict if it is another one.
    """
    recorded = read_json(destination / RECORD)
    with whole(destination / RECORD):
        files = OnnxFiles.from_json(recorded)
        facts = _facts(source, destination, tuple(recorded["labels"]), files)
        found = _recorded(facts)
        known = ("sweep", "trial", "metric", "validation", "test")
        is_same = all(recorded[name] == found[name] for name in known)
    lacks = [name for name in formats if recorded[name] is None]
    if not is_same or lacks:
        reason = f"has no {lacks[0]}" if is_same else "is of another student"
        raise SettingsConflict(
            f"{destination} holds an export that {reason}; name a folder that doesn't exist yet"
        )
    return facts


def _commit_message(facts: ExportFacts) -> str:
    return f"Add {facts.trial.name} of {facts.sweep}, exported by kdsweep {__version__}"


def _check_same_rows(home: Home, folder: SweepFolder, student: Student) -> None:
    facts = folder.read_facts()
    check_pinned(
        facts.pins,
        student.settings.task,
        (),
        home.cache,
        sweep=folder.name,
        what_to_do="restore it, or export without --onnx and --int8",
        ran_with=facts.kdsweep,
    )


def _check_free(destination: Path) -> None:
    if destination.is_dir() and any(destination.iterdir()):
        raise SettingsConflict(
            f"{destination} exists and isn't empty; name a folder that doesn't exist yet"
        )
    if destination.exists() and not destination.is_dir():
        raise SettingsConflict(
            f"{destination} exists and is no folder; name a folder that doesn't exist yet"
        )


def _settle(folder: Path, student: Student) -> PreTrainedModel:
    """Make a pipeline read texts as training did; returns the model, which shows that it loads.

    A pipeline then reads as many tokens, and only the inputs that the model has.
    """
    for name in ONLY_FOR_MLFLOW:
        (folder / name).unlink(missing_ok=True)
    source = str(folder)
    max_length = student.settings.training.max_length
    trust = student.settings.student.trust_remote_code
    names, kind = own_labels(source, trust_remote_code=trust)
    model = load_classifier(source, names, kind=kind, trust_remote_code=trust)
    model.eval()
    tokenizer = load_tokenizer(
        source,
        model_max_length=max_length,
        model_input_names=onnx_format.input_names(model),
        trust_remote_code=trust,
    )
    with quiet_transformers():
        tokenizer.save_pretrained(source)
    student.write_settings(folder)
    return model


# --- ONNX ---


def _validation(
    model: PreTrainedModel, folder: Path, student: Student, cache: Path
) -> TokenizedSplit:
    settings = student.settings
    tokenizer = load_tokenizer(str(folder), trust_remote_code=settings.student.trust_remote_code)
    rows = load_task(settings.task, cache).validation
    max_length = settings.training.max_length
    input_format = input_format_of(model, tokenizer, max_length, settings.task.truncation)
    return tokenize_split(rows, tokenizer, input_format, cache=cache)


def _convert(
    model: PreTrainedModel,
    validation: TokenizedSplit,
    folder: Path,
    student: Student,
    int8: bool,
    say: Say,
) -> OnnxFiles:
    """Write the ONNX files into `folder` and measure them on the validation split."""
    say(f"onnx: exporting {student.id.name}")
    scale = student.settings.task.kind.label_scale(validation.labels)
    # Nobody who runs the file reads the config.
    model = with_outputs_in_unit(model, student.id.name)
    onnx_format.convert(model, folder / ONNX)
    whole = OnnxModel(folder / ONNX)
    say("onnx: comparing with torch")
    difference = onnx_format.check_equal(model, whole, validation, scale.deviation)
    onnx_file = OnnxFile(ONNX, difference, whole.costs(validation))
    if not int8:
        return OnnxFiles(onnx_file)
    count = len(validation)
    say(f"int8: quantizing, then evaluating before and after on {count:,} rows of validation")
    # A student that was judged with 8-bit weights brings its own file.
    if not (folder / INT8).exists():
        onnx_format.quantize(folder / ONNX, folder / INT8)
    quantized = OnnxModel(folder / INT8)
    before, after = (_score(one, validation, student) for one in (whole, quantized))
    costs = quantized.costs(validation)
    return OnnxFiles(onnx_file, QuantizedFile(INT8, before, after, count, costs))


def _score(model: OnnxModel, tokens: TokenizedSplit, student: Student) -> float:
    task = student.settings.task
    predicted = task.kind.predictions(model.predict(tokens))
    return metric_named(task.metric).score(tokens.labels, predicted)


# --- what was written ---


def _facts(
    source: Source, destination: Path, labels: tuple[str, ...], files: OnnxFiles
) -> ExportFacts:
    student = source.student
    metric = student.settings.task.metric
    result = student.result
    assert result.best is not None
    return ExportFacts(
        sweep=source.folder.name,
        trial=student.id,
        folder=destination,
        labels=labels,
        metric=metric,
        validation=result.best.metrics[metric_names.validation(metric)],
        test=result.test[metric] if result.test else None,
        confirm=_confirmed(student, source.report),
        costs=ModelCosts.from_json(result.student) if result.student else None,
        files=files,
    )


def _confirmed(student: Student, report: Report) -> ConfirmResult | None:
    """The seeds confirm the strategy's best trial, and say nothing about another one."""
    found = report.strategies.get(student.id.strategy)
    if found is None or found.best is None or found.best.trial != student.id.number:
        return None
    return found.confirm
