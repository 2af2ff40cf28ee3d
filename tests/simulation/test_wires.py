"""The simulator's connections differ by direction, and end as real ones do: each end finds out by itself."""

import pytest

from zmesh.core.wire import Kind, decode_packet
from zmesh.testing.simulator import Simulator


def pair(**options):
    sim = Simulator()
    left, right = sim.add("left", "right")
    wire = sim.connect("left", "right", **options)
    assert sim.settle()
    sim.run(2)
    return sim, left, right, wire


def arrived(sim, outcome, limit=20.0):
    return sim.run_until(lambda: outcome.eof is not None, limit) and not outcome.eof.code


def test_each_direction_has_a_delay_of_its_own():
    sim, left, right, _wire = pair(delay=(0.001, 0.05))
    heard = []
    right.plugin = lambda node, job: heard.append(sim.now)
    began = sim.now
    left.send("right", b"x")
    sim.run(0.5)
    assert heard[0] - began == pytest.approx(0.001)
    left.plugin = right.plugin
    began = sim.now
    right.send("left", b"x")
    sim.run(0.5)
    assert heard[1] - began == pytest.approx(0.05)


def test_a_bandwidth_holds_up_what_is_sent_in_its_direction_only():
    sim, left, right, wire = pair()
    wire.directions[0].bandwidth = 100_000.0
    began = sim.now
    assert arrived(sim, right.send("left", bytes(1)))
    assert sim.now - began < 0.1
    right.plugin = lambda node, job: node.reply(job, b"got it", eof=None)
    began = sim.now
    left.send("right", bytes(200_000))
    assert sim.run_until(lambda: any(job.complete for job in right.jobs.values()), 10)
    assert sim.now - began == pytest.approx(2.0, rel=0.2)


def test_frames_keep_their_order_whatever_delays_them():
    sim, left, right, wire = pair()
    wire.bandwidth = 50_000.0
    wire.jitter = 0.3
    got = []
    right.plugin = lambda node, job: got.append(bytes(job.payload))
    for number in range(20):
        left.send("right", b"%02d" % number)
    wire.delay = 0.0001
    sim.run(5)
    assert got == sorted(got)
    assert len(got) == 20


@pytest.mark.parametrize("deaf", [0, 1])
def test_work_runs_once_although_acknowledgements_are_lost_in_one_direction(deaf):
    sim, left, right, wire = pair()
    wire.directions[deaf].loss = 0.5
    outcomes = [left.send("right", b"%d" % number) for number in range(30)]
    assert sim.run_until(lambda: all(outcome.eof for outcome in outcomes), 120)
    assert [outcome.eof.code for outcome in outcomes] == [0] * 30
    assert all(right.runs[outcome.message_id] == 1 for outcome in outcomes)


@pytest.mark.parametrize("deaf", [0, 1])
def test_a_unidirectional_link_is_lost_at_both_ends_and_used_no_more(deaf):
    sim, left, right, wire = pair()
    wire.directions[deaf].silent = True
    assert sim.run_until(lambda: right.id not in left.engine.nodes() and left.id not in right.engine.nodes(), 10)
    sim.run(20)
    assert right.id not in left.engine.nodes()
    wire.directions[deaf].silent = False
    assert sim.settle(15)


def test_copies_of_acknowledgements_and_chunks_change_nothing():
    sim, left, right, wire = pair()
    for direction in wire.directions:
        direction.copies = 1.0
    kinds = []
    hear = type(right.engine).receive

    class Heard(type(right.engine)):
        """An engine that records its calls."""

        def receive(self, link, frames, now):
            kinds.append(decode_packet(frames).kind)
            return hear(self, link, frames, now)

    right.engine.__class__ = Heard
    outcomes = [left.send("right", bytes(200_000)) for _ in range(5)]
    assert sim.run_until(lambda: all(outcome.eof for outcome in outcomes), 30)
    assert [outcome.replies for outcome in outcomes] == [[bytes(200_000)]] * 5
    assert all(right.runs[outcome.message_id] == 1 for outcome in outcomes)
    assert kinds.count(Kind.CHUNK) == 2 * 5 * 4
    assert kinds.count(Kind.PROBE) <= sim.now + 5


@pytest.mark.parametrize("lags", [(0.0, 0.5), (0.5, 0.0), (0.2, 0.7), (0.7, 0.2)])
def test_a_request_in_flight_when_a_connection_broke_arrives_and_runs_once(lags):
    sim, left, right, wire = pair(delay=0.05)
    outcome = left.send("right", b"x")
    wire.cut(lags=lags)
    assert arrived(sim, outcome)
    assert right.runs[outcome.message_id] == 1
    assert sim.settle(5)
    assert sim.run_until(lambda: len(right.wires) == len(left.wires) == 1, 5)


def test_a_listener_that_has_not_noticed_has_the_old_link_beside_the_next():
    sim, left, right, wire = pair()
    left.lose_power()
    left.start()
    wire.dial()
    assert sim.run_until(lambda: len(right.wires) == 2, 0.01)
    assert len(left.wires) == 1
    assert sim.settle(5)
    assert len(right.wires) == 1
    assert arrived(sim, right.send("left", b"x"))


def test_a_machine_without_power_is_missed_after_three_heartbeats_and_back_after_its_start():
    sim, left, right, _wire = pair()
    right.lose_power()
    sim.run(1.5)
    assert right.id in left.engine.nodes()
    assert sim.run_until(lambda: right.id not in left.engine.nodes(), 2)
    right.restart()
    assert sim.settle(10)
    left.lose_power()
    sim.run(0.5)
    left.restart()  # before anybody has missed it
    assert sim.settle(10)
    assert arrived(sim, right.send("left", b"x"))


def test_a_listener_that_hangs_up_throws_away_what_still_comes_and_the_dialler_finds_out():
    sim, left, right, wire = pair()
    (link,) = right.wires
    wire.hang_up(wire.session, 1, 0.0)
    right.do(right.engine.link_down(link, right.now, "hung up"))
    sim.run(1.0)
    assert not right.wires
    assert len(left.wires) == 1
    assert sim.settle(10)


def test_a_connection_that_the_other_machine_has_forgotten_is_reset_as_soon_as_something_is_sent():
    sim, left, right, _wire = pair()
    right.lose_power()
    right.start()
    sim.run(1.2)
    assert any(report.event == "link_lost" and "reset" in report.detail for report in left.reports)
