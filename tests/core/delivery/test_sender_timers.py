"""Retransmissions and probes of a sender, and the turns of its streams."""

import pytest

from tests.core.delivery.sender_harness import acknowledge, chunks, push
from zmesh.core.delivery.congestion import CHUNK, MAX_WINDOW
from zmesh.core.delivery.flow_control import WINDOW
from zmesh.core.delivery.peers import PROBE_LIMIT
from zmesh.core.delivery.sender import BURST, PROBE_INTERVAL
from zmesh.core.rtt import INITIAL_TIMEOUT
from zmesh.core.wire import MAX_BODY, AckItem, Kind

# --- retransmission -----------------------------------------------------------------------------------------------


def test_unacknowledged_chunks_are_retransmitted(sender, forwarding, new):
    exchange = new()
    push(sender, exchange, bytes(2 * CHUNK))
    sender.pump(exchange, 5.0)
    first = chunks(forwarding)
    assert sender.next_deadline() == 5.0 + INITIAL_TIMEOUT
    assert sender.expire(6.0, 10) == [exchange.outbound_id]
    sender.on_timer(exchange, 6.0)
    again = forwarding.frames()
    assert [sent.value for sent in again] == first
    assert [len(sent.body) for sent in again] == [CHUNK, CHUNK]
    assert sender.next_deadline() == 6.0 + 2 * INITIAL_TIMEOUT


def test_a_timer_that_expires_too_early_is_set_anew(sender, forwarding, new):
    exchange = new()
    push(sender, exchange)
    push(sender, exchange)
    sender.pump(exchange, 0.0)
    exchange.peer.path.stop_timer(exchange)
    sender.resume(exchange, 0.5)
    forwarding.take()
    assert sender.expire(1.0, 10) == []
    sender.on_timer(exchange, 1.0)
    assert forwarding.take() == []
    assert sender.next_deadline() == 0.5 + INITIAL_TIMEOUT
    exchange.peer.path.stop_timer(exchange)
    sender.on_timer(exchange, 1.0)
    assert forwarding.take() == []
    assert sender.timers.next_deadline() == 0.5 + INITIAL_TIMEOUT


def test_without_a_route_nothing_is_retransmitted_but_the_timer_goes_on(sender, forwarding, new):
    exchange = new()
    push(sender, exchange)
    sender.pump(exchange, 0.0)
    forwarding.take()
    forwarding.shut("b")
    sender.expire(1.0, 10)
    sender.on_timer(exchange, 1.0)
    assert forwarding.take() == []
    assert exchange.outbound_id in sender.timers


def test_an_acknowledgement_of_all_stops_the_timer_and_measures_the_path(sender, forwarding, new):
    exchange = new()
    push(sender, exchange)
    push(sender, exchange)
    sender.pump(exchange, 0.0)
    acknowledge(sender, exchange, 1, 0.1)
    assert exchange.peer.path.rtt.smoothed == 0.1
    assert exchange.peer.path.is_timed(exchange)
    acknowledge(sender, exchange, 2, 0.3)
    assert exchange.peer.path.rtt.smoothed == pytest.approx(0.1 * 7 / 8 + 0.3 / 8)
    assert not exchange.peer.path.is_timed(exchange)
    assert exchange.outbound.is_finished


def test_retransmitted_chunks_give_no_sample(sender, forwarding, new):
    exchange = new()
    push(sender, exchange)
    sender.pump(exchange, 0.0)
    sender.resume(exchange, 1.0)
    acknowledge(sender, exchange, 1, 1.1)
    acknowledge(sender, exchange, 1, 1.2)
    assert exchange.peer.path.rtt.smoothed is None


# --- probes -------------------------------------------------------------------------------------------------------


def test_a_stream_with_a_closed_window_probes_and_probes_again(sender, forwarding, new):
    exchange = new()
    push(sender, exchange, bytes(2 * WINDOW))
    for _ in range(1 + WINDOW // (BURST * CHUNK)):
        sender.pump(exchange, 0.0)
    acknowledge(sender, exchange, exchange.outbound.next, 0.1)
    forwarding.take()
    assert exchange.outbound.unsent
    assert not exchange.outbound.unacked
    sender.timers.expire(100.0)
    sender.on_timer(exchange, 100.0)
    ((to, kind, ack, _),) = forwarding.frames()
    assert (to, kind, ack.acks) == ("b", Kind.ACK, (AckItem(exchange.message_id, False, 0, PROBE_LIMIT),))
    first = sender.timers.next_deadline()
    sender.timers.expire(first)
    sender.on_timer(exchange, first)
    assert len(forwarding.frames(Kind.ACK)) == 1
    assert sender.timers.next_deadline() > first


def test_an_exchange_with_nothing_to_send_probes_once(sender, forwarding, new):
    exchange = new()
    sender.on_timer(exchange, 1.0)
    assert len(forwarding.frames(Kind.ACK)) == 1
    assert exchange.outbound_id not in sender.timers


def test_a_request_that_was_not_sent_is_not_probed(sender, forwarding, new):
    forwarding.open("b", 2, lagging=True)
    exchange = new()
    push(sender, exchange)
    sender.pump(exchange, 0.0)
    sender.timers.expire(100.0)
    sender.on_timer(exchange, 100.0)
    assert forwarding.take() == []
    assert exchange.outbound_id in sender.timers


def test_exchanges_with_nothing_in_flight_are_probed_at_each_interval(sender, forwarding, new, alarm):
    idle, busy = new(), new()
    assert sender.next_deadline() is None
    sender.add(idle, 3.0)
    sender.add(busy, 4.0)
    assert alarm.soonest == sender.next_deadline() == 3.0 + PROBE_INTERVAL
    push(sender, busy)
    sender.pump(busy, 17.5)
    forwarding.take()
    assert not sender.sweep_due(3.0 + PROBE_INTERVAL - 0.001)
    assert sender.sweep_due(3.0 + PROBE_INTERVAL)
    sender.sweep(3.0 + PROBE_INTERVAL)
    ((_, _, ack, _),) = forwarding.frames()
    assert ack.acks == (AckItem(idle.message_id, False, 0, PROBE_LIMIT),)
    busy.peer.path.stop_timer(busy)
    assert sender.expire(18.5, 10) == []
    assert sender.next_deadline() == 3.0 + 2 * PROBE_INTERVAL


def test_there_is_no_sweep_without_exchanges(sender, new):
    exchange = new()
    sender.add(exchange, 0.0)
    sender.remove(exchange, 1.0)
    sender.sweep(PROBE_INTERVAL)
    assert sender.next_deadline() is None
    assert not sender.sweep_due(1e9)


def test_the_next_deadline_is_the_earlier_of_timers_and_sweep(sender, forwarding, new):
    exchange = new()
    sender.add(exchange, 0.0)
    push(sender, exchange)
    sender.pump(exchange, 0.0)
    assert sender.next_deadline() == INITIAL_TIMEOUT
    sender.expire(INITIAL_TIMEOUT, 10)
    sender.timers.set(exchange.outbound_id, 3 * PROBE_INTERVAL)
    assert sender.next_deadline() == PROBE_INTERVAL
    sender.sweep(PROBE_INTERVAL)
    assert sender.next_deadline() == 2 * PROBE_INTERVAL
    sender.remove(exchange, PROBE_INTERVAL)
    sender.timers.set(exchange.outbound_id, 3 * PROBE_INTERVAL)
    sender.sweep(2 * PROBE_INTERVAL)
    assert sender.next_deadline() == 3 * PROBE_INTERVAL


def test_dropping_unsent_chunks_leaves_those_in_flight(sender, forwarding, new):
    exchange = new()
    push(sender, exchange, bytes(2 * WINDOW), last=False)
    sender.pump(exchange, 0.0)
    under_way = len(exchange.outbound.unacked)
    sender.drop_unsent(exchange)
    assert exchange.outbound.unsent_bytes == 0
    assert sender.waiting_bytes == under_way * CHUNK
    assert len(exchange.outbound.unacked) == under_way > 0
    acknowledge(sender, exchange, under_way, 1.0)
    assert exchange.outbound.is_finished


def test_a_stream_that_waits_for_a_path_on_which_nothing_is_in_flight_is_found(sender, forwarding, new):
    exchange = new()
    sender.add(exchange, 0.0)
    push(sender, exchange)
    exchange.peer.path.wait(exchange, exchange.outbound.next_credit())
    with pytest.raises(AssertionError, match="nothing is in flight"):
        sender.check()
    sender.serve(exchange.peer, 0.0)
    sender.check()


def test_a_stream_that_finds_no_route_when_it_is_its_turn_has_a_timer(sender, forwarding, new):
    exchange = new()
    push(sender, exchange)
    exchange.peer.path.wait(exchange, exchange.outbound.next_credit())
    forwarding.shut("b")
    sender.serve(exchange.peer, 0.0)
    assert forwarding.take() == []
    assert sender.timers.next_deadline() == INITIAL_TIMEOUT


def test_a_stream_that_is_retransmitted_in_vain_while_others_progress_backs_off_alone(sender, forwarding, new):
    stuck, other = new(), new()
    push(sender, stuck)
    sender.pump(stuck, 0.0)
    for now in (1.0, 2.0):
        push(sender, other)
        sender.pump(other, now)
        if sender.expire(now, 10):
            sender.on_timer(stuck, now)
        acknowledge(sender, other, other.outbound.next, now + 0.1)
    assert stuck.outbound.retries == 2
    assert stuck.outbound_id in sender.timers
    assert not stuck.peer.path.is_timed(stuck)


def test_a_chunk_that_a_full_queue_refused_is_retransmitted_when_another_stream_of_its_path_makes_progress(
    sender, forwarding, new
):
    refused, other = new(), new()
    for exchange in (refused, other):
        push(sender, exchange)
        sender.pump(exchange, 0.0)
    forwarding.take()
    sender.on_returned(refused, 0, 0.1, refused=True)
    sender.on_returned(refused, 7, 0.1, refused=True)
    assert forwarding.take() == []
    acknowledge(sender, other, 1, 0.2)
    sender.serve(other.peer, 0.2)
    assert [chunk.message_id for chunk in chunks(forwarding)] == [refused.message_id]


def test_a_chunk_that_a_full_queue_refused_is_retransmitted_at_the_timeout_if_nothing_else_is_in_flight(
    sender, forwarding, new
):
    exchange = new()
    sender.add(exchange, 0.0)
    push(sender, exchange)
    sender.pump(exchange, 0.0)
    forwarding.take()
    sender.on_returned(exchange, 0, 0.1, refused=True)
    sender.check()
    assert sender.expire(INITIAL_TIMEOUT, 10) == [exchange.outbound_id]
    sender.on_timer(exchange, INITIAL_TIMEOUT)
    assert len(forwarding.frames()) == 1
    sender.check()


@pytest.mark.parametrize("how", ["over", "cancelled"])
def test_streams_that_wait_behind_one_with_nothing_in_flight_go_on_when_that_is(sender, forwarding, new, how):
    refused, waiting = new(), new()
    for exchange in (refused, waiting):
        sender.add(exchange, 0.0)
        push(sender, exchange)
    sender.pump(refused, 0.0)
    sender.on_returned(refused, 0, 0.1, refused=True)
    forwarding.take()
    sender.pump(waiting, 0.2)
    assert forwarding.take() == []
    if how == "over":
        sender.remove(refused, 0.3)
    else:
        sender.wake_after(refused, 0.5, 0.3)
    assert [chunk.message_id for chunk in chunks(forwarding)] == [waiting.message_id]
    sender.check()


def test_a_burst_ends_after_so_many_bytes_though_it_has_fewer_chunks(sender, forwarding, new):
    exchange = new()
    path = exchange.peer.path
    path.congestion.window = exchange.outbound.limit = MAX_WINDOW
    path.congestion.chunk_bytes = MAX_BODY
    push(sender, exchange, bytes(4 * MAX_BODY))
    sender.pump(exchange, 0.0)
    assert len(forwarding.frames()) == 1
    link = exchange.link
    sender.on_link_ready(link, lambda: False, 0.0)
    assert len(forwarding.frames()) == 1


def test_a_reply_implies_that_its_request_has_arrived(sender, forwarding, new):
    exchange = new()
    sender.add(exchange, 0.0)
    push(sender, exchange, b"hello")
    sender.pump(exchange, 0.0)
    path = exchange.peer.path
    path.retries = 2
    exchange.inbound.expected = 1
    sender.remove(exchange, 0.5)
    assert (path.retries, path.congestion.in_flight) == (0, 0)
