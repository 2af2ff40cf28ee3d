import math

import pytest

from tests.core.delivery.delivery_harness import (
    ID,
    REPLIES,
    REQUEST,
    ROUTE_TIMEOUT,
    acknowledged,
    answer,
    deliveries,
    request,
    sent,
)
from zmesh.core import wire
from zmesh.core.delivery.congestion import CHUNK
from zmesh.core.delivery.flow_control import ACK_EVERY, CHUNK_OVERHEAD, WINDOW
from zmesh.core.delivery.outbound import SEND_BUFFER
from zmesh.core.delivery.peers import ACK_DELAY, PROBE_LIMIT
from zmesh.core.delivery.sender import BURST
from zmesh.core.effects import Abort, Pull, Report, StreamOver
from zmesh.core.message import Eof, Stream
from zmesh.core.wire import CLOSED, FLAG_FIRST, Ack, AckItem, Kind

# --- which exchange it is for -------------------------------------------------------------------------------------


def test_a_chunk_for_a_former_incarnation_of_this_node_is_refused(side):
    assert side.on_chunk(request(target=77)) == ("restarted", [])


def test_a_chunk_without_a_target_incarnation_is_refused(side):
    assert side.on_chunk(request(target=0)) == ("restarted", [])


def test_a_chunk_of_a_former_incarnation_of_the_client_is_stale(side):
    side.on_chunk(request())
    assert side.on_chunk(request(incarnation=1)) == ("stale", [])


@pytest.mark.parametrize("stimulus", ["ack", "cancel"])
def test_frames_for_a_former_incarnation_are_ignored(side, stimulus):
    side.call()
    side.on_chunk(request(id=bytes(16)))
    if stimulus == "ack":
        side.on_ack(1, target=77)
        assert side.on_ack(1, incarnation=1) == [Report("frame_dropped", "b", None, "stale")]
        assert side.delivery.has_undelivered_requests
        side.on_ack(1, target=0)
        assert not side.delivery.has_undelivered_requests
    else:
        stale = Report("frame_dropped", "b", None, "stale")
        assert side.on_cancel(id=bytes(16), target=77) == [stale]
        assert side.on_cancel(id=bytes(16), incarnation=1) == [stale]
        assert side.on_cancel(id=bytes(16), target=0) == [Abort(bytes(16), "cancelled")]


def test_an_ack_of_another_node_is_ignored(side, forwarding):
    forwarding.open("c", 3)
    side.call()
    side.on_ack(1, source="c", incarnation=3)
    assert side.delivery.has_undelivered_requests


def test_an_ack_of_an_unknown_exchange_is_answered_as_closed_and_that_is_never_answered(side):
    assert side.on_ack(3, stream=REPLIES) == []
    assert sent(side.tick(ACK_DELAY)) == [Ack(1, 2, (AckItem(*REQUEST, CLOSED, 0),))]
    assert side.on_ack(CLOSED, 0, stream=REPLIES) == []
    assert sent(side.tick(1.0)) == []


def test_a_probe_of_an_unknown_exchange_is_answered_at_once(side):
    assert sent(side.on_ack(0, PROBE_LIMIT, target=0)) == [Ack(1, 2, (AckItem(*REPLIES, CLOSED, 0),))]


def test_an_unreachable_about_an_exchange_that_is_over_is_ignored(side):
    assert side.on_unreachable() == []
    assert side.on_unreachable(stream=REPLIES) == []
    side.delivery.on_returned(REQUEST, 0, wire.Unreachable(Kind.CHUNK, "no_route", "m", "b", (), 9.0), 0.0)
    assert side.done() == []


def test_a_route_change_of_a_node_without_exchanges_has_no_effect(side):
    assert side.on_route("z", 5) == []


def test_a_deadline_of_an_exchange_that_is_over_has_no_effect(side):
    delivery = side.delivery
    delivery.client._limits.set(ID, 1.0)
    delivery.client._deadlines.start(ID, 1.0, 0.0)
    delivery._sender.timers.set(Stream(ID, True), 1.0)
    delivery._peers._acks.set("gone", 1.0)
    assert side.tick(1.0) == []
    delivery.check()


# --- room ---------------------------------------------------------------------------------------------------------


def test_a_quarter_of_the_window_is_acknowledged_at_once(side):
    count = -(-ACK_EVERY // (CHUNK + CHUNK_OVERHEAD))
    for number in range(count - 1):
        assert sent(side.on_chunk(request(number, FLAG_FIRST if number == 0 else 0), bytes(CHUNK))) == []
    effects = side.on_chunk(request(count - 1, 0), bytes(CHUNK))
    assert sent(effects) == [acknowledged(count, stream=REQUEST)]


def test_credit_is_released_as_the_reader_reads(side):
    side.on_chunk(request(flags=FLAG_FIRST), bytes(CHUNK))
    side.delivery.release_credit(REQUEST, ACK_EVERY - 1, 0.0)
    assert side.done() == []
    side.delivery.release_credit(REQUEST, 1, 0.0)
    assert sent(side.done()) == [acknowledged(1, WINDOW + ACK_EVERY, REQUEST)]
    side.delivery.release_credit(REPLIES, ACK_EVERY, 0.0)
    side.delivery.release_credit(Stream(bytes(16), True), ACK_EVERY, 0.0)
    assert side.done() == []


def test_a_client_releases_credit_for_replies_too(side):
    side.call()
    side.on_chunk(answer(0, FLAG_FIRST), bytes(CHUNK))
    side.delivery.release_credit(REPLIES, ACK_EVERY, 0.0)
    assert sent(side.done()) == [acknowledged(1, WINDOW + ACK_EVERY)]


def test_room_is_what_the_send_buffer_leaves_and_more_is_pulled_when_there_is_some(side):
    side.call(bytes(BURST * CHUNK + 1000), last=False)
    unsent = side.counts["waiting_bytes"] - BURST * CHUNK + CHUNK_OVERHEAD
    assert side.delivery.room(REQUEST) == SEND_BUFFER - unsent > 0
    while room := side.delivery.room(REQUEST):
        side.feed(bytes(room))
    effects = []
    for number in range(1, 30):
        effects += side.on_ack(number, WINDOW + number * (CHUNK + CHUNK_OVERHEAD))
    assert effects.count(Pull(REQUEST)) == 1
    assert side.delivery.room(REQUEST) > SEND_BUFFER // 2 - CHUNK


@pytest.mark.parametrize("ending", ["cancel", "last reply", "time", "restart", "route"])
@pytest.mark.parametrize("full", [False, True], ids=["with room", "without room"])
def test_a_request_that_ends_before_its_payload_reports_that_the_stream_is_over(side, ending, full):
    side.call(last=False, timeout=5.0 if ending == "time" else None)
    while full and (room := side.delivery.room(REQUEST)):
        side.feed(bytes(room))
    if ending == "cancel":
        effects = side.cancel()
    elif ending == "last reply":
        effects = side.on_chunk(answer())
    elif ending == "time":
        effects = [effect for _, effect in side.run(0.0, 5.0)]
    elif ending == "restart":
        effects = side.on_ack(1) + side.on_route(incarnation=3, now=1.0)
    else:
        effects = side.on_route_lost(now=0.0) + [effect for _, effect in side.run(0.0, ROUTE_TIMEOUT)]
    assert effects.count(StreamOver(REQUEST)) == 1
    assert not side.delivery.is_open(REQUEST)
    assert side.delivery.room(REQUEST) == 0


def test_a_request_whose_payload_was_fed_to_the_end_does_not_report_its_stream(side):
    side.call(last=False)
    side.feed(b"all", last=True)
    assert StreamOver(REQUEST) not in side.on_chunk(answer())


def test_a_reply_that_is_not_whole_when_its_client_is_gone_reports_that_the_stream_is_over(side):
    side.on_chunk(request())
    side.reply(b"some", last=False)
    assert StreamOver(REPLIES) in side.on_ack(CLOSED, 0, stream=REPLIES)


def test_a_feeder_that_waits_for_room_gets_a_stream_over_when_the_last_reply_is_given(side):
    side.on_chunk(request())
    side.reply(b"some", last=False)
    while room := side.delivery.room(REPLIES):
        side.feed(bytes(room), stream=REPLIES)
    assert StreamOver(REPLIES) in side.reply(header=None, last=False, eof=Eof(1, "remote", "it failed"))
    assert StreamOver(REPLIES) not in side.on_ack(CLOSED, 0, stream=REPLIES)


def test_an_unknown_stream_has_no_room_and_takes_nothing(side):
    assert side.delivery.room(REQUEST) == side.delivery.room(REPLIES) == 0
    assert not side.delivery.is_open(REQUEST)
    assert side.feed(b"x") == []
    assert side.reply(b"x") == []
    side.call(last=False)
    assert side.delivery.is_open(REQUEST)
    assert not side.delivery.is_open(REPLIES)
    side.feed(b"", last=True)
    assert not side.delivery.is_open(REQUEST)
    assert side.delivery.waiting_bytes == 0


def test_a_stream_waits_until_its_first_chunk_is_sent_or_it_ends(side):
    other = bytes(15) + b"\x02"
    side.call(to="x")
    side.call(bytes(3 * CHUNK), to="x", id=other)
    assert side.delivery.waiting_streams == 2
    side.on_route("x")
    assert side.delivery.waiting_streams == 0
    side.call(to="y", id=bytes(15) + b"\x03")
    assert side.delivery.waiting_streams == 1
    side.cancel(id=bytes(15) + b"\x03")
    assert side.delivery.waiting_streams == 0


# --- routes that come and go ----------------------------------------------------------------------------------------


def test_a_leaf_that_loses_its_uplink_goes_on_with_the_next_one(side):
    side.call()
    side.on_chunk(request(id=bytes(16)))
    side.delivery.on_detached(None, 1.0)
    side.done()
    side.delivery.on_attached(None, 2.0)
    frames = sent(side.done(), Kind.CHUNK, Kind.ACK)
    assert len(frames) == 2


def test_an_exchange_that_resumes_without_a_route_waits_for_one(side):
    side.call(last=False)
    side.on_chunk(request(id=bytes(16)))
    side.forwarding.shut("b")
    side.feed(b"more", now=1.0)
    side.reply(b"answer", id=bytes(16), now=1.0)
    side.delivery.on_attached(None, 2.0)
    assert sent(side.done()) == []
    effects = [effect for _, effect in side.run(2.0, 2.0 + ROUTE_TIMEOUT)]
    assert [chunk.eof.reason for chunk in deliveries(effects)] == ["unreachable"]
    assert Abort(bytes(16), "unreachable") in effects


def test_a_request_goes_on_when_its_link_is_ready(side, forwarding):
    forwarding.open("b", 2, lagging=True)
    assert side.call() == []
    forwarding.open("b", 2)
    side.delivery.on_link_ready(1, lambda: False, 0.0)
    assert len(sent(side.done(), Kind.CHUNK)) == 1


def test_a_request_takes_another_link_when_its_own_is_gone(side, forwarding):
    forwarding.open("b", 2, lagging=True)
    side.call()
    forwarding.open("b", 2, link=7)
    side.delivery.link_down(1, 0.0)
    assert len(sent(side.done(), Kind.CHUNK)) == 1


# --- what check finds ---------------------------------------------------------------------------------------------


def test_a_missing_timer_is_found(side):
    side.call()
    exchange = side.delivery.client.get(ID)
    exchange.peer.path.stop_timer(exchange)
    with pytest.raises(AssertionError, match="without a retransmission timer"):
        side.delivery.check()


def test_exchanges_that_no_timer_wakes_are_found(side):
    side.call()
    side.on_ack(1)
    side.delivery._sender._sweep_at = math.inf
    side.delivery._sender.expire(1.0, 10)
    with pytest.raises(AssertionError, match="no timer wakes"):
        side.delivery.check()


def test_an_exchange_that_is_over_and_still_in_its_table_is_found(side):
    side.on_chunk(request())
    side.reply(eof=Eof())
    side.delivery.server.get(ID).outbound.acknowledge(1, 0, 0.0)
    with pytest.raises(AssertionError, match="still in the table"):
        side.delivery.check()


def test_an_exchange_that_is_in_no_list_is_found(side):
    side.call()
    side.delivery._sender.exchanges._by_host.clear()
    with pytest.raises(AssertionError, match="by host"):
        side.delivery.check()


def test_a_stream_of_an_exchange_that_is_over_is_found(side):
    side.call()
    side.delivery.client._exchanges.clear()
    with pytest.raises(AssertionError, match="that is over"):
        side.delivery.check()


def test_a_wrong_count_of_waiting_bytes_is_found(side):
    side.call(to="x")
    side.delivery._sender.waiting_bytes += 1
    with pytest.raises(AssertionError, match="waiting bytes"):
        side.delivery.check()


def test_a_wrong_count_of_waiting_streams_is_found(side):
    side.call(to="x")
    side.delivery._sender.waiting_streams += 1
    with pytest.raises(AssertionError, match="waiting streams"):
        side.delivery.check()
