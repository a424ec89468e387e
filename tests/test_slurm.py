"""`make sweep` on a real Slurm, started here: one machine with two pretended GPUs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sweep_processes import metrics_of, trials_of

from kdsweep.sweep.folders import Home

REPOSITORY = Path(__file__).parents[1]
SCRIPTS = sorted((REPOSITORY / "sweeps").rglob("*.sbatch"))
COMMANDS = ("slurmctld", "slurmd", "sbatch", "munged", "mungekey")
SEARCH = os.environ["PATH"] + ":/usr/sbin:/sbin"
missing = [command for command in COMMANDS if shutil.which(command, path=SEARCH) is None]
on_slurm = pytest.mark.skipif(
    bool(missing) or os.getuid() != 0,
    reason=f"needs {' and '.join(missing)}: apt-get install slurm-wlm munge"
    if missing
    else "Slurm's daemons need root",
)

# Sixteen CPUs, whatever the machine has. A requeued job starts after seconds instead of minutes
# (cred_expire).
SLURM_CONF = """\
ClusterName=kdsweep
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=20
ReturnToService=2
MpiDefault=none
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=200000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE
"""
TWO_CORES = (
    SLURM_CONF.replace("CPUs=16 RealMemory=200000", "CPUs=2 RealMemory=8000").replace(
        "CR_Core", "CR_Core_Memory"
    )
    + """\
PartitionName=short Nodes={host} MaxTime=30
PartitionName=closed Nodes={host} State=DOWN
PartitionName=private Nodes={host} AllowAccounts=nobody
"""
)


class Slurm:
    """A controller, a node and their authentication, all in one folder."""

    def __init__(self, root: Path, configuration: str = SLURM_CONF) -> None:
        self.root = root
        self.configuration = configuration
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MAKE", "MFLAGS", "SLURM", "SBATCH", "KDSWEEP"))
        }
        self.environment |= {"SLURM_CONF": str(root / "slurm.conf"), "PATH": SEARCH}
        self.pids = [root / "slurmd.pid", root / "slurmctld.pid", root / "munge" / "pid"]

    def start(self) -> None:
        host = socket.gethostname().split(".")[0]
        for name in ("state", "spool", "munge"):
            (self.root / name).mkdir(mode=0o755)
        for name, device in (("gpu0", "/dev/null"), ("gpu1", "/dev/zero")):
            (self.root / name).symlink_to(device)
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            ports = {"controller_port": one.getsockname()[1], "node_port": other.getsockname()[1]}
        text = self.configuration.format(root=self.root, host=host, **ports)
        (self.root / "slurm.conf").write_text(text)
        (self.root / "gres.conf").write_text(
            f"NodeName={host} Name=gpu File={self.root}/gpu[0-1]\n"
        )
        munge = self.root / "munge"
        self("mungekey", "--create", f"--keyfile={munge}/key")
        files = {
            "--socket": "socket",
            "--key-file": "key",
            "--pid-file": "pid",
            "--log-file": "log",
            "--seed-file": "seed",
        }
        self("munged", "--force", *(f"{option}={munge / name}" for option, name in files.items()))
        self("slurmctld", "-c")
        self("slurmd")
        self.wait_for(lambda: "idle" in self("sinfo", "--noheader", "--format=%T", check=False))

    def stop(self) -> None:
        self("scancel", "--user=root", check=False)
        self.wait_for(lambda: not self.jobs())
        for file in self.pids:
            if file.exists():
                os.kill(int(file.read_text()), 15)

    def __call__(self, *command: str, check: bool = True, **environment: str) -> str:
        """The output of a command that is run there."""
        done = subprocess.run(
            command,
            env=self.environment | environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0 or not check, (command, done.stdout, done.stderr)
        return done.stdout

    def jobs(self, *options: str) -> list[str]:
        """The jobs that haven't ended, each as `ID STATE`."""
        return self(
            "squeue", "--noheader", "--array", "--format=%i %T", *options, check=False
        ).splitlines()

    def facts(self, job: str) -> dict[str, str]:
        """What Slurm knows about a job, running or ended."""
        return dict(
            part.split("=", 1)
            for part in self("scontrol", "--oneliner", "show", "job", job).split()
            if "=" in part
        )

    def start_now(self, job: str) -> None:
        """Start a requeued job, once its credential isn't revoked any more (cred_expire)."""
        self.wait_for(lambda: any(line.endswith(" PENDING") for line in self.jobs(f"--jobs={job}")))
        time.sleep(6)
        # Slurm refuses this where the job has already started.
        self("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)

    @staticmethod
    def wait_for(condition: Callable[[], Any], seconds: float = 180) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, "the condition never held"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    cluster = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


class Submitted:
    """What `make sweep` submitted. The sweep's name is tiny."""

    def __init__(
        self,
        slurm: Slurm,
        space: Path,
        home: Path,
        *assignments: str,
        workers: int,
        flags: str = "",
    ) -> None:
        self.slurm, self.home = slurm, Home(home)
        sets = [
            part
            for text in (
                "pruner={type: none}",
                "confirm={seeds: 0}",
                "engine.cpus_per_trial=1",
                "strategies.combined=",
                *assignments,
            )
            for part in ("--set", text)
        ]
        variables = {
            "SPACE": space,
            "SWEEP": "sweeps/slurm.yaml",
            "WORKERS": workers,
            "ARGS": shlex.join(sets),
        }
        variables |= {"SBATCH_WORKER": f"--cpus-per-task=1 {flags}", "KDSWEEP_HOME": home}
        self.output = slurm(*make(**variables))
        found = re.search(r"driver's job (\d+) and the workers' (\d+)_1 to ", self.output)
        assert found, self.output
        self.driver, self.workers = found.groups()

    def log(self, name: str = "driver") -> str:
        return "\n".join(
            file.read_text()
            for file in sorted((self.home.root / "slurm-logs").glob(f"tiny-{name}-*.log"))
        )

    def has_ended(self) -> bool:
        return not self.slurm.jobs(f"--jobs={self.driver},{self.workers}")

    def in_the_middle(self) -> list[str]:
        """The trials that have evaluations, and many left to do."""
        folders = [file.parent for file in self.home.sweep("tiny").trials.glob("*/metrics.jsonl")]
        return [
            folder.name
            for folder in folders
            if not (folder / "result.json").exists()
            and 4 < len(rows_of(self.home, folder.name)) < 60
        ]

    def end(self, seconds: float = 300) -> None:
        """Wait for the end of all jobs. The driver succeeded, and no process is left."""
        self.slurm.wait_for(self.has_ended, seconds)
        facts = self.slurm.facts(self.driver)
        assert (facts["JobState"], facts["ExitCode"]) == ("COMPLETED", "0:0"), self.log()
        assert not processes_with(str(self.home.root))
        cluster = json.loads(self.home.sweep("tiny").cluster.read_text())
        assert cluster["state"] == "over"


def make(**variables: object) -> list[str]:
    """`make sweep` in the Python environment of this test."""
    return [
        "make",
        "--silent",
        "--old-file=setup",
        "sweep",
        f"VENV={sys.prefix}",
        *(f"{name}={value}" for name, value in variables.items()),
    ]


def processes_with(text: str) -> list[str]:
    """The command lines of other processes with the text in them or in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = [
                (process / name).read_bytes() for name in ("cmdline", "environ")
            ]
        except OSError:
            continue
        if int(process.name) != os.getpid() and text.encode() in command + environment:
            found.append(command.replace(b"\0", b" ").decode())
    return found


def assert_nothing_lost_or_repeated(home: Home, trials: int, evaluations: int) -> None:
    """Every trial is complete and has each of its evaluations once, and no process died."""
    found = trials_of(home)
    assert {
        strategy: [trial[1].name for trial in of_strategy]
        for strategy, of_strategy in found.items()
    } == {strategy: ["COMPLETE"] * trials for strategy in ("finetune", "distill")}
    metrics = metrics_of(home)
    assert {len(rows) for rows in metrics.values()} == {evaluations}
    for name in metrics:
        steps = [row["step"] for row in rows_of(home, name)]
        assert steps == sorted(set(steps)), name
    assert not list(home.sweep("tiny").trials.rglob("lost.json"))


def rows_of(home: Home, trial: str) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in (home.sweep("tiny").trials / trial / "metrics.jsonl").read_text().splitlines()
    ]


def test_the_scripts_parse_as_bash() -> None:
    assert [script.name for script in SCRIPTS] == ["driver.sbatch", "worker.sbatch"]
    for script in SCRIPTS:
        subprocess.run(["bash", "-n", str(script)], check=True)
        options = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH ")]
        assert {
            "#SBATCH --requeue",
            "#SBATCH --open-mode=append",
            "#SBATCH --signal=B:USR1@120",
        } <= set(options)


def test_without_slurm_make_sweep_runs_here_and_says_so(tiny_space: Path, tmp_path: Path) -> None:
    (nothing := tmp_path / "bin").mkdir()
    sets = ("trials=1", "confirm.seeds=0", "strategies.combined=", "strategies.distill=")
    program, *arguments = make(
        SPACE=tiny_space,
        SWEEP="sweeps/slurm.yaml",
        ARGS=" ".join(f"--set {text}" for text in sets),
    )
    command = [str(shutil.which(program)), *arguments, f"KDSWEEP_HOME={tmp_path / 'home'}"]
    environment = {name: value for name, value in os.environ.items() if name[:4] != "MAKE"}
    environment["PATH"] = str(nothing)
    done = subprocess.run(
        command,
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "no Slurm here" in done.stderr.splitlines()[0]
    assert [trial[1].name for trial in trials_of(Home(tmp_path / "home"))["finetune"]] == [
        "COMPLETE"
    ]


@on_slurm
def test_a_mistake_is_reported_before_anything_is_submitted(
    slurm: Slurm, space: Path, tmp_path: Path
) -> None:
    for variables, words in (
        ({"ARGS": "--set trails=3"}, "trails"),
        ({"WORKERS": "many"}, "WORKERS is 'many'"),
        ({"SBATCH_DRIVER": "--partition=none"}, "sbatch"),
    ):
        command = make(
            SPACE=space, SWEEP="sweeps/slurm.yaml", KDSWEEP_HOME=tmp_path / "home", **variables
        )
        done = subprocess.run(
            command,
            env=slurm.environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert not slurm.jobs()


@pytest.fixture(scope="module")
def two(slurm: Slurm, space: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Submitted]:
    """Two sweeps of one name in two homes, at once on the same machine: with GPUs and without."""
    homes = [tmp_path_factory.mktemp(name) for name in ("home's «one»", "home 50%")]
    both = [
        Submitted(slurm, space, homes[0], "trials=2", "training.epochs=40", workers=2),
        Submitted(
            slurm,
            space,
            homes[1],
            "trials=1",
            "engine.gpus_per_trial=0",
            workers=1,
            flags="--gpus-per-node=0",
        ),
    ]
    for submitted in both:
        submitted.end()
    return both


@on_slurm
def test_two_sweeps_at_once_complete_and_leave_no_process(
    slurm: Slurm, two: list[Submitted]
) -> None:
    with_gpus, without = two
    assert_nothing_lost_or_repeated(with_gpus.home, trials=2, evaluations=80)
    assert_nothing_lost_or_repeated(without.home, trials=1, evaluations=4)
    for job in (f"{with_gpus.workers}_1", f"{with_gpus.workers}_2", f"{without.workers}_1"):
        assert slurm.facts(job)["JobState"] == "COMPLETED"
    gpus = re.findall(r"^slot .*(GPU \d)$", with_gpus.log(), flags=re.MULTILINE)
    # The trials may end before the second slot is there.
    assert sorted(gpus) in (["GPU 0"], ["GPU 1"], ["GPU 0", "GPU 1"])
    assert len(re.findall(r"^slot \d: ", without.log(), flags=re.MULTILINE)) == 1
    assert "GPU" not in without.log()


@pytest.mark.slow
@on_slurm
def test_a_driver_that_fails_ends_its_workers(
    slurm: Slurm, space: Path, two: list[Submitted]
) -> None:
    tracking = "tracking=http://somebody:pass-w0rd@127.0.0.1:1"
    # Another sweep under the name of one that exists.
    assignments = ("training.epochs=3", tracking)
    submitted = Submitted(slurm, space, two[0].home.root, *assignments, workers=3)
    shown = slurm("scontrol", "--oneliner", "show", "job") + slurm("ps", "-eo", "args")
    assert "tracking=http://somebody:***@127.0.0.1:1" in shown
    assert "pass-w0rd" not in shown
    slurm.wait_for(submitted.has_ended)
    assert slurm.facts(submitted.driver)["ExitCode"] == "1:0"
    assert "was started with other settings" in submitted.log()


@pytest.mark.slow
@on_slurm
def test_a_finished_sweep_is_extended_and_what_slurm_takes_back_is_saved(
    slurm: Slurm, space: Path, two: list[Submitted]
) -> None:
    submitted = Submitted(
        slurm, space, two[0].home.root, "trials=4", "training.epochs=40", workers=2
    )
    # The last task has the number of the whole array.
    one = f"{submitted.workers}_2"
    other = f"{submitted.workers}_1"
    interrupted: list[tuple[float, list[str]]] = []

    def take_back(running: int, *command: str) -> None:
        """Run the command when `running` trials are in the middle."""
        slurm.wait_for(lambda: len(submitted.in_the_middle()) == running)
        interrupted.append((time.time(), submitted.in_the_middle()))
        slurm(*command)

    # The time limit of a worker is near. Its trial resumes there later, or on the other worker.
    take_back(2, "scancel", "--batch", "--signal=USR1", one)
    slurm.wait_for(lambda: "is requeued" in submitted.log("worker"))
    slurm.start_now(one)
    # A worker is cancelled: every process of its job gets SIGTERM.
    take_back(1, "scancel", other)
    # The time limit of the driver is near. The worker that is left waits for it.
    take_back(1, "scancel", "--batch", "--signal=USR1", submitted.driver)
    slurm.wait_for(lambda: "is requeued" in submitted.log())
    slurm.start_now(submitted.driver)
    submitted.end()

    assert_nothing_lost_or_repeated(submitted.home, trials=4, evaluations=80)
    for moment, trials in interrupted:
        for trial in trials:
            stamps = [row["timestamp"] / 1000 for row in rows_of(submitted.home, trial)]
            assert min(stamps) < moment < max(stamps)
    assert slurm.facts(submitted.driver)["Restarts"] == slurm.facts(one)["Restarts"] == "1"
    assert slurm.facts(other)["JobState"] == "CANCELLED"


# --- a node with two cores ---


@pytest.fixture(scope="module")
def two_cores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    cluster = Slurm(tmp_path_factory.mktemp("two-cores"), TWO_CORES)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def submit(slurm: Slurm, space: Path, home: Path, **variables: str) -> tuple[int, str]:
    """Exit status and output of `make sweep` with one worker."""
    command = make(
        SPACE=space, SWEEP="sweeps/slurm.yaml", KDSWEEP_HOME=home, WORKERS=1, **variables
    )
    done = subprocess.run(
        command,
        env=slurm.environment,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout


def read(file: str) -> str:
    return Path(file).read_text() if Path(file).exists() else ""


@pytest.mark.slow
@on_slurm
def test_what_two_cores_can_not_start_is_refused_or_said(
    two_cores: Slurm, space: Path, tmp_path: Path
) -> None:
    for variables, words in (
        ({"SBATCH_PARTITION": "closed"}, "partition closed is DOWN"),
        (
            {"SBATCH_WORKER": "--cpus-per-task=4"},
            "at most 2 cores, 8000 MB and 2 GPUs",
        ),
        ({"SBATCH_TIMELIMIT": "60", "SBATCH_PARTITION": "short"}, "for 30 minutes"),
    ):
        status, output = submit(two_cores, space, tmp_path, **variables)
        assert status == 2
        assert words in output
        assert "Traceback" not in output
        assert not two_cores.jobs()
    # Slurm takes this one, and never starts it.
    status, output = submit(two_cores, space, tmp_path, SBATCH_PARTITION="private")
    two_cores("scancel", "--user=root")
    assert status == 0
    assert "the driver's job can't start as it is: " in output
    # Of workers Slurm says why once the driver runs.
    status, output = submit(
        two_cores,
        space,
        tmp_path,
        SBATCH_WORKER="--partition=private",
        KDSWEEP_SECONDS_BETWEEN_LOOKS="1",
    )
    assert status == 0
    (log,) = re.findall(r"tail -f (\S+)", output)
    two_cores.wait_for(lambda: "queued workers can't start as they are: " in read(log))
    two_cores("scancel", "--user=root")
    two_cores.wait_for(lambda: not two_cores.jobs())


@pytest.mark.slow
@on_slurm
def test_a_sweep_runs_on_two_cores_without_a_change_of_a_file(
    two_cores: Slurm, space: Path, tmp_path: Path
) -> None:
    sets = "--set trials=1 --set confirm.seeds=0 --set strategies.combined="
    status, output = submit(two_cores, space, tmp_path, ARGS=sets)
    assert status == 0
    assert output.splitlines()[0] == (
        "tiny: the nodes have less than was asked for: the driver's job asks for "
        "--cpus-per-task=1 --mem=4000M; a worker's job asks for --cpus-per-task=1 --mem=4000M; "
        "a trial gets 1 of its 4 cores"
    )
    two_cores.wait_for(lambda: not two_cores.jobs(), 300)
    assert {
        strategy: [trial[1].name for trial in trials]
        for strategy, trials in trials_of(Home(tmp_path)).items()
    } == {"finetune": ["COMPLETE"], "distill": ["COMPLETE"]}
