"""How quickly and how quietly routes are mended, where they broke."""

import random

import networkx
import pytest

from zmesh.core import wire
from zmesh.core.wire import Kind
from zmesh.testing.simulator import Simulator

SIDE = 8
FAILURES = 10


def test_a_detour_costs_a_round_trip_to_the_neighbour_however_far_the_destination_is():
    """The last two nodes of a long chain are linked to its end, each by itself; one of them loses that link."""
    sim = Simulator()
    ids = [f"n{number}" for number in range(20)]
    sim.chain(*ids)
    sim.add("left", "right")
    lost = sim.connect("left", ids[-1], delay=0.005)
    sim.connect("right", ids[-1], delay=0.005)
    sim.connect("left", "right", delay=0.005)
    assert sim.settle()
    sim.run(5)
    numbers = [node.engine.routing.seqno for node in sim.all()]
    left = sim.nodes["left"].engine
    lost.take_down()
    sim.run(0.0101)
    assert {to: left.neighbours.get(route.link).node for to, route in left.routing.routes().items()} == dict.fromkeys(
        [*ids, "right"], "right"
    )
    assert sim.settle()
    assert [node.engine.routing.seqno for node in sim.all()] == numbers


class Grid:
    """Nodes in a square, with links of 1 to 20 ms. It counts the entries that are advertised."""

    def __init__(self, seed):
        self.sim = Simulator(seed, audit=50)
        self.graph = networkx.convert_node_labels_to_integers(networkx.grid_2d_graph(SIDE, SIDE))
        rng = random.Random(seed)
        self.sim.add(*(f"n{number}" for number in self.graph))
        self.wires = {
            (a, b): self.sim.connect(f"n{a}", f"n{b}", delay=rng.uniform(0.001, 0.020)) for a, b in self.graph.edges
        }
        self.entries = 0
        self.sim.tap = self.count
        assert self.sim.settle()
        self.sim.run(5)

    def count(self, frames):
        route = wire.read_packet(frames)
        if route.kind == Kind.UPDATE:
            self.entries += len(wire.decode_update(route.head).entries)

    def routes(self):
        return {
            (node.id, to): (route.link, route.metric)
            for node in self.sim.all()
            for to, route in node.engine.routing.routes().items()
        }

    def failed(self, strike):
        """Let something fail: the seconds until the last change, and the entries for each changed route and degree."""
        before, self.entries, since = self.routes(), 0, self.sim.now
        strike()
        self.sim.run(2)
        assert self.sim.settle()
        after = self.routes()
        nodes = {id for id, _ in after}
        changed = sum(before.get(key) != after.get(key) for key in before.keys() | after if key[0] in nodes)
        degree = 2 * len(self.wires) / len(self.graph)
        took = max(node.engine.routing.moved_at for node in self.sim.all()) - since
        self.assert_shortest()
        return took, self.entries / changed / degree

    def assert_shortest(self):
        graph = networkx.Graph()
        for node in self.sim.all():
            graph.add_weighted_edges_from((node.id, link.node, link.cost) for link in node.engine.links())
        for node in self.sim.all():
            lengths = networkx.single_source_dijkstra_path_length(graph, node.id)
            del lengths[node.id]
            assert {to: route.metric for to, route in node.engine.routing.routes().items()} == lengths


@pytest.mark.parametrize("seed", [1, 2])
def test_lost_links_are_gone_round_within_half_a_second_and_few_words_one_after_the_other(seed):
    grid = Grid(seed)
    for edge in random.Random(seed).sample(list(grid.wires), FAILURES):
        took, entries = grid.failed(grid.wires[edge].take_down)
        assert took <= 0.5, (edge, took)
        assert entries <= 3, (edge, entries)
        grid.wires[edge].bring_up()
        grid.sim.run(3)


def test_a_dead_node_is_unreachable_everywhere_within_half_a_second_without_detours():
    """A node in a corner once cost six entries for each of its routes: one of its two neighbours was waiting."""
    grid = Grid(3)
    for victim in (0, 9, 36, 60, 63):
        node = grid.sim.nodes[f"n{victim}"]
        took, entries = grid.failed(node.kill)
        assert took <= 0.5, (victim, took)
        assert entries <= 1.5, (victim, entries)
        node.restart()
        assert grid.sim.settle()
        grid.sim.run(5)
