"""The state of a trial between two steps: what is saved, and how."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from kdsweep.core.data.tokenize import TokenizedSplit
from kdsweep.core.device import random_state, restore_random_state
from kdsweep.core.evaluation.fidelity import fidelity
from kdsweep.core.evaluation.latency import latency
from kdsweep.core.evaluation.metrics import by_split, judge
from kdsweep.core.evaluation.predict import predict
from kdsweep.core.models.describing import parameter_count, size_mb
from kdsweep.core.objective.objective import Objective
from kdsweep.core.settings import TrialSettings
from kdsweep.core.timing import Stopwatch
from kdsweep.core.training.micro_batches import MicroBatches
from kdsweep.core.trial_folder import Evaluation, TrialFolder, TrialResult
from kdsweep.errors import SettingsConflict, TrialDiverged


class TrainingState:
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
        self.place, self.data_keys, self.micro_batches, self.stopwatch = (
            place,
            data_keys,
            micro_batches,
            stopwatch,
        )
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
        *parts, shares, sampled = (
            self.sums.tolist()
        )  # waits for the device: until here it was at work on training
        metrics = {
            f"train/{name}": part / self.summed
            for name, part in zip(self.objective.names, parts, strict=True)
        }
        metrics |= {"train/gradient_share": shares / sampled} | moving
        self.sums.zero_()
        self.summed = 0
        with self.stopwatch("evaluating"):
            logits = predict(self.model, tokens, dtype)
            if not np.isfinite(
                logits
            ).all():  # the step just taken broke the weights; the next one's loss would tell
                raise TrialDiverged(self.step)
            judged = judge(settings.task.metric, tokens.labels, logits) | (
                {} if teacher is None else fidelity(teacher, logits, settings.task.kind)
            )
        metrics |= {f"validation/{name}": value for name, value in judged.items()}
        self.metric = f"validation/{settings.task.metric}"
        self.evaluations.append(
            Evaluation(self.step, epoch, metrics, self.seconds, time.time_ns() // 1_000_000)
        )
        if self.best_index is None or metrics[self.metric] > self.best.metrics[self.metric]:
            self.best_index = len(self.evaluations) - 1
            self.best_weights = (
                None
                if last
                else {
                    name: tensor.detach().clone()
                    for name, tensor in self.model.state_dict().items()
                }
            )
        if not last:  # the last one is followed by the result itself
            self.save()

    def save(self) -> None:
        """Everything that the next step depends on, so that a resumed trial takes the same steps."""
        current_is_best = (
            self.best_index is not None and self.evaluations[self.best_index].step == self.step
        )
        state = {
            "step": self.step,
            "data": self.data_keys,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "projection": self.objective.matching.projection.state_dict()
            if self.objective.matching
            else None,
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
        self.step, self.summed, self.best_index = (
            state["step"],
            state["summed"],
            state["best_index"],
        )
        self.sums[: len(state["sums"])] = state["sums"].to(
            self.device
        )  # earlier versions measured fewer things
        self.evaluations = [Evaluation(**evaluation) for evaluation in state["evaluations"]]
        self.best_weights = state["best_weights"]
        if self.best_weights is None and self.best_index is not None:
            self.best_weights = {name: tensor.clone() for name, tensor in state["model"].items()}
        self.earlier_seconds = state["seconds"]
        restore_random_state(state["random"], self.device)

    def restore_best(self) -> None:
        if self.best_weights is not None:
            self.model.load_state_dict(self.best_weights)

    def judge_test(
        self, settings: TrialSettings, tests: dict[str, TokenizedSplit], dtype: torch.dtype
    ) -> dict[str, float]:
        """What the student reaches on the test split, and on those beside it (`by_split`); its answers on test are kept for whoever compares
        students row by row."""
        with self.stopwatch("evaluating"):
            logits = {name: predict(self.model, tokens, dtype) for name, tokens in tests.items()}
            judged = {
                name: judge(settings.task.metric, tests[name].labels, logits[name])
                for name in tests
            }
        with self.stopwatch("saving"):
            self.place.write_test_logits(logits["test"])
        return by_split(judged)

    def finish(
        self,
        test: dict[str, float] | None,
        latency_tokens: TokenizedSplit,
        save_student: Callable[[], None],
    ) -> TrialResult:
        with self.stopwatch("evaluating"):
            student = {
                "parameters": float(parameter_count(self.model)),
                "size_mb": size_mb(self.model),
                **latency(self.model, latency_tokens),
            }
        with self.stopwatch("saving"):
            save_student()
            self.place.write_evaluations(self.evaluations)
            result = TrialResult(
                "complete",
                self.step,
                self.seconds,
                self.best,
                student,
                micro_batch=self.micro_batches.halved_to,
                test=test,
            )
            self.place.write_result(result)
        return result


def check_same_rows(saved: dict[str, str], now: dict[str, str], place: TrialFolder) -> None:
    """Raise SettingsConflict unless the splits that a trial was saved with are those of now, as far as these are known yet."""
    if changed := [name for name, key in saved.items() if now.get(name, key) != key]:
        raise SettingsConflict(
            f"{place.root} holds a trial that began with other rows: {' and '.join(changed)} changed since; "
            "put the data back as it was, or start the sweep anew with --fresh"
        )
