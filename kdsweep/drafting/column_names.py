"""What a column's name says about it: a label, a text, or neither."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Labels that are amounts more often than classes.
AMOUNT_NAMES = ("stars", "rating", "score", "similarity", "relatedness", "points", "grade")
# The likelier label first.
LABEL_NAMES = (
    *("label", "labels", "gold_label", "target", "class", "category", "y", "sentiment", "intent"),
    *("topic", "emotion", "polarity", "stance", "relevance", "is_duplicate", "entailment"),
    *("answer", "team", "department", "queue", "priority"),
    *AMOUNT_NAMES,
    *("genre", "tag", "type"),
    *("targets", "classes", "categories", "intents", "topics", "emotions", "genres", "tags"),
)
# Where a row comes from, or how sure an annotator was. Such a column is the label only if there is
# no other candidate.
ASIDE_NAMES = (
    *("id", "ids", "idx", "index", "uid", "source", "split", "fold", "train", "validation", "test"),
    *("dataset", "corpus", "file", "version", "language", "lang", "locale", "user", "author"),
    *("annotator", "worker", "year", "date", "time", "timestamp", "created"),
    *("confidence", "probability", "weight", "agreement", "variance", "std", "count"),
    *("tokens", "words"),
)
# The likelier text first.
TEXT_NAMES = (
    *("text", "sentence", "review", "message", "content", "body", "comment", "question", "tweet"),
    *("utterance", "document", "article", "abstract"),
)
PAIRS = (
    ("premise", "hypothesis"),
    ("query", "passage"),
    ("query", "document"),
    ("query", "text"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("question", "answer"),
    ("claim", "evidence"),
)
# How the names of two columns end that make a pair: `sentence1` and `sentence2`.
PAIR_ENDINGS = (("1", "2"), ("a", "b"), ("_one", "_two"))


def rank(name: str, known: Sequence[str]) -> int:
    """The index of the known name that `name` is; lower is likelier.

    A name with a known word in it (`true_label`) comes just before one without (`len(known)`).
    """
    lower = name.strip().lower()
    if lower in known:
        return known.index(lower)
    parts = re.split(r"[^a-z]+", lower)
    has_known_word = any(len(word) > 1 and word in parts for word in known)
    return len(known) - 1 if has_known_word else len(known)


def is_known(name: str, known: Sequence[str]) -> bool:
    return rank(name, known) < len(known)
