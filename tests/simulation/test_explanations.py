"""What explanations say of routes is true: of meshes that settle, and of what happens when a link is lost."""

import networkx
import pytest

from zmesh.core.message import NodeId
from zmesh.core.routing import OfferState
from zmesh.testing.scenario import Scenario
from zmesh.testing.simulator import Simulator

SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
def test_in_a_settled_mesh_the_selected_offer_is_that_of_the_shortest_path(seed):
    mesh = Scenario(seed, audit=64)
    mesh.settle()
    graph = mesh.graph()
    for node in mesh.nodes:
        lengths = networkx.single_source_dijkstra_path_length(graph, node.id)
        for destination in node.engine.routing.destinations():
            found = node.engine.explain(destination)
            assert found.offers[0].state is OfferState.SELECTED
            assert found.offers[0].metric == lengths[destination]
            usable = [offer.metric for offer in found.offers if offer.state is OfferState.FEASIBLE]
            assert min(usable, default=found.offers[0].metric) >= found.offers[0].metric
            assert found.offers[0].link == found.selected.link
            assert found.loss is None
            heard = {offer.neighbour for offer in found.offers} | {*found.silent}
            assert heard == {link.node for link in node.engine.links() if not link.leaf}


@pytest.mark.parametrize("seed", SEEDS)
def test_when_a_link_is_lost_each_route_over_it_becomes_what_was_announced(seed):
    mesh = Scenario(seed, audit=64, twins=False)
    mesh.settle()
    for _ in range(seed % 5):  # in the middle of what happens, too
        mesh.step()
        mesh.sim.run(0.3)
    for node in (node for node in mesh.nodes if node.alive and not node.stopped):
        engine = node.engine
        before = {destination: engine.explain(destination) for destination in engine.routing.destinations()}
        if not before:
            continue
        lost = mesh.random.choice(sorted({found.selected.link for found in before.values()}))
        engine.link_down(lost, mesh.sim.now, "cut")  # nothing else reaches this engine before it is looked at
        for destination, found in before.items():
            after = engine.routing.route(destination)
            if found.selected.link != lost:
                continue
            expected = found.following
            assert (after and (after.link, after.metric)) == (expected and (expected.link, expected.metric))
            if after is None:
                loss = engine.explain(destination).loss
                assert (loss.at, loss.metric, loss.hops) == (mesh.sim.now, found.selected.metric, found.selected.hops)
                assert loss.next_hop == found.offers[0].neighbour


def test_behind_a_broken_link_each_node_is_known_by_who_lost_it_and_since_when():
    sim = Simulator(1)
    sim.chain("a", "b", "c", "d")
    assert sim.settle()
    sim.run(3)
    wire = next(wire for wire in sim.wires if {end.id for end in wire.ends} == {"b", "c"})
    wire.take_down()
    sim.run(5)
    for name, hops in (("c", 2), ("d", 3)):
        loss = sim.nodes["a"].engine.explain(NodeId(name)).loss
        assert (loss.heard_by, loss.next_hop, loss.hops) == ("b", "b", hops)
        assert 0 < sim.now - loss.at <= 5
        assert sim.nodes["b"].engine.explain(NodeId(name)).loss.heard_by == "b"
    assert list(sim.nodes["a"].engine.losses()) == ["c", "d"] or list(sim.nodes["a"].engine.losses()) == ["d", "c"]
    wire.heal()
    assert sim.settle()
    assert sim.nodes["a"].engine.losses() == {}
