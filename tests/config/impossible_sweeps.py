"""Values that a sweep file can't have, each with the rule that its error names."""

from __future__ import annotations

from collections.abc import Iterator

from broken_variants import Broken, edited

SWEEPS = [
    ("local", "trials: 20", "trials: 0", "must be at least 1, not 0"),
    ("local", "trials: 20", "trials: -1", "must be at least 1, not -1"),
    ("local", "trials: 20", "trials: 2.5", "must be a whole number"),
    ("local", "trials: 20", "trials: many", "must be a whole number, not 'many'"),
    ("local", "trials: 20", "trials: 20\ntrials: 20", "key 'trials' is there twice"),
    ("local", "type: tpe", "type: tpee", "unknown type 'tpee'; did you mean 'tpe'"),
    ("local", "type: tpe", "type: grid", "grid needs 'choices' or 'step' everywhere"),
    ("local", "seed: 0", "seed: -1", "must be at least 0"),
    ("local", "seed: 0", "seed: .nan", "must be a whole number"),
    ("local", "{type: tpe, seed: 0}", "tpe", "must be a mapping of keys, not 'tpe'"),
    (
        "local",
        "{type: tpe, seed: 0}",
        "{type: random, startup_trials: 3}",
        "unknown key 'startup_trials'",
    ),
    ("local", "# pruner: {type: paired}", "pruner: {type: ashes}", "did you mean 'asha'"),
    (
        "local",
        "# pruner: {type: paired}",
        "pruner: {type: asha, reduction_factor: 1}",
        "must be at least 2",
    ),
    (
        "local",
        "# pruner: {type: paired}",
        "pruner: {type: median, warmup_evaluations: -1}",
        "must be at least 0",
    ),
    (
        "local",
        "# pruner: {type: paired}",
        "pruner: {type: paired, level: 0.5}",
        "must be below 0.5",
    ),
    (
        "local",
        "# pruner: {type: paired}",
        "pruner: {type: paired, min_trials: 0}",
        "must be at least 1",
    ),
    ("local", "hours: null", "hours: 0", "must be above 0"),
    ("local", "hours: null", "hours: -2", "must be above 0"),
    ("local", "hours: null", "hours: .nan", "must be a finite number"),
    ("local", "hours: null", "hours: .inf", "must be a finite number"),
    ("local", "patience: null", "patience: 0", "must be at least 1"),
    ("local", "students: 3", "students: -1", "must be at least 0"),
    ("local", "students: 3", "students: all", "must be a whole number"),
    ("local", "storage: sqlite", "storage: ''", "must not be empty"),
    ("local", "tracking: sqlite", "tracking: 5", "must be text, not 5"),
    ("local", "trials: 20", "start_from: 2024", "start_from: must be text, not 2024; put quotes"),
    ("local", "type: auto", "type: atuo", "auto"),
    ("local", "type: auto", "type: ray, gpus_per_trial: 2", "gpus_per_trial"),
    ("quick", "name: quick", "name: a/b", "a name is 1 to 100"),
    ("quick", "name: quick", "name: ..", "a name is 1 to 100"),
    ("quick", "training.epochs: 1", "training.epochs: 0", "must be at least 1, not 0"),
    (
        "quick",
        "training.epochs: 1",
        "trainin.epochs: 1",
        "unknown key 'trainin'; did you mean 'training'",
    ),
    (
        "quick",
        "training.epochs: 1",
        "training.epoch: 1",
        "unknown key 'epoch'; did you mean 'epochs'",
    ),
    ("quick", "training.epochs: 1", "trials: 1", "'trials' is no key of a search space"),
    ("quick", "training.epochs: 1", "name: other", "'name' is no key of a search space"),
    ("quick", "training.epochs: 1", "training..epochs: 1", "is no key of a search space"),
    ("quick", "training.epochs: 1", "name.first: 1", "is no key of a search space"),
    (
        "quick",
        "training.epochs: 1",
        "task.text.0: 1",
        "task.text is 'sentence', so nothing can be set inside it",
    ),
    (
        "quick",
        "training.epochs: 1",
        "strategies.combined.alpha.any_of.3: 0.5",
        "is a list of 3: it has no '3'",
    ),
    (
        "quick",
        "training.epochs: 1",
        "strategies.combined.alpha.any_of.1.start: {low: 0.7, high: 0.5}",
        "must be below high",
    ),
    (
        "quick",
        "training.epochs: 1",
        "strategies.distill.temperature: 0",
        "temperature must be above 0",
    ),
    ("quick", "training.epochs: 1", "embedded: true", "'embedded' can't be set"),
    ("quick", "train: 800", "trian: 800", "unknown key 'trian'; did you mean 'train'"),
]


def impossible_sweeps() -> Iterator[Broken]:
    for file, old, new, rule in SWEEPS:
        yield edited(file, old, old, new, rule, shift=new.count("\n"))
    yield Broken(
        "quick: set nothing", "quick", "set:\n", 1, "set: expected a mapping of keys, not nothing"
    )
    yield Broken(
        "quick: set a list",
        "quick",
        "trials: 3\nset: [1]\n",
        2,
        "set: expected a mapping of keys, not a list",
    )
