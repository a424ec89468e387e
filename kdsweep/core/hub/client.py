"""Asking the Hub through huggingface_hub, with a bounded patience and errors in plain words."""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from logging import CRITICAL
from typing import Any

from kdsweep.core.hub.repository import Repository
from kdsweep.errors import DataError, HubUnreachable, ModelError, first_line

# What a server answers that has too much to do, or is about to restart.
BUSY = {408, 429, 500, 502, 503, 504}
# A passing fault is waited for this long; a server that never answered, for the shorter time.
BUSY_SECONDS = 15.0
AWAY_SECONDS = 8.0
CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
CHUNK = 1 << 18
NOT_ASKED = "isn't asked (HF_HUB_OFFLINE is set)"


class HubFault(Exception):
    """The Hub as a whole can't be used now: away, busy, or something else answers in its place.

    It ends whatever was asked at once, because no library takes it for an error of its own.
    is_away: whether nothing answers.
    """

    def __init__(self, fault: str, *, is_away: bool = False) -> None:
        self.is_away = is_away
        super().__init__(fault)


class _Patience:
    """How long nothing but faults has come from the Hub, in any thread.

    has_answered: whether this process ever got an answer. is_over: whether it ran out; then it
    stays so until there is an answer.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self.has_answered = False
        self.is_over = False
        self._lock = threading.Lock()

    def answered(self) -> None:
        with self._lock:
            self.since, self.has_answered, self.is_over = None, True, False

    def failed(self, started: float, fault: str, *, is_away: bool, wait: float = 0.0) -> None:
        """Raise HubFault if the fault has lasted too long, or would after `wait` seconds."""
        with self._lock:
            if self.since is None:
                self.since = started
            most = AWAY_SECONDS if is_away and not self.has_answered else BUSY_SECONDS
            if self.is_over or time.monotonic() + wait - self.since > most:
                self.since, self.is_over = None, True
                raise HubFault(fault, is_away=is_away)


_PATIENCE = _Patience()
_CHECKS = threading.local()
_READY = threading.Lock()
_IS_READY = False


def _make_client() -> Any:
    """huggingface_hub's own client, but impatient."""
    import httpx2
    from huggingface_hub.utils._http import hf_request_event_hook

    class Client(httpx2.Client):
        def send(self, request: httpx2.Request, **kwargs: Any) -> httpx2.Response:
            started = time.monotonic()
            _never_wait_forever(request)
            for check in getattr(_CHECKS, "of_thread", ()):
                check()
            try:
                response = super().send(request, **kwargs)
            except httpx2.TransportError as error:
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise HubFault(_untrusted(str(error))) from error
                away = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
                fault = f"can't be reached from here ({_reason(error)[:160]})"
                _PATIENCE.failed(started, fault, is_away=away)
                raise
            _check_answer(request, response, started)
            return response

    return Client(
        event_hooks={"request": [hf_request_event_hook]},
        follow_redirects=True,
        timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
    )


def _never_wait_forever(request: Any) -> None:
    """For most questions huggingface_hub sets no time limit. HF_HUB_DOWNLOAD_TIMEOUT may be longer
    than ours."""
    limits = request.extensions.get("timeout", {})
    theirs = limits.get("read") or 0.0
    request.extensions["timeout"] = limits | {
        "connect": CONNECT_SECONDS,
        "read": max(theirs, READ_SECONDS),
    }


def _check_answer(request: Any, response: Any, started: float) -> None:
    """Raise HubFault where the answer isn't the Hub's, or has been `busy` for too long."""
    status, headers = response.status_code, response.headers
    if status in BUSY:
        _PATIENCE.failed(started, busy(status), is_away=False, wait=_wish(headers))
        return
    _PATIENCE.answered()
    if status == 407:
        raise HubFault("can't be reached: the proxy asks for a user and a password (HTTP 407)")
    is_api = request.url.path.startswith("/api/") and request.method == "GET"
    if is_api and "html" in headers.get("Content-Type", ""):
        raise HubFault(not_the_hub(f"HTTP {status}, a web page"))
    if (is_api or "/resolve/" in request.url.path) and status in (401, 403, 404):
        says_why = "X-Error-Code" in headers or "X-Error-Message" in headers
        if not says_why and not _is_json(headers):
            raise HubFault(not_the_hub(f"HTTP {status} without a reason"))


def _wish(headers: Any) -> float:
    """How many seconds a busy server wants to be left alone; huggingface_hub sleeps that long."""
    from huggingface_hub.utils._http import parse_ratelimit_headers

    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    wait = headers.get("Retry-After", "")
    return float(wait) if wait.isdigit() else 0.0


def busy(status: int) -> str:
    return f"doesn't answer properly (HTTP {status}); try again later"


def not_the_hub(what: str) -> str:
    return (
        f"isn't what answers there ({what}): log in to this network if it asks for that, and check "
        "HF_ENDPOINT and the proxy"
    )


def _is_json(headers: Any) -> bool:
    return "json" in headers.get("Content-Type", "")


def _untrusted(reason: str) -> str:
    return (
        f"has a certificate that this machine doesn't trust ({reason.strip()[:120]}); if a proxy "
        "of yours signs it, name its certificate: SSL_CERT_FILE=FILE"
    )


def _reason(error: BaseException) -> str:
    return first_line(error) if str(error).strip() else type(error).__name__


def get_ready() -> None:
    """Let huggingface_hub use this client, and plain HTTP alone: a Xet host that can't be reached
    costs minutes of silence.
    """
    global _IS_READY
    with _READY:
        if _IS_READY:
            return
        import huggingface_hub
        from huggingface_hub import constants
        from huggingface_hub.utils import logging
        from huggingface_hub.utils.tqdm import disable_progress_bars

        constants.HF_HUB_DISABLE_XET = True
        # A slow download shows that it goes on, and one that breaks off keeps what has arrived.
        constants.DOWNLOAD_CHUNK_SIZE = CHUNK
        # What it has to say is in its errors, which we put into our own words.
        logging.set_verbosity(CRITICAL)
        warnings.filterwarnings("ignore", module=r"huggingface_hub\.")
        disable_progress_bars()
        huggingface_hub.set_client_factory(_make_client)
        _IS_READY = True


@contextlib.contextmanager
def checking(check: Callable[[], None]) -> Iterator[None]:
    """Call `check` before each request of this thread: also where huggingface_hub tries again on
    its own. It raises HubFault to end that."""
    before = getattr(_CHECKS, "of_thread", ())
    _CHECKS.of_thread = (*before, check)
    try:
        yield
    finally:
        _CHECKS.of_thread = before


def endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT.removesuffix("/")


def is_offline() -> bool:
    """Whether the user has forbidden to ask (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.is_offline_mode())


@contextlib.contextmanager
def asking(repository: Repository, *, key: str) -> Iterator[Any]:
    """Yield huggingface_hub's API. What it raises becomes one line, which starts with `key`.

    Raises HubUnreachable where the Hub can't be used now, and DataError or ModelError where it says
    no. OSError of this machine's disk is passed on.
    """
    get_ready()
    import httpx2
    from huggingface_hub import HfApi, errors

    kind = DataError if repository.kind == "dataset" else ModelError
    try:
        yield HfApi()
    except HubFault as error:
        raise unreachable(repository, str(error), key=key, is_away=error.is_away) from error
    except errors.OfflineModeIsEnabled as error:
        raise unreachable(repository, NOT_ASKED, key=key, is_away=True) from error
    except errors.HFValidationError as error:
        raise kind(
            f"{key}: {repository.name!r} is no file or folder here and can't be a name on the Hub "
            "(OWNER/NAME)"
        ) from error
    except errors.HfHubHTTPError as error:
        raise kind(f"{key}: {_refusal(repository, error)}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # What huggingface_hub raises where an answer isn't the Hub's JSON.
        fault = not_the_hub("an answer that nobody can read")
        raise unreachable(repository, fault, key=key) from error
    except (httpx2.HTTPError, errors.LocalEntryNotFoundError, errors.FileMetadataError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, errors.FileMetadataError):
            fault = not_the_hub("files without a commit")
            raise unreachable(repository, fault, key=key) from error
        fault = f"can't be reached from here ({_reason(cause)[:160]})"
        raise unreachable(repository, fault, key=key, is_away=True) from error


def unreachable(
    repository: Repository, fault: str, *, key: str, is_away: bool = False
) -> HubUnreachable:
    """The error for what only the Hub has while the Hub can't be used.

    fault: what is wrong with it, as the end of a sentence.
    """
    remedy = ""
    if is_away:
        remedy = (
            "; connect once (kdsweep plan --fetch brings all files), name a local folder or file, "
            "or run with --embedded (data and models that come as packages)"
        )
    return HubUnreachable(
        f"{key}: {repository.words} is not complete on this machine, and the Hub ({endpoint()}) "
        f"{fault}{remedy}"
    )


def _refusal(repository: Repository, error: Any) -> str:
    """Why the Hub doesn't give it, and what to do."""
    from huggingface_hub import errors, get_token

    response = error.response
    message = response.headers.get("X-Error-Message") or ""
    if not message and _is_json(response.headers):
        with contextlib.suppress(Exception):
            message = str(response.json().get("error", ""))
    name, kind = repository.name, repository.kind
    log_in = "`hf auth login`, or set HF_TOKEN"
    page = f"{endpoint()}/{repository.page}"
    if isinstance(error, errors.GatedRepoError):
        if get_token() is None:
            return (
                f"{name} is gated: ask for access at {page}, then log in with the same account "
                f"({log_in})"
            )
        return f"{name} is gated, and your account has no access yet: ask for it at {page}"
    # Without a token, 401 means that there is no such repository; with one, that the token is bad.
    if response.status_code == 401 and get_token() is not None:
        return (
            f"the Hub refuses the token that you are logged in with ({message or 'HTTP 401'}): "
            f"it is wrong or has expired; log in again ({log_in}), or log out"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no revision {repository.revision!r} on the Hub"
    if isinstance(error, errors.RepositoryNotFoundError):
        private = "" if get_token() else f"; if it is private, log in ({log_in})"
        return (
            f"{name!r} is no file or folder here, and the Hub has no {kind} of that name{private}"
        )
    if isinstance(error, errors.DisabledRepoError):
        return f"the Hub has disabled the {kind} {name}"
    if response.status_code in BUSY:
        return f"the Hub {busy(response.status_code)}"
    asked = response.request.url
    if not message and asked.host not in endpoint():
        message = f"{asked.host} sends {asked.path.rpartition('/')[2]}, or a proxy in between"
    return f"the Hub doesn't give {name} (HTTP {response.status_code}: {message or 'no reason'})"
