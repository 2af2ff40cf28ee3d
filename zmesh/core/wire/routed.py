"""The frames of exchanges, between client and server, and the errors that forwarders send to a source.

The heads of CHUNK, ACK and CANCEL are fixed structures, since one of them is read for every message.

    CHUNK   message id 16 | flags 1 | reserved 7 | sequence 8 | request number 8 | lowest outstanding 8 |
            incarnation 8 | target 8 | tail
    ACK     incarnation 8 | target 8 | count 2 | count times: message id 16, flags 1, next 8, limit 8
    CANCEL  message id 16 | flags 1 | reserved 3 | code 4 | request number 8 | lowest outstanding 8 | incarnation 8 |
            target 8

Integers are unsigned, the highest byte first. The tail of a chunk is there if one of its flags FIRST, EOF or EXTENDED
is set: a MessagePack array of the message's header, the final status and the extensions, each nil if it is missing. An
extension map goes from small integers to bytes. A receiver ignores the numbers that it does not know below CRITICAL,
and refuses the message, and no other one, for an unknown one from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from struct import Struct
from struct import error as struct_error
from typing import NamedTuple, cast

from zmesh.core.message import (
    MAX_CONTENT_TYPE,
    MAX_DIRECTIVE,
    MAX_METADATA,
    MAX_METADATA_ENTRIES,
    Address,
    Eof,
    MessageId,
    NodeId,
    ReplyHeader,
    RequestHeader,
)
from zmesh.core.wire.fields import (
    MAX_EXTENSION,
    NO_EXTENSIONS,
    WireError,
    pack,
    read_address,
    read_array,
    read_extensions,
    read_int,
    read_items,
    read_node,
    read_number,
    read_text,
    unpack,
)
from zmesh.core.wire.limits import MAX_ACKS, MAX_HEAD, MAX_NAMES, MAX_TEXT, U63

FLAG_FIRST = 1
FLAG_LAST = 2
FLAG_EOF = 4
FLAG_BLOCKED = 16
"""More payload waits, held back by the receiver's limit alone (DATA_BLOCKED, RFC 9000 section 19.12)."""

FLAG_REQUEST = 32
FLAG_EXTENDED = 64
MAX_TAIL = 32 * 1024
CLOSED = U63
STOP_SENDING = U63
RESET_CODE = 1
"""The extension of a chunk with an end that says with which code the server has reset it: 4 bytes."""

ACKS = 2
"""The extension of a request's first chunk that acknowledges other streams of the same two nodes, as an ACK would."""

_FLAGS = FLAG_FIRST | FLAG_LAST | FLAG_EOF | FLAG_BLOCKED | FLAG_REQUEST | FLAG_EXTENDED
_TAIL = FLAG_FIRST | FLAG_EOF | FLAG_EXTENDED
_CHUNK = Struct(">16sB7xQQQQQ")
_ACK = Struct(">QQH")
_ITEM = Struct(">16sBQQ")
_CANCEL = Struct(">16sB3xIQQQQ")


class Chunk(NamedTuple):
    """The head of a CHUNK: a numbered part of a stream.

    `request_number` counts the client's requests to this server and `lowest_outstanding` is the lowest that the client
    may still send, so that the server recognizes a late copy. `target` is the incarnation that it is for, and no other.
    """

    message_id: MessageId
    request: bool
    sequence: int
    flags: int
    request_number: int
    lowest_outstanding: int
    incarnation: int
    target: int
    header: RequestHeader | ReplyHeader | None
    eof: Eof | None
    extensions: Mapping[int, bytes] = NO_EXTENSIONS


# These spare a call of Python code for each frame.
_request_header = cast("Callable[[tuple[object, ...]], RequestHeader]", partial(tuple.__new__, RequestHeader))
_reply_header = cast("Callable[[tuple[object, ...]], ReplyHeader]", partial(tuple.__new__, ReplyHeader))
_SUCCESS = Eof()
_NO_ERROR: list[object] = [0, "", ""]
_chunk = cast("Callable[[tuple[object, ...]], Chunk]", partial(tuple.__new__, Chunk))


def encode_chunk(
    message_id: bytes,
    request: bool,
    sequence: int,
    flags: int,
    request_number: int,
    lowest_outstanding: int,
    incarnation: int,
    target: int,
    header: RequestHeader | ReplyHeader | None = None,
    eof: Eof | None = None,
    extensions: Mapping[int, bytes] = NO_EXTENSIONS,
) -> bytes:
    """Encode the head of a CHUNK, its flags as they are given; FLAG_EXTENDED is added where it has extensions."""
    if eof is not None:
        if eof.reset_code:
            extensions = {**extensions, RESET_CODE: eof.reset_code.to_bytes(4, "big")}
        ending = eof[:3]
    else:
        ending = None
    if extensions:
        flags |= FLAG_EXTENDED
    shown = flags | FLAG_REQUEST if request else flags
    fixed = _CHUNK.pack(message_id, shown, sequence, request_number, lowest_outstanding, incarnation, target)
    return fixed + pack((header, ending, extensions or None)) if flags & _TAIL else fixed


def decode_chunk(head: bytes) -> Chunk:
    """Decode the head of a CHUNK, whose flags must agree with what it has. Raises WireError."""
    try:
        message_id, shown, sequence, request_number, lowest_outstanding, incarnation, target = _CHUNK.unpack_from(head)
    except struct_error:
        raise WireError("a chunk's head that is too short") from None
    if shown & ~_FLAGS or sequence > U63 or request_number > U63 or lowest_outstanding > U63:
        raise WireError("a chunk with a field out of its limits")
    request, flags = shown & FLAG_REQUEST != 0, shown & ~FLAG_REQUEST
    fixed = (message_id, request, sequence, flags, request_number, lowest_outstanding, incarnation, target)
    if not flags & _TAIL:
        if len(head) != _CHUNK.size:
            raise WireError("a tail that no flag names")
        return _chunk((*fixed, None, None, NO_EXTENSIONS))
    tail = unpack(head[_CHUNK.size :], MAX_TAIL, MAX_METADATA_ENTRIES)
    if len(tail) != 3:
        raise WireError("not the tail of a chunk")
    opening, ending, extra = tail
    if (opening is None) is bool(flags & FLAG_FIRST) or (ending is None) is bool(flags & FLAG_EOF):
        raise WireError("flags that do not fit the chunk")
    header = None if opening is None else _request(opening) if request else _reply(opening)
    extensions = NO_EXTENSIONS if extra is None else read_extensions(extra)
    eof = None if ending is None else _eof(ending, extensions)
    return _chunk((*fixed, header, eof, extensions))


def _request(value: object) -> RequestHeader:
    if type(value) is not list or len(value) != 6:
        raise WireError("not the header of a request")
    directive, timestamp, lifetime, detached, content_type, metadata = value
    if type(directive) is not str or len(directive) > MAX_DIRECTIVE or type(detached) is not bool:
        raise WireError("not the header of a request")
    if lifetime is not None:
        lifetime = max(0.0, read_number(lifetime))
    timestamp = read_number(timestamp)
    if content_type == "" and not metadata:  # as _described has it, without the call
        return _request_header((directive, timestamp, lifetime, detached, "", {}))
    return _request_header((directive, timestamp, lifetime, detached, *_described(content_type, metadata)))


def _reply(value: object) -> ReplyHeader:
    if type(value) is not list or len(value) != 4:
        raise WireError("not the header of a reply")
    timestamp, serial, content_type, metadata = value
    timestamp, serial = read_number(timestamp), read_int(serial, U63)
    if content_type == "" and not metadata:
        return _reply_header((timestamp, serial, "", {}))
    return _reply_header((timestamp, serial, *_described(content_type, metadata)))


def _described(content_type: object, metadata: object) -> tuple[str, Mapping[str, str]]:
    """The end of both headers."""
    return read_text(content_type, MAX_CONTENT_TYPE), read_metadata(metadata) if metadata else {}


def _eof(value: object, extensions: Mapping[int, bytes]) -> Eof:
    if value == _NO_ERROR and type(cast("list[object]", value)[0]) is int and not extensions:
        return _SUCCESS
    code, reason, error = read_array(value, 3)
    reset_code = extensions.get(RESET_CODE, b"\0\0\0\0")
    if len(reset_code) != 4:
        raise WireError(f"a reset code of {len(reset_code)} bytes")
    return Eof(
        read_int(code, 255), read_text(reason, 64), read_text(error, MAX_TEXT), int.from_bytes(reset_code, "big")
    )


def read_metadata(value: object) -> Mapping[str, str]:
    """A map of texts, of MAX_METADATA bytes of UTF-8 in all."""
    if type(value) is not dict:
        raise WireError("not a map")
    size = 0
    for key, text in value.items():
        if type(key) is not str or type(text) is not str:
            raise WireError("metadata that is not text to text")
        size += len(key.encode()) + len(text.encode())
    if size > MAX_METADATA:
        raise WireError(f"metadata of {size} bytes where {MAX_METADATA} are allowed")
    return cast("Mapping[str, str]", value)


class AckItem(NamedTuple):
    """All chunks below `next` of a stream have come; `limit` is the credit given in all. `next` of CLOSED: the receiver
    has no such exchange (any more); `limit` of STOP_SENDING: it wants no more of this stream.
    """

    message_id: MessageId
    request: bool
    next: int
    limit: int


class Ack(NamedTuple):
    """The head of an ACK: the progress of streams between the two nodes."""

    incarnation: int
    target: int
    acks: tuple[AckItem, ...]


_item = cast("Callable[[tuple[object, ...]], AckItem]", partial(tuple.__new__, AckItem))


MAX_PIGGYBACKED = MAX_EXTENSION // _ITEM.size


def encode_ack(incarnation: int, target: int, acks: Iterable[tuple[bytes, bool, int, int]]) -> bytes:
    """Encode the head of an ACK, of at most MAX_ACKS."""
    items = encode_acks(acks)
    return _ACK.pack(incarnation, target, len(items) // _ITEM.size) + items


def encode_acks(acks: Iterable[tuple[bytes, bool, int, int]]) -> bytes:
    """Encode the extension ACKS of a chunk, of at most MAX_PIGGYBACKED."""
    return b"".join([_ITEM.pack(*item) for item in acks])


def decode_ack(head: bytes) -> Ack:
    """Decode the head of an ACK. Raises WireError."""
    try:
        incarnation, target, count = _ACK.unpack_from(head)
    except struct_error:
        raise WireError("an acknowledgement that is too short") from None
    if count > MAX_ACKS or len(head) != _ACK.size + count * _ITEM.size:
        raise WireError(f"{count} acknowledgements in {len(head)} bytes")
    return Ack(incarnation, target, tuple(decode_acks(head[_ACK.size :])))


def decode_acks(data: bytes) -> list[AckItem]:
    """Decode the extension ACKS of a chunk. Raises WireError."""
    if len(data) % _ITEM.size:
        raise WireError(f"acknowledgements in {len(data)} bytes")
    acks = []
    for message_id, request, following, limit in _ITEM.iter_unpack(data):
        if request > 1 or following > U63 or limit > U63:
            raise WireError("an acknowledgement with a field out of its limits")
        acks.append(_item((message_id, request == 1, following, limit)))
    return acks


class Cancel(NamedTuple):
    """The head of a CANCEL; `request` False is the answer: there is nothing (more) to cancel. `code`: with which code
    the client resets the request, 0 for a cancel.
    """

    message_id: MessageId
    request: bool
    request_number: int
    lowest_outstanding: int
    incarnation: int
    target: int
    code: int = 0


def encode_cancel(cancel: Cancel) -> bytes:
    """Encode the head of a CANCEL."""
    return _CANCEL.pack(cancel.message_id, cancel.request, cancel.code, *cancel[2:6])


def decode_cancel(head: bytes) -> Cancel:
    """Decode the head of a CANCEL. Raises WireError."""
    if len(head) != _CANCEL.size:
        raise WireError(f"a cancel of {len(head)} bytes")
    message_id, request, code, request_number, lowest_outstanding, incarnation, target = _CANCEL.unpack(head)
    if request > 1 or request_number > U63 or lowest_outstanding > U63:
        raise WireError("a cancel with a field out of its limits")
    return Cancel(MessageId(message_id), request == 1, request_number, lowest_outstanding, incarnation, target, code)


LOST = frozenset({"no_route", "left", "gone", "restarted", "no_key", "not_trusted", "no_grants", "full"})
"""The reasons of UNREACHABLEs about lost frames. With any other, also one of a later version, the frame was passed
on or has arrived, and something holds the request back.
"""


class Unreachable(NamedTuple):
    """The node `at` could not forward a frame of `kind` to `destination`; the body is that frame's head. `reason` is
    `no_route`, `left` (there was a route), `gone` (a leaf that left), `restarted`, `full`, `blocked` (it was passed
    on to a neighbour whose event loop is blocked), or `queued` (the destination answers a probe: the request's work
    has not begun); `near`: known ids similar to the destination, `text`: details for the text of an error."""

    kind: int
    reason: str
    at: NodeId
    destination: Address
    near: tuple[NodeId, ...]
    settled: float
    text: str = ""

    @property
    def is_held(self) -> bool:
        """Whether the frame was not lost, and no route has changed."""
        return self.reason not in LOST

    @property
    def obstacle(self) -> str:
        """The cause that holds the request back, for the text of an error."""
        return self.text or f"node {self.at!r}: {self.reason}"


class Expired(NamedTuple):
    """The ttl of a frame of `kind` to `destination` ended at `at`; the body is that frame's head."""

    kind: int
    at: NodeId
    destination: Address


def decode_unreachable(head: bytes) -> Unreachable:
    """Decode the head of an UNREACHABLE."""
    kind, reason, at, destination, near, settled, text = read_array(unpack(head, MAX_HEAD), 7)
    names = tuple(read_node(name) for name in read_items(near, MAX_NAMES))
    return Unreachable(
        read_int(kind, 255),
        read_text(reason, 64),
        read_node(at),
        read_address(destination),
        names,
        read_number(settled),
        read_text(text, MAX_TEXT),
    )


def decode_expired(head: bytes) -> Expired:
    """Decode the head of an EXPIRED."""
    kind, at, destination = read_array(unpack(head, MAX_HEAD), 3)
    return Expired(read_int(kind, 255), read_node(at), read_address(destination))


def encode(head: tuple[object, ...]) -> bytes:
    """The head of a packet from one of the values of this package."""
    if isinstance(head, Chunk):
        return encode_chunk(*head)
    if isinstance(head, Ack):
        return encode_ack(*head)
    if isinstance(head, Cancel):
        return encode_cancel(head)
    return pack(head)
