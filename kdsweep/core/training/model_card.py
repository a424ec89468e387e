"""The README.md next to a student's weights."""

from __future__ import annotations

from kdsweep import __version__, metric_names
from kdsweep.core.evaluation.file_costs import INT8_FILE
from kdsweep.core.settings import TrialSettings
from kdsweep.core.tasks.label_scale import PLAIN, LabelScale
from kdsweep.core.trial_folder import Evaluation
from kdsweep.formatting import code_block, in_markdown


def model_card(settings: TrialSettings, best: Evaluation, scale: LabelScale = PLAIN) -> str:
    """The student's model card: Markdown with the metadata that the Hugging Face Hub reads.

    scale: what its raw outputs are standardized by.
    """
    task = settings.task
    subset = f" ({task.subset})" if task.subset else ""
    teacher = "none (fine-tuned on labels)"
    if settings.needs_logits:
        teacher = " + ".join(one.source for one in settings.teachers)
    unit = "" if scale.is_plain else f"- {scale.how_to_convert}\n"
    precision = ""
    if settings.precision != "auto":
        precision = f"- trained in: {settings.precision} (weights: fp32)\n"
    quantized = ""
    if settings.student.quantize == "int8":
        quantized = (
            f"- judged with 8-bit weights: `{INT8_FILE}`, for onnxruntime; the other files are "
            "what it was made of\n"
        )
    reached = best.metrics[metric_names.validation(task.metric)]
    return (
        "---\n"
        "library_name: transformers\n"
        f"pipeline_tag: {task.kind.pipeline}\n"
        "tags: [kdsweep, distillation]\n"
        "---\n"
        f"# A student trained by kdsweep {__version__}\n\n"
        f"- dataset: {in_markdown(task.dataset)}{in_markdown(subset)}\n"
        f"- student: {in_markdown(settings.student.model)}{settings.student.shape}\n"
        f"- teacher: {in_markdown(teacher)}\n{precision}"
        f"- validation {task.metric}: {reached:.4f} (step {best.step})\n{quantized}{unit}\n"
        f"## Settings\n\n{code_block(settings.model_dump_json(indent=2), 'json')}\n"
    )
