"""The mesh of a bundle in the simulator has the routes of the real one, and does what that would do."""

import dataclasses

import pytest

from zmesh.core.message import NodeId
from zmesh.operate import (
    Bundle,
    BundleSummary,
    LinkReport,
    LoopStatus,
    NodeReport,
    NodeStatus,
    ProcessStatus,
    WorkStatus,
    read_bundle,
)
from zmesh.operate.json_form import Seconds
from zmesh.testing import Mesh, load_bundle
from zmesh.testing.proxy import Proxy
from zmesh.testing.rebuilt import rebuild

WITHIN = 60.0


def routes_of(sim):
    """For each pair of nodes the next hop, the cost and the hops."""
    found = {}
    for node in sim.all():
        for other in sim.all():
            if node is not other:
                route = node.engine.routing.route(other.id)
                found[node.id, other.id] = node.engine.routing.neighbour(route.link), route.metric, route.hops
    return found


def hop_of(mesh, node, destination):
    """The next hop of a real node."""
    route = mesh[node].node.engine.route(NodeId(destination))
    return route.next_hop if route is not None else None


def routes_in(bundle):
    """The same as the nodes of a bundle have shown it."""
    return {
        (report.node, member.node): (member.next_hop, member.cost, member.hops)
        for report in bundle.reports.values()
        for member in report.members.members
        if member.node != report.node
    }


async def test_the_rebuilt_mesh_has_the_links_costs_and_routes_of_the_real_one(tmp_path, eventually):
    path = tmp_path / "report.tar.gz"
    async with Mesh("a", "b", "c", "d", "e", tcp=True) as mesh:
        for dialler, listener, cost in [("b", "a", 100), ("c", "b", 900), ("d", "c", 20), ("a", "d", 1000)]:
            mesh[dialler].add_peer(f"{mesh[listener].listening[0]}?cost={cost}")
        async with Proxy(mesh["d"].listening[0]) as proxy:
            proxy.slow(delay=0.04)
            mesh["e"].add_peer(proxy.url)
            await mesh.settle()
            hops = {
                ("a", "d"): "b",
                ("d", "a"): "a",
                ("b", "d"): "c",
                ("c", "a"): "d",
                ("d", "b"): "a",
                ("a", "c"): "b",
            }
            hops |= {("a", "e"): "b", ("b", "e"): "c", ("e", "b"): "d"}
            await eventually(lambda: hops == {pair: hop_of(mesh, *pair) for pair in hops})
            await eventually(lambda: any(link.cost > 150 for link in mesh["e"].node.engine.links()))
            await mesh["a"].bundle(path, timeout=WITHIN, examine=False)
    bundle, sim = read_bundle(path), load_bundle(path)
    assert sorted(sim.nodes) == ["a", "b", "c", "d", "e"]
    assert {(wire.ends[0].id, wire.ends[1].id) for wire in sim.wires} == {
        ("b", "a"), ("c", "b"), ("d", "c"), ("a", "d"), ("e", "d"),
    }  # fmt: skip
    assert sim.settle()
    sim.run(10.0)
    shown = routes_in(bundle)
    simulated = routes_of(sim)
    for pair, (_, cost, hops) in shown.items():  # on a busy machine the penalties were moving
        assert abs(simulated[pair][1] - cost) <= 150 * hops, (pair, simulated[pair], shown[pair])
    assert {pair: hop for pair, (hop, *_) in simulated.items()} == {pair: hop for pair, (hop, *_) in shown.items()}
    (wire,) = (wire for wire in sim.wires if wire.ends[0].id == "e")
    assert wire.delay >= 0.02


def status_of(node, *links):
    """The status of a node with these links: neighbour, whether dialled, cost, round-trip time."""
    work, loop = WorkStatus(0, 1, {}, 0, 0, 0), LoopStatus(Seconds(0), Seconds(0), 0)
    process = ProcessStatus(1, "host", "3.11.7", 0, None, 0, None, 1, Seconds(0))
    shown = tuple(
        LinkReport(other, "x", dialled, "up", Seconds(1), cost=cost, rtt=rtt) for other, dialled, cost, rtt in links
    )
    return NodeReport(node, NodeStatus(node, "1", "0", 0.0, Seconds(0), (), (), 1, 0, shown, 0, 0, work, process, loop))


def test_each_end_of_a_simulated_link_has_the_cost_that_it_has_shown_with_the_penalty_for_its_round_trips():
    a = status_of("a", ("b", True, 180, 0.060), ("b", True, 500, None), ("c", False, 70, 0.030))
    b = status_of("b", ("a", False, 97, 0.060), ("a", False, 600, None))
    reports = {"a": a, "b": b, "c": NodeReport("c")}
    sim = rebuild(Bundle(BundleSummary(0.0, "a", ("a", "b"), {}, {}, {}), reports))
    assert len(sim.wires) == 3
    assert sim.settle()
    sim.run(10.0)
    costs = {id: sorted((link.node, link.cost) for link in node.engine.links()) for id, node in sim.nodes.items()}
    assert costs == {"a": [("b", 180), ("b", 500), ("c", 70)], "b": [("a", 97), ("a", 600)], "c": [("a", 70)]}


async def test_a_node_that_has_left_is_there_and_can_be_started_and_its_peer_is_down(tmp_path, eventually):
    path = tmp_path / "report.tar.gz"
    async with Mesh("hub", "edge", tcp=True) as mesh:
        mesh["hub"].add_peer(mesh["edge"].listening[0])
        await mesh.settle()
        await mesh.remove("edge")
        await eventually(lambda: mesh["hub"].node.router.get_nodes() == ["hub"])
        await mesh["hub"].bundle(path, examine=False)
    sim = load_bundle(path)
    hub, edge = sim.nodes["hub"], sim.nodes["edge"]
    assert (hub.alive, edge.alive) == (True, False)
    assert sim.settle()
    assert hub.engine.nodes() == {"hub"}
    edge.start()
    (wire,) = sim.wires
    wire.bring_up()
    assert sim.run_until(lambda: hub.engine.nodes() == {"hub", "edge"})


async def test_of_nodes_that_were_not_asked_it_has_what_the_others_know(tmp_path):
    path = tmp_path / "report.tar.gz"
    async with Mesh.chain("a", "b", "c", "d", tcp=True) as mesh:
        await mesh["a"].bundle(path, "a", examine=False)
    sim = load_bundle(path)
    assert sim.settle()
    found = {pair: (route[0], route[2]) for pair, route in routes_of(sim).items()}  # costs are those that were measured
    assert (found["a", "d"], found["d", "a"]) == (("b", 3), ("c", 3))


async def test_clocks_and_the_settings_of_the_core_are_those_of_the_report(tmp_path):
    path = tmp_path / "report.tar.gz"
    async with Mesh.chain("a", "b", heartbeat=0.5, allow={"zmesh:settings": ["*"]}) as mesh:
        await mesh["a"].bundle(path, examine=False)
    bundle = read_bundle(path)
    report = bundle.reports["b"]
    skewed = dataclasses.replace(report, status=dataclasses.replace(report.status, skew=3600.0))
    sim = rebuild(dataclasses.replace(bundle, reports={**bundle.reports, "b": skewed}))
    assert sim.nodes["b"].clock.epoch - bundle.summary.time == 3600.0
    assert sim.nodes["b"].options["heartbeat"] == 0.5
    assert sim.settle()
    assert sim.nodes["a"].engine.route(NodeId("b")) is not None


def test_a_bundle_of_nothing_is_a_mesh_of_nothing():
    summary = BundleSummary(0.0, "a", (), {}, {}, {})
    assert rebuild(Bundle(summary, {})).nodes == {}
    assert sorted(rebuild(Bundle(summary, {"a": NodeReport("a")})).nodes) == ["a"]
    with pytest.raises(FileNotFoundError):
        load_bundle("/nowhere")
