"""What may go wrong with the tests' Hub, on request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from hub.exchange import Answer


@dataclass
class Fault:
    """What happens to the next `times` requests whose "METHOD /path?query" fits `match`."""

    match: str
    times: float = float("inf")
    # The Hub sleeps for so many seconds first.
    delay: float = 0.0
    # The connection ends without an answer.
    hang_up: bool = False
    # This is answered instead of what was asked for.
    status: int | None = None
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    # The connection ends after so many bytes of the body.
    drop_after: int | None = None
    # And stays open for so many seconds first.
    stall: float = 0.0
    # A byte in the middle of the body is another one.
    flip: bool = False

    def fits(self, words: str) -> bool:
        return self.times > 0 and re.search(self.match, words) is not None

    def instead(self) -> Answer | None:
        if self.status is None:
            return None
        return Answer(self.status, self.body.encode(), self.headers)

    def spoil(self, body: bytes) -> bytes:
        if not self.flip or not body:
            return body
        middle = len(body) // 2
        return body[:middle] + bytes([body[middle] ^ 0x55]) + body[middle + 1 :]
