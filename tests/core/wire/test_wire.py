"""What every kind of message has in common: it comes out as it went in, and garbage is WireError and nothing else."""

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.wire.wire_strategies import (
    DECODERS,
    FIXED,
    U64,
    VALUES,
    bytes16,
    hello,
    names_of,
    nodes,
    record,
    refused,
    unreachable,
    update,
)
from zmesh.core import wire
from zmesh.core.wire import WireError, encode

messages = st.one_of([st.tuples(st.just(decode), values) for decode, values in VALUES.items()])
fixed = st.one_of([st.tuples(st.just(decode), values) for decode, values in FIXED.items()])

anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), U64) | st.floats() | st.text(max_size=70)
    | st.binary(max_size=20) | bytes16 | nodes,
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=20,
)  # fmt: skip


# --- what goes in comes out ---------------------------------------------------------------------------------------


def same(one, other):
    """Equal, also in type, for values that are NamedTuples of NamedTuples."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@given(messages | fixed)
def test_every_value_comes_out_as_it_went_in(message):
    decode, value = message
    assert same(decode(encode(value)), value)


# --- garbage ------------------------------------------------------------------------------------------------------


def same_numbers(one, other):
    """Equal, but that a whole number may have become the float that is nearest to it."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_numbers, one, other))
    if (type(one), type(other)) == (int, float):
        one = float(one)
    return one == other and type(one) is type(other)


def read(decode, data):
    """Read garbage: a decoded value encodes to the same bytes."""
    try:
        value = decode(data)
    except WireError:
        return
    if isinstance(value, wire.Update):
        encoded = wire.read_packet(wire.encode_update(value)).head
    elif decode is wire.decode_records:
        records, errors = value
        assert all(isinstance(error, WireError) for error in errors)
        encoded = encode([blob for _, blob in records])
        if errors:
            return
    else:
        encoded = encode(value)
    assert same_numbers(msgpack.unpackb(data, strict_map_key=False), msgpack.unpackb(encoded, strict_map_key=False))


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


@given(messages | fixed, st.data())
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
    if decode in FIXED:
        with contextlib.suppress(WireError):
            decode(bytes(raw))
    else:
        read(decode, bytes(raw))


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
    if decode is wire.decode_records and data[:1] == b"\x95":  # an array of five things, none of which is a record
        records, errors = decode(data)
        assert (records, len(errors)) == ([], 5)
        return
    refused(decode, data)


@pytest.mark.parametrize("decode", DECODERS, ids=names_of)
def test_too_few_fields_and_too_many_are_refused(decode):
    if decode is wire.decode_records:
        decode = wire.decode_record
    for count in (0, 30) if decode is not wire.decode_seqno_requests else (30,):
        refused(decode, encode((0,) * count), "not an array of")


# --- fields of the wrong type -------------------------------------------------------------------------------------

RIGHT = {
    wire.decode_hello: hello(),
    wire.decode_refuse: encode(("version", "text", 0.0)),
    wire.decode_goodbye: encode(("text",)),
    wire.decode_probe: encode((1.0, 0, 0, 0.0, 0)),
    wire.decode_echo: encode((1.0,)),
    wire.decode_update: update(),
    wire.decode_record: record(),
    wire.decode_seqno_requests: encode([("a", 1, 1, 1)]),
    wire.decode_resend: encode((True, True, False)),
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
