import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.core.delivery.delivery_harness import (
    ANSWER,
    HEADER,
    ID,
    REPLIES,
    REQUEST,
    ROUTE_TIMEOUT,
    Side,
    acknowledged,
    deliveries,
    request,
    sent,
)
from zmesh.core.delivery.exchange import SILENCE_TIMEOUT
from zmesh.core.delivery.flow_control import CHUNK_OVERHEAD, WINDOW
from zmesh.core.delivery.peers import ACK_DELAY, PEER_IDLE_TIMEOUT, PROBE_LIMIT
from zmesh.core.delivery.sender import PROBE_INTERVAL
from zmesh.core.delivery.server import LEAF_ROUTE_TIMEOUT, ServerState
from zmesh.core.effects import Abort, Deliver, Report
from zmesh.core.message import Eof
from zmesh.core.wire import CLOSED, FLAG_EOF, FLAG_FIRST, FLAG_LAST, Ack, AckItem, Cancel, Kind

# --- one request --------------------------------------------------------------------------------------------------


def test_a_request_is_delivered_and_acknowledged_after_a_delay(side):
    assert side.on_chunk(request(), b"hello", hops=3) == [
        Deliver(REQUEST, "b", HEADER, b"hello", True, None, 5 + CHUNK_OVERHEAD, 3)
    ]
    assert side.counts == {
        "requests_made": 0,
        "requests_received": 1,
        "pending_acks": 1,
        "waiting_bytes": 0,
        "peers": 1,
    }
    assert side.tick(ACK_DELAY - 0.001) == []
    assert sent(side.tick(ACK_DELAY)) == [acknowledged(1, stream=REQUEST)]


def test_a_reply_is_sent_at_once_and_implies_the_acknowledgement(side):
    side.on_chunk(request())
    (frame,) = side.reply(b"world", eof=Eof())
    chunk = frame.value
    assert (frame.kind, frame.body, chunk.request, chunk.header, chunk.eof) == (
        Kind.CHUNK,
        b"world",
        False,
        ANSWER,
        Eof(),
    )
    assert (chunk.request_number, chunk.lowest_outstanding, chunk.target) == (0, 0, 2)
    assert side.tick(ACK_DELAY) == []


def test_an_exchange_is_over_when_its_last_reply_is_acknowledged(side):
    side.on_chunk(request())
    side.reply(b"one")
    side.reply(b"two", eof=Eof())
    assert side.on_ack(1, stream=REPLIES) == []
    assert side.counts["requests_received"] == 1
    assert side.on_ack(2, stream=REPLIES) == []
    assert side.counts["requests_received"] == 0
    side.run(0.0, PEER_IDLE_TIMEOUT + 1)
    assert side.counts == dict.fromkeys(side.counts, 0)
    assert side.delivery.next_deadline() is None


def test_a_request_that_is_retransmitted_runs_once_although_its_replies_found_no_route_for_long(side):
    # found by seed 10 of `soak liars`: who sends again was forgotten while it did, and with it what it had sent
    side.on_chunk(request())
    side.on_route_lost()
    side.run(0.0, ROUTE_TIMEOUT)
    assert side.counts["requests_received"] == 0
    now = ROUTE_TIMEOUT
    while now < ROUTE_TIMEOUT + 3 * PEER_IDLE_TIMEOUT:
        assert deliveries(side.on_chunk(request(), now=now)) == []
        side.run(now, now + 8.0)
        now += 8.0
    side.run(now, now + PEER_IDLE_TIMEOUT + 1)
    assert side.counts["peers"] == 0


def test_an_eof_of_a_request_is_ignored(side):
    chunk = request(flags=FLAG_FIRST | FLAG_LAST | FLAG_EOF)._replace(eof=Eof())
    (chunk,) = side.on_chunk(chunk, b"x")
    assert chunk.eof is None
    assert side.counts["requests_received"] == 1


def test_a_reply_may_follow_chunk_by_chunk_and_others_after_it(side):
    side.on_chunk(request())
    chunks = sent(side.reply(b"one", last=False))
    chunks += sent(side.feed(b"two", stream=REPLIES))
    chunks += sent(side.feed(b"", stream=REPLIES, last=True))
    chunks += sent(side.reply(b"next"))
    chunks += sent(side.reply(header=None, last=False, eof=Eof()))
    assert [chunk.flags for chunk in chunks] == [FLAG_FIRST, 0, FLAG_LAST, FLAG_FIRST | FLAG_LAST, FLAG_EOF]
    assert side.reply(b"too late") == []
    assert side.feed(b"too late", stream=REPLIES) == []


def test_a_request_with_the_id_of_another_peers_does_not_mix_with_it(side, forwarding):
    forwarding.open("c", 3)
    side.on_chunk(request(flags=FLAG_FIRST), b"x")
    (dropped,) = side.on_chunk(request(1, incarnation=3, flags=FLAG_LAST), b"y", source="c")
    assert dropped == Report("frame_dropped", "c", None, "not_its_request")
    assert side.on_chunk(request(1, flags=FLAG_LAST), b"z") != []


# --- copies, late and early ---------------------------------------------------------------------------------------


def test_a_copy_of_a_request_is_acknowledged_at_once_and_delivered_once(side):
    side.on_chunk(request(), b"x")
    effects = side.on_chunk(request(), b"x")
    assert sent(effects) == [acknowledged(1, stream=REQUEST)]
    assert deliveries(effects) == []


def test_a_late_copy_of_a_request_that_is_over_never_runs(side):
    side.on_chunk(request())
    side.reply(eof=Eof())
    side.on_ack(1, stream=REPLIES)
    effects = side.on_chunk(request())
    assert sent(effects) == [Ack(1, 2, (AckItem(*REQUEST, CLOSED, 0),))]
    assert deliveries(effects) == []
    assert side.counts["requests_received"] == 0


def test_a_request_that_was_cancelled_before_it_came_never_runs(side):
    assert sent(side.on_cancel(number=4)) == [Cancel(ID, False, 0, 0, 1, 2)]
    effects = side.on_chunk(request(number=4))
    assert sent(effects) == [Ack(1, 2, (AckItem(*REQUEST, CLOSED, 0),))]


def test_chunks_that_come_early_wait_for_those_before(side):
    middle = side.on_chunk(request(1, FLAG_LAST), b"world")
    assert sent(middle) == [acknowledged(0, stream=REQUEST)]
    assert deliveries(middle) == []
    effects = side.on_chunk(request(0, FLAG_FIRST), b"hello ")
    assert [(chunk.body, chunk.header, chunk.last) for chunk in deliveries(effects)] == [
        (b"hello ", HEADER, False),
        (b"world", None, True),
    ]


# --- restarts -----------------------------------------------------------------------------------------------------


def test_the_work_of_a_client_that_has_restarted_is_aborted(side):
    side.on_chunk(request())
    assert side.on_route(incarnation=3) == [Abort(ID, "cancelled")]
    assert side.counts["requests_received"] == 0


def test_the_work_is_aborted_when_the_client_reports_its_restart(side):
    side.on_chunk(request())
    side.reply(b"x")
    assert side.on_unreachable("restarted", stream=REPLIES) == [Abort(ID, "cancelled")]
    assert side.counts["requests_received"] == 0


def test_a_leaf_may_have_any_incarnation_and_open_exchanges_are_retransmitted(side, forwarding):
    forwarding.open("cli@b")
    side.on_chunk(request(incarnation=5), source="cli@b")
    side.reply(b"x")
    (chunk,) = sent(side.on_route(incarnation=9), Kind.CHUNK)
    assert chunk.sequence == 0


# --- acknowledgements ---------------------------------------------------------------------------------------------


def test_replies_are_bounded_by_the_window_too(side):
    side.on_chunk(request())
    side.reply(bytes(2 * WINDOW))
    assert sent(side.on_ack(15, 2 * WINDOW, stream=REPLIES), Kind.CHUNK)


def test_a_probe_of_the_client_is_answered_at_once(side):
    side.on_chunk(request())
    assert sent(side.on_ack(0, PROBE_LIMIT, stream=REPLIES)) == [acknowledged(1, stream=REQUEST)]


def test_a_server_probes_a_silent_client_as_well(side):
    side.on_chunk(request())
    effects = sent([effect for _, effect in side.run(0.0, PROBE_INTERVAL)])
    assert effects == [acknowledged(1, stream=REQUEST), acknowledged(1, PROBE_LIMIT, REQUEST)]


def test_the_work_of_a_request_that_the_client_no_longer_knows_is_aborted(side):
    side.on_chunk(request())
    assert side.on_ack(CLOSED, 0, stream=REPLIES) == [Abort(ID, "cancelled")]
    assert side.counts["requests_received"] == 0


def test_a_complete_exchange_ends_without_an_abort_then(side):
    side.on_chunk(request())
    side.reply(eof=Eof())
    assert side.on_ack(CLOSED, 0, stream=REPLIES) == []
    assert side.counts["requests_received"] == 0


# --- detached work ------------------------------------------------------------------------------------------------

CALLER_GONE = {
    "restarted": lambda side: side.on_route(incarnation=3),
    "says that it has restarted": lambda side: side.on_unreachable("restarted", stream=REPLIES),
    "knows it no more": lambda side: side.on_ack(CLOSED, 0, stream=REPLIES),
    "out of reach": lambda side: (
        side.on_route_lost(now=1.0) + [effect for _, effect in side.run(1.0, 1.0 + ROUTE_TIMEOUT)]
    ),
}


@pytest.mark.parametrize("gone", CALLER_GONE.values(), ids=CALLER_GONE)
def test_detached_work_goes_on_when_its_client_is_gone(side, gone):
    side.on_chunk(request(detached=True))
    side.reply(b"x")
    assert [effect for effect in gone(side) if isinstance(effect, Abort)] == []
    assert side.counts["requests_received"] == 0
    assert side.reply(b"y", now=100.0) == []


@pytest.mark.parametrize("gone", CALLER_GONE.values(), ids=CALLER_GONE)
def test_detached_work_whose_payload_is_not_whole_is_aborted(side, gone):
    side.on_chunk(request(flags=FLAG_FIRST, detached=True), b"half")
    side.reply(b"x")
    assert [type(effect) for effect in gone(side) if isinstance(effect, Abort)] == [Abort]


def test_detached_work_is_aborted_when_it_is_cancelled(side):
    side.on_chunk(request(detached=True))
    assert side.on_cancel() == [Abort(ID, "cancelled")]


# --- no route -----------------------------------------------------------------------------------------------------


def test_work_goes_on_for_the_route_timeout_when_the_route_to_the_client_is_lost(side):
    side.on_chunk(request())
    side.tick(ACK_DELAY)
    side.on_route_lost(now=1.0)
    assert [effect for _, effect in side.run(1.0, 1.0 + ROUTE_TIMEOUT - 0.001)] == []
    assert side.tick(1.0 + ROUTE_TIMEOUT) == [Abort(ID, "unreachable")]
    assert side.counts["requests_received"] == 0


@given(st.floats(0, 1e6))
@example(3.3)
def test_work_is_aborted_after_the_route_timeout_at_whatever_time_the_route_was_lost(new_forwarding, when):
    side = Side(new_forwarding(next_hops={"b": 2}))
    side.on_chunk(request(), now=when)
    side.on_route_lost(now=when)
    side.run(when, when + 10 * ROUTE_TIMEOUT)
    assert side.counts["requests_received"] == 0


def test_replies_to_a_client_that_was_unreachable_go_on_when_it_is_back(side):
    side.on_chunk(request())
    side.on_route_lost(now=1.0)
    assert side.reply(b"x", now=2.0) == []
    (chunk,) = sent(side.on_route(now=3.0), Kind.CHUNK)
    assert chunk.sequence == 0
    assert sent(side.on_route_lost(now=4.0)) == []
    side.on_chunk(request(), now=4.5)
    effects = [effect for _, effect in side.run(4.5, 34.0)]
    assert Abort(ID, "unreachable") not in effects


@pytest.mark.parametrize("answered", [False, True])
def test_work_for_a_client_that_never_had_a_route_is_aborted(side, answered):
    side.on_chunk(request(incarnation=9), source="x")
    if answered:
        side.reply(eof=Eof())
    side.run(0.0, 1000.0)
    assert side.counts["requests_received"] == 0


@pytest.mark.parametrize(("reason", "route_timeout"), [("no_route", ROUTE_TIMEOUT), ("gone", LEAF_ROUTE_TIMEOUT)])
def test_work_goes_on_for_the_route_timeout_after_an_unreachable(side, forwarding, reason, route_timeout):
    source = "cli@b" if reason == "gone" else "b"
    forwarding.open(source, 2)
    side.on_chunk(request(), source=source)
    side.tick(ACK_DELAY)
    side.on_unreachable(reason, stream=REPLIES, to=source, now=1.0)
    side.on_unreachable(reason, stream=REPLIES, to=source, now=2.0)
    effects = side.run(1.0, 1.0 + route_timeout)
    assert (1.0 + route_timeout, Abort(ID, "unreachable")) in effects


# --- leaves -------------------------------------------------------------------------------------------------------


def test_a_leaf_that_is_gone_has_a_short_while_to_come_back(side, forwarding):
    forwarding.open("cli@a")
    side.on_chunk(request(incarnation=5), source="cli@a")
    side.tick(ACK_DELAY)
    side.delivery.on_detached("cli@a", 1.0)
    assert side.tick(1.0 + LEAF_ROUTE_TIMEOUT - 0.001) == []
    assert side.tick(1.0 + LEAF_ROUTE_TIMEOUT) == [Abort(ID, "unreachable")]


def test_a_leaf_that_comes_back_goes_on(side, forwarding):
    forwarding.open("cli@a")
    side.on_chunk(request(incarnation=5), source="cli@a")
    side.reply(b"x")
    side.delivery.on_detached("cli@a", 1.0)
    side.done()
    side.delivery.on_attached("cli@a", 2.0)
    (chunk,) = sent(side.done(), Kind.CHUNK)
    assert chunk.sequence == 0
    side.on_ack(1, stream=REPLIES, source="cli@a", incarnation=5, now=2.1)
    assert Abort(ID, "unreachable") not in [effect for _, effect in side.run(2.1, 2.0 + SILENCE_TIMEOUT - 1.0)]


def test_only_the_exchanges_of_that_leaf_are_touched(side, forwarding):
    forwarding.open("cli@a")
    forwarding.open("top@a")
    for number, source in enumerate(["cli@a", "top@a", "b"]):
        id = bytes([number]) * 16
        side.on_chunk(request(id=id, incarnation=5 if "@" in source else 2), source=source)
    side.delivery.on_detached("cli@a", 1.0)
    effects = [effect for _, effect in side.run(1.0, 20.0)]
    assert [effect for effect in effects if isinstance(effect, Abort)] == [Abort(bytes(16), "unreachable")]


def test_the_work_of_a_leaf_that_attaches_to_another_node_goes_on_there(side, forwarding):
    for host in ("h", "i"):
        forwarding.open(f"leaf@{host}", 0)
    side.on_chunk(request(), source="leaf@h")
    side.reply(b"lost on the path", now=1.0)
    again = side.on_ack(0, PROBE_LIMIT, stream=REPLIES, source="leaf@i", now=2.0)
    assert [(frame.kind, frame.destination) for frame in again if hasattr(frame, "kind")] == [
        (Kind.CHUNK, "leaf@i"),
        (Kind.ACK, "leaf@i"),
    ]
    assert side.on_unreachable("gone", stream=REPLIES, to="leaf@h", now=2.5) == []
    side.delivery.on_route("h", None, 2.6)
    assert side.done() == []
    assert side.on_cancel(source="leaf@i", now=3.0)[0] == Abort(ID, "cancelled")


def test_the_work_of_a_leaf_that_finds_no_other_uplink_ends(side):
    side.on_chunk(request())
    side.delivery.on_detached(None, 3.0)
    side.forwarding.shut("b")
    effects = [effect for _, effect in side.run(3.0, 3.0 + 10 * ROUTE_TIMEOUT)]
    assert Abort(ID, "unreachable") in effects


# --- cancelling ---------------------------------------------------------------------------------------------------


def test_cancelled_work_is_aborted_once_and_its_last_reply_is_sent(side):
    side.on_chunk(request())
    assert side.on_cancel() == [Abort(ID, "cancelled")]
    assert side.on_cancel() == []
    (chunk,) = sent(side.reply(header=None, last=False, eof=Eof(1, "cancelled", "stopped")))
    assert chunk.eof == Eof(1, "cancelled", "stopped")


def test_work_that_has_given_its_last_reply_is_not_aborted(side):
    side.on_chunk(request())
    side.reply(eof=Eof())
    assert side.on_cancel() == []


def test_work_whose_cancel_has_overtaken_its_first_chunk_never_begins(side):
    assert side.on_chunk(request(1, FLAG_LAST)) != []
    (answer_,) = sent(side.on_cancel(), Kind.CANCEL)
    assert not answer_.request
    assert deliveries(side.on_chunk(request(0, FLAG_FIRST), now=0.1)) == []
    assert side.counts["requests_received"] == 0


def test_a_node_can_not_cancel_the_work_of_another(side, forwarding):
    forwarding.open("c", 3)
    side.on_chunk(request())
    assert side.on_cancel(source="c", incarnation=3) == [Report("frame_dropped", "c", None, "not_its_request")]
    assert side.counts["requests_received"] == 1


def test_a_node_can_not_acknowledge_the_replies_to_another(side, forwarding):
    forwarding.open("c", 3)
    side.on_chunk(request())
    side.reply(b"x", eof=Eof())
    (dropped,) = side.on_ack(1, stream=REPLIES, source="c", incarnation=3)
    assert dropped == Report("frame_dropped", "c", None, "not_its_request")
    assert side.counts["requests_received"] == 1


def test_a_cancel_without_a_route_back_is_not_answered(side):
    assert side.on_cancel(source="x", incarnation=3) == []


# --- states -------------------------------------------------------------------------------------------------------


def test_a_received_request_goes_from_open_over_a_lost_route_to_complete(side):
    side.on_chunk(request())
    exchange = side.delivery.server.get(ID)
    assert exchange.state is ServerState.OPEN
    side.on_route_lost()
    assert exchange.state is ServerState.ROUTE_LOST
    side.on_route()
    assert exchange.state is ServerState.OPEN
    side.reply(eof=Eof())
    assert exchange.state is ServerState.COMPLETE
    side.on_route_lost()
    side.on_route()
    assert exchange.state is ServerState.COMPLETE
    side.on_ack(1, stream=REPLIES)
    assert exchange.state is ServerState.ENDED


def test_a_cancelled_request_is_aborted_until_its_last_reply_is_given(side):
    side.on_chunk(request())
    exchange = side.delivery.server.get(ID)
    side.on_cancel()
    side.on_route_lost()
    assert exchange.state is ServerState.ABORTED
    side.reply(eof=Eof(1, "cancelled", ""))
    assert exchange.state is ServerState.COMPLETE


@pytest.mark.parametrize("state", [ServerState.ROUTE_LOST, ServerState.COMPLETE])
def test_a_state_that_contradicts_what_is_known_is_found(side, state):
    side.on_chunk(request())
    side.delivery.server.get(ID).state = state
    with pytest.raises(AssertionError, match=f"{state.name}, not OPEN"):
        side.delivery.check()


def test_chunks_and_aborts_carry_the_handle_that_was_attached_to_the_request(side):
    handle = object()
    side.on_chunk(request(flags=FLAG_FIRST))
    side.delivery.attach(ID, handle)
    side.delivery.attach(bytes(16), object())
    (delivered,) = deliveries(side.on_chunk(request(1, FLAG_LAST)))
    assert delivered.handle is handle
    assert side.on_cancel() == [Abort(ID, "cancelled", handle)]
