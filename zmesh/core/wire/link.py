"""The frames between neighbours, which stay on one link."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from operator import gt
from typing import NamedTuple, cast

from zmesh.core.message import NodeId
from zmesh.core.wire.batch import BATCHES
from zmesh.core.wire.fields import (
    MAX_EXTENSIONS,
    NO_EXTENSIONS,
    WireError,
    pack,
    read_array,
    read_bool,
    read_extensions,
    read_int,
    read_items,
    read_node,
    read_number,
    read_text,
    unpack,
)
from zmesh.core.wire.identity import ENDORSEMENTS, ENROLLING, GRANTS, IDENTITY, MAX_ENDORSEMENT_BYTES, MAX_PROOF
from zmesh.core.wire.limits import (
    INFINITY,
    LOWEST_VERSION,
    MAX_CAPABILITIES,
    MAX_CAPABILITY,
    MAX_ENTRIES,
    MAX_HEAD,
    MAX_HOPS,
    MAX_KEY,
    MAX_NEIGHBOURS,
    MAX_RECORD,
    MAX_RECORDS,
    MAX_REFUSED,
    MAX_SOFTWARE,
    MAX_TAG,
    MAX_TAGS,
    MAX_TEXT,
    MAX_TTL,
    MAX_WHERE,
    SMALL_RECORD,
    U63,
    U64,
    VERSION,
)
from zmesh.core.wire.packet import Frames, Kind, encode_link, encode_packet

FULL_BEGIN = 1
FULL_END = 2
MAX_KNOWN = 65536

TAGS = 2
"""The extension of a RECORD with the tags that its node gives itself, as an array of text."""

SOFTWARE = 3
"""The extension of a RECORD with the version of its node's software, as ASCII text."""

MAX_TAGS_BYTES = MAX_TAGS * (MAX_TAG + 2) + 3

_RECORD_EXTENSIONS = {TAGS: MAX_TAGS_BYTES, SOFTWARE: MAX_SOFTWARE, GRANTS: 0}
_HELLO_EXTENSIONS = {
    IDENTITY: MAX_PROOF,
    ENROLLING: 0,
    BATCHES: 0,
    ENDORSEMENTS: MAX_ENDORSEMENT_BYTES,
    GRANTS: 0,
}
_known_nodes: dict[object, NodeId] = {}
_INT = {int}


class Hello(NamedTuple):
    """Opens a link, in both directions. `started`: the start of the sender, in seconds since the epoch; `session`: the
    sender's number of this link; `answers`: the session of the HELLO that this one answers, or 0."""

    node: NodeId
    incarnation: int
    started: float
    leaf: bool
    session: int
    answers: int
    lowest: int = LOWEST_VERSION
    highest: int = VERSION
    extensions: Mapping[int, bytes] = NO_EXTENSIONS


class Refuse(NamedTuple):
    """Refuses a link; `reason` is `version`, `own_id`, `itself`, `duplicate_id`, `leaf`, or one of credentials.REASONS,
    `text` is for logs. With `own_id` and `duplicate_id`, `started` is the start of the other node with this id; 0 if
    unknown."""

    reason: str
    text: str
    started: float = 0.0


class Goodbye(NamedTuple):
    """Closes a link: the sender leaves the mesh."""

    reason: str


class Probe(NamedTuple):
    """`token` comes back in the ECHO; `routes` counts the UPDATEs sent on this link, `records` and
    `statements` are the digests of the sender's, `settled` how many seconds the sender's routes have been unchanged."""

    token: float
    routes: int
    records: int
    settled: float
    statements: int = 0


class Echo(NamedTuple):
    """Answers a PROBE."""

    token: float


class Entry(NamedTuple):
    """The route of an UPDATE to one destination. A `metric` of INFINITY is a retraction; `excess` is by how much the
    metric exceeds the sender's feasibility distance. Tables hold plain tuples in the same order (`Row`), since they are
    made by the thousand."""

    destination: NodeId
    incarnation: int
    seqno: int
    metric: int
    hops: int
    excess: int = 0


Row = tuple[NodeId, int, int, int, int, int]


class Update(NamedTuple):
    """Advertises routes; `full` marks the first (FULL_BEGIN) and the last (FULL_END) part of a full update. In those,
    `number` is the count of UPDATEs on this link so far. On the wire the entries are transposed into columns."""

    full: int
    number: int
    entries: list[Row]


class Refused(NamedTuple):
    """A duplicate of a node id that was refused; `where`: its address in words."""

    node: NodeId
    incarnation: int
    started: float
    where: str


class Record(NamedTuple):
    """The record that a node floods: its directives, and its neighbours with the cost of the link to each. `started`:
    its start, in seconds since the epoch; `refused`: the duplicates of a node id that it has refused lately."""

    node: NodeId
    incarnation: int
    serial: int
    capabilities: tuple[str, ...]
    neighbours: tuple[tuple[NodeId, int], ...]
    public_key: bytes
    started: float = 0.0
    refused: tuple[Refused, ...] = ()
    extensions: Mapping[int, bytes] = NO_EXTENSIONS


class SeqnoRequest(NamedTuple):
    """Requests a route whose feasibility distance is below this one: with a higher seqno, or with the same one and a
    distance smaller than `distance`. With a `distance` of 0 this is RFC 8966 section 3.8.1.2."""

    destination: NodeId
    seqno: int
    distance: int
    hops_left: int

    @property
    def demand(self) -> tuple[int, int]:
        """Sorts requests: the greater, the harder to satisfy."""
        return (self.seqno, -self.distance)

    def is_met_by(self, seqno: int, distance: int) -> bool:
        """True if that feasibility distance satisfies the request."""
        return (seqno, -distance) > self.demand


class Resend(NamedTuple):
    """Requests a full update, all records, all statements."""

    routes: bool
    records: bool
    statements: bool = False


def decode_hello(head: bytes) -> Hello:
    """Decode the head of a HELLO."""
    fields = read_array(unpack(head, MAX_HEAD, MAX_EXTENSIONS), 9)
    node, incarnation, started, leaf, session, answers, lowest, highest, extensions = fields
    return Hello(
        read_node(node),
        read_int(incarnation, U64),
        read_number(started),
        read_bool(leaf),
        read_int(session, U63),
        read_int(answers, U63),
        read_int(lowest, 255),
        read_int(highest, 255),
        read_extensions(extensions, _HELLO_EXTENSIONS),
    )


def decode_refuse(head: bytes) -> Refuse:
    """Decode the head of a REFUSE."""
    reason, text, started = read_array(unpack(head, MAX_HEAD), 3)
    return Refuse(read_text(reason, 64), read_text(text, MAX_TEXT), read_number(started))


def decode_goodbye(head: bytes) -> Goodbye:
    """Decode the head of a GOODBYE."""
    (reason,) = read_array(unpack(head, MAX_HEAD), 1)
    return Goodbye(read_text(reason, MAX_TEXT))


def decode_probe(head: bytes) -> Probe:
    """Decode the head of a PROBE."""
    token, routes, records, settled, statements = read_array(unpack(head, MAX_HEAD), 5)
    counts = (read_int(routes, U63), read_int(records, U64))
    return Probe(read_number(token), *counts, read_number(settled), read_int(statements, U64))


def decode_echo(head: bytes) -> Echo:
    """Decode the head of an ECHO."""
    (token,) = read_array(unpack(head, MAX_HEAD), 1)
    return Echo(read_number(token))


def encode_update(update: Update) -> Frames:
    """Encode an UPDATE. Its entries are stored by column, so that each column can be checked at once."""
    columns = list(zip(*update.entries, strict=True)) or [()] * len(Entry._fields)
    return encode_link(Kind.UPDATE, (update.full, update.number, *columns))


def decode_update(head: bytes) -> Update:
    """Decode the head of an UPDATE: at most MAX_ENTRIES routes."""
    full, number, *columns = read_array(unpack(head, MAX_HEAD), 8)
    destinations = _nodes(columns[0])
    count = len(destinations)
    incarnations, seqnos = _ints(columns[1], count, U64), _ints(columns[2], count, U63)
    metrics, hops = _ints(columns[3], count, INFINITY), _ints(columns[4], count, MAX_HOPS)
    excesses = _ints(columns[5], count, INFINITY)
    if any(map(gt, excesses, metrics)):
        raise WireError("a metric that is less than its own excess")
    entries = list(zip(destinations, incarnations, seqnos, metrics, hops, excesses, strict=True))
    return Update(read_int(full, FULL_BEGIN | FULL_END), read_int(number, U63), entries)


def _nodes(column: object) -> list[NodeId]:
    """A column of node ids. Each is checked once and interned."""
    names = read_items(column, MAX_ENTRIES)
    try:
        return [_known_nodes[name] for name in names]
    except (KeyError, TypeError):
        if len(_known_nodes) > MAX_KNOWN:
            _known_nodes.clear()
        return [_known_nodes.setdefault(node, node) for node in map(read_node, names)]


def _ints(column: object, count: int, high: int) -> list[int]:
    """A column of integers from 0 to `high`."""
    values = read_items(column, MAX_ENTRIES)
    if len(values) != count or not set(map(type, values)) <= _INT:
        raise WireError(f"not a column of {count} integers")
    integers = cast("list[int]", values)
    if count and not 0 <= min(integers) <= max(integers) <= high:
        raise WireError(f"a column with an integer that is not from 0 to {high}")
    return integers


def encode_records(blobs: list[bytes]) -> Frames:
    """Encode a RECORD frame of records, each in the encoding of its node."""
    return encode_link(Kind.RECORD, tuple(blobs))


def decode_records(head: bytes) -> tuple[list[tuple[Record, bytes]], list[WireError]]:
    """Decode a RECORD frame: the records with their bytes, and the errors of those that are malformed. The records are
    of different nodes, so a malformed one does not affect the others.
    """
    records: list[tuple[Record, bytes]] = []
    errors: list[WireError] = []
    for blob in read_items(unpack(head, MAX_HEAD), MAX_RECORDS):
        try:
            if type(blob) is not bytes:
                raise WireError("not a record")
            records.append(_known_record(blob) if len(blob) <= SMALL_RECORD else (decode_record(blob), blob))
        except WireError as error:
            errors.append(error)
    return records, errors


@lru_cache(maxsize=4096)
def _known_record(blob: bytes) -> tuple[Record, bytes]:
    """Decode a record once: every neighbour sends the same bytes."""
    return (decode_record(blob), blob)


def decode_record(blob: bytes) -> Record:
    """Decode one record."""
    fields = read_array(unpack(blob, MAX_RECORD, MAX_EXTENSIONS), 9)
    node, incarnation, serial, capabilities, neighbours, public_key, started, refused, extensions = fields
    names = tuple(read_text(name, MAX_CAPABILITY) for name in read_items(capabilities, MAX_CAPABILITIES))
    edges = []
    for item in read_items(neighbours, MAX_NEIGHBOURS):
        neighbour, cost = read_array(item, 2)
        edges.append((read_node(neighbour), read_int(cost, INFINITY)))
    if type(public_key) is not bytes or len(public_key) > MAX_KEY:
        raise WireError(f"not a key of at most {MAX_KEY} bytes")
    extra = read_extensions(extensions, _RECORD_EXTENSIONS)
    if TAGS in extra:
        decode_tags(extra[TAGS])
    if SOFTWARE in extra:
        decode_software(extra[SOFTWARE])
    return Record(
        read_node(node),
        read_int(incarnation, U64),
        read_int(serial, U63),
        names,
        tuple(edges),
        public_key,
        read_number(started),
        tuple(map(_refused, read_items(refused, MAX_REFUSED))),
        extra,
    )


def encode_tags(tags: tuple[str, ...]) -> bytes:
    """The content of the extension TAGS."""
    return pack(tags)


def decode_tags(data: bytes) -> tuple[str, ...]:
    """Read the content of the extension TAGS: names as those of nodes. Raises WireError."""
    return tuple(read_node(tag) for tag in read_items(unpack(data, MAX_TAGS_BYTES), MAX_TAGS))


def tags_of(record: Record) -> tuple[str, ...]:
    """The tags that the node of a record gives itself."""
    data = record.extensions.get(TAGS)
    return decode_tags(data) if data is not None else ()


def decode_software(data: bytes) -> str:
    """Read the content of the extension SOFTWARE: printable ASCII. Raises WireError."""
    if not data.isascii() or not (text := data.decode("ascii")).isprintable():
        raise WireError("not the version of a software")
    return text


def software_of(record: Record) -> str:
    """The version of the software of a record's node; "" if it does not say."""
    data = record.extensions.get(SOFTWARE)
    return decode_software(data) if data is not None else ""


def signed_record(mesh: str, record: Record, certificate: bytes) -> bytes:
    """The bytes of a record that its node signs; `certificate`: the digest of its own.

    The serial and the costs of links are not in it: they change all the time, and a node that lies about them can lie
    about its routes just as well. Nor is the version of the software, which is only shown.
    """
    _, incarnation, _, capabilities, _, public_key, started, refused, extensions = record
    content = (record.node, incarnation, capabilities, public_key, started, refused, extensions.get(TAGS, b""))
    return pack(("zmesh record 1", mesh, certificate, *content))


def _refused(item: object) -> Refused:
    node, incarnation, started, where = read_array(item, 4)
    return Refused(read_node(node), read_int(incarnation, U64), read_number(started), read_text(where, MAX_WHERE))


def decode_seqno_requests(head: bytes) -> list[SeqnoRequest]:
    """Decode the head of a SEQNO_REQUEST: at most MAX_ENTRIES of them."""
    requests = []
    for item in read_items(unpack(head, MAX_HEAD), MAX_ENTRIES):
        destination, seqno, distance, hops_left = read_array(item, 4)
        below = (read_int(seqno, U63), read_int(distance, INFINITY))
        requests.append(SeqnoRequest(read_node(destination), *below, read_int(hops_left, MAX_TTL)))
    return requests


def encode_keepalive(text: str = "") -> Frames:
    """A RESEND that requests nothing; `text` says what the event loop of its sender is blocked in."""
    return encode_packet(Kind.RESEND, "", "", pack(Resend(False, False)), text.encode(errors="replace")[:MAX_TEXT])


def decode_keepalive(body: bytes) -> str:
    """The text of a keepalive: empty if its sender is not blocked, or is of a version that does not say so."""
    return bytes(body[:MAX_TEXT]).decode(errors="replace")


def decode_resend(head: bytes) -> Resend:
    """Decode the head of a RESEND."""
    routes, records, statements = read_array(unpack(head, MAX_HEAD), 3)
    return Resend(read_bool(routes), read_bool(records), read_bool(statements))
