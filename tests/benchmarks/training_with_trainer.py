"""Distillation with transformers' Trainer: a subclass whose loss runs the teacher.

After the guide "Knowledge Distillation for Computer Vision" in transformers' documentation, but for
text: with DataCollatorWithPadding, as in its example run_glue.py.
"""

from __future__ import annotations

# Trainer needs it, but complains only when it is made.
import accelerate  # noqa: F401
import torch
from torch import Tensor, nn
from torch.nn import functional
from training_work import StepClock, Work
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class DistillationTrainer(Trainer):
    def __init__(
        self,
        *arguments: object,
        teacher: PreTrainedModel,
        alpha: float,
        temperature: float,
        **options: object,
    ) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.teacher, self.alpha, self.temperature = teacher, alpha, temperature

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:  # type: ignore[override]
        outputs = model(**inputs)
        with torch.no_grad():
            teacher_logits = self.teacher(**inputs).logits
        soft = functional.kl_div(
            functional.log_softmax(outputs.logits / self.temperature, dim=-1),
            functional.softmax(teacher_logits / self.temperature, dim=-1),
            reduction="batchmean",
        )
        return self.alpha * outputs.loss + (1 - self.alpha) * self.temperature**2 * soft


class Ticking(TrainerCallback):
    def __init__(self, clock: StepClock) -> None:
        self.clock = clock

    def on_step_end(self, *arguments: object, **more: object) -> None:  # type: ignore[override]
        self.clock.step()


def trainer(work: Work, clock: StepClock) -> PreTrainedModel:
    student, folder = work.student(), work.new_folder()
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=work.batch_size,
        learning_rate=work.learning_rate,
        weight_decay=work.weight_decay,
        warmup_steps=work.schedule_steps["num_warmup_steps"],
        lr_scheduler_type="linear",
        max_grad_norm=work.gradient_clip,
        train_sampling_strategy="sequential",  # the rows are in random order already
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        bf16=work.dtype == torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        seed=work.settings.seed,
    )
    training = DistillationTrainer(
        student,
        arguments,
        teacher=work.teacher,
        alpha=work.alpha,
        temperature=work.temperature,
        data_collator=DataCollatorWithPadding(work.tokenizer),
        train_dataset=work.examples(),
        callbacks=[Ticking(clock)],
    )
    training.remove_callback(PrinterCallback)  # it prints the totals once training is done
    training.train()
    return student
