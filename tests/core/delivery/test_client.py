import pytest

from tests.core.delivery.delivery_harness import (
    ANSWER,
    HEADER,
    ID,
    OTHER,
    REPLIES,
    REQUEST,
    ROUTE_TIMEOUT,
    Side,
    acknowledged,
    answer,
    deliveries,
    final,
    request,
    sent,
)
from zmesh.core import wire
from zmesh.core.delivery.client_exchange import ClientState
from zmesh.core.delivery.congestion import CHUNK
from zmesh.core.delivery.flow_control import CHUNK_OVERHEAD, WINDOW
from zmesh.core.delivery.outbound import SEND_BUFFER
from zmesh.core.delivery.peers import ACK_DELAY, PROBE_LIMIT
from zmesh.core.delivery.sender import PROBE_INTERVAL
from zmesh.core.effects import Deliver, Report
from zmesh.core.message import Eof
from zmesh.core.rtt import INITIAL_TIMEOUT
from zmesh.core.wire import CLOSED, FLAG_EOF, FLAG_FIRST, FLAG_LAST, Ack, AckItem, Cancel, Kind

# --- one request --------------------------------------------------------------------------------------------------


def test_a_request_is_sent_at_once(side):
    ((to, kind, chunk, body),) = side.call(b"hello")
    assert (to, kind, body) == ("b", Kind.CHUNK, b"hello")
    assert (chunk.message_id, chunk.request, chunk.header, chunk.target) == (ID, True, HEADER, 2)
    assert side.delivery.has_undelivered_requests
    assert side.counts == {
        "requests_made": 1,
        "requests_received": 0,
        "pending_acks": 0,
        "waiting_bytes": 5,
        "peers": 1,
    }


def test_a_reply_is_delivered_and_the_last_one_ends_the_exchange(side):
    side.call()
    assert side.on_chunk(answer(), b"world", hops=2) == [
        Deliver(REPLIES, "b", ANSWER, b"world", True, Eof(), 5 + CHUNK_OVERHEAD, 2)
    ]
    assert side.counts == {
        "requests_made": 0,
        "requests_received": 0,
        "pending_acks": 1,
        "waiting_bytes": 0,
        "peers": 1,
    }
    assert not side.delivery.has_undelivered_requests
    assert sent(side.tick(ACK_DELAY)) == [acknowledged(1)]


def test_replies_are_delivered_one_by_one_and_an_eof_may_come_alone(side):
    side.call()
    (first,) = side.on_chunk(answer(0, FLAG_FIRST | FLAG_LAST), b"one")
    (second,) = side.on_chunk(answer(1, FLAG_EOF, eof=Eof(1, "remote", "oh")))
    assert (first.body, first.last, first.eof) == (b"one", True, None)
    assert (second.header, second.body, second.last, second.eof) == (None, b"", False, Eof(1, "remote", "oh"))
    assert side.counts["requests_made"] == 0


def test_what_comes_after_the_eof_is_not_delivered(side):
    side.call()
    side.on_chunk(answer(1, FLAG_FIRST | FLAG_EOF), b"two")
    effects = side.on_chunk(answer(0, FLAG_FIRST | FLAG_LAST), b"one")
    assert [chunk.body for chunk in deliveries(effects)] == [b"one", b"two"]
    effects = side.on_chunk(answer(2, FLAG_FIRST | FLAG_LAST), b"three")
    assert sent(effects) == [Ack(1, 2, (AckItem(*REPLIES, CLOSED, 0),))]


def test_chunks_buffered_behind_the_eof_are_dropped_with_the_exchange(side):
    side.call()
    side.on_chunk(answer(2, FLAG_FIRST), b"never")
    side.on_chunk(answer(1, FLAG_EOF))
    effects = side.on_chunk(answer(0, FLAG_FIRST | FLAG_LAST), b"one")
    assert [(chunk.body, chunk.eof) for chunk in deliveries(effects)] == [(b"one", None), (b"", Eof())]


def test_a_reply_from_a_node_that_got_no_request_is_not_delivered(side, forwarding):
    forwarding.open("c", 3)
    side.call()
    effects = side.on_chunk(answer(incarnation=3), b"x", source="c")
    assert sent(effects) == [Ack(1, 3, (AckItem(*REPLIES, CLOSED, 0),))]
    assert deliveries(effects) == []
    assert side.counts["requests_made"] == 1


def test_a_reply_from_another_incarnation_of_the_server_is_not_delivered(side, forwarding):
    side.call()
    forwarding.shut("b")
    assert side.on_chunk(answer(incarnation=8), b"x") == [Report("frame_dropped", "b", None, "not_its_request")]
    assert side.counts["requests_made"] == 1


def test_a_payload_may_follow_chunk_by_chunk(side):
    (first,) = sent(side.call(b"one", last=False))
    (second,) = sent(side.feed(b"two"))
    (third,) = sent(side.feed(b"", last=True))
    assert [chunk.flags for chunk in (first, second, third)] == [FLAG_FIRST, 0, FLAG_LAST]
    assert side.feed(b"too much") == []


def test_a_cancelled_request_has_no_room_for_more_payload(side):
    side.call(last=False)
    assert side.delivery.room(REQUEST) == SEND_BUFFER
    assert side.delivery.is_open(REQUEST)
    side.cancel()
    assert side.counts["requests_made"] == 1
    assert not side.delivery.is_open(REQUEST)
    assert side.delivery.room(REQUEST) == 0


# --- restarts -----------------------------------------------------------------------------------------------------


def test_a_request_ends_when_the_server_has_restarted(side):
    side.call()
    assert side.on_route(incarnation=3, now=5.0) == [
        final("node_restarted", "node 'b' has restarted and lost the request; send it again if it may run twice")
    ]
    assert side.counts["requests_made"] == 0


def test_a_request_ends_when_the_server_reports_its_restart(side):
    side.call()
    assert side.on_unreachable("restarted") == [
        Report("unreachable", "b", None, "restarted", (), 9.0),
        final("node_restarted", "node 'b' has restarted and lost the request; send it again if it may run twice"),
    ]


# --- acknowledgements ---------------------------------------------------------------------------------------------


def test_a_request_that_is_acknowledged_is_delivered_and_not_retransmitted(side):
    side.call()
    assert side.on_ack(1) == []
    assert not side.delivery.has_undelivered_requests
    assert sent([effect for _, effect in side.run(0.0, PROBE_INTERVAL - 1)]) == []


def test_the_number_of_a_request_is_acknowledged_with_its_first_chunk(side):
    side.call(bytes(2 * CHUNK))
    side.on_ack(0)
    assert [chunk.lowest_outstanding for chunk in sent(side.call(id=bytes(16)))] == [0]
    side.on_ack(1)
    assert [chunk.lowest_outstanding for chunk in sent(side.call(id=b"\xff" * 16))] == [1]


def test_an_acknowledgement_opens_the_window(side):
    side.call(bytes(2 * WINDOW))
    before = side.counts["waiting_bytes"]
    chunks = sent(side.on_ack(15, 2 * WINDOW), Kind.CHUNK)
    assert chunks
    assert side.counts["waiting_bytes"] < before


def test_a_probe_of_the_server_is_answered_at_once(side):
    side.call()
    assert sent(side.on_ack(1, PROBE_LIMIT)) == [acknowledged(0)]


def test_a_request_that_the_server_has_given_up_ends(side):
    side.call()
    (chunk,) = deliveries(side.on_ack(CLOSED, 0, now=5.0))
    assert chunk == final("unreachable", "node 'b' gave the request up while cut off; its work was stopped")
    assert side.counts["requests_made"] == 0


def test_a_request_that_was_not_sent_can_not_have_been_given_up(side, forwarding):
    forwarding.open("b", 2, lagging=True)
    side.call()
    assert side.on_ack(CLOSED, 0) == []
    assert side.counts["requests_made"] == 1


# --- silence ------------------------------------------------------------------------------------------------------


def test_an_unacknowledged_request_is_retransmitted_with_growing_timeouts(side):
    side.call()
    again = [(now, effect.value) for now, effect in side.run(0.0, 20.0)]
    assert [now for now, _ in again] == [INITIAL_TIMEOUT, 3.0, 7.0, 15.0]


def test_an_idle_exchange_is_probed_at_each_interval(side):
    side.call()
    side.on_ack(1)
    pokes = [(now, effect.value) for now, effect in side.run(0.0, 2.9 * PROBE_INTERVAL)]
    assert [now for now, _ in pokes] == [PROBE_INTERVAL, 2 * PROBE_INTERVAL]
    assert {ack for _, ack in pokes} == {acknowledged(0, PROBE_LIMIT)}


# --- discovery of the server's incarnation, as a leaf does it -----------------------------------------------------

QUESTION = Ack(1, 0, (AckItem(*REQUEST, 0, PROBE_LIMIT),))


@pytest.fixture
def undiscovered(forwarding):
    """One that learns no incarnations from routes, and has asked `b` for its own since 1.0, with a request to send."""
    forwarding.open("b", 0)
    side = Side(forwarding)
    assert sent(side.call(bytes(2 * CHUNK), now=1.0)) == [QUESTION]
    return side


def discover(side, incarnation=2, now=1.1, source="b", id=ID):
    """The server acks an unknown exchange as closed, which names its incarnation."""
    return side.on_ack(CLOSED, 0, stream=REPLIES._replace(message_id=id), incarnation=incarnation, now=now,
                       source=source)  # fmt: skip


def test_a_request_is_sent_to_the_incarnation_that_answers_and_to_no_other(undiscovered):
    chunks = sent(discover(undiscovered), Kind.CHUNK)
    assert [(chunk.sequence, chunk.target) for chunk in chunks] == [(0, 2), (1, 2)]
    assert discover(undiscovered, 2, 1.2) == []
    again = sent([effect for _, effect in undiscovered.run(1.2, 9.0)], Kind.CHUNK)
    assert {chunk.target for chunk in again} == {2}


def test_discovery_is_retried_until_it_is_answered(undiscovered):
    questions = undiscovered.run(1.0, 20.0)
    assert [now - 1.0 for now, _ in questions] == [INITIAL_TIMEOUT, 3.0, 7.0, 15.0]
    assert all(effect.value == QUESTION for _, effect in questions)


def test_more_payload_starts_no_second_discovery(undiscovered):
    side = undiscovered
    side.call(b"one", id=OTHER, last=False, now=1.0)
    assert side.feed(b"two", stream=REQUEST._replace(message_id=OTHER), now=1.05) == []
    assert discover(side)[-1].body == b"onetwo"


def test_a_new_route_starts_discovery_anew(undiscovered):
    undiscovered.on_route_lost(now=1.5)
    assert sent(undiscovered.on_route(incarnation=0, now=1.6)) == [QUESTION]


def test_one_answer_sends_all_requests_that_wait_for_that_node(undiscovered):
    undiscovered.call(b"more", id=OTHER, now=1.05)
    assert [chunk.message_id for chunk in sent(discover(undiscovered), Kind.CHUNK)] == [ID, ID, OTHER]
    (chunk,) = sent(undiscovered.call(b"later", id=bytes(16), now=2.0))
    assert (chunk.message_id, chunk.target) == (bytes(16), 2)


def test_an_answer_of_another_node_is_ignored(undiscovered, forwarding):
    forwarding.open("c", 0)
    assert discover(undiscovered, 3, source="c") == []
    assert discover(undiscovered, id=OTHER) == []


def test_a_discovery_that_comes_back_counts_as_no_route(undiscovered):
    note = wire.Unreachable(Kind.ACK, "no_route", "m", "b", ("bb",), 9.0)
    assert undiscovered.delivery._on_note(note, wire.encode(QUESTION), 1.1) is None
    (report,) = undiscovered.done()
    assert (report.event, report.near, report.settled) == ("unreachable", ("bb",), 9.0)
    (ending,) = deliveries(undiscovered.tick(1.1 + ROUTE_TIMEOUT))
    assert ending.eof.error == "no route to 'b' after 30.1 s; the last node on the path was 'm' (did you mean 'bb'?)"


def test_a_request_that_came_back_from_a_former_incarnation_goes_to_the_next(undiscovered):
    discover(undiscovered)
    undiscovered.delivery.on_returned(REQUEST, 0, wire.Unreachable(Kind.CHUNK, "restarted", "b", "b", (), 0.0), 1.2)
    assert deliveries(undiscovered.done())[0].eof.reason == "node_restarted"  # the second chunk may have arrived
    chunk = sent(undiscovered.call(b"small", now=2.0))[0]
    assert chunk.target == 2
    undiscovered.delivery.on_returned(REQUEST, 0, wire.Unreachable(Kind.CHUNK, "restarted", "b", "b", (), 0.0), 2.1)
    assert sent(undiscovered.done()) == [QUESTION]
    undiscovered.on_chunk(request(id=OTHER, incarnation=7), now=2.2)
    (chunk,) = sent(discover(undiscovered, 7, 2.3), Kind.CHUNK)
    assert chunk.target == 7


def test_a_cancelled_request_sends_nothing_when_its_server_is_discovered(undiscovered):
    (ending,) = deliveries(undiscovered.cancel(now=1.05))
    assert ending.eof.error == "cancelled; it had not reached 'b'"
    assert discover(undiscovered) == []


# --- time is up ---------------------------------------------------------------------------------------------------


def test_a_request_ends_at_its_deadline_and_its_work_is_stopped(side):
    side.call(timeout=5.0, now=1.0)
    side.on_ack(1, now=1.1)
    side.tick(1.2)
    assert sent(side.tick(5.0)) == [acknowledged(0, PROBE_LIMIT)]
    assert side.tick(5.999) == []
    effects = side.tick(6.0)
    assert sent(effects) == [Cancel(ID, True, 0, 0, 1, 2)]
    assert deliveries(effects) == [
        final("timed_out", "no final reply from 'b' within 5 s; the request had reached 'b'")
    ]
    assert side.counts["requests_made"] == 0


def test_a_request_without_a_route_says_so_at_its_deadline(side):
    side.call(to="x", timeout=5.0)
    assert side.tick(5.0) == [
        final("timed_out", "no route to 'x' after 5 s; the request has not left 'a'; a hint about x", "x")
    ]


def test_a_deadline_beyond_the_route_timeout_does_not_count(side):
    side.call(to="x", timeout=ROUTE_TIMEOUT + 1)
    assert side.tick(ROUTE_TIMEOUT) == [
        final("unreachable", "no route to 'x' after 30 s; the request has not left 'a'; a hint about x", "x")
    ]


def test_a_request_that_lost_its_route_for_a_time_keeps_its_deadline(side):
    side.call(timeout=40.0)
    side.on_route_lost(now=1.0)
    side.on_route(now=2.0)
    side.on_ack(1, now=2.1)
    assert deliveries([effect for _, effect in side.run(2.1, 39.9)]) == []
    assert [chunk.eof.reason for chunk in deliveries(side.tick(40.0))] == ["timed_out"]


# --- states -------------------------------------------------------------------------------------------------------


def test_a_request_is_open_when_its_server_is_discovered(undiscovered):
    exchange = undiscovered.delivery.client.get(ID)
    assert exchange.state is ClientState.DISCOVERING
    discover(undiscovered)
    assert exchange.state is ClientState.OPEN


def test_a_reply_names_the_incarnation_of_a_server_that_is_not_discovered(undiscovered):
    exchange = undiscovered.delivery.client.get(ID)
    undiscovered.on_chunk(answer(flags=FLAG_FIRST), now=1.1)
    assert (exchange.state, exchange.peer_incarnation) == (ClientState.OPEN, 2)


def test_a_lost_route_is_a_state_until_there_is_a_route(side, forwarding):
    side.call()
    exchange = side.delivery.client.get(ID)
    side.on_route_lost()
    assert exchange.state is ClientState.ROUTE_LOST
    side.on_route()
    assert exchange.state is ClientState.OPEN


def test_a_cancelled_request_stays_cancelling_without_a_route_and_is_ended_after_it(side):
    side.call()
    exchange = side.delivery.client.get(ID)
    side.cancel(1.0)
    side.on_route_lost(now=2.0)
    side.on_route(now=3.0)
    assert exchange.state is ClientState.CANCELLING
    side.on_cancel(request=False, now=4.0)
    assert exchange.state is ClientState.ENDED


def test_a_state_that_contradicts_what_is_known_is_found(side):
    side.call()
    side.delivery.client.get(ID).state = ClientState.CANCELLING
    with pytest.raises(AssertionError, match="CANCELLING, not OPEN"):
        side.delivery.check()


def test_an_acknowledgement_names_the_incarnation_of_a_server_that_is_not_discovered(undiscovered):
    exchange = undiscovered.delivery.client.get(ID)
    undiscovered.on_ack(1, stream=REQUEST, target=1, now=1.1)
    assert (exchange.state, exchange.peer_incarnation) == (ClientState.OPEN, 2)
