"""Sealed packets as bytes."""

import pytest

from zmesh.core import wire
from zmesh.core.wire import FLAG_SEALED, MAX_BODY, SEAL_HEAD_BYTES, SEAL_TAG_BYTES, Kind, Seal, WireError

HEAD = wire.encode_seal(Seal(b"aaaa", b"bbbb", 7)) + bytes(20)


@pytest.mark.parametrize("size", [0, 100, 20_000, MAX_BODY + SEAL_TAG_BYTES])
def test_a_sealed_packet_is_read_as_it_was_written(size):
    frames = wire.encode_sealed(Kind.CHUNK, "b", "leaf@a", HEAD, bytes(size), ttl=9)
    assert len(frames) == (2 if size >= 20_000 else 1)
    packet = wire.decode_packet(frames)
    assert packet.sealed
    assert (packet.kind, packet.ttl, packet.destination, packet.source, packet.head, packet.body) == (
        Kind.CHUNK, 9, "b", "leaf@a", HEAD, bytes(size),
    )  # fmt: skip
    assert packet.checksum == 0


def test_a_body_may_be_longer_by_its_tag_and_no_more():
    frames = wire.encode_sealed(Kind.CHUNK, "b", "a", HEAD, bytes(MAX_BODY + SEAL_TAG_BYTES + 1))
    with pytest.raises(WireError):
        wire.decode_packet(frames)
    assert wire.pass_on(frames, {b"b": 1}, b"x") is None
    plain = wire.encode_packet(Kind.CHUNK, "b", "a", HEAD, bytes(MAX_BODY + 1))
    with pytest.raises(WireError):
        wire.decode_packet(plain)


@pytest.mark.parametrize("size", [100, 20_000, MAX_BODY + SEAL_TAG_BYTES])
def test_a_sealed_packet_is_passed_on_by_the_fib(size):
    frames = wire.encode_sealed(Kind.CHUNK, "b", "a", HEAD, bytes(size))
    wire.decode_packet(frames)
    found, onward = wire.pass_on(frames, {b"b": 1}, b"x")
    assert found == 1
    assert wire.decode_packet(onward)._replace(ttl=255) == wire.decode_packet(frames)


def test_a_packet_that_stays_on_its_link_is_not_sealed():
    first = bytearray(wire.encode_link(Kind.ASK)[0])
    first[2] |= FLAG_SEALED
    with pytest.raises(WireError):
        wire.decode_packet((bytes(first),))


def test_what_stands_before_a_head_is_read():
    assert wire.decode_seal(HEAD) == Seal(b"aaaa", b"bbbb", 7)
    assert wire.decode_seal(HEAD[:SEAL_HEAD_BYTES]).counter == 7
    with pytest.raises(WireError):
        wire.decode_seal(HEAD[: SEAL_HEAD_BYTES - 1])


def test_what_is_authenticated_differs_in_each_field():
    routes = {
        wire.authenticated(Kind.CHUNK, "b", "a"),
        wire.authenticated(Kind.ACK, "b", "a"),
        wire.authenticated(Kind.CHUNK, "c", "a"),
        wire.authenticated(Kind.CHUNK, "b", "c"),
        wire.authenticated(Kind.CHUNK, "ba", ""),
    }
    assert len(routes) == 5


@pytest.mark.parametrize(
    ("source", "passes"), [("x", False), ("leaf@x", False), ("ax", True), ("leaf@ax", True), ("x@a", True)]
)
def test_a_packet_that_names_the_node_itself_as_its_source_is_not_passed_on(source, passes):
    frames = wire.encode_packet(wire.Kind.CHUNK, "b", source, b"head", b"body")
    wire.decode_packet(frames)  # as the first one of that source was
    assert (wire.pass_on(frames, {b"b": 1}, b"x") is not None) is passes
