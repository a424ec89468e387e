"""The rows that a trial trains on: those of train, text without labels, and views of train (`kdsweep.core.augmentation.word_edits`).

A view is made once, for whoever trains on it: its texts lie in the cache, and tokens and the teacher's logits are known by their content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from kdsweep.core.augmentation.word_edits import chosen, draws, view
from kdsweep.core.data.row_store import map_texts, publish_texts
from kdsweep.core.data.rows import Say, Split, TaskData
from kdsweep.core.data.unlabelled import load_unlabelled
from kdsweep.core.files import fingerprint, locked
from kdsweep.core.models.describing import model_fingerprint
from kdsweep.core.models.loading import load_masked_lm, load_tokenizer
from kdsweep.core.models.student import student_source
from kdsweep.core.settings import AugmentSettings, TrialSettings
from kdsweep.core.teachers.artifact import Teacher
from kdsweep.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kdsweep.core.augmentation.masked_lm import MaskedWords


@dataclass(frozen=True, eq=False)
class Part:
    """The same rows for the student and for each of its teachers: a mask may be another token to each."""

    student: Split
    teachers: tuple[Split, ...]


def training_parts(
    settings: TrialSettings, data: TaskData, teachers: Sequence[Teacher], cache: Path, say: Say
) -> tuple[Part, ...]:
    """All rows that the trial trains on, train first. Fine-tuning has no use for rows without a label."""
    parts = [Part(data.train, (data.train,) * len(teachers))]
    if settings.task.unlabelled is not None and settings.is_taught:
        more, _ = load_unlabelled(settings.task, data, cache, say=say)
        parts.append(Part(more, (more,) * len(teachers)))
    augment = settings.augment
    if augment is None or not (settings.is_taught or augment.in_finetuning):
        return tuple(parts)
    token, theirs = "", [""] * len(teachers)
    if augment.mask > 0:
        source = student_source(settings.student, teachers[0].folder if teachers else None)
        token = mask_token(
            load_tokenizer(source, trust_remote_code=settings.student.trust_remote_code), source
        )
        theirs = [
            mask_token(load_tokenizer(str(teacher.folder)), "the teacher") for teacher in teachers
        ]
    for number in range(augment.views):
        views = {
            one: cached_view(data.train, augment, number, one, cache, say)
            for one in dict.fromkeys([token, *theirs])
        }
        mine = (
            views[token] if settings.is_taught else replace(views[token], labels=data.train.labels)
        )
        parts.append(Part(mine, tuple(views[one] for one in theirs)))
    return tuple(parts)


def with_parts(data: TaskData, parts: tuple[Part, ...], teacher: int) -> TaskData:
    """The task's rows and the parts, as this teacher reads them, each a split by its name."""
    return replace(
        data, splits=data.splits | {part.student.name: part.teachers[teacher] for part in parts}
    )


def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of all of them; a single one as it is, memory-mapped or not."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def mask_token(tokenizer: PreTrainedTokenizerBase, source: str) -> str:
    if tokenizer.mask_token is None:
        raise ModelError(
            f"augment.mask: the tokenizer of {source} has no mask token; use ngram, swap or masked_lm"
        )
    return str(tokenizer.mask_token)


def cached_view(
    train: Split, settings: AugmentSettings, number: int, mask_token: str, cache: Path, say: Say
) -> Split:
    """View `number` (from 0) of every row, without labels; made where it isn't in the cache."""
    how = settings.model_dump(mode="json", include={"mask", "ngram", "swap", "seed"})
    words = settings.masked_lm
    if words is not None:
        how |= {"masked_lm": [model_fingerprint(words.model), words.share, words.candidates]}
    folder = cache / "views" / fingerprint("view 1", train.key, how, number, mask_token)
    name = f"view {number + 1}"
    if not folder.is_dir():
        with locked(
            folder.with_suffix(".lock"), lambda: say(f"{name}: another process makes it; waiting")
        ):
            if not folder.is_dir():
                say(f"{name}: making it of {len(train):,} rows")
                model = None
                if words is not None and words.share > 0:
                    from kdsweep.core.augmentation.masked_lm import MaskedWords

                    model = MaskedWords(*load_masked_lm(words.model), words.candidates)
                publish_texts(
                    tuple(
                        _Column(train, settings, number, i, mask_token, model)
                        for i in range(len(train.texts))
                    ),
                    (),
                    folder,
                )
    return map_texts(folder, name, train.labels)[0]


class _Column(Sequence[str]):
    """One text column of a view, made when it is asked for.

    Of a sentence pair one of the two is changed, each as often as the other: what the one says of the other stays half known.
    """

    def __init__(
        self,
        train: Split,
        settings: AugmentSettings,
        number: int,
        column: int,
        mask_token: str,
        model: MaskedWords | None,
    ) -> None:
        self.train, self.settings, self.number, self.column, self.mask_token, self.model = (
            train,
            settings,
            number,
            column,
            mask_token,
            model,
        )

    def __len__(self) -> int:
        return len(self.train)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if not isinstance(row, slice):
            return self[row : row + 1][0]
        rows = list(zip(*(column[row] for column in self.train.texts), strict=True))
        out, random = (
            [texts[self.column] for texts in rows],
            [draws("\x1f".join(texts), self.settings.seed, self.number) for texts in rows],
        )
        changed = [i for i in range(len(rows)) if random[i].randrange(len(rows[i])) == self.column]
        if self.model is not None and self.settings.masked_lm is not None:
            words = [out[i].split() for i in changed]
            numbers = [
                chosen(one, random[i], self.settings.masked_lm.share)
                for one, i in zip(words, changed, strict=True)
            ]
            for i, replaced in zip(
                changed,
                self.model.replace(words, numbers, [random[i] for i in changed]),
                strict=True,
            ):
                out[i] = " ".join(replaced)
        shares = {name: getattr(self.settings, name) for name in ("mask", "ngram", "swap")}
        for i in changed:
            out[i] = view(out[i], random[i], **shares, mask_token=self.mask_token)
        return out
