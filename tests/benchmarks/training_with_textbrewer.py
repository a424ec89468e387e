"""Distillation with TextBrewer, after its example examples/notebook_examples/sst2.ipynb
(airaria/TextBrewer).

The notebook pads all rows to 128 tokens; here each batch is padded to its own longest row, so that
TextBrewer isn't slow for that alone. Its loss has no T^2, so the weight of the teacher's term
includes it.
"""

from __future__ import annotations

from typing import Any

import torch
from textbrewer import BasicDistiller, DistillationConfig, GeneralDistiller, TrainingConfig
from torch.utils.data import DataLoader
from training_work import StepClock, Work
from transformers import DataCollatorWithPadding, PreTrainedModel, get_linear_schedule_with_warmup


def textbrewer(work: Work, clock: StepClock) -> PreTrainedModel:
    """What its notebook and its README recommend for one teacher and one task."""
    return _distill(GeneralDistiller, work, clock)


def textbrewer_caching(work: Work, clock: StepClock) -> PreTrainedModel:
    """With its option `is_caching_logits`.

    Batches and the teacher's logits are kept in memory before the first step; epochs repeat the
    same batches.
    """
    return _distill(BasicDistiller, work, clock, is_caching_logits=True)


def _distill(
    distiller_class: type, work: Work, clock: StepClock, **options: object
) -> PreTrainedModel:
    student = work.student()
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=work.learning_rate, weight_decay=work.weight_decay
    )
    optimizer.register_step_post_hook(lambda *arguments: clock.step())
    distiller = distiller_class(
        train_config=TrainingConfig(output_dir=str(work.new_folder()), device=student.device),
        distill_config=DistillationConfig(
            temperature=work.temperature,
            kd_loss_weight=(1 - work.alpha) * work.temperature**2,
            hard_label_weight=work.alpha,
            **options,
        ),
        model_T=work.teacher,
        model_S=student,
        adaptor_T=simple_adaptor,
        adaptor_S=simple_adaptor,
    )
    collate = DataCollatorWithPadding(work.tokenizer)
    rows = DataLoader(
        work.examples(), batch_size=work.batch_size, collate_fn=lambda some: dict(collate(some))
    )  # type: ignore[arg-type]
    with distiller:
        distiller.train(
            optimizer,
            rows,
            num_epochs=1,
            scheduler_class=get_linear_schedule_with_warmup,
            scheduler_args=work.schedule_steps,
            max_grad_norm=work.gradient_clip,
        )
    return student


def simple_adaptor(batch: Any, model_outputs: Any) -> dict[str, Any]:
    return {"logits": model_outputs.logits, "losses": model_outputs.loss}
