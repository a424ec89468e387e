"""Whether two checkouts of kdsweep give the same numbers, to the last bit, interrupted or not.

Both run the same small sweeps (`small_sweeps.py`) by the command line alone, and every number that
is on disk afterwards is compared: settings, evaluations, results, test logits and the report. Each
checkout also runs each sweep with `kill -9` in the middle of a trial. What depends on the clock
(seconds, timestamps, latency) is left out, and so is what a report concludes from the numbers,
which follows the rules of today. Differences of strategies that a mended fault changed are counted
apart.

    python tests/benchmarks/same_numbers.py --old 8fbbf22           # two checkouts
    python tests/benchmarks/same_numbers.py --save numbers.json     # the old one alone, and keep it
    python tests/benchmarks/same_numbers.py --against numbers.json  # the new one alone

A line for each sweep; exit status 1 where a number differs. A checkout takes some minutes; with
--quick the new one takes half as long. Everything runs on the CPU with one thread. Numbers that
were saved on another processor may differ in their last bits.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from small_sweeps import SWEEPS, SmallSweep, write_inputs
from this_machine import machine

FIRST_RELEASE = "8fbbf22"
LEFT_OUT = re.compile(r"seconds|timestamp|latency|hours|slots|reproduce")
CONCLUDED = re.compile(r"ci95|^p$|questions|winner")
MOST_TRIES = 5
MOST_SECONDS = 600
SECONDS_AFTER_CHECKPOINT = 0.02

# file -> name of the number in it -> the number, exactly as float.hex writes it.
Numbers = dict[str, dict[str, str]]


class Broken(Exception):
    """A sweep that didn't run as it must."""


# --- running ---


@dataclass(frozen=True)
class Bench:
    """The folder in which the sweeps of all checkouts run, with inputs that all of them share."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    def prepare(self) -> None:
        write_inputs(self.root)
        from mlflow import MlflowClient

        # MLflow takes seconds to make its database, and it is the same each time.
        url = f"sqlite:///{self.root / 'empty.db'}"
        MlflowClient(tracking_uri=url).search_experiments()

    def inputs(self) -> str:
        """A hash of everything that the sweeps read."""
        digest = hashlib.sha256()
        folders = [self.root / "models", self.root / "data"]
        files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
        for file in sorted([*files, *self.root.glob("*.yaml")]):
            digest.update(str(file.relative_to(self.root)).encode())
            digest.update(file.read_bytes())
        for sweep in SWEEPS:
            digest.update(repr(sweep.settings).encode())
        return digest.hexdigest()

    def fresh_home(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        shutil.copy(self.root / "empty.db", self.home / "mlflow.db")

    def start(self, checkout: Path, sweep: SmallSweep) -> subprocess.Popen[str]:
        settings = (*sweep.settings, *first_rules(checkout), *first_confirm(checkout, sweep))
        words = [word for text in settings for word in ("--set", text)]
        space = str(self.root / f"{sweep.name}.yaml")
        command = [sys.executable, "-m", "kdsweep", "run", space, "--home", str(self.home), *words]
        with (self.root / "output.txt").open("w", encoding="utf-8") as output:
            return subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=self.root,
                env=environment(checkout),
                start_new_session=True,
            )

    def finish(self, checkout: Path, sweep: SmallSweep) -> None:
        """Run the sweep to its end. Raises Broken where it fails."""
        process = self.start(checkout, sweep)
        try:
            status = process.wait(MOST_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Broken(f"not finished after {MOST_SECONDS} s: {self.last_line()}") from None
        if status != 0:
            raise Broken(f"exit status {status}: {self.last_line()}")

    def last_line(self) -> str:
        lines = (self.root / "output.txt").read_text(encoding="utf-8").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "no output")

    def run_undisturbed(self, checkout: Path, sweep: SmallSweep) -> Numbers:
        self.fresh_home()
        self.finish(checkout, sweep)
        return read_numbers(self.home / "sweeps" / sweep.name)

    def run_interrupted(self, checkout: Path, sweep: SmallSweep) -> Numbers:
        """The same with a `kill -9` at each of the sweep's stops."""
        for _ in range(MOST_TRIES):
            self.fresh_home()
            if all(self.kill_at(checkout, sweep, stop.glob(sweep.name)) for stop in sweep.stops):
                self.finish(checkout, sweep)
                return read_numbers(self.home / "sweeps" / sweep.name)
        raise Broken(f"{MOST_TRIES} times the trial ended before it could be killed")

    def kill_at(self, checkout: Path, sweep: SmallSweep, pattern: str) -> bool:
        """Kill a run soon after a file of the pattern is there; whether it still is then."""
        process = self.start(checkout, sweep)
        until = time.monotonic() + MOST_SECONDS
        while not any(self.home.glob(pattern)):
            if process.poll() is not None:
                raise Broken(f"ended and was never at {pattern}: {self.last_line()}")
            if time.monotonic() > until:
                process.kill()
                raise Broken(f"was not at {pattern} after {MOST_SECONDS} s: {self.last_line()}")
            time.sleep(0.001)
        # A few steps after the checkpoint: those are lost, and taken again.
        time.sleep(SECONDS_AFTER_CHECKPOINT)
        process.kill()
        process.wait()
        return any(self.home.glob(pattern))


def environment(checkout: Path) -> dict[str, str]:
    """One thread, no GPU, no network, and the checkout's package before any that is installed."""
    fixed = {
        "PYTHONPATH": str(checkout),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
    }
    return {name: value for name, value in os.environ.items() if name != "KDSWEEP_HOME"} | fixed


@functools.cache
def first_rules(checkout: Path) -> tuple[str, ...]:
    """What gives a new sweep the rules of the first release, whose numbers are compared."""
    code = "from kdsweep.core import settings; print(*getattr(settings, 'RULES', ()))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command,
        cwd=checkout,
        env=environment(checkout),
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(f"task.{rule}=1" for rule in done.stdout.split())


@contextlib.contextmanager
def checked_out(old: str, beside: Path) -> Iterator[Path]:
    """The checkout at path `old`; or commit `old` of this repository, in a folder of its own."""
    if Path(old).is_dir():
        yield Path(old).resolve()
        return
    folder = beside / "checkout"
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), old], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def first_confirm(checkout: Path, sweep: SmallSweep) -> tuple[str, ...]:
    """Sweeps of the first release confirm the best trial of the search, without finalists."""
    knows_finalists = (checkout / "kdsweep" / "compare" / "finalists.py").exists()
    return ("confirm.finalists=1",) if knows_finalists else ()


def check_checkout(checkout: Path, beside: Path) -> None:
    """Exit unless it is this checkout's package that runs."""
    command = [sys.executable, "-c", "import kdsweep; print(kdsweep.__file__)"]
    done = subprocess.run(
        command, cwd=beside, env=environment(checkout), capture_output=True, text=True, check=False
    )
    if not done.stdout.startswith(f"{checkout}/"):
        sys.exit(f"{checkout} has no package kdsweep: {(done.stdout or done.stderr).strip()}")


# --- reading ---


def read_numbers(folder: Path) -> Numbers:
    """Every number that the sweep in `folder` recorded, but those of the clock."""
    report = named_numbers(read_json(folder / "report.json"), left_out=CONCLUDED)
    found: Numbers = {"report.json": report}
    for trial in sorted([*folder.glob("trials/*"), *folder.glob("confirm/*")]):
        name = str(trial.relative_to(folder))
        for file in ("settings.json", "result.json"):
            found[f"{name}/{file}"] = named_numbers(read_json(trial / file))
        lines = (trial / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        for i, line in enumerate(lines, 1):
            found[f"{name}/metrics.jsonl line {i}"] = named_numbers(json.loads(line))
        if (trial / "test_logits.npy").exists():
            found[f"{name}/test_logits.npy"] = array_numbers(trial / "test_logits.npy")
    return found


def read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def named_numbers(
    value: Any, name: str = "", left_out: re.Pattern[str] | None = None
) -> dict[str, str]:
    """The numbers in a JSON value, each by its path. left_out: keys, in addition to the clock's."""
    if isinstance(value, dict):
        patterns = [LEFT_OUT, *([] if left_out is None else [left_out])]
        parts = {
            key: inner
            for key, inner in value.items()
            if not any(pattern.search(key) for pattern in patterns)
        }
    elif isinstance(value, list):
        parts = {str(i): inner for i, inner in enumerate(value)}
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return {name: float(value).hex()}
    else:
        return {}
    found: dict[str, str] = {}
    for key, inner in parts.items():
        found |= named_numbers(inner, f"{name} > {key}" if name else key, left_out)
    return found


def array_numbers(file: Path) -> dict[str, str]:
    import numpy as np

    array = np.load(file)
    return {str(list(index)): float(value).hex() for index, value in np.ndenumerate(array)}


# --- comparing ---


@dataclass(frozen=True)
class Comparison:
    """How many numbers were compared, and each that differs, in words."""

    compared: int
    differences: list[str]


def compare(old: Numbers, new: Numbers) -> Comparison:
    """Each number of `old` against that of `new`.

    More numbers in a file that both have are no difference, because a later version may measure
    more. More files, or more evaluations of a trial, are one.
    """
    differences = [f"{file}: only in the new numbers" for file in new if file not in old]
    compared = 0
    for file, numbers in old.items():
        others = new.get(file, {})
        for name, number in numbers.items():
            compared += 1
            if others.get(name) != number:
                differences.append(f"{file}: {name}: {shown(number)} -> {shown(others.get(name))}")
    return Comparison(compared, differences)


def shown(number: str | None) -> str:
    """With all its digits: the first that differ may be the last."""
    return "missing" if number is None else repr(float.fromhex(number))


def report(sweep: SmallSweep, what: str, found: Comparison) -> bool:
    """Print a line; whether everything is the same, apart from what a mended fault changed."""
    line = f"{sweep.name:<16} {what:<18} {found.compared:>6,} numbers: "
    expected = [
        one
        for one in found.differences
        if any(re.search(rf"\b{name}\b", one) for name in sweep.mended)
    ]
    others = [one for one in found.differences if one not in expected]
    if others:
        print(f"{line}{len(others):,} differ, first {others[0]}", flush=True)
        return False
    apart = f", but for {len(expected)} of {', '.join(sweep.mended)}" if expected else ""
    print(f"{line}the same{apart}", flush=True)
    return True


# --- the command ---


@dataclass(frozen=True)
class Comparer:
    """Runs sweeps with one checkout after the other and prints what differs.

    known: the numbers of each sweep that all others are compared with. quick: a sweep whose numbers
    are known runs with its interruption alone.
    """

    bench: Bench
    checkouts: dict[str, Path]
    known: dict[str, Numbers]
    quick: bool

    def compare(self, sweep: SmallSweep) -> bool:
        """Whether all checkouts give the same numbers; those of the first become known."""
        same = True
        for which, checkout in self.checkouts.items():
            try:
                same = self._run(which, checkout, sweep) and same
            except Broken as broken:
                print(f"{sweep.name:<16} {which}: {broken}", flush=True)
                return False
        return same

    def _run(self, which: str, checkout: Path, sweep: SmallSweep) -> bool:
        same = True
        if sweep.name not in self.known:
            self.known[sweep.name] = self.bench.run_undisturbed(checkout, sweep)
        elif not self.quick:
            numbers = self.bench.run_undisturbed(checkout, sweep)
            same = report(sweep, which, compare(self.known[sweep.name], numbers))
        numbers = self.bench.run_interrupted(checkout, sweep)
        found = compare(self.known[sweep.name], numbers)
        return report(sweep, f"{which}, interrupted", found) and same


def load_saved(file: Path, inputs: str) -> dict[str, Numbers]:
    """Numbers that were saved. Exits where they are of other sweeps, models or data."""
    saved = read_json(file)
    if saved["inputs"] != inputs:
        sys.exit(f"{file}: saved with other sweeps, models or data; save it again with --save")
    if saved["machine"] != machine():
        print(f"{file} was saved with {saved['machine']}; here: {machine()}", file=sys.stderr)
    found: dict[str, Numbers] = saved["numbers"]
    return found


def save(file: Path, inputs: str, numbers: dict[str, Numbers]) -> None:
    content = {"machine": machine(), "inputs": inputs, "numbers": numbers}
    file.write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")


def main() -> int:
    arguments = read_arguments()
    chosen = [sweep for sweep in SWEEPS if not arguments.names or sweep.name in arguments.names]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        beside = Path(folder).resolve()
        bench = Bench(beside / "bench")
        bench.prepare()
        inputs = bench.inputs()
        known = load_saved(arguments.against, inputs) if arguments.against else {}
        checkouts = {}
        if not arguments.against:
            checkouts["old"] = stack.enter_context(checked_out(arguments.old, beside))
        if not arguments.save:
            checkouts["new"] = arguments.new.resolve()
        for checkout in checkouts.values():
            check_checkout(checkout, beside)
        comparer = Comparer(bench, checkouts, known, arguments.quick)
        same = [comparer.compare(sweep) for sweep in chosen]
        if arguments.save:
            save(arguments.save, inputs, known)
    return 0 if all(same) else 1


def read_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [sweep.name for sweep in SWEEPS]
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(names)}; all without it")
    parser.add_argument(
        "--old", default=FIRST_RELEASE, help="a folder or a commit; %(default)s without it"
    )
    parser.add_argument("--new", type=Path, default=ROOT, help="a folder; this checkout without it")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--save", type=Path, help="run the old one alone and write its numbers")
    either.add_argument("--against", type=Path, help="run the new one alone against saved numbers")
    parser.add_argument(
        "--quick", action="store_true", help="the interrupted runs of the new one alone"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"no sweep {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
