"""The state of a trial between two steps: what it measured, and how it is saved and restored."""

from __future__ import annotations

import contextlib
import math
import time

import numpy as np
import torch
from torch import Tensor

from kdsweep import metric_names
from kdsweep.core.device import random_state, restore_random_state
from kdsweep.core.timing import Stopwatch
from kdsweep.core.training.prepare import PreparedTrial
from kdsweep.core.trial_folder import Evaluation, SavedState, known
from kdsweep.errors import DamagedFile

# Of more validation labels than this, what an evaluation predicted is kept for every n-th row.
MOST_KEPT_PREDICTIONS = 1_000_000


class TrainingState:
    """The steps done, the sums since the last evaluation, the evaluations, and the best weights."""

    def __init__(self, trial: PreparedTrial, stopwatch: Stopwatch) -> None:
        self.trial = trial
        self.stopwatch = stopwatch
        self.step = 0
        self.evaluations: list[Evaluation] = []
        self.best_index: int | None = None
        self.best_weights: dict[str, Tensor] | None = None
        self.best_predictions: np.ndarray | None = None
        labels = trial.validation_tokens.labels
        self._kept_rows = slice(None, None, math.ceil(labels.size / MOST_KEPT_PREDICTIONS))
        # Of each evaluation. None if an earlier version, which kept none, began the trial.
        self._predictions: list[np.ndarray] | None = []
        # On the device, so that no step waits for it: the measured quantities, the teacher's share
        # of the gradient, and how many steps looked at that share.
        measured = len(trial.objective.names) + 2
        self.sums = torch.zeros(measured, dtype=torch.float64, device=trial.device)
        self.summed_steps = 0
        self.earlier_seconds = 0.0
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """The trial's own time, over all its attempts."""
        return self.earlier_seconds + time.monotonic() - self.started

    @property
    def is_over(self) -> bool:
        return self.step >= self.trial.plan.total_steps

    @property
    def best(self) -> Evaluation:
        assert self.best_index is not None
        return self.evaluations[self.best_index]

    def after_step(self, measured: Tensor) -> None:
        self.step += 1
        self.sums += measured
        self.summed_steps += 1

    def take_means(self) -> dict[str, float]:
        """`train/...`, means since the last evaluation. Waits for the device."""
        *parts, shares, sampled_steps = self.sums.tolist()
        means = {
            metric_names.train(name): part / self.summed_steps
            for name, part in zip(self.trial.objective.names, parts, strict=True)
        }
        means[metric_names.train("gradient_share")] = shares / sampled_steps
        self.sums.zero_()
        self.summed_steps = 0
        return means

    def add_evaluation(self, metrics: dict[str, float], predictions: np.ndarray) -> None:
        """Keep the evaluation, and the weights and predictions if they are the best so far.

        predictions: for validation.
        """
        epoch = self.step / self.trial.plan.steps_per_epoch
        now = time.time_ns() // 1_000_000
        self.evaluations.append(Evaluation(self.step, epoch, metrics, self.seconds, now))
        if self._predictions is not None:
            self._predictions.append(predictions[self._kept_rows])
        if self.best_index is None or self._is_better(metrics):
            self.best_index = len(self.evaluations) - 1
            self.best_predictions = predictions
            # The last weights stay in the model: no need for a copy.
            self.best_weights = None if self.is_over else self._copied_weights()

    def _is_better(self, metrics: dict[str, float]) -> bool:
        """Whether an evaluation with these metrics is better than the best one so far."""
        if self.trial.best_by_loss:
            loss = metric_names.validation("loss")
            return metrics[loss] < self.best.metrics[loss]
        metric = metric_names.validation(self.trial.settings.task.metric)
        return metrics[metric] > self.best.metrics[metric]

    def _copied_weights(self) -> dict[str, Tensor]:
        weights = self.trial.model.state_dict()
        return {name: tensor.detach().clone() for name, tensor in weights.items()}

    def restore_best(self) -> None:
        """Put the best evaluation's weights into the model."""
        if self.best_weights is not None:
            self.trial.model.load_state_dict(self.best_weights)

    def save(self) -> None:
        """Write everything that the next step depends on: a resumed trial takes the same steps."""
        trial = self.trial
        matching = trial.objective.matching
        best_is_current = self.best_index is not None and self.best.step == self.step
        predictions = self.best_predictions
        state: SavedState = {
            "step": self.step,
            "data": trial.rows.keys,
            "model": trial.model.state_dict(),
            "optimizer": trial.optimizer.state_dict(),
            "projection": matching.projection.state_dict() if matching else None,
            "scheduler": trial.scheduler.state_dict(),
            "scaler": trial.scaler.state_dict(),
            "halvings": trial.micro_batches.halvings,
            "random": random_state(trial.device),
            "sums": self.sums,
            "summed": self.summed_steps,
            "evaluations": [vars(evaluation) for evaluation in self.evaluations],
            "best_index": self.best_index,
            "best_weights": None if best_is_current else self.best_weights,
            "best_predictions": None if predictions is None else torch.from_numpy(predictions),
            "seconds": self.seconds,
        }
        with self.stopwatch("saving"):
            trial.folder.save_state(state)
            self.write_evaluations()

    def write_evaluations(self) -> None:
        """Write what was measured so far, and what was predicted for validation meanwhile."""
        folder = self.trial.folder
        if self._predictions:
            labels = self.trial.validation_tokens.labels[self._kept_rows]
            folder.write_evaluation_predictions(labels, self._predictions)
        folder.write_evaluations(self.evaluations)

    def restore(self) -> None:
        """Load the state that the trial's folder holds, if it holds one."""
        trial = self.trial
        saved = trial.folder.load_state()
        if saved is None:
            return
        trial.model.load_state_dict(saved["model"])
        trial.optimizer.load_state_dict(saved["optimizer"])
        if trial.objective.matching and saved["projection"] is not None:
            trial.objective.matching.projection.load_state_dict(saved["projection"])
        trial.scheduler.load_state_dict(saved["scheduler"])
        trial.scaler.load_state_dict(saved["scaler"])
        trial.micro_batches.halvings = saved["halvings"]
        self.step = saved["step"]
        # Version 0.1.0 and earlier measured fewer quantities.
        self.sums[: len(saved["sums"])] = saved["sums"].to(trial.device)
        self.summed_steps = saved["summed"]
        self.evaluations = [
            Evaluation(**known(Evaluation, evaluation)) for evaluation in saved["evaluations"]
        ]
        self._predictions = self._read_predictions()
        self.best_index = saved["best_index"]
        self.best_weights = saved["best_weights"]
        predictions = saved.get("best_predictions")
        self.best_predictions = None if predictions is None else predictions.numpy()
        if self.best_weights is None and self.best_index is not None:
            self.best_weights = {name: tensor.clone() for name, tensor in saved["model"].items()}
        self.earlier_seconds = saved["seconds"]
        restore_random_state(saved["random"], trial.device)

    def _read_predictions(self) -> list[np.ndarray] | None:
        """What the evaluations so far predicted. A driver that died may have left more of them."""
        with contextlib.suppress(DamagedFile):
            found = self.trial.folder.read_evaluation_predictions()
            if found is not None and len(found[1]) >= len(self.evaluations):
                return list(found[1][: len(self.evaluations)])
        return None if self.evaluations else []
