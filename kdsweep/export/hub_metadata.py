"""What the Hub reads of a model card: its front matter. And which names the Hub knows."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from kdsweep.core.data.sources import PACKAGE, looks_like_a_path
from kdsweep.core.settings import TaskSettings, TrialSettings
from kdsweep.export.facts import ExportFacts

# kdsweep's metric -> the Hub's name, and how a person writes it. A metric of an installed package
# has the same name in all three.
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


def front_matter(settings: TrialSettings, facts: ExportFacts) -> ModelCardData:
    """The card's metadata. The license is left out: the publisher of the model chooses it."""
    task = settings.task
    base = base_model(settings)
    dataset = dataset_of(task)
    metric, _ = HUB_NAMES.get(task.metric, (task.metric, task.metric))
    is_distilled = settings.teacher is not None and settings.needs_logits
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=task.kind.pipeline,
        tags=[
            "kdsweep",
            task.kind.pipeline,
            *(["knowledge-distillation"] if is_distilled else []),
        ],
        base_model=base if is_on_hub(base) else None,
        datasets=[dataset] if is_on_hub(dataset) else None,
        metrics=[metric],
        model_name=f"{facts.sweep}-{facts.trial.name}",
        eval_results=_results(task, facts),
    )


def _results(task: TaskSettings, facts: ExportFacts) -> list[EvalResult]:
    dataset = dataset_of(task)
    metric, title = HUB_NAMES.get(task.metric, (task.metric, task.metric))
    return [
        EvalResult(
            task_type=task.kind.pipeline,
            task_name=task.kind.pipeline_title,
            dataset_type=dataset if is_on_hub(dataset) else "custom",
            dataset_name=short_name(dataset),
            dataset_config=task.subset,
            dataset_split=split,
            metric_type=metric,
            metric_name=title,
            metric_value=value,
        )
        for split, value in (("test", facts.test), ("validation", facts.validation))
        if value is not None
    ]


def base_model(settings: TrialSettings) -> str:
    """Where the student's weights come from; for `model: teacher` those of the teacher."""
    if settings.student.model != "teacher" or settings.teacher is None:
        return settings.student.model
    return settings.teacher.source


def dataset_of(task: TaskSettings) -> str:
    """The dataset that students are trained on."""
    return task.dataset if isinstance(task.dataset, str) else task.dataset["train"]


def is_on_hub(source: str) -> bool:
    """Whether this is a name on the Hub, not a file, folder or package on this machine."""
    is_here = source.startswith(PACKAGE) or looks_like_a_path(source)
    if is_here or Path(source).expanduser().exists():
        return False
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", source) is not None


def short_name(source: str) -> str:
    """A name on the Hub or in a package unchanged, the last part of a path.

    The folders before it are private.
    """
    if is_on_hub(source) or source.startswith(PACKAGE):
        return source
    return Path(source).name or source
