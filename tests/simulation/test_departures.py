"""What the mesh knows of nodes that have left, or were refused, for those who ask or operate it."""

import re

import pytest

from zmesh.testing.simexchange import Job
from zmesh.testing.simnode import SimNode
from zmesh.testing.simulator import Simulator


@pytest.fixture
def diamond() -> Simulator:
    """`home` and `edge` with `north` and `south` between them, and a command that hangs on `home`."""
    sim = Simulator()
    sim.add("home", "north", "south", "edge", route_timeout=5)
    sim.add("cli", leaf=True, route_timeout=5)
    for one, other in (("north", "home"), ("south", "home"), ("edge", "north"), ("edge", "south"), ("cli", "home")):
        sim.connect(one, other)
    assert sim.settle()
    sim.run(3)
    return sim


@pytest.mark.parametrize(("first", "last"), [("north", "south"), ("south", "north")])
@pytest.mark.parametrize("client", ["home", "cli"])
def test_the_node_that_kept_its_link_longest_is_named_as_the_last_that_heard(
    diamond: Simulator, client: str, first: str, last: str
) -> None:
    wire = next(wire for wire in diamond.wires if {end.id for end in wire.ends} == {"edge", first})
    wire.take_down()
    diamond.run(3)
    diamond.nodes["edge"].kill()
    diamond.run(10)
    outcome = diamond.nodes[client].send("edge", timeout=2.0)
    assert diamond.run_until(lambda: outcome.eof is not None, 10)
    assert outcome.eof is not None
    assert outcome.eof.reason == "unreachable"
    assert re.search(rf"'edge' left 1[12] s ago, last heard by {last!r}$", outcome.eof.error)


def test_a_command_hears_that_a_name_was_never_known_to_its_home(diamond: Simulator) -> None:
    outcome = diamond.nodes["cli"].send("egde")
    assert diamond.run_until(lambda: outcome.eof is not None, 10)
    assert outcome.eof is not None
    text = "the last node on the path was 'home' (did you mean 'edge'?); 'egde' was never known to 'home'"
    assert outcome.eof.error == f"no route to 'egde' after 5 s; {text}"


def halves(node: SimNode, job: Job) -> None:
    """Answer with the first of two replies, and never with the second."""
    node.reply(job, b"first", 1)


@pytest.mark.parametrize("client", ["home", "cli"])
@pytest.mark.parametrize("how", ["killed", "cut off", "restarted"])
def test_half_a_stream_of_a_node_that_is_gone_ends_by_the_route_timeout(
    diamond: Simulator, client: str, how: str
) -> None:
    """Not by the timeout of the whole exchange: the mesh knows that the node has left."""
    edge = diamond.nodes["edge"]
    edge.plugin = halves
    outcome = diamond.nodes[client].send("edge", timeout=600.0, route_timeout=2.0)
    assert diamond.run_until(lambda: outcome.replies, 10)
    at = diamond.now
    if how == "killed":
        edge.kill()
    elif how == "restarted":
        edge.restart()
    else:
        for wire in [wire for wire in diamond.wires if edge in wire.ends]:
            wire.take_down()
    assert diamond.run_until(lambda: outcome.eof is not None, 20)
    assert outcome.eof is not None
    assert outcome.eof.reason == ("node_restarted" if how == "restarted" else "unreachable")
    assert outcome.ended_at - at < 8.0
    if how != "restarted":
        assert re.search(r"'edge' left \d+(\.\d+)? s ago", outcome.eof.error), outcome.eof.error


@pytest.mark.parametrize("earlier", [True, False])
def test_a_duplicate_id_at_another_hub_is_reported_by_all_and_the_later_node_closes(earlier: bool) -> None:
    sim = Simulator()
    if earlier:
        second = sim.nodes["twin-2"] = SimNode(sim, "twin", {})
        sim.run(5)
    sim.chain("twin", "hub", "other")
    sim.run(5)
    first = sim.nodes["twin"]
    if not earlier:
        second = sim.nodes["twin-2"] = SimNode(sim, "twin", {})
    sim.connect("twin-2", "other")
    others = [sim.nodes[name] for name in ("twin", "hub", "other")]
    later = first if earlier else second

    def names(node: SimNode) -> bool:
        return any(report.event == "duplicate_id" for report in node.reports)

    assert sim.run_until(lambda: any(map(names, sim.nodes.values())), 10)
    assert sim.run_until(lambda: any(report.event == "id_taken" for report in later.reports), 5), "of knowing"
    assert sim.run_until(lambda: all(map(names, others)), 10)
    sim.run(10)
    taken = {
        name
        for name, node in (("first", first), ("second", second))
        if any(report.event == "id_taken" for report in node.reports)
    }
    assert taken == {"first" if earlier else "second"}
    for node in others:
        record = node.engine.routing.record(sim.nodes["other"].id)
        assert record is not None
        assert {one.node for one in record.refused} == {"twin"}


def test_work_does_not_run_again_for_a_sender_that_was_cut_off_until_it_was_forgotten() -> None:
    """Its `route_timeout` is longer than others remember it, so it sends again what has run long ago."""
    sim = Simulator()
    sim.add("a", route_timeout=120)
    sim.add("b")
    sim.nodes["b"].plugin = lambda node, job: None  # which never ends
    wire = sim.connect("a", "b")
    assert sim.settle()
    wire.directions[1].silent = True
    outcome = sim.nodes["a"].send("b")
    sim.run(0.01)
    wire.directions[0].silent = True
    sim.run(80)
    for direction in wire.directions:
        direction.silent = False
    assert sim.run_until(lambda: outcome.eof is not None, 60)
    assert outcome.eof is not None
    assert outcome.eof.reason == "unreachable"
    assert list(sim.nodes["b"].runs.values()) == [1]
