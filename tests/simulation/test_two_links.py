"""Two links to one neighbour: the better carries, and the other takes over."""

import pytest

from zmesh.core.message import Address, NodeId
from zmesh.core.wire import Frames, Kind, decode_packet
from zmesh.testing.simexchange import Outcome
from zmesh.testing.simulator import Simulator
from zmesh.testing.simwire import Wire

DELAY = 0.002


class Counted:
    """The frames that one end of a wire sends, by kind."""

    def __init__(self, wire: Wire, end: int) -> None:
        self.kinds: list[Kind] = []
        send = wire.send

        def count(from_end: int, frames: Frames) -> bool:
            if from_end == end:
                self.kinds.append(Kind(decode_packet(frames).kind))
            return send(from_end, frames)

        wire.send = count  # type: ignore[method-assign]


def doubled(first: int, second: int) -> tuple[Simulator, Wire, Wire, Counted]:
    """`far` beside `left`, which has two links to `right`, and the frames that `left` sends to `far` from here on."""
    sim = Simulator()
    sim.add("left", "right", "far")
    one = sim.connect("left", "right", delay=DELAY, cost=first)
    two = sim.connect("left", "right", delay=DELAY, cost=second)
    third = sim.connect("far", "left", delay=DELAY)
    assert sim.settle()
    sim.run(5)
    return sim, one, two, Counted(third, 1)


def carrying(sim: Simulator) -> Wire:
    route = sim.nodes["left"].engine.routing.route(NodeId(Address("right")))
    assert route is not None
    return sim.nodes["left"].wires[route.link][0]


@pytest.mark.parametrize("costs", [(100, 300), (300, 100)])
def test_the_better_of_two_links_carries(costs):
    sim, one, two, _ = doubled(*costs)
    better, other = (one, two) if costs[0] < costs[1] else (two, one)
    mine, idle = Counted(better, 0), Counted(other, 0)
    outcomes = [sim.nodes["far"].send("right", bytes(100_000)) for _ in range(5)]
    assert sim.run_until(lambda: all(outcome.eof for outcome in outcomes), 2)
    assert mine.kinds.count(Kind.CHUNK) >= 10
    assert Kind.CHUNK not in idle.kinds


@pytest.mark.parametrize("costs", [(100, 100), (100, 300)])
def test_the_other_link_takes_over_without_a_lost_message_and_without_a_change_of_routes_elsewhere(costs):
    sim, one, two, counted = doubled(*costs)
    assert carrying(sim) is one
    far, right = sim.nodes["far"], sim.nodes["right"]
    before = len(far.reports)
    sent: list[Outcome] = []

    def send() -> None:
        sent.extend((sim.nodes["left"].send("right", b"near"), far.send("right", b"far"), right.send("far", b"back")))
        sim.after(0.001, send)

    send()
    sim.run(0.1)
    one.take_down()
    assert carrying(sim) is two
    sim.run(0.1)
    cut = list(sent)
    assert sim.run_until(lambda: all(outcome.eof for outcome in cut), 2)
    assert {outcome.eof.reason or "eof" for outcome in cut if outcome.eof} == {"eof"}
    assert all(outcome.replies for outcome in cut)
    assert {report.event for report in far.reports[before:]} <= {"link_synced"}
    assert counted.kinds.count(Kind.UPDATE) == (costs[0] != costs[1])
    one.bring_up()
    assert sim.run_until(lambda: carrying(sim) is one, 2) is (costs[0] != costs[1])
    assert {report.event for report in far.reports[before:]} <= {"link_synced"}


def test_what_waits_for_a_full_link_that_is_lost_takes_the_other_one_at_once():
    sim, one, two, _ = doubled(100, 100)
    left, far = sim.nodes["left"], sim.nodes["far"]
    one.room = 0
    outcomes = [far.send("right", b"%d" % i) for i in range(20)]
    sim.run(2 * DELAY)
    assert len(sim.nodes["right"].jobs) == 0
    assert left.engine.forwarding.queued_bytes > 0
    cut = sim.now
    one.take_down()
    assert sim.run_until(lambda: all(outcome.eof for outcome in outcomes), 1)
    assert sim.now - cut <= 3 * DELAY + 0.001
    assert carrying(sim) is two
