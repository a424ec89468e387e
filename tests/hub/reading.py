"""Answers to those who read from the tests' Hub."""

from __future__ import annotations

import hashlib
import json
import urllib.parse
from pathlib import PurePosixPath

from hub.exchange import Answer, Asked, as_json, content, error, git_hash, redirect, sha256
from hub.repositories import LARGE, Account, Repository

WHEN = "2024-02-19T11:06:12.000Z"


def file_entry(path: str, data: bytes, is_xet: bool) -> dict:
    entry = {"type": "file", "oid": git_hash(data), "size": len(data), "path": path}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 135}
        if is_xet:
            entry["xetHash"] = sha256(data)
    return entry


def sibling(path: str, data: bytes, with_blobs: bool) -> dict:
    entry: dict = {"rfilename": path}
    if with_blobs:
        entry |= {"size": len(data), "blobId": git_hash(data)}
        if path.endswith(LARGE):
            entry["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 135}
    return entry


def about(asked: Asked, repository: Repository, commit: str) -> Answer:
    with_blobs = asked.query.get("blobs", "").lower() in ("true", "1")
    files = repository.versions[commit].items()
    value = {
        "_id": "0",
        "id": repository.name,
        "modelId": repository.name,
        "author": repository.name.split("/")[0],
        "sha": commit,
        "lastModified": WHEN,
        "createdAt": WHEN,
        "private": repository.is_private,
        "gated": "auto" if repository.is_gated else False,
        "disabled": False,
        "downloads": 1,
        "likes": 0,
        "tags": [],
        "siblings": [sibling(path, data, with_blobs) for path, data in files],
    }
    return as_json(value, {"X-Repo-Commit": commit})


def directories(paths: list[str]) -> dict[str, dict]:
    found = {str(parent) for path in paths for parent in PurePosixPath(path).parents} - {"."}
    return {
        path: {
            "type": "directory",
            "oid": hashlib.sha1(path.encode()).hexdigest(),
            "size": 0,
            "path": path,
        }
        for path in sorted(found)
    }


def tree(asked: Asked, files: dict[str, bytes], commit: str, inside: str, is_xet: bool) -> Answer:
    folders = directories(list(files))
    if inside and inside not in folders:
        return error(404, f'{inside} does not exist on "{commit}"', "EntryNotFound", commit)
    start = f"{inside}/" if inside else ""
    is_recursive = asked.query.get("recursive", "").lower() in ("true", "1")
    entries = [*folders.values(), *(file_entry(*one, is_xet) for one in files.items())]
    shown = [
        entry
        for entry in entries
        if entry["path"].startswith(start)
        and (is_recursive or "/" not in entry["path"][len(start) :])
    ]
    return as_json(shown, {"X-Repo-Commit": commit})


def paths_info(asked: Asked, files: dict[str, bytes], commit: str, is_xet: bool) -> Answer:
    if asked.body.startswith(b"{"):
        paths = json.loads(asked.body)["paths"]
    else:
        paths = urllib.parse.parse_qs(asked.body.decode()).get("paths", [])
    folders = directories(list(files))
    entries = [folders[path] for path in paths if path in folders]
    entries += [file_entry(path, files[path], is_xet) for path in paths if path in files]
    return as_json(entries, {"X-Repo-Commit": commit})


def refs(repository: Repository) -> Answer:
    found: dict[str, list] = {"heads": [], "tags": [], "convert": []}
    for ref, commit in repository.refs.items():
        _, kind, name = ref.split("/", 2)
        found[kind].append({"name": name, "ref": ref, "targetCommit": commit})
    return as_json(
        {"branches": found["heads"], "tags": found["tags"], "converts": found["convert"]}
    )


def history(commit: str) -> Answer:
    one = {"id": commit, "title": "add files", "message": "", "date": WHEN, "authors": []}
    return as_json([one])


def resolve(
    asked: Asked, repository: Repository, commit: str, path: str, xet: str | None
) -> Answer:
    """Where a file is: small ones beside the API, large ones at the CDN or in Xet's storage."""
    data = repository.versions[commit].get(path)
    if data is None:
        return error(404, "Entry not found", "EntryNotFound", commit)
    is_large = path.endswith(LARGE)
    headers = {
        "X-Repo-Commit": commit,
        "X-Linked-Size": str(len(data)),
        "X-Linked-ETag": f'"{sha256(data) if is_large else git_hash(data)}"',
    }
    place = f"{repository.kind}/{repository.name}/{commit}/{urllib.parse.quote(path)}"
    if not is_large:
        return redirect(307, f"/api/resolve-cache/{place}", headers)
    if xet is not None:
        route = f"{asked.url}/api/{repository.kind}/{repository.name}/xet-read-token/{commit}"
        headers |= {"X-Xet-Hash": sha256(data), "Link": f'<{route}>; rel="xet-auth"'}
    return redirect(302, f"{asked.cdn}/_cdn/{place}?Signature=s", headers)


def stored(asked: Asked, repository: Repository, commit: str, path: str) -> Answer:
    """A file's bytes, as the places that `resolve` names answer."""
    data = repository.versions[commit][path]
    if asked.path.startswith("/_cdn/"):
        return content(asked, data, {"ETag": f'"{sha256(data)}"'})
    return content(asked, data, {"ETag": f'"{git_hash(data)}"', "X-Repo-Commit": commit})


def xet_token(xet: str | None) -> Answer:
    """Access to Xet's storage at this address, where nothing needs to answer."""
    access = {"casUrl": xet or "", "accessToken": "xet", "exp": 9999999999}
    headers = {
        "X-Xet-Cas-Url": xet or "",
        "X-Xet-Access-Token": "xet",
        "X-Xet-Token-Expiration": "9999999999",
    }
    return as_json(access, headers)


def whoami(account: Account) -> Answer:
    token = {"displayName": "tests", "role": account.role}
    roles = dict.fromkeys(account.organizations, "write") | dict.fromkeys(account.reads, "read")
    value = {
        "type": "user",
        "id": "1",
        "name": account.name,
        "fullname": account.name,
        "orgs": [{"type": "org", "name": name, "roleInOrg": role} for name, role in roles.items()],
        "auth": {"type": "access_token", "accessToken": token},
    }
    return as_json(value)
