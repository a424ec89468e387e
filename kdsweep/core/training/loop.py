"""The training loop, the same for every strategy: strategies differ only in their schedules."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdsweep import metric_names
from kdsweep.core.device import (
    free_memory,
    random_state,
    restore_random_state,
    to_device,
    unless_out_of_memory,
)
from kdsweep.core.evaluation.onnx_format import OnnxModel
from kdsweep.core.evaluation.quantized import quantize_saved
from kdsweep.core.models.outputs import saved_in_unit
from kdsweep.core.objective.objective import Moment, share
from kdsweep.core.settings import TrialSettings
from kdsweep.core.tasks.label_scale import LabelScale
from kdsweep.core.timing import Stopwatch
from kdsweep.core.training.callbacks import Callbacks
from kdsweep.core.training.dropout import cheap_dropout
from kdsweep.core.training.judging import judge_test, judge_validation, measure_student
from kdsweep.core.training.model_card import model_card
from kdsweep.core.training.prepare import PreparedTrial, prepare
from kdsweep.core.training.state import TrainingState
from kdsweep.core.training.trial_inputs import TrialInputs
from kdsweep.core.trial_folder import Evaluation, Predicted, TrialFolder, TrialResult
from kdsweep.errors import Interrupted, TrialDiverged

# Looking at the teacher's share of the gradient costs time: every eighth step does it, and the last
# one before each evaluation.
STEPS_PER_SAMPLE = 8

TrialRun = Generator[Evaluation, None, TrialResult]


def run_trial(
    settings: TrialSettings,
    folder: TrialFolder,
    inputs: TrialInputs,
    cache: Path,
    callbacks: Callbacks,
    stopwatch: Stopwatch,
) -> TrialRun:
    """Train a student on rows and with teachers that are ready; see `kdsweep.core.train`."""
    folder.claim(settings)
    if folder.is_over:
        return (yield from finished_trial(folder))
    if folder.drop_damaged_checkpoint():
        callbacks.say(f"{folder.root.name}: its checkpoint can't be read; it starts over")
    folder.note_versions()
    trial = prepare(settings, folder, inputs, cache, callbacks.say, stopwatch)
    state = TrainingState(trial, stopwatch)
    state.restore()
    with _unchanged_random_state(trial):
        yield from state.evaluations
    trial.model.train()
    trial.model.base_model.requires_grad_(state.step >= trial.plan.unfreeze_at)
    stopwatch.switch("training")
    try:
        yield from _train(trial, state, callbacks)
        callbacks.on_step(state.step, trial.plan.total_steps)
        result = _finish(trial, state, callbacks.latency)
    except TrialDiverged as diverged:
        folder.write_result(_diverged(trial, state, diverged))
        raise
    yield state.evaluations[-1]
    return result


def finished_trial(folder: TrialFolder) -> TrialRun:
    """Yield the evaluations of a trial that ended; returns its result or raises TrialDiverged."""
    result = folder.read_result()
    assert result is not None
    yield from folder.read_evaluations()
    if result.state == "diverged":
        raise TrialDiverged(result.steps)
    return result


def _train(
    trial: PreparedTrial, state: TrainingState, callbacks: Callbacks
) -> Iterator[Evaluation]:
    """Take all steps that are left, and yield every evaluation but the last."""
    plan = trial.plan
    for batch in trial.batches_from(state.step):
        moving = _take_step(trial, state, batch, callbacks)
        # Evaluate, save, and only then yield: an evaluation that the caller saw is on disk.
        if state.step in plan.evaluate_after:
            trial.finite_watch.drain()
            trial.optimizer.settle()
            if state.step % plan.steps_per_epoch == 0:
                epoch = state.step // plan.steps_per_epoch
                callbacks.on_epoch(epoch, trial.model, trial.student.tokenizer)
            _evaluate(trial, state, moving)
            if not state.is_over:
                state.save()
                with _unchanged_random_state(trial):
                    yield state.evaluations[-1]
        if not state.is_over and callbacks.on_step(state.step, plan.total_steps):
            state.save()
            raise Interrupted(f"saved at step {state.step} of {plan.total_steps}")


def _take_step(
    trial: PreparedTrial, state: TrainingState, batch: np.ndarray, callbacks: Callbacks
) -> dict[str, float]:
    """One optimizer step; returns the values of the schedules at this step, as metrics.

    Nothing here waits for the device. What a step measures is summed there until an evaluation.
    """
    step, plan, optimizer = state.step, trial.plan, trial.optimizer
    if step == plan.unfreeze_at:
        trial.model.base_model.requires_grad_(True)
    now = trial.objective.at(step / plan.total_steps, step // plan.steps_per_epoch)
    before = random_state(trial.device)
    while (measured := unless_out_of_memory(_add_gradients, trial, step, batch, now)) is None:
        # Repeat the step in smaller parts, without the gradients of the half-done attempt.
        optimizer.zero_grad()
        free_memory(trial.device)
        callbacks.say(trial.micro_batches.halve(step, len(batch)))
        restore_random_state(before, trial.device)
    trial.scaler.unscale_(optimizer)
    if trial.settings.training.gradient_clip is not None:
        optimizer.clip(trial.settings.training.gradient_clip)
    learning_rate = float(max(trial.scheduler.get_last_lr()))
    trial.scaler.step(optimizer)
    trial.scaler.update()
    trial.scheduler.step()
    optimizer.zero_grad()
    state.after_step(measured)
    together = trial.rows.answers.metrics
    return now.metrics | together | {metric_names.train("learning_rate"): learning_rate}


def _add_gradients(trial: PreparedTrial, step: int, batch: np.ndarray, now: Moment) -> Tensor:
    """Add the gradients of a batch to the weights; returns what was measured, fp32 on the device.

    This is a separate function so that nothing holds its tensors after it ran out of memory.
    """
    objective = trial.objective
    measured = torch.zeros(len(objective.names), device=trial.device)
    pulls = torch.zeros(2, device=trial.device)
    sampled = step % STEPS_PER_SAMPLE == 0 or step + 1 in trial.plan.evaluate_after
    parts = [(rows, trial.train_tokens.batch(rows)) for rows in trial.micro_batches_of(batch)]
    trial.optimizer.read(*(inputs["input_ids"] for _, inputs in parts))
    for rows, inputs in parts:
        with cheap_dropout(trial.device):
            loss, found, pulled = objective(inputs, rows, batch, now, sampled=sampled)
        trial.finite_watch.see(step, loss)
        trial.scaler.scale(loss).backward()
        measured += found
        pulls += pulled
    return torch.cat([measured, share(pulls, sampled)])


def _evaluate(trial: PreparedTrial, state: TrainingState, moving: dict[str, float]) -> None:
    means = state.take_means()
    with state.stopwatch("evaluating"):
        validation, predictions = judge_validation(trial, state.step)
    state.add_evaluation(means | moving | validation, predictions)


@contextmanager
def _unchanged_random_state(trial: PreparedTrial) -> Iterator[None]:
    """Keep the random state: the caller may draw random numbers between two evaluations."""
    before = random_state(trial.device)
    yield
    restore_random_state(before, trial.device)


def _diverged(trial: PreparedTrial, state: TrainingState, error: TrialDiverged) -> TrialResult:
    return TrialResult(
        "diverged",
        error.step,
        state.seconds,
        reason=str(error),
        micro_batch=trial.micro_batches.halved_to,
    )


def _finish(
    trial: PreparedTrial, state: TrainingState, latency: Mapping[str, float] | None
) -> TrialResult:
    """Save and measure the student of the best evaluation, and write the result.

    Only these weights are judged on the test split, and only if the settings ask for it. A student
    that is quantized is judged again then: its result is that of the quantized one, and its
    evaluations stay those of the one that was trained.
    """
    state.restore_best()
    best = state.best
    with state.stopwatch("saving"):
        scale = _save_student(trial, best)
    quantized = None
    if trial.settings.student.quantize == "int8":
        with state.stopwatch("evaluating"):
            quantized, best, predicted = _quantize(trial, best, scale)
    else:
        predicted = _best_predicted(trial, state)
    test = None
    if trial.settings.judge_test:
        with state.stopwatch("evaluating"):
            test, logits = judge_test(trial, quantized)
        with state.stopwatch("saving"):
            trial.folder.write_test_logits(logits)
    with state.stopwatch("evaluating"):
        student = measure_student(trial, latency, quantized)
    with state.stopwatch("saving"):
        state.write_evaluations()
        trial.folder.write_validation_predictions(predicted)
        result = TrialResult(
            "complete",
            state.step,
            state.seconds,
            best,
            student,
            micro_batch=trial.micro_batches.halved_to,
            test=test,
        )
        trial.folder.write_result(result)
    return result


def _save_student(trial: PreparedTrial, best: Evaluation) -> LabelScale:
    """Returns what the outputs of the saved model are standardized by."""
    one_row = to_device(trial.validation_tokens.batch(np.arange(1)), trial.device)
    with saved_in_unit(trial.model, one_row):
        scale = LabelScale.of_model(trial.model.config)
        card = model_card(trial.settings, best, scale)
        trial.folder.save_student(trial.model, trial.student.tokenizer, card)
    return scale


def _quantize(
    trial: PreparedTrial, best: Evaluation, scale: LabelScale
) -> tuple[OnnxModel, Evaluation, Predicted]:
    """Quantize the student that was saved, and judge it on validation.

    scale: of the saved model.
    """
    settings = trial.settings
    trusted = settings.student.trust_remote_code
    folder = trial.folder
    quantized = quantize_saved(folder.student, folder.quantizing, trust_remote_code=trusted)
    metrics, predictions = judge_validation(trial, best.step, quantized)
    judged = replace(best, metrics=best.metrics | metrics)
    trial.folder.write_card(model_card(settings, judged, scale))
    return quantized, judged, Predicted(trial.validation_tokens.labels, predictions)


def _best_predicted(trial: PreparedTrial, state: TrainingState) -> Predicted:
    """What the best evaluation predicted for validation. Its weights are in the model."""
    predictions = state.best_predictions
    if predictions is None:
        # It was before a checkpoint that version 0.1.0 wrote.
        with state.stopwatch("evaluating"):
            _, predictions = judge_validation(trial, state.best.step)
    return Predicted(trial.validation_tokens.labels, predictions)
