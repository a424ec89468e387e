"""The spaces and sweeps that come with kdsweep, by name.

One rule says what a name means: what is here comes first. `sst2` is the file `sst2`, then
`sst2.yaml`, both in the current folder, then the shipped space of that name. A folder is never a
space, and neither is the name of a sweep that was run. Whatever has a slash or a suffix is a path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kdsweep.errors import SpaceError, did_you_mean

PACKAGE = Path(__file__).parent
# The first line of a shipped file, for editors, up to the path of its schema.
SCHEMA_LINE = "# yaml-language-server: $schema="
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Shipped:
    """One kind of files that come with kdsweep.

    folder: in a checkout beside the package, in a wheel below it (`setup.py`). noun: for messages.
    """

    folder: str
    noun: str

    def files(self) -> dict[str, Path]:
        """The shipped files by name, sorted."""
        in_wheel = PACKAGE / "shipped" / self.folder
        root = in_wheel if in_wheel.is_dir() else PACKAGE.parent / self.folder
        return {file.stem: file for file in sorted(root.glob("*.yaml"))}

    def find(self, named: Path | str) -> Path | str:
        """The file that `named` means. Raises SpaceError for a name that nothing has.

        A path is returned unchanged, whether or not the file exists.
        """
        name = str(named)
        if not is_name(name):
            self._check_not_shipped(name)
            return named
        if Path(name).is_file():
            return named
        if (here := _here(name)) is not None:
            return here
        files = self.files()
        if name in files:
            return files[name]
        if Path(name).exists():
            return named
        near = did_you_mean(name, [*files, *(file.name for file in Path().glob("*.y*ml"))])
        # Somebody may have typed the name of a sweep that was run.
        others = f"; the shipped ones are {', '.join(files)}"
        if self.noun == "space":
            others += "; the name of a sweep that was run is for status, compare and the like"
        raise SpaceError(
            name,
            None,
            f"there is no such file, and no shipped {self.noun} has this name{near or others}",
        )

    def copy_of(self, name: str) -> str:
        """The text of the shipped file, for another folder: its schema is named by its path."""
        first, _, rest = self.files()[name].read_text(encoding="utf-8").partition("\n")
        assert first.startswith(SCHEMA_LINE)
        return f"{SCHEMA_LINE}{PACKAGE / 'schemas' / Path(first).name}\n{rest}"

    def shadowed(self, named: str) -> Path | None:
        """The file here that is taken although a shipped one has the name, or None."""
        found = self.find(named)
        is_other = is_name(named) and named in self.files() and found != self.files()[named]
        return Path(found) if is_other else None

    def _check_not_shipped(self, path: str) -> None:
        """Raises SpaceError for `sst2.yaml` or `search_spaces/sst2.yaml` where no such file is."""
        name = path.rpartition("/")[2].removesuffix(".yaml")
        if path not in (f"{name}.yaml", f"{self.folder}/{name}.yaml") or name not in self.files():
            return
        if not Path(path).exists():
            raise SpaceError(
                path,
                None,
                f"there is no such file; the shipped {self.noun} is named without a suffix: {name}",
            )


SPACES = Shipped("search_spaces", "space")
SWEEPS = Shipped("sweeps", "sweep")


def is_name(text: str) -> bool:
    """Whether a text can be the name of a shipped file: no path, and no suffix of YAML."""
    is_word = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text) is not None
    return is_word and not text.endswith(SUFFIXES)


def _here(name: str) -> Path | None:
    """`NAME.yaml` or `NAME.yml` in the current folder, or None."""
    files = (Path(name + suffix) for suffix in SUFFIXES)
    return next((file for file in files if file.is_file()), None)
