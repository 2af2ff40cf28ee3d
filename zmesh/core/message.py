"""The words that the protocol is spoken in: ids, headers, and the final word of an exchange.

An exchange is one request and the replies to it. Its message id is 128 random bits, chosen by the sender; both streams
of the exchange (request and replies) are named by it. A reply has an id of its own, derived from the request's, so that
it need not travel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, NewType, Protocol

Address = NewType("Address", str)
"""Where a routed frame goes: a node id, or `leaf@node` for an ephemeral node that hangs on `node`."""

NodeId = NewType("NodeId", Address)
"""A node's name; 1 to 64 of `A-Za-z0-9._-`."""

LinkId = NewType("LinkId", int)
"""A number that the shell gives to each connection; never used twice by one node."""

MessageId = NewType("MessageId", bytes)
"""16 random bytes that name an exchange."""


class RequestHeader(NamedTuple):
    """What opens a request: `timestamp` in seconds since the epoch, `lifetime` in seconds from the sending on.

    `detached`: nobody waits for its end, so the work goes on also when its caller is gone.
    """

    directive: str
    timestamp: float
    lifetime: float | None = None
    detached: bool = False


class ReplyHeader(NamedTuple):
    """What opens a reply: `timestamp` in seconds since the epoch, `serial` counted from 1."""

    timestamp: float
    serial: int


class Eof(NamedTuple):
    """The final word of an exchange: `code` 0 for success, else a `reason` (a code of zmesh.errors) and a text."""

    code: int = 0
    reason: str = ""
    error: str = ""


class Stream(NamedTuple):
    """One direction of one exchange."""

    message_id: MessageId
    request: bool


class Readable(Protocol):
    """What a message's payload offers at least."""

    def read(self, size: int = -1, /) -> bytes:
        """The next `size` bytes, or the rest."""

    def readall(self) -> bytes:
        """All of it, from the start."""

    def __bool__(self) -> bool:
        """False if it is empty."""


class Message:
    """A message as a program sees it: `header` is a dict, `payload` reads like a file.

    The header of a reply has `message_id, in_response_to, sender, recipient, timestamp, serial, code, eof`, and of a
    final one that failed `error` (a text) and `reason` (a code of zmesh.errors). It is made when it is first asked for.
    """

    __slots__ = ("_header", "_make", "payload")

    def __init__(self, make: Callable[[], dict[str, object]], payload: Readable) -> None:
        self._make = make
        self._header: dict[str, object] | None = None
        self.payload = payload

    @property
    def header(self) -> dict[str, object]:
        """What is said about the payload."""
        if self._header is None:
            self._header = self._make()
        return self._header

    def __repr__(self) -> str:
        return f"Message({self.header!r})"


def reply_id(message_id: MessageId, serial: int) -> MessageId:
    """The id of the `serial`-th reply to a request, the same at both ends."""
    return MessageId(((int.from_bytes(message_id, "big") + serial) % (1 << 128)).to_bytes(16, "big"))
