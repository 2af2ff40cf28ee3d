import pytest

from zmesh.core.delivery.congestion import CHUNK, MAX_WINDOW
from zmesh.core.delivery.exchange import Exchange
from zmesh.core.delivery.flow_control import ACK_EVERY, CHUNK_OVERHEAD, WINDOW
from zmesh.core.delivery.peers import ACK_DELAY, Peers
from zmesh.core.delivery.receiver import MAX_WINDOW_GROWTH, Receiver
from zmesh.core.effects import Report
from zmesh.core.timers import Alarm
from zmesh.core.wire import FLAG_BLOCKED, AckItem, Chunk, Kind


@pytest.fixture
def peers(forwarding):
    return Peers(forwarding, Alarm(), lambda peer, before, now: None)


@pytest.fixture
def receiver(forwarding, peers):
    return Receiver(forwarding, peers)


@pytest.fixture
def new(peers):
    """Make an exchange with node `b`."""
    count = 0

    def new():
        nonlocal count
        count += 1
        return Exchange(count.to_bytes(16, "big"), peers.open_exchange("b"), 2, request=True)

    return new


def chunk(sequence, flags=0):
    return Chunk(bytes(16), False, sequence, flags, 0, 0, 2, 1, None, None)


def read(receiver, exchange, ready, now=0.0):
    for _, body, _ in ready:
        receiver.release_credit(exchange, len(body) + CHUNK_OVERHEAD, now)


def test_chunks_in_order_are_delivered_and_acknowledged_after_a_delay(receiver, peers, forwarding, new):
    exchange = new()
    exchange.unreachable_since = 1.0
    ready = receiver.accept(exchange, chunk(0), b"body", 3)
    receiver.schedule_ack(exchange, ready, 2.0)
    assert ready == [(chunk(0), b"body", 3)]
    assert exchange.unreachable_since is None
    assert forwarding.take() == []
    peers.tick(2.0 + ACK_DELAY)
    (sent,) = forwarding.frames(Kind.ACK)
    assert sent.value.acks == (AckItem(exchange.message_id, False, 1, WINDOW),)


def test_a_copy_is_acknowledged_at_once(receiver, forwarding, new):
    exchange = new()
    for _ in range(2):
        ready = receiver.accept(exchange, chunk(0), b"", 1)
        receiver.schedule_ack(exchange, ready, 0.0)
    assert ready is None
    assert len(forwarding.frames(Kind.ACK)) == 1


def test_credit_is_announced_when_a_quarter_of_the_window_was_read(receiver, forwarding, new):
    exchange = new()
    receiver.release_credit(exchange, ACK_EVERY - 1, 0.0)
    assert forwarding.take() == []
    receiver.release_credit(exchange, 1, 0.0)
    assert len(forwarding.frames(Kind.ACK)) == 1


def test_a_chunk_beyond_the_limit_is_dropped_with_a_report(receiver, forwarding, new):
    exchange = new()
    assert receiver.accept(exchange, chunk(0), bytes(WINDOW - CHUNK_OVERHEAD), 1)
    assert receiver.accept(exchange, chunk(1), b"", 1) is None
    assert forwarding.take() == [Report("frame_dropped", "b", None, "past_window")]
    assert exchange.inbound.expected == 1


def test_the_window_of_a_reader_that_keeps_up_doubles_when_the_sender_is_blocked(receiver, forwarding, new):
    exchange = new()
    widths = []
    for sequence in range(7):
        ready = receiver.accept(exchange, chunk(sequence, FLAG_BLOCKED), bytes(CHUNK), 1)
        receiver.schedule_ack(exchange, ready, 0.0)
        read(receiver, exchange, ready)
        receiver.check([exchange])
        widths.append(exchange.inbound.window // WINDOW)
    assert widths == [min(2**count, MAX_WINDOW // WINDOW) for count in range(1, 8)]
    assert exchange.inbound.window == MAX_WINDOW
    limits = [item.limit for sent in forwarding.frames(Kind.ACK) for item in sent.value.acks]
    assert limits[0] == 2 * WINDOW
    assert limits == sorted(limits)


def test_the_window_of_a_reader_that_lags_stays_as_it_is(receiver, new):
    exchange = new()
    half = WINDOW // 2 // (CHUNK + CHUNK_OVERHEAD)
    for sequence in range(half + 1):
        receiver.accept(exchange, chunk(sequence), bytes(CHUNK), 1)
    receiver.accept(exchange, chunk(half + 1, FLAG_BLOCKED), bytes(CHUNK), 1)
    assert exchange.inbound.window == WINDOW


def test_the_windows_of_a_node_grow_up_to_a_limit_in_all(receiver, new):
    exchanges = [new() for _ in range(40)]
    for sequence in range(4):
        for exchange in exchanges:
            read(receiver, exchange, receiver.accept(exchange, chunk(sequence, FLAG_BLOCKED), b"", 1))
    receiver.check(exchanges)
    widened = sum(exchange.inbound.window - WINDOW for exchange in exchanges)
    assert MAX_WINDOW_GROWTH - MAX_WINDOW < widened <= MAX_WINDOW_GROWTH
    for exchange in exchanges[:-1]:
        receiver.close(exchange)
    last = exchanges[-1]
    receiver.check([last])
    for sequence in range(4, 9):
        read(receiver, last, receiver.accept(last, chunk(sequence, FLAG_BLOCKED), b"", 1))
    assert last.inbound.window == MAX_WINDOW


def test_a_wrong_count_of_window_growth_is_found(receiver, new):
    exchange = new()
    exchange.inbound.window += 1
    with pytest.raises(AssertionError, match="windows grew"):
        receiver.check([exchange])
