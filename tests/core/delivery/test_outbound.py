"""The sending end of a stream by itself."""

import random

import pytest

from zmesh.core.delivery.congestion import CHUNK, MAX_WINDOW, MIN_CHUNK, MIN_WINDOW
from zmesh.core.delivery.flow_control import CHUNK_OVERHEAD, WINDOW
from zmesh.core.delivery.outbound import SEND_BUFFER, OutboundStream
from zmesh.core.message import Eof, ReplyHeader, RequestHeader
from zmesh.core.wire import FLAG_BLOCKED, FLAG_EOF, FLAG_FIRST, FLAG_LAST, MAX_BODY

HEADER = RequestHeader("echo:echo", 1.0)


def taken(outbound, now=0.0):
    chunks = []
    while (chunk := outbound.next_chunk(now)) is not None:
        chunks.append(chunk)
    return chunks


def filled(*bodies):
    outbound = OutboundStream()
    for body in bodies:
        outbound.push(None, body, last=True, eof=None, complete=False)
    return outbound


def test_a_small_message_is_one_chunk():
    outbound = OutboundStream()
    outbound.push(HEADER, b"hello", last=True, eof=None, complete=True)
    (chunk,) = taken(outbound, 2.5)
    assert (chunk.sequence, chunk.flags, chunk.header, chunk.body) == (0, FLAG_FIRST | FLAG_LAST, HEADER, b"hello")
    assert (chunk.eof, chunk.sent_at, chunk.transmissions) == (None, 2.5, 1)


def test_an_empty_message_and_an_eof_are_chunks_too():
    outbound = OutboundStream()
    outbound.push(ReplyHeader(1.0, 1), b"", last=True, eof=None, complete=False)
    outbound.push(None, b"", last=False, eof=Eof(), complete=True)
    first, second = taken(outbound)
    assert (first.flags, first.body) == (FLAG_FIRST | FLAG_LAST, b"")
    assert (second.flags, second.body, second.eof) == (FLAG_EOF, b"", Eof())


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1])
def test_a_large_body_is_split_into_chunks(size):
    body = random.Random(size).randbytes(size)
    outbound = OutboundStream()
    outbound.push(HEADER, body, last=True, eof=Eof(), complete=True)
    chunks = taken(outbound)
    assert b"".join(pieces_body.body for pieces_body in chunks) == body
    assert [len(chunk.body) for chunk in chunks[:-1]] == [CHUNK] * (len(chunks) - 1)
    assert len(chunks[-1].body) <= CHUNK
    assert [chunk.header for chunk in chunks] == [HEADER] + [None] * (len(chunks) - 1)
    assert [chunk.eof for chunk in chunks] == [None] * (len(chunks) - 1) + [Eof()]
    assert chunks[0].flags & FLAG_FIRST
    assert chunks[-1].flags & (FLAG_LAST | FLAG_EOF) == FLAG_LAST | FLAG_EOF
    assert not any(chunk.flags for chunk in chunks[1:-1])


@pytest.mark.parametrize("usual", [MIN_CHUNK, CHUNK, 4 * CHUNK, MAX_BODY])
def test_a_body_is_cut_into_chunks_as_long_as_suits_the_path_when_they_are_sent(usual):
    body = random.Random(usual).randbytes(3 * MAX_BODY)
    outbound = OutboundStream()
    outbound.push(HEADER, body[:MAX_BODY], last=False, eof=None, complete=False)
    outbound.push(None, body[MAX_BODY:], last=True, eof=None, complete=True)
    outbound.congestion.window = outbound.limit = MAX_WINDOW
    chunks = [outbound.next_chunk(0.0)]
    outbound.congestion.chunk_bytes = usual
    chunks += taken(outbound)
    outbound.check()
    assert b"".join(chunk.body for chunk in chunks) == body
    assert len(chunks[0].body) == CHUNK
    sizes = {len(chunk.body) for chunk in chunks[1:]}
    assert max(sizes) == usual
    assert all(chunk.credit == len(chunk.body) + CHUNK_OVERHEAD for chunk in chunks)
    assert [chunk.header for chunk in chunks] == [HEADER] + [None] * (len(chunks) - 1)
    assert [chunk.flags for chunk in chunks] == [FLAG_FIRST] + [0] * (len(chunks) - 2) + [FLAG_LAST]
    assert outbound.sent_credit == sum(chunk.credit for chunk in chunks)


def test_a_long_chunk_shrinks_to_the_usual_size_where_the_receivers_limit_has_no_room_for_it():
    outbound = filled(bytes(2 * MAX_BODY))
    outbound.congestion.chunk_bytes = MAX_BODY
    assert [len(chunk.body) for chunk in taken(outbound)] == [MAX_BODY] + [CHUNK] * 8
    assert outbound.is_flow_blocked
    outbound.check()
    short = filled(bytes(2 * MAX_BODY))
    short.congestion.chunk_bytes = MIN_CHUNK
    assert {len(chunk.body) for chunk in taken(short)} == {MIN_CHUNK}


def test_small_parts_are_gathered_into_chunks_that_shrink_with_the_path():
    outbound = OutboundStream()
    outbound.push(HEADER, b"", last=False, eof=None, complete=False)
    body = random.Random(1).randbytes(CHUNK)
    for start in range(0, CHUNK, 1024):
        outbound.push(None, body[start : start + 1024], last=start + 1024 == CHUNK, eof=None, complete=False)
    assert len(outbound.unsent) == 1
    outbound.congestion.chunk_bytes = MIN_CHUNK
    chunks = taken(outbound)
    assert [len(chunk.body) for chunk in chunks] == [MIN_CHUNK] * 4
    assert b"".join(chunk.body for chunk in chunks) == body
    outbound.check()


def test_the_room_for_more_is_two_chunks_where_these_are_long():
    outbound = OutboundStream()
    outbound.congestion.chunk_bytes = MAX_BODY
    assert outbound.room() == 2 * MAX_BODY


def test_the_room_for_more_is_what_the_send_buffer_leaves():
    outbound = OutboundStream()
    assert outbound.room() == SEND_BUFFER
    outbound.push(HEADER, bytes(1000), last=False, eof=None, complete=False)
    assert outbound.room() == SEND_BUFFER - 1000 - CHUNK_OVERHEAD
    outbound.push(None, bytes(SEND_BUFFER), last=False, eof=None, complete=False)
    assert outbound.room() == 0
    assert outbound.unsent_bytes == SEND_BUFFER + 1000
    taken(outbound)
    assert (outbound.room(), outbound.unsent_bytes) == (SEND_BUFFER, 0)


def test_no_more_is_sent_than_the_window_allows():
    outbound = filled(*[bytes(CHUNK)] * 60)
    fits = WINDOW // (CHUNK + CHUNK_OVERHEAD)
    assert len(taken(outbound)) == fits
    outbound.acknowledge(fits, outbound.sent_credit + CHUNK + CHUNK_OVERHEAD - 1, 0.0)
    assert taken(outbound) == []
    outbound.acknowledge(fits, outbound.sent_credit + CHUNK + CHUNK_OVERHEAD, 0.0)
    assert len(taken(outbound)) == 1


def test_a_limit_never_shrinks():
    outbound = OutboundStream()
    outbound.acknowledge(0, 2 * WINDOW, 0.0)
    outbound.acknowledge(0, WINDOW, 0.0)
    assert outbound.limit == 2 * WINDOW


def test_an_acknowledgement_covers_all_chunks_below_and_gives_a_round_trip_time():
    outbound = filled(b"0", b"1", b"2")
    taken(outbound, 10.0)
    assert outbound.acknowledge(2, 0, 10.25) == 0.25
    assert list(outbound.unacked) == [2]
    assert outbound.acknowledge(2, 0, 11.0) is None
    assert outbound.acknowledge(1, 0, 11.0) is None
    assert outbound.acknowledge(3, 0, 12.0) == 2.0
    assert outbound.unacked == {}


def test_an_acknowledgement_of_chunks_that_were_never_sent_is_ignored():
    outbound = filled(b"0", b"1")
    outbound.next_chunk(0.0)
    assert outbound.acknowledge(2, 0, 1.0) is None
    assert list(outbound.unacked) == [0]


def test_returned_copies_of_a_chunk_are_counted():
    outbound = filled(b"a", b"b")
    taken(outbound, 1.0)
    outbound.on_returned(0, 1.5, refused=False)
    outbound.on_returned(7, 1.5, refused=True)  # what was acknowledged, or was never sent
    outbound.on_path_change()
    assert [(chunk.returned, chunk.transmissions) for chunk in taken(outbound, 3.0)] == [(1, 2), (0, 2)]


def test_a_retransmitted_chunk_gives_no_round_trip_time():
    outbound = filled(b"0", b"1")
    taken(outbound, 0.0)
    outbound.on_timeout(1.0)
    assert [chunk.sequence for chunk in taken(outbound, 1.0)] == [0, 1]
    assert outbound.acknowledge(1, 0, 1.5) == -1.0
    assert outbound.acknowledge(2, 0, 1.5) == -1.0


def test_the_retransmission_timeout_counts_from_the_last_transmission_of_the_oldest_chunk():
    outbound = filled(b"0", b"1")
    assert outbound.retransmit_at(1.0) is None
    taken(outbound, 5.0)
    assert outbound.retransmit_at(1.0) == 6.0
    outbound.on_timeout(7.0)
    assert outbound.retransmit_at(1.0) is None
    taken(outbound, 7.0)
    assert outbound.retransmit_at(1.0) == 8.0
    outbound.on_returned(0, 7.5, refused=True)
    assert outbound.retransmit_at(1.0) == 8.0
    assert [chunk.transmissions for chunk in outbound.unacked.values()] == [2, 2]


def test_lost_chunks_are_retransmitted_before_new_ones():
    outbound = filled(b"0", b"1", b"2")
    outbound.next_chunk(0.0)
    outbound.next_chunk(0.0)
    outbound.on_path_change()
    assert [chunk.sequence for chunk in taken(outbound, 1.0)] == [0, 1, 2]
    assert not outbound.has_pending
    outbound.check()


def test_a_lost_chunk_that_is_acknowledged_after_all_is_not_retransmitted():
    outbound = filled(b"0", b"1")
    taken(outbound)
    outbound.on_path_change()
    outbound.acknowledge(1, 0, 1.0)
    outbound.check()
    assert [chunk.sequence for chunk in taken(outbound, 1.0)] == [1]


def test_only_chunks_that_a_full_queue_refused_are_retransmitted():
    outbound = filled(b"0", b"1", b"2")
    taken(outbound)
    for _ in range(2):
        outbound.on_returned(1, 1.0, refused=True)
        outbound.check()
    assert [(chunk.sequence, chunk.transmissions) for chunk in taken(outbound, 2.0)] == [(1, 2)]


def test_no_more_is_in_flight_than_the_congestion_window_allows():
    outbound = filled(*[bytes(CHUNK)] * 100)
    outbound.acknowledge(0, MAX_WINDOW, 0.0)
    first = taken(outbound)
    assert len(first) == WINDOW // (CHUNK + CHUNK_OVERHEAD)
    outbound.acknowledge(4, 0, 0.5)
    assert outbound.in_flight <= WINDOW
    outbound.on_returned(5, 0.6, refused=True)
    outbound.acknowledge(len(first) - 6, 0, 0.7)
    assert outbound.congestion.window < WINDOW
    taken(outbound, 0.8)
    assert MIN_WINDOW < outbound.in_flight <= outbound.congestion.window
    outbound.check()


def test_lost_chunks_wait_for_the_congestion_window_but_one_is_always_in_flight():
    outbound = filled(*[bytes(CHUNK)] * 14)
    taken(outbound)
    for now in range(1, 5):
        outbound.on_timeout(now)
        taken(outbound, now)
        outbound.check()
    assert outbound.congestion.window == MIN_WINDOW
    assert outbound.in_flight <= MIN_WINDOW
    assert len(outbound.lost) == 14 - MIN_WINDOW // (CHUNK + CHUNK_OVERHEAD)
    outbound.on_timeout(9.0)
    outbound.congestion.window = 0
    assert [chunk.sequence for chunk in taken(outbound, 9.0)] == [0]


def test_a_sender_blocked_by_flow_control_flags_its_last_chunk():
    outbound = filled(*[bytes(CHUNK)] * 60)
    assert not any(chunk.flags & FLAG_BLOCKED for chunk in taken(outbound))  # here the path's window is as small
    outbound.acknowledge(8, WINDOW + 4 * (CHUNK + CHUNK_OVERHEAD), 1.0)
    chunks = taken(outbound, 1.0)
    assert [bool(chunk.flags & FLAG_BLOCKED) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_a_sender_with_nothing_more_to_send_is_not_blocked():
    outbound = filled(*[bytes(CHUNK)] * 15)
    assert not any(chunk.flags & FLAG_BLOCKED for chunk in taken(outbound))


def test_a_wrong_count_of_what_is_in_flight_is_found():
    outbound = filled(b"0")
    outbound.check()
    outbound.in_flight += 1
    with pytest.raises(AssertionError, match="in flight"):
        outbound.check()


@pytest.mark.parametrize("word", ["progress", "room"])
def test_retries_start_over_with_any_progress(word):
    outbound = filled(b"0", b"1")
    taken(outbound)
    outbound.retries = 4
    outbound.acknowledge(0, 0, 1.0)
    assert outbound.retries == 4
    outbound.acknowledge(*((1, 0) if word == "progress" else (0, 2 * WINDOW)), 1.0)
    assert outbound.retries == 0


def test_a_stream_is_finished_when_its_end_was_pushed_sent_and_acknowledged():
    outbound = OutboundStream()
    assert not outbound.is_finished
    outbound.push(HEADER, b"x", last=True, eof=None, complete=True)
    assert not outbound.is_finished
    taken(outbound)
    assert not outbound.is_finished
    outbound.acknowledge(1, 0, 0.0)
    assert outbound.is_finished
