"""The mesh as one node knows it: members, links, and why it sends where it sends."""

import threading

import pytest

import zmesh
import zmesh.sync
from tests.hostile.made_up import advertised, made_up
from zmesh.core.message import LinkId, NodeId
from zmesh.core.view import ActiveLink, Offer, OfferState
from zmesh.errors import RemoteError, TimedOut
from zmesh.operate.directives import HOP, MEMBERS, WHY
from zmesh.operate.inspection import MANY_ROWS
from zmesh.operate.members import MemberList, MeshGraph
from zmesh.operate.mesh_reader import _suspicion
from zmesh.testing import Mesh
from zmesh.testing.member import Member

WITHIN = 60.0


async def test_members_have_the_way_to_them_and_who_hears_them(eventually):
    async with Mesh.chain("a", "b", "c", tags=["gpu"]) as mesh:
        found = await mesh["a"].members(timeout=WITHIN)
        own, near, far = found.members
        assert (found.node, own.node, own.next_hop, own.hops, own.heard_by) == ("a", "a", None, 0, ("a",))
        assert (near.node, near.next_hop, near.hops, near.heard_by, near.left) == ("b", "b", 1, ("a",), None)
        assert near.rtt is not None
        assert near.heard is not None
        assert (far.node, far.next_hop, far.hops, far.heard, far.heard_by) == ("c", "b", 2, None, ("b",))
        assert (far.version, far.own_tags, far.reachable) == (zmesh.__version__, ("gpu",), True)
        await mesh["a"].request("c", "digest:sha256", bytes(8_000_000), timeout=WITHIN)
        await eventually(lambda: mesh["a"].node.engine.rtt_to("c"))
        members = (await mesh["a"].members(timeout=WITHIN)).members
        assert [member.rtt is not None for member in members] == [False, True, True]
        assert (await mesh["a"].members("c", timeout=WITHIN)).node == "c"


async def test_a_node_that_has_left_is_the_last_with_who_heard_it(eventually):
    async with Mesh.chain("a", "b", "c") as mesh:
        await eventually(lambda: "b" in str(mesh["a"].node.engine.records()["c"].neighbours))
        await mesh.remove("c")
        await eventually(lambda: "c" not in mesh["a"].nodes())
        gone = (await mesh["a"].members(timeout=WITHIN)).members[-1]
        assert (gone.node, gone.reachable, gone.next_hop, gone.hops, gone.heard_by) == ("c", False, None, None, ("b",))
        assert 0 <= gone.left < WITHIN
        await mesh.add("c", "b")
        await mesh.settle()
        assert [member.reachable for member in (await mesh["a"].members(timeout=WITHIN)).members] == [True] * 3


async def test_the_graph_has_each_link_once_with_the_cost_at_either_end(eventually):
    async with Mesh.ring("a", "b", "c") as mesh:
        records = mesh["a"].node.engine.records
        await eventually(lambda: all(len(record.neighbours) == 2 for record in records().values()))
        graph = await mesh["b"].graph("a", timeout=WITHIN)
        assert [node.node for node in graph.nodes] == ["a", "b", "c"]
        assert sorted(node.hops for node in graph.nodes) in ([0, 1, 1], [0, 1, 2])  # where a link is slow for a moment
        assert [(link.a, link.b) for link in graph.links] == [("a", "b"), ("a", "c"), ("b", "c")]
        assert all(link.cost >= 100 <= link.cost_back for link in graph.links)


async def test_why_has_the_offers_of_all_neighbours_and_who_takes_over(eventually):
    async with Mesh.ring("a", "b", "c", "d") as mesh:

        async def offered():  # a knows all nodes before both of its neighbours have told a good way to the far one
            found = await mesh["c"].why("c", "a", timeout=WITHIN)
            return found if [offer.state for offer in found.offers] == ["selected", "feasible"] else None

        found = await eventually(offered)
        assert (found.node, found.destination, found.state) == ("a", "c", "reachable")
        chosen, other = found.offers
        assert (chosen.neighbour, chosen.cost, other.neighbour) == (found.next_hop, found.cost, found.following)
        assert other.text.startswith("feasible, and costs ")
        assert chosen.cost == chosen.advertised + chosen.link_cost
        assert (
            200 <= found.feasibility_distance <= found.cost
        )  # the least that it was: round trips may have become slow
        own = await mesh["a"].why("a", timeout=WITHIN)
        assert (own.state, own.offers, own.silent) == ("self", (), ())


@pytest.mark.parametrize(
    ("suspect", "advertised", "text"),
    [
        (True, 0, "; its link is suspect (silent for 2.5 s), which adds 1000000 to its cost"),
        (False, 1_000_100, "; a link beyond b is suspect, which adds 1000000 to its cost"),
        (False, 100, ""),
    ],
)
def test_the_cost_of_a_suspect_link_is_explained(suspect, advertised, text):
    link = ActiveLink(LinkId(1), NodeId("b"), True, False, 100, 0.01, suspect, 10.0, 0, None)
    metric = 100 + advertised + 1_000_000 * suspect
    offer = Offer(LinkId(1), NodeId("b"), OfferState.FEASIBLE, 1, advertised, advertised, 100, metric, 2)
    assert _suspicion(offer, link, 12.5) == text


async def test_why_of_a_lost_node_says_who_lost_it_and_by_what_reason(eventually):
    async with Mesh.chain("a", "b", "c", tcp=True) as mesh:
        await eventually(lambda: "b" in str(mesh["a"].node.engine.records()["c"].neighbours))
        await mesh.remove("c")
        await eventually(lambda: "c" not in mesh["a"].nodes())
        found = await mesh["a"].why("c", timeout=WITHIN)
        assert (found.state, found.silent, found.next_hop) == ("left", ("b",), None)
        assert (found.lost.heard_by, found.lost.reason) == ("b", "they left: leaving")
        assert (found.lost.next_hop, found.lost.hops) == ("b", 2)
        near = await mesh["b"].why("c", timeout=WITHIN)
        assert (near.lost.reason, near.falls[0].reason) == ("they left: leaving", "they left: leaving")


async def test_why_of_a_peer_that_is_dialled_in_vain_says_so(eventually):
    async with Mesh.chain("c", "b", "a", tcp=True) as mesh:  # b dials c, and a dials b
        await eventually(lambda: "b" in str(mesh["a"].node.engine.records()["c"].neighbours))
        await mesh.remove("c")
        await eventually(lambda: "c" not in mesh["a"].nodes())
        await eventually(lambda: mesh["b"].node.telemetry.counts["dial_failed"] or "refused" in str(dials(mesh["b"])))
        found = await mesh["a"].why("c", timeout=WITHIN)
        assert found.dialling.endswith(": connection refused")


def dials(controller):
    return controller.node.transport.dials()


async def test_an_unknown_node_is_unknown_with_those_that_resemble_it():
    async with Mesh.chain("edge-7", "hub") as mesh:
        found = await mesh["hub"].why("egde-7", timeout=WITHIN)
        assert (found.state, found.near, found.lost, found.offers) == ("unknown", ("edge-7",), None, ())


@pytest.mark.parametrize("directive", [WHY, HOP])
@pytest.mark.parametrize("payload", [None, [], {}, {"destination": 7}, {"destination": "no id", "origin": "a"}])
async def test_what_names_no_node_is_refused(directive, payload):
    async with Mesh("a") as mesh:
        with pytest.raises(RemoteError):
            await mesh["a"].request("a", directive, payload, timeout=WITHIN)


async def test_pings_to_all_end_with_the_last_answer_and_name_the_last_hop_of_those_that_are_missing(eventually):
    async with Mesh.chain("a", "b", "c", "d", tcp=True, tags=["gpu"]) as mesh:
        await eventually(lambda: "c" in str(mesh["a"].node.engine.records()["d"].neighbours))
        await mesh.remove("d")
        await eventually(lambda: "d" not in mesh["a"].nodes())
        mesh["c"].node.serving.builtins.pop("zmesh:ping")
        results = {each.node: each async for each in await mesh["a"].ping_many(timeout=WITHIN)}
        assert sorted(results) == ["a", "b", "c", "d"]
        assert (results["a"].hops, results["b"].hops) == (0, 1)
        assert abs(results["b"].skew) < WITHIN
        assert "no directive 'zmesh:ping'" in results["c"].error
        assert results["c"].last_hop == "c"
        assert (results["d"].last_hop, results["d"].left) == ("c", True)
        assert "last heard by 'c': they left: leaving" in results["d"].error
        tagged = [each.node async for each in await mesh["b"].ping_many("tag:gpu,!c", timeout=WITHIN)]
        assert {"a", "b"} <= {*tagged} <= {"a", "b", "d"}
        with pytest.raises(zmesh.ConfigError):
            await mesh["b"].ping_many("tag:", timeout=WITHIN)


async def test_a_named_node_that_nobody_knows_is_missing_too():
    async with Mesh.chain("a", "b") as mesh:
        (result,) = [each async for each in await mesh["a"].ping_many("nobody", timeout=3.0)]
        assert (result.node, result.rtt, result.last_hop, result.left) == ("nobody", None, "a", False)


async def test_loads_come_of_all_that_answer():
    async with Mesh.chain("a", "b", route_timeout=0.5) as mesh:
        await mesh["a"].request("b", "echo:echo", b"x", timeout=WITHIN)
        loads = {node: load async for node, load in mesh["a"].loads(["a", "b", "c"], timeout=WITHIN)}
        assert loads["c"] is None
        assert (loads["b"].node, loads["b"].served, loads["b"].running) == ("b", 1, 0)
        assert min(loads["b"].bytes_in, loads["b"].uptime, loads["b"].cpu, loads["b"].memory_bytes) > 0


async def test_an_answer_that_makes_no_sense_is_a_remote_error():
    async with Mesh("a") as mesh:
        mesh["a"].node.serving.add_builtin(MEMBERS, lambda work: {"node": "a", "members": [7]})
        with pytest.raises(RemoteError, match="node 'a' answers zmesh:members with something else"):
            await mesh["a"].members(timeout=WITHIN)
        with pytest.raises(TimedOut, match="'b' was never known to 'a'"):
            await mesh["a"].graph("b", timeout=0.1)


def test_without_asyncio_all_of_it_is_the_same():
    with zmesh.sync.Controller(node_id="a") as mesh:
        assert [member.node for member in mesh.members().members] == ["a"]
        assert [node.node for node in mesh.graph().nodes] == ["a"]
        assert mesh.why("b").state == "unknown"
        with mesh.trace("a") as steps:
            assert [step.arrived for step in steps] == [True]
        assert [result.node for result in mesh.ping_many()] == ["a"]
        assert [node for node, load in mesh.loads(["a"]) if load is not None] == ["a"]


@pytest.mark.parametrize("directive", ["zmesh:members", "zmesh:graph"])
async def test_a_long_table_is_written_in_a_thread(monkeypatch, eventually, directive):
    """That of a thousand nodes takes 10 ms and more, in which the node could do nothing else."""
    writers = set()
    for kind in (MemberList, MeshGraph):

        def to_json(self, really=kind.to_json):
            writers.add(threading.get_ident())
            return really(self)

        monkeypatch.setattr(kind, "to_json", to_json)
    names = made_up(MANY_ROWS)
    async with zmesh.Controller(node_id="hub", listen=["tcp://127.0.0.1:*"]) as hub:
        assert (await hub.request("hub", directive)).json()["schema"] == f"{directive.replace(':', '.')}/1"
        assert writers == {threading.get_ident()}
        async with Member("mallory", hub.listening[0]) as member:
            await member.flood(advertised(*names))
            await eventually(lambda: len(hub.nodes()) >= MANY_ROWS, timeout=60.0)
            writers.clear()
            answer = (await hub.request("hub", directive, timeout=60)).json()
            assert answer["schema"] == f"{directive.replace(':', '.')}/1"
            assert {row["node"] for row in answer.get("members", answer.get("nodes"))} == {"hub", "mallory", *names}
            assert writers
            assert threading.get_ident() not in writers
