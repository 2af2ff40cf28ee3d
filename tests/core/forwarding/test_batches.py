"""What waits to leave with others, by link and in order."""

import pytest

from zmesh.core import wire
from zmesh.core.forwarding import Batches
from zmesh.core.wire import LENGTH_BYTES, MAX_BATCH_BYTES, MAX_BATCHED, Kind


@pytest.fixture
def batches():
    batches = Batches()
    batches.links |= {1, 2}
    return batches


def packet(body=b""):
    return wire.encode_packet(Kind.CHUNK, "b", "a", b"", body)


OVERHEAD = LENGTH_BYTES + len(packet()[0])


def test_packets_wait_by_link_and_in_order(batches):
    assert not batches.waiting
    assert all(batches.hold(link, packet(body)) for link, body in [(1, b"x"), (2, b"y"), (1, b"z")])
    assert batches.waiting
    assert batches.take(1) == [packet(b"x"), packet(b"z")]
    assert batches.take(1) == []
    assert batches.take_all() == {2: [packet(b"y")]}
    assert not batches.waiting


def test_nothing_waits_for_a_link_whose_other_end_takes_no_batches(batches):
    assert not batches.hold(3, packet())
    assert not batches.waiting


def test_what_can_not_be_in_a_batch_does_not_wait(batches):
    assert not batches.hold(1, wire.encode_link(Kind.ASK))
    assert not batches.hold(1, packet(bytes(wire.SINGLE_PART)))
    assert not batches.waiting


def test_a_batch_is_full_after_so_many_packets(batches):
    assert all(batches.hold(1, packet()) for _ in range(MAX_BATCHED))
    assert not batches.hold(1, packet())
    assert len(batches.take(1)) == MAX_BATCHED
    assert batches.hold(1, packet())


def test_a_batch_is_full_after_so_many_bytes(batches):
    assert batches.hold(1, packet(bytes(MAX_BATCH_BYTES - 2 * OVERHEAD)))
    assert not batches.hold(1, packet(b"x"))
    assert batches.hold(1, packet())
    assert len(wire.encode_batch(batches.take(1))[0]) == wire.SINGLE_PART


def test_a_packet_too_large_for_any_batch_does_not_wait(batches):
    largest = packet(bytes(MAX_BATCH_BYTES - OVERHEAD))
    assert not batches.hold(1, packet(bytes(MAX_BATCH_BYTES - OVERHEAD + 1)))
    assert batches.hold(1, largest)
