"""One training loop for every strategy: what differs between them is only which schedules alpha, temperature and learning rate follow."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, get_scheduler

from kdsweep import __version__
from kdsweep.core.data.batches import batches
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.mapped_arrays import joined_arrays
from kdsweep.core.data.rows import Say, Split, TaskData
from kdsweep.core.data.tokenize import TokenizedSplit, joined_tokens, tokenize_split
from kdsweep.core.device import (
    FiniteWatch,
    free_memory,
    pick_device,
    random_state,
    resolve_precision,
    restore_random_state,
    unless_out_of_memory,
)
from kdsweep.core.evaluation.metrics import judge
from kdsweep.core.files import locked, publishing
from kdsweep.core.models.inputs import check_length, input_format_of
from kdsweep.core.models.loading import load_tokenizer, save_model
from kdsweep.core.models.student import load_student, student_source
from kdsweep.core.objective.inner_states import Matching, check_same_tokens
from kdsweep.core.objective.objective import Moment, Objective, mixed, share
from kdsweep.core.schedules import Constant, Schedule
from kdsweep.core.settings import TaskSettings, TeacherSettings, TrialSettings
from kdsweep.core.teachers.artifact import Teacher, find_teacher, frozen_teacher, teacher_key
from kdsweep.core.teachers.fine_tuning import fine_tuning
from kdsweep.core.teachers.logits import teacher_logits
from kdsweep.core.teachers.publishing import publish_teacher
from kdsweep.core.teachers.selection import find_selected, select
from kdsweep.core.timing import Stopwatch
from kdsweep.core.training.dropout import cheap_dropout
from kdsweep.core.training.micro_batches import MicroBatches
from kdsweep.core.training.optimizer import AdamW
from kdsweep.core.training.state import TrainingState, check_same_rows
from kdsweep.core.training.training_rows import TrainingRows, training_rows
from kdsweep.core.trial_folder import Evaluation, TrialFolder, TrialResult
from kdsweep.errors import Interrupted, TrialDiverged

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
    return stopwatch.timing(
        _train(
            settings,
            TrialFolder(Path(folder)),
            Path(cache or default_cache()),
            on_step,
            say,
            stopwatch,
            on_epoch,
        )
    )


def _train(
    settings: TrialSettings,
    place: TrialFolder,
    cache: Path,
    on_step: OnStep,
    say: Say,
    stopwatch: Stopwatch,
    on_epoch: OnEpoch,
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
        check_same_rows(
            saved["data"], data_keys, place
        )  # first of all: other rows would ask for another teacher
    teachers = [
        prepare_teacher(settings.task, one, cache, on_step=on_step, say=say)
        for one in settings.teachers
    ]
    teacher = teachers[0] if teachers else None  # the one that gives layers and inner states
    rows = training_rows(settings, data, teachers, cache, say)
    data_keys |= rows.keys
    if saved is not None:
        check_same_rows(saved["data"], data_keys, place)
    heard = teachers if settings.needs_logits else []
    logits = [_logits_for(one, data, rows.teachers[i], cache, say) for i, one in enumerate(heard)]
    validation_logits = [
        teacher_logits(one, data, cache=cache, split="validation") for one in heard
    ]
    imitated = mixed(validation_logits, data.validation.labels, settings) if heard else None
    metric = settings.task.metric
    together = (
        {f"teachers/{metric}": judge(metric, data.validation.labels, imitated)[metric]}
        if imitated is not None and len(heard) > 1
        else {}
    )

    # 2. The student. The seed comes first: a new head draws its weights from the global generator.
    torch.manual_seed(settings.seed)
    device, training = pick_device(), settings.training
    dtype = resolve_precision(training.precision, device)
    teacher_folder = teacher.folder if teacher else None
    model, tokenizer = load_student(settings.student, data.label_names, teacher_folder, data.kind)
    check_length(
        model, tokenizer, training.max_length, student_source(settings.student, teacher_folder)
    )
    model.to(device)

    def tokenized(split: Split) -> TokenizedSplit:
        input_format = input_format_of(model, training.max_length, settings.task.truncation)
        return tokenize_split(split, tokenizer, input_format, cache=cache, say=say)

    train_tokens, validation_tokens = (
        joined_tokens([tokenized(split) for split in rows.student]),
        tokenized(data.validation),
    )

    # 3. What is minimised, and what moves: optimizer, schedules, and the steps at which to evaluate.
    matching = (
        match_inner_states(settings, model, tokenizer, teacher, data, rows, cache, say)
        if settings.distill.online
        else None
    )
    objective = Objective(settings, model, rows.labels, logits, matching, dtype)
    steps_an_epoch = math.ceil(len(train_tokens) / training.batch_size)
    total_steps = steps_an_epoch * training.epochs
    evaluate_at = evaluation_steps(steps_an_epoch, training.epochs, training.evaluations_per_epoch)
    optimizer = AdamW(
        model,
        training.weight_decay,
        layer_decay=training.layer_decay,
        beside=matching.projection if matching else None,
    )
    scheduler = learning_rates(optimizer, settings, steps_an_epoch, total_steps)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    micro_batches = MicroBatches(training.batch_size, training.accumulation_steps)
    run = TrainingState(
        place, data_keys, objective, optimizer, scheduler, scaler, micro_batches, device, stopwatch
    )
    if saved is not None:
        run.restore(saved)
        yield from run.evaluations
        restore_random_state(
            saved["random"], device
        )  # whoever iterates may have drawn from the same generators
    model.train()
    unfrozen_at = round(training.frozen_until * total_steps)
    model.base_model.requires_grad_(run.step >= unfrozen_at)

    # 4. A step's gradients: in a function, so that nothing holds its tensors any more once it ran out of memory.
    watch = FiniteWatch(device)

    def add_gradients(step: int, batch: np.ndarray, now: Moment) -> Tensor:
        measured, pulls = (
            torch.zeros(len(objective.names), device=device),
            torch.zeros(2, device=device),
        )
        sampled = step % STEPS_A_SAMPLE == 0 or step + 1 in evaluate_at
        parts = [(rows, train_tokens.batch(rows)) for rows in micro_batches.cut(batch)]
        optimizer.read(*(inputs["input_ids"] for _, inputs in parts))
        for rows, inputs in parts:
            share_of_rows = len(rows) / len(
                batch
            )  # micro-batches weigh as many rows as they have: the sum is the batch's mean
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
                order, order_epoch = (
                    batches(train_tokens.lengths, training.batch_size, settings.seed, epoch),
                    epoch,
                )
            if step == unfrozen_at:
                model.base_model.requires_grad_(True)
            now = objective.at(step / total_steps, epoch)
            before = random_state(device)
            while (
                measured := unless_out_of_memory(add_gradients, step, order[position], now)
            ) is None:
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
                run.evaluate(
                    moving,
                    settings,
                    validation_tokens,
                    imitated,
                    dtype,
                    epoch=run.step / steps_an_epoch,
                    last=run.step == total_steps,
                )
                if run.step < total_steps:
                    before = random_state(device)
                    yield run.evaluations[-1]
                    restore_random_state(
                        before, device
                    )  # whoever iterates may have drawn from the same generators
            if run.step < total_steps and on_step(run.step, total_steps):
                run.save()
                raise Interrupted(f"saved at step {run.step} of {total_steps}")
    except TrialDiverged as diverged:
        place.write_result(
            TrialResult(
                "diverged",
                diverged.step,
                run.seconds,
                reason=str(diverged),
                micro_batch=micro_batches.halved_to,
            )
        )
        raise

    # 7. The best evaluation's weights are the result, not the last ones. Only they meet the test split, and only where it is asked for.
    on_step(run.step, total_steps)
    run.restore_best()
    tests = {"test": data.test, **data.more_tests} if settings.judge_test else {}
    test = (
        run.judge_test(settings, {name: tokenized(split) for name, split in tests.items()}, dtype)
        if tests
        else None
    )
    result = run.finish(
        test,
        latency_tokens=validation_tokens,
        save_student=lambda: place.save_student(model, tokenizer, _card(settings, run.best)),
    )
    yield run.evaluations[-1]
    return result


STEPS_A_SAMPLE = 8  # each of these, and the last one before each evaluation, looks at the teacher's share of the gradient


def match_inner_states(
    settings: TrialSettings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    teacher: Teacher | None,
    data: TaskData,
    rows: TrainingRows,
    cache: Path,
    say: Say,
) -> Matching:
    """The terms that run the teacher beside the student, reading the same tokens."""
    assert teacher is not None
    beside, reading = (
        frozen_teacher(teacher, data.label_names, data.kind),
        load_tokenizer(str(teacher.folder)),
    )
    check_same_tokens(settings.distill, tokenizer, reading)
    length = settings.training.max_length
    check_length(beside, reading, length, str(teacher.folder))
    input_format = input_format_of(beside, length, settings.task.truncation)
    tokens = [
        tokenize_split(split, reading, input_format, cache=cache, say=say)
        for split in rows.teachers[0]
    ]
    return Matching(settings.distill, model, beside, joined_tokens(tokens))


def _logits_for(
    teacher: Teacher, data: TaskData, splits: Sequence[Split], cache: Path, say: Say
) -> np.ndarray:
    """The teacher's logits for all rows of the splits, fp32 [rows, classes]."""
    data = data.with_splits(*splits)
    logits = [
        teacher_logits(teacher, data, cache=cache, split=split.name, say=say) for split in splits
    ]
    return joined_arrays(logits)


def evaluation_steps(steps_an_epoch: int, epochs: int, evaluations_an_epoch: int) -> set[int]:
    """After how many optimizer steps to evaluate: evenly in each epoch, always at its end."""
    count = min(evaluations_an_epoch, steps_an_epoch)
    return {
        epoch * steps_an_epoch + round(part * steps_an_epoch / count)
        for epoch in range(epochs)
        for part in range(1, count + 1)
    }


def learning_rates(
    optimizer: torch.optim.Optimizer, settings: TrialSettings, steps_an_epoch: int, total_steps: int
) -> LRScheduler:
    """A number warms up and decays as `training.scheduler` says; a schedule is followed as it is, after the same warm-up."""
    training, schedule = settings.training, settings.learning_rate
    warmup = round(training.warmup * total_steps)
    if isinstance(schedule, Constant):
        for group in optimizer.param_groups:
            group["lr"] *= schedule.value  # a layer's own share of it stays
        name = "constant_with_warmup" if training.scheduler == "constant" else training.scheduler
        return get_scheduler(
            name, optimizer, num_warmup_steps=warmup, num_training_steps=total_steps
        )
    return LambdaLR(
        optimizer,
        lambda step: (
            (step / warmup if step < warmup else 1.0)
            * _at_step(schedule, step, steps_an_epoch, total_steps)
        ),
    )


def _at_step(schedule: Schedule, step: int, steps_an_epoch: int, total_steps: int) -> float:
    return schedule.at(step / total_steps, step // steps_an_epoch)


# --- the teacher -----------------------------------------------------------------------------------------------------


def cached_teacher(task: TaskSettings, teacher: TeacherSettings, cache: Path) -> Teacher | None:
    """The teacher if it was made before."""
    return find_selected(task, teacher, cache)


def prepare_teacher(
    task: TaskSettings,
    teacher: TeacherSettings,
    cache: Path,
    *,
    on_step: OnStep = go_on,
    say: Say = quiet,
) -> Teacher:
    """The teacher from the cache; fine-tuned (or taken over), checked and selected first where it isn't there yet."""
    return select(
        task, teacher, cache, lambda task, one: _one_teacher(task, one, cache, on_step, say), say
    )


def _one_teacher(
    task: TaskSettings, teacher: TeacherSettings, cache: Path, on_step: OnStep, say: Say
) -> Teacher:
    data: TaskData = load_task(task, cache, say=say)
    key = teacher_key(task, teacher, data)
    folder = cache / "teachers" / key
    if (found := find_teacher(folder)) is not None:
        return found
    run = (
        key
        if teacher.epoch is None
        else f"{teacher_key(task, teacher.model_copy(update={'epoch': None}), data)}-epochs"
    )
    work = cache / "teachers" / f"{run}-training"
    with locked(
        cache / "teachers" / f"{run}.lock",
        lambda: say("teacher: another process is making it; waiting"),
    ):  # two sweeps that need the same teacher: one trains it
        if (found := find_teacher(folder)) is not None:
            return found
        seconds, source = 0.0, Path(teacher.checkpoint or "")
        if teacher.model:
            source = (
                work / "student" if teacher.epoch is None else _after_epoch(work, teacher.epoch)
            )
            if not source.exists() and TrialFolder(work).result.exists():
                shutil.rmtree(
                    work
                )  # the teacher was removed from the cache by hand: its weights went there, so they are made again
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


def _fine_tune(
    task: TaskSettings,
    teacher: TeacherSettings,
    work: Path,
    source: Path,
    cache: Path,
    on_step: OnStep,
    say: Say,
) -> float:
    """Fine-tune until `source` is there; it goes on later for a teacher of a later epoch. Returns the seconds that it took."""
    assert teacher.model is not None
    seconds, rows = 0.0, len(load_task(task, cache).train)
    say(f"teacher: fine-tuning {teacher.model} on {rows:,} rows, {teacher.training.epochs} epochs")

    def keep(epoch: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        if teacher.epoch is not None:
            with publishing(_after_epoch(work, epoch)) as beside:
                save_model(model, tokenizer, beside)

    try:
        with closing(
            train(
                fine_tuning(task, teacher),
                work,
                cache=cache,
                on_step=on_step,
                say=say,
                on_epoch=keep,
            )
        ) as training:
            for evaluation in training:
                seconds = evaluation.seconds
                say(
                    f"teacher: epoch {evaluation.epoch:.1f}, validation {task.metric} {evaluation.metrics[f'validation/{task.metric}']:.4f}"
                )
                if (
                    teacher.epoch is not None
                    and source.exists()
                    and evaluation.epoch >= teacher.epoch
                ):
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
    teacher = (
        " + ".join(one.source for one in settings.teachers)
        if settings.needs_logits
        else "none (fine-tuned on labels)"
    )
    return (
        f"---\nlibrary_name: transformers\npipeline_tag: text-classification\ntags: [kdsweep, distillation]\n---\n"
        f"# A student trained by kdsweep {__version__}\n\n"
        f"- dataset: {task.dataset}{f' ({task.subset})' if task.subset else ''}\n"
        f"- student: {settings.student.model}{settings.student.shape}\n"
        f"- teacher: {teacher}\n"
        f"- validation {metric}: {best.metrics[f'validation/{metric}']:.4f} (step {best.step})\n\n"
        f"## Settings\n\n```json\n{settings.model_dump_json(indent=2)}\n```\n"
    )
