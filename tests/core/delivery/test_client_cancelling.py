"""Cancelled requests, until their server confirms that."""

from tests.core.delivery.delivery_harness import (
    ID,
    answer,
    deliveries,
    final,
    sent,
)
from zmesh.core.delivery.client import CANCEL_RETRY_INTERVAL
from zmesh.core.delivery.client_exchange import CANCEL_TIMEOUT
from zmesh.core.delivery.congestion import CHUNK
from zmesh.core.delivery.flow_control import WINDOW
from zmesh.core.delivery.sender import BURST
from zmesh.core.message import Eof
from zmesh.core.wire import CLOSED, FLAG_EOF, Cancel, Kind

# --- cancelling ---------------------------------------------------------------------------------------------------


def test_a_request_that_was_never_sent_is_cancelled_at_once(side):
    side.call(to="x")
    assert side.cancel() == [final("cancelled", "cancelled; it had not reached 'x'", "x")]
    assert side.counts["requests_made"] == 0


def test_a_request_that_came_back_is_cancelled_at_once(side):
    side.call()
    side.on_returned(now=0.1)
    assert side.cancel(now=0.2) == [final("cancelled", "cancelled; it had not reached 'b'")]


def test_a_request_that_comes_back_after_it_was_cancelled_ends_then(side):
    side.call()
    assert sent(side.cancel(now=0.1)) == [Cancel(ID, True, 0, 0, 1, 2)]
    assert deliveries(side.on_returned(now=0.2)) == [final("cancelled", "cancelled; it had not reached 'b'")]


def test_a_cancelled_request_of_which_a_copy_may_have_arrived_waits_for_the_server(side):
    side.call()
    side.on_route_lost(now=0.5)
    side.on_route(now=0.6)
    side.on_returned(now=0.7)
    assert sent(side.cancel(now=0.8), Kind.CANCEL) == [Cancel(ID, True, 0, 0, 1, 2)]
    assert side.counts["requests_made"] == 1


def test_a_cancelled_request_of_which_a_chunk_has_arrived_waits_for_the_server(side):
    side.call(bytes(2 * CHUNK))
    side.on_ack(1)
    side.on_returned(sequence=1)
    assert sent(side.cancel(now=0.1), Kind.CANCEL) == [Cancel(ID, True, 0, 0, 1, 2)]


def test_cancelling_what_is_unknown_or_cancelled_already_is_harmless(side):
    assert side.cancel() == []
    side.call()
    assert len(side.cancel()) == 1
    assert side.cancel() == []


def test_a_cancelled_request_ends_with_the_last_reply_of_the_server(side):
    side.call()
    side.on_ack(1)
    assert sent(side.cancel()) == [Cancel(ID, True, 0, 0, 1, 2)]
    (chunk,) = side.on_chunk(answer(flags=FLAG_EOF, eof=Eof(1, "cancelled", "stopped")))
    assert chunk.eof == Eof(1, "cancelled", "stopped")
    assert side.counts["requests_made"] == 0


def test_a_cancelled_request_ends_when_the_server_does_not_know_it(side):
    side.call()
    assert side.on_cancel(request=False) == []
    side.cancel()
    assert side.on_cancel(request=False, source="c") == []
    assert side.on_cancel(request=False) == [final("cancelled", "cancelled; 'b' had not begun, or was done")]
    assert side.on_cancel(request=False) == []


def test_a_cancel_is_retransmitted_until_it_is_confirmed_or_times_out(side):
    side.call()
    side.cancel(now=1.0)
    effects = side.run(1.0, 1.0 + CANCEL_TIMEOUT)
    assert sent([effect for _, effect in effects], Kind.CHUNK) == []
    cancels = [now for now, effect in effects if sent([effect], Kind.CANCEL)]
    assert cancels[:3] == [
        1.0 + CANCEL_RETRY_INTERVAL,
        1.0 + 2 * CANCEL_RETRY_INTERVAL,
        1.0 + 3 * CANCEL_RETRY_INTERVAL,
    ]
    assert effects[-1] == (
        1.0 + CANCEL_TIMEOUT,
        final("cancelled", "cancelled; 'b' has not confirmed within 10 s that the work has ended"),
    )


def test_a_cancel_is_retransmitted_also_when_the_request_is_acknowledged(side):
    side.call()
    side.cancel(now=0.01)
    side.on_ack(1, now=0.03)
    effects = side.run(0.03, 3.0)
    assert len(sent([effect for _, effect in effects], Kind.CANCEL)) > 3


def test_a_cancel_is_sent_again_when_there_is_a_route_again(side):
    side.call()
    side.on_route_lost(now=0.5)
    assert side.cancel(now=1.0) == []
    assert sent(side.on_route(now=2.0)) == [Cancel(ID, True, 0, 0, 1, 2)]


def test_the_unsent_part_of_a_cancelled_request_is_never_sent(side):
    side.call(bytes(2 * WINDOW), last=False)
    side.cancel()
    assert side.counts["waiting_bytes"] == BURST * CHUNK  # what is in flight
    assert sent(side.on_ack(10, 10 * WINDOW), Kind.CHUNK) == []
    assert side.feed(b"more") == []


def test_a_cancelled_request_that_the_server_has_closed_still_ends_as_cancelled(side):
    side.call()
    side.cancel()
    assert side.on_ack(CLOSED, 0) == []
    assert side.counts["requests_made"] == 1


def test_a_cancelled_request_may_reach_its_deadline_before_it_is_confirmed(side):
    side.call(timeout=1.9)
    side.cancel(now=1.0)
    effects = [effect for _, effect in side.run(1.0, 2.0)]
    assert effects[-1] == final(
        "timed_out", "no final reply from 'b' within 1.9 s; nothing was heard of the request since it left 'a'"
    )
    assert len(sent(effects, Kind.CANCEL)) == 1
