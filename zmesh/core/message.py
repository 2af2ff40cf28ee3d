"""The value types of the protocol: ids and their grammar, headers, and the end of an exchange.

An exchange is one request and the replies to it. Its message id is 128 random bits that the client chooses; it
identifies both streams of the exchange (request and replies). A reply has an id of its own, derived from the request's,
so that it need not travel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, NewType, Protocol, cast

Address = NewType("Address", str)
"""The destination of a routed frame: a node id, or `leaf@node` for an ephemeral node that is attached to `node`."""

NodeId = NewType("NodeId", Address)
"""A node's name; 1 to 64 of `A-Za-z0-9._-`."""

LinkId = NewType("LinkId", int)
"""A number that the shell gives to each connection; never used twice by one node."""

MessageId = NewType("MessageId", bytes)
"""16 random bytes that identify an exchange."""

MAX_DIRECTIVE = 160
"""Characters of a directive."""

MAX_RESET_CODE = (1 << 32) - 1
"""The highest code of a reset."""

MAX_CONTENT_TYPE = 128
"""Characters of a content type."""

MAX_METADATA = 8 * 1024
"""Bytes of UTF-8 of the keys and texts of metadata, in all."""

MAX_METADATA_ENTRIES = 256
"""Keys of metadata."""

_NODE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_ADDRESS = re.compile(r"[A-Za-z0-9._-]{1,64}(@[A-Za-z0-9._-]{1,64})?\Z")
_DIRECTIVE = re.compile("[^\\s:\ud800-\udfff]+:[^\\s:\ud800-\udfff]+\\Z")


def is_node_id(text: str) -> bool:
    """True if this is a node id: 1 to 64 characters of `A-Za-z0-9._-`."""
    return _NODE_ID.match(text) is not None


def is_address(text: str) -> bool:
    """True if this is the address of a node: a node id, or `leaf@node`."""
    return _ADDRESS.match(text) is not None


def is_directive(text: str) -> bool:
    """True if this is `namespace:action`, in at most MAX_DIRECTIVE characters that UTF-8 can express."""
    return len(text) <= MAX_DIRECTIVE and _DIRECTIVE.match(text) is not None


NO_METADATA: Mapping[str, str] = {}


class RequestHeader(NamedTuple):
    """The header of a request: `timestamp` in seconds since the epoch, `lifetime` in seconds from the sending on.

    `detached`: no client waits for its end, so the work goes on also when its client is gone.
    """

    directive: str
    timestamp: float
    lifetime: float | None = None
    detached: bool = False
    content_type: str = ""
    metadata: Mapping[str, str] = NO_METADATA


class ReplyHeader(NamedTuple):
    """The header of a reply: `timestamp` in seconds since the epoch, `serial` counted from 1."""

    timestamp: float
    serial: int
    content_type: str = ""
    metadata: Mapping[str, str] = NO_METADATA


class Eof(NamedTuple):
    """The end of an exchange: `code` 0 for success, else a `reason` (a code of zmesh.errors) and a text.

    `reset_code` is what the server gave with a reset (RFC 9000, section 19.4), 0 without one.
    """

    code: int = 0
    reason: str = ""
    error: str = ""
    reset_code: int = 0


class Stream(NamedTuple):
    """One direction of one exchange."""

    message_id: MessageId
    request: bool


make_stream = cast("Callable[[tuple[MessageId, bool]], Stream]", partial(tuple.__new__, Stream))
"""Stream of its fields as a tuple, which spares two calls of Python code for each exchange."""


class Readable(Protocol):
    """The payload of a message, as far as the core has to know it."""

    def read(self, size: int = -1, /) -> bytes:
        """The next `size` bytes, or the rest."""

    def readall(self) -> bytes:
        """All of it, from the start."""

    def value(self) -> object:
        """All of it as it was sent, by its content type."""

    @property
    def content_type(self) -> str:
        """The media type that the sender declared (RFC 6838)."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata of its message."""

    def __bool__(self) -> bool:
        """False if it is empty."""


class Message:
    """A reply as a program sees it: its payload, which reads like a file, and what is said about it.

    Each of these is an attribute, and a key of the mapping `header`, as Receptor has it (`error` and `reason` only if
    the request failed):

    `message_id`      the reply's own id, 32 hex digits.
    `in_response_to`  the message id of the request.
    `sender`          the node that replied.
    `recipient`       the node that sent the request.
    `timestamp`       when it was sent, in seconds since the epoch.
    `serial`          1 for the first reply to a request, 2 for the next one.
    `code`            0, or 1 in the final reply of a request that failed.
    `eof`             True for the final reply, which has no payload.
    `error`           what went wrong, for people; None otherwise.
    `reason`          what went wrong, as a code of zmesh.errors; None otherwise.

    `metadata` is what the directive sent beside the payload, text to text; it is an attribute only.
    """

    __slots__ = ("_header", "_make", "payload")

    def __init__(self, make: Callable[[], dict[str, object]], payload: Readable) -> None:
        self._make = make
        self._header: dict[str, object] | None = None
        self.payload = payload

    @property
    def header(self) -> dict[str, object]:
        """The header of the payload as a dict; made when it is first asked for."""
        if self._header is None:
            self._header = self._make()
        return self._header

    @property
    def message_id(self) -> str:
        """The reply's own id, 32 hex digits."""
        return str(self.header["message_id"])

    @property
    def in_response_to(self) -> str:
        """The message id of the request."""
        return str(self.header["in_response_to"])

    @property
    def sender(self) -> str:
        """The node that replied."""
        return str(self.header["sender"])

    @property
    def recipient(self) -> str:
        """The node that sent the request."""
        return str(self.header["recipient"])

    @property
    def timestamp(self) -> float:
        """When it was sent, in seconds since the epoch."""
        return cast("float", self.header["timestamp"])

    @property
    def serial(self) -> int:
        """1 for the first reply to a request, 2 for the next one."""
        return cast("int", self.header["serial"])

    @property
    def code(self) -> int:
        """0, or 1 in the final reply of a request that failed."""
        return cast("int", self.header["code"])

    @property
    def eof(self) -> bool:
        """True for the final reply, which has no payload."""
        return bool(self.header["eof"])

    @property
    def error(self) -> str | None:
        """The error as a sentence for people; None if there is none."""
        return cast("str | None", self.header.get("error"))

    @property
    def reason(self) -> str | None:
        """The error as a code of zmesh.errors; None if there is none."""
        return cast("str | None", self.header.get("reason"))

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata that the directive sent beside the payload, text to text; mostly empty."""
        return self.payload.metadata

    def __repr__(self) -> str:
        return f"Message({self.header!r})"


def reply_id(message_id: MessageId, serial: int) -> MessageId:
    """The id of the `serial`-th reply to a request, the same at both ends."""
    return MessageId(((int.from_bytes(message_id, "big") + serial) % (1 << 128)).to_bytes(16, "big"))
