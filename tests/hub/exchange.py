"""What is asked of the tests' Hub, and what it answers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Asked:
    """One request; `target` is what was asked for, `path` the same without its query."""

    method: str
    target: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    # Where the Hub answers, and where its CDN does: a host that gets no token.
    url: str
    cdn: str

    @property
    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def json(self) -> dict:
        return json.loads(self.body or b"{}")


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def as_json(value: object, headers: Mapping[str, str] | None = None, status: int = 200) -> Answer:
    kind = {"Content-Type": "application/json"}
    return Answer(status, json.dumps(value).encode(), kind | dict(headers or {}))


def error(status: int, message: str, code: str = "", commit: str = "") -> Answer:
    """An error as the Hub tells it: in the body, and in headers."""
    headers = {"X-Error-Message": message, "X-Error-Code": code, "X-Repo-Commit": commit}
    return as_json({"error": message}, {k: v for k, v in headers.items() if v}, status)


def redirect(status: int, place: str, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, b"Redirecting", {"Location": place} | dict(headers or {}))


def content(asked: Asked, data: bytes, headers: Mapping[str, str]) -> Answer:
    """A file, or the part of it that was asked for."""
    kept = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"} | dict(headers)
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.headers.get("Range") or "")
    if found is None:
        return Answer(200, data, kept)
    first, last = found.groups()
    start = int(first) if first else max(0, len(data) - int(last))
    end = min(len(data) - 1, int(last)) if first and last else len(data) - 1
    if start >= len(data):
        return Answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
    kept["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
    return Answer(206, data[start : end + 1], kept)


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
