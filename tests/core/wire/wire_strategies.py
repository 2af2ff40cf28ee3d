"""Heads of frames: strategies for their values, and the bytes of each kind with the fields that a test wants."""

import pytest
from hypothesis import strategies as st

from zmesh.core import wire
from zmesh.core.message import MAX_RESET_CODE, Eof, ReplyHeader, RequestHeader
from zmesh.core.wire import (
    FLAG_BLOCKED,
    FLAG_EOF,
    FLAG_EXTENDED,
    FLAG_FIRST,
    FLAG_LAST,
    INFINITY,
    AckItem,
    WireError,
    encode,
)

U63 = (1 << 63) - 1
U64 = (1 << 64) - 1
NAME = "ABCXYZabcxyz0189._-"

u63 = st.integers(0, U63)
u64 = st.integers(0, U64)
bytes16 = st.binary(min_size=16, max_size=16)
bytes32 = st.binary(min_size=32, max_size=32)
nodes = st.text(NAME, min_size=1, max_size=64)
short_nodes = st.text(NAME, min_size=1, max_size=12)
addresses = nodes | st.builds("{}@{}".format, short_nodes, short_nodes)
numbers = st.floats(-1e18, 1e18, exclude_min=True, exclude_max=True)
texts = st.text(max_size=40)
acks = st.lists(st.builds(AckItem, bytes16, st.booleans(), u63, u63), max_size=5).map(tuple)
metadata = st.dictionaries(texts, texts, max_size=3)
extensions = st.dictionaries(st.integers(2, wire.CRITICAL - 1), st.binary(max_size=40), max_size=3)
of_hellos = st.dictionaries(st.integers(5, wire.CRITICAL - 1), st.binary(max_size=40), max_size=3)
of_records = st.dictionaries(st.integers(5, wire.CRITICAL - 1), st.binary(max_size=40), max_size=3)
tags = st.lists(nodes, max_size=wire.MAX_TAGS).map(lambda names: {wire.TAGS: wire.encode_tags(tuple(names))})
lifetimes = st.none() | st.floats(0, 1e17)
request_headers = st.builds(RequestHeader, texts, numbers, lifetimes, st.booleans(), texts, metadata)
reply_headers = st.builds(ReplyHeader, numbers, u63, texts, metadata)
eofs = st.builds(Eof, st.integers(0, 255), texts, texts, st.just(0))


@st.composite
def chunks(draw):
    request = draw(st.booleans())
    header = draw(st.none() | (request_headers if request else reply_headers))
    eof = draw(st.none() | eofs)
    extra = draw(extensions)
    flags = draw(st.sampled_from([0, FLAG_LAST, FLAG_BLOCKED])) | (FLAG_EXTENDED if extra else 0)
    flags |= (FLAG_FIRST if header is not None else 0) | (FLAG_EOF if eof is not None else 0)
    return wire.Chunk(
        message_id=draw(bytes16),
        request=request,
        sequence=draw(u63),
        flags=flags,
        request_number=draw(u63),
        lowest_outstanding=draw(u63),
        incarnation=draw(u64),
        target=draw(u64),
        header=header,
        eof=eof,
        extensions=extra,
    )


distances = st.tuples(st.integers(0, INFINITY), st.integers(0, INFINITY)).map(sorted)
entries = st.builds(
    lambda node, incarnation, seqno, hops, metrics: wire.Entry(node, incarnation, seqno, metrics[1], hops, metrics[0]),
    nodes, u64, u63, st.integers(0, wire.MAX_HOPS), distances,
)  # fmt: skip
records = st.builds(
    wire.Record, nodes, u64, u63,
    st.lists(texts, max_size=5).map(tuple),
    st.lists(st.tuples(nodes, st.integers(0, INFINITY)), max_size=5).map(tuple),
    st.binary(max_size=wire.MAX_KEY), numbers,
    st.lists(st.builds(wire.Refused, nodes, u64, numbers, texts), max_size=wire.MAX_REFUSED).map(tuple),
    of_records | tags | st.sampled_from([{wire.SOFTWARE: b"0.1.0"}]),
)  # fmt: skip

VALUES = {
    wire.decode_hello: st.builds(
        wire.Hello, nodes, u64, numbers, st.booleans(), u63, u63, st.integers(0, 255), st.integers(0, 255), of_hellos
    ),
    wire.decode_grant: st.builds(wire.Grant, bytes32, st.binary(max_size=100)),
    wire.decode_refuse: st.builds(wire.Refuse, texts, texts, numbers),
    wire.decode_goodbye: st.builds(wire.Goodbye, texts),
    wire.decode_probe: st.builds(wire.Probe, numbers, u63, u64, numbers, u64),
    wire.decode_echo: st.builds(wire.Echo, numbers),
    wire.decode_record: records,
    wire.decode_seqno_requests: st.lists(
        st.builds(wire.SeqnoRequest, nodes, u63, st.integers(0, INFINITY), st.integers(0, wire.MAX_TTL)),
        min_size=1,
        max_size=5,
    ),
    wire.decode_resend: st.builds(wire.Resend, st.booleans(), st.booleans(), st.booleans()),
    wire.decode_unreachable: st.builds(
        wire.Unreachable, st.integers(0, 255), texts, nodes, addresses,
        st.lists(nodes, max_size=wire.MAX_NAMES).map(tuple), numbers, texts,
    ),
    wire.decode_expired: st.builds(wire.Expired, st.integers(0, 255), nodes, addresses),
}  # fmt: skip
"""Heads that are MessagePack arrays."""

FIXED = {
    wire.decode_chunk: chunks(),
    wire.decode_ack: st.builds(wire.Ack, u64, u64, acks),
    wire.decode_cancel: st.builds(
        wire.Cancel, bytes16, st.booleans(), u63, u63, u64, u64, st.integers(0, MAX_RESET_CODE)
    ),
}
"""Heads that are fixed structures."""

DECODERS = [*VALUES, wire.decode_update, wire.decode_records]
names_of = [decode.__name__ for decode in DECODERS]


def refused(decode, data, match=None):
    with pytest.raises(WireError, match=match):
        decode(data)


def valid_chunk(**fields):
    zeros = wire.Chunk(bytes(16), True, sequence=0, flags=0, request_number=0, lowest_outstanding=0,
                       incarnation=1, target=1, header=None, eof=None)  # fmt: skip
    return encode(zeros._replace(**fields))


def hello(node="a", incarnation=1, started=0.0, session=1, answers=0):
    return encode((node, incarnation, started, False, session, answers, 2, 2, {}))


def update(count=0, full=0, node="a", incarnation=1, seqno=1, metric=1, hops=1, excess=0):
    return encode((full, 1, *([field] * count for field in (node, incarnation, seqno, metric, hops, excess))))


def record(node="a", incarnation=1, serial=1, capabilities=(), neighbours=(), key=b"", refused=(), extensions=None):
    return encode((node, incarnation, serial, capabilities, neighbours, key, 0.0, refused, extensions or {}))


def ack(count=1, following=0, limit=0):
    return wire.encode_ack(1, 1, [(bytes(16), True, following, limit)] * count)


def unreachable(kind=16, reason="", near=(), at="a", destination="a", text=""):
    return encode((kind, reason, at, destination, near, 0.0, text))


def chunk_eof(code=0, reason="", error=""):
    return valid_chunk(flags=FLAG_EOF, eof=Eof(code, reason, error))
