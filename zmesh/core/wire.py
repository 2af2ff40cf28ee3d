"""Bytes to values and back; the one place where bytes from outside are read.

A frame is `[route, head, body]`. `route` is all that a forwarder reads, `head` is for the node at the other end (of the
link, or of the path), `body` is payload or empty. Route and head are MessagePack arrays whose every field has a type
and a limit here. Whatever does not fit raises WireError and nothing else, so nothing further in ever sees it.

A head ends with a checksum of all that stays the same on the way (`seal`, `unseal`). TCP has one as well, but it is
short, ends at every forwarder, and covers nothing of what happens in a machine's memory.

Kinds below FIRST_ROUTED stay on one link; the others travel to `destination`.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple, cast

import msgpack

from zmesh.core.message import Address, Eof, MessageId, NodeId, ReplyHeader, RequestHeader

VERSION = 1
MAX_TTL = 255
MAX_ROUTE = 320
MAX_HEAD = 256 * 1024
MAX_BODY = 64 * 1024
MAX_ENTRIES = 512
MAX_RECORDS = 512
MAX_RECORD = 192 * 1024
SMALL_RECORD = 1024
MAX_NEIGHBOURS = 2048
MAX_CAPABILITIES = 256
MAX_CAPABILITY = 160
MAX_TEXT = 4096
MAX_DIRECTIVE = 160
MAX_ACKS = 512
MAX_NAMES = 8
MAX_KEY = 64
SUM_BYTES = 4
INFINITY = 0xFFFFFFFF
MAX_HOPS = 0xFFFF
_U63 = (1 << 63) - 1
_U64 = (1 << 64) - 1
_EMPTY = b""

Frames = tuple[bytes, bytes, bytes]


class WireError(Exception):
    """Bytes from outside that are not what the protocol allows; the text says what is wrong, `reason` in one word."""

    reason = "garbage"


class ChecksumError(WireError):
    """A frame that is not what its source sent."""

    reason = "checksum"


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    REFUSE = 2
    ASK = 3
    GOODBYE = 4
    PROBE = 5
    ECHO = 6
    UPDATE = 7
    RECORD = 8
    SEQNO_REQUEST = 9
    RESEND = 10
    CHUNK = 16
    ACK = 17
    CANCEL = 18
    UNREACHABLE = 19
    EXPIRED = 20


FIRST_ROUTED = 16
_KINDS = frozenset(int(kind) for kind in Kind)

FLAG_FIRST = 1
FLAG_LAST = 2
FLAG_EOF = 4
FLAG_RESENT = 8
FLAG_WANTING = 16

FULL_BEGIN = 1
FULL_END = 2


class Route(NamedTuple):
    """The first part of a frame. `host` is the node that `destination` is or hangs on; `onward` is the same part with a
    ttl of one less, empty when the ttl is used up; `sum` is where the checksum of the frame begins."""

    version: int
    kind: int
    ttl: int
    destination: Address
    source: Address
    host: NodeId
    onward: bytes
    sum: int


class Hello(NamedTuple):
    """The first message both ways. `time`: seconds since the epoch; `session`: the sender's number of this link;
    `answers`: the session that this HELLO answers, or 0."""

    node: NodeId
    incarnation: int
    time: float
    leaf: bool
    session: int
    answers: int


class Refuse(NamedTuple):
    """The link is refused; `reason` is `version`, `own_id`, `duplicate_id` or `leaf`, `text` for people."""

    reason: str
    text: str


class Goodbye(NamedTuple):
    """The sender leaves."""

    reason: str


class Probe(NamedTuple):
    """`token` comes back in the ECHO; `routes` counts the UPDATEs sent on this link, `records` is the digest of the
    sender's records, `settled` how many seconds the sender's routes have been unchanged."""

    token: float
    routes: int
    records: int
    settled: float


class Echo(NamedTuple):
    """The answer to a PROBE."""

    token: float


class Entry(NamedTuple):
    """What an UPDATE says of one destination; a `metric` of INFINITY takes back what was said before. The tables hold
    plain tuples of the same order (`Row`), which are made a thousand at a time."""

    destination: NodeId
    incarnation: int
    seqno: int
    metric: int
    hops: int


Row = tuple[NodeId, int, int, int, int]


class Update(NamedTuple):
    """Routes; `full` marks the first (FULL_BEGIN) and the last (FULL_END) part of a whole table. In those, `number` is
    the count of UPDATEs on this link so far. On the wire the entries are turned into columns."""

    full: int
    number: int
    entries: list[Row]


class Record(NamedTuple):
    """What a node says of itself to all; `neighbours` with the cost of the link to each."""

    node: NodeId
    incarnation: int
    serial: int
    capabilities: tuple[str, ...]
    neighbours: tuple[tuple[NodeId, int], ...]
    public_key: bytes


class SeqnoRequest(NamedTuple):
    """Asks `destination` for a sequence number of at least `seqno`; RFC 8966 section 3.8.1.2."""

    destination: NodeId
    seqno: int
    hops_left: int


class Resend(NamedTuple):
    """Asks the neighbour to tell its routes, its records, or both again."""

    routes: bool
    records: bool


class AckItem(NamedTuple):
    """All chunks below `next` of a stream have come; `limit` is the weight that may be sent in all. `next` of CLOSED:
    the receiver knows the exchange no more."""

    message_id: MessageId
    request: bool
    next: int
    limit: int


CLOSED = _U63


class Chunk(NamedTuple):
    """The head of a CHUNK: a numbered piece of a stream.

    `number` counts the sender's requests to this recipient and `floor` is the lowest that it may still send, so that
    the recipient can tell a late copy from a new request. `age` is the time since the first sending, in milliseconds.
    A `target` of 0 stands for whatever incarnation the recipient has.
    """

    message_id: MessageId
    request: bool
    sequence: int
    flags: int
    number: int
    floor: int
    incarnation: int
    target: int
    age: int
    header: RequestHeader | ReplyHeader | None
    eof: Eof | None


class Ack(NamedTuple):
    """The head of an ACK: how far streams between the two nodes have come."""

    incarnation: int
    target: int
    acks: tuple[AckItem, ...]


class Cancel(NamedTuple):
    """The head of a CANCEL; `request` False is the answer that there is nothing (more) to cancel."""

    message_id: MessageId
    request: bool
    number: int
    floor: int
    incarnation: int
    target: int


class Unreachable(NamedTuple):
    """`at` can't pass on a frame of `kind` to `destination`; the body is that frame's head. `reason` is `no_route`,
    `gone` (a leaf that left), `restarted`, or `full`; `near` are known names close to the destination's."""

    kind: int
    reason: str
    at: NodeId
    destination: Address
    near: tuple[NodeId, ...]
    settled: float


class Expired(NamedTuple):
    """The ttl of a frame of `kind` to `destination` ended at `at`; the body is that frame's head."""

    kind: int
    at: NodeId
    destination: Address


_NODE = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_ADDRESS = re.compile(r"[A-Za-z0-9._-]{1,64}(@[A-Za-z0-9._-]{1,64})?\Z")
MAX_KNOWN = 65536
_known_nodes: dict[object, NodeId] = {}
_INT = {int}
_pack = msgpack.Packer(autoreset=True, use_bin_type=True).pack


def _unpack(data: bytes, limit: int) -> list[object]:
    if len(data) > limit:
        raise WireError(f"{len(data)} bytes where {limit} are allowed")
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            use_list=True,
            strict_map_key=True,
            max_str_len=4 * MAX_TEXT,  # in bytes of UTF-8; _text counts characters
            max_bin_len=MAX_RECORD,
            max_array_len=2 * MAX_NEIGHBOURS,
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise WireError(f"not MessagePack: {error}") from None
    if type(value) is not list:
        raise WireError("not an array")
    return value


def _fields(value: object, count: int) -> list[object]:
    if type(value) is not list or len(value) != count:
        raise WireError(f"not an array of {count}")
    return value


def _items(value: object, limit: int) -> list[object]:
    if type(value) is not list or len(value) > limit:
        raise WireError(f"not an array of at most {limit}")
    return value


def _int(value: object, high: int) -> int:
    if type(value) is not int or not 0 <= value <= high:
        raise WireError(f"not an integer from 0 to {high}")
    return value


def _number(value: object) -> float:
    if type(value) is int:  # MessagePack has none of more than 64 bits
        return float(value)
    if type(value) is not float or not -1e18 < value < 1e18:
        raise WireError("not a number")
    return value


def _bool(value: object) -> bool:
    if type(value) is not bool:
        raise WireError("not a boolean")
    return value


def _text(value: object, limit: int) -> str:
    if type(value) is not str or len(value) > limit:
        raise WireError(f"not a text of at most {limit} characters")
    return value


def _node(value: object) -> NodeId:
    if type(value) is not str or not _NODE.match(value):
        raise WireError("not a node id")
    return NodeId(Address(value))


def _address(value: object) -> Address:
    if type(value) is not str or not _ADDRESS.match(value):
        raise WireError("not an address")
    return Address(value)


def is_address(text: str) -> bool:
    """True if a message can be sent there: a node id, or `leaf@node`."""
    return _ADDRESS.match(text) is not None


def _message_id(value: object) -> MessageId:
    if type(value) is not bytes or len(value) != 16:
        raise WireError("not a message id")
    return MessageId(value)


@lru_cache(maxsize=4096)
def encode_route(kind: int, destination: Address | str = "", source: Address | str = "", ttl: int = MAX_TTL) -> bytes:
    """The first part of a frame; frames that stay on a link have no destination and no source."""
    return bytes(_pack((VERSION, int(kind), ttl, destination, source)))


@lru_cache(maxsize=4096)
def decode_route(data: bytes) -> Route:
    """Read the first part of a frame. A HELLO of a foreign version is read as well, so that it can be refused."""
    version, kind, ttl, destination, source = _fields(_unpack(data, MAX_ROUTE), 5)
    version, kind, ttl = _int(version, _U63), _int(kind, 255), _int(ttl, MAX_TTL)
    if version != VERSION and kind != Kind.HELLO:
        raise WireError(f"version {version}, not {VERSION}")
    if kind not in _KINDS:
        raise WireError(f"unknown kind {kind}")
    if kind < FIRST_ROUTED:
        if destination != "" or source != "":
            raise WireError("an address on a frame that stays on its link")
        return Route(version, kind, ttl, Address(""), Address(""), NodeId(Address("")), _EMPTY, _sum(kind, "", ""))
    to, of = _address(destination), _address(source)
    onward = encode_route(kind, to, of, ttl - 1) if ttl > 1 else _EMPTY
    return Route(version, kind, ttl, to, of, host_of(to), onward, _sum(kind, to, of))


@lru_cache(maxsize=4096)
def host_of(address: Address) -> NodeId:
    """The node that an address is, or hangs on."""
    return NodeId(Address(address[address.find("@") + 1 :]))


def encode(head: tuple[object, ...]) -> bytes:
    """The head of a frame from one of this module's values, as yet without its checksum."""
    return bytes(_pack(head))


def encode_link(kind: Kind, head: tuple[object, ...] = ()) -> Frames:
    """A frame that stays on its link."""
    return seal(kind, "", "", bytes(_pack(head)), _EMPTY)


@lru_cache(maxsize=4096)
def _sum(kind: int, destination: str, source: str) -> int:
    """The checksum of what stays the same of a route on its way."""
    return zlib.crc32(f"{int(kind)} {destination} {source}".encode())


def seal(kind: Kind, destination: Address | str, source: Address | str, head: bytes, body: bytes) -> Frames:
    """A frame as it leaves its source: the head ends with the CRC-32 of kind, addresses, head and body."""
    total = zlib.crc32(body, zlib.crc32(head, _sum(kind, destination, source)))
    return (encode_route(kind, destination, source), head + total.to_bytes(SUM_BYTES, "big"), body)


def unseal(route: Route, head: bytes, body: bytes) -> bytes:
    """The head without its checksum, if the frame is what its source sent."""
    content = head[:-SUM_BYTES]
    total = zlib.crc32(body, zlib.crc32(content, route.sum))
    if head[-SUM_BYTES:] != total.to_bytes(SUM_BYTES, "big"):
        raise ChecksumError("its checksum does not fit")
    return content


def decode_hello(head: bytes) -> Hello:
    """Read the head of a HELLO."""
    node, incarnation, time, leaf, session, answers = _fields(_unpack(head, MAX_HEAD), 6)
    return Hello(
        _node(node), _int(incarnation, _U64), _number(time), _bool(leaf), _int(session, _U63), _int(answers, _U63)
    )


def decode_refuse(head: bytes) -> Refuse:
    """Read the head of a REFUSE."""
    reason, text = _fields(_unpack(head, MAX_HEAD), 2)
    return Refuse(_text(reason, 64), _text(text, MAX_TEXT))


def decode_goodbye(head: bytes) -> Goodbye:
    """Read the head of a GOODBYE."""
    (reason,) = _fields(_unpack(head, MAX_HEAD), 1)
    return Goodbye(_text(reason, MAX_TEXT))


def decode_probe(head: bytes) -> Probe:
    """Read the head of a PROBE."""
    token, routes, records, settled = _fields(_unpack(head, MAX_HEAD), 4)
    return Probe(_number(token), _int(routes, _U63), _int(records, _U64), _number(settled))


def decode_echo(head: bytes) -> Echo:
    """Read the head of an ECHO."""
    (token,) = _fields(_unpack(head, MAX_HEAD), 1)
    return Echo(_number(token))


def encode_update(update: Update) -> Frames:
    """An UPDATE, its entries column by column: texts of one kind lie side by side, and are checked all at once."""
    columns = list(zip(*update.entries, strict=True)) or [()] * 5
    return encode_link(Kind.UPDATE, (update.full, update.number, *columns))


def decode_update(head: bytes) -> Update:
    """Read the head of an UPDATE: at most MAX_ENTRIES routes."""
    full, number, *columns = _fields(_unpack(head, MAX_HEAD), 7)
    destinations = _nodes(columns[0])
    count = len(destinations)
    incarnations, seqnos = _ints(columns[1], count, _U64), _ints(columns[2], count, _U63)
    metrics, hops = _ints(columns[3], count, INFINITY), _ints(columns[4], count, MAX_HOPS)
    entries = list(zip(destinations, incarnations, seqnos, metrics, hops, strict=True))
    return Update(_int(full, FULL_BEGIN | FULL_END), _int(number, _U63), entries)


def _nodes(column: object) -> list[NodeId]:
    """A column of node ids, each checked when it is first seen; equal ones are one object from then on."""
    names = _items(column, MAX_ENTRIES)
    try:
        return [_known_nodes[name] for name in names]
    except (KeyError, TypeError):
        if len(_known_nodes) > MAX_KNOWN:
            _known_nodes.clear()
        return [_known_nodes.setdefault(node, node) for node in map(_node, names)]


def _ints(column: object, count: int, high: int) -> list[int]:
    """A column of integers from 0 to `high`."""
    values = _items(column, MAX_ENTRIES)
    if len(values) != count or not set(map(type, values)) <= _INT:
        raise WireError(f"not a column of {count} integers")
    integers = cast("list[int]", values)
    if count and not 0 <= min(integers) <= max(integers) <= high:
        raise WireError(f"a column with an integer that is not from 0 to {high}")
    return integers


def encode_records(blobs: list[bytes]) -> Frames:
    """A RECORD frame of records as their nodes encoded them."""
    return encode_link(Kind.RECORD, tuple(blobs))


def decode_records(head: bytes) -> list[tuple[Record, bytes]]:
    """The records of a RECORD frame, each with its own bytes."""
    records = []
    for blob in _items(_unpack(head, MAX_HEAD), MAX_RECORDS):
        if type(blob) is not bytes:
            raise WireError("not a record")
        records.append(_known_record(blob) if len(blob) <= SMALL_RECORD else (decode_record(blob), blob))
    return records


@lru_cache(maxsize=4096)
def _known_record(blob: bytes) -> tuple[Record, bytes]:
    """A record and its bytes: the same comes from every neighbour, and is read once."""
    return (decode_record(blob), blob)


def decode_record(blob: bytes) -> Record:
    """Read one record, as its node encoded it."""
    node, incarnation, serial, capabilities, neighbours, public_key = _fields(_unpack(blob, MAX_RECORD), 6)
    names = tuple(_text(name, MAX_CAPABILITY) for name in _items(capabilities, MAX_CAPABILITIES))
    edges = []
    for item in _items(neighbours, MAX_NEIGHBOURS):
        neighbour, cost = _fields(item, 2)
        edges.append((_node(neighbour), _int(cost, INFINITY)))
    if type(public_key) is not bytes or len(public_key) > MAX_KEY:
        raise WireError(f"not a key of at most {MAX_KEY} bytes")
    return Record(_node(node), _int(incarnation, _U64), _int(serial, _U63), names, tuple(edges), public_key)


def decode_seqno_requests(head: bytes) -> list[SeqnoRequest]:
    """Read the head of a SEQNO_REQUEST: at most MAX_ENTRIES of them."""
    requests = []
    for item in _items(_unpack(head, MAX_HEAD), MAX_ENTRIES):
        destination, seqno, hops_left = _fields(item, 3)
        requests.append(SeqnoRequest(_node(destination), _int(seqno, _U63), _int(hops_left, MAX_TTL)))
    return requests


def decode_resend(head: bytes) -> Resend:
    """Read the head of a RESEND."""
    routes, records = _fields(_unpack(head, MAX_HEAD), 2)
    return Resend(_bool(routes), _bool(records))


def _acks(value: object) -> tuple[AckItem, ...]:
    items = _items(value, MAX_ACKS)
    if not items:
        return ()
    acks = []
    for item in items:
        message_id, request, following, limit = _fields(item, 4)
        if type(message_id) is not bytes or len(message_id) != 16 or type(request) is not bool:
            raise WireError("not an acknowledgement")
        acks.append(AckItem(MessageId(message_id), request, _int(following, _U63), _int(limit, _U63)))
    return tuple(acks)


def decode_chunk(head: bytes) -> Chunk:
    """Read the head of a CHUNK, whose flags must agree with what it has."""
    fields = _fields(_unpack(head, MAX_HEAD), 11)
    message_id, request, sequence, flags, number, floor, incarnation, target, age, opening, ending = fields
    # One condition, because this is read for every message that arrives; two thirds of the time are saved.
    if not (
        type(message_id) is bytes
        and len(message_id) == 16
        and type(request) is bool
        and type(sequence) is type(flags) is type(number) is type(floor) is int
        and type(incarnation) is type(target) is type(age) is int
        and 0 <= sequence <= _U63
        and 0 <= flags <= 31
        and 0 <= number <= _U63
        and 0 <= floor <= _U63
        and 0 <= incarnation <= _U64
        and 0 <= target <= _U64
        and 0 <= age <= _U63
    ):
        raise WireError("a chunk with a field of the wrong type or out of its limits")
    header = None if opening is None else _request_header(opening) if request else _reply_header(opening)
    eof = None
    if ending is not None:
        code, reason, error = _fields(ending, 3)
        eof = Eof(_int(code, 255), _text(reason, 64), _text(error, MAX_TEXT))
    if bool(flags & FLAG_FIRST) is not (header is not None) or bool(flags & FLAG_EOF) is not (eof is not None):
        raise WireError("flags that do not fit the chunk")
    return Chunk(
        MessageId(message_id),
        request,
        sequence,
        flags,
        number,
        floor,
        incarnation,
        target,
        age,
        header,
        eof,
    )


def _request_header(value: object) -> RequestHeader:
    directive, timestamp, lifetime, detached = _fields(value, 4)
    if (
        type(directive) is str
        and len(directive) <= MAX_DIRECTIVE
        and type(timestamp) is float
        and lifetime is None
        and detached is False
    ):
        return RequestHeader(directive, _number(timestamp))
    return RequestHeader(
        _text(directive, MAX_DIRECTIVE),
        _number(timestamp),
        None if lifetime is None else max(0.0, _number(lifetime)),
        _bool(detached),
    )


def _reply_header(value: object) -> ReplyHeader:
    timestamp, serial = _fields(value, 2)
    return ReplyHeader(_number(timestamp), _int(serial, _U63))


def decode_ack(head: bytes) -> Ack:
    """Read the head of an ACK: at most MAX_ACKS of them."""
    incarnation, target, acks = _fields(_unpack(head, MAX_HEAD), 3)
    return Ack(_int(incarnation, _U64), _int(target, _U64), _acks(acks))


def decode_cancel(head: bytes) -> Cancel:
    """Read the head of a CANCEL."""
    message_id, request, number, floor, incarnation, target = _fields(_unpack(head, MAX_HEAD), 6)
    return Cancel(
        _message_id(message_id),
        _bool(request),
        _int(number, _U63),
        _int(floor, _U63),
        _int(incarnation, _U64),
        _int(target, _U64),
    )


def decode_unreachable(head: bytes) -> Unreachable:
    """Read the head of an UNREACHABLE."""
    kind, reason, at, destination, near, settled = _fields(_unpack(head, MAX_HEAD), 6)
    names = tuple(_node(name) for name in _items(near, MAX_NAMES))
    return Unreachable(_int(kind, 255), _text(reason, 64), _node(at), _address(destination), names, _number(settled))


def decode_expired(head: bytes) -> Expired:
    """Read the head of an EXPIRED."""
    kind, at, destination = _fields(_unpack(head, MAX_HEAD), 3)
    return Expired(_int(kind, 255), _node(at), _address(destination))


def digest(data: bytes) -> int:
    """64 bits of BLAKE2b; tables add these up (modulo 2**64) to compare themselves with a neighbour's."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
