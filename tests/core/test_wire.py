import math
import struct
import zlib

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zmesh.core import wire
from zmesh.core.message import Eof, ReplyHeader, RequestHeader
from zmesh.core.wire import (
    CLOSED,
    FLAG_EOF,
    FLAG_FIRST,
    FLAG_LAST,
    FLAG_RESENT,
    FLAG_WANTING,
    INFINITY,
    AckItem,
    Kind,
    WireError,
    encode,
    link,
)

U63 = (1 << 63) - 1
U64 = (1 << 64) - 1
NAME = "ABCXYZabcxyz0189._-"

u63 = st.integers(0, U63)
u64 = st.integers(0, U64)
bytes16 = st.binary(min_size=16, max_size=16)
nodes = st.text(NAME, min_size=1, max_size=64)
short_nodes = st.text(NAME, min_size=1, max_size=12)
addresses = nodes | st.builds("{}@{}".format, short_nodes, short_nodes)
numbers = st.floats(-1e18, 1e18, exclude_min=True, exclude_max=True)
texts = st.text(max_size=40)
acks = st.lists(st.builds(AckItem, bytes16, st.booleans(), u63, u63), max_size=5).map(tuple)
request_headers = st.builds(RequestHeader, texts, numbers, st.none() | st.floats(0, 1e17), st.booleans())
reply_headers = st.builds(ReplyHeader, numbers, u63)
eofs = st.builds(Eof, st.integers(0, 255), texts, texts)


@st.composite
def chunks(draw):
    request = draw(st.booleans())
    header = draw(st.none() | (request_headers if request else reply_headers))
    eof = draw(st.none() | eofs)
    flags = draw(st.sampled_from([0, FLAG_LAST, FLAG_RESENT, FLAG_LAST | FLAG_RESENT]))
    flags |= (FLAG_FIRST if header is not None else 0) | (FLAG_EOF if eof is not None else 0)
    return wire.Chunk(
        message_id=draw(bytes16),
        request=request,
        sequence=draw(u63),
        flags=flags,
        number=draw(u63),
        floor=draw(u63),
        incarnation=draw(u64),
        target=draw(u64),
        age=draw(u63),
        header=header,
        eof=eof,
    )


entries = st.builds(wire.Entry, nodes, u64, u63, st.integers(0, INFINITY), st.integers(0, wire.MAX_HOPS))
records = st.builds(
    wire.Record, nodes, u64, u63,
    st.lists(texts, max_size=5).map(tuple),
    st.lists(st.tuples(nodes, st.integers(0, INFINITY)), max_size=5).map(tuple),
    st.binary(max_size=wire.MAX_KEY),
)  # fmt: skip

VALUES = {
    wire.decode_hello: st.builds(wire.Hello, nodes, u64, numbers, st.booleans(), u63, u63),
    wire.decode_refuse: st.builds(wire.Refuse, texts, texts),
    wire.decode_goodbye: st.builds(wire.Goodbye, texts),
    wire.decode_probe: st.builds(wire.Probe, numbers, u63, u64, numbers),
    wire.decode_echo: st.builds(wire.Echo, numbers),
    wire.decode_record: records,
    wire.decode_seqno_requests: st.lists(
        st.builds(wire.SeqnoRequest, nodes, u63, st.integers(0, wire.MAX_TTL)), min_size=1, max_size=5
    ),
    wire.decode_resend: st.builds(wire.Resend, st.booleans(), st.booleans()),
    wire.decode_chunk: chunks(),
    wire.decode_ack: st.builds(wire.Ack, u64, u64, acks),
    wire.decode_cancel: st.builds(wire.Cancel, bytes16, st.booleans(), u63, u63, u64, u64),
    wire.decode_unreachable: st.builds(
        wire.Unreachable, st.integers(0, 255), texts, nodes, addresses,
        st.lists(nodes, max_size=wire.MAX_NAMES).map(tuple), numbers,
    ),
    wire.decode_expired: st.builds(wire.Expired, st.integers(0, 255), nodes, addresses),
}  # fmt: skip
DECODERS = [*VALUES, wire.decode_update, wire.decode_records, wire.decode_route]
names_of = [decode.__name__ for decode in DECODERS]
messages = st.one_of([st.tuples(st.just(decode), values) for decode, values in VALUES.items()])

anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), U64) | st.floats() | st.text(max_size=70)
    | st.binary(max_size=20) | bytes16 | nodes,
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=20,
)  # fmt: skip


def same(one, other):
    """Equal, also in type, for values that are NamedTuples of NamedTuples."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def unsealed(frames):
    """The route and the head of a frame without a body."""
    first, head, body = frames
    route = wire.decode_route(first)
    assert body == b""
    return route, wire.unseal(route, head, body)


def refused(decode, data, match=None):
    with pytest.raises(WireError, match=match):
        decode(data)


# --- what goes in comes out ---------------------------------------------------------------------------------------


@given(messages)
def test_every_value_comes_out_as_it_went_in(message):
    decode, value = message
    assert same(decode(encode(value)), value)


@given(st.integers(0, 3), u63, st.lists(entries, max_size=6))
def test_an_update_comes_out_as_it_went_in(full, number, several):
    route, head = unsealed(wire.encode_update(wire.Update(full, number, several)))
    assert route.kind == Kind.UPDATE
    assert wire.decode_update(head) == wire.Update(full, number, several)


@pytest.mark.parametrize("column", range(5))
def test_an_update_whose_columns_differ_in_length_is_refused(column):
    columns = [["a", "b"], [1, 1], [1, 1], [1, 1], [1, 1]]
    columns[column].pop()
    refused(wire.decode_update, encode((0, 1, *columns)))


@pytest.mark.parametrize("wrong", [None, True, 1.5, "text", b"a", [], {}, -1, "a b"])
@pytest.mark.parametrize("column", range(5))
def test_an_update_with_a_wrong_field_in_a_column_is_refused(column, wrong):
    columns = [["a", "b"], [1, 1], [1, 1], [1, 1], [1, 1]]
    columns[column][1] = wrong
    if (column, wrong) != (0, "text"):
        refused(wire.decode_update, encode((0, 1, *columns)))


def test_the_names_that_were_read_before_are_remembered_within_bounds(monkeypatch):
    monkeypatch.setattr(link, "MAX_KNOWN", 2)
    for number in range(9):
        assert wire.decode_update(update(1, node=f"known-{number}")).entries[0][0] == f"known-{number}"
        assert len(link._known_nodes) <= 3 + 1


@given(st.lists(records, max_size=6))
def test_records_come_out_with_their_own_bytes(several):
    blobs = [encode(record) for record in several]
    route, head = unsealed(wire.encode_records(blobs))
    assert route.kind == Kind.RECORD
    assert wire.decode_records(head) == list(zip(several, blobs, strict=True))


@given(st.sampled_from([kind for kind in Kind if kind >= wire.FIRST_ROUTED]), addresses, addresses, st.integers(0, 255))
def test_the_route_of_a_frame_says_where_it_goes_and_how_it_looks_one_link_further(kind, to, of, ttl):
    route = wire.decode_route(wire.encode_route(kind, to, of, ttl))
    assert route[:5] == (wire.VERSION, kind, ttl, to, of)
    assert route.host == to.rpartition("@")[2]
    assert route.onward == (wire.encode_route(kind, to, of, ttl - 1) if ttl > 1 else b"")


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind < wire.FIRST_ROUTED])
def test_a_frame_that_stays_on_its_link_has_no_address(kind):
    assert wire.decode_route(wire.encode_route(kind))[:5] == (wire.VERSION, kind, wire.MAX_TTL, "", "")
    refused(wire.decode_route, wire.encode_route(kind, "a", ""), "stays on its link")
    refused(wire.decode_route, wire.encode_route(kind, "", "a"), "stays on its link")


@pytest.mark.parametrize(("to", "of"), [("", "a"), ("a", ""), ("a", "b c"), ("a@", "b"), ("@a", "b"), ("a@b@c", "b")])
def test_a_frame_that_travels_has_two_good_addresses(to, of):
    refused(wire.decode_route, wire.encode_route(Kind.CHUNK, to, of), "not an address")


def test_the_longest_addresses_there_are_fit_into_a_route():
    longest = f"{'l' * 64}@{'h' * 64}"
    assert wire.decode_route(wire.encode_route(Kind.CHUNK, longest, longest))[3:5] == (longest, longest)


def test_a_link_frame_is_a_route_a_head_and_no_body():
    for kind, value, head in ((Kind.ECHO, wire.Echo(1.5), encode(wire.Echo(1.5))), (Kind.ASK, (), b"\x90")):
        frames = wire.encode_link(kind, value)
        assert (frames[0], frames[2]) == (wire.encode_route(kind), b"")
        assert unsealed(frames)[1] == head


# --- the checksum -------------------------------------------------------------------------------------------------


def test_the_checksum_of_a_frame_is_the_crc_32_of_its_kind_addresses_body_and_head():
    route, head, body = wire.seal(Kind.CHUNK, "b", "a@c", b"head", b"body")
    assert (route, body) == (wire.encode_route(Kind.CHUNK, "b", "a@c"), b"body")
    assert head == b"head" + zlib.crc32(b"16 b a@cbodyhead").to_bytes(wire.SUM_BYTES, "little")


@given(addresses, addresses, st.binary(max_size=40), st.binary(max_size=40), st.integers(2, wire.MAX_TTL))
def test_the_checksum_fits_after_any_number_of_hops(to, of, content, data, ttl):
    _, head, body = wire.seal(Kind.CHUNK, to, of, content, data)
    route = wire.decode_route(wire.decode_route(wire.encode_route(Kind.CHUNK, to, of, ttl)).onward)
    assert wire.unseal(route, head, body) == content


@given(
    st.sampled_from([(Kind.CHUNK, "edge-7", "cli@hub"), (Kind.ACK, "b", "a"), (Kind.PROBE, "", "")]),
    st.binary(max_size=40),
    st.binary(max_size=40),
    st.data(),
)
def test_no_frame_with_a_bit_turned_over_is_taken_for_what_its_source_sent(way, content, data, draw):
    frames = list(wire.seal(*way, content, data))
    index = draw.draw(st.sampled_from([index for index, part in enumerate(frames) if part]), "part")
    byte = draw.draw(st.integers(0, len(frames[index]) - 1), "byte")
    spoilt = bytearray(frames[index])
    spoilt[byte] ^= 1 << draw.draw(st.integers(0, 7), "bit")
    frames[index] = bytes(spoilt)
    try:
        route = wire.decode_route(frames[0])
        wire.unseal(route, frames[1], frames[2])
    except WireError:
        return
    good = wire.decode_route(wire.encode_route(*way))
    assert (route.kind, route.destination, route.source) == (good.kind, good.destination, good.source)
    assert (index, route.ttl == good.ttl and route.version == good.version) == (0, False)


@pytest.mark.parametrize("size", range(wire.SUM_BYTES))
def test_a_head_too_short_for_a_checksum_is_refused(size):
    route = wire.decode_route(wire.encode_route(Kind.PROBE))
    with pytest.raises(wire.ChecksumError):
        wire.unseal(route, bytes(size), b"")


# --- foreign versions ---------------------------------------------------------------------------------------------


def test_only_a_hello_of_a_foreign_version_is_read():
    for kind in Kind:
        data = encode((wire.VERSION + 1, int(kind), 255, "", ""))
        if kind is Kind.HELLO:
            assert wire.decode_route(data).version == wire.VERSION + 1
        else:
            refused(wire.decode_route, data, "version 2, not 1")


def test_an_unknown_kind_is_refused():
    known = {int(kind) for kind in Kind}
    for kind in set(range(256)) - known:
        refused(wire.decode_route, wire.encode_route(kind, "a", "b"), f"unknown kind {kind}")


def test_the_time_left_is_never_below_nothing():
    chunk = valid_chunk(header=("echo:echo", 1.0, -5.0, False), flags=FLAG_FIRST)
    assert wire.decode_chunk(chunk).header == RequestHeader("echo:echo", 1.0, 0.0)


@pytest.mark.parametrize("whole", [0, 7, -7, 1 << 40])
def test_a_number_may_be_whole(whole):
    token = wire.decode_echo(encode((whole,))).token
    assert (token, type(token)) == (whole, float)


# --- garbage: WireError and nothing else --------------------------------------------------------------------------


def same_numbers(one, other):
    """Equal, but that a whole number may have become a float."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_numbers, one, other))
    return one == other and (type(one) is type(other) or (type(one), type(other)) == (int, float))


def read(decode, data):
    """Read garbage: what can be read is told as it was."""
    try:
        value = decode(data)
    except WireError:
        return
    if isinstance(value, wire.Update):
        told = wire.encode_update(value)[1]
    else:
        told = encode([blob for _, blob in value] if decode is wire.decode_records else value)
    heard = msgpack.unpackb(data)
    match value:
        case wire.Chunk(header=RequestHeader(lifetime=0.0)):
            heard[wire.Chunk._fields.index("header")][2] = 0.0
        case wire.Route():
            heard, told = heard[:5], encode(value[:5])
    assert same_numbers(heard, msgpack.unpackb(told))


@given(st.sampled_from(DECODERS), st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(decode, data):
    read(decode, data)


@given(st.sampled_from(DECODERS), anything)
def test_random_values_are_read_or_refused(decode, value):
    read(decode, msgpack.packb(value))


@given(messages, st.data())
def test_a_value_with_any_field_replaced_is_read_as_it_is_or_refused(message, data):
    decode, value = message
    fields = list(value)
    fields[data.draw(st.integers(0, len(fields) - 1))] = data.draw(anything)
    read(decode, msgpack.packb(fields))


@given(messages, st.data())
def test_a_value_with_any_byte_changed_cut_off_or_added_is_read_or_refused(message, data):
    decode, value = message
    raw = bytearray(encode(value))
    match data.draw(st.sampled_from(["change", "cut", "add"])):
        case "change":
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        case "cut":
            del raw[data.draw(st.integers(0, len(raw) - 1)) :]
        case _:
            raw += data.draw(st.binary(min_size=1, max_size=5))
    read(decode, bytes(raw))


@given(st.binary(max_size=60), st.data())
def test_a_route_with_any_byte_changed_is_read_or_refused(tail, data):
    raw = bytearray(wire.encode_route(Kind.CHUNK, "some-node", "leaf@host"))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    read(wire.decode_route, bytes(raw) + (tail if data.draw(st.booleans()) else b""))


@pytest.mark.parametrize("decode", DECODERS, ids=names_of)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xc0",
        b"\x01",
        b"\x80",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x91" * 2000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x05",
        b"\x91\xa2\xff\xfe",
        b"\x91\xd4\x05\x00",
        b"\x91\xd6\xff\x00\x00\x00\x00",
        b"\x91\xc7\x00\xff",
        b"\x91\x81\x01\x02",
        b"\x91\x81\x90\x02",
        b"\x95" + b"\x90" * 5,
        b"\x95" + b"\x80" * 5,
    ],
    ids=lambda data: data[:8].hex() or "nothing",
)
def test_what_is_no_message_at_all_is_refused(decode, data):
    refused(decode, data)


@pytest.mark.parametrize("decode", DECODERS, ids=names_of)
def test_too_few_fields_and_too_many_are_refused(decode):
    if decode is wire.decode_records:
        refused(decode, encode((b"",)))
        refused(decode, encode(("record",)), "not a record")
        return
    for count in (0, 30) if decode is not wire.decode_seqno_requests else (30,):
        refused(decode, encode((0,) * count), "not an array of")


# --- every limit, and one past it ---------------------------------------------------------------------------------


def valid_chunk(**fields):
    zeros = wire.Chunk(bytes(16), True, sequence=0, flags=0, number=0, floor=0, incarnation=1, target=1, age=0,
                       header=None, eof=None)  # fmt: skip
    return encode(zeros._replace(**fields))


def hello(node="a", incarnation=1, time=0.0, session=1, answers=0):
    return encode((node, incarnation, time, False, session, answers))


def update(count=0, full=0, node="a", incarnation=1, seqno=1, metric=1, hops=1):
    return encode((full, 1, *([field] * count for field in (node, incarnation, seqno, metric, hops))))


def record(node="a", incarnation=1, serial=1, capabilities=(), neighbours=(), key=b""):
    return encode((node, incarnation, serial, capabilities, neighbours, key))


def ack(count=1, following=0, limit=0):
    return encode((1, 1, [(bytes(16), True, following, limit)] * count))


def unreachable(kind=16, reason="", near=(), at="a", destination="a"):
    return encode((kind, reason, at, destination, near, 0.0))


def chunk_eof(code=0, reason="", error=""):
    return valid_chunk(flags=FLAG_EOF, eof=(code, reason, error))


# name of the limit, its value, what reads, and what makes the bytes for a given value
LIMITS = [
    ("MAX_TTL", wire.MAX_TTL, wire.decode_route, lambda n: wire.encode_route(Kind.CHUNK, "a", "b", n)),
    ("MAX_TTL", wire.MAX_TTL, wire.decode_seqno_requests, lambda n: encode([("a", 1, n)])),
    ("VERSION", U63, wire.decode_route, lambda n: encode((n, 1, 255, "", ""))),
    ("MAX_ENTRIES", wire.MAX_ENTRIES, wire.decode_update, lambda n: update(n)),
    ("MAX_RECORDS", wire.MAX_RECORDS, wire.decode_records, lambda n: encode((record(),) * n)),
    ("MAX_NEIGHBOURS", wire.MAX_NEIGHBOURS, wire.decode_record, lambda n: record(neighbours=[("b", 1)] * n)),
    ("MAX_CAPABILITIES", wire.MAX_CAPABILITIES, wire.decode_record, lambda n: record(capabilities=["a:b"] * n)),
    ("MAX_CAPABILITY", wire.MAX_CAPABILITY, wire.decode_record, lambda n: record(capabilities=["c" * n])),
    ("MAX_KEY", wire.MAX_KEY, wire.decode_record, lambda n: record(key=bytes(n))),
    ("MAX_TEXT", wire.MAX_TEXT, wire.decode_goodbye, lambda n: encode(("t" * n,))),
    ("MAX_TEXT", wire.MAX_TEXT, wire.decode_refuse, lambda n: encode(("version", "t" * n))),
    ("MAX_TEXT", wire.MAX_TEXT, wire.decode_chunk, lambda n: chunk_eof(1, "remote", "t" * n)),
    ("MAX_DIRECTIVE", wire.MAX_DIRECTIVE, wire.decode_chunk,
     lambda n: valid_chunk(flags=FLAG_FIRST, header=("d" * n, 1.0, None, False))),
    ("MAX_ACKS", wire.MAX_ACKS, wire.decode_ack, ack),
    ("MAX_NAMES", wire.MAX_NAMES, wire.decode_unreachable, lambda n: unreachable(near=["a"] * n)),
    ("INFINITY", INFINITY, wire.decode_update, lambda n: update(1, metric=n)),
    ("INFINITY", INFINITY, wire.decode_record, lambda n: record(neighbours=[("b", n)])),
    ("MAX_HOPS", wire.MAX_HOPS, wire.decode_update, lambda n: update(1, hops=n)),
    ("CLOSED", CLOSED, wire.decode_ack, lambda n: ack(following=n)),
    ("CLOSED", CLOSED, wire.decode_ack, lambda n: ack(limit=n)),
    ("node id", 64, wire.decode_hello, lambda n: hello("n" * n)),
    ("node id", 64, wire.decode_update, lambda n: update(1, node="n" * n)),
    ("node id", 64, wire.decode_expired, lambda n: encode((16, "n" * n, "a"))),
    ("node id", 64, wire.decode_record, lambda n: record("n" * n)),
    ("node id", 64, wire.decode_record, lambda n: record(neighbours=[("n" * n, 1)])),
    ("node id", 64, wire.decode_seqno_requests, lambda n: encode([("n" * n, 1, 1)])),
    ("node id", 64, wire.decode_unreachable, lambda n: unreachable(at="n" * n)),
    ("node id", 64, wire.decode_unreachable, lambda n: unreachable(near=["n" * n])),
    ("address", 64, wire.decode_expired, lambda n: encode((16, "a", "n" * n))),
    ("address", 64, wire.decode_unreachable, lambda n: unreachable(destination=f"{'l' * n}@a")),
    ("address", 64, wire.decode_unreachable, lambda n: unreachable(destination=f"a@{'h' * n}")),
    ("address", 64, wire.decode_route, lambda n: wire.encode_route(Kind.CHUNK, "n" * n, "b")),
    ("address", 64, wire.decode_route, lambda n: wire.encode_route(Kind.CHUNK, "a", "n" * n)),
    ("session", U63, wire.decode_hello, lambda n: hello(session=n)),
    ("session", U63, wire.decode_hello, lambda n: hello(answers=n)),
    ("serial", U63, wire.decode_record, lambda n: record(serial=n)),
    ("serial", U63, wire.decode_chunk, lambda n: valid_chunk(request=False, flags=FLAG_FIRST, header=(1.0, n))),
    ("seqno", U63, wire.decode_update, lambda n: update(1, seqno=n)),
    ("seqno", U63, wire.decode_seqno_requests, lambda n: encode([("a", n, 1)])),
    ("sequence", U63, wire.decode_chunk, lambda n: valid_chunk(sequence=n)),
    ("number", U63, wire.decode_chunk, lambda n: valid_chunk(number=n)),
    ("floor", U63, wire.decode_chunk, lambda n: valid_chunk(floor=n)),
    ("age", U63, wire.decode_chunk, lambda n: valid_chunk(age=n)),
    ("number", U63, wire.decode_cancel, lambda n: encode((bytes(16), True, n, 0, 1, 1))),
    ("floor", U63, wire.decode_cancel, lambda n: encode((bytes(16), True, 0, n, 1, 1))),
    ("full", 3, wire.decode_update, lambda n: update(full=n)),
    ("number", U63, wire.decode_update, lambda n: encode((0, n, *[[]] * 5))),
    ("routes", U63, wire.decode_probe, lambda n: encode((1.0, n, 0, 0.0))),
    ("MAX_ENTRIES", wire.MAX_ENTRIES, wire.decode_seqno_requests, lambda n: encode([("a", 1, 1)] * n)),
    ("kind", 255, wire.decode_unreachable, lambda n: unreachable(kind=n)),
    ("kind", 255, wire.decode_expired, lambda n: encode((n, "a", "a"))),
    ("code", 255, wire.decode_chunk, lambda n: chunk_eof(code=n)),
    ("reason", 64, wire.decode_chunk, lambda n: chunk_eof(reason="r" * n)),
    ("reason", 64, wire.decode_refuse, lambda n: encode(("r" * n, ""))),
    ("reason", 64, wire.decode_unreachable, lambda n: unreachable(reason="r" * n)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "decode", "make"),
    [limit[1:] for limit in LIMITS],
    ids=[f"{name}-{decode.__name__}" for name, _, decode, _ in LIMITS],
)
def test_a_value_at_its_limit_is_read_and_one_past_it_refused(limit, decode, make):
    decode(make(limit))
    refused(decode, make(limit + 1))


COUNTS_OF_64_BITS = [
    ("incarnation", wire.decode_hello, lambda n: hello(incarnation=n)),
    ("incarnation", wire.decode_record, lambda n: record(incarnation=n)),
    ("incarnation", wire.decode_update, lambda n: update(1, incarnation=n)),
    ("incarnation", wire.decode_chunk, lambda n: valid_chunk(incarnation=n)),
    ("target", wire.decode_chunk, lambda n: valid_chunk(target=n)),
    ("incarnation", wire.decode_ack, lambda n: encode((n, 1, ()))),
    ("target", wire.decode_ack, lambda n: encode((1, n, ()))),
    ("incarnation", wire.decode_cancel, lambda n: encode((bytes(16), True, 0, 0, n, 1))),
    ("target", wire.decode_cancel, lambda n: encode((bytes(16), True, 0, 0, 1, n))),
    ("digest", wire.decode_probe, lambda n: encode((1.0, 0, n, 0.0))),
]


@pytest.mark.parametrize(
    ("decode", "make"),
    [case[1:] for case in COUNTS_OF_64_BITS],
    ids=[f"{name}-{decode.__name__}" for name, decode, _ in COUNTS_OF_64_BITS],
)
def test_an_incarnation_or_a_digest_is_of_64_bits_and_not_negative(decode, make):
    decode(make(U64))
    decode(make(0))
    refused(decode, make(-1))


SIZES = [
    ("MAX_ROUTE", wire.MAX_ROUTE, [wire.decode_route]),
    ("MAX_RECORD", wire.MAX_RECORD, [wire.decode_record]),
    ("MAX_HEAD", wire.MAX_HEAD,
     [decode for decode in DECODERS if decode not in (wire.decode_route, wire.decode_record)]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "decode"),
    [(limit, decode) for _, limit, decoders in SIZES for decode in decoders],
    ids=[decode.__name__ for _, _, decoders in SIZES for decode in decoders],
)
def test_bytes_are_counted_before_they_are_read(limit, decode):
    refused(decode, bytes(limit), "not MessagePack")
    refused(decode, bytes(limit + 1), f"{limit + 1} bytes where {limit} are allowed")


def test_a_record_with_every_field_at_its_limit_fits_into_a_frame():
    largest = record(
        "n" * 64,
        U64,
        U63,
        ["c" * wire.MAX_CAPABILITY] * wire.MAX_CAPABILITIES,
        [("b" * 64, INFINITY)] * wire.MAX_NEIGHBOURS,
        bytes(wire.MAX_KEY),
    )
    (read_back,) = wire.decode_records(encode((largest,)))
    assert read_back == (wire.decode_record(largest), largest)


def test_a_text_may_be_of_any_script():
    text = "\N{SNOWMAN}" * wire.MAX_TEXT
    assert wire.decode_goodbye(encode((text,))).reason == text


def test_every_named_limit_is_tested_here_or_with_the_engine():
    named = {name for name in vars(wire) if name.startswith("MAX_")}
    elsewhere = {"MAX_BODY", "MAX_KNOWN"}
    assert named <= {name for name, *_ in LIMITS} | {name for name, *_ in SIZES} | elsewhere


@pytest.mark.parametrize("number", [1e18, -1e18, math.inf, -math.inf, math.nan])
def test_a_number_out_of_range_is_refused(number):
    for data, decode in [
        (encode((number,)), wire.decode_echo),
        (encode((number, 0, 0, 0.0)), wire.decode_probe),
        (encode((0.0, 0, 0, number)), wire.decode_probe),
        (hello(time=number), wire.decode_hello),
        (valid_chunk(flags=FLAG_FIRST, header=("a:b", number, None, False)), wire.decode_chunk),
        (valid_chunk(flags=FLAG_FIRST, header=("a:b", 1.0, number, False)), wire.decode_chunk),
        (valid_chunk(request=False, flags=FLAG_FIRST, header=(number, 1)), wire.decode_chunk),
    ]:
        refused(decode, data, "not a number")


@pytest.mark.parametrize("number", [math.nextafter(1e18, 0), -math.nextafter(1e18, 0), -(10**17), 10**17, 5e-324])
def test_a_number_within_the_range_is_read(number):
    assert wire.decode_echo(encode((number,))).token == number


RIGHT = {
    wire.decode_hello: hello(),
    wire.decode_refuse: encode(("version", "text")),
    wire.decode_goodbye: encode(("text",)),
    wire.decode_probe: encode((1.0, 0, 0, 0.0)),
    wire.decode_echo: encode((1.0,)),
    wire.decode_update: update(),
    wire.decode_record: record(),
    wire.decode_seqno_requests: encode([("a", 1, 1)]),
    wire.decode_resend: encode((True, True)),
    wire.decode_chunk: valid_chunk(flags=FLAG_FIRST | FLAG_EOF, header=("a:b", 1.0, None, False), eof=(0, "", "")),
    wire.decode_ack: encode((1, 1, ())),
    wire.decode_cancel: encode((bytes(16), True, 0, 0, 1, 1)),
    wire.decode_unreachable: unreachable(),
    wire.decode_expired: encode((16, "a", "a")),
}


@pytest.mark.parametrize("wrong", [None, True, 1.5, "text", b"bytes", [], {}, -1])
@pytest.mark.parametrize("decode", list(RIGHT), ids=[decode.__name__ for decode in RIGHT])
def test_a_field_of_the_wrong_type_is_refused(decode, wrong):
    fields = msgpack.unpackb(RIGHT[decode])
    decode(msgpack.packb(fields))
    for index, field in enumerate(fields):
        if (type(field) is type(wrong) and wrong != -1) or (type(field), wrong) == (float, -1):
            continue
        refused(decode, msgpack.packb([*fields[:index], wrong, *fields[index + 1 :]]))


@pytest.mark.parametrize(
    "item",
    [
        (bytes(15), True, 0, 0),
        (bytes(17), True, 0, 0),
        ("i" * 16, True, 0, 0),
        (bytes(16), 1, 0, 0),
        (bytes(16), None, 0, 0),
        (bytes(16), True, -1, 0),
        (bytes(16), True, 0, True),
        (bytes(16), True, 0),
        7,
    ],
)
def test_an_acknowledgement_with_a_wrong_field_is_refused(item):
    refused(wire.decode_ack, encode((1, 1, [item])))


@pytest.mark.parametrize("id", [bytes(15), bytes(17), "i" * 16, None])
def test_a_message_id_is_sixteen_bytes(id):
    refused(wire.decode_chunk, valid_chunk(message_id=id))
    refused(wire.decode_cancel, encode((id, True, 0, 0, 1, 1)), "not a message id")


@pytest.mark.parametrize(
    "capabilities", [[1], [b"a:b"], [None], [["a:b"]]], ids=["number", "bytes", "nothing", "array"]
)
def test_a_capability_is_a_text(capabilities):
    refused(wire.decode_record, record(capabilities=capabilities))


def test_a_record_may_have_no_key_that_is_a_text():
    refused(wire.decode_record, record(key="key"), "not a key")


# --- the flags of a chunk -----------------------------------------------------------------------------------------

HEADER = ("a:b", 1.0, None, False)
ENDING = (0, "", "")


@pytest.mark.parametrize(
    ("flags", "header", "eof", "fits"),
    [
        (0, None, None, True),
        (FLAG_LAST | FLAG_RESENT, None, None, True),
        (FLAG_WANTING, None, None, True),
        (FLAG_FIRST, HEADER, None, True),
        (FLAG_EOF, None, ENDING, True),
        (FLAG_FIRST | FLAG_LAST | FLAG_EOF | FLAG_RESENT, HEADER, ENDING, True),
        (0, HEADER, None, False),
        (0, None, ENDING, False),
        (FLAG_FIRST, None, None, False),
        (FLAG_EOF, None, None, False),
        (FLAG_FIRST, None, ENDING, False),
        (FLAG_EOF, HEADER, None, False),
        (32, None, None, False),
    ],
)
def test_the_flags_of_a_chunk_agree_with_what_it_has(flags, header, eof, fits):
    data = valid_chunk(flags=flags, header=header, eof=eof)
    if fits:
        assert wire.decode_chunk(data).flags == flags
    else:
        refused(wire.decode_chunk, data)


def test_the_header_of_a_reply_is_no_header_of_a_request():
    refused(wire.decode_chunk, valid_chunk(request=True, flags=FLAG_FIRST, header=(1.0, 1)))
    refused(wire.decode_chunk, valid_chunk(request=False, flags=FLAG_FIRST, header=HEADER))


# --- digests ------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=50))
@example(b"")
def test_a_digest_is_of_64_bits_and_the_same_each_time(data):
    assert 0 <= wire.digest(data) <= U64
    assert wire.digest(data) == wire.digest(bytes(bytearray(data)))


def test_a_float_and_an_integer_are_one_number_to_a_reader():
    assert wire.decode_echo(b"\x91\x05") == wire.decode_echo(b"\x91\xcb" + struct.pack(">d", 5.0))


def test_a_number_may_be_an_integer():
    assert wire.decode_echo(encode([U64])) == wire.Echo(float(U64))


@pytest.mark.parametrize(
    ("text", "good"), [("edge-7", True), ("cli@hub", True), ("", False), ("a b", False), ("@x", False)]
)
def test_an_address_is_a_node_or_a_leaf_at_a_node(text, good):
    assert wire.is_address(text) is good
