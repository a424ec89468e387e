"""Compare kdsweep to what a user would take instead.

    python tests/benchmarks/run.py [NAME ...]       or make bench

Each measurement has a process of its own, prints a table and writes build/benchmarks/NAME.json.
`--profile` shows where that process spent its time.
"""

from __future__ import annotations

import argparse
import cProfile
import importlib
import pstats
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from measuring import keep, show


@dataclass(frozen=True)
class Measurement:
    """The function of the same name in `module`: it gets an empty folder and returns rows."""

    module: str
    about: str


MEASUREMENTS = {
    "slots": Measurement(
        "load", "1,000 trials of a second on 16 slots: how much longer than 62.5 s they take"
    ),
    "trial": Measurement(
        "load",
        "what a trial costs the driver (ask, three reports, tell, MLflow), at trial 100 and 5,000",
    ),
    "driver": Measurement(
        "driver_cost",
        "the driver's share of a core for 64 slots on Ray and 1,000 simulated ones with an "
        "evaluation every 5 s each, and what its 50,000th trial costs",
    ),
    "turnaround": Measurement("load", "how long a slot is idle between two trials"),
    "training": Measurement(
        "training",
        "rows per second of one trial, compared to a bare loop, Trainer and other tools",
    ),
    "start": Measurement(
        "sweeps", "from the start of a second sweep's process to its first training step"
    ),
    "sweep": Measurement(
        "sweeps",
        "a whole sweep on one slot, compared to Trainer and Optuna in a loop with the same trials",
    ),
    "slots_cpu": Measurement(
        "sweeps", "one slot per core against one slot of all cores: bare training, whole sweeps"
    ),
    "questions": Measurement(
        "questions", "how often answers to a sweep's questions claim an effect that isn't there"
    ),
    "pruning": Measurement("pruning", "the steps that asha saves, and the accuracy it costs"),
    "paired": Measurement(
        "recorded_curves", "what the default pruner saves and costs on recorded trials of tasks"
    ),
    "lag": Measurement(
        "sampler_lag", "the slots that wait because of the sampler's lag, and what the search finds"
    ),
    "transfer": Measurement(
        "transfer", "trials until a search finds what 20 trials find, with and without `start_from`"
    ),
    "settings": Measurement(
        "simulated_searches",
        "how often a setting is falsely said to be worse than the best one, on made-up sweeps",
    ),
    "finalists": Measurement(
        "finalists", "how much of the winner's curse finalists take away, by simulation"
    ),
    "verdicts": Measurement(
        "verdicts", "how often statements about pairs and the teacher are false, by simulation"
    ),
    "confirm": Measurement(
        "confirm",
        "seeds until it is certain: error rates, trainings, next to AdaStop and always-valid t",
    ),
    "verdict": Measurement(
        "time_to_verdict",
        "time until the best strategy is known, compared to Trainer and Optuna with five seeds",
    ),
    "latency": Measurement(
        "latency",
        "how far repeated figures of one architecture's latency are apart, under load and alone",
    ),
    "growth": Measurement(
        "growth", "how time grows with rows, length, layers and trials, next to pure compute"
    ),
    "memory": Measurement(
        "rows", "the memory of a million rows for one slot and for eight, and of preparing them"
    ),
    "tokenizing": Measurement(
        "rows", "a million rows tokenized, compared to `datasets.map` with all cores"
    ),
    "evaluation": Measurement(
        "rows", "judging a student in batches of similar length, compared to those in file order"
    ),
}


def main() -> None:
    listed = "\n".join(f"{name:<12} {one.about}" for name, one in MEASUREMENTS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{listed}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[[], *MEASUREMENTS], metavar="NAME")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    names = arguments.names or list(MEASUREMENTS)
    if len(names) == 1:
        run(names[0], profiled=arguments.profile)
        return
    # In one process, a measurement would inherit another's memory, threads and imports. If one
    # fails, the others still run.
    options = ["--profile"] if arguments.profile else []
    failed = [
        name
        for name in names
        if subprocess.run([sys.executable, __file__, name, *options]).returncode
    ]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run(name: str, *, profiled: bool) -> None:
    measure = getattr(importlib.import_module(MEASUREMENTS[name].module), name)
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory(prefix="kdsweep-bench-") as folder:
        rows = profile.runcall(measure, Path(folder)) if profiled else measure(Path(folder))
    print(show(name, rows), flush=True)
    keep(name, rows)
    if profiled:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(60)


if __name__ == "__main__":
    main()
