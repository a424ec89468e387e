"""All variants of the shipped YAMLs that are broken in one place."""

from __future__ import annotations

from broken_variants import TEXTS, incomplete, misspelt, of_wrong_type
from impossible_sweeps import impossible_sweeps
from impossible_values import impossible_sections, impossible_strategies, impossible_values

VARIANTS = [
    *(variant for file in TEXTS for variant in misspelt(file)),
    *(variant for file in TEXTS for variant in of_wrong_type(file)),
    *(variant for file in TEXTS for variant in incomplete(file)),
    *impossible_values(),
    *impossible_sections(),
    *impossible_strategies(),
    *impossible_sweeps(),
]
