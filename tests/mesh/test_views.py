"""Routes, nodes, links, counts and events of a node, as methods of its controller."""

import asyncio

import pytest

import zmesh
from zmesh.testing import Mesh, eventually


async def test_the_tables_of_a_node_are_methods_of_its_controller():
    async with Mesh.chain("a", "b", "c") as mesh:
        a = mesh["a"]
        await a.wait_for("c", timeout=60)
        await eventually(lambda: len(a.capabilities()) == 3)
        await eventually(lambda: len(a.edges()) == 2)
        assert a.nodes() == ["a", "b", "c"]
        assert [(route.destination, route.hops) for route in a.routes()] == [("b", 1), ("c", 2)]
        assert [(one, other) for one, other, _ in a.edges()] == [("a", "b"), ("b", "c")]
        assert "echo:echo" in a.capabilities()["c"]
        assert a.duplicates() == []


async def test_links_name_both_ends():
    async with Mesh.chain("a", "b") as mesh:
        (near,), (far,) = mesh["a"].links(), mesh["b"].links()
        assert (near.node, far.node) == ("b", "a")
        assert near.dialled != far.dialled
        assert all(link.where and link.cost >= 100 and not link.ephemeral for link in (near, far))
        await eventually(lambda: mesh["a"].links()[0].rtt is not None)


async def test_stats_count_what_is_under_way():
    async with Mesh.chain("a", "b") as mesh:
        a, b = mesh["a"], mesh["b"]
        assert a.stats().requests == b.stats().serving == 0
        work = asyncio.create_task(a.node.drain())
        a.send(b"60", "b", "sleep:execute", lambda reply: None)
        await eventually(lambda: b.stats().serving == 1)
        assert (a.stats().requests, b.stats().replying) == (1, 1)
        await eventually(lambda: not a.stats().is_handing_over)
        assert a.stats().waiting_bytes == 0
        assert a.stats().counters["link_up"] == 1
        work.cancel()


async def test_a_message_without_a_route_is_an_event_where_it_was_sent():
    async with Mesh("hub", tcp=True) as mesh:
        leaf = zmesh.Controller(zmesh.Config(node_id="leaf", peers=mesh["hub"].listening, ephemeral=True))
        seen = []
        leaf.watch(seen.append)
        async with leaf:
            await leaf.wait_for("hub", timeout=90)
            with pytest.raises(zmesh.Unreachable):
                await leaf.request("hug", "echo:echo", b"x", route_timeout=0.5)
            await eventually(lambda: any(isinstance(event, zmesh.DestinationUnreachable) for event in seen))
    up, returned = seen[0], next(event for event in seen if isinstance(event, zmesh.DestinationUnreachable))
    assert isinstance(up, zmesh.LinkUp)
    assert (up.node, up.where) == ("hub", mesh_url(leaf))
    assert (returned.node, returned.reason, returned.near) == ("hug", "no_route", ("hub",))


def mesh_url(leaf):
    return leaf.config.peers[0]


async def test_an_observer_sees_an_event_before_a_reader_of_the_stream():
    async with Mesh("a") as mesh:
        seen = []
        mesh["a"].watch(seen.append)
        async with mesh["a"].events() as events:
            await mesh.add("b", "a")
            event = await anext(events)
            assert event in seen


async def test_a_node_that_does_not_come_is_unreachable_after_the_timeout():
    async with Mesh("a") as mesh:
        with pytest.raises(zmesh.Unreachable, match="no route to 'b' after 0.05 s"):
            await mesh["a"].wait_for("b", timeout=0.05)


def test_every_public_name_can_be_imported():
    for name in zmesh.__all__:
        assert getattr(zmesh, name) is not None
