"""Whether rows and models are still those that a sweep's numbers rest on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from kdsweep import __version__
from kdsweep.config import SearchSpace
from kdsweep.core.augment_settings import MaskedWordsSettings
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import Split, TaskData
from kdsweep.core.data.unlabelled import load_unlabelled
from kdsweep.core.hub.snapshots import hub_cache, snapshots_only
from kdsweep.core.models.model_files import model_files, model_stamps
from kdsweep.core.settings import StudentSettings, TaskSettings, TeacherSettings, TrialSettings
from kdsweep.errors import DataError, HubUnreachable, ModelError, SettingsConflict, first_few
from kdsweep.formatting import joined
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.pins import ModelPin, Pins, RowsPin

UNLABELLED = "unlabelled"
# How a line ends that says what has changed to those who only read.
SHOWN_AS_STORED = "what is shown is of the rows and models that were there then"


# --- what is there now ---------------------------------------------------------------------------


def pin_rows(split: Split) -> RowsPin:
    """The pin of a split. Its rows are read one by one."""
    texts, unordered = hashlib.blake2b(digest_size=8), 0
    for number, row in enumerate(zip(*split.texts, strict=True)):
        one = hashlib.blake2b(digest_size=8)
        for text in row:
            data = text.encode("utf-8", "surrogatepass")
            one.update(len(data).to_bytes(8, "little"))
            one.update(data)
        texts.update(one.digest())
        one.update(split.labels[number].tobytes())
        unordered += int.from_bytes(one.digest(), "little")
    return RowsPin(split.key, len(split), texts.hexdigest(), f"{unordered % 2**64:016x}")


def pin_model(source: str, *, trust_remote_code: bool) -> ModelPin:
    """The pin of a model as it is now. Raises ModelError where there is none."""
    return ModelPin(
        model_files(source, trust_remote_code=trust_remote_code),
        model_stamps(source, trust_remote_code=trust_remote_code),
        trust_remote_code,
    )


def complete_pins(before: Pins, space: SearchSpace, data: TaskData, rows: Iterable[Split]) -> Pins:
    """The pins with all that they lack: of a new sweep, of an old one, of new strategies.

    rows: the splits of `data`, and those without labels.
    """
    splits = dict(before.splits)
    for split in rows:
        if split.name not in splits or splits[split.name].rows is None:
            splits[split.name] = pin_rows(split)
    models = dict(before.models)
    for source, trusted in models_of_space(space).items():
        if source not in models:
            models[source] = pin_model(source, trust_remote_code=trusted)
    return Pins(splits, before.label_names or data.label_names, models)


# --- what has changed ----------------------------------------------------------------------------


def check_same_inputs(home: Home, folder: SweepFolder, space: SearchSpace) -> None:
    """Raise an error if `run` would mix numbers of a sweep with those of other rows or models."""
    if not folder.exists():
        return
    check_pinned(
        folder.read_facts().pins,
        space.task,
        models_of_space(space),
        home.cache,
        sweep=folder.name,
        what_to_do="restore it, or start a new sweep (--fresh or --name)",
        ran_with=folder.read_facts().kdsweep,
    )


def check_pinned(
    pins: Pins,
    task: TaskSettings,
    models: Iterable[str],
    cache: Path,
    *,
    sweep: str,
    what_to_do: str = "restore it and run the same command again",
    ran_with: str = __version__,
) -> None:
    """Raise DataError if rows have changed, SettingsConflict if only models have.

    models: their sources. Both errors end a sweep that runs, where a ModelError would end one
    trial. ran_with: the version of kdsweep that ran the sweep last.
    """
    rows = changed_rows(pins, task, cache, ran_with=ran_with)
    changes = (*rows, *changed_models(pins, models))
    if changes:
        error = DataError if rows else SettingsConflict
        raise error(f"sweep {sweep!r}: {'; '.join(changes)}; {what_to_do}")


def changed_inputs(home: Home, folder: SweepFolder, task: TaskSettings) -> str | None:
    """What has changed since the sweep started, in one line, for those who read its numbers.

    None if nothing has. Nothing is asked of the Hub for it.
    """
    facts = folder.read_facts()
    try:
        with snapshots_only(hub_cache(home.cache)):
            rows = changed_rows(facts.pins, task, home.cache, ran_with=facts.kdsweep)
    except HubUnreachable:
        rows = ()
    except DataError as error:
        rows = (f"its rows can't be read now ({error})",)
    here = [source for source, one in facts.pins.models.items() if one.stamps is not None]
    return "; ".join((*rows, *changed_models(facts.pins, here))) or None


def changed_rows(
    pins: Pins, task: TaskSettings, cache: Path, *, ran_with: str = __version__
) -> tuple[str, ...]:
    """ran_with: the version of kdsweep that ran the sweep last. Raises what `load_task` raises."""
    data = load_task(task, cache, publish=False)
    now = dict(data.splits)
    if task.unlabelled is not None and UNLABELLED in pins.splits:
        now[UNLABELLED] = load_unlabelled(task, data, cache, publish=False)[0]
    differences: dict[str, str] = {}
    for name, pin in pins.splits.items():
        if name == UNLABELLED and task.unlabelled is None:
            continue
        split = now.get(name)
        if split is not None and split.key == pin.key:
            continue
        found = pin.difference(None if split is None else pin_rows(split))
        differences[name] = found or ""
    changes: list[str] = []
    if differences:
        changes.append(_rows_in_words(task, differences, ran_with))
    before, names = pins.label_names, data.label_names
    if before is not None and before != names:
        changes.append(f"the labels were {first_few(before)}, now {first_few(names)}")
    return tuple(changes)


def _rows_in_words(task: TaskSettings, differences: Mapping[str, str], ran_with: str) -> str:
    names = list(differences)
    details = "; ".join(f"{name}: {found}" for name, found in differences.items())
    files = ", ".join(dict.fromkeys(_file_of(task, name) for name in names))
    read = ""
    if ran_with != __version__:
        read = f" (or kdsweep {ran_with} read them in another way)"
    return (
        f"the rows of {joined(names)} have changed since the sweep was started{read} "
        f"({files}; {details})"
    )


def _file_of(task: TaskSettings, split: str) -> str:
    """What the rows of the split are read from."""
    dataset = task.dataset
    if split == UNLABELLED and task.unlabelled is not None:
        dataset = task.unlabelled.dataset
    if isinstance(dataset, str):
        return dataset
    # A split that isn't named is held out of train.
    files: dict[str, str] = {str(name): file for name, file in dataset.items()}
    return files.get(split, files["train"])


def changed_models(pins: Pins, sources: Iterable[str]) -> tuple[str, ...]:
    """sources: of the models to look at; one that isn't pinned has not changed."""
    changes: list[str] = []
    for source in sources:
        if (pin := pins.models.get(source)) is None:
            continue
        try:
            changed = _changed_files(source, pin)
        except (ModelError, OSError) as error:
            changes.append(f"the model {source} can't be read now ({error})")
            continue
        if changed:
            changes.append(
                f"the model {source} has changed since the sweep was started ({first_few(changed)})"
            )
    return tuple(changes)


def _changed_files(source: str, pin: ModelPin) -> list[str]:
    trusted = pin.trust_remote_code
    stamps = model_stamps(source, trust_remote_code=trusted)
    if stamps is None and pin.stamps is not None:
        return [f"{source} is gone"]
    if stamps is not None and stamps == pin.stamps:
        return []
    return pin.difference(model_files(source, trust_remote_code=trusted))


# --- which models --------------------------------------------------------------------------------


def models_of_space(space: SearchSpace) -> dict[str, bool]:
    """Every model that a trial's numbers can rest on, and whether its own code may run."""
    found: dict[str, bool] = {}
    named: list[TeacherSettings | StudentSettings | MaskedWordsSettings]
    named = [*space.teachers(), *space.students(), *space.masked_lms()]
    for one in named:
        found[one.loads_from] = found.get(one.loads_from, False) or one.trust_remote_code
    # The student's layers are those of a teacher, which is in the list itself.
    found.pop("teacher", None)
    return found


def models_of_trial(settings: TrialSettings) -> set[str]:
    """The same for one trial, which has settled values."""
    found = {one.loads_from for one in settings.teachers} | {settings.student.loads_from}
    if settings.augment is not None and settings.augment.masked_lm is not None:
        found.add(settings.augment.masked_lm.loads_from)
    return found
