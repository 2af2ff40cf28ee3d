import pytest

from zmesh.core.delivery.exchange import Exchange
from zmesh.core.delivery.flow_control import CHUNK_OVERHEAD, WINDOW
from zmesh.core.delivery.outbound import SEND_BUFFER
from zmesh.core.delivery.peers import PROBE_LIMIT, Peers
from zmesh.core.delivery.sender import BURST, PROBE_INTERVAL, Sender
from zmesh.core.effects import Pull
from zmesh.core.message import Eof, ReplyHeader, RequestHeader
from zmesh.core.rtt import INITIAL_TIMEOUT
from zmesh.core.wire import FLAG_EOF, FLAG_FIRST, FLAG_LAST, MAX_BODY, AckItem, Kind

HEADER = RequestHeader("echo:echo", 1.0)
ANSWER = ReplyHeader(1.0, 1)


@pytest.fixture
def peers(road, alarm):
    return Peers(road, alarm, lambda peer, before, now: None)


@pytest.fixture
def sending(road, peers, alarm):
    return Sender(road, peers, alarm)


@pytest.fixture
def new(peers):
    """Make an exchange with node `b`, or another."""
    count = 0

    def new(node="b", *, request=True):
        nonlocal count
        count += 1
        peer = peers.open_exchange(node)
        exchange = Exchange(count.to_bytes(16, "big"), peer, 0, request=request)
        if request:
            exchange.request_number = peers.next_request_number(peer)
        return exchange

    return new


def push(sending, exchange, body=b"", *, last=True, eof=None):
    header = HEADER if exchange.outbound_id.request else ANSWER
    sending.push(exchange, header, body, last=last, eof=eof, complete=last)


def chunks(road):
    return [sent.value for sent in road.frames(Kind.CHUNK)]


def acknowledge(sending, exchange, following, now, limit=0):
    sending.on_ack(exchange, AckItem(*exchange.outbound_id, following, limit), now)


# --- sending ------------------------------------------------------------------------------------------------------


def test_a_chunk_says_who_sends_what_to_whom(sending, road, new):
    exchange = new()
    push(sending, exchange, b"hello")
    assert sending.waiting_bytes == 5
    assert sending.pump(exchange, 7.0)
    ((to, kind, chunk, body),) = road.frames()
    assert (to, kind, body) == ("b", Kind.CHUNK, b"hello")
    assert (chunk.message_id, chunk.request, chunk.sequence) == (exchange.message_id, True, 0)
    assert (chunk.flags, chunk.header, chunk.eof) == (FLAG_FIRST | FLAG_LAST, HEADER, None)
    assert (chunk.incarnation, chunk.target) == (1, 2)
    assert exchange.peer_incarnation == 2


def test_payload_waits_until_it_is_acknowledged(sending, road, new):
    exchange = new()
    push(sending, exchange, bytes(2 * MAX_BODY))
    assert sending.waiting_bytes == 2 * MAX_BODY
    sending.pump(exchange, 0.0)
    assert len(chunks(road)) == 2
    assert sending.waiting_bytes == 2 * MAX_BODY
    acknowledge(sending, exchange, 1, 1.0)
    assert sending.waiting_bytes == MAX_BODY
    acknowledge(sending, exchange, 2, 1.0)
    assert sending.waiting_bytes == 0


def test_payload_that_was_never_acknowledged_waits_no_more_when_the_exchange_is_over(sending, road, new):
    exchange = new()
    push(sending, exchange, bytes(40 * MAX_BODY))
    sending.add(exchange, 0.0)
    sending.pump(exchange, 0.0)
    sending.remove(exchange, 1.0)
    assert sending.waiting_bytes == 0


def test_a_request_names_its_number_and_the_lowest_that_may_still_come(sending, road, new):
    first, second, reply = new(), new(), new(request=False)
    for exchange in (second, reply):
        push(sending, exchange)
        sending.pump(exchange, 0.0)
    del first.peer.unacked_requests[first.request_number], first.peer.unacked_requests[second.request_number]
    acknowledge(sending, second, 1, 0.0)
    push(sending, second)
    sending.pump(second, 0.0)
    assert [(chunk.request_number, chunk.lowest_outstanding) for chunk in chunks(road)] == [(1, 0), (0, 0), (1, 1)]


def test_a_final_word_is_sent_like_any_chunk(sending, road, new):
    exchange = new(request=False)
    push(sending, exchange, b"answer", eof=Eof(1, "remote", "oh"))
    sending.pump(exchange, 0.0)
    (chunk,) = chunks(road)
    assert (chunk.flags, chunk.eof) == (FLAG_FIRST | FLAG_LAST | FLAG_EOF, Eof(1, "remote", "oh"))


def test_nothing_to_send_is_no_failure(sending, road, new):
    assert sending.pump(new(), 0.0)
    assert road.take() == []


def test_without_a_way_what_is_to_be_sent_stays(sending, road, new):
    exchange = new("x")
    push(sending, exchange, b"hello")
    assert not sending.pump(exchange, 0.0)
    assert (road.take(), sending.waiting_bytes, exchange.peer_incarnation) == ([], 5, 0)
    road.open("x", 9)
    assert sending.pump(exchange, 1.0)
    assert [chunk.target for chunk in chunks(road)] == [9]


def test_an_incarnation_once_known_stays_the_target(sending, road, new):
    exchange = new()
    exchange.peer_incarnation = 5
    push(sending, exchange)
    sending.pump(exchange, 0.0)
    assert [chunk.target for chunk in chunks(road)] == [5]


def test_no_more_is_sent_than_the_window_allows(sending, road, new):
    exchange = new()
    push(sending, exchange, bytes(2 * WINDOW))
    while sending.pump(exchange, 0.0) and (sent := chunks(road)):
        assert len(sent) <= BURST
    assert WINDOW - MAX_BODY - CHUNK_OVERHEAD < exchange.outbound.sent_credit <= WINDOW
    assert sending.waiting_bytes == 2 * WINDOW
    assert exchange.outbound.unsent_bytes > 0


def test_a_burst_is_so_many_chunks_and_then_it_is_the_turn_of_others(sending, road, new):
    exchange = new()
    for _ in range(BURST + 3):
        push(sending, exchange, b"x", last=False)
    sending.pump(exchange, 0.0)
    assert len(chunks(road)) == BURST
    sending.on_link_ready(1, lambda: False, 0.0)
    assert len(chunks(road)) == 3
    sending.on_link_ready(1, lambda: False, 0.0)
    assert road.take() == []


def test_more_is_pulled_when_half_of_the_backlog_has_gone(sending, road, new):
    exchange = new()
    push(sending, exchange, bytes(SEND_BUFFER + 4 * WINDOW), last=False)
    sending.pump(exchange, 0.0)
    exchange.outbound.pull_pending = True
    pulls = []
    while exchange.outbound.unsent_bytes:
        acknowledge(sending, exchange, exchange.outbound.next, 0.0, exchange.outbound.limit + MAX_BODY)
        road.take()
        sending.pump(exchange, 0.0)
        if Pull(exchange.outbound_id) in road.take():
            pulls.append(exchange.outbound.unsent_bytes)
    assert len(pulls) == 1
    assert SEND_BUFFER // 2 - MAX_BODY < pulls[0] <= SEND_BUFFER // 2


# --- a link that lags ---------------------------------------------------------------------------------------------


def test_a_stream_waits_while_its_link_lags_and_goes_on_when_it_is_ready(sending, road, new):
    road.open("b", 2, lagging=True)
    exchange = new()
    push(sending, exchange)
    assert sending.pump(exchange, 0.0)
    assert sending._blocked
    assert road.take() == []
    road.open("b", 2)
    sending.on_link_ready(7, lambda: False, 1.0)
    assert road.take() == []
    sending.on_link_ready(1, lambda: False, 1.0)
    assert len(chunks(road)) == 1
    assert not sending._blocked


def test_streams_that_waited_for_a_link_go_on_in_turn_until_it_lags_again(sending, road, new):
    exchanges = [new() for _ in range(4)]
    road.open("b", 2, lagging=True)
    for exchange in exchanges:
        for _ in range(BURST + 1):
            push(sending, exchange, last=False)
        sending.pump(exchange, 0.0)
    road.open("b", 2)
    order = []
    for _ in range(4):
        lags = iter([False, False, True])
        sending.on_link_ready(1, lambda: next(lags), 1.0)  # noqa: B023
        order += dict.fromkeys(chunk.message_id[-1] for chunk in chunks(road))
    assert order == [1, 2, 3, 4, 1, 2, 3, 4]


def test_a_stream_stops_in_the_middle_of_a_burst_when_its_link_begins_to_lag(sending, road, new):
    exchange = new()
    for _ in range(4):
        push(sending, exchange, b"x", last=False)
    originate = road.originate

    def originate_and_lag(*arguments):
        originate(*arguments)
        road.open("b", 2, lagging=len(road.effects) == 2)

    road.originate = originate_and_lag
    sending.pump(exchange, 0.0)
    assert len(chunks(road)) == 2
    assert sending._blocked


def test_streams_that_waited_for_a_link_that_is_gone_take_another_way(sending, road, new):
    road.open("b", 2, lagging=True)
    exchange = new()
    push(sending, exchange)
    sending.pump(exchange, 0.0)
    road.open("b", 2, link=5)
    sending.link_down(1, 1.0)
    sending.link_down(1, 1.0)
    assert len(chunks(road)) == 1
    assert not sending._blocked


def test_an_exchange_that_is_over_waits_for_no_link(sending, road, new):
    road.open("b", 2, lagging=True)
    exchange, other = new(), new()
    for each in (exchange, other):
        sending.add(each, 0.0)
        push(sending, each, b"12345")
        sending.pump(each, 0.0)
    sending.remove(exchange, 0.0)
    assert exchange.outbound_id not in sending.timers
    assert sending.waiting_bytes == 5
    road.open("b", 2)
    sending.on_link_ready(1, lambda: False, 0.0)
    assert [chunk.message_id for chunk in chunks(road)] == [other.message_id]


# --- sending again ------------------------------------------------------------------------------------------------


def test_what_was_not_acknowledged_is_sent_again(sending, road, new):
    exchange = new()
    push(sending, exchange, bytes(2 * MAX_BODY))
    sending.pump(exchange, 5.0)
    first = chunks(road)
    assert sending.timers.next_deadline() == 5.0 + INITIAL_TIMEOUT
    assert sending.timers.expire(6.0) == [exchange.outbound_id]
    sending.on_timer(exchange, 6.0)
    again = road.frames()
    assert [sent.value for sent in again] == first
    assert [len(sent.body) for sent in again] == [MAX_BODY, MAX_BODY]
    assert sending.timers.next_deadline() == 6.0 + 2 * INITIAL_TIMEOUT


def test_a_timer_that_rang_too_early_is_set_anew(sending, road, new):
    exchange = new()
    push(sending, exchange)
    push(sending, exchange)
    sending.pump(exchange, 0.0)
    sending.resume(exchange, 0.5)
    road.take()
    sending.timers.expire(1.0)
    sending.on_timer(exchange, 1.0)
    assert road.take() == []
    assert sending.timers.next_deadline() == 0.5 + INITIAL_TIMEOUT


def test_without_a_way_nothing_is_sent_again_but_the_timer_goes_on(sending, road, new):
    exchange = new()
    push(sending, exchange)
    sending.pump(exchange, 0.0)
    road.take()
    road.shut("b")
    sending.timers.expire(1.0)
    sending.on_timer(exchange, 1.0)
    assert road.take() == []
    assert exchange.outbound_id in sending.timers


def test_an_acknowledgement_of_all_stops_the_timer_and_measures_the_path(sending, road, new):
    exchange = new()
    push(sending, exchange)
    push(sending, exchange)
    sending.pump(exchange, 0.0)
    acknowledge(sending, exchange, 1, 0.1)
    assert exchange.peer.rtt.smoothed == 0.1
    assert exchange.outbound_id in sending.timers
    acknowledge(sending, exchange, 2, 0.3)
    assert exchange.peer.rtt.smoothed == pytest.approx(0.1 * 7 / 8 + 0.3 / 8)
    assert exchange.outbound_id not in sending.timers
    assert exchange.outbound.is_finished


def test_what_was_sent_twice_measures_nothing(sending, road, new):
    exchange = new()
    push(sending, exchange)
    sending.pump(exchange, 0.0)
    sending.resume(exchange, 1.0)
    acknowledge(sending, exchange, 1, 1.1)
    acknowledge(sending, exchange, 1, 1.2)
    assert exchange.peer.rtt.smoothed is None


# --- asking -------------------------------------------------------------------------------------------------------


def test_a_stream_whose_window_is_shut_asks_how_things_stand_and_asks_again(sending, road, new):
    exchange = new()
    push(sending, exchange, bytes(2 * WINDOW))
    for _ in range(1 + WINDOW // (BURST * MAX_BODY)):
        sending.pump(exchange, 0.0)
    acknowledge(sending, exchange, exchange.outbound.next, 0.1)
    road.take()
    assert exchange.outbound.unsent
    assert not exchange.outbound.unacked
    sending.timers.expire(100.0)
    sending.on_timer(exchange, 100.0)
    ((to, kind, ack, _),) = road.frames()
    assert (to, kind, ack.acks) == ("b", Kind.ACK, (AckItem(exchange.message_id, False, 0, PROBE_LIMIT),))
    first = sending.timers.next_deadline()
    sending.timers.expire(first)
    sending.on_timer(exchange, first)
    assert len(road.frames(Kind.ACK)) == 1
    assert sending.timers.next_deadline() > first


def test_an_exchange_with_nothing_to_send_asks_once(sending, road, new):
    exchange = new()
    sending.on_timer(exchange, 1.0)
    assert len(road.frames(Kind.ACK)) == 1
    assert exchange.outbound_id not in sending.timers


def test_nobody_is_asked_about_a_request_that_has_not_left_yet(sending, road, new):
    road.open("b", 2, lagging=True)
    exchange = new()
    push(sending, exchange)
    sending.pump(exchange, 0.0)
    sending.timers.expire(100.0)
    sending.on_timer(exchange, 100.0)
    assert road.take() == []
    assert exchange.outbound_id in sending.timers


def test_exchanges_that_nothing_is_under_way_of_are_asked_about_every_now_and_then(sending, road, new, alarm):
    idle, busy = new(), new()
    assert sending.next_deadline() is None
    sending.add(idle, 3.0)
    sending.add(busy, 4.0)
    assert alarm.soonest == sending.next_deadline() == 3.0 + PROBE_INTERVAL
    push(sending, busy)
    sending.pump(busy, 17.5)
    road.take()
    assert not sending.sweep_due(3.0 + PROBE_INTERVAL - 0.001)
    assert sending.sweep_due(3.0 + PROBE_INTERVAL)
    sending.sweep(3.0 + PROBE_INTERVAL)
    ((_, _, ack, _),) = road.frames()
    assert ack.acks == (AckItem(idle.message_id, False, 0, PROBE_LIMIT),)
    sending.timers.cancel(busy.outbound_id)
    assert sending.next_deadline() == 3.0 + 2 * PROBE_INTERVAL


def test_there_is_no_sweep_without_exchanges(sending, new):
    exchange = new()
    sending.add(exchange, 0.0)
    sending.remove(exchange, 1.0)
    sending.sweep(PROBE_INTERVAL)
    assert sending.next_deadline() is None
    assert not sending.sweep_due(1e9)


def test_the_next_deadline_is_the_earlier_of_timers_and_sweep(sending, road, new):
    exchange = new()
    sending.add(exchange, 0.0)
    push(sending, exchange)
    sending.pump(exchange, 0.0)
    assert sending.next_deadline() == INITIAL_TIMEOUT
    sending.timers.set(exchange.outbound_id, 3 * PROBE_INTERVAL)
    assert sending.next_deadline() == PROBE_INTERVAL
    sending.sweep(PROBE_INTERVAL)
    assert sending.next_deadline() == 2 * PROBE_INTERVAL
    sending.remove(exchange, PROBE_INTERVAL)
    sending.timers.set(exchange.outbound_id, 3 * PROBE_INTERVAL)
    sending.sweep(2 * PROBE_INTERVAL)
    assert sending.next_deadline() == 3 * PROBE_INTERVAL


def test_dropping_what_was_not_sent_leaves_what_is_under_way(sending, road, new):
    exchange = new()
    push(sending, exchange, bytes(2 * WINDOW), last=False)
    sending.pump(exchange, 0.0)
    under_way = len(exchange.outbound.unacked)
    sending.drop_unsent(exchange)
    assert exchange.outbound.unsent_bytes == 0
    assert sending.waiting_bytes == under_way * MAX_BODY
    assert len(exchange.outbound.unacked) == under_way > 0
    acknowledge(sending, exchange, under_way, 1.0)
    assert exchange.outbound.is_finished
