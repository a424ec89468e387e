"""A machine of the cluster that can't be reached for a while. Each machine is a network namespace
of Linux; all of them share home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sweep_processes import INLINE, PLAIN, assert_same_sweep, trials_of

from kdsweep.sweep import run
from kdsweep.sweep.folders import Home

TRIALS = (
    *PLAIN,
    "trials=1",
    "strategies.combined=",
    "strategies.finetune=",
    "training.epochs=80",
    "training.evaluations_per_epoch=4",
)
# Ray gives a machine up after ten.
SHORT_CUT_SECONDS = 2.0
MACHINES = ("head", "near", "far")


class Network:
    """Three machines on a bridge: the driver's, and two that join."""

    def __init__(self, logs: Path) -> None:
        self.mark = f"kd{os.getpid() % 100_000}"
        self.logs = logs
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        self("link", "add", self.mark, "type", "bridge")
        self("link", "set", self.mark, "up")
        for number, name in enumerate(MACHINES, start=1):
            space, link = f"{self.mark}{name}", f"{self.mark}{number}"
            self("netns", "add", space)
            self("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
            self("link", "set", link, "master", self.mark, "up")
            self("-n", space, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                self("-n", space, "link", "set", device, "up")

    def __call__(self, *words: str) -> str:
        command = ["ip", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def start(self, name: str, *words: str) -> None:
        within = ["ip", "netns", "exec", f"{self.mark}{name}", sys.executable, "-m", "kdsweep"]
        with (self.logs / name).open("wb") as log:
            self.started[name] = subprocess.Popen([*within, *words], stdout=log, stderr=log)

    def said(self, name: str) -> str:
        return (self.logs / name).read_text()

    def link(self, name: str, state: str) -> None:
        self("link", "set", f"{self.mark}{MACHINES.index(name) + 1}", state)

    def wait_for(self, condition: Callable[[], object]) -> None:
        until = time.monotonic() + 300
        while not condition():
            assert self.started["head"].poll() is None, self.said("head")
            assert time.monotonic() < until, self.said("head")
            time.sleep(0.05)

    def close(self) -> None:
        for name in MACHINES:
            for process in self("netns", "pids", f"{self.mark}{name}").split():
                subprocess.run(["kill", "-9", process], check=False)
            if name in self.started:
                self.started[name].wait()
            self("netns", "delete", f"{self.mark}{name}")
        self("link", "delete", self.mark)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("machines need root and ip: apt-get install iproute2, and run as root")
    if subprocess.run(
        ["ip", "netns", "add", "kdprobe"], capture_output=True, check=False
    ).returncode:
        pytest.skip("machines need network namespaces: CAP_SYS_ADMIN")
    subprocess.run(["ip", "netns", "delete", "kdprobe"], check=True)
    (logs := tmp_path / "logs").mkdir()
    network = Network(logs)
    try:
        yield network
    finally:
        network.close()


@pytest.mark.slow
def test_a_machine_loses_its_trial_to_another_one_after_a_long_cut_only_and_joins_anew(
    space: Path, tmp_path: Path, network: Network
) -> None:
    home, undisturbed = Home(tmp_path / "home"), Home(tmp_path / "undisturbed")
    engine = (
        "engine={type: ray, address: head, listen: 10.77.0.1, gpus_per_trial: 0, cpus_per_trial: 1}"
    )
    sets = [part for text in (*TRIALS, engine) for part in ("--set", text)]
    arguments = [str(space), "--home", str(home.root), *sets]
    network.start("head", "run", *arguments)
    worker = ("worker", *arguments, "--cpus", "1", "--gpus", "0")
    network.start("far", *worker)
    trial = home.sweep("tiny").trials / "distill-0"
    attempt = home.sweep("tiny").attempts / "distill-0"
    network.wait_for((trial / "metrics.jsonl").exists)
    first = attempt.read_text()
    network.link("far", "down")
    time.sleep(SHORT_CUT_SECONDS)
    network.link("far", "up")
    evaluated = len((trial / "metrics.jsonl").read_text().splitlines())
    # The driver hears all of it.
    network.wait_for(lambda: len(trials_of(home)["distill"][0][3]) > evaluated)
    assert attempt.read_text() == first
    network.link("far", "down")
    # It trains on there, and home is shared.
    network.wait_for((trial / "lost.json").exists)
    network.wait_for(lambda: network.said("head").count("waiting for machines") == 2)
    network.start("near", *worker)
    network.wait_for(lambda: attempt.read_text() not in ("", "nobody", first))
    network.link("far", "up")
    assert network.started["head"].wait(300) == 0, network.said("head")
    assert network.said("head").count("resumes from its last checkpoint") == 1
    assert network.said("head").count(": complete, ") == 1
    for name in ("near", "far"):
        assert network.started[name].wait(120) == 0, network.said(name)
        assert network.said(name).rstrip().endswith("tiny: over")
    run(space, home=undisturbed.root, assignments=(*TRIALS, INLINE))
    assert_same_sweep(home, undisturbed)
