"""Who answers what is asked of the tests' Hub."""

from __future__ import annotations

import re
from urllib.parse import unquote

from hub import reading, writing
from hub.exchange import Answer, Asked, as_json, error, redirect
from hub.repositories import Account, Content, Repository

STORED = re.compile(r"/(?:_cdn|api/resolve-cache)/(models|datasets)/([^/]+/[^/]+)/([^/]+)/(.+)")
API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/([a-z-]+)(?:/([^/]+)(?:/(.*))?)?)?")
RESOLVE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/(resolve)/([^/]+)/(.+)")
BATCH = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)\.git/info/lfs/objects/(batch)()()")


def answer(asked: Asked, content: Content) -> Answer:
    if moved := _moved(asked, content):
        return moved
    if found := STORED.fullmatch(asked.path):
        kind, name, commit, path = map(unquote, found.groups())
        return reading.stored(asked, content.repositories[kind, name], commit, path)
    if asked.path.startswith("/_lfs/"):
        return writing.put(asked, content.uploaded)
    if asked.path == "/api/agent-harnesses":
        return as_json({})
    account = content.accounts.get(asked.token or "")
    if account is not None and account.is_expired:
        return error(401, 'User access token "tests" is expired')
    if asked.token and account is None:
        return error(401, "Invalid credentials in Authorization header")
    if asked.path == "/api/validate-yaml":
        return as_json({"errors": [], "warnings": []})
    if asked.path in ("/api/whoami-v2", "/api/repos/create"):
        if account is None:
            return error(401, "Invalid username or password.")
        if asked.path == "/api/whoami-v2":
            return reading.whoami(account)
        return writing.create(asked, account, content.repositories)
    for pattern in (RESOLVE, BATCH, API):
        if found := pattern.fullmatch(asked.path):
            kind, name, *rest = (unquote(part or "") for part in found.groups())
            repository = content.repositories.get((kind or "models", name))
            return _of_repository(asked, content, account, repository, *rest)
    if re.match("/api/(models|datasets)/|.*/resolve/", asked.path):
        return _no_repository(account)
    return error(404, "Sorry, we can't find the page you are looking for.")


def _moved(asked: Asked, content: Content) -> Answer | None:
    """Where a repository is that was renamed."""
    for (kind, before), name in content.renamed.items():
        for start in (f"/api/{kind}/", "/" if kind == "models" else f"/{kind}/"):
            rest = asked.target.removeprefix(start + before)
            is_new = asked.target.startswith(start + name)
            if rest != asked.target and rest[:1] in ("", "/", "?") and not is_new:
                return redirect(307, start + name + rest)
    return None


def _no_repository(account: Account | None) -> Answer:
    if account is None:
        return error(401, "Invalid username or password.", "RepoNotFound")
    return error(404, "Repository not found", "RepoNotFound")


def _of_repository(
    asked: Asked,
    content: Content,
    account: Account | None,
    repository: Repository | None,
    what: str,
    revision: str,
    path: str,
) -> Answer:
    may_write = repository is not None and account and account.may_write(repository.name)
    if repository is None or (repository.is_private and not may_write):
        return _no_repository(account)
    if what in ("batch", "preupload", "commit") and not may_write:
        return error(403, "Forbidden: you need write access to this repository")
    commit = repository.find(revision or "main")
    if commit is None:
        return error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    is_guarded = repository.is_gated and what in ("resolve", "tree", "paths-info")
    if is_guarded and (refused := _gated(account, repository)):
        return refused
    files = repository.versions[commit]
    is_xet = content.xet is not None
    match what:
        case "" | "revision":
            return reading.about(asked, repository, commit)
        case "tree":
            return reading.tree(asked, files, commit, path, is_xet)
        case "paths-info":
            return reading.paths_info(asked, files, commit, is_xet)
        case "refs":
            return reading.refs(repository)
        case "commits":
            return reading.history(commit)
        case "discussions":
            return as_json({"discussions": [], "count": 0, "start": 0})
        case "xet-read-token" | "xet-write-token":
            return reading.xet_token(content.xet)
        case "resolve":
            return reading.resolve(asked, repository, commit, path, content.xet)
        case "preupload":
            return writing.preupload(asked, files)
        case "batch":
            return writing.batch(asked, content.uploaded)
        case "commit":
            return writing.commit(asked, repository, content.uploaded)
    return error(404, "Sorry, we can't find the page you are looking for.")


def _gated(account: Account | None, repository: Repository) -> Answer | None:
    start = f"Access to {repository.kind[:-1]} {repository.name} is restricted"
    if account is None:
        return error(401, f"{start}. You must be authenticated to access it.", "GatedRepo")
    if repository.name not in account.access:
        return error(403, f"{start} and you are not in the authorized list.", "GatedRepo")
    return None
