"""Distillation with torchdistill, after its example (yoshitomo-matsubara/torchdistill):
examples/hf_transformers/text_classification.py with
configs/sample/glue/sst2/kd/bert_base_uncased_from_bert_large_uncased.yaml.

As there, KDLoss gets no targets and leaves the labels' term out, so it computes a little less than
the other arms. The example's Accelerator is left out: DistillationBox asks it for `use_fp16`, which
today's accelerate no longer has.
"""

from __future__ import annotations

import importlib.util
import sys
import time

import torch
from measuring import OUT
from training_work import StepClock, Work
from transformers import DataCollatorWithPadding, PreTrainedModel, get_linear_schedule_with_warmup

# Where `pip install --no-deps --target` put it, if it isn't installed as usual.
if importlib.util.find_spec("torchdistill") is None:
    sys.path.append(str(OUT / "torchdistill"))


def import_torchvision() -> None:
    """Import torchvision, which torchdistill needs, even a CUDA build next to a CPU build of torch.

    Its compiled operators can't be loaded then. The import fails where it describes two of them,
    unless they are declared.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}",
                "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            )
        importlib.import_module("torchvision")


import_torchvision()

from torchdistill.common import yaml_util
from torchdistill.core.distillation import DistillationBox, get_distillation_box
from torchdistill.datasets.registry import register_collate_func
from torchdistill.misc.log import MetricLogger, SmoothedValue
from torchdistill.optim.registry import register_scheduler

CONFIG = """\
train:
  log_freq: 500
  num_epochs: 1
  train_data_loader:
    dataset_id: train
    sampler:
      class_or_func: !import_get
        key: 'torch.utils.data.SequentialSampler'  # the rows are in random order already
      kwargs:
    kwargs: {{batch_size: {batch_size}, num_workers: 0, pin_memory: {on_gpu}, drop_last: False}}
    collate_fn: 'DataCollatorWithPadding'
    requires_supp: False
    cache_output:
  teacher:
    forward_proc: 'forward_batch_only_as_kwargs'
    adaptations:
    sequential: []
    wrapper:
    requires_grad: False
    frozen_modules: []
    forward_hook: {{input: [], output: ['classifier']}}
  student:
    forward_proc: 'forward_batch_only_as_kwargs'
    adaptations:
    sequential: []
    wrapper:
    requires_grad: True
    frozen_modules: []
    forward_hook: {{input: [], output: ['classifier']}}
  optimizer:
    key: 'AdamW'
    kwargs: {{lr: {learning_rate}, weight_decay: {weight_decay}}}
    max_grad_norm: {gradient_clip}
    grad_accum_step: 1
  scheduler:
    key: 'get_linear_schedule_with_warmup'
    kwargs: {{num_warmup_steps: {num_warmup_steps}, num_training_steps: {num_training_steps}}}
    scheduling_step: 1
  criterion:
    key: 'WeightedSumLoss'
    kwargs:
      sub_terms:
        kd:
          criterion:
            key: 'KDLoss'
            kwargs:
              student_module_path: 'classifier'
              student_module_io: 'output'
              teacher_module_path: 'classifier'
              teacher_module_io: 'output'
              temperature: {temperature}
              alpha: {alpha}
              reduction: 'batchmean'
          weight: 1.0
"""

register_scheduler(get_linear_schedule_with_warmup)


def torchdistill(work: Work, clock: StepClock) -> PreTrainedModel:
    student = work.student()
    file = work.new_folder() / "kd.yaml"
    file.write_text(
        CONFIG.format(
            batch_size=work.batch_size,
            on_gpu=torch.cuda.is_available(),
            learning_rate=work.learning_rate,
            weight_decay=work.weight_decay,
            gradient_clip=work.gradient_clip,
            temperature=work.temperature,
            alpha=work.alpha,
            **work.schedule_steps,
        ),
        encoding="utf-8",
    )
    config = yaml_util.load_yaml_file(str(file))["train"]
    register_collate_func(DataCollatorWithPadding(work.tokenizer))
    box = get_distillation_box(
        work.teacher, student, {"train": work.examples()}, config, student.device, None, False, 1
    )
    box.pre_epoch_process(epoch=0)
    train_one_epoch(box, config["log_freq"], clock)
    box.clean_modules()
    # clean_modules turned its gradients on.
    work.teacher.requires_grad_(False)
    return student


def train_one_epoch(box: DistillationBox, log_freq: int, clock: StepClock) -> None:
    """The example's function of this name."""
    metric_logger = MetricLogger(delimiter="  ")
    metric_logger.add_meter("lr", SmoothedValue(window_size=1, fmt="{value}"))
    metric_logger.add_meter("sample/s", SmoothedValue(window_size=10, fmt="{value}"))
    for sample_batch in metric_logger.log_every(box.train_data_loader, log_freq, "Epoch: [0]"):
        start = time.time()
        # The example's Accelerator does this.
        sample_batch = sample_batch.to(box.device)
        loss = box.forward_process(sample_batch, targets=None, supp_dict=None)
        box.post_forward_process(loss=loss)
        metric_logger.update(loss=loss.item(), lr=box.optimizer.param_groups[0]["lr"])
        metric_logger.meters["sample/s"].update(len(sample_batch) / (time.time() - start))
        clock.step()
