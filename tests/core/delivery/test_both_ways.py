"""Exchanges whose two streams end by themselves: early ends, STOP_SENDING, resets with a code, small parts."""

import pytest

from tests.core.delivery.delivery_harness import (
    HEADER,
    ID,
    REPLIES,
    REQUEST,
    Side,
    acknowledged,
    answer,
    deliveries,
    request,
    sent,
)
from zmesh.core.delivery.client import CANCEL_RETRY_INTERVAL
from zmesh.core.delivery.congestion import CHUNK
from zmesh.core.delivery.flow_control import CHUNK_OVERHEAD, WINDOW
from zmesh.core.delivery.inbound import InboundStream
from zmesh.core.delivery.outbound import OutboundStream
from zmesh.core.effects import Abort, StreamOver
from zmesh.core.message import Eof
from zmesh.core.wire import FLAG_EOF, FLAG_FIRST, FLAG_LAST, STOP_SENDING, AckItem, Cancel, Kind

STOPPED = acknowledged(1, STOP_SENDING, REQUEST)


@pytest.fixture
def side(forwarding):
    return Side(forwarding)


@pytest.fixture
def serving(side):
    """A server with a request that began and has not come whole."""
    side.on_chunk(request(flags=FLAG_FIRST), b"one")
    side.run(0.0, 1.0)
    return side


def fill(side, now=1.0):
    """Have the server reply until the client's window is full and some of it waits."""
    while side.delivery.room(REPLIES):
        side.reply(bytes(CHUNK), now=now)


# --- a client that resets ------------------------------------------------------------------------------------------


def test_a_reset_of_the_client_carries_its_code_in_each_cancel(side):
    side.call(b"x", last=False)
    side.on_ack(1)
    expected = Cancel(ID, True, 0, 1, 1, 2, 77)
    side.delivery.cancel(ID, 1.0, 77)
    assert sent(side.done(), Kind.CANCEL) == [expected._replace(lowest_outstanding=0)]
    assert sent(side.tick(1.0 + CANCEL_RETRY_INTERVAL), Kind.CANCEL) == [expected._replace(lowest_outstanding=0)]


def test_the_code_of_a_reset_comes_with_the_abort_of_the_work(serving):
    serving.delivery.on_cancel("b", Cancel(ID, True, 0, 0, 2, 1, 77), 1.0)
    assert serving.done() == [Abort(ID, "cancelled", None, 77)]


# --- a server that resets ------------------------------------------------------------------------------------------


def test_a_reset_of_the_server_drops_what_was_not_sent_and_does_not_wait_for_a_reader(serving):
    fill(serving)
    serving.delivery.server.reset(ID, 9, "enough", 1.0)
    frames = sent(serving.done(), Kind.CHUNK)
    assert [(chunk.flags & FLAG_EOF, chunk.eof) for chunk in frames] == [(FLAG_EOF, Eof(1, "cancelled", "enough", 9))]
    assert serving.delivery.server.get(ID).outbound.unsent_bytes == 0


def test_a_reset_amid_a_reply_stops_its_source(serving):
    serving.reply(b"begun", last=False)
    serving.delivery.server.reset(ID, 9, "enough", 1.0)
    assert StreamOver(REPLIES) in serving.done()


def test_a_reset_of_what_has_ended_changes_nothing(serving):
    serving.reply(eof=Eof(), header=None, last=False, now=1.0)
    serving.delivery.server.reset(ID, 9, "enough", 1.0)
    serving.delivery.server.reset(bytes(16), 9, "enough", 1.0)
    assert serving.done() == []


def test_the_code_of_a_reset_comes_with_the_end(side):
    side.call(b"x", last=False)
    end = Eof(1, "cancelled", "enough", 9)
    (delivered,) = deliveries(side.on_chunk(answer(flags=FLAG_EOF, eof=end)))
    assert (delivered.eof, delivered.credit) == (end, 0)


def test_an_end_without_a_body_is_taken_past_the_limit(side):
    inbound = InboundStream()
    inbound.received = inbound.limit
    end = answer(flags=FLAG_EOF)
    assert inbound.accept(end, b"", 1) == [(end, b"", 1)]


def test_an_end_that_came_early_takes_no_credit():
    inbound = InboundStream()
    end, first = answer(1, FLAG_EOF), answer(0, FLAG_FIRST | FLAG_LAST)
    assert inbound.accept(end, b"", 1) is None
    assert inbound.buffered_credit == 0
    inbound.drop_buffered(1)
    assert inbound.accept(end, b"", 1) is None
    assert inbound.accept(first, b"", 1) == [(first, b"", 1), (end, b"", 1)]
    assert (inbound.received, inbound.buffered_credit) == (CHUNK_OVERHEAD, 0)


# --- a server that wants no more -----------------------------------------------------------------------------------


def test_a_server_that_ends_behind_unread_replies_says_at_once_that_it_wants_no_more(serving):
    fill(serving)
    effects = serving.reply(eof=Eof(), header=None, last=False, now=1.0)
    assert sent(effects, Kind.ACK) == [STOPPED]


def test_an_end_that_goes_out_at_once_says_it_alone_and_later_chunks_are_answered_with_it(serving):
    assert sent(serving.reply(eof=Eof(), header=None, last=False, now=1.0), Kind.ACK) == []
    serving.on_chunk(request(1, 0), b"two", now=1.0)
    assert sent([effect for _, effect in serving.run(1.0, 1.1)], Kind.ACK) == [acknowledged(2, STOP_SENDING, REQUEST)]


def test_work_that_reads_no_more_has_the_client_stop_and_goes_on_replying(serving):
    serving.delivery.server.stop_sending(ID, 1.0)
    assert sent(serving.done(), Kind.ACK) == [STOPPED]
    serving.delivery.server.stop_sending(ID, 1.0)
    assert serving.done() == []
    assert sent(serving.reply(b"more", now=1.0), Kind.CHUNK)[0].flags == FLAG_FIRST | FLAG_LAST


@pytest.mark.parametrize("id", [ID, bytes(16)], ids=["whole", "unknown"])
def test_a_request_that_is_whole_or_unknown_is_not_stopped(serving, id):
    serving.on_chunk(request(1, FLAG_LAST), b"two", now=1.0)
    serving.run(1.0, 2.0)
    serving.delivery.server.stop_sending(id, 2.0)
    assert serving.done() == []


def test_a_client_that_is_stopped_drops_what_it_has_not_sent_and_takes_the_replies(side):
    side.call(bytes(2 * WINDOW), last=False)
    effects = side.on_ack(1, STOP_SENDING)
    assert StreamOver(REQUEST) in effects
    assert not side.delivery.is_open(REQUEST)
    assert side.feed(b"more") == []
    assert side.on_ack(side.delivery.client.get(ID).outbound.next, STOP_SENDING) == []
    assert side.counts["waiting_bytes"] == 0
    first, last = deliveries(side.on_chunk(answer(), b"reply")), side.counts["requests_made"]
    assert (first[0].body, last) == (b"reply", 0)


@pytest.mark.parametrize("following", [0, 1])
def test_an_ack_that_stops_what_was_not_begun_is_ignored(forwarding, following):
    forwarding.open("b", 0)
    side = Side(forwarding)
    side.call(b"x", last=False)
    side.on_ack(following, STOP_SENDING)
    assert side.delivery.is_open(REQUEST)


def test_a_stop_is_sent_in_the_place_of_a_limit():
    inbound = InboundStream()
    inbound.stopped = True
    assert AckItem(*REQUEST, *inbound.acknowledge()) == AckItem(*REQUEST, 0, STOP_SENDING)


# --- small parts ---------------------------------------------------------------------------------------------------


def push(outbound, body, *, header=None, last=False, eof=None):
    outbound.push(header, body, last=last, eof=eof, complete=False)
    outbound.check()


def bodies(outbound):
    taken = []
    while (chunk := outbound.next_chunk(0.0)) is not None:
        assert type(chunk.body) is bytes
        taken.append((chunk.body, chunk.flags & ~FLAG_EOF))
        outbound.check()
    return taken


def test_what_is_pushed_while_something_waits_goes_into_one_chunk():
    outbound = OutboundStream()
    push(outbound, b"a", header=HEADER)
    push(outbound, b"")
    for part in (b"b", b"c", b"d"):
        push(outbound, part)
    push(outbound, b"", last=True)
    assert bodies(outbound) == [(b"abcd", FLAG_FIRST | FLAG_LAST)]


def test_what_is_pushed_while_nothing_waits_is_a_chunk_of_its_own():
    outbound = OutboundStream()
    push(outbound, b"a", header=HEADER)
    assert bodies(outbound) == [(b"a", FLAG_FIRST)]
    push(outbound, b"b")
    assert bodies(outbound) == [(b"b", 0)]


def test_messages_and_the_end_stay_chunks_of_their_own():
    outbound = OutboundStream()
    push(outbound, b"a", header=HEADER, last=True)
    push(outbound, b"b", header=HEADER)
    push(outbound, b"", eof=Eof())
    assert [body for body, _ in bodies(outbound)] == [b"a", b"b", b""]


def test_a_chunk_takes_no_more_than_its_most():
    outbound = OutboundStream()
    push(outbound, bytes(CHUNK - 1), header=HEADER)
    push(outbound, b"b")
    push(outbound, b"c")
    assert [len(body) for body, _ in bodies(outbound)] == [CHUNK, 1]


def test_many_small_messages_fill_the_send_buffer_as_large_ones_do():
    outbound, count = OutboundStream(), 0
    while outbound.room():
        push(outbound, b"x", header=HEADER, last=True)
        count += 1
    assert count == -(-256 * 1024 // (CHUNK_OVERHEAD + 1))
