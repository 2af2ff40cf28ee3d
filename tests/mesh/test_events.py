"""What a node reports while it runs: its events, its routes, and whether a node can be reached."""

import asyncio
import contextlib
import time

import pytest

import zmesh
from zmesh.core.effects import Report
from zmesh.core.message import Address
from zmesh.core.neighbours.links import MAX_RTT_PENALTY
from zmesh.observe.events import (
    MAX_UNREAD,
    DialFailed,
    DuplicateId,
    EventsLost,
    LinkLost,
    LinkRefused,
    LinkUp,
    NodeJoined,
    NodeLeft,
    RouteChanged,
)
from zmesh.testing import Mesh, eventually


async def first(events, kind):
    """The next event of that kind."""
    async with asyncio.timeout(60):
        async for event in events:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"the stream ended without a {kind.__name__}")


# --- events ---------------------------------------------------------------------------------------------------------


async def test_a_neighbour_that_comes_and_goes_is_reported_as_typed_values():
    async with Mesh("a") as mesh:
        events = mesh["a"].events()
        await mesh.add("b", "a")
        up = await first(events, LinkUp)
        assert up == LinkUp("b", 1, ephemeral=False, where=mesh["a"].listening[0])
        assert await first(events, NodeJoined) == NodeJoined("b")
        changed = await first(events, RouteChanged)
        assert (changed.node, changed.route.next_hop, changed.route.hops) == ("b", "b", 1)
        assert 100 <= changed.route.metric <= 100 + MAX_RTT_PENALTY
        await mesh.remove("b")
        assert await first(events, LinkLost) == LinkLost("b", 1, "they left: leaving")
        assert await first(events, NodeLeft) == NodeLeft("b")


async def test_a_far_node_joins_and_leaves_without_a_link():
    async with Mesh.chain("a", "b") as mesh:
        events = mesh["a"].events()
        await mesh.add("c", "b")
        assert await first(events, NodeJoined) == NodeJoined("c")
        await mesh.remove("c")
        assert await first(events, NodeLeft) == NodeLeft("c")


async def test_a_refused_link_and_a_peer_that_does_not_answer_are_reported(free_port):
    async with Mesh("hub", tcp=True) as mesh:
        twin = zmesh.Controller(zmesh.Config(node_id="hub", peers=mesh["hub"].listening))
        events = twin.events()
        async with twin:
            refused = await first(events, LinkRefused)
            assert refused.node is None  # who dialled was refused before it heard a name
            assert "the id 'hub' is taken" in refused.reason
            assert (await first(events, DuplicateId)).node == "hub"
            twin.add_peer(f"tcp://127.0.0.1:{free_port}")
            failed = await first(events, DialFailed)
            assert failed == DialFailed(f"tcp://127.0.0.1:{free_port}", "connection refused", "refused")


async def test_the_stream_ends_with_the_node_and_with_its_own_closing():
    mesh = zmesh.Controller(zmesh.Config(node_id="a"))
    async with mesh:
        left = mesh.events()
        async with mesh.events() as closed:
            pass
        assert [event async for event in closed] == []
    assert [event async for event in left] == []
    assert [event async for event in mesh.events()] == []


async def test_a_slow_reader_gets_the_number_of_lost_events():
    async with Mesh("a") as mesh:
        events = mesh["a"].events()
        for number in range(MAX_UNREAD + 5):
            events.note(Report("node_left", str(number)))
        assert await anext(events) == EventsLost(5)
        assert await anext(events) == NodeLeft("5")


# --- reachable ------------------------------------------------------------------------------------------------------


async def test_a_node_that_comes_later_is_waited_for():
    async with Mesh.chain("a", "b") as mesh:
        waiting = asyncio.create_task(mesh["a"].wait_for("c", timeout=60))
        await mesh.add("c", "b")
        await waiting
        assert mesh["a"].node.router.next_hop("c") == "b"
        await mesh["a"].wait_for("c")
        await mesh["a"].wait_for("a", timeout=0.0)


async def test_a_node_that_does_not_come_is_an_error_that_names_the_others():
    async with Mesh.chain("a", "edge-7") as mesh:
        with pytest.raises(zmesh.Unreachable) as caught:
            await mesh["a"].wait_for("edge-9", timeout=0.1)
        text = (
            "no route to 'edge-9' after 0.1 s; 'edge-9' was never known to 'a'; "
            "known nodes: edge-7 (did you mean 'edge-7'?)"
        )
        assert (str(caught.value), caught.value.node) == (text, "edge-9")


async def test_an_error_says_what_the_dials_are_doing(free_port):
    url = f"tcp://127.0.0.1:{free_port}"
    async with Mesh("hub", tcp=True) as mesh:
        edge = zmesh.Controller(zmesh.Config(node_id="edge", peers=[url], route_timeout=0.1))
        events = edge.events()
        async with edge:
            reason = (await first(events, DialFailed)).reason
            with pytest.raises(zmesh.Unreachable, match=rf"; peer {url}: {reason} for \d+ s$"):
                await edge.wait_for("hub", timeout=0.0)
            with pytest.raises(zmesh.Unreachable, match=rf"; peer {url}: {reason} for \d+ s$"):
                await edge.request("hub", "echo:echo")
            mesh["hub"].enable_server([url])
            await edge.wait_for("hub", timeout=90.0)
            assert (await edge.request("hub", "echo:echo", "back")).text() == "back"
            with pytest.raises(zmesh.Unreachable, match=r"known nodes: hub$"):
                await edge.wait_for("nobody", timeout=0.0)


async def test_a_peer_that_refuses_this_node_is_reported_in_errors():
    async with Mesh("hub", tcp=True) as mesh:
        twin = zmesh.Controller(zmesh.Config(node_id="hub", peers=mesh["hub"].listening))
        events = twin.events()
        async with twin:
            await first(events, LinkRefused)
            with pytest.raises(
                zmesh.Unreachable, match=r"; peer tcp://.*: refused this node: the id 'hub' is taken .* \d+ s$"
            ):
                await twin.wait_for("edge", timeout=0.0)


async def test_a_node_that_has_left_is_distinguished_from_one_that_was_never_known():
    async with Mesh.chain("a", "b", "c") as mesh:
        await mesh.remove("c")
        await eventually(lambda: "c" not in mesh["a"].node.engine.nodes())
        with pytest.raises(zmesh.Unreachable, match=r"; 'c' left \d+ s ago, last heard by 'b'$"):
            await mesh["a"].wait_for("c", timeout=0.0)


async def test_a_node_that_is_closed_waits_no_more():
    mesh = zmesh.Controller(zmesh.Config(node_id="a"))
    async with mesh:
        waiting = asyncio.create_task(mesh.wait_for("b"))
        await asyncio.sleep(0)
    with pytest.raises(zmesh.Closed):
        await waiting


async def test_an_ephemeral_node_asks_the_node_itself():
    async with Mesh.chain("a", "b") as mesh:
        leaf = zmesh.Controller(zmesh.Config(node_id="cli", peers=mesh["a"].listening, ephemeral=True))
        async with leaf:
            await leaf.wait_for("b", timeout=60)
            with pytest.raises(zmesh.Unreachable, match="'nobody' was never known to 'a'"):
                await leaf.wait_for("nobody", timeout=4.0)


# --- routes ---------------------------------------------------------------------------------------------------------


async def test_routes_tell_how_far_how_old_and_why():
    began = time.monotonic()
    async with Mesh.ring("a", "b", "c", "d") as mesh:
        router = mesh["a"].node.router
        await eventually(lambda: all(route.rtt is not None for route in router.routes()))
        cheap = {"b": (100, 1), "c": (200, 2), "d": (100, 1)}

        def all_are_cheap():  # once no round trip is slow, as on a busy machine, which may make either path the cheaper
            found = {each.destination: (each.metric, each.hops) for each in router.routes()}
            other = {"b": "d", "d": "b"}[router.route("c").next_hop]
            return found == cheap and router.route("c").why == f"as cheap as over {other}, and chosen first"

        await eventually(all_are_cheap)
        routes = {route.destination: route for route in router.routes()}
        assert routes["b"].why in ("the only one offered", "the cheapest")  # as soon as d has advertised its routes
        assert all(0 < each <= time.monotonic() - began for route in routes.values() for each in (route.rtt, route.age))
        assert router.route("c").next_hop == routes["c"].next_hop
        assert router.route("a") is None


async def test_a_route_without_another_says_so():
    async with Mesh.chain("a", "b") as mesh:
        assert [route.why for route in mesh["a"].node.router.routes()] == ["the only one offered"]


# --- duplicates -----------------------------------------------------------------------------------------------------


async def test_two_nodes_of_one_name_far_apart_are_known_everywhere_and_swap_no_reply():
    async with Mesh.chain("twin", "a", "b") as mesh, Mesh.chain("c", "twin") as other:
        nodes = [mesh["twin"], mesh["a"], mesh["b"], other["c"], other["twin"]]
        events = [node.events() for node in nodes]
        mesh["b"].add_peer(other["c"].listening[0])
        asked = [
            (node.stream(to, "echo:echo", f"{number}", timeout=2.0).send(), f"{number}")
            for number in range(20)
            for node, to in ((mesh["twin"], "c"), (other["twin"], "a"))
        ]
        found = await asyncio.gather(*(first(stream, DuplicateId) for stream in events))
        assert {event.node for event in found} == {"twin"}
        assert "another node called 'twin' is alive in the mesh, linked to " in found[0].text
        assert all(node.node.router.duplicates() == ["twin"] for node in nodes)
        for request, sent in asked:
            with contextlib.suppress(zmesh.TimedOut, zmesh.Unreachable, zmesh.NodeRestarted, zmesh.Cancelled):
                assert (await request.only_payload()).text() == sent
        assert mesh["a"].node.engine.routing.route(Address("twin")) is not None


@pytest.mark.parametrize(
    "call",
    [
        lambda router: router.get_nodes(),
        lambda router: router.get_edges(),
        lambda router: router.node_capabilities(),
        lambda router: router.next_hop("hub"),
        lambda router: router.route("hub"),
        lambda router: router.routes(),
        lambda router: router.duplicates(),
    ],
    ids=["get_nodes", "get_edges", "node_capabilities", "next_hop", "route", "routes", "duplicates"],
)
async def test_an_ephemeral_node_says_that_it_has_no_tables_and_whom_to_ask(call):
    async with Mesh("hub") as mesh:
        config = zmesh.Config(node_id="leaf", peers=mesh["hub"].listening, ephemeral=True)
        async with zmesh.Controller(config) as leaf:
            await leaf.wait_for("hub", 90)
            with pytest.raises(zmesh.ConfigError, match=r"'leaf' is ephemeral .* by request\('hub', 'zmesh:routes'\)"):
                call(leaf.node.router)
            answer = await leaf.request("hub", "zmesh:routes")
            assert answer.json()["capabilities"].keys() == {"hub"}
