"""What a link costs follows its round-trip time, and routes follow that: soon enough, and not too often."""

import pytest

from zmesh.core.limits import DEFAULT_COST
from zmesh.core.message import LinkId, NodeId
from zmesh.core.neighbours.links import COST_STEP, rtt_penalty
from zmesh.core.routing.cost_damping import DELAY_MAX
from zmesh.testing.simnode import SimNode
from zmesh.testing.simulator import Simulator
from zmesh.testing.simwire import Wire

HERE, THERE = NodeId("here"), NodeId("there")
TEN_MINUTES = 600.0


def two_paths(seed: int, delay: float, jitter: float) -> tuple[SimNode, list[Wire]]:
    """`here` and `there`, with two equal paths between them; each frame takes `delay` +- `jitter` of it."""
    sim = Simulator(seed, audit=1000)
    sim.add(HERE, "upper", "lower", THERE)
    pairs = [(HERE, "upper"), ("upper", THERE), (HERE, "lower"), ("lower", THERE)]
    wires = [sim.connect(*pair, delay=delay * (1 - jitter), jitter=2 * jitter * delay) for pair in pairs]
    assert sim.settle()
    sim.run(5)
    return sim.nodes[HERE], wires


def next_hop(node: SimNode) -> LinkId:
    """The link that `here` reaches `there` over."""
    route = node.engine.routing.route(THERE)
    assert route is not None
    return route.link


def along(node: SimNode, wires: list[Wire]) -> list[Wire]:
    """The two wires of the path in use."""
    return wires[:2] if node.wires[next_hop(node)][0] is wires[0] else wires[2:]


@pytest.mark.parametrize("delay", [0.005, 0.02, 0.05, 0.1])
def test_of_two_equal_paths_with_jitter_the_one_in_use_changes_less_than_once_in_ten_minutes(delay):
    changes, seeds = 0, range(4)
    for seed in seeds:
        node, _ = two_paths(seed, delay, 0.2)
        before = len(node.reports)
        node.sim.run(TEN_MINUTES)
        changes += sum(report.event == "route_changed" and report.node == THERE for report in node.reports[before:])
    assert changes < len(seeds)


@pytest.mark.parametrize("delay", [0.0025, 0.005, 0.02])
def test_a_path_that_becomes_ten_times_slower_is_left_within_five_seconds(delay):
    for seed in range(8):
        node, wires = two_paths(seed, delay, 0.1)
        before = next_hop(node)
        wire = along(node, wires)[seed % 2]
        wire.delay, wire.jitter = 10 * wire.delay, 10 * wire.jitter
        assert node.sim.run_until(lambda: next_hop(node) != before, 5.0), seed  # noqa: B023


def test_a_path_is_not_left_for_a_slow_moment_and_costs_what_it_did_when_it_is_fast_again():
    node, wires = two_paths(1, 0.005, 0.1)
    usual, (wire, _) = next_hop(node), along(node, wires)
    link = node.engine.neighbours.get(usual)
    wire.delay = 0.5
    node.sim.run(1.5)
    wire.delay = 0.002
    node.sim.run(20)
    assert next_hop(node) == usual
    wire.delay = 0.1
    assert node.sim.run_until(lambda: next_hop(node) != usual, 5)
    assert link.cost > DEFAULT_COST
    wire.delay = 0.002
    assert node.sim.run_until(lambda: link.cost == DEFAULT_COST, 5)


def test_a_cost_ends_up_near_what_the_round_trip_time_asks_for():
    for delay in (0.001, 0.01, 0.03, 0.045, 0.2):
        node, wires = two_paths(3, 0.002, 0.1)
        for wire in wires:
            wire.delay, wire.jitter = delay, 0.0
        node.sim.run(30)
        for link in node.engine.links():
            assert abs(link.cost - DEFAULT_COST - rtt_penalty(2 * delay)) < COST_STEP


def test_a_hub_whose_link_costs_all_swing_advertises_seldom_and_the_final_costs():
    sim = Simulator(5, audit=1000)
    hub = sim.add(HERE, *(f"n{i}" for i in range(24)))[0]
    wires = [sim.connect(HERE, f"n{i}", delay=0.001) for i in range(24)]
    assert sim.settle()
    sim.run(10)
    before, seconds = hub.engine.routing.record(HERE).serial, 60
    for second in range(seconds):
        for wire in wires[second % 4 :: 4]:
            wire.delay = 0.05 - wire.delay
        sim.run(1)
    updates = hub.engine.routing.record(HERE).serial - before
    assert seconds / DELAY_MAX - 2 < updates < seconds / DELAY_MAX + 6
    sim.run(5 + DELAY_MAX)
    for link in hub.engine.links():
        assert hub.engine.routing.route(link.node).metric == link.cost
        assert abs(link.cost - DEFAULT_COST - rtt_penalty(2 * hub.wires[link.id][0].delay)) < COST_STEP
