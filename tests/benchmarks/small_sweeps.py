"""Small sweeps that use every part of training once, and the models and data that they read.

Each takes seconds on a CPU. The spaces name their files relative to the folder that `write_inputs`
fills, so they give the same numbers wherever that folder is.
"""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

from conftest import BAD, GOOD, PLAIN, WORDS, make_model, sentences, write_csv

TEACHER = """\
teacher: &teacher
  model: models/bert
  training: {epochs: 4, batch_size: 16, learning_rate: 2.0e-3, max_length: 24, precision: fp32}
"""
STUDENT = "student: {model: models/bert, layers: 1}\n"
FP32 = "precision: fp32"
TRAINING = (
    f"training: {{epochs: 2, batch_size: 16, max_length: 24, evaluations_per_epoch: 2, {FP32}}}\n"
)
REVIEWS = "task: {dataset: data/reviews.csv, text: text, label: label, holdout: 0.2}\n"
RATE = "learning_rate: {low: 2.0e-4, high: 3.0e-3, log: true}"
DISTILL = f"alpha: {{low: 0.0, high: 1.0}}, temperature: {{low: 1.0, high: 10.0}}, {RATE}"

STRATEGIES = f"""\
{REVIEWS}{TEACHER}{STUDENT}{TRAINING}
strategies:
  finetune:
    alpha: 1.0
    {RATE}
    label_smoothing: {{choices: [0.0, 0.1]}}
    start_with: [{{learning_rate: 1.0e-3}}]
  distill:
    {{{DISTILL}, start_with: [{{alpha: 0.5, temperature: 4.0, learning_rate: 1.0e-3}}]}}
  combined:
    alpha:
      any_of:
        - {{shape: per_epoch, values: [0.7, 0.5, 0.3], after: 0.2}}
        - {{shape: linear, start: {{low: 0.0, high: 0.5}}, end: {{low: 0.5, high: 1.0}}}}
        - {{shape: cosine, start: {{low: 0.5, high: 1.0}}, end: {{low: 0.0, high: 0.5}}}}
    temperature:
      any_of:
        - {{low: 1.0, high: 10.0}}
        - {{shape: linear, start: {{low: 4.0, high: 10.0}}, end: 1.0}}
    {RATE}
  distill_then_finetune:
    alpha: {{shape: step, values: [0.0, 1.0], at: {{low: 0.4, high: 0.8}}}}
    temperature: {{low: 1.0, high: 10.0}}
    {RATE}
"""

TEACHERS = f"""\
{REVIEWS}{TEACHER}{STUDENT}{TRAINING}
strategies:
  best_seed: {{{DISTILL}, teacher: {{seeds: 2}}}}
  earlier_epoch: {{{DISTILL}, teacher: {{epoch: {{choices: [2, 3]}}}}}}
  out_of_fold: {{{DISTILL}, teacher: {{folds: 2, training: {{epochs: 10}}}}}}
  mixture:
    alpha: 0.3
    temperature: {{low: 1.0, high: 10.0}}
    learning_rate: 1.0e-3
    distill: {{combine: {{choices: [weights, label_confidence, certainty]}}}}
    teacher:
      - *teacher
      - model: models/electra
        weight: {{low: 0.25, high: 4.0, log: true}}
        training: {{epochs: 4, batch_size: 16, learning_rate: 2.0e-3, max_length: 24}}
"""

AUGMENTATION = f"""\
task:
  dataset: data/reviews.csv
  text: text
  label: label
  holdout: 0.2
  unlabelled: {{dataset: data/more.csv, limit: 40}}
{TEACHER}
student: {{model: teacher, layers: 1}}
training: {{epochs: 1, batch_size: 16, max_length: 24, evaluations_per_epoch: 3, {FP32}}}
strategies:
  masked: {{{DISTILL}, augment: {{views: 1, mask: {{choices: [0.1, 0.3]}}}}}}
  cut_and_swapped: {{{DISTILL}, augment: {{views: 2, ngram: 0.5, swap: 0.3}}}}
  other_words: {{{DISTILL}, augment: {{views: 1, masked_lm: models/masked_lm}}}}
  finetune: {{alpha: 1.0, {RATE}, augment: {{views: 1, swap: 0.3, in_finetuning: true}}}}
"""

WHAT_IS_MATCHED = f"""\
{REVIEWS}{TEACHER}{STUDENT}{TRAINING}
strategies:
  hidden: {{{DISTILL}, distill: {{hidden: {{weight: {{low: 0.1, high: 10.0, log: true}}}}}}}}
  maps: {{{DISTILL}, distill: {{attention: {{weight: 1.0, match: maps, layers: last}}}}}}
  values: {{{DISTILL}, distill: {{attention: {{weight: 1.0, match: values}}}}}}
  cosine: {{alpha: 1.0, learning_rate: 1.0e-3, distill: {{cosine: 0.5}}}}
  inner_states_first:
    alpha: 0.5
    temperature: 3.0
    learning_rate: 1.0e-3
    distill:
      temperature_follows: confidence
      hidden: {{weight: {{shape: step, values: [1.0, 0.0], at: 0.4}}, layers: first}}
  soft_ce: {{{DISTILL}, distill: soft_ce}}
  mse: {{alpha: 0.2, {RATE}, distill: mse}}
  reverse_kl: {{{DISTILL}, distill: {{logits: reverse_kl, temperature_follows: confidence}}}}
"""

REGRESSION = f"""\
task:
  dataset: data/scores.csv
  text: [text, more]
  label: score
  holdout: 0.2
  kind: regression
  metric: pearson_and_spearman
teacher: &teacher
  model: models/bert
  training: {{epochs: 10, batch_size: 16, learning_rate: 3.0e-3, max_length: 32, {FP32}}}
{STUDENT}
training: {{epochs: 2, batch_size: 16, max_length: 32, evaluations_per_epoch: 2, {FP32}}}
strategies:
  finetune: {{alpha: 1.0, {RATE}}}
  distill: {{alpha: {{low: 0.0, high: 1.0}}, {RATE}}}
  logits: {{alpha: 0.2, {RATE}, distill: mse, teacher: [*teacher, *teacher]}}
  hidden: {{alpha: 0.5, {RATE}, distill: {{hidden: 0.5}}}}
"""

# In addition to the kind: a student from scratch, and settings of training that no other sweep
# changes.
MULTI_LABEL = f"""\
task:
  dataset: data/scores.csv
  text: text
  label: [good, bad, long]
  holdout: 0.2
  kind: multi_label
  metric: f1_macro
  truncation: tail
teacher: &teacher
  model: models/bert
  training: {{epochs: 8, batch_size: 16, learning_rate: 3.0e-3, max_length: 12, {FP32}}}
student: {{model: models/bert, start: scratch, layers: {{choices: [1, 2]}}, width: 16}}
training:
  epochs: 2
  batch_size: 16
  max_length: 12
  evaluations_per_epoch: 2
  scheduler: cosine
  {FP32}
strategies:
  finetune:
    alpha: 1.0
    learning_rate: {{shape: linear, start: {{low: 1.0e-3, high: 3.0e-3}}, end: 0.0}}
    warmup: 0.2
  distill: {{{DISTILL}, accumulation_steps: 2, gradient_clip: null, weight_decay: 0.0}}
  layers:
    alpha: 0.5
    temperature: 2.0
    {RATE}
    distill: soft_ce
    layer_decay: {{low: 0.5, high: 1.0}}
    frozen_until: {{low: 0.1, high: 0.6}}
    label_smoothing: {{low: 0.0, high: 0.2}}
  mixture:
    alpha: 0.3
    temperature: 2.0
    {RATE}
    scheduler: constant
    distill: {{combine: certainty}}
    teacher: [*teacher, *teacher]
"""

# A checkpoint of a trial, of a run that confirms one, and of a teacher.
TRIAL = "sweeps/{name}/trials/{trial}/checkpoint/state.pt"
CONFIRM = "sweeps/{name}/confirm/{trial}/checkpoint/state.pt"
OF_A_TEACHER = "cache/**/checkpoint/state.pt"


@dataclass(frozen=True)
class Stop:
    """Where a sweep is killed: when there is a file of this pattern under home.

    pattern: as `Path.glob` reads it; {name} is the sweep's name and {trial} the trial.
    """

    pattern: str
    trial: str = ""

    def glob(self, sweep: str) -> str:
        return self.pattern.format(name=sweep, trial=self.trial)


@dataclass(frozen=True)
class SmallSweep:
    """A space, its sweep as `--set` assignments, and where it is killed and run again, in order.

    mended: strategies whose numbers a mended fault changed since the first release.
    """

    name: str
    space: str
    settings: tuple[str, ...]
    stops: tuple[Stop, ...]
    mended: tuple[str, ...] = ()


def _few(trials: int, *more: str) -> tuple[str, ...]:
    return f"trials={trials}", "engine={type: inline}", "keep={students: 1}", *more


PLAIN_SEARCH = "pruner={type: none}"
LEARNING_SEARCH = "sampler={type: tpe, seed: 3, startup_trials: 2}"

SWEEPS = (
    SmallSweep(
        "strategies",
        STRATEGIES,
        _few(3, LEARNING_SEARCH, "confirm={seeds: 2}"),
        (Stop(CONFIRM, "distill-*-seed-1"),),
    ),
    SmallSweep(
        "teachers",
        TEACHERS,
        _few(2, PLAIN_SEARCH, "confirm={seeds: 0}"),
        (Stop(OF_A_TEACHER), Stop(TRIAL, "mixture-1")),
    ),
    SmallSweep(
        "augmentation",
        AUGMENTATION,
        _few(1, PLAIN_SEARCH, "confirm={seeds: 0}"),
        (Stop(TRIAL, "other_words-0"),),
    ),
    SmallSweep(
        "what-is-matched",
        WHAT_IS_MATCHED,
        _few(1, PLAIN_SEARCH, "confirm={seeds: 0}"),
        (Stop(TRIAL, "maps-0"),),
        # Attention was compared after dropout.
        mended=("maps",),
    ),
    SmallSweep(
        "regression",
        REGRESSION,
        _few(1, PLAIN_SEARCH, "confirm={seeds: 1}"),
        (Stop(TRIAL, "hidden-0"),),
    ),
    SmallSweep(
        "multi-label",
        MULTI_LABEL,
        _few(1, PLAIN_SEARCH, "confirm={seeds: 1}"),
        (Stop(TRIAL, "layers-0"),),
    ),
)


# --- what they read ---


def write_inputs(folder: Path, sweeps: tuple[SmallSweep, ...] = SWEEPS) -> None:
    """Fill `folder` with models/, data/ and NAME.yaml of each sweep."""
    (folder / "models").mkdir(parents=True)
    (folder / "data").mkdir()
    make_model(folder / "models" / "bert", "bert", layers=2)
    # Another architecture that reads other tokens: the words have other numbers.
    other_words = [*WORDS[:5], *reversed(WORDS[5:])]
    make_model(folder / "models" / "electra", "electra", layers=2, words=other_words)
    _make_masked_lm(folder / "models" / "masked_lm")
    write_csv(folder / "data" / "reviews.csv", sentences(140))
    write_csv(folder / "data" / "more.csv", sentences(60, seed=1))
    write_scores(folder / "data" / "scores.csv", 140)
    for sweep in sweeps:
        text = f"name: {sweep.name}\n{sweep.space}"
        (folder / f"{sweep.name}.yaml").write_text(text, encoding="utf-8")


def _make_masked_lm(folder: Path) -> None:
    import torch
    from transformers import AutoModelForMaskedLM

    make_model(folder, "bert", layers=1)
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_pretrained(folder).save_pretrained(folder)


def write_scores(path: Path, rows: int, seed: int = 0) -> None:
    """Texts whose number of good words is the score, 0 to 5.

    The columns good, bad and long say which of the three a text is; `more` is a second text.
    """
    draw = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "more", "score", "good", "bad", "long"))
        for i in range(rows):
            good = i % 6
            words = [draw.choice(GOOD) for _ in range(good)]
            words += [draw.choice(BAD) for _ in range(5 - good)]
            words += [draw.choice(PLAIN) for _ in range(draw.randint(0, 6))]
            draw.shuffle(words)
            more = " ".join(draw.choice(PLAIN) for _ in range(3))
            score = good + draw.choice([0.0, 0.25])
            kinds = (int(good > 0), int(good < 5), int(len(words) > 8))
            writer.writerow((" ".join(words), more, score, *kinds))
