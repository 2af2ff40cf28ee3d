"""All streams to one node share the window of its path: what many of them keep in flight, and how they share it."""

import math

import pytest

from zmesh.core.delivery.congestion import CHUNK, INITIAL_WINDOW, MIN_CHUNK, MIN_WINDOW, SMALL_SHARE
from zmesh.core.delivery.flow_control import WINDOW
from zmesh.core.message import Stream
from zmesh.core.wire import MAX_BODY
from zmesh.errors import Overloaded
from zmesh.requests.admission import Admission
from zmesh.testing.simulator import Simulator

SLOW = 1.25e6
"""10 Mbit/s, in bytes a second."""
BODY = bytes(64 * 1024)


@pytest.fixture
def chain():
    """The simulator, and its nodes a, hub and b in a row; the second link is a slow one."""
    sim = Simulator(audit=100)
    a, hub, b = sim.chain("a", "hub", "b")
    assert sim.settle()
    for wire in sim.wires:
        if b in wire.ends:
            wire.bandwidth, wire.delay = SLOW, 0.005
    return sim, a, hub, b


def path_to(node, other):
    return node.engine.delivery._peers.get_or_create(other).path


def watched(sim, read, seconds):
    """The highest value of `read()` in that time."""
    highest = read()
    until = sim.now + seconds
    while sim.now < until:
        sim.run(0.01)
        highest = max(highest, read())
    return highest


def test_two_thousand_requests_to_a_node_behind_a_slow_link_take_one_window_and_count_until_they_have_arrived(chain):
    sim, a, hub, b = chain
    admission = Admission("a", a.engine, 32 << 20)
    b.plugin = lambda node, job: None
    sent = []
    with pytest.raises(Overloaded, match="max_waiting_bytes"):
        for _ in range(2_000):
            admission.check()
            sent.append(a.send("b", BODY))
    assert 0.9 * (32 << 20) // len(BODY) < len(sent) <= (32 << 20) // len(BODY)
    sent += [a.send("b", BODY) for _ in range(2_000 - len(sent))]
    assert a.engine.waiting_bytes == 2_000 * len(BODY)
    congestion = path_to(a, "b").congestion
    assert watched(sim, lambda: congestion.in_flight, 5.0) <= INITIAL_WINDOW
    assert hub.engine.forwarding.queued_bytes < INITIAL_WINDOW + 2_000 * 256
    assert 2_000 * len(BODY) - a.engine.waiting_bytes == pytest.approx(5.0 * SLOW, rel=0.35)
    assert congestion.window < 2 * MIN_WINDOW
    with pytest.raises(Overloaded):
        admission.check()
    for outcome in sent:
        a.cancel(outcome)
    assert sim.run_until(lambda: not a.engine.waiting_bytes, 30.0)


def test_streams_to_one_node_progress_at_the_same_rate(chain):
    sim, a, _hub, b = chain
    count, size = 6, 50 * len(BODY)
    for index in range(count):
        a.send("b", bytes([index]) * size)
    sim.run_until(lambda: any(job.complete for job in b.jobs.values()), 60.0)
    assert len(b.jobs) == count
    received = [len(job.payload) for job in b.jobs.values()]
    assert max(received) - min(received) <= INITIAL_WINDOW  # the first had the path to itself when it began


def test_a_small_request_passes_large_ones_that_wait_for_the_window(chain):
    sim, a, _hub, _b = chain
    large = [a.send("b", BODY) for _ in range(400)]
    sim.run(3.0)
    small = a.send("b", b"small")
    started = sim.now
    assert sim.run_until(lambda: small.eof is not None, 10.0)
    assert sum(outcome.eof is not None for outcome in large) < 200
    in_flight = path_to(a, "b").congestion.in_flight
    assert sim.now - started < 2 * (in_flight + MIN_WINDOW) / SLOW


def test_small_requests_without_end_leave_the_larger_part_of_the_window_to_large_ones(chain):
    sim, a, _hub, _b = chain
    large = [a.send("b", BODY) for _ in range(100)]
    congestion = path_to(a, "b").congestion
    for _ in range(3_000):
        a.send("b", b"x")
    assert watched(sim, lambda: congestion.small_in_flight, 3.0) <= INITIAL_WINDOW / SMALL_SHARE
    assert sim.run_until(lambda: all(outcome.eof is not None for outcome in large), 60.0)


def test_a_stream_that_is_not_read_does_not_hold_up_the_others_of_its_path():
    sim = Simulator()
    a, b = sim.chain("a", "b")
    assert sim.settle()
    b.unread = True
    stuck = [a.send("b", bytes(2 * WINDOW)) for _ in range(3)]
    sim.run(2.0)
    b.unread = False
    after = [a.send("b", bytes(2 * WINDOW)) for _ in range(3)]
    assert sim.run_until(lambda: all(outcome.eof is not None for outcome in after), 10.0)
    assert not any(outcome.eof for outcome in stuck)
    assert path_to(a, "b").congestion.in_flight == 0


def test_streams_whose_windows_are_all_closed_probe_ever_more_seldom_and_go_on_when_they_open():
    sim = Simulator()
    a, b = sim.chain("a", "b")
    assert sim.settle()
    b.unread = True
    outcomes = [a.send("b", bytes(2 * WINDOW)) for _ in range(4)]
    sim.run(3.0)
    before = sim.frames
    sim.run(30.0)
    probes_and_keepalives = sim.frames - before
    assert probes_and_keepalives < 30 * 8
    wire = sim.wires[0]
    wire.silent = True  # the acks that open the windows are lost
    for job in b.jobs.values():
        b.do(b.engine.release_credit(Stream(job.message_id, True), WINDOW, b.now))
    sim.run(0.5)
    wire.silent = False
    b.unread = False
    assert sim.run_until(lambda: all(outcome.eof is not None for outcome in outcomes), 30.0)


@pytest.mark.parametrize(
    ("rate", "delay", "longest"), [(SLOW, 0.005, MIN_CHUNK), (20 * SLOW, 0.025, CHUNK)], ids=["10 Mbit/s", "200 Mbit/s"]
)
def test_chunks_of_a_large_payload_on_a_slow_line_let_small_requests_pass(rate, delay, longest):
    sim = Simulator(audit=50)
    a, _hub, b = sim.chain("a", "hub", "b")
    assert sim.settle()
    for wire in sim.wires:
        if b in wire.ends:
            wire.bandwidth, wire.delay = rate, delay
    large = a.send("b", bytes(int(8 * rate)))
    sim.run(4.0)
    congestion = path_to(a, "b").congestion
    assert congestion.chunk_bytes <= longest
    for _ in range(5):
        small = a.send("b", b"small")
        in_flight = congestion.in_flight
        started = sim.now
        assert sim.run_until(lambda small=small: small.eof is not None, 5.0)
        assert sim.now - started < 2 * delay + (in_flight + 2 * congestion.window) / rate
        (exchange,) = (
            each
            for each in a.engine.delivery._sender.exchanges.with_address(None)
            if each.message_id == large.message_id
        )
        assert max(len(chunk.body) for chunk in exchange.outbound.unacked.values()) <= longest
    assert large.eof is None
    assert sim.run_until(lambda: large.eof is not None, 60.0)
    assert large.replies == [bytes(int(8 * rate))]


def test_chunks_grow_to_a_megabyte_on_a_fast_path():
    sim = Simulator(audit=100)
    a, *_ = sim.chain("a", "hub", "b")
    assert sim.settle()
    for wire in sim.wires:
        wire.bandwidth, wire.delay = 1.25e9, 0.005
    congestion = path_to(a, "b").congestion
    large = a.send("b", bytes(100 << 20))
    assert watched(sim, lambda: congestion.chunk_bytes, 0.25) == MAX_BODY
    assert sim.run_until(lambda: large.eof is not None, 10.0)
    assert large.replies == [bytes(100 << 20)]


@pytest.mark.parametrize("loss", [0.02, 0.1])
def test_streams_of_one_path_arrive_whole_in_spite_of_loss(loss):
    sim = Simulator(seed=3, audit=5)
    a, _hub, _b = sim.chain("a", "hub", "b")
    assert sim.settle()
    for wire in sim.wires:
        wire.loss, wire.delay = loss, 0.01
    bodies = [bytes([index]) * (index * 40_000) for index in range(1, 10)]
    outcomes = [a.send("b", body) for body in bodies]
    assert sim.run_until(lambda: all(outcome.eof is not None for outcome in outcomes), 300.0)
    assert [outcome.replies for outcome in outcomes] == [[body] for body in bodies]


def test_the_round_trip_time_of_a_path_follows_its_changes():
    sim = Simulator()
    a, _b = sim.chain("a", "b")
    assert sim.settle()
    for delay in (0.005, 0.2, 0.002):
        sim.wires[0].delay = delay
        outcomes = [a.send("b", bytes(200_000)) for _ in range(60)]
        assert sim.run_until(lambda outcomes=outcomes: all(each.eof is not None for each in outcomes), 60.0)
        assert all(outcome.replies == [bytes(200_000)] for outcome in outcomes)
        smoothed = path_to(a, "b").rtt.smoothed
        assert smoothed is not None
        assert 2 * delay * 0.5 < smoothed < 2 * delay + 0.2
    assert math.isfinite(path_to(a, "b").congestion.rate)


def test_a_path_that_is_silent_for_a_while_gets_no_more_than_a_window_of_copies_for_each_timeout():
    sim = Simulator(audit=20)
    a, _b = sim.chain("a", "b", heartbeat=20.0)
    assert sim.settle()
    warm = [a.send("b", BODY) for _ in range(30)]
    assert sim.run_until(lambda: all(outcome.eof is not None for outcome in warm), 10.0)
    sim.wires[0].silent = True
    sent = [a.send("b", BODY) for _ in range(500)]
    before = sim.frames
    sim.run(5.0)
    assert (sim.frames - before) * len(BODY) < 6 * INITIAL_WINDOW
    sim.wires[0].silent = False
    assert sim.run_until(lambda: all(outcome.eof is not None for outcome in sent), 60.0)


def test_small_requests_that_were_lost_together_all_arrive_soon_after_the_path_is_back():
    sim = Simulator(audit=200)
    a, _b = sim.chain("a", "b", heartbeat=20.0)
    assert sim.settle()
    sim.wires[0].silent = True
    sent = [a.send("b", b"x") for _ in range(3_000)]
    sim.run(3.5)
    sim.wires[0].silent = False
    assert sim.run_until(lambda: all(outcome.eof is not None for outcome in sent), 10.0)
