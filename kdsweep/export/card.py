"""The model card: what the student is, what it was made from and how, what it reaches and how sure that is, and how to make it again."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from kdsweep import __version__
from kdsweep.core.data.sources import PACKAGE, looks_like_a_path
from kdsweep.core.files import read_json
from kdsweep.core.settings import TaskSettings, TrialSettings
from kdsweep.errors import without_password
from kdsweep.export.students import Student
from kdsweep.report.model import Report
from kdsweep.report.schedules import in_words
from kdsweep.sweep.folders import SweepFolder

HUB_NAMES = {
    "accuracy": ("accuracy", "Accuracy"),
    "f1": ("f1", "F1"),
    "f1_macro": ("f1", "F1 (macro)"),
    "matthews": ("matthews_correlation", "Matthews correlation"),
    "accuracy_and_f1": ("glue", "mean of accuracy and F1"),
    "pearson": ("pearsonr", "Pearson correlation"),
    "spearman": ("spearmanr", "Spearman correlation"),
    "pearson_and_spearman": ("glue", "mean of Pearson and Spearman correlation"),
    "f1_micro": ("f1", "F1 (micro)"),
    "subset_accuracy": ("accuracy", "Accuracy (all labels right)"),
}


def write_card(
    file: Path, folder: SweepFolder, student: Student, report: Report, facts: dict[str, Any]
) -> None:
    """facts: the export's."""
    text = f"---\n{_front_matter(student, facts).to_yaml()}\n---\n\n{_body(folder, student, report, facts)}"
    file.write_text(without_password(text), encoding="utf-8")


# --- for the Hub -----------------------------------------------------------------------------------------------------


def _front_matter(student: Student, facts: dict[str, Any]) -> ModelCardData:
    """The license is whoever publishes it to say, and so it is left out."""
    settings, task = student.settings, student.settings.task
    base = [name for name in (_base_model(settings),) if hub_name(name)]
    metric, spelled = HUB_NAMES[task.metric]
    results = [
        EvalResult(
            task_type=task.kind.pipeline,
            task_name=task.kind.pipeline_title,
            dataset_type=_dataset(task) if hub_name(_dataset(task)) else "custom",
            dataset_name=_short(_dataset(task)),
            dataset_config=task.subset,
            dataset_split=split,
            metric_type=metric,
            metric_name=spelled,
            metric_value=value,
        )
        for split, value in (("test", facts["test"]), ("validation", facts["validation"]))
        if value is not None
    ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=task.kind.pipeline,
        tags=[
            "kdsweep",
            task.kind.pipeline,
            *(
                []
                if settings.teacher is None or not settings.needs_logits
                else ["knowledge-distillation"]
            ),
        ],
        base_model=base[0] if base else None,
        datasets=[_dataset(task)] if hub_name(_dataset(task)) else None,
        metrics=[metric],
        model_name=f"{facts['sweep']}-{student.id.name}",
        eval_results=results,
    )


def hub_name(source: str) -> bool:
    """Whether this names something on the Hub, not a file, folder or package on this machine."""
    if (
        source.startswith(PACKAGE)
        or looks_like_a_path(source)
        or Path(source).expanduser().exists()
    ):
        return False
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", source) is not None


def _base_model(settings: TrialSettings) -> str:
    """Where the student's weights come from; `model: teacher` takes the teacher's."""
    if settings.student.model != "teacher" or settings.teacher is None:
        return settings.student.model
    return settings.teacher.model or settings.teacher.checkpoint or ""


def _dataset(task: TaskSettings) -> str:
    return task.dataset if isinstance(task.dataset, str) else task.dataset["train"]


def _short(source: str) -> str:
    """A name on the Hub or in a package as it is; of a path the last part, for the folders before it are nobody's business."""
    return source if hub_name(source) or source.startswith(PACKAGE) else Path(source).name or source


# --- for people ------------------------------------------------------------------------------------------------------


def _body(folder: SweepFolder, student: Student, report: Report, facts: dict[str, Any]) -> str:
    settings, task = student.settings, student.settings.task
    named = ", ".join(f"`{label}`" for label in facts["labels"])
    sections = [
        f"# {facts['sweep']}: {student.id.name}\n\n{task.kind.describe_model(named)}, trained by kdsweep {__version__}: "
        f"a student of {_short(_base_model(settings))}, by the strategy `{student.id.strategy}`.\n\n{_usage(task)}",
        _section("Results", _results(student, report, facts), _notes(student, report, facts)),
        _section("Size and speed", _sizes(facts, report)),
        _section("Task and data", _task(task, read_json(folder.facts).get("data") or {})),
        _section("Teacher and student", _models(settings, report)),
        _section("Settings", _settings(settings)),
        _reproduce(folder, student, report, facts),
    ]
    return "\n\n".join(sections) + "\n"


def _usage(task: TaskSettings) -> str:
    text = (
        '"a text"'
        if len(task.text) == 1
        else '{"text": "the first text", "text_pair": "the second text"}'
    )
    return (
        "```python\nfrom transformers import pipeline\n\n"
        f'classify = pipeline("{task.kind.pipeline}", model="PATH/TO/THIS/FOLDER")\n'
        f"classify({text}, truncation=True)\n```{_OTHERWISE_CUT if task.truncation != 'head' else ''}"
    )


_OTHERWISE_CUT = """

A pipeline keeps the beginning of a text that is too long, and this student was trained on another part of it: `kdsweep.serving` reads as it was trained.

```python
from kdsweep.serving import load

load("PATH/TO/THIS/FOLDER").predict(["a long text"])
```"""


def _results(student: Student, report: Report, facts: dict[str, Any]) -> str:
    metric, teacher, confirm = facts["metric"], report.teacher, facts["confirm"]
    rows: list[Sequence[Any]] = [("this student", "validation", _number(facts["validation"]), "")]
    if facts["test"] is not None:
        rows.append(("this student", "test", _number(facts["test"]), ""))
    if confirm and confirm.get("mean") is not None:
        interval = (
            f"{confirm['ci95'][0]:.4f} to {confirm['ci95'][1]:.4f}"
            if confirm["ci95"]
            else "one seed: none"
        )
        rows.append(
            (
                f"these settings, mean of {confirm['seeds']} seed{'s' if confirm['seeds'] != 1 else ''}",
                "test",
                _number(confirm["mean"]),
                interval,
            )
        )
    if teacher:
        rows.append(("the teacher", "validation", _number(teacher.validation), ""))
        if teacher.test is not None:
            rows.append(("the teacher", "test", _number(teacher.test), ""))
    if facts["int8"]:
        rows.append(
            (
                "this student, ONNX before quantization",
                "validation",
                _number(facts["int8"]["before"]),
                "",
            )
        )
        rows.append(("this student, int8", "validation", _number(facts["int8"]["after"]), ""))
    return _table(("", "split", metric, "95% interval"), rows)


def _notes(student: Student, report: Report, facts: dict[str, Any]) -> str:
    confirm, searched = facts["confirm"], report.strategies.get(student.id.strategy)
    notes = [f"- {report.verdict}"]
    if confirm and confirm.get("test"):
        notes.append(f"- test by seed: {', '.join(_number(value) for value in confirm['test'])}")
    if confirm and confirm.get("retention") is not None:
        notes.append(
            f"- {100 * confirm['retention']:.1f}% of the teacher's {facts['metric']} on test is kept"
        )
    if searched and searched.trials.complete > 1:
        notes.append(
            f"- the trial was chosen among {searched.trials.total} of its strategy by validation, so what it reaches there is flattering; test had no say"
        )
    other = [
        f"{name} {_number(value)}"
        for name, value in (student.result.test or {}).items()
        if name != facts["metric"]
    ]
    if other:
        notes.append(
            f"- on test also: {', '.join(other)}"
            + (
                " (`ece`: calibration error)"
                if student.settings.task.kind.has_probabilities
                else ""
            )
        )
    if facts["onnx"]:
        notes.append(
            f"- ONNX and torch differ by at most {facts['onnx']['difference']:.1g} in a logit ({facts['onnx']['rows']} rows of validation)"
        )
    return "\n".join(notes)


def _sizes(facts: dict[str, Any], report: Report) -> str:
    student = facts["student"] or {}
    teacher = report.teacher.to_json() if report.teacher else None
    rows = [
        (
            "this student (torch, where it was trained)",
            _parameters(student),
            _megabytes(student),
            _latency(student),
        )
    ]
    for kind, name in (
        ("onnx", "ONNX (onnxruntime, CPU)"),
        ("int8", "ONNX int8 (onnxruntime, CPU)"),
    ):
        if facts[kind]:
            rows.append(
                (
                    f"{name}: `{facts[kind]['file']}`",
                    "",
                    _megabytes(facts[kind]),
                    _latency(facts[kind]),
                )
            )
    if teacher:
        rows.append(("the teacher", _parameters(teacher), _megabytes(teacher), _latency(teacher)))
    return _table(("", "parameters", "size", "latency p50/p95, one text of median length"), rows)


def _task(task: TaskSettings, hashes: dict[str, str]) -> str:
    dataset = (
        _short(task.dataset)
        if isinstance(task.dataset, str)
        else ", ".join(f"{split}: {_short(source)}" for split, source in task.dataset.items())
    )
    rows: list[Sequence[Any]] = [("dataset", dataset)]
    rows += [
        (name, value)
        for name, value in (("subset", task.subset), ("revision", task.revision))
        if value
    ]
    rows += (
        [("rows where", ", ".join(f"{column} = {value}" for column, value in task.where.items()))]
        if task.where
        else []
    )
    rows += [
        ("text", ", ".join(task.text)),
        ("label", ", ".join(task.label_columns)),
        ("metric", task.metric),
    ]
    rows += [("kept of a long text", task.truncation)] if task.truncation != "head" else []
    named = task.splits.named
    rows += [
        (
            "splits",
            ", ".join(f"{name}: {value}" for name, value in named.items())
            + "; what isn't named was held out of train by hash of the text",
        )
    ]
    limits = {name: value for name, value in task.limit.model_dump().items() if value is not None}
    rows += (
        [("at most", ", ".join(f"{value} rows of {name}" for name, value in limits.items()))]
        if limits
        else []
    )
    rows += [("unlabelled text", _short(task.unlabelled.dataset))] if task.unlabelled else []
    rows += [(f"content hash of {name}", f"`{key}`") for name, key in hashes.items()]
    return _table(("", ""), rows)


def _models(settings: TrialSettings, report: Report) -> str:
    student = _short(_base_model(settings)) + (
        " (the fine-tuned teacher's weights)" if settings.student.model == "teacher" else ""
    )
    rows: list[Sequence[Any]] = [("student", student + settings.student.shape)]
    if not settings.teachers:
        rows.append(("teacher", "none: trained on the labels alone"))
    for teacher in settings.teachers:
        how = teacher.training
        chosen = teacher.words.removeprefix(teacher.source) + (
            f", weight {teacher.weight:g}" if settings.further_teachers else ""
        )
        tuned = f"fine-tuned on the task: {how.epochs} epochs, learning rate {how.learning_rate:g}, {how.max_length} tokens"
        rows.append(
            (
                "teacher",
                f"{_short(teacher.source)}, {tuned if teacher.model else 'as it was'}{chosen}",
            )
        )
    return _table(("", ""), rows)


def _settings(settings: TrialSettings) -> str:
    rows: list[Sequence[Any]] = [
        ("alpha (the labels' share of the loss)", in_words(settings.alpha))
    ]
    if settings.needs_logits:
        rows.append(("temperature", in_words(settings.temperature)))
    rows.append(("learning rate", in_words(settings.learning_rate)))
    rows += [
        (name.replace("_", " "), value)
        for name, value in settings.training.model_dump(mode="json").items()
        if value is not None
    ]
    return _table(("", ""), [*rows, ("seed", settings.seed)])


def _reproduce(folder: SweepFolder, student: Student, report: Report, facts: dict[str, Any]) -> str:
    known = report.reproduce
    versions = known.versions if known else {}
    if not versions:
        versions = {name: version(name) for name in ("kdsweep", "torch", "transformers")}
    sweep = shlex.quote(facts["sweep"])
    commands = [
        *([_without_home(known.command, folder)] if known else []),
        f"kdsweep replay {sweep} {student.id.name}    # this trial again, and whether its numbers are the same",
        f"kdsweep export {sweep} FOLDER --trial {student.id.name}",
    ]
    known_hashes = known.hashes if known else {}
    hashes = {name: value for name, value in known_hashes.items() if isinstance(value, str)}
    lines = [f"versions: {', '.join(f'{name} {value}' for name, value in versions.items())}"]
    lines += (
        [f"hashes: {', '.join(f'{name} `{value}`' for name, value in hashes.items())}"]
        if hashes
        else []
    )
    dumped = json.dumps(_without_folders(student.settings), indent=2, ensure_ascii=False)
    shown = "\n\n".join(lines)
    return f"## How to make it again\n\n```\n{chr(10).join(commands)}\n```\n\n{shown}\n\nAll settings of the trial:\n\n```json\n{dumped}\n```"


def _without_home(command: str, folder: SweepFolder) -> str:
    """The command with HOME for the folder that everything is kept in."""
    home = str(folder.root.parent.parent)
    return shlex.join(
        f"HOME{word.removeprefix(home)}" if word.startswith(home) else word
        for word in shlex.split(command)
    )


def _without_folders(settings: TrialSettings) -> dict[str, Any]:
    """The settings, with paths as the rest of the card has them."""
    dumped: dict[str, Any] = settings.model_dump(mode="json")
    named = dumped["task"]["dataset"]
    dumped["task"]["dataset"] = (
        _short(named)
        if isinstance(named, str)
        else {split: _short(source) for split, source in named.items()}
    )
    for model in (dumped["student"], dumped["teacher"] or {}, *dumped.get("further_teachers", ())):
        for key in ("model", "checkpoint"):
            if model.get(key):
                model[key] = _short(model[key])
    return dumped


def _section(title: str, *parts: str) -> str:
    return "\n\n".join([f"## {title}", *(part for part in parts if part)])


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _number(value: float) -> str:
    return f"{value:.4f}"


def _parameters(model: dict[str, Any]) -> str:
    return f"{model['parameters']:,.0f}" if model.get("parameters") else ""


def _megabytes(model: dict[str, Any]) -> str:
    return f"{model['size_mb']:.3g} MB" if model.get("size_mb") else ""


def _latency(model: dict[str, Any]) -> str:
    if not model.get("latency_ms"):
        return ""
    high = model.get("latency_p95_ms")
    return f"{model['latency_ms']:.3g}" + (f"/{high:.3g}" if high else "") + " ms"
