"""The trials of a sweep without kdsweep: transformers' Trainer, and Optuna's ask and tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Trainer needs it, but complains only when it is made.
import accelerate  # noqa: F401
import numpy as np
import optuna
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from kdsweep.core.data.loading import load_task
from kdsweep.core.models.loading import load_tokenizer
from kdsweep.core.models.student import load_student
from kdsweep.core.settings import TrialSettings
from kdsweep.core.training.step_plan import evaluation_steps


class DistillationTrainer(Trainer):
    """Distills as transformers' guide does, with the teacher in the loss; None while alpha is 1."""

    def __init__(
        self,
        *arguments: Any,
        settings: TrialSettings,
        teacher: PreTrainedModel | None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.settings, self.teacher = settings, teacher

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        outputs = model(**inputs)
        loss = outputs.loss
        if self.teacher is not None and model.training:
            progress = self.state.global_step / self.state.max_steps
            epoch = int(self.state.epoch or 0)
            alpha = self.settings.alpha.at(progress, epoch)
            temperature = self.settings.temperature.at(progress, epoch)
            with torch.no_grad():
                teacher_logits = self.teacher(
                    **{name: value for name, value in inputs.items() if name != "labels"}
                ).logits
            soft = functional.kl_div(
                functional.log_softmax(outputs.logits / temperature, dim=-1),
                functional.softmax(teacher_logits / temperature, dim=-1),
                reduction="batchmean",
            )
            loss = alpha * loss + (1 - alpha) * temperature**2 * soft
        return (loss, outputs) if return_outputs else loss


class EvaluateAt(TrainerCallback):
    """Evaluates after these steps and reports the accuracy to Optuna, where it is a trial."""

    def __init__(self, steps: set[int], trial: optuna.Trial | None) -> None:
        self.steps, self.trial = steps, trial

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
        control.should_evaluate = state.global_step in self.steps
        return control

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float], **more: Any
    ) -> None:
        if self.trial is not None:
            self.trial.report(metrics["eval_accuracy"], state.global_step)


class Loop:
    """The loop's study, and what its trials share: rows, tokens and the teacher, read once."""

    def __init__(self, folder: Path, first: TrialSettings, teacher: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.study = optuna.create_study(
            storage=f"sqlite:///{folder / 'optuna.db'}", direction="maximize"
        )
        self.data = load_task(first.task)
        self.tokenizer = load_tokenizer(first.student.model)
        self.rows = {
            name: self._tokenized(name, first.training.max_length)
            for name in ("train", "validation", "test")
        }
        self.teacher = AutoModelForSequenceClassification.from_pretrained(teacher).eval()

    def _tokenized(self, name: str, max_length: int) -> list[dict[str, Any]]:
        split = self.data.splits[name]
        found = self.tokenizer(split.texts[0], truncation=True, max_length=max_length)
        return [
            {key: values[i] for key, values in found.items()} | {"labels": int(label)}
            for i, label in enumerate(split.labels)
        ]

    def trial(self, settings: TrialSettings) -> float:
        """Train one trial. Returns its best accuracy on validation."""
        trial = self.study.ask()
        trial.set_user_attr("settings", settings.model_dump(mode="json"))
        folder = self.folder / f"trial-{trial.number}"
        trainer = self._train(settings, folder, trial)
        best = float(trainer.state.best_metric)
        trainer.save_model(str(folder / "student"))
        self.study.tell(trial, best)
        return best

    def test_predictions(self, settings: TrialSettings, name: str, seed: int) -> np.ndarray:
        """What a student of another seed predicts for the test split [rows]."""
        again = settings.model_copy(update={"seed": seed})
        trainer = self._train(again, self.folder / f"{name}-seed-{seed}", None)
        found = trainer.predict(self.rows["test"])
        return np.asarray(found.predictions.argmax(axis=1))

    def _train(self, settings: TrialSettings, folder: Path, trial: optuna.Trial | None) -> Trainer:
        training = settings.training
        torch.manual_seed(settings.seed)
        student, _ = load_student(settings.student, self.data.label_names, None)
        steps_an_epoch = -(-len(self.rows["train"]) // training.batch_size)
        steps = evaluation_steps(steps_an_epoch, training.epochs, training.evaluations_per_epoch)
        arguments = TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=training.epochs,
            per_device_train_batch_size=training.batch_size,
            per_device_eval_batch_size=64,
            learning_rate=settings.learning_rate.at(0.0, 0),
            weight_decay=training.weight_decay,
            warmup_steps=round(training.warmup * steps_an_epoch * training.epochs),
            lr_scheduler_type=training.scheduler,
            max_grad_norm=training.gradient_clip or 0.0,
            dataloader_pin_memory=torch.cuda.is_available(),
            eval_strategy="steps",
            # The callback decides when.
            eval_steps=10**9,
            save_strategy="best",
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="accuracy",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=settings.seed,
            bf16=training.precision == "bf16",
            use_cpu=not torch.cuda.is_available(),
        )
        trainer = DistillationTrainer(
            student,
            arguments,
            settings=settings,
            teacher=self.teacher if settings.needs_logits else None,
            data_collator=DataCollatorWithPadding(self.tokenizer),
            train_dataset=self.rows["train"],
            eval_dataset=self.rows["validation"],
            compute_metrics=_accuracy,
            callbacks=[EvaluateAt(steps, trial)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return trainer


def _accuracy(found: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float(np.mean(found.predictions.argmax(axis=1) == found.label_ids))}
