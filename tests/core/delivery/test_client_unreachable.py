"""Client whose recipient is out of reach, and what is said of them when they end for that."""

import re

import pytest

from tests.core.delivery.delivery_harness import (
    ID,
    OTHER,
    REPLIES,
    REQUEST,
    ROUTE_TIMEOUT,
    acknowledged,
    answer,
    deliveries,
    final,
    request,
    sent,
)
from zmesh.core import wire
from zmesh.core.delivery.client import FIRST_PROBE_DELAY
from zmesh.core.delivery.client_exchange import ClientState
from zmesh.core.delivery.congestion import CHUNK
from zmesh.core.delivery.exchange import SILENCE_TIMEOUT
from zmesh.core.delivery.peers import PROBE_LIMIT
from zmesh.core.delivery.sender import PROBE_INTERVAL
from zmesh.core.effects import Deliver, Report
from zmesh.core.wire import FLAG_FIRST, FLAG_LAST, Cancel, Kind

# --- no route -----------------------------------------------------------------------------------------------------


def test_a_request_without_a_route_waits_for_one(side):
    assert side.call(to="x", now=1.0) == []
    assert side.counts["waiting_bytes"] == 0
    (chunk,) = sent(side.on_route("x", 9, now=11.0))
    assert chunk.target == 9
    side.on_ack(1, source="x", incarnation=9, now=12.0)
    assert sent([effect for _, effect in side.run(12.0, 12.0 + ROUTE_TIMEOUT)], Kind.CHUNK) == []
    assert side.counts["requests_made"] == 1


def test_a_request_without_a_route_for_too_long_ends_unreachable(side):
    side.call(to="x", now=1.0)
    assert side.tick(1.0 + ROUTE_TIMEOUT - 0.001) == []
    assert side.tick(1.0 + ROUTE_TIMEOUT) == [
        final("unreachable", "no route to 'x' after 30 s; the request has not left 'a'; a hint about x", "x")
    ]
    assert side.counts["requests_made"] == 0


def test_a_request_that_lost_its_route_is_retransmitted_when_there_is_one(side):
    side.call(now=0.0)
    assert side.on_route_lost(now=0.5) == []
    (chunk,) = sent(side.on_route(now=0.7))
    assert chunk.sequence == 0


def test_a_request_that_came_back_goes_to_the_new_incarnation_of_its_server(side):
    side.call()
    side.on_returned()
    (chunk,) = sent(side.on_route(incarnation=9, now=0.5))
    assert chunk.target == 9


def test_a_request_that_a_new_incarnation_sent_back_waits_for_a_route_to_it(side):
    side.call()
    side.delivery.on_returned(REQUEST, 0, wire.Unreachable(Kind.CHUNK, "restarted", "b", "b", (), 0.0), 0.1)
    assert sent(side.done()) == []
    (chunk,) = sent(side.on_route(incarnation=9, now=0.5))
    assert chunk.target == 9
    assert sent(side.on_ack(1, now=0.6, incarnation=9)) == []


def test_a_request_that_may_have_begun_in_a_former_incarnation_ends(side):
    side.call()
    (ending,) = deliveries(side.on_route(incarnation=9, now=0.5))
    assert ending.eof.reason == "node_restarted"


def test_a_request_with_nothing_in_flight_probes_after_a_lost_route(side):
    side.call()
    side.on_ack(1)
    side.on_route_lost(now=1.0)
    assert sent(side.on_route(now=2.0)) == [acknowledged(0, PROBE_LIMIT)]
    assert sent(side.on_route(now=3.0)) == []


def test_a_request_whose_route_stays_lost_ends_and_a_cancel_is_sent_if_it_can_be(side, forwarding):
    side.call()
    side.on_route_lost(now=1.0)
    forwarding.open("b", 2)
    effects = side.tick(1.0 + ROUTE_TIMEOUT)
    assert (
        final(
            "unreachable",
            "no route to 'b' after 31 s, none for the last 30 s; nothing was heard of the request since it left 'a'"
            "; a hint about b",
        )
        in effects
    )
    assert sent(effects, Kind.CANCEL) == [Cancel(ID, True, 0, 0, 1, 2)]


def test_a_route_that_is_lost_twice_counts_from_the_first_loss(side):
    side.call()
    side.on_route_lost(now=1.0)
    side.delivery.on_route("b", None, 20.0)
    effects = [effect for _, effect in side.run(1.0, 1.0 + ROUTE_TIMEOUT)]
    assert deliveries(effects) == [
        final(
            "unreachable",
            "no route to 'b' after 31 s, none for the last 30 s; nothing was heard of the request since it left 'a'"
            "; a hint about b",
        )
    ]


def test_any_frame_of_the_server_ends_the_wait_for_a_route(side, forwarding):
    side.call()
    side.on_route_lost(now=1.0)
    forwarding.open("b", 2)
    side.on_ack(1, now=2.0)
    assert deliveries([effect for _, effect in side.run(2.0, SILENCE_TIMEOUT)]) == []


def test_a_request_is_lost_while_there_is_no_route_to_its_server(side):
    side.call(to="x")
    assert side.delivery.is_lost(ID)
    side.on_route("x")
    assert not side.delivery.is_lost(ID)
    side.on_route_lost("x")
    assert side.delivery.is_lost(ID)
    side.cancel()
    assert not side.delivery.is_lost(bytes(16))


def test_a_request_of_a_leaf_that_finds_no_other_uplink_ends(side):
    side.call()
    side.delivery.on_detached(None, 3.0)
    effects = [effect for _, effect in side.run(3.0, 3.0 + ROUTE_TIMEOUT)]
    assert [chunk.eof.reason for chunk in deliveries(effects)] == ["unreachable"]


# --- UNREACHABLE frames -------------------------------------------------------------------------------------------


def test_a_request_that_a_forwarder_has_no_route_for_waits_and_is_retransmitted(side):
    side.call()
    assert side.on_unreachable(near=("b1",), now=0.1) == [Report("unreachable", "b", None, "no_route", ("b1",), 9.0)]
    assert sent([effect for _, effect in side.run(0.1, 5.0)], Kind.CHUNK)
    assert side.counts["requests_made"] == 1


def test_a_chunk_that_a_full_queue_refused_is_retransmitted_with_the_next_ack(side):
    side.call(bytes(4 * CHUNK))
    note = wire.Unreachable(Kind.CHUNK, "full", "m", "b", (), 0.0)
    side.delivery.on_returned(REQUEST, 1, note, 0.1)
    assert side.done() == []
    assert [chunk.sequence for chunk in sent(side.on_ack(1, now=0.2))] == [1]
    assert side.delivery.client.get(ID).unreachable_since is None


def test_a_request_of_which_nothing_was_acknowledged_is_retransmitted_and_not_probed(side):
    """A probe may overtake the chunk, and the server would answer that the request is over, which ended it."""
    side.call(b"x")
    side.delivery.on_returned(REQUEST, 0, wire.Unreachable(Kind.CHUNK, "full", "m", "b", (), 0.0), 0.1)
    effects = [effect for _, effect in side.run(0.1, 20.0)]
    assert sent(effects, Kind.CHUNK)
    assert sent(effects, Kind.ACK) == []


def test_a_request_that_had_arrived_is_probed_soon_after_an_unreachable(side):
    side.call()
    side.on_ack(1)
    side.on_unreachable(now=1.0)
    side.on_unreachable(now=1.2)
    assert [(now, effect.value) for now, effect in side.run(1.0, 5.0)] == [
        (1.0 + FIRST_PROBE_DELAY, acknowledged(0, PROBE_LIMIT))
    ]
    side.on_ack(1, now=5.0)
    assert deliveries([effect for _, effect in side.run(5.0, SILENCE_TIMEOUT)]) == []


# --- what an error says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("near", "text"), [((), ""), (("b1", "b2"), " (did you mean 'b1'?)")], ids=["no name", "two names"]
)
def test_an_error_names_the_last_node_on_the_path_and_what_it_knows(side, near, text):
    side.call()
    side.on_unreachable(near=near, now=1.0)
    effects = [effect for _, effect in side.run(1.0, 1.0 + ROUTE_TIMEOUT)]
    assert deliveries(effects) == [
        final(
            "unreachable",
            f"no route to 'b' after 31 s, none for the last 30 s; the last node on the path was 'm'{text}",
        )
    ]


def test_an_error_without_an_unreachable_names_the_neighbour_the_request_was_sent_to(side):
    side.forwarding.hops[1] = "m"
    side.call(timeout=2.0)
    assert deliveries(side.tick(2.0)) == [
        final(
            "timed_out",
            "no final reply from 'b' within 2 s; the last node on the path was 'm'; it was sent 2 times without an ack",
        )
    ]
    side.call()
    side.on_route_lost(now=3.0)
    effects = [effect for _, effect in side.run(3.0, 3.0 + ROUTE_TIMEOUT)]
    assert (
        final(
            "unreachable",
            "no route to 'b' after 33 s, none for the last 30 s; the last node on the path was 'm'; a hint about b",
        )
        in effects
    )


def test_the_neighbour_that_an_error_names_is_that_of_the_last_route(side):
    side.forwarding.shut("b")
    side.call(timeout=9.0)
    for hop in ("m", "n"):
        side.forwarding.hops[1] = hop
        side.on_route(now=1.0)
    side.on_route_lost(now=2.0)
    assert deliveries(side.tick(9.0)) == [
        final(
            "timed_out",
            "no route to 'b' after 9 s, none for the last 7 s; the last node on the path was 'n'; a hint about b",
        )
    ]


@pytest.mark.parametrize("sign", ["acknowledged", "answered"])
def test_an_error_says_that_the_server_had_the_request_if_that_is_known(side, sign):
    side.call(timeout=9.0)
    if sign == "answered":
        side.on_chunk(answer(flags=FLAG_FIRST | FLAG_LAST))
    else:
        side.on_ack(1)
    side.on_unreachable(now=1.0)
    side.on_route_lost(now=2.0)
    assert final(
        "timed_out", "no route to 'b' after 9 s, none for the last 8 s; the request had reached 'b'"
    ) in side.tick(9.0)


def test_an_unreachable_of_this_node_itself_adds_nothing_to_what_it_knows(side):
    side.call()
    side.on_unreachable(at="a", now=1.0)
    effects = [effect for _, effect in side.run(1.0, 1.0 + ROUTE_TIMEOUT)]
    assert deliveries(effects) == [
        final(
            "unreachable",
            "no route to 'b' after 31 s, none for the last 30 s; nothing was heard of the request since it left 'a'"
            "; a hint about b",
        )
    ]


def test_a_timeout_names_the_last_node_that_is_known_to_have_the_request(side):
    side.call(timeout=5.0)
    effects = [effect for _, effect in side.run(0.0, 5.0)]
    text = "no final reply from 'b' within 5 s; nothing was heard of the request since it left 'a'"
    text += "; it was sent 3 times without an ack"
    assert deliveries(effects) == [final("timed_out", text)]


def test_a_route_that_is_lost_after_the_request_arrived_does_not_hide_that(side):
    side.call()
    side.on_ack(1, now=0.1)
    side.on_route_lost(now=1.0)
    effects = [effect for _, effect in side.run(1.0, 1.0 + ROUTE_TIMEOUT)]
    text = "no route to 'b' after 31 s, none for the last 30 s; the request had reached 'b'; a hint about b"
    assert deliveries(effects) == [final("unreachable", text)]


# --- what held a request back until its time was over --------------------------------------------------------------

BLOCKED = "node 'b': its event loop has been blocked for 3 s in t:f (f.py:1)"


def timed_out(side, seconds=5.0):
    """The error of the only request, whose timeout ends then, with everything before it."""
    [end] = deliveries([effect for _, effect in side.run(0.0, seconds)])
    assert end.eof.reason == "timed_out"
    return end.eof.error


def test_a_timeout_names_the_block_of_the_next_hop(side):
    side.call(timeout=5.0)
    side.forwarding.blocked = BLOCKED
    assert timed_out(side).endswith(f"since it left 'a'; {BLOCKED}")


def test_a_timeout_names_the_block_that_a_forwarder_has_sent_back_and_the_route_stays(side):
    side.call(timeout=5.0)
    side.delivery.on_returned(REQUEST, 0, wire.Unreachable(Kind.CHUNK, "blocked", "m", "b", (), 0.0, BLOCKED), 0.5)
    side.done()
    assert side.delivery.client.get(ID).state is ClientState.OPEN
    assert not side.delivery.client.get(ID).cannot_have_arrived()
    assert timed_out(side).endswith(f"; {BLOCKED}")


def test_an_ack_ends_the_block_that_was_sent_back(side):
    side.call(timeout=5.0)
    side.on_unreachable("blocked", text=BLOCKED, now=0.5)
    side.on_ack(1, now=1.0)
    assert timed_out(side) == "no final reply from 'b' within 5 s; the request had reached 'b'"


def test_a_block_that_is_sent_back_about_a_reply_is_ignored(side):
    side.on_chunk(request())
    side.reply(b"x", last=False)
    side.on_unreachable("blocked", stream=REPLIES, text=BLOCKED)
    assert side.delivery.server.get(ID).unreachable_since is None


def test_a_timeout_names_a_full_link(side):
    side.forwarding.hops[1] = "m"
    side.forwarding.open("b", 2, lagging=True)
    side.call(timeout=5.0)
    assert timed_out(side).endswith("the request has not left 'a'; the link to 'm' is full")


def test_a_timeout_says_that_the_server_has_stopped_reading(side):
    side.call(bytes(100_000), last=False, timeout=5.0)
    side.on_ack(1, limit=0)
    side.feed(bytes(2_000_000), last=True)
    for sequence in range(2, 200):
        side.on_ack(sequence)
    assert timed_out(side).endswith("; 'b' has stopped reading the payload, and its window is full")


def test_a_timeout_names_the_congestion_window_that_the_payload_waits_for(side):
    side.call(bytes(2_000_000), timeout=5.0, id=OTHER)
    side.call(bytes(2_000_000), timeout=0.05)
    assert timed_out(side, 0.05).endswith("; the rest of the payload waits for what is in flight to 'b'")


def test_a_timeout_counts_the_copies_that_were_sent_without_an_ack(side):
    side.call(timeout=5.0)
    assert re.search(r"; it was sent \d times without an ack$", timed_out(side))


def test_a_timeout_says_that_the_program_has_not_ended_its_payload(side):
    side.call(b"x", last=False, timeout=5.0)
    side.on_ack(1)
    assert timed_out(side).endswith("; its payload has not ended here")


# --- nodes that have left -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["left", "gone"])
def test_a_request_that_times_out_after_its_server_has_left_is_unreachable(side, reason):
    side.call(timeout=9.0)
    side.on_ack(1)
    side.on_unreachable(reason, text="'b' left 2 s ago, last heard by 'n'", now=1.0)
    text = (
        "no route to 'b' after 9 s, none for the last 8 s; the request had reached 'b'; "
        "'b' left 2 s ago, last heard by 'n'"
    )
    assert final("unreachable", text) in side.tick(9.0)


def test_a_request_that_times_out_after_this_node_saw_its_server_leave_is_unreachable(side):
    side.call(timeout=9.0)
    side.on_ack(1)
    side.on_unreachable(text="something older", now=0.5)
    side.on_route_lost(now=1.0)
    side.forwarding.left.add("b")
    assert final("unreachable", "no route to 'b' after 9 s; the request had reached 'b'; a hint about b") in side.tick(
        9.0
    )


def test_what_a_forwarder_knows_is_part_of_the_error_and_of_the_report(side):
    side.call()
    (report,) = side.on_unreachable(text="'b' was never known to 'm'", now=1.0)
    assert report.text == "'b' was never known to 'm'"
    effects = [effect for _, effect in side.run(1.0, 1.0 + ROUTE_TIMEOUT)]
    text = (
        "no route to 'b' after 31 s, none for the last 30 s; the last node on the path was 'm'; "
        "'b' was never known to 'm'"
    )
    assert deliveries(effects) == [final("unreachable", text)]


# --- a route_timeout of its own -----------------------------------------------------------------------------------


@pytest.mark.parametrize("route_timeout", [0.5, 5.0, 2 * ROUTE_TIMEOUT])
@pytest.mark.parametrize("timeout", [None, 100.0])
def test_a_request_waits_for_a_route_for_its_own_route_timeout(side, route_timeout, timeout):
    side.call(to="x", timeout=timeout, route_timeout=route_timeout)
    ends = [(now, effect.eof.reason) for now, effect in side.run(0.0, 200.0) if isinstance(effect, Deliver)]
    assert ends == [(route_timeout, "unreachable")]


@pytest.mark.parametrize("begun", [False, True], ids=["before the reply", "in the middle of a reply"])
def test_a_request_whose_route_is_lost_ends_by_its_route_timeout_and_not_by_its_longer_deadline(side, begun):
    side.call(timeout=100.0, route_timeout=2.0)
    if begun:
        side.on_chunk(answer(0, FLAG_FIRST), b"half of it")
    side.on_route_lost(now=10.0)
    ends = [(now, effect.eof.reason) for now, effect in side.run(10.0, 200.0) if isinstance(effect, Deliver)]
    assert ends == [(12.0, "unreachable")]


def test_a_request_whose_route_comes_back_in_time_goes_on(side):
    side.call(route_timeout=2.0)
    side.on_route_lost(now=10.0)
    side.run(10.0, 11.9)
    side.on_route(now=11.9)
    assert [effect for _, effect in side.run(11.9, 40.0) if isinstance(effect, Deliver)] == []


# --- a recipient that says nothing --------------------------------------------------------------------------------


def test_a_request_ends_when_its_server_is_silent_although_there_is_a_route(side):
    """A node on the path may swallow what it should pass on, and keep its links alive."""
    side.call(now=0.0)
    effects = side.run(0.0, SILENCE_TIMEOUT + 2 * PROBE_INTERVAL)
    ((at, ended),) = [(at, effect) for at, effect in effects if isinstance(effect, Deliver)]
    assert SILENCE_TIMEOUT <= at <= SILENCE_TIMEOUT + PROBE_INTERVAL
    assert ended.eof.reason == "unreachable"
    assert ended.eof.error == (
        f"nothing was heard of 'b' for {at:.3g} s, although there is a route; "
        "nothing was heard of the request since it left 'a'"
    )
    assert side.counts["requests_made"] == 0


def test_a_request_whose_server_answers_probes_goes_on(side):
    side.call(now=0.0)
    for now in range(10, 300, 10):
        side.on_ack(1, now=float(now))
        assert deliveries([effect for _, effect in side.run(float(now), now + 9.9)]) == []
    assert side.counts["requests_made"] == 1


def test_a_request_with_a_longer_route_timeout_waits_as_long_for_a_silent_server(side):
    side.call(now=0.0, route_timeout=200.0)
    effects = side.run(0.0, 200.0 + 2 * PROBE_INTERVAL)
    ((at, _),) = [(at, effect) for at, effect in effects if isinstance(effect, Deliver)]
    assert at >= 200.0


def test_a_request_of_a_silent_server_whose_route_was_lost_has_its_full_route_timeout(side):
    side.call(now=0.0, route_timeout=20.0)
    side.run(0.0, 40.0)
    side.on_route_lost(now=40.0)
    assert deliveries([effect for _, effect in side.run(40.0, 59.9)]) == []
    assert "no route to 'b' after 60 s" in deliveries(side.tick(60.0))[0].eof.error
