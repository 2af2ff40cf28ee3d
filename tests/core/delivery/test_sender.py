from tests.core.delivery.sender_harness import HEADER, acknowledge, chunks, push
from zmesh.core.delivery.congestion import CHUNK
from zmesh.core.delivery.flow_control import CHUNK_OVERHEAD, WINDOW
from zmesh.core.delivery.outbound import SEND_BUFFER
from zmesh.core.delivery.sender import BURST
from zmesh.core.effects import Pull
from zmesh.core.message import Eof
from zmesh.core.wire import FLAG_EOF, FLAG_FIRST, FLAG_LAST, Kind

# --- transmission -------------------------------------------------------------------------------------------------


def test_a_chunk_names_its_stream_incarnations_and_content(sender, forwarding, new):
    exchange = new()
    push(sender, exchange, b"hello")
    assert sender.waiting_bytes == 5
    assert sender.pump(exchange, 7.0)
    ((to, kind, chunk, body),) = forwarding.frames()
    assert (to, kind, body) == ("b", Kind.CHUNK, b"hello")
    assert (chunk.message_id, chunk.request, chunk.sequence) == (exchange.message_id, True, 0)
    assert (chunk.flags, chunk.header, chunk.eof) == (FLAG_FIRST | FLAG_LAST, HEADER, None)
    assert (chunk.incarnation, chunk.target) == (1, 2)
    assert exchange.peer_incarnation == 2


def test_payload_waits_until_it_is_acknowledged(sender, forwarding, new):
    exchange = new()
    push(sender, exchange, bytes(2 * CHUNK))
    assert sender.waiting_bytes == 2 * CHUNK
    sender.pump(exchange, 0.0)
    assert len(chunks(forwarding)) == 2
    assert sender.waiting_bytes == 2 * CHUNK
    acknowledge(sender, exchange, 1, 1.0)
    assert sender.waiting_bytes == CHUNK
    acknowledge(sender, exchange, 2, 1.0)
    assert sender.waiting_bytes == 0


def test_unacknowledged_payload_is_not_counted_when_the_exchange_is_over(sender, forwarding, new):
    exchange = new()
    push(sender, exchange, bytes(40 * CHUNK))
    sender.add(exchange, 0.0)
    sender.pump(exchange, 0.0)
    sender.remove(exchange, 1.0)
    assert sender.waiting_bytes == 0


def test_a_request_names_its_number_and_the_lowest_outstanding_one(sender, forwarding, new):
    first, second, reply = new(), new(), new(request=False)
    for exchange in (second, reply):
        push(sender, exchange)
        sender.pump(exchange, 0.0)
    del first.peer.unacked_requests[first.request_number], first.peer.unacked_requests[second.request_number]
    acknowledge(sender, second, 1, 0.0)
    push(sender, second)
    sender.pump(second, 0.0)
    assert [(chunk.request_number, chunk.lowest_outstanding) for chunk in chunks(forwarding)] == [
        (1, 0),
        (0, 0),
        (1, 1),
    ]


def test_an_eof_is_sent_like_any_chunk(sender, forwarding, new):
    exchange = new(request=False)
    push(sender, exchange, b"answer", eof=Eof(1, "remote", "oh"))
    sender.pump(exchange, 0.0)
    (chunk,) = chunks(forwarding)
    assert (chunk.flags, chunk.eof) == (FLAG_FIRST | FLAG_LAST | FLAG_EOF, Eof(1, "remote", "oh"))


def test_nothing_to_send_is_no_failure(sender, forwarding, new):
    assert sender.pump(new(), 0.0)
    assert forwarding.take() == []


def test_without_a_route_unsent_chunks_stay(sender, forwarding, new):
    exchange = new("x")
    push(sender, exchange, b"hello")
    assert not sender.pump(exchange, 0.0)
    assert (forwarding.take(), sender.waiting_bytes, exchange.peer_incarnation) == ([], 5, 0)
    forwarding.open("x", 9)
    assert sender.pump(exchange, 1.0)
    assert [chunk.target for chunk in chunks(forwarding)] == [9]


def test_an_incarnation_once_known_stays_the_target(sender, forwarding, new):
    exchange = new()
    exchange.peer_incarnation = 5
    push(sender, exchange)
    sender.pump(exchange, 0.0)
    assert [chunk.target for chunk in chunks(forwarding)] == [5]


def test_no_more_is_sent_than_the_window_allows(sender, forwarding, new):
    exchange = new()
    push(sender, exchange, bytes(2 * WINDOW))
    while sender.pump(exchange, 0.0) and (sent := chunks(forwarding)):
        assert len(sent) <= BURST
    assert WINDOW - CHUNK - CHUNK_OVERHEAD < exchange.outbound.sent_credit <= WINDOW
    assert sender.waiting_bytes == 2 * WINDOW
    assert exchange.outbound.unsent_bytes > 0


def test_a_burst_is_bounded_and_then_it_is_the_turn_of_others(sender, forwarding, new):
    exchange = new()
    for _ in range(BURST + 3):
        push(sender, exchange, b"x", last=False)
    sender.pump(exchange, 0.0)
    assert len(chunks(forwarding)) == BURST
    sender.on_link_ready(1, lambda: False, 0.0)
    assert len(chunks(forwarding)) == 3
    sender.on_link_ready(1, lambda: False, 0.0)
    assert forwarding.take() == []


def test_more_is_pulled_when_half_of_the_send_buffer_is_free(sender, forwarding, new):
    exchange = new()
    push(sender, exchange, bytes(SEND_BUFFER + 4 * WINDOW), last=False)
    sender.pump(exchange, 0.0)
    exchange.outbound.pull_pending = True
    pulls = []
    while exchange.outbound.unsent_bytes:
        acknowledge(sender, exchange, exchange.outbound.next, 0.0, exchange.outbound.limit + CHUNK)
        forwarding.take()
        sender.pump(exchange, 0.0)
        if Pull(exchange.outbound_id) in forwarding.take():
            pulls.append(exchange.outbound.unsent_bytes)
    assert len(pulls) == 1
    assert SEND_BUFFER // 2 - CHUNK <= pulls[0] <= SEND_BUFFER // 2


# --- a link that lags ---------------------------------------------------------------------------------------------


def test_a_stream_waits_while_its_link_lags_and_goes_on_when_it_is_ready(sender, forwarding, new):
    forwarding.open("b", 2, lagging=True)
    exchange = new()
    push(sender, exchange)
    assert sender.pump(exchange, 0.0)
    assert sender._blocked
    assert forwarding.take() == []
    forwarding.open("b", 2)
    sender.on_link_ready(7, lambda: False, 1.0)
    assert forwarding.take() == []
    sender.on_link_ready(1, lambda: False, 1.0)
    assert len(chunks(forwarding)) == 1
    assert not sender._blocked


def test_streams_blocked_on_a_link_go_on_in_turn_until_it_lags_again(sender, forwarding, new):
    exchanges = [new() for _ in range(4)]
    forwarding.open("b", 2, lagging=True)
    for exchange in exchanges:
        for _ in range(BURST + 1):
            push(sender, exchange, last=False)
        sender.pump(exchange, 0.0)
    forwarding.open("b", 2)
    order = []
    for _ in range(4):
        lags = iter([False, False, True])
        sender.on_link_ready(1, lambda: next(lags), 1.0)  # noqa: B023
        order += dict.fromkeys(chunk.message_id[-1] for chunk in chunks(forwarding))
    assert order == [1, 2, 3, 4, 1, 2, 3, 4]


def test_a_stream_stops_in_the_middle_of_a_burst_when_its_link_begins_to_lag(sender, forwarding, new):
    exchange = new()
    for _ in range(4):
        push(sender, exchange, b"x", last=False)
    originate = forwarding.originate

    def originate_and_lag(*arguments):
        originate(*arguments)
        forwarding.open("b", 2, lagging=len(forwarding.effects) == 2)

    forwarding.originate = originate_and_lag
    sender.pump(exchange, 0.0)
    assert len(chunks(forwarding)) == 2
    assert sender._blocked


def test_streams_blocked_on_a_link_that_is_gone_take_another(sender, forwarding, new):
    forwarding.open("b", 2, lagging=True)
    exchange = new()
    push(sender, exchange)
    sender.pump(exchange, 0.0)
    forwarding.open("b", 2, link=5)
    sender.link_down(1, 1.0)
    sender.link_down(1, 1.0)
    assert len(chunks(forwarding)) == 1
    assert not sender._blocked


def test_an_exchange_that_is_over_is_blocked_on_no_link(sender, forwarding, new):
    forwarding.open("b", 2, lagging=True)
    exchange, other = new(), new()
    for each in (exchange, other):
        sender.add(each, 0.0)
        push(sender, each, b"12345")
        sender.pump(each, 0.0)
    sender.remove(exchange, 0.0)
    assert exchange.outbound_id not in sender.timers
    assert sender.waiting_bytes == 5
    forwarding.open("b", 2)
    sender.on_link_ready(1, lambda: False, 0.0)
    assert [chunk.message_id for chunk in chunks(forwarding)] == [other.message_id]
