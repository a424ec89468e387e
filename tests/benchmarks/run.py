"""kdsweep measured, and beside it what a user would take instead: `python tests/benchmarks/run.py [NAME ...]`, or `make bench`.

Each measurement has a process of its own, prints a table and writes build/benchmarks/NAME.json. `--profile` says where that process spent
its time.
"""

from __future__ import annotations

import argparse
import cProfile
import importlib
import pstats
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from measuring import keep, show

# Each is the function of its name in the module named here: it gets an empty folder and returns rows.
MEASUREMENTS = {
    "slots": (
        "load",
        "1,000 trials of a second on 16 slots: how much longer than 62.5 s they take",
    ),
    "trial": (
        "load",
        "what a trial costs the driver (ask, three reports, tell, MLflow), at 100 trials and at 5,000",
    ),
    "driver": (
        "load",
        "how much of a core the driver needs for 64 slots with an evaluation every 5 s each",
    ),
    "turnaround": ("load", "how long a slot is idle between two trials"),
    "training": (
        "training",
        "rows a second of one trial's training, beside a bare loop, Trainer, torchdistill and TextBrewer",
    ),
    "start": ("sweeps", "from the start of a second sweep's process to its first training step"),
    "sweep": (
        "sweeps",
        "a whole sweep on one slot, beside Trainer and Optuna in a loop with the same trials",
    ),
    "slots_cpu": (
        "sweeps",
        "a slot a core against one slot of all cores: bare training, and whole sweeps",
    ),
    "pruning": ("pruning", "the steps that pruning saves, and the accuracy that it costs"),
    "growth": (
        "growth",
        "how time grows with rows, length, layers and trials, beside pure compute",
    ),
    "memory": (
        "rows",
        "what a million rows take in memory for one slot and for eight, and what preparing them takes",
    ),
    "tokenizing": (
        "rows",
        "a million rows made into tokens, beside `datasets.map` with the same tokenizer and all cores",
    ),
    "evaluation": (
        "rows",
        "judging a student in batches of similar length, beside batches in the file's order",
    ),
}


def main() -> None:
    listed = "\n".join(f"{name:<12} {about}" for name, (_, about) in MEASUREMENTS.items())
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
    # Or one would inherit another's memory, threads and imports. One that fails stops none of the others.
    options = ["--profile"] if arguments.profile else []
    if failed := [
        name
        for name in names
        if subprocess.run([sys.executable, __file__, name, *options]).returncode
    ]:
        sys.exit(f"failed: {', '.join(failed)}")


def run(name: str, *, profiled: bool) -> None:
    measure, profile = (
        getattr(importlib.import_module(MEASUREMENTS[name][0]), name),
        cProfile.Profile(),
    )
    with tempfile.TemporaryDirectory(prefix="kdsweep-bench-") as folder:
        rows = profile.runcall(measure, Path(folder)) if profiled else measure(Path(folder))
    print(show(name, rows), flush=True)
    keep(name, rows)
    if profiled:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(60)


if __name__ == "__main__":
    main()
