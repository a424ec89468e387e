"""`kdsweep export`: a student as a folder, written beside its place and renamed when all of it is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedModel

from kdsweep.core.data.loading import load_task
from kdsweep.core.data.tokenize import TokenizedSplit, tokenize_split
from kdsweep.core.evaluation.metric_table import metric_named
from kdsweep.core.files import publishing
from kdsweep.core.models.inputs import input_format_of
from kdsweep.core.models.loading import (
    load_classifier,
    load_tokenizer,
    own_labels,
    quiet_transformers,
)
from kdsweep.errors import KdsweepError, SettingsConflict
from kdsweep.export import onnx_format
from kdsweep.export.card import write_card
from kdsweep.export.onnx_format import OnnxModel
from kdsweep.export.students import Student, choose, fetch, read_report
from kdsweep.replay import check_rows
from kdsweep.report.model import Report
from kdsweep.serving import write_settings
from kdsweep.sweep.folders import Home

ONNX, INT8 = "onnx/model.onnx", "onnx/model_int8.onnx"
ONLY_FOR_MLFLOW = ("MLmodel", "python_env.yaml", "requirements.txt")


def export(
    home: Home,
    sweep: str,
    destination: Path,
    *,
    trial: str | None = None,
    strategy: str | None = None,
    onnx: bool = False,
    int8: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write the winner, or the student of `trial`, or of `strategy`, to the folder `destination`; what was written, as facts.

    onnx: ONNX too, checked against torch; int8: also with 8-bit weights, with the task's metric on validation before and after.

    Raises SettingsConflict where `destination` isn't free, UnknownSweep, KdsweepError where there is no such student or ONNX can't be
    made, DataError, ModelError, and TrackingUnreachable where the student is in MLflow and that is away. Nothing is written then.
    """
    destination = _free(destination)
    if onnx or int8:
        onnx_format.check_packages()
    folder = home.existing(sweep)
    report = read_report(home, sweep)
    student = choose(home, sweep, report, trial=trial, strategy=strategy)
    if onnx or int8:
        check_rows(home, folder, student.settings.task, unlabelled=False)
    try:
        with publishing(destination) as beside:
            fetch(home, folder, student, beside)
            model = _settle(beside, student)
            converted = (
                _convert(model, beside, student, home, int8=int8, say=say)
                if onnx or int8
                else {"onnx": None, "int8": None}
            )
            facts = _facts(sweep, destination, student, model, report, converted)
            write_card(beside / "README.md", folder, student, report, facts)
    except OSError as error:
        raise KdsweepError(
            f"{error.filename or destination}: {error.strerror or error}; nothing was exported"
        ) from error
    if not (
        destination / "README.md"
    ).exists():  # somebody else made a folder of this name meanwhile, or it can't be replaced
        raise SettingsConflict(
            f"{destination} can't take the export's place; give a folder that isn't there yet"
        )
    return facts


def _free(destination: Path) -> Path:
    destination = destination.expanduser().resolve()
    if destination.is_dir() and any(destination.iterdir()):
        raise SettingsConflict(
            f"{destination} is there and isn't empty; give a folder that isn't there yet"
        )
    if destination.exists() and not destination.is_dir():
        raise SettingsConflict(
            f"{destination} is there and is no folder; give a folder that isn't there yet"
        )
    return destination


def _settle(folder: Path, student: Student) -> PreTrainedModel:
    """Let a pipeline read texts as training did: as many tokens, and only the inputs that the model has. The model, which can be loaded."""
    for name in ONLY_FOR_MLFLOW:
        (folder / name).unlink(missing_ok=True)
    source, trust = str(folder), student.settings.student.trust_remote_code
    names, kind = own_labels(source, trust_remote_code=trust)
    model = load_classifier(source, names, kind=kind, trust_remote_code=trust)
    model.eval()
    inputs = onnx_format.input_names(model)
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(
            source,
            model_max_length=student.settings.training.max_length,
            model_input_names=inputs,
            trust_remote_code=trust,
        )
        tokenizer.save_pretrained(source)
    task, length = student.settings.task, student.settings.training.max_length
    write_settings(folder, text=task.text, max_length=length, truncation=task.truncation)
    return model


# --- ONNX ------------------------------------------------------------------------------------------------------------


def _convert(
    model: PreTrainedModel,
    folder: Path,
    student: Student,
    home: Home,
    *,
    int8: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """What was found of the ONNX files that are written into `folder`: `onnx`, and `int8` or None."""
    tokens = _validation(model, folder, student, home.cache)
    say(f"onnx: exporting {student.id.name}")
    onnx_format.convert(model, folder / ONNX)
    whole = OnnxModel(folder / ONNX)
    say("onnx: comparing with torch")
    made: dict[str, Any] = (
        {"file": ONNX} | onnx_format.check_equal(model, whole, tokens) | whole.facts(tokens)
    )
    if not int8:
        return {"onnx": made, "int8": None}
    say(f"int8: quantizing, and judging before and after on {len(tokens):,} rows of validation")
    onnx_format.quantize(folder / ONNX, folder / INT8)
    small, task = OnnxModel(folder / INT8), student.settings.task
    before, after = (
        metric_named(task.metric).score(tokens.labels, task.kind.predictions(one.predict(tokens)))
        for one in (whole, small)
    )
    return {
        "onnx": made,
        "int8": {"file": INT8, "before": before, "after": after, "rows": len(tokens)}
        | small.facts(tokens),
    }


def _validation(
    model: PreTrainedModel, folder: Path, student: Student, cache: Path
) -> TokenizedSplit:
    tokenizer = load_tokenizer(
        str(folder), trust_remote_code=student.settings.student.trust_remote_code
    )
    task, max_length = student.settings.task, student.settings.training.max_length
    rows = load_task(task, cache).validation
    input_format = input_format_of(model, max_length, task.truncation)
    return tokenize_split(rows, tokenizer, input_format, cache=cache)


# --- what was written ------------------------------------------------------------------------------------------------


def _facts(
    sweep: str,
    destination: Path,
    student: Student,
    model: PreTrainedModel,
    report: Report,
    converted: dict[str, Any],
) -> dict[str, Any]:
    metric, result = student.settings.task.metric, student.result
    assert result.best is not None
    id2label: Any = model.config.id2label
    confirm = None
    found = report.strategies.get(student.id.strategy)
    # The seeds confirm the strategy's best trial, and say nothing about another one.
    if found and found.confirm and found.best and found.best.trial == student.id.number:
        confirm = found.confirm.to_json()
    return {
        "sweep": sweep,
        "trial": student.id.name,
        "strategy": student.id.strategy,
        "folder": str(destination),
        "labels": [id2label[i] for i in range(len(id2label))],
        "metric": metric,
        "validation": result.best.metrics[f"validation/{metric}"],
        "test": result.test[metric] if result.test else None,
        "confirm": confirm,
        "student": result.student,
        **converted,
    }


def as_lines(facts: dict[str, Any]) -> list[str]:
    """The facts as a person reads them."""
    metric, confirm, test = facts["metric"], facts["confirm"], facts["test"]
    lines = [
        f"{facts['trial']} of {facts['sweep']}: validation {metric} {facts['validation']:.4f}"
        + (f", test {test:.4f}" if test is not None else "")
    ]
    if confirm and confirm.get("mean") is not None:
        interval = (
            f" (95%: {confirm['ci95'][0]:.4f} to {confirm['ci95'][1]:.4f})"
            if confirm["ci95"]
            else ""
        )
        lines.append(
            f"its settings over {confirm['seeds']} seed{'s' if confirm['seeds'] != 1 else ''}: test {metric} {confirm['mean']:.4f}{interval}"
        )
    if made := facts["onnx"]:
        lines.append(
            f"onnx: {_size(made)}; differs from torch by at most {made['difference']:.1g} in {made['rows']} rows of validation"
        )
    if made := facts["int8"]:
        lines.append(
            f"int8: {_size(made)}; validation {metric} {made['before']:.4f} before, {made['after']:.4f} after ({made['rows']:,} rows)"
        )
    return [*lines, f"written to {facts['folder']}"]


def _size(made: dict[str, Any]) -> str:
    return f"{made['file']}, {made['size_mb']:.3g} MB, {made['latency_ms']:.3g}/{made['latency_p95_ms']:.3g} ms (p50/p95)"
