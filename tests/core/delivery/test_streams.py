"""Both ends of a stream, each by itself."""

import random

import pytest

from zmesh.core.delivery.congestion import MAX_WINDOW, MIN_WINDOW
from zmesh.core.delivery.flow_control import ACK_EVERY, CHUNK_OVERHEAD, WINDOW, FlowControlError
from zmesh.core.delivery.inbound import InboundStream
from zmesh.core.delivery.outbound import SEND_BUFFER, OutboundStream
from zmesh.core.message import Eof, ReplyHeader, RequestHeader
from zmesh.core.wire import FLAG_BLOCKED, FLAG_EOF, FLAG_FIRST, FLAG_LAST, MAX_BODY, Chunk

HEADER = RequestHeader("echo:echo", 1.0)


def numbered(sequence):
    """A chunk of that number."""
    return Chunk(bytes(16), True, sequence=sequence, flags=0, request_number=0, lowest_outstanding=0,
                 incarnation=1, target=1, header=None, eof=None)  # fmt: skip


def taken(outbound, now=0.0):
    pieces = []
    while (piece := outbound.next_chunk(now)) is not None:
        pieces.append(piece)
    return pieces


def filled(*bodies):
    outbound = OutboundStream()
    for body in bodies:
        outbound.push(None, body, last=True, eof=None, complete=False)
    return outbound


# --- the sending end ----------------------------------------------------------------------------------------------


def test_a_small_message_is_one_chunk():
    outbound = OutboundStream()
    outbound.push(HEADER, b"hello", last=True, eof=None, complete=True)
    (piece,) = taken(outbound, 2.5)
    assert (piece.sequence, piece.flags, piece.header, piece.body) == (0, FLAG_FIRST | FLAG_LAST, HEADER, b"hello")
    assert (piece.eof, piece.sent_at, piece.transmissions) == (None, 2.5, 1)


def test_an_empty_message_and_a_final_word_are_chunks_too():
    outbound = OutboundStream()
    outbound.push(ReplyHeader(1.0, 1), b"", last=True, eof=None, complete=False)
    outbound.push(None, b"", last=False, eof=Eof(), complete=True)
    first, second = taken(outbound)
    assert (first.flags, first.body) == (FLAG_FIRST | FLAG_LAST, b"")
    assert (second.flags, second.body, second.eof) == (FLAG_EOF, b"", Eof())


@pytest.mark.parametrize("size", [0, 1, MAX_BODY, MAX_BODY + 1, 2 * MAX_BODY, 2 * MAX_BODY + 1])
def test_a_large_piece_is_cut_at_the_largest_body(size):
    body = random.Random(size).randbytes(size)
    outbound = OutboundStream()
    outbound.push(HEADER, body, last=True, eof=Eof(), complete=True)
    pieces = taken(outbound)
    assert b"".join(pieces_body.body for pieces_body in pieces) == body
    assert [len(piece.body) for piece in pieces[:-1]] == [MAX_BODY] * (len(pieces) - 1)
    assert len(pieces[-1].body) <= MAX_BODY
    assert [piece.header for piece in pieces] == [HEADER] + [None] * (len(pieces) - 1)
    assert [piece.eof for piece in pieces] == [None] * (len(pieces) - 1) + [Eof()]
    assert pieces[0].flags & FLAG_FIRST
    assert pieces[-1].flags & (FLAG_LAST | FLAG_EOF) == FLAG_LAST | FLAG_EOF
    assert not any(piece.flags for piece in pieces[1:-1])


def test_the_room_for_more_is_what_the_backlog_leaves():
    outbound = OutboundStream()
    assert outbound.room() == SEND_BUFFER
    outbound.push(HEADER, bytes(1000), last=False, eof=None, complete=False)
    assert outbound.room() == SEND_BUFFER - 1000
    outbound.push(None, bytes(SEND_BUFFER), last=False, eof=None, complete=False)
    assert outbound.room() == 0
    assert outbound.unsent_bytes == SEND_BUFFER + 1000
    taken(outbound)
    assert (outbound.room(), outbound.unsent_bytes) == (SEND_BUFFER, 0)


def test_no_more_is_sent_than_the_window_allows():
    outbound = filled(*[bytes(MAX_BODY)] * 60)
    fits = WINDOW // (MAX_BODY + CHUNK_OVERHEAD)
    assert len(taken(outbound)) == fits
    outbound.acknowledge(fits, outbound.sent_credit + MAX_BODY + CHUNK_OVERHEAD - 1, 0.0)
    assert taken(outbound) == []
    outbound.acknowledge(fits, outbound.sent_credit + MAX_BODY + CHUNK_OVERHEAD, 0.0)
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


def test_an_acknowledgement_of_what_was_never_sent_means_nothing():
    outbound = filled(b"0", b"1")
    outbound.next_chunk(0.0)
    assert outbound.acknowledge(2, 0, 1.0) is None
    assert list(outbound.unacked) == [0]


def test_what_came_back_is_counted_for_each_copy():
    outbound = filled(b"a", b"b")
    taken(outbound, 1.0)
    outbound.on_returned(0, 1.5, refused=False)
    outbound.on_returned(7, 1.5, refused=True)  # what was acknowledged, or was never sent
    outbound.on_path_change()
    assert [(piece.returned, piece.transmissions) for piece in taken(outbound, 3.0)] == [(1, 2), (0, 2)]


def test_no_round_trip_time_is_told_from_a_chunk_that_was_sent_again():
    outbound = filled(b"0", b"1")
    taken(outbound, 0.0)
    outbound.on_timeout(1.0)
    assert [piece.sequence for piece in taken(outbound, 1.0)] == [0, 1]
    assert outbound.acknowledge(1, 0, 1.5) == -1.0
    assert outbound.acknowledge(2, 0, 1.5) == -1.0


def test_what_is_overdue_counts_from_the_last_sending_of_the_oldest_chunk_in_flight():
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
    assert [piece.transmissions for piece in outbound.unacked.values()] == [2, 2]


def test_what_was_lost_is_sent_before_anything_new():
    outbound = filled(b"0", b"1", b"2")
    outbound.next_chunk(0.0)
    outbound.next_chunk(0.0)
    outbound.on_path_change()
    assert [piece.sequence for piece in taken(outbound, 1.0)] == [0, 1, 2]
    assert not outbound.has_pending
    outbound.check()


def test_what_is_acknowledged_after_all_is_not_sent_again():
    outbound = filled(b"0", b"1")
    taken(outbound)
    outbound.on_path_change()
    outbound.acknowledge(1, 0, 1.0)
    outbound.check()
    assert [piece.sequence for piece in taken(outbound, 1.0)] == [1]


def test_only_what_a_full_queue_refused_is_sent_again():
    outbound = filled(b"0", b"1", b"2")
    taken(outbound)
    for _ in range(2):
        outbound.on_returned(1, 1.0, refused=True)
        outbound.check()
    assert [(piece.sequence, piece.transmissions) for piece in taken(outbound, 2.0)] == [(1, 2)]


def test_no_more_is_under_way_than_the_path_holds():
    outbound = filled(*[bytes(MAX_BODY)] * 100)
    outbound.acknowledge(0, MAX_WINDOW, 0.0)
    first = taken(outbound)
    assert len(first) == WINDOW // (MAX_BODY + CHUNK_OVERHEAD)
    outbound.acknowledge(4, 0, 0.5)
    assert outbound.in_flight <= WINDOW
    outbound.on_returned(5, 0.6, refused=True)
    outbound.acknowledge(len(first) - 6, 0, 0.7)
    assert outbound.congestion.window < WINDOW
    taken(outbound, 0.8)
    assert MIN_WINDOW < outbound.in_flight <= outbound.congestion.window
    outbound.check()


def test_what_was_lost_waits_for_the_window_too_but_one_chunk_is_always_under_way():
    outbound = filled(*[bytes(MAX_BODY)] * 14)
    taken(outbound)
    for now in range(1, 5):
        outbound.on_timeout(now)
        taken(outbound, now)
        outbound.check()
    assert outbound.congestion.window == MIN_WINDOW
    assert outbound.in_flight <= MIN_WINDOW
    assert len(outbound.lost) == 14 - MIN_WINDOW // (MAX_BODY + CHUNK_OVERHEAD)
    outbound.on_timeout(9.0)
    outbound.congestion.window = 0
    assert [piece.sequence for piece in taken(outbound, 9.0)] == [0]


def test_a_sender_that_the_window_holds_up_says_so_with_its_last_chunk():
    outbound = filled(*[bytes(MAX_BODY)] * 60)
    assert not any(piece.flags & FLAG_BLOCKED for piece in taken(outbound))  # here the path's window is as small
    outbound.acknowledge(8, WINDOW + 4 * (MAX_BODY + CHUNK_OVERHEAD), 1.0)
    pieces = taken(outbound, 1.0)
    assert [bool(piece.flags & FLAG_BLOCKED) for piece in pieces] == [False] * (len(pieces) - 1) + [True]


def test_a_sender_with_nothing_more_to_send_wants_no_more_room():
    outbound = filled(*[bytes(MAX_BODY)] * 15)
    assert not any(piece.flags & FLAG_BLOCKED for piece in taken(outbound))


def test_a_wrong_count_of_what_is_in_flight_is_found():
    outbound = filled(b"0")
    outbound.check()
    outbound.in_flight += 1
    with pytest.raises(AssertionError, match="in flight"):
        outbound.check()


@pytest.mark.parametrize("word", ["progress", "room"])
def test_the_count_of_tries_starts_over_with_any_sign_of_life(word):
    outbound = filled(b"0", b"1")
    taken(outbound)
    outbound.retries = 4
    outbound.acknowledge(0, 0, 1.0)
    assert outbound.retries == 4
    outbound.acknowledge(*((1, 0) if word == "progress" else (0, 2 * WINDOW)), 1.0)
    assert outbound.retries == 0


def test_a_stream_is_done_when_its_end_was_pushed_sent_and_acknowledged():
    outbound = OutboundStream()
    assert not outbound.is_finished
    outbound.push(HEADER, b"x", last=True, eof=None, complete=True)
    assert not outbound.is_finished
    taken(outbound)
    assert not outbound.is_finished
    outbound.acknowledge(1, 0, 0.0)
    assert outbound.is_finished


# --- the receiving end --------------------------------------------------------------------------------------------


def sequences(ready):
    return None if ready is None else [chunk.sequence for chunk, _, _ in ready]


def test_chunks_are_handed_on_in_order_and_none_twice():
    inbound = InboundStream()
    assert sequences(inbound.accept(numbered(0), b"", 1)) == [0]
    assert inbound.accept(numbered(2), b"", 1) is None
    assert inbound.accept(numbered(2), b"", 1) is None
    assert inbound.accept(numbered(0), b"", 1) is None
    assert inbound.accept(numbered(3), b"", 1) is None
    assert sequences(inbound.accept(numbered(1), b"", 1)) == [1, 2, 3]
    assert inbound.accept(numbered(1), b"", 1) is None
    assert sequences(inbound.accept(numbered(4), b"", 1)) == [4]


def test_the_next_chunk_is_handed_on_while_later_ones_are_held():
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
def test_a_chunk_overruns_the_window_by_one_byte_and_not_before(sequence):
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


def test_room_is_told_at_once_when_a_quarter_of_the_window_was_read():
    inbound = InboundStream()
    assert not inbound.release(ACK_EVERY - 1)
    assert inbound.release(1)
    assert inbound.acknowledge() == (0, WINDOW + ACK_EVERY)
    assert not inbound.release(ACK_EVERY - 1)


def test_what_was_told_is_not_told_again():
    inbound = InboundStream()
    inbound.accept(numbered(0), bytes(100), 1)
    inbound.release(ACK_EVERY - 1)
    assert inbound.unacked_credit == 100 + CHUNK_OVERHEAD
    assert inbound.acknowledge() == (1, WINDOW + ACK_EVERY - 1)
    assert inbound.unacked_credit == 0
    assert not inbound.release(1)
