"""How quickly a mesh is right again: after losses, after a restart, after a goodbye."""

import pytest

from zmesh.core.message import Address, NodeId
from zmesh.core.neighbours.links import SUSPECT_AFTER, State
from zmesh.core.routing.advertisements import COALESCE
from zmesh.testing.scenario import SHAPES, Scenario
from zmesh.testing.simnode import SimNode
from zmesh.testing.simulator import Simulator

LOSS = 0.2
LOSSY_FOR = 15.0
HEALED_WITHIN = 5.0
SILENT_FOR = 4.0
PING_EVERY = 0.05
HEALED_AFTER_SUSPICION = 0.25
DELAY = 0.004
HOPS = 5


@pytest.mark.parametrize("shape", SHAPES)
def test_a_mesh_that_lost_a_fifth_of_all_messages_is_right_again_within_five_seconds(shape):
    for seed in range(8):  # 48 seeds in all
        mesh = Scenario(seed, count=6 + seed % 7, shape=shape, audit=8)
        for wire in mesh.wires:
            wire.loss = LOSS
        mesh.sim.run(LOSSY_FOR / 3)
        if seed % 2:
            mesh.cut(mesh.random.choice(mesh.wires))
            mesh.restart(mesh.random.choice(mesh.nodes))
        mesh.sim.run(LOSSY_FOR * 2 / 3)
        mesh.mend()
        mesh.settle(HEALED_WITHIN)


def test_a_greeting_whose_answer_was_lost_is_repeated_and_does_not_cost_the_link():
    # seed 56 of the above took 5.5 s: the listener was up, and the dialler waited for its HELLO in vain
    sim = Simulator()
    sim.add("a", "b")
    wire = sim.connect("b", "a", delay=DELAY)
    sim.run(DELAY / 2)
    wire.silent = True
    sim.run(2 * DELAY)
    states = lambda: [link.state for node in sim.all() for link in node.engine.neighbours]  # noqa: E731
    assert states() == [State.UP, State.OPENING]
    wire.silent = False
    assert sim.run_until(lambda: set(states()) == {State.UP}, 1.2)
    assert sim.settle(HEALED_WITHIN)


@pytest.mark.parametrize("fault", ["a link", "a node"])
def test_what_falls_silent_in_a_ring_is_gone_round_within_three_seconds_and_no_frame_runs_in_circles(fault):
    ids = [f"n{i}" for i in range(6)]
    for number in range(3):
        sim = Simulator(number)
        nodes = sim.add(*ids)
        wires = [sim.connect(ids[i], ids[i - 1], delay=0.001) for i in range(6)]
        assert sim.settle()
        sim.run(5 + sim.random.random())
        across = [(nodes[i], ids[(i + 3) % 6]) for i in range(6) if fault == "a link" or i % 3 != number % 3]
        if fault == "a link":
            wires[number].silent = True
        else:
            nodes[number].stopped = True
        struck, answered = sim.now, dict.fromkeys(range(len(across)), sim.now)
        gap = 0.0
        while sim.now < struck + SILENT_FOR:
            for which, (node, to) in enumerate(across):
                outcome = node.send(to)
                sim.run(PING_EVERY / len(across))
                if outcome.eof is not None:
                    gap, answered[which] = max(gap, sim.now - answered[which]), sim.now
        assert max(gap, *(sim.now - at for at in answered.values())) <= SUSPECT_AFTER + HEALED_AFTER_SUSPICION, number
        assert not [report for node in nodes for report in node.reports if report.event == "expired"]


def in_a_row() -> tuple[Simulator, list[SimNode]]:
    """Nodes in a row, up for so long that nothing is new."""
    sim = Simulator()
    ids = [f"n{i}" for i in range(HOPS + 1)]
    nodes = sim.add(*ids)
    for i in range(HOPS):
        sim.connect(ids[i + 1], ids[i], delay=DELAY)
    assert sim.settle()
    sim.run(20)
    return sim, nodes


def reached(node: SimNode, other: SimNode) -> bool:
    """True if `node` has a route to that incarnation of `other`."""
    route = node.engine.routing.route(NodeId(Address(other.id)))
    return route is not None and route.incarnation == other.engine.incarnation


@pytest.mark.parametrize("long", [False, True], ids=["at once", "after a while"])
def test_a_node_that_lost_its_sequence_number_is_reachable_within_a_round_trip_of_its_hello(long):
    sim, nodes = in_a_row()
    back = nodes[-1]
    back.options["serial"] = 1
    back.kill()
    if long:
        sim.run(2)
        assert nodes[0].engine.nodes() == {node.id for node in nodes[:-1]}
    back.restart()
    assert sim.run_until(lambda: None not in sim.wires[-1].ids, 1)
    heard = sim.now  # its HELLO is with its neighbour now
    slack = 0.001
    assert sim.run_until(lambda: reached(nodes[-2], back), 1)
    assert sim.now - heard <= 2 * DELAY + slack
    for hops, node in enumerate(reversed(nodes[:-2]), 1):
        assert sim.run_until(lambda: reached(node, back), 1)  # noqa: B023
        assert sim.now - heard <= (2 + hops) * DELAY + hops * COALESCE + slack
    outcome = nodes[0].send(str(back.id), b"welcome")
    assert sim.run_until(lambda: outcome.eof is not None, 1)
    assert outcome.replies == [b"welcome"]


def test_a_node_that_says_goodbye_is_gone_everywhere_as_fast_as_an_update_travels():
    sim, nodes = in_a_row()
    gone = nodes[-1]
    left = sim.now
    gone.do(gone.engine.close(sim.now))
    for hops, node in enumerate(reversed(nodes[:-1])):
        assert sim.run_until(lambda: gone.id not in node.engine.nodes(), 1)  # noqa: B023
        assert sim.now - left <= (1 + hops) * DELAY + hops * COALESCE + 0.001
