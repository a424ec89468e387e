"""A broken space or sweep is one line that names file, line and rule, and no other exception."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from all_broken import VARIANTS
from broken_variants import SPACE, SWEEPS, TEXTS, Broken, shortened

from kdsweep.config import SpaceError, load


@pytest.fixture(scope="module")
def short_space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped space without its last section, which is half the text to parse."""
    path = tmp_path_factory.mktemp("space") / "sst2.yaml"
    path.write_text(shortened(TEXTS["sst2"]), encoding="utf-8")
    load(path)
    return path


def error_of(variant: Broken, folder: Path, space: Path) -> SpaceError:
    """The error of loading the variant: a space alone, a sweep with the shipped space."""
    path = folder / f"{variant.file}.yaml"
    is_space = variant.file == "sst2"
    text = variant.text
    if is_space and not variant.embedded:
        text = shortened(text, variant.line)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpaceError) as caught:
        if is_space:
            load(path, embedded=variant.embedded)
        else:
            load(space, path)
    assert caught.value.file == str(path)
    return caught.value


def test_the_shipped_files_are_whole_and_the_variants_many() -> None:
    for embedded in (False, True):
        for sweep in (None, *SWEEPS.values()):
            load(SPACE, sweep, embedded=embedded)
    assert len(VARIANTS) >= 400
    assert all(variant.text != TEXTS[variant.file] for variant in VARIANTS)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.title)
def test_a_broken_variant_is_one_line_with_file_line_and_rule(
    variant: Broken, tmp_path: Path, short_space: Path
) -> None:
    error = error_of(variant, tmp_path, short_space)
    assert error.line == variant.line, str(error)
    assert re.search(variant.rule, error.rule), str(error)
    assert "\n" not in str(error)
    assert str(error).startswith(f"{error.file}:{error.line}: ")
    assert not re.search(r"pydantic|Traceback|Input should|NoneType|<class", str(error))
