"""Answers to those who publish to the tests' Hub."""

from __future__ import annotations

import base64
import json

from hub.exchange import Answer, Asked, as_json, error, git_hash, sha256
from hub.repositories import LARGE, Account, Repository


def create(asked: Asked, account: Account, known: dict[tuple[str, str], Repository]) -> Answer:
    """A new repository with one commit, as the Hub makes it."""
    given = asked.json()
    kind = given.get("type", "model") + "s"
    owner = given.get("organization") or account.name
    name = f"{owner}/{given['name']}"
    place = {"url": f"{asked.url}/{name}", "name": name}
    if not account.may_write(name):
        message = f'You don\'t have the rights to create a model under the namespace "{owner}"'
        return error(403, message)
    if (kind, name) in known:
        return as_json({"error": "You already created this model repo"} | place, status=409)
    repository = Repository(kind, name, is_private=given.get("visibility") == "private")
    repository.add("initial commit", {".gitattributes": "*.safetensors filter=lfs\n"})
    known[kind, name] = repository
    return as_json(place)


def preupload(asked: Asked, files: dict[str, bytes]) -> Answer:
    entries = []
    for one in asked.json()["files"]:
        path = one["path"]
        entry = {
            "path": path,
            "uploadMode": "lfs" if path.endswith(LARGE) else "regular",
            "shouldIgnore": False,
        }
        if path in files:
            entry["oid"] = sha256(files[path]) if path.endswith(LARGE) else git_hash(files[path])
        entries.append(entry)
    return as_json({"files": entries})


def batch(asked: Asked, uploaded: dict[str, bytes]) -> Answer:
    """Where to put the large files that aren't here yet."""
    objects = []
    for one in asked.json()["objects"]:
        entry = {"oid": one["oid"], "size": one["size"]}
        if one["oid"] not in uploaded:
            entry["actions"] = {"upload": {"href": f"{asked.cdn}/_lfs/{one['oid']}"}}
        objects.append(entry)
    return as_json({"transfer": "basic", "objects": objects})


def put(asked: Asked, uploaded: dict[str, bytes]) -> Answer:
    oid = asked.path.rsplit("/", 1)[1]
    if sha256(asked.body) != oid:
        return error(400, "the content doesn't match its hash")
    uploaded[oid] = asked.body
    return Answer(200)


def commit(asked: Asked, repository: Repository, uploaded: dict[str, bytes]) -> Answer:
    """One commit on `main`: all of its operations, or none."""
    before = repository.refs["refs/heads/main"]
    files = dict(repository.versions[before])
    title = ""
    for line in asked.body.splitlines():
        operation = json.loads(line)
        value = operation["value"]
        if operation["key"] == "header":
            title = value["summary"]
            if value.get("parentCommit") not in (None, before):
                return error(412, "A commit has happened since. Please refresh and try again.")
        elif operation["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif operation["key"] == "lfsFile":
            if value["oid"] not in uploaded:
                return error(400, f"{value['path']}: the large file wasn't uploaded")
            files[value["path"]] = uploaded[value["oid"]]
        elif operation["key"] == "deletedFile":
            files.pop(value["path"])
        elif operation["key"] == "deletedFolder":
            start = value["path"].rstrip("/") + "/"
            files = {path: data for path, data in files.items() if not path.startswith(start)}
    new = repository.add(f"{title} {len(repository.versions)}", files)
    repository.refs["refs/heads/main"] = new
    address = f"{asked.url}/{repository.name}/commit/{new}"
    return as_json({"success": True, "commitOid": new, "commitUrl": address})
