"""What a sweep would run, and what it would cost."""

from __future__ import annotations

from rich.console import Console

from kdsweep.formatting import count, duration, megabytes, parameters
from kdsweep.report.schedules import in_words as schedule_in_words
from kdsweep.sweep.cost_estimate import MoreRows
from kdsweep.sweep.expected_answers import in_words
from kdsweep.sweep.plan_facts import ModelFacts, PlanFacts, SplitFacts, StudyFacts, TaskFacts
from kdsweep.terminal.console import open_console, say
from kdsweep.terminal.tables import Column, show_table

# A split with more labels shows the most frequent ones and the rarest.
MOST_LABELS = 8
MODEL_COLUMNS = (
    Column("", right=False),
    Column("model", wraps=True),
    Column("parameters"),
    Column("size", 1),
    Column("labels", 3),
    Column("truncated texts", 2, wraps=True),
)


def show_plan(facts: PlanFacts) -> None:
    console = open_console()
    say(console, f"{facts.sweep}: all checks passed; this is what would run\n")
    _show_task(console, facts.task)
    for note in facts.task.notes:
        say(console, f"  {note}")
    _show_models(console, facts.models)
    for note in facts.notes:
        say(console, f"  {note}")
    for line in [*facts.changed_space, *facts.start_from]:
        say(console, f"  {line}")
    for strategy, study in facts.studies.items():
        say(console, f"\n{strategy}: {study.trials} trials", style="bold")
        _show_study(console, study, facts.estimate.more_rows.get(strategy))
    if facts.seed_runs.most:
        say(console, f"\nafter the search: {facts.seed_runs.words}")
    _show_estimate(console, facts)
    trials = {strategy: study.trials for strategy, study in facts.studies.items()}
    for line in in_words(facts.answers, trials):
        say(console, f"Questions: {line}")


def _show_task(console: Console, task: TaskFacts) -> None:
    labels = count(len(task.labels), "label")
    say(console, f"task: {labels}, {task.metric}", style="bold")
    columns = (
        Column("split", right=False),
        Column("rows"),
        Column("labels", wraps=True),
    )
    rows = [
        (name, f"{split.rows:,}", spread_of_labels(split)) for name, split in task.splits.items()
    ]
    if task.unlabelled:
        rows.append(("unlabelled", f"{task.unlabelled:,}", "labeled by the teacher alone"))
    show_table(console, columns, rows)


def spread_of_labels(split: SplitFacts) -> str:
    """How the labels of a split are spread."""
    if split.values:
        return ", ".join(f"{name} {value:g}" for name, value in split.values.items())
    counts = split.labels or {}
    shown = list(counts)
    if len(counts) > MOST_LABELS:
        common = sorted(counts, key=lambda label: -counts[label])
        shown = [*common[: MOST_LABELS - 1], common[-1]]
    shares = [f"{label} {100 * counts[label] / split.rows:.1f}%" for label in shown]
    if len(counts) > MOST_LABELS:
        shares.insert(-1, f"{len(counts) - MOST_LABELS} more")
        shares[-1] = f"least {shares[-1]}"
    return ", ".join(shares)


def _show_models(console: Console, models: list[ModelFacts]) -> None:
    say(console, "\nmodels", style="bold")
    rows = []
    for model in models:
        truncated = [
            f"{name} {100 * found.rows / found.of:.1f}%" for name, found in model.truncated.items()
        ]
        missing = "" if model.weights == "here" else f" ({model.weights})"
        costs = (parameters(model.parameters), megabytes(model.size_mb))
        name = model.model + missing
        rows.append((model.role, name, *costs, str(model.labels), ", ".join(truncated)))
    show_table(console, MODEL_COLUMNS, rows)


def _show_study(console: Console, study: StudyFacts, more_rows: MoreRows | None) -> None:
    for name, domain in study.parameters.items():
        say(console, f"  {name}: {domain}")
    if more_rows is not None:
        say(console, f"  more rows: {_more_rows(more_rows)}")
    for i, (entry, of) in enumerate(zip(study.start_with, study.tried_by, strict=True), 1):
        values = ", ".join(f"{name} {value}" for name, value in entry.items())
        origin = f" (from {of})" if of else ""
        say(console, f"  starts with {i}: {values}{origin}")
    for i, sample in enumerate(study.samples, 1):
        words = {name: schedule_in_words(schedule) for name, schedule in vars(sample).items()}
        say(
            console,
            f"  sample {i}: alpha {words['alpha']}; T {words['temperature']}; "
            f"lr {words['learning_rate']}",
        )


def _more_rows(extra: MoreRows) -> str:
    """What the rows in addition to train cost, in words."""
    parts = [f"{extra.unlabelled:,} unlabeled"] if extra.unlabelled else []
    if extra.views:
        parts.append(f"up to {count(extra.views, 'view')} of each row of train")
    a_trial = duration(extra.seconds_a_trial)
    text = f"{extra.rows:,} ({' and '.join(parts)}), {a_trial} more for each trial"
    if not extra.views:
        return text
    sets = "one set of views"
    if extra.sets_of_views != 1:
        sets = f"up to {extra.sets_of_views} different sets of views"
    words = ""
    if extra.seconds_for_words:
        seconds = duration(extra.seconds_for_words)
        words = f"{seconds} for the words of a masked language model, "
    labels = f"{duration(extra.seconds_for_the_teacher)} for the teacher to label"
    return f"{text}; {sets}: {words}{labels}, {extra.views_mb:,.0f} MB of cache"


def _show_estimate(console: Console, facts: PlanFacts) -> None:
    estimate = facts.estimate
    teacher = duration(estimate.seconds_for_the_teacher)
    spent = f"about {duration(estimate.seconds_a_trial)} for each trial, {teacher} for the teacher"
    for strategy, extra in estimate.seconds_for_the_teacher_in_each_step.items():
        seconds, terms = duration(extra.seconds_a_trial), ", ".join(extra.terms)
        spent += (
            f"; {strategy} {seconds} more for each trial: the teacher runs in each step ({terms})"
        )
    slots = _slots(estimate.slots)
    total = duration(estimate.seconds_without_pruning)
    if facts.seed_runs.most > facts.seed_runs.least:
        total += f" to {duration(estimate.seconds_at_most)}"
    total += f" in all on {slots} if nothing is pruned"
    disk = f"about {estimate.disk_mb:,} MB under {facts.home}"
    say(console, f"\nOn {estimate.device}: {spent}, {total}; {disk}")
    say(console, f"Slots: {facts.slots.words}")
    say(console, f"Precision: {facts.precision.words}")
    console.print(facts.memory.words)
    if (instead := estimate.slots_instead) is not None and facts.memory.fit(instead):
        say(
            console,
            f"With many trials, {instead} slots of one core each are faster, and each needs memory "
            "of its own: --set 'engine={type: ray, cpus_per_trial: 1}'",
        )


def _slots(number: int | None) -> str:
    if number is None:
        return "one slot (a cluster's are not known yet)"
    return "one slot" if number == 1 else f"{number} slots"
