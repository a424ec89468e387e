"""One training loop for every strategy: what differs between them is only which schedules alpha, temperature and learning rate follow."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, get_scheduler

from kdsweep import __version__
from kdsweep.core.checkpoint import Evaluation, TrialFolder, TrialResult
from kdsweep.core.data import load_task
from kdsweep.core.device import (
    FiniteWatch,
    free_memory,
    pick_device,
    random_state,
    resolve_precision,
    restore_random_state,
    unless_out_of_memory,
)
from kdsweep.core.dropout import cheap_dropout
from kdsweep.core.evaluate import by_split, fidelity, judge, latency, predict
from kdsweep.core.files import locked, publishing
from kdsweep.core.matching import Matching, check_same_tokens
from kdsweep.core.micro_batches import MicroBatches
from kdsweep.core.models import check_length, load_student, load_tokenizer, parameter_count, reads_token_types, save_model, size_mb, student_source
from kdsweep.core.objective import Moment, Objective, mixed, share
from kdsweep.core.optimizer import AdamW
from kdsweep.core.rows import Say, Split, TaskData
from kdsweep.core.schedules import Constant, Schedule
from kdsweep.core.selection import find_selected, select
from kdsweep.core.settings import TaskSettings, TeacherSettings, TrialSettings
from kdsweep.core.teacher import Teacher, find_teacher, fine_tuning, frozen_teacher, publish_teacher, teacher_key, teacher_logits
from kdsweep.core.timing import Stopwatch
from kdsweep.core.tokens import TokenizedSplit, batches, joined_tokens, tokenize_split
from kdsweep.core.views import Part, joined, training_parts, with_parts
from kdsweep.errors import Interrupted, SettingsConflict, TrialDiverged

# Called after each optimizer step with the steps done and the steps in all; True asks to save and stop.
OnStep = Callable[[int, int], bool]


def go_on(step: int, total_steps: int) -> bool:
    return False


# Called after each epoch with its number, from 1, the student and its tokenizer.
OnEpoch = Callable[[int, PreTrainedModel, PreTrainedTokenizerBase], None]


def pass_by(epoch: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    pass


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
    on_epoch: OnEpoch = pass_by,
) -> Generator[Evaluation, None, TrialResult]:
    """Train a student and yield an `Evaluation` each time it is evaluated; stop iterating to give the trial up.

    A trial that was interrupted goes on where it was saved, after yielding again what it yielded before. When the iteration
    ends by itself, `folder` has `student/` (the best evaluation's weights) and `result.json`; the same result is the
    generator's return value. What doesn't depend on the trial (tokens, the teacher and its logits) is kept in `cache`.

    A step that runs out of memory is done again with micro-batches of half as many rows, and so are all steps after it.
    `stopwatch` counts what the trial takes, but not what whoever iterates does in between. `on_epoch` sees the student after
    each epoch, before it is evaluated and saved: after an interruption it may see the same epoch again.

    Raises Interrupted when `on_step` asked to stop (the trial is saved), TrialDiverged when the loss is not finite, OutOfMemory
    when halving didn't help, SettingsConflict where `folder` holds another trial or one that began with other rows, and
    DataError, ModelError or TeacherError for what can't be used.
    """
    stopwatch = stopwatch or Stopwatch()
    return stopwatch.timing(_train(settings, TrialFolder(Path(folder)), Path(cache or default_cache()), on_step, say, stopwatch, on_epoch))


def _train(
    settings: TrialSettings, place: TrialFolder, cache: Path, on_step: OnStep, say: Say, stopwatch: Stopwatch, on_epoch: OnEpoch
) -> Generator[Evaluation, None, TrialResult]:
    place.claim(settings)
    if (result := place.read_result()) is not None:
        yield from place.read_evaluations()
        if result.state == "diverged":
            raise TrialDiverged(result.steps)
        return result

    # 1. Everything that other trials share: rows, tokens, and the teacher's logits where any step weighs them.
    data = load_task(settings.task, cache, say=say)
    data_keys = {"train": data.train.key, "validation": data.validation.key}
    if (saved := place.load_state()) is not None:
        check_same_rows(saved["data"], data_keys, place)  # first of all: other rows would ask for another teacher
    teachers = [prepare_teacher(settings.task, one, cache, on_step=on_step, say=say) for one in settings.teachers]
    teacher = teachers[0] if teachers else None  # the one that gives layers and inner states
    parts = training_parts(settings, data, teachers, cache, say)
    data_keys |= {part.student.name: part.student.key for part in parts}
    if saved is not None:
        check_same_rows(saved["data"], data_keys, place)
    heard = teachers if settings.needs_logits else []
    read = [with_parts(data, parts, i) for i in range(len(heard))]  # by each of them
    logits = [joined([teacher_logits(one, read[i], cache=cache, split=part.student.name, say=say) for part in parts]) for i, one in enumerate(heard)]
    validation_logits = [teacher_logits(one, data, cache=cache, split="validation") for one in heard]
    imitated = mixed(validation_logits, data.validation.labels, settings) if heard else None
    metric = settings.task.metric
    together = {f"teachers/{metric}": judge(metric, data.validation.labels, imitated)[metric]} if imitated is not None and len(heard) > 1 else {}

    # 2. The student. The seed comes first: a new head draws its weights from the global generator.
    torch.manual_seed(settings.seed)
    device, training = pick_device(), settings.training
    dtype = resolve_precision(training.precision, device)
    teacher_folder = teacher.folder if teacher else None
    model, tokenizer = load_student(settings.student, data.label_names, teacher_folder, data.kind)
    check_length(model, tokenizer, training.max_length, student_source(settings.student, teacher_folder))
    model.to(device)

    def tokenized(split: Split) -> TokenizedSplit:
        how: dict[str, Any] = {"max_length": training.max_length, "truncation": settings.task.truncation}
        return tokenize_split(split, tokenizer, token_types=reads_token_types(model), cache=cache, say=say, **how)

    train_tokens, validation_tokens = joined_tokens([tokenized(part.student) for part in parts]), tokenized(data.validation)

    # 3. What is minimised, and what moves: optimizer, schedules, and the steps at which to evaluate.
    matching = match_inner_states(settings, model, tokenizer, teacher, data, parts, cache, say) if settings.distill.online else None
    objective = Objective(settings, model, joined([part.student.labels for part in parts]), logits, matching, dtype)
    steps_an_epoch = math.ceil(len(train_tokens) / training.batch_size)
    total_steps = steps_an_epoch * training.epochs
    evaluate_at = evaluation_steps(steps_an_epoch, training.epochs, training.evaluations_per_epoch)
    optimizer = AdamW(model, training.weight_decay, layer_decay=training.layer_decay, beside=matching.projection if matching else None)
    scheduler = learning_rates(optimizer, settings, steps_an_epoch, total_steps)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    micro_batches = MicroBatches(training.batch_size, training.accumulation_steps)
    run = _Run(place, data_keys, objective, optimizer, scheduler, scaler, micro_batches, device, stopwatch)
    if saved is not None:
        run.restore(saved)
        yield from run.evaluations
        restore_random_state(saved["random"], device)  # whoever iterates may have drawn from the same generators
    model.train()
    unfrozen_at = round(training.frozen_until * total_steps)
    model.base_model.requires_grad_(run.step >= unfrozen_at)

    # 4. A step's gradients: in a function, so that nothing holds its tensors any more once it ran out of memory.
    watch = FiniteWatch(device)

    def add_gradients(step: int, batch: np.ndarray, now: Moment) -> Tensor:
        measured, pulls = torch.zeros(len(objective.names), device=device), torch.zeros(2, device=device)
        sampled = step % STEPS_A_SAMPLE == 0 or step + 1 in evaluate_at
        parts = [(rows, train_tokens.batch(rows)) for rows in micro_batches.cut(batch)]
        optimizer.read(*(inputs["input_ids"] for _, inputs in parts))
        for rows, inputs in parts:
            share_of_rows = len(rows) / len(batch)  # micro-batches weigh as many rows as they have: the sum is the batch's mean
            with cheap_dropout(device):
                loss, found, pulled = objective(inputs, rows, now, sampled=sampled)
            watch.see(step, loss)
            scaler.scale(loss * share_of_rows).backward()
            measured += found * share_of_rows
            pulls += pulled
        return torch.cat([measured, share(pulls, sampled)])

    # 5. The loop. Nothing in a step waits for the device; what a step measures is summed there and read at the evaluation.
    order: Sequence[np.ndarray] = ()
    order_epoch = -1
    stopwatch.switch("training")
    try:
        while run.step < total_steps:
            step, (epoch, position) = run.step, divmod(run.step, steps_an_epoch)
            if epoch != order_epoch:
                order, order_epoch = batches(train_tokens.lengths, training.batch_size, settings.seed, epoch), epoch
            if step == unfrozen_at:
                model.base_model.requires_grad_(True)
            now = objective.at(step / total_steps, epoch)
            before = random_state(device)
            while (measured := unless_out_of_memory(add_gradients, step, order[position], now)) is None:
                optimizer.zero_grad()  # those of the half-done step
                free_memory(device)
                say(micro_batches.halve(step, len(order[position])))
                restore_random_state(before, device)
            scaler.unscale_(optimizer)
            if training.gradient_clip is not None:
                optimizer.clip(training.gradient_clip)
            learning_rate = float(max(scheduler.get_last_lr()))
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            optimizer.zero_grad()
            run.after_step(measured)

            # 6. Evaluate, save, and only then tell: what was yielded is never lost.
            if run.step in evaluate_at:
                watch.drain()
                optimizer.settle()
                if run.step % steps_an_epoch == 0:
                    on_epoch(run.step // steps_an_epoch, model, tokenizer)
                moving = now.metrics | together | {"train/learning_rate": learning_rate}
                run.evaluate(moving, settings, validation_tokens, imitated, dtype, epoch=run.step / steps_an_epoch, last=run.step == total_steps)
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
    tests = {"test": data.test, **data.more_tests} if settings.judge_test else {}
    test = run.judge_test(settings, {name: tokenized(split) for name, split in tests.items()}, dtype) if tests else None
    result = run.finish(test, latency_tokens=validation_tokens, save_student=lambda: place.save_student(model, tokenizer, _card(settings, run.best)))
    yield run.evaluations[-1]
    return result


STEPS_A_SAMPLE = 8  # each of these, and the last one before each evaluation, looks at the teacher's share of the gradient


def match_inner_states(
    settings: TrialSettings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    teacher: Teacher | None,
    data: TaskData,
    parts: Sequence[Part],
    cache: Path,
    say: Say,
) -> Matching:
    """The terms that run the teacher beside the student, reading the same tokens."""
    assert teacher is not None
    beside, reading = frozen_teacher(teacher, data.label_names, data.kind), load_tokenizer(str(teacher.folder))
    check_same_tokens(settings.distill, tokenizer, reading)
    length = settings.training.max_length
    check_length(beside, reading, length, str(teacher.folder))
    how: dict[str, Any] = {"max_length": length, "token_types": reads_token_types(beside), "cache": cache, "truncation": settings.task.truncation, "say": say}
    return Matching(settings.distill, model, beside, joined_tokens([tokenize_split(part.teachers[0], reading, **how) for part in parts]))


class _Run:
    """The state of a trial between two steps: what is saved, and how."""

    def __init__(
        self,
        place: TrialFolder,
        data_keys: dict[str, str],
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler,
        scaler: torch.amp.GradScaler,
        micro_batches: MicroBatches,
        device: torch.device,
        stopwatch: Stopwatch,
    ) -> None:
        self.place, self.data_keys, self.micro_batches, self.stopwatch = place, data_keys, micro_batches, stopwatch
        self.objective, self.model, self.device = objective, objective.model, device
        self.optimizer, self.scheduler, self.scaler = optimizer, scheduler, scaler
        self.step = 0
        self.evaluations: list[Evaluation] = []
        self.best_index: int | None = None
        self.best_weights: dict[str, Tensor] | None = None
        self.sums = torch.zeros(len(objective.names) + 2, dtype=torch.float64, device=device)
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
        *parts, shares, sampled = self.sums.tolist()  # waits for the device: until here it was at work on training
        metrics = {f"train/{name}": part / self.summed for name, part in zip(self.objective.names, parts, strict=True)}
        metrics |= {"train/gradient_share": shares / sampled} | moving
        self.sums.zero_()
        self.summed = 0
        with self.stopwatch("evaluating"):
            logits = predict(self.model, tokens, dtype)
            if not np.isfinite(logits).all():  # the step just taken broke the weights; the next one's loss would tell
                raise TrialDiverged(self.step)
            judged = judge(settings.task.metric, tokens.labels, logits) | ({} if teacher is None else fidelity(teacher, logits, settings.task.kind))
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
            "projection": self.objective.matching.projection.state_dict() if self.objective.matching else None,
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
        if self.objective.matching:
            self.objective.matching.projection.load_state_dict(state["projection"])
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

    def judge_test(self, settings: TrialSettings, tests: dict[str, TokenizedSplit], dtype: torch.dtype) -> dict[str, float]:
        """What the student reaches on the test split, and on those beside it (`by_split`); its answers on test are kept for whoever compares
        students row by row."""
        with self.stopwatch("evaluating"):
            logits = {name: predict(self.model, tokens, dtype) for name, tokens in tests.items()}
            judged = {name: judge(settings.task.metric, tests[name].labels, logits[name]) for name in tests}
        with self.stopwatch("saving"):
            self.place.write_test_logits(logits["test"])
        return by_split(judged)

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
    """Raise SettingsConflict unless the splits that a trial was saved with are those of now, as far as these are known yet."""
    if changed := [name for name, key in saved.items() if now.get(name, key) != key]:
        raise SettingsConflict(
            f"{place.root} holds a trial that began with other rows: {' and '.join(changed)} changed since; "
            "put the data back as it was, or start the sweep anew with --fresh"
        )


def evaluation_steps(steps_an_epoch: int, epochs: int, evaluations_an_epoch: int) -> set[int]:
    """After how many optimizer steps to evaluate: evenly in each epoch, always at its end."""
    count = min(evaluations_an_epoch, steps_an_epoch)
    return {epoch * steps_an_epoch + round(part * steps_an_epoch / count) for epoch in range(epochs) for part in range(1, count + 1)}


def learning_rates(optimizer: torch.optim.Optimizer, settings: TrialSettings, steps_an_epoch: int, total_steps: int) -> LRScheduler:
    """A number warms up and decays as `training.scheduler` says; a schedule is followed as it is, after the same warm-up."""
    training, schedule = settings.training, settings.learning_rate
    warmup = round(training.warmup * total_steps)
    if isinstance(schedule, Constant):
        for group in optimizer.param_groups:
            group["lr"] *= schedule.value  # a layer's own share of it stays
        name = "constant_with_warmup" if training.scheduler == "constant" else training.scheduler
        return get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total_steps)
    return LambdaLR(optimizer, lambda step: (step / warmup if step < warmup else 1.0) * _at_step(schedule, step, steps_an_epoch, total_steps))


def _at_step(schedule: Schedule, step: int, steps_an_epoch: int, total_steps: int) -> float:
    return schedule.at(step / total_steps, step // steps_an_epoch)


# --- the teacher -----------------------------------------------------------------------------------------------------


def cached_teacher(task: TaskSettings, teacher: TeacherSettings, cache: Path) -> Teacher | None:
    """The teacher if it was made before."""
    return find_selected(task, teacher, cache)


def prepare_teacher(task: TaskSettings, teacher: TeacherSettings, cache: Path, *, on_step: OnStep = go_on, say: Say = quiet) -> Teacher:
    """The teacher from the cache; fine-tuned (or taken over), checked and selected first where it isn't there yet."""
    return select(task, teacher, cache, lambda task, one: _one_teacher(task, one, cache, on_step, say), say)


def _one_teacher(task: TaskSettings, teacher: TeacherSettings, cache: Path, on_step: OnStep, say: Say) -> Teacher:
    data: TaskData = load_task(task, cache, say=say)
    key = teacher_key(task, teacher, data)
    folder = cache / "teachers" / key
    if (found := find_teacher(folder)) is not None:
        return found
    run = key if teacher.epoch is None else f"{teacher_key(task, teacher.model_copy(update={'epoch': None}), data)}-epochs"
    work = cache / "teachers" / f"{run}-training"
    with locked(
        cache / "teachers" / f"{run}.lock", lambda: say("teacher: another process is making it; waiting")
    ):  # two sweeps that need the same teacher: one trains it
        if (found := find_teacher(folder)) is not None:
            return found
        seconds, source = 0.0, Path(teacher.checkpoint or "")
        if teacher.model:
            source = work / "student" if teacher.epoch is None else _after_epoch(work, teacher.epoch)
            if not source.exists() and TrialFolder(work).result.exists():
                shutil.rmtree(work)  # the teacher was removed from the cache by hand: its weights went there, so they are made again
            seconds = _fine_tune(task, teacher, work, source, cache, on_step, say)
            if not source.exists():  # the same, of a run that was stopped past this epoch
                shutil.rmtree(work)
                seconds = _fine_tune(task, teacher, work, source, cache, on_step, say)
        made = publish_teacher(
            teacher.checkpoint or source,
            folder,
            key=key,
            task=task,
            teacher=teacher,
            data=data,
            cache=cache,
            seconds=seconds,
            training_folder=work if teacher.model else None,
        )
        if teacher.model:
            shutil.rmtree(source, ignore_errors=True)  # the cache has it now; the metrics stay
        return made


def _fine_tune(task: TaskSettings, teacher: TeacherSettings, work: Path, source: Path, cache: Path, on_step: OnStep, say: Say) -> float:
    """Fine-tune until `source` is there; it goes on later for a teacher of a later epoch. Returns the seconds that it took."""
    assert teacher.model is not None
    seconds, rows = 0.0, len(load_task(task, cache).train)
    say(f"teacher: fine-tuning {teacher.model} on {rows:,} rows, {teacher.training.epochs} epochs")

    def keep(epoch: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        if teacher.epoch is not None:
            with publishing(_after_epoch(work, epoch)) as beside:
                save_model(model, tokenizer, beside)

    try:
        with closing(train(fine_tuning(task, teacher), work, cache=cache, on_step=on_step, say=say, on_epoch=keep)) as training:
            for evaluation in training:
                seconds = evaluation.seconds
                say(f"teacher: epoch {evaluation.epoch:.1f}, validation {task.metric} {evaluation.metrics[f'validation/{task.metric}']:.4f}")
                if teacher.epoch is not None and source.exists() and evaluation.epoch >= teacher.epoch:
                    break
    except TrialDiverged:
        TrialFolder(work).drop_checkpoint()
        raise
    result = TrialFolder(work).read_result()
    return result.seconds if result is not None and teacher.epoch is None else seconds


def _after_epoch(work: Path, epoch: int) -> Path:
    return work / "epochs" / str(epoch)


def _card(settings: TrialSettings, best: Evaluation) -> str:
    """The student's model card."""
    task, metric = settings.task, settings.task.metric
    teacher = " + ".join(one.source for one in settings.teachers) if settings.needs_logits else "none (fine-tuned on labels)"
    return (
        f"---\nlibrary_name: transformers\npipeline_tag: text-classification\ntags: [kdsweep, distillation]\n---\n"
        f"# A student trained by kdsweep {__version__}\n\n"
        f"- dataset: {task.dataset}{f' ({task.subset})' if task.subset else ''}\n"
        f"- student: {settings.student.model}{settings.student.shape}\n"
        f"- teacher: {teacher}\n"
        f"- validation {metric}: {best.metrics[f'validation/{metric}']:.4f} (step {best.step})\n\n"
        f"## Settings\n\n```json\n{settings.model_dump_json(indent=2)}\n```\n"
    )
