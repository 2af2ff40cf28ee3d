"""Several packets as one: what goes in comes out, and garbage raises WireError alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.core import wire
from zmesh.core.wire import FIRST_ROUTED, HEADER_BYTES, LENGTH_BYTES, MAX_BATCH_BYTES, MAX_BATCHED, SINGLE_PART, Kind


def packet(body=b"", kind=Kind.CHUNK):
    return wire.encode_packet(kind, "b", "a", b"head", body)


def batch_of(*packets):
    """The body of a batch, whatever is in it."""
    return b"".join(len(each).to_bytes(LENGTH_BYTES, "big") + each for each in packets)


def test_the_packets_of_a_batch_come_out_as_they_went_in():
    packets = [packet(bytes(size), kind) for size in (0, 1, 5000) for kind in Kind if kind >= FIRST_ROUTED]
    frames = wire.encode_batch(packets)
    batch = wire.read_packet(frames)
    assert (len(frames), batch.kind, batch.destination, batch.head) == (2, Kind.BATCH, "", b"")
    assert wire.decode_batch(batch.body) == packets


def test_the_largest_batch_is_one_part():
    overhead = 2 * (LENGTH_BYTES + len(packet()[0]))
    packets = [packet(), packet(bytes(MAX_BATCH_BYTES - overhead))]
    (part,) = wire.encode_batch(packets)
    assert len(part) == SINGLE_PART
    assert wire.decode_batch(wire.read_packet((part,)).body) == packets


def test_a_batch_has_no_more_packets_than_one_turn_of_the_loop_takes_in():
    packets = [packet()] * MAX_BATCHED
    assert len(wire.decode_batch(batch_of(*(each for (each,) in packets)))) == MAX_BATCHED
    with pytest.raises(wire.WireError, match=f"more than {MAX_BATCHED} packets"):
        wire.decode_batch(batch_of(*(each for (each,) in [*packets, packet()])))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        batch_of(packet()[0]) + b"\0",
        batch_of(packet()[0])[:-1],
        batch_of(packet()[0][: HEADER_BYTES - 1]),
        batch_of(wire.encode_link(Kind.ASK)[0]),
        batch_of(wire.encode_batch([packet()])[0]),
        batch_of(*[b""] * 65_535),
    ],
    ids=[
        *("empty", "half a length", "trailing bytes", "cut off", "shorter than a header", "of the link", "nested"),
        "many of nothing",
    ],
)
def test_a_batch_that_is_no_list_of_packets_that_travel_is_refused(body):
    with pytest.raises(wire.WireError):
        wire.decode_batch(body)


@given(st.binary(max_size=200))
def test_garbage_is_packets_or_a_wire_error(body):
    try:
        packets = wire.decode_batch(body)
    except wire.WireError:
        return
    assert body == batch_of(*(each for (each,) in packets))


def test_only_a_packet_in_one_part_that_travels_may_be_in_a_batch():
    assert wire.is_batchable(packet())
    assert not wire.is_batchable(packet(bytes(SINGLE_PART)))
    assert not wire.is_batchable(wire.encode_link(Kind.ASK))
    assert not wire.is_batchable(wire.hello_for_version1(2))
