"""A small Hub for tests: what huggingface_hub, datasets and transformers ask for, in a thread."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hub.exchange import Answer, Asked, error
from hub.faults import Fault
from hub.repositories import Account, Content, Files, Repository
from hub.routes import answer

# Tokens that the Hub knows from the beginning; it refuses all others.
WRITER, READER, EXPIRED = "hf_tokenThatMayWrite", "hf_tokenThatMayRead", "hf_tokenThatExpired"


class Hub:
    """Repositories, accounts and faults; `requests` has a "METHOD /path?query" for each request.

    With a certificate (a file with its key), it speaks TLS.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self.certificate = certificate
        accounts = {
            WRITER: Account("tester", organizations=("team",)),
            READER: Account("tester", role="read"),
            EXPIRED: Account("tester", is_expired=True),
        }
        self.content = Content(accounts=accounts)
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def scheme(self) -> str:
        return "https" if self.certificate else "http"

    def start(self) -> None:
        """Answers, on the same port as before."""
        self._server = _Server(self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Goes away: connections end, and new ones are refused."""
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()

    # What it holds.

    def add_model(self, name: str, files: Files, commit: str = "first", **more: Any) -> str:
        """Adds version `commit` and returns its hash; the first version becomes `main`.

        `more`: `sha` (the hash to have), `private`, `gated`.
        """
        return self._add("models", name, files, commit, **more)

    def add_dataset(self, name: str, files: Files, commit: str = "first", **more: Any) -> str:
        """As `add_model`."""
        return self._add("datasets", name, files, commit, **more)

    def _add(
        self,
        kind: str,
        name: str,
        files: Files,
        version: str,
        *,
        sha: str | None = None,
        private: bool = False,
        gated: bool = False,
    ) -> str:
        new = Repository(kind, name, is_private=private, is_gated=gated)
        return self.content.repositories.setdefault((kind, name), new).add(version, files, sha)

    def repository(self, name: str) -> Repository:
        found = self.content.repositories
        return found["models", name] if ("models", name) in found else found["datasets", name]

    def commit(self, name: str, version: str = "first") -> str:
        """The hash of a version."""
        return self.repository(name).commits[version]

    def files(self, name: str) -> dict[str, bytes]:
        """What `main` has."""
        repository = self.repository(name)
        return repository.versions[repository.refs["refs/heads/main"]]

    def move_main(self, name: str, version: str) -> None:
        self.branch(name, "main", version)

    def branch(self, name: str, branch: str, version: str) -> None:
        self.repository(name).refs[f"refs/heads/{branch}"] = self.commit(name, version)

    def tag(self, name: str, tag: str, version: str) -> None:
        self.repository(name).refs[f"refs/tags/{tag}"] = self.commit(name, version)

    def rename(self, before: str, name: str) -> None:
        """Requests for `before` are redirected to `name`."""
        self.content.renamed[self.repository(name).kind, before] = name

    # Its faults: `match` is a regular expression on "METHOD /path?query".

    def fail(self, match: str, status: int | None = 503, **more: Any) -> None:
        """Answers with `status` (and `body`, `headers`), for the next `times` requests."""
        self.faults.append(Fault(match, status=status, **more))

    def delay(self, match: str, seconds: float, **more: Any) -> None:
        self.fail(match, None, delay=seconds, **more)

    def hang_up(self, match: str, **more: Any) -> None:
        """Ends the connection without an answer."""
        self.fail(match, None, hang_up=True, **more)

    def drop_after(self, match: str, size: int, **more: Any) -> None:
        """Ends the connection after `size` bytes of the answer's body."""
        self.fail(match, None, drop_after=size, **more)

    def stall_after(self, match: str, size: int, seconds: float = 5.0, **more: Any) -> None:
        """Sends nothing more for so long after `size` bytes, and ends the connection then."""
        self.fail(match, None, drop_after=size, stall=seconds, **more)

    def flip(self, match: str, **more: Any) -> None:
        """Changes a byte in the middle of the answer's body."""
        self.fail(match, None, flip=True, **more)

    def heal(self) -> None:
        self.faults.clear()

    def asked(self, match: str) -> list[str]:
        return [one for one in self.requests if re.search(match, one)]

    def settle(self) -> None:
        """Waits until every connection that a client opened, and closed, has come to its end.

        A request that its client has given up is carried out all the same.
        """
        with socket.create_connection(("127.0.0.1", self.port)) as last:
            # Connections are accepted in order.
            while last.getsockname() not in self._server.accepted:
                threading.Event().wait(0.01)
        while self._server.connections:
            threading.Event().wait(0.01)

    # Its clients.

    def environment(self, cache: Path, token: str | None = None) -> dict[str, str]:
        """For a process that knows this Hub and the cache in this folder, and no other."""
        ours = re.compile("(HF|HUGGING_?FACE|TRANSFORMERS)_.*|.*_PROXY|XDG_CACHE_HOME", re.I)
        kept = {name: value for name, value in os.environ.items() if not ours.fullmatch(name)}
        return kept | self.settings(cache) | ({"HF_TOKEN": token} if token else {})

    def settings(self, cache: Path) -> dict[str, str]:
        """The variables of the environment that name this Hub and this cache."""
        settings = {"HF_ENDPOINT": self.url, "HF_HOME": str(cache)}
        if self.content.xet is None:
            # Nothing here stores what Xet uploads.
            settings["HF_HUB_DISABLE_XET"] = "1"
        return settings | {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1,localhost"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.connections: set[socket.socket] = set()
        self.accepted: set[Any] = set()
        super().__init__(("127.0.0.1", hub.port), _Handler)
        if hub.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(hub.certificate)
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.connections.add(connection)
        self.accepted.add(address)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, address: Any) -> None:
        """A client that goes away is none of our errors."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Without it, an answer's body waits for the client to acknowledge its head.
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def answer_any(self) -> None:
        words = f"{self.command} {self.path}"
        hub = self.server.hub
        hub.requests.append(words)
        fault = next((one for one in hub.faults if one.fits(words)), Fault("", times=0))
        fault.times -= 1
        # Not `time.sleep`: tests replace it, so that clients don't wait between their tries.
        threading.Event().wait(fault.delay)
        if fault.hang_up:
            self._end()
            return
        # A client may wait for the answer before it has sent all.
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._send(fault.instead() or self._answer(body), fault)

    do_GET = do_HEAD = do_POST = do_PUT = answer_any

    def _answer(self, body: bytes) -> Answer:
        hub = self.server.hub
        split = urllib.parse.urlsplit(self.path)
        asked = Asked(
            self.command,
            self.path,
            split.path,
            dict(urllib.parse.parse_qsl(split.query)),
            self.headers,
            body,
            hub.url,
            f"{hub.scheme}://localhost:{hub.port}",
        )
        try:
            return answer(asked, hub.content)
        except (LookupError, ValueError) as problem:
            return error(500, f"the tests' Hub can't answer {self.path}: {problem!r}")

    def _send(self, found: Answer, fault: Fault) -> None:
        body = fault.spoil(found.body)
        self.send_response(found.status)
        for name, value in {"Content-Length": str(len(body)), **found.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: fault.drop_after])
        if fault.drop_after is not None and fault.drop_after < len(body):
            threading.Event().wait(fault.stall)
            self._end()

    def _end(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
