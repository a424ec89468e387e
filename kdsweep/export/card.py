"""The model card: what the student is, how it was made, how good it is, and how to reproduce it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kdsweep import __version__
from kdsweep.core.evaluation.file_costs import INT8_FILE
from kdsweep.core.hub.repository import at_revision
from kdsweep.core.settings import TaskSettings, TeacherSettings, TrialSettings
from kdsweep.core.versions import PACKAGES, of_package
from kdsweep.errors import first_few, without_password
from kdsweep.export.facts import ExportFacts
from kdsweep.export.hub_metadata import base_model, front_matter, short_name
from kdsweep.export.students import Student
from kdsweep.formatting import (
    code_block,
    code_span,
    count,
    in_markdown,
    latencies,
    megabytes,
    percent,
    score,
    score_range,
)
from kdsweep.report.model import Measured, Report
from kdsweep.report.schedules import in_words
from kdsweep.report.settings_words import settings_in_words
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.trained_by import versions_of

Row = Sequence[object]
# What usage says for a model that has no name on the Hub.
HERE = "PATH/TO/THIS/FOLDER"


def write_card(
    file: Path,
    folder: SweepFolder,
    student: Student,
    report: Report,
    facts: ExportFacts,
    hub: str | None = None,
) -> None:
    """Write the card of an exported student. `report` is its sweep's, `hub` its name on the Hub."""
    metadata = front_matter(student.settings, facts).to_yaml()
    body = _body(folder, student, report, facts)
    text = f"---\n{metadata}\n---\n\n{body.replace(HERE, hub or HERE)}"
    file.write_text(without_password(text), encoding="utf-8")


def _body(folder: SweepFolder, student: Student, report: Report, facts: ExportFacts) -> str:
    settings = student.settings
    task = settings.task
    labels = first_few([code_span(label) for label in facts.labels])
    base = in_markdown(short_name(base_model(settings)))
    sections = [
        f"# {facts.sweep}: {student.id.name}",
        f"{task.kind.describe_model(labels)}, trained by kdsweep {__version__}: a student of "
        f"{base}, by the strategy `{student.id.strategy}`.",
        _usage(settings),
        "" if facts.scale.is_plain else facts.scale.how_to_convert,
        _section("Results", _results(report, facts), _notes(student, report, facts)),
        _section("Size and speed", _sizes(settings, report, facts), _note(report)),
        _section("Task and data", _task(task, folder.read_facts().data or {})),
        _section("Teacher and student", _models(settings)),
        _section("Settings", _settings(settings)),
        _reproduce(folder, student, report, facts),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _usage(settings: TrialSettings) -> str:
    task = settings.task
    text = '"a text"'
    if len(task.text) == 2:
        text = '{"text": "the first text", "text_pair": "the second text"}'
    usage = _python(
        "from transformers import pipeline",
        "",
        f'classify = pipeline("{task.kind.pipeline}", model="{HERE}")',
        f"classify({text}, truncation=True)",
    )
    is_quantized = settings.student.quantize == "int8"
    if task.truncation == "head" and not is_quantized:
        return usage
    serving = _python(
        "from kdsweep.serving import load",
        "",
        f'load("{HERE}").predict(["a long text"])',
    )
    if is_quantized:
        return (
            f"A pipeline loads the weights before quantization:\n\n{usage}\n\nThis student was "
            f"judged with 8-bit weights (`{INT8_FILE}`), which `kdsweep.serving` uses.\n\n{serving}"
        )
    return (
        f"{usage}\n\nA pipeline keeps the beginning of a text that is too long, but this student "
        "was trained on another part of it. `kdsweep.serving` reads a text as in training.\n\n"
        f"{serving}"
    )


# --- results ---


def _results(report: Report, facts: ExportFacts) -> str:
    rows: list[Row] = []
    confirm = facts.confirm
    # First what these settings reach with any seed: this student's seed was chosen among several.
    if confirm is not None and confirm.mean is not None:
        interval = score_range(*confirm.ci95) if confirm.ci95 else "one seed: none"
        name = f"these settings, mean of {count(confirm.seeds, 'seed')}"
        rows.append((name, "test", score(confirm.mean), interval))
    if facts.test is not None:
        rows.append(("this student", "test", score(facts.test), ""))
    rows.append(("this student", "validation", score(facts.validation), ""))
    if report.teacher is not None:
        rows.append(("the teacher", "validation", score(report.teacher.validation), ""))
        if report.teacher.test is not None:
            interval = score_range(*report.teacher.ci95) if report.teacher.ci95 else ""
            rows.append(("the teacher", "test", score(report.teacher.test), interval))
    for split, found in report.more_tests.items():
        if found.teacher is not None:
            interval = score_range(*found.teacher_ci95) if found.teacher_ci95 else ""
            rows.append(("the teacher", split, score(found.teacher), interval))
    if int8 := facts.files.int8:
        name = "this student, ONNX before quantization"
        rows.append((name, "validation", score(int8.before), ""))
        rows.append(("this student, int8", "validation", score(int8.after), ""))
    return _table(("", "split", facts.metric, "95% interval"), rows)


def _notes(student: Student, report: Report, facts: ExportFacts) -> str:
    notes = [report.verdict, *([report.rests_on] if report.rests_on else [])]
    confirm = facts.confirm
    if confirm is not None and confirm.test:
        notes.append(f"test by seed: {', '.join(map(score, confirm.test))}")
    if confirm is not None and confirm.retention is not None:
        notes.append(
            f"{percent(confirm.retention)} of the teacher's {facts.metric} on test is kept"
        )
    searched = report.strategies.get(student.id.strategy)
    if searched is not None and searched.trials.complete > 1:
        notes.append(
            f"the trial was chosen among {searched.trials.total} of its strategy by validation, so "
            "its result there is optimistic; test played no part in the choice"
        )
    if settings := settings_in_words(report).get(student.id.strategy):
        notes.append(in_markdown(settings))
    others = [
        f"{name} {score(value)}"
        for name, value in (student.result.test or {}).items()
        if name != facts.metric
    ]
    if others:
        is_calibrated = student.settings.task.kind.has_probabilities
        explained = " (`ece`: calibration error)" if is_calibrated else ""
        notes.append(f"on test also: {', '.join(others)}{explained}")
    if onnx := facts.files.onnx:
        notes.append(
            f"ONNX and torch differ by at most {onnx.difference.largest:.1g} in a logit "
            f"({onnx.difference.rows} rows of validation)"
        )
    return "\n".join(f"- {note}" for note in notes)


def _sizes(settings: TrialSettings, report: Report, facts: ExportFacts) -> str:
    name = "this student (torch, where it was trained)"
    if settings.student.quantize == "int8":
        name = "this student (int8, as the sweep measured it)"
    rows: list[Row] = [_costs(name, facts.costs)]
    named = (
        ("ONNX (onnxruntime, CPU)", facts.files.onnx),
        ("ONNX int8 (onnxruntime, CPU)", facts.files.int8),
    )
    for name, found in named:
        if found is not None:
            costs = found.costs
            latency = latencies(costs.latency_ms, costs.latency_p95_ms)
            rows.append((f"{name}: {code_span(found.file)}", "", megabytes(costs.size_mb), latency))
    if report.teacher is not None:
        rows.append(_costs("the teacher", report.teacher))
    return _table(("", "parameters", "size", "latency p50/p95, one text of median length"), rows)


def _note(report: Report) -> str:
    """How latency was measured."""
    return f"{report.latency_note}." if report.latency_note else ""


def _costs(name: str, model: Measured | None) -> Row:
    """A row with what is known; what isn't is left empty."""
    if model is None:
        return (name, "", "", "")
    latency = ""
    if model.latency_ms:
        latency = latencies(model.latency_ms, model.latency_p95_ms)
    return (
        name,
        f"{model.parameters:,.0f}" if model.parameters else "",
        megabytes(model.size_mb) if model.size_mb else "",
        latency,
    )


# --- task, models, settings ---


def _task(task: TaskSettings, hashes: dict[str, str]) -> str:
    rows: list[Row] = [("dataset", _dataset_words(task))]
    if task.subset:
        rows.append(("subset", in_markdown(task.subset)))
    if task.revision:
        rows.append(("revision", in_markdown(task.revision)))
    if task.where:
        where = ", ".join(f"{column} = {value}" for column, value in task.where.items())
        rows.append(("rows where", in_markdown(where)))
    rows.append(("text", in_markdown(", ".join(task.text))))
    rows.append(("label", in_markdown(first_few(task.label_columns))))
    rows.append(("metric", task.metric))
    if task.truncation != "head":
        rows.append(("kept of a long text", task.truncation))
    splits = ", ".join(f"{name}: {value}" for name, value in task.splits.named.items())
    rows.append(("splits", f"{in_markdown(splits)}; others are held out of train"))
    limits = {name: value for name, value in task.limit.model_dump().items() if value is not None}
    if limits:
        words = ", ".join(f"{value} rows of {name}" for name, value in limits.items())
        rows.append(("at most", words))
    if task.unlabelled:
        rows.append(("unlabeled text", in_markdown(short_name(task.unlabelled.dataset))))
    rows += [(f"content hash of {name}", f"`{key}`") for name, key in hashes.items()]
    return _table(("", ""), rows)


def _dataset_words(task: TaskSettings) -> str:
    if isinstance(task.dataset, str):
        return in_markdown(short_name(task.dataset))
    files = (f"{split}: {short_name(source)}" for split, source in task.dataset.items())
    return in_markdown(", ".join(files))


def _models(settings: TrialSettings) -> str:
    student = at_revision(short_name(base_model(settings)), settings.student.revision)
    if settings.student.model == "teacher":
        student += " (the fine-tuned teacher's weights)"
    rows: list[Row] = [("student", in_markdown(student) + settings.student.shape)]
    if not settings.teachers:
        rows.append(("teacher", "none: trained on the labels only"))
    several = len(settings.teachers) > 1
    rows += [("teacher", _teacher_words(teacher, several)) for teacher in settings.teachers]
    return _table(("", ""), rows)


def _teacher_words(teacher: TeacherSettings, several: bool) -> str:
    training = teacher.training
    tuned = "as it was"
    if teacher.model:
        tuned = (
            f"fine-tuned on the task: {training.epochs} epochs, learning rate "
            f"{training.learning_rate:g}, {training.max_length} tokens"
        )
    chosen = teacher.words.removeprefix(teacher.source)
    weight = f", weight {teacher.weight:g}" if several else ""
    source = at_revision(short_name(teacher.source), teacher.revision)
    return f"{in_markdown(source)}, {tuned}{chosen}{weight}"


def _settings(settings: TrialSettings) -> str:
    rows: list[Row] = [("alpha (the labels' share of the loss)", in_words(settings.alpha))]
    if settings.needs_logits:
        rows.append(("temperature", in_words(settings.temperature)))
    rows.append(("learning rate", in_words(settings.learning_rate)))
    training = settings.training.model_dump(mode="json") | {"precision": settings.precision}
    for name, value in training.items():
        if value is not None:
            rows.append((name.replace("_", " "), value))
    rows.append(("seed", settings.seed))
    return _table(("", ""), rows)


# --- how to reproduce it ---


def _reproduce(folder: SweepFolder, student: Student, report: Report, facts: ExportFacts) -> str:
    known = report.reproduce
    sweep = shlex.quote(facts.sweep)
    name = student.id.name
    commands = [
        f"kdsweep replay {sweep} {name}    # train this trial again and compare its numbers",
        f"kdsweep export {sweep} FOLDER --trial {name}",
    ]
    versions = dict(known.versions) if known else {}
    hashes: dict[str, str] = {}
    if known:
        commands.insert(0, _without_home(known.command, folder))
        hashes = {name: key for name, key in known.hashes.items() if isinstance(key, str)}
    if not versions:
        versions = {name: version(name) for name in ("kdsweep", "torch", "transformers")}
    # The others are those of the last run.
    trained = versions_of(folder.trial(student.id), folder.read_facts())
    for name in PACKAGES:
        if own := of_package(name, trained):
            versions[name] = ", then ".join(own)
    lines = [f"versions: {', '.join(f'{name} {value}' for name, value in versions.items())}"]
    if hashes:
        lines.append(f"hashes: {', '.join(f'{name} `{key}`' for name, key in hashes.items())}")
    dumped = json.dumps(_without_folders(student.settings), indent=2, ensure_ascii=False)
    return _section(
        "How to make it again",
        code_block("\n".join(commands)),
        *lines,
        "All settings of the trial:",
        code_block(dumped, "json"),
    )


def _without_home(command: str, folder: SweepFolder) -> str:
    """The command, with HOME for the home folder."""
    home = str(folder.root.parent.parent)
    return shlex.join(
        f"HOME{word.removeprefix(home)}" if word.startswith(home) else word
        for word in shlex.split(command)
    )


def _without_folders(settings: TrialSettings) -> dict[str, Any]:
    """The settings as JSON, with names instead of paths, as in the rest of the card."""
    dumped: dict[str, Any] = settings.model_dump(mode="json")
    dataset = dumped["task"]["dataset"]
    if isinstance(dataset, str):
        dumped["task"]["dataset"] = short_name(dataset)
    else:
        dumped["task"]["dataset"] = {split: short_name(source) for split, source in dataset.items()}
    for model in (dumped["student"], dumped["teacher"] or {}, *dumped.get("further_teachers", ())):
        for key in ("model", "checkpoint"):
            if model.get(key):
                model[key] = short_name(model[key])
    return dumped


# --- Markdown ---


def _section(title: str, *parts: str) -> str:
    return "\n\n".join([f"## {title}", *filter(None, parts)])


def _python(*lines: str) -> str:
    return code_block("\n".join(lines), "python")


def _table(header: Sequence[str], rows: Iterable[Row]) -> str:
    lines: list[Row] = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
