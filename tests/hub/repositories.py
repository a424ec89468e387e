"""What the tests' Hub holds: repositories with their versions, and accounts with their tokens."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hub.exchange import git_hash

# Files that the Hub keeps beside git: answered from its CDN, and known by another hash.
LARGE = (".parquet", ".safetensors", ".bin", ".onnx", ".data", ".arrow")

Files = Path | Mapping[str, bytes | str]


def read_files(files: Files) -> dict[str, bytes]:
    if isinstance(files, Path):
        found = sorted(file for file in files.rglob("*") if file.is_file())
        return {file.relative_to(files).as_posix(): file.read_bytes() for file in found}
    return {name: data.encode() if isinstance(data, str) else data for name, data in files.items()}


@dataclass(frozen=True)
class Account:
    """Whose token it is, whether it may write, and to which gated repositories it has access.

    organizations: where it may write too; reads: those where it may not.
    """

    name: str
    role: str = "write"
    organizations: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    access: frozenset[str] = frozenset()
    is_expired: bool = False

    def may_write(self, repository: str) -> bool:
        return self.role == "write" and repository.split("/")[0] in (self.name, *self.organizations)


@dataclass
class Repository:
    """`kind` is "models" or "datasets"; `refs` has branches and tags by their full names."""

    kind: str
    name: str
    is_private: bool = False
    is_gated: bool = False
    versions: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def add(self, version: str, files: Files, sha: str | None = None) -> str:
        """The commit of a new version; the first one becomes `main`."""
        read = read_files(files)
        listing = "".join(f"{name}:{git_hash(data)}\n" for name, data in read.items())
        words = f"{self.kind}/{self.name}/{version}\n{listing}"
        commit = sha or hashlib.sha1(words.encode()).hexdigest()
        self.versions[commit] = read
        self.commits[version] = commit
        self.refs.setdefault("refs/heads/main", commit)
        return commit

    def find(self, revision: str) -> str | None:
        """The commit of a branch, a tag, a commit or the beginning of one."""
        if revision == "HEAD":
            revision = "main"
        for ref in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if ref in self.refs:
                return self.refs[ref]
        if re.fullmatch("[0-9a-f]{7,40}", revision):
            return next((one for one in self.versions if one.startswith(revision)), None)
        return None


@dataclass
class Content:
    """All that the Hub holds.

    `renamed` leads from (kind, old name) to the new name. `uploaded` has large files by their
    hashes, before a commit names them. `xet` is the address of Xet's storage, where nothing needs
    to answer; None: large files are at the CDN.
    """

    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    renamed: dict[tuple[str, str], str] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    xet: str | None = None
