"""Packets: what is written is read again, what a line or a member changes is refused, and nothing else is raised."""

import zlib

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.core.wire.wire_strategies import U64, addresses
from zmesh.core import wire
from zmesh.core.wire import Kind, WireError
from zmesh.core.wire.limits import MAX_BODY
from zmesh.core.wire.packet import (
    FLAG_BODY_APART,
    HEADER_BYTES,
    SINGLE_PART,
    decode_packet,
    encode_packet,
    onward,
    verify,
)

routed = st.sampled_from([kind for kind in Kind if kind >= 16])
sizes = st.sampled_from([0, 1, 100, SINGLE_PART - 200, SINGLE_PART, MAX_BODY])


def read(parts):
    packet = decode_packet(parts)
    verify(parts, packet)
    return packet


@given(routed, addresses, addresses, st.binary(max_size=300), sizes, st.integers(1, 255))
def test_a_packet_is_read_as_it_was_written(kind, destination, source, head, size, ttl):
    body = bytes(size)
    parts = encode_packet(kind, destination, source, head, body, ttl)
    packet = read(parts)
    assert (packet.kind, packet.ttl, packet.destination, packet.source) == (kind, ttl, destination, source)
    assert (packet.head, packet.body, packet.host) == (head, body, destination.rpartition("@")[2])
    assert len(parts) == (1 if HEADER_BYTES + len(destination) + len(source) + len(head) + size <= SINGLE_PART else 2)


def test_a_packet_of_up_to_16_kib_is_one_part_and_a_longer_one_two():
    room = SINGLE_PART - HEADER_BYTES - len("ab") - 10
    assert [len(part) for part in encode_packet(16, "a", "b", bytes(10), bytes(room))] == [SINGLE_PART]
    assert [len(part) for part in encode_packet(16, "a", "b", bytes(10), bytes(room + 1))] == [28, room + 1]


@given(st.sampled_from([kind for kind in Kind if kind < 16]), st.binary(max_size=300))
def test_a_packet_that_stays_on_its_link_has_no_address(kind, head):
    packet = read(encode_packet(kind, "", "", head, b""))
    assert (packet.kind, packet.destination, packet.source, packet.head) == (kind, "", "", head)
    with pytest.raises(WireError, match="an address on a packet"):
        decode_packet(encode_packet(kind, "a", "b", head, b""))


@given(routed, st.binary(max_size=40), sizes, st.data())
def test_a_flipped_bit_is_detected_except_in_the_ttl(kind, head, size, data):
    parts = encode_packet(kind, "abc", "x@yz", head, bytes(size))
    whole = b"".join(parts)
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    cut = len(parts[0])
    again = (bytes(changed[:cut]), bytes(changed[cut:])) if len(parts) == 2 else (bytes(changed),)
    if at == 3:
        assert read(again).ttl == changed[3]
    else:
        with pytest.raises(WireError):
            read(again)


def test_a_forwarder_changes_the_ttl_alone():
    for size in (10, MAX_BODY):
        parts = encode_packet(16, "abc", "xyz", b"head", bytes(size), 9)
        passed_on = onward(parts)
        assert read(passed_on) == read(parts)._replace(ttl=8)
        assert passed_on[1:] == parts[1:]


@given(st.lists(st.binary(max_size=80), max_size=4))
def test_garbage_raises_wire_error_and_nothing_else(parts):
    with pytest.raises(WireError):
        read(parts)


@given(st.binary(min_size=HEADER_BYTES, max_size=60), st.booleans())
def test_garbage_with_a_sound_beginning_raises_wire_error_or_is_a_packet(data, apart):
    first = bytes((2, 16, int(apart))) + data[3:6] + bytes(2) + data[8:]
    try:
        read([first, b"body"] if apart else [first])
    except WireError:
        pass


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 1),
        (0, 3),
        (1, 0),
        (1, 99),
        (2, FLAG_BODY_APART),
        (2, 3),
        (2, 4),
        (4, 200),
        (5, 200),
        (6, 1),
        (8, 1),
        (11, 200),
    ],
)
def test_a_header_with_a_wrong_field_is_refused(at, value):
    first = bytearray(encode_packet(16, "abc", "xyz", b"head", b"body")[0])
    first[at] = value
    with pytest.raises(WireError):
        decode_packet((bytes(first),))


@pytest.mark.parametrize("address", ["", "a b", "a@", "@a", "a@b@c", "x" * 65])
def test_what_is_no_address_is_refused(address):
    for ends in ((address, "a"), ("a", address)):
        with pytest.raises(WireError, match="not an address"):
            decode_packet(encode_packet(16, *ends, b"", b""))


def test_bytes_that_are_not_ascii_are_no_address():
    first = encode_packet(16, "abc", "xyz", b"", b"")[0].replace(b"abc", b"\xffbc")
    with pytest.raises(WireError, match="not an address"):
        decode_packet((first,))


def test_a_body_or_a_head_that_is_too_long_is_refused():
    with pytest.raises(WireError, match="a body of 1048577 bytes"):
        decode_packet(encode_packet(16, "a", "b", b"", bytes(MAX_BODY + 1)))
    with pytest.raises(WireError, match="a head of 262145 bytes"):
        decode_packet(encode_packet(16, "a", "b", bytes(256 * 1024 + 1), b""))


def test_the_addresses_that_are_kept_are_bounded(monkeypatch):
    monkeypatch.setattr("zmesh.core.wire.packet.MAX_KNOWN", 4)
    from zmesh.core.wire.packet import _addresses

    for number in range(20):
        assert read(encode_packet(16, f"node-{number}", "b", b"", b"")).destination == f"node-{number}"
        assert len(_addresses) <= 4


def test_a_packet_of_a_node_for_itself_needs_no_bytes():
    packet = wire.loop_packet(Kind.CHUNK, "a", b"head", b"body")
    assert (packet.destination, packet.source, packet.host, packet.head, packet.body) == (
        "a",
        "a",
        "a",
        b"head",
        b"body",
    )


def test_the_size_of_a_packet_is_that_of_its_parts():
    for size in (10, MAX_BODY):
        frames = encode_packet(16, "a", "b", b"head", bytes(size))
        assert wire.size_of(frames) == HEADER_BYTES + 2 + 4 + size


def test_a_link_frame_is_a_packet_with_a_head_and_no_body():
    for kind, value, head in ((Kind.ECHO, wire.Echo(1.5), wire.encode(wire.Echo(1.5))), (Kind.ASK, (), b"\x90")):
        packet = wire.read_packet(wire.encode_link(kind, value))
        assert (packet.kind, packet.head, packet.body) == (kind, head, b"")


def test_an_unknown_kind_is_refused():
    known = {int(kind) for kind in Kind}
    for kind in set(range(256)) - known:
        with pytest.raises(WireError, match=f"kind {kind}, "):
            decode_packet(encode_packet(kind, "a", "b", b"", b""))


# --- version 1 ----------------------------------------------------------------------------------------------------


def version1(version, kind, head=b""):
    return (wire.encode((version, kind, 255, "", "")), head, b"")


def test_a_hello_of_version_1_is_distinguished_from_garbage():
    with pytest.raises(wire.ForeignVersion) as caught:
        decode_packet(version1(1, 1))
    assert (caught.value.version, caught.value.refused, caught.value.reason) == (1, False, "version")
    for frames in (version1(1, 5), version1("1", 1), (b"", b"", b""), (b"\x95", b"", b""), (b"\x90", b"", b"")):
        with pytest.raises(WireError) as caught:
            decode_packet(frames)
        assert not isinstance(caught.value, wire.ForeignVersion)


def test_a_refuse_of_version_1_says_why():
    with pytest.raises(wire.ForeignVersion) as caught:
        decode_packet(wire.refuse_version1("protocol version 2 is not 1"))
    assert (caught.value.refused, caught.value.text) == (True, "protocol version 2 is not 1")
    for head in (b"", b"\xc1" * 9, wire.encode(()) + bytes(4), wire.encode((1, 2)) + bytes(4)):
        with pytest.raises(wire.ForeignVersion) as caught:
            decode_packet(version1(1, 2, head))
        assert caught.value.text == "they speak another version"


def test_what_is_said_to_version_1_has_its_checksum():
    """The CRC-32 of the text "KIND DESTINATION SOURCE", the body and the head, its lowest byte first."""
    for kind, frames in ((2, wire.refuse_version1("text")), (1, wire.hello_for_version1(2))):
        head, total = frames[1][:-4], frames[1][-4:]
        assert zlib.crc32(f"{kind}  ".encode() + head).to_bytes(4, "little") == total
    assert msgpack.unpackb(wire.hello_for_version1(2)[0]) == [2, 1, 255, "", ""]
    assert msgpack.unpackb(wire.refuse_version1("text")[1][:-4]) == ["version", "text", 0.0]


# --- digests ------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=50))
@example(b"")
def test_a_digest_is_of_64_bits_and_the_same_each_time(data):
    assert 0 <= wire.digest(data) <= U64
    assert wire.digest(data) == wire.digest(bytes(bytearray(data)))
