"""One training loop for every strategy: what differs between them is only which schedules alpha, temperature and learning rate follow."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import PreTrainedModel, get_scheduler

from kdsweep import __version__
from kdsweep.core.checkpoint import Evaluation, TrialFolder, TrialResult
from kdsweep.core.data import Say, Split, TaskData, TokenizedSplit, batches, load_task, tokenize_split
from kdsweep.core.device import (
    FiniteWatch,
    autocast,
    free_memory,
    pick_device,
    random_state,
    resolve_precision,
    restore_random_state,
    to_device,
    unless_out_of_memory,
)
from kdsweep.core.evaluate import fidelity, judge, latency, predict
from kdsweep.core.files import locked
from kdsweep.core.losses import distillation_loss, gradient_share, gradient_squares
from kdsweep.core.micro_batches import MicroBatches
from kdsweep.core.models import check_length, load_student, parameter_count, reads_token_types, size_mb, student_source
from kdsweep.core.schedules import Constant, Schedule
from kdsweep.core.settings import TaskSettings, TeacherSettings, TrialSettings
from kdsweep.core.teacher import Teacher, find_teacher, fine_tuning, publish_teacher, teacher_key, teacher_logits
from kdsweep.core.timing import Stopwatch
from kdsweep.errors import Interrupted, SettingsConflict, TrialDiverged

# Called after each optimizer step with the steps done and the steps in all; True asks to save and stop.
OnStep = Callable[[int, int], bool]


def go_on(step: int, total_steps: int) -> bool:
    return False


def quiet(line: str) -> None:
    pass


def default_cache() -> Path:
    return Path(os.environ.get("KDSWEEP_HOME", "runs")) / "cache"


def train(
    settings: TrialSettings,
    folder: Path | str,
    *,
    cache: Path | str | None = None,
    on_step: OnStep = go_on,
    say: Say = quiet,
    stopwatch: Stopwatch | None = None,
) -> Generator[Evaluation, None, TrialResult]:
    """Train a student and yield an `Evaluation` each time it is evaluated; stop iterating to give the trial up.

    A trial that was interrupted goes on where it was saved, after yielding again what it yielded before. When the iteration
    ends by itself, `folder` has `student/` (the best evaluation's weights) and `result.json`; the same result is the
    generator's return value. What doesn't depend on the trial (tokens, the teacher and its logits) is kept in `cache`.

    A step that runs out of memory is done again with micro-batches of half as many rows, and so are all steps after it.
    `stopwatch` counts what the trial takes, but not what whoever iterates does in between.

    Raises Interrupted when `on_step` asked to stop (the trial is saved), TrialDiverged when the loss is not finite, OutOfMemory
    when halving didn't help, SettingsConflict where `folder` holds another trial or one that began with other rows, and
    DataError, ModelError or TeacherError for what can't be used.
    """
    stopwatch = stopwatch or Stopwatch()
    return stopwatch.timing(_train(settings, TrialFolder(Path(folder)), Path(cache or default_cache()), on_step, say, stopwatch))


def _train(
    settings: TrialSettings, place: TrialFolder, cache: Path, on_step: OnStep, say: Say, stopwatch: Stopwatch
) -> Generator[Evaluation, None, TrialResult]:
    place.claim(settings)
    if (result := place.read_result()) is not None:
        yield from place.read_evaluations()
        if result.state == "diverged":
            raise TrialDiverged(result.steps)
        return result

    # 1. Everything that other trials share: rows, tokens, and the teacher's logits where any step weighs them.
    data = load_task(settings.task)
    data_keys = {"train": data.train.key, "validation": data.validation.key}
    if (saved := place.load_state()) is not None:
        check_same_rows(saved["data"], data_keys, place)  # first of all: other rows would ask for another teacher
    teacher = prepare_teacher(settings.task, settings.teacher, cache, on_step=on_step, say=say) if settings.teacher and settings.needs_teacher else None
    logits, validation_logits = (
        teacher_logits(teacher, data, cache=cache, split=split) if teacher and settings.needs_logits else None for split in ("train", "validation")
    )

    # 2. The student. The seed comes first: a new head draws its weights from the global generator.
    torch.manual_seed(settings.seed)
    device, training = pick_device(), settings.training
    dtype = resolve_precision(training.precision, device)
    teacher_folder = teacher.folder if teacher else None
    model, tokenizer = load_student(settings.student, data.label_names, teacher_folder)
    check_length(model, tokenizer, training.max_length, student_source(settings.student, teacher_folder))
    model.to(device)  # type: ignore[arg-type]

    def tokenized(split: Split) -> TokenizedSplit:
        return tokenize_split(split, tokenizer, max_length=training.max_length, token_types=reads_token_types(model), cache=cache, say=say)

    train_tokens, validation_tokens = tokenized(data.train), tokenized(data.validation)

    # 3. What moves: optimizer, schedules, and the steps at which to evaluate.
    steps_an_epoch = math.ceil(len(train_tokens) / training.batch_size)
    total_steps = steps_an_epoch * training.epochs
    evaluate_at = evaluation_steps(steps_an_epoch, training.epochs, training.evaluations_per_epoch)
    optimizer = torch.optim.AdamW(decayed_groups(model, training.weight_decay), lr=1.0, fused=True)
    scheduler = learning_rates(optimizer, settings, steps_an_epoch, total_steps)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    micro_batches = MicroBatches(training.batch_size, training.accumulation_steps)
    run = _Run(place, data_keys, model, optimizer, scheduler, scaler, micro_batches, device, stopwatch)
    if saved is not None:
        run.restore(saved)
        yield from run.evaluations
        restore_random_state(saved["random"], device)  # whoever iterates may have drawn from the same generators
    model.train()

    # 4. A step's gradients: in a function, so that nothing holds its tensors any more once it ran out of memory.
    watch = FiniteWatch(device)

    def add_gradients(step: int, batch: np.ndarray, alpha: float, temperature: float) -> Tensor:
        measured, pulls = torch.zeros(MEASURED, device=device), torch.zeros(2, device=device)
        sampled = step % STEPS_A_SAMPLE == 0 or step + 1 in evaluate_at
        for rows in micro_batches.cut(batch):
            share = len(rows) / len(batch)  # micro-batches weigh as many rows as they have: the sum is the batch's mean
            with autocast(device, dtype):
                student_logits = model(**to_device(train_tokens.batch(rows), device)).logits
            rest = to_device({"labels": data.train.labels[rows]} | ({} if logits is None or alpha == 1 else {"teacher": logits[rows]}), device)
            teachers, labels = rest.get("teacher"), rest["labels"]
            loss = distillation_loss(student_logits, teachers, labels, alpha=alpha, temperature=temperature)
            watch.see(step, loss.total)
            scaler.scale(loss.total * share).backward()
            measured[:3] += torch.stack([part.detach() for part in loss]) * share
            if sampled and teachers is not None:
                pulls += gradient_squares(student_logits, teachers, labels, alpha=alpha, temperature=temperature)
        if sampled:
            measured[3], measured[4] = gradient_share(pulls), 1
        return measured

    # 5. The loop. Nothing in a step waits for the device; what a step measures is summed there and read at the evaluation.
    order, order_epoch = [], -1
    stopwatch.switch("training")
    try:
        while run.step < total_steps:
            step, (epoch, position) = run.step, divmod(run.step, steps_an_epoch)
            if epoch != order_epoch:
                order, order_epoch = batches(train_tokens.lengths, training.batch_size, settings.seed, epoch), epoch
            alpha = settings.alpha.at(step / total_steps, epoch)
            temperature = settings.temperature.at(step / total_steps, epoch)
            before = random_state(device)
            while (measured := unless_out_of_memory(add_gradients, step, order[position], alpha, temperature)) is None:
                optimizer.zero_grad()  # those of the half-done step
                free_memory(device)
                say(micro_batches.halve(step, len(order[position])))
                restore_random_state(before, device)
            scaler.unscale_(optimizer)
            if training.gradient_clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), training.gradient_clip)
            learning_rate = scheduler.get_last_lr()[0]
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            optimizer.zero_grad()
            run.after_step(measured)

            # 6. Evaluate, save, and only then tell: what was yielded is never lost.
            if run.step in evaluate_at:
                watch.drain()
                moving = {"train/alpha": alpha, "train/temperature": temperature, "train/learning_rate": learning_rate}
                run.evaluate(moving, settings, validation_tokens, validation_logits, dtype, epoch=run.step / steps_an_epoch, last=run.step == total_steps)
                if run.step < total_steps:
                    before = random_state(device)
                    yield run.evaluations[-1]
                    restore_random_state(before, device)  # whoever iterates may have drawn from the same generators
            if run.step < total_steps and on_step(run.step, total_steps):
                run.save()
                raise Interrupted(f"saved at step {run.step} of {total_steps}")
    except TrialDiverged as diverged:
        place.write_result(TrialResult("diverged", diverged.step, run.seconds, reason=str(diverged), micro_batch=micro_batches.halved_to))
        raise

    # 7. The best evaluation's weights are the result, not the last ones. Only they meet the test split, and only where it is asked for.
    on_step(run.step, total_steps)
    run.restore_best()
    test = run.judge_test(settings, tokenized(data.test), dtype) if settings.judge_test else None
    result = run.finish(test, latency_tokens=validation_tokens, save_student=lambda: place.save_student(model, tokenizer, _card(settings, run.best)))
    yield run.evaluations[-1]
    return result


# A step measures the loss, its two terms, the teacher's share of the gradient, and whether that was looked at: looking costs up
# to 0.15 ms, some percent of a very small student's step, so only some steps do it, and the last one before each evaluation.
MEASURED = 5
STEPS_A_SAMPLE = 8


class _Run:
    """The state of a trial between two steps: what is saved, and how."""

    def __init__(
        self,
        place: TrialFolder,
        data_keys: dict[str, str],
        model: PreTrainedModel,
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler,
        scaler: torch.amp.GradScaler,
        micro_batches: MicroBatches,
        device: torch.device,
        stopwatch: Stopwatch,
    ) -> None:
        self.place, self.data_keys, self.micro_batches, self.stopwatch = place, data_keys, micro_batches, stopwatch
        self.model, self.optimizer, self.scheduler, self.scaler, self.device = model, optimizer, scheduler, scaler, device
        self.step = 0
        self.evaluations: list[Evaluation] = []
        self.best_index: int | None = None
        self.best_weights: dict[str, Tensor] | None = None
        self.sums = torch.zeros(MEASURED, dtype=torch.float64, device=device)
        self.summed = 0
        self.earlier_seconds = 0.0
        self.started = time.monotonic()
        self.metric: str = ""

    @property
    def seconds(self) -> float:
        return self.earlier_seconds + time.monotonic() - self.started

    @property
    def best(self) -> Evaluation:
        assert self.best_index is not None
        return self.evaluations[self.best_index]

    def after_step(self, measured: Tensor) -> None:
        self.step += 1
        self.sums += measured
        self.summed += 1

    def evaluate(
        self,
        moving: dict[str, float],
        settings: TrialSettings,
        tokens: TokenizedSplit,
        teacher: np.ndarray | None,
        dtype: torch.dtype,
        *,
        epoch: float,
        last: bool,
    ) -> None:
        """Judge the student as it is; `teacher` has the teacher's logits for the same rows, where the trial learns from it."""
        loss, task, distill, shares, sampled = self.sums.tolist()  # waits for the device: until here it was at work on training
        metrics = {"train/loss": loss / self.summed, "train/task_loss": task / self.summed, "train/distill_loss": distill / self.summed}
        metrics |= {"train/gradient_share": shares / sampled} | moving
        self.sums.zero_()
        self.summed = 0
        with self.stopwatch("evaluating"):
            logits = predict(self.model, tokens, dtype)
            if not np.isfinite(logits).all():  # the step just taken broke the weights; the next one's loss would tell
                raise TrialDiverged(self.step)
            judged = judge(settings.task.metric, tokens.labels, logits) | ({} if teacher is None else fidelity(teacher, logits))
        metrics |= {f"validation/{name}": value for name, value in judged.items()}
        self.metric = f"validation/{settings.task.metric}"
        self.evaluations.append(Evaluation(self.step, epoch, metrics, self.seconds, time.time_ns() // 1_000_000))
        if self.best_index is None or metrics[self.metric] > self.best.metrics[self.metric]:
            self.best_index = len(self.evaluations) - 1
            self.best_weights = None if last else {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        if not last:  # the last one is followed by the result itself
            self.save()

    def save(self) -> None:
        """Everything that the next step depends on, so that a resumed trial takes the same steps."""
        current_is_best = self.best_index is not None and self.evaluations[self.best_index].step == self.step
        state = {
            "step": self.step,
            "data": self.data_keys,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "halvings": self.micro_batches.halvings,
            "random": random_state(self.device),
            "sums": self.sums,
            "summed": self.summed,
            "evaluations": [vars(evaluation) for evaluation in self.evaluations],
            "best_index": self.best_index,
            "best_weights": None if current_is_best else self.best_weights,
            "seconds": self.seconds,
        }
        with self.stopwatch("saving"):
            self.place.save_state(state)
            self.place.write_evaluations(self.evaluations)

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.micro_batches.halvings = state["halvings"]
        self.step, self.summed, self.best_index = state["step"], state["summed"], state["best_index"]
        self.sums[: len(state["sums"])] = state["sums"].to(self.device)  # earlier versions measured fewer things
        self.evaluations = [Evaluation(**evaluation) for evaluation in state["evaluations"]]
        self.best_weights = state["best_weights"]
        if self.best_weights is None and self.best_index is not None:
            self.best_weights = {name: tensor.clone() for name, tensor in state["model"].items()}
        self.earlier_seconds = state["seconds"]
        restore_random_state(state["random"], self.device)

    def restore_best(self) -> None:
        if self.best_weights is not None:
            self.model.load_state_dict(self.best_weights)

    def judge_test(self, settings: TrialSettings, tokens: TokenizedSplit, dtype: torch.dtype) -> dict[str, float]:
        """What the student reaches on the test split; its answers are kept for whoever compares students row by row."""
        with self.stopwatch("evaluating"):
            logits = predict(self.model, tokens, dtype)
            judged = judge(settings.task.metric, tokens.labels, logits)
        with self.stopwatch("saving"):
            self.place.write_test_logits(logits)
        return judged

    def finish(self, test: dict[str, float] | None, latency_tokens: TokenizedSplit, save_student: Callable[[], None]) -> TrialResult:
        with self.stopwatch("evaluating"):
            student = {"parameters": float(parameter_count(self.model)), "size_mb": size_mb(self.model), **latency(self.model, latency_tokens)}
        with self.stopwatch("saving"):
            save_student()
            self.place.write_evaluations(self.evaluations)
            result = TrialResult("complete", self.step, self.seconds, self.best, student, micro_batch=self.micro_batches.halved_to, test=test)
            self.place.write_result(result)
        return result


def check_same_rows(saved: dict[str, str], now: dict[str, str], place: TrialFolder) -> None:
    """Raise SettingsConflict unless the splits that a trial was saved with are those of now."""
    if changed := [name for name, key in saved.items() if now[name] != key]:
        raise SettingsConflict(
            f"{place.root} holds a trial that began with other rows: {' and '.join(changed)} changed since; "
            "put the data back as it was, or start the sweep anew with --fresh"
        )


def evaluation_steps(steps_an_epoch: int, epochs: int, evaluations_an_epoch: int) -> set[int]:
    """After how many optimizer steps to evaluate: evenly in each epoch, always at its end."""
    count = min(evaluations_an_epoch, steps_an_epoch)
    return {epoch * steps_an_epoch + round(part * steps_an_epoch / count) for epoch in range(epochs) for part in range(1, count + 1)}


def decayed_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay, biases and the weights of norms don't."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in parameters if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]


def learning_rates(optimizer: torch.optim.Optimizer, settings: TrialSettings, steps_an_epoch: int, total_steps: int) -> LRScheduler:
    """A number warms up and decays as `training.scheduler` says; a schedule is followed as it is, after the same warm-up."""
    training, schedule = settings.training, settings.learning_rate
    warmup = round(training.warmup * total_steps)
    if isinstance(schedule, Constant):
        for group in optimizer.param_groups:
            group["lr"] = schedule.value
        name = "constant_with_warmup" if training.scheduler == "constant" else training.scheduler
        return get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total_steps)
    return LambdaLR(optimizer, lambda step: (step / warmup if step < warmup else 1.0) * _at_step(schedule, step, steps_an_epoch, total_steps))


def _at_step(schedule: Schedule, step: int, steps_an_epoch: int, total_steps: int) -> float:
    return schedule.at(step / total_steps, step // steps_an_epoch)


# --- the teacher -----------------------------------------------------------------------------------------------------


def cached_teacher(task: TaskSettings, teacher: TeacherSettings, cache: Path) -> Teacher | None:
    """The teacher if it was made before."""
    return find_teacher(cache / "teachers" / teacher_key(task, teacher, load_task(task)))


def prepare_teacher(task: TaskSettings, teacher: TeacherSettings, cache: Path, *, on_step: OnStep = go_on, say: Say = quiet) -> Teacher:
    """The teacher from the cache; fine-tuned (or taken over) and checked first where it isn't there yet."""
    data: TaskData = load_task(task)
    key = teacher_key(task, teacher, data)
    folder = cache / "teachers" / key
    if (found := find_teacher(folder)) is not None:
        return found
    work = cache / "teachers" / f"{key}-training"
    with locked(
        cache / "teachers" / f"{key}.lock", lambda: say("teacher: another process is making it; waiting")
    ):  # two sweeps that need the same teacher: one trains it
        if (found := find_teacher(folder)) is not None:
            return found
        seconds, source = 0.0, teacher.checkpoint or ""
        if teacher.model:
            if TrialFolder(work).result.exists() and not TrialFolder(work).student.exists():
                shutil.rmtree(work)  # the teacher was removed from the cache by hand: its student went there, so it is made again
            say(f"teacher: fine-tuning {teacher.model} on {len(data.train):,} rows, {teacher.training.epochs} epochs")
            training = train(fine_tuning(task, teacher), work, cache=cache, on_step=on_step, say=say)
            try:
                for evaluation in training:
                    reached = evaluation.metrics[f"validation/{task.metric}"]
                    say(f"teacher: epoch {evaluation.epoch:.1f}, validation {task.metric} {reached:.4f}")
            except TrialDiverged:
                TrialFolder(work).drop_checkpoint()
                raise
            result = TrialFolder(work).read_result()
            assert result is not None
            seconds, source = result.seconds, str(work / "student")
        made = publish_teacher(
            source,
            folder,
            key=key,
            task=task,
            teacher=teacher,
            data=data,
            cache=cache,
            seconds=seconds,
            training_folder=work if teacher.model else None,
        )
        shutil.rmtree(work / "student", ignore_errors=True)  # the cache has it now; the metrics stay
        return made


def _card(settings: TrialSettings, best: Evaluation) -> str:
    """The student's model card."""
    task, metric = settings.task, settings.task.metric
    teacher = (settings.teacher.model or settings.teacher.checkpoint) if settings.teacher and settings.needs_logits else "none (fine-tuned on labels)"
    return (
        f"---\nlibrary_name: transformers\npipeline_tag: text-classification\ntags: [kdsweep, distillation]\n---\n"
        f"# A student trained by kdsweep {__version__}\n\n"
        f"- dataset: {task.dataset}{f' ({task.subset})' if task.subset else ''}\n"
        f"- student: {settings.student.model}{f', {settings.student.layers} layers' if settings.student.layers else ''}\n"
        f"- teacher: {teacher}\n"
        f"- validation {metric}: {best.metrics[f'validation/{metric}']:.4f} (step {best.step})\n\n"
        f"## Settings\n\n```json\n{settings.model_dump_json(indent=2)}\n```\n"
    )
