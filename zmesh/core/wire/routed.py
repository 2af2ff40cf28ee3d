"""The frames of exchanges, between client and server, and the errors that forwarders send to a source."""

from __future__ import annotations

from typing import NamedTuple, cast

from zmesh.core.message import MAX_DIRECTIVE, Address, Eof, MessageId, NodeId, ReplyHeader, RequestHeader
from zmesh.core.wire.fields import (
    WireError,
    read_address,
    read_array,
    read_bool,
    read_int,
    read_items,
    read_message_id,
    read_node,
    read_number,
    read_text,
    unpack,
)
from zmesh.core.wire.limits import MAX_ACKS, MAX_HEAD, MAX_NAMES, MAX_NUMBER, MAX_TEXT, U63, U64

FLAG_FIRST = 1
FLAG_LAST = 2
FLAG_EOF = 4
FLAG_BLOCKED = 16
"""More payload waits, held back by the receiver's limit alone (DATA_BLOCKED, RFC 9000 section 19.12). 8 is reserved."""


class AckItem(NamedTuple):
    """Acknowledges all chunks below `next` of a stream; `limit` is the sender's total credit. `next` of CLOSED: the
    exchange is not (or no longer) known to the receiver."""

    message_id: MessageId
    request: bool
    next: int
    limit: int


CLOSED = U63


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


class Ack(NamedTuple):
    """The head of an ACK: the progress of streams between the two nodes."""

    incarnation: int
    target: int
    acks: tuple[AckItem, ...]


class Cancel(NamedTuple):
    """The head of a CANCEL; `request` False is the answer: there is nothing (more) to cancel."""

    message_id: MessageId
    request: bool
    request_number: int
    lowest_outstanding: int
    incarnation: int
    target: int


class Unreachable(NamedTuple):
    """The node `at` could not forward a frame of `kind` to `destination`; the body is that frame's head. `reason` is
    `no_route`, `left` (there was a route), `gone` (a leaf that left), `restarted`, or `full`; `near`: known ids similar
    to the destination, `text`: details for the text of an error."""

    kind: int
    reason: str
    at: NodeId
    destination: Address
    near: tuple[NodeId, ...]
    settled: float
    text: str = ""


class Expired(NamedTuple):
    """The ttl of a frame of `kind` to `destination` ended at `at`; the body is that frame's head."""

    kind: int
    at: NodeId
    destination: Address


_ChunkFields = tuple[MessageId, bool, int, int, int, int, int, int, object, object]


def _acks(value: object) -> tuple[AckItem, ...]:
    items = read_items(value, MAX_ACKS)
    if not items:
        return ()
    acks = []
    for item in items:
        message_id, request, following, limit = read_array(item, 4)
        if type(message_id) is not bytes or len(message_id) != 16 or type(request) is not bool:
            raise WireError("not an acknowledgement")
        acks.append(AckItem(MessageId(message_id), request, read_int(following, U63), read_int(limit, U63)))
    return tuple(acks)


def decode_chunk(head: bytes) -> Chunk:
    """Decode the head of a CHUNK, whose flags must agree with what it has."""
    fields = read_array(unpack(head, MAX_HEAD), 10)
    message_id, request, sequence, flags, request_number, lowest_outstanding, incarnation, target, opening, ending = (
        cast(
            "_ChunkFields",
            fields,  # as the condition finds out
        )
    )
    # One condition, because this is read for every message that arrives; two thirds of the time are saved.
    if not (
        type(message_id) is bytes
        and len(message_id) == 16
        and type(request) is bool
        and type(sequence) is type(flags) is type(request_number) is type(lowest_outstanding) is int
        and type(incarnation) is type(target) is int
        and 0 <= flags <= 31
        and 0 <= sequence | request_number | lowest_outstanding <= U63
        and incarnation | target >= 0  # MessagePack has none above U64
    ):
        raise WireError("a chunk with a field of the wrong type or out of its limits")
    header = None if opening is None else _request_header(opening) if request else _reply_header(opening)
    eof = None
    if ending is not None:
        code, reason, error = read_array(ending, 3)
        eof = Eof(read_int(code, 255), read_text(reason, 64), read_text(error, MAX_TEXT))
    if bool(flags & FLAG_FIRST) is (header is None) or bool(flags & FLAG_EOF) is (eof is None):
        raise WireError("flags that do not fit the chunk")
    return Chunk(
        message_id, request, sequence, flags, request_number, lowest_outstanding, incarnation, target, header, eof
    )


def _request_header(value: object) -> RequestHeader:
    directive, timestamp, lifetime, detached = read_array(value, 4)
    if (
        type(directive) is str
        and len(directive) <= MAX_DIRECTIVE
        and type(timestamp) is float
        and -MAX_NUMBER < timestamp < MAX_NUMBER
        and lifetime is None
        and detached is False
    ):
        return RequestHeader(directive, timestamp)
    return RequestHeader(
        read_text(directive, MAX_DIRECTIVE),
        read_number(timestamp),
        None if lifetime is None else max(0.0, read_number(lifetime)),
        read_bool(detached),
    )


def _reply_header(value: object) -> ReplyHeader:
    timestamp, serial = read_array(value, 2)
    return ReplyHeader(read_number(timestamp), read_int(serial, U63))


def decode_ack(head: bytes) -> Ack:
    """Decode the head of an ACK: at most MAX_ACKS of them."""
    incarnation, target, acks = read_array(unpack(head, MAX_HEAD), 3)
    return Ack(read_int(incarnation, U64), read_int(target, U64), _acks(acks))


def decode_cancel(head: bytes) -> Cancel:
    """Decode the head of a CANCEL."""
    message_id, request, request_number, lowest_outstanding, incarnation, target = read_array(unpack(head, MAX_HEAD), 6)
    return Cancel(
        read_message_id(message_id),
        read_bool(request),
        read_int(request_number, U63),
        read_int(lowest_outstanding, U63),
        read_int(incarnation, U64),
        read_int(target, U64),
    )


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
