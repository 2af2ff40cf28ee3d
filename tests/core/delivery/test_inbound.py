"""The receiving end of a stream by itself."""

import pytest

from zmesh.core.delivery.flow_control import ACK_EVERY, CHUNK_OVERHEAD, WINDOW, FlowControlError
from zmesh.core.delivery.inbound import InboundStream
from zmesh.core.wire import Chunk


def numbered(sequence):
    """A chunk of that number."""
    return Chunk(bytes(16), True, sequence=sequence, flags=0, request_number=0, lowest_outstanding=0,
                 incarnation=1, target=1, header=None, eof=None)  # fmt: skip


def sequences(ready):
    return None if ready is None else [chunk.sequence for chunk, _, _ in ready]


def test_chunks_are_delivered_in_order_and_none_twice():
    inbound = InboundStream()
    assert sequences(inbound.accept(numbered(0), b"", 1)) == [0]
    assert inbound.accept(numbered(2), b"", 1) is None
    assert inbound.accept(numbered(2), b"", 1) is None
    assert inbound.accept(numbered(0), b"", 1) is None
    assert inbound.accept(numbered(3), b"", 1) is None
    assert sequences(inbound.accept(numbered(1), b"", 1)) == [1, 2, 3]
    assert inbound.accept(numbered(1), b"", 1) is None
    assert sequences(inbound.accept(numbered(4), b"", 1)) == [4]


def test_the_next_chunk_is_delivered_while_later_ones_are_buffered():
    inbound = InboundStream()
    assert inbound.accept(numbered(2), b"", 1) is None
    assert sequences(inbound.accept(numbered(0), b"", 1)) == [0]
    assert sequences(inbound.accept(numbered(1), b"", 1)) == [1, 2]


def test_the_body_and_the_hops_of_a_chunk_stay_with_it():
    inbound = InboundStream()
    inbound.accept(numbered(1), b"late", 3)
    ready = inbound.accept(numbered(0), b"early", 2)
    assert [(body, hops) for _, body, hops in ready] == [(b"early", 2), (b"late", 3)]


@pytest.mark.parametrize("sequence", [0, 1], ids=["in order", "early"])
def test_a_chunk_exceeds_the_limit_by_one_byte_and_not_before(sequence):
    room = WINDOW - CHUNK_OVERHEAD
    with pytest.raises(FlowControlError):
        InboundStream().accept(numbered(sequence), bytes(room + 1), 1)
    inbound = InboundStream()
    inbound.accept(numbered(sequence), bytes(room), 1)
    with pytest.raises(FlowControlError):
        inbound.accept(numbered(2), b"", 1)
    assert inbound.accept(numbered(sequence), bytes(room + 1), 1) is None  # a copy, which takes no room
    inbound.release(CHUNK_OVERHEAD)
    with pytest.raises(FlowControlError):  # the sender has not heard of it yet
        inbound.accept(numbered(2), b"", 1)
    inbound.acknowledge()
    inbound.accept(numbered(2), b"", 1)
    assert 2 in inbound.buffered


def test_a_reader_keeps_up_while_it_has_read_half_of_its_window():
    inbound = InboundStream()
    assert inbound.reader_keeps_up
    inbound.accept(numbered(0), bytes(WINDOW // 2 - CHUNK_OVERHEAD), 1)
    assert inbound.reader_keeps_up
    inbound.accept(numbered(1), b"", 1)
    assert not inbound.reader_keeps_up
    inbound.release(CHUNK_OVERHEAD)
    assert inbound.reader_keeps_up


def test_a_higher_limit_is_announced_at_once_when_a_quarter_of_the_window_was_read():
    inbound = InboundStream()
    assert not inbound.release(ACK_EVERY - 1)
    assert inbound.release(1)
    assert inbound.acknowledge() == (0, WINDOW + ACK_EVERY)
    assert not inbound.release(ACK_EVERY - 1)


def test_a_limit_that_was_announced_is_not_announced_again():
    inbound = InboundStream()
    inbound.accept(numbered(0), bytes(100), 1)
    inbound.release(ACK_EVERY - 1)
    assert inbound.unacked_credit == 100 + CHUNK_OVERHEAD
    assert inbound.acknowledge() == (1, WINDOW + ACK_EVERY - 1)
    assert inbound.unacked_credit == 0
    assert not inbound.release(1)
