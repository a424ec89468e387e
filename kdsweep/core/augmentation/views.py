"""Views of train: copies of its rows with edited words (`kdsweep.core.augmentation.word_edits`).

A view is made once for all trials. Its texts are kept in the cache, and the keys of its tokens and
of the teacher's logits are hashes of those texts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

from kdsweep.core.augment_settings import AugmentSettings
from kdsweep.core.augmentation.word_edits import choose_words, draws, edit_text
from kdsweep.core.data.row_store import map_texts, publish_texts
from kdsweep.core.data.rows import Say, Split
from kdsweep.core.files import fingerprint, whole
from kdsweep.core.models.describing import model_fingerprint
from kdsweep.core.models.loading import load_masked_lm
from kdsweep.core.shared_entry import SharedEntry
from kdsweep.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kdsweep.core.augmentation.masked_lm import MaskedWords

# Part of the key of views in the cache. Raise it when what is written there changes.
VIEW_FORMAT = 1


def mask_token(tokenizer: PreTrainedTokenizerBase, source: str) -> str:
    """The tokenizer's mask token. Raises ModelError, which names `source`, if it has none."""
    if tokenizer.mask_token is None:
        raise ModelError(
            f"augment.mask: the tokenizer of {source} has no mask token; "
            "use ngram, swap or masked_lm"
        )
    return str(tokenizer.mask_token)


def cached_view(
    train: Split, settings: AugmentSettings, number: int, mask_token: str, cache: Path, say: Say
) -> Split:
    """View `number` (from 0) of every row with its label. It is made if the cache lacks it."""
    folder = cache / "views" / _view_key(train, settings, number, mask_token)
    name = f"view {number + 1}"

    def read() -> Split:
        texts, key, _ = map_texts(folder)
        with whole(folder / "meta.json"):
            if len(texts) != len(train.texts) or len(texts[0]) != len(train):
                raise ValueError("it isn't a view of these rows")
        return Split(name, texts, train.labels, key, is_view=True)

    def make() -> None:
        say(f"{name}: making it from {len(train):,} rows")
        words = _masked_words(settings)
        columns = tuple(
            _EditedColumn(train, column, settings, number, mask_token, words)
            for column in range(len(train.texts))
        )
        publish_texts(columns, (), folder, of=train.key)

    waiting = f"{name}: waiting for another process that makes it"
    return SharedEntry(folder, read, make, waiting, say).get()


def _view_key(train: Split, settings: AugmentSettings, number: int, mask_token: str) -> str:
    edits = settings.model_dump(mode="json", include={"mask", "ngram", "swap", "seed"})
    words = settings.masked_lm
    if words is not None:
        model = model_fingerprint(words.loads_from, trust_remote_code=words.trust_remote_code)
        edits["masked_lm"] = [model, words.share, words.candidates]
    return fingerprint(f"view {VIEW_FORMAT}", train.key, edits, number, mask_token)


def _masked_words(settings: AugmentSettings) -> MaskedWords | None:
    words = settings.masked_lm
    if words is None or words.share == 0:
        return None
    from kdsweep.core.augmentation.masked_lm import MaskedWords

    model, tokenizer = load_masked_lm(words.loads_from, trust_remote_code=words.trust_remote_code)
    return MaskedWords(model, tokenizer, words.candidates)


@dataclass(frozen=True, eq=False)
class _EditedColumn(Sequence[str]):
    """One text column of a view, edited when it is asked for.

    Of a sentence pair one text is edited, each as often as the other, so that what one says about
    the other stays half known.
    """

    train: Split
    column: int
    settings: AugmentSettings
    number: int
    mask_token: str
    words: MaskedWords | None

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
        texts = [row_texts[self.column] for row_texts in rows]
        random_numbers = [
            draws("\x1f".join(row_texts), self.settings.seed, self.number) for row_texts in rows
        ]
        # The first number of each row decides which of its texts is edited.
        edited = [
            i
            for i, row_texts in enumerate(rows)
            if random_numbers[i].randrange(len(row_texts)) == self.column
        ]
        found = self._with_other_words(
            [texts[i] for i in edited], [random_numbers[i] for i in edited]
        )
        for i, text in zip(edited, found, strict=True):
            texts[i] = edit_text(
                text,
                random_numbers[i],
                mask=self.settings.mask,
                ngram=self.settings.ngram,
                swap=self.settings.swap,
                mask_token=self.mask_token,
            )
        return texts

    def _with_other_words(self, texts: list[str], random_numbers: list[random.Random]) -> list[str]:
        """The texts with some words replaced by a masked language model, if there is one."""
        if self.words is None or self.settings.masked_lm is None:
            return texts
        share = self.settings.masked_lm.share
        rows = [text.split() for text in texts]
        chosen = [
            choose_words(words, draw, share)
            for words, draw in zip(rows, random_numbers, strict=True)
        ]
        replaced = self.words.replace(rows, chosen, random_numbers)
        return [" ".join(words) for words in replaced]
