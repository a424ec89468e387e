"""What went wrong between this machine and the Hub while publishing, in plain words."""

from __future__ import annotations

import os
import ssl
from json import JSONDecodeError

from huggingface_hub import constants, get_token

# HTTPError is that of the HTTP library which this version of huggingface_hub uses.
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
)

from kdsweep.core.hub.client import HubFault
from kdsweep.errors import LONGEST_REASON, first_line

# An answer that is no JSON, or has none of the fields that the Hub's client reads.
NOT_OF_THE_HUB = (KeyError, TypeError, AttributeError, JSONDecodeError)
# What the Hub's client raises: also for files that it sends in other threads, and for a bad card.
ANY_HUB_ERROR = (HTTPError, HubFault, OSError, RuntimeError, ValueError, *NOT_OF_THE_HUB)


def log_in() -> str:
    """What to do without a good token."""
    return (
        "log in with `hf auth login`, or set HF_TOKEN, with a token that may write from "
        f"{constants.ENDPOINT}/settings/tokens"
    )


def in_plain_words(error: BaseException, repository: str) -> str:
    """What happened and what to do, without a token. `repository`: what was to be written."""
    error = _cause(error)
    if isinstance(error, HubFault):
        return f"the Hub ({constants.ENDPOINT}) {error}"
    response = getattr(error, "response", None)
    if isinstance(error, HfHubHTTPError) and response is not None:
        return _refused(error, response.status_code, response.headers, repository)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it"
    if isinstance(error, HTTPError):
        if "CERTIFICATE_VERIFY_FAILED" in str(error) or isinstance(error, ssl.SSLError):
            return (
                f"the certificate of {constants.ENDPOINT} isn't trusted here; set SSL_CERT_FILE to "
                "your network's certificates"
            )
        return (
            f"{constants.ENDPOINT} can't be reached, or the connection broke "
            f"({_without_token(first_line(error))}); check the network"
        )
    if isinstance(error, NOT_OF_THE_HUB):
        return (
            f"what answers at {constants.ENDPOINT} doesn't answer as the Hub does; try again, "
            "check HF_ENDPOINT, or log in to your network"
        )
    return f"the upload failed: {_without_token(first_line(error))[:LONGEST_REASON]}"


def _cause(error: BaseException) -> BaseException:
    """Upload threads wrap the error of a file, and the client the network's."""
    if isinstance(error, HubFault) and isinstance(error.__cause__, HTTPError):
        return error.__cause__
    while type(error) is RuntimeError and error.__cause__ is not None:
        error = error.__cause__
    return error


def _refused(error: HfHubHTTPError, status: int, headers: dict[str, str], repository: str) -> str:
    said = headers.get("X-Error-Message") or ""
    if status == 401:
        reason = "has expired" if "expired" in said else "is refused by the Hub"
        where = "the token in HF_TOKEN" if os.environ.get("HF_TOKEN") else "the saved token"
        return f"{where} {reason}; {log_in()}"
    if status == 403:
        return (
            f"this token may not write to {repository}; use a name of your own, or a token that "
            f"may write there ({constants.ENDPOINT}/settings/tokens)"
        )
    if status == 409:
        return f"{repository} was created by somebody meanwhile; choose another name"
    if status == 412:
        return f"{repository} was changed by somebody meanwhile"
    if status == 429 or status >= 500:
        return f"the Hub doesn't answer properly now (status {status}); try again later"
    if status == 404 and not headers.get("X-Error-Code"):
        return f"what answers at {constants.ENDPOINT} isn't the Hub (status 404); check HF_ENDPOINT"
    reason = said or first_line(error)
    return f"the Hub refused it (status {status}): {_without_token(reason)[:LONGEST_REASON]}"


def _without_token(text: str) -> str:
    token = get_token()
    return text.replace(token, "***") if token else text
