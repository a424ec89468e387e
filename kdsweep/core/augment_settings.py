"""What a trial does to the words of its rows. Frozen and plain, JSON both ways. No torch here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kdsweep.core.hub.repository import at_revision
from kdsweep.core.schedules import Number
from kdsweep.core.strict_model import Strict, Text, added_later, short_for

Share = Annotated[Number, Field(ge=0, le=1)]


class MaskedWordsSettings(Strict):
    """Words are replaced by what a masked language model would put there.

    It is sampled from its likeliest whole words, `candidates` of them. revision: of a model on the
    Hub; a sweep's trials have its commit there. trust_remote_code: whether the code that comes with
    it may run.
    """

    model: Text
    revision: Text | None = added_later(None)
    share: Share = 0.4
    candidates: Annotated[int, Field(ge=1)] = 15
    trust_remote_code: bool = added_later(False)

    @property
    def loads_from(self) -> str:
        """Where its weights come from, with the version of a model on the Hub."""
        return at_revision(self.model, self.revision)


class AugmentSettings(Strict):
    """Copies of the rows of train with other words, `views` of each, which the teacher labels.

    `kdsweep.core.augmentation.word_edits` explains the shares. in_finetuning: if no teacher
    teaches, the copies have the label of their row instead of being left out.
    """

    views: Annotated[int, Field(ge=0)]
    mask: Share = 0.0
    ngram: Share = 0.0
    swap: Share = 0.0
    masked_lm: Annotated[MaskedWordsSettings | None, short_for("model")] = None
    seed: Annotated[int, Field(ge=0)] = 0
    in_finetuning: bool = False
