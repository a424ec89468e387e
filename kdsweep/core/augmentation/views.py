"""Views of train: copies of its rows with edited words (`kdsweep.core.augmentation.word_edits`).

A view is made once for all trials. Its texts are kept in the cache, and the keys of its tokens and
of the teacher's logits are hashes of those texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from kdsweep.core.augmentation.word_edits import chosen, draws, view
from kdsweep.core.data.row_store import map_texts, publish_texts
from kdsweep.core.data.rows import Say, Split
from kdsweep.core.files import fingerprint, locked
from kdsweep.core.models.describing import model_fingerprint
from kdsweep.core.models.loading import load_masked_lm
from kdsweep.core.settings import AugmentSettings
from kdsweep.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kdsweep.core.augmentation.masked_lm import MaskedWords


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
