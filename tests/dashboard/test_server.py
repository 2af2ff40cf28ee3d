"""The dashboard as it runs: an HTTP server on loopback, and what asks the mesh meanwhile."""

import asyncio
import json
import socket

import httpx
import pytest

from zmesh import NodeEvent
from zmesh.dashboard import Dashboard
from zmesh.errors import NotAllowed, Unreachable


async def updates(client, until):
    """The updates of a stream up to one that is wanted."""
    async with client.stream("GET", "/api/stream", timeout=60.0) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                update = json.loads(line[6:])
                if until(update):
                    return update
    raise AssertionError("the stream has ended")


@pytest.fixture
async def served(fixed_mesh):
    async with Dashboard(fixed_mesh) as dashboard:
        url, _, query = dashboard.url.partition("?")
        async with httpx.AsyncClient(base_url=url, params=query) as client:
            yield dashboard, client


async def test_a_page_that_is_open_gets_the_states_of_all_nodes(served):
    _, client = served
    seen = set()

    def until(update):
        seen.update(row["id"] for row in update["nodes"] if row["sampled"] is not None)
        return seen == {"hub", "a", "b", "c"}

    await updates(client, until)


async def test_while_no_page_is_open_no_node_is_asked_for_its_state(served, fixed_mesh, eventually):
    dashboard, _ = served
    await eventually(lambda: len(dashboard.model.lines.mesh) >= 2)
    assert not [node for what, node in fixed_mesh.asked if what == "status"]


async def test_a_node_that_leaves_is_red_at_the_event_of_the_host(served, fixed_mesh):
    _, client = served
    await updates(client, lambda update: update["nodes"])
    fixed_mesh.new_events.put_nowait(NodeEvent(2, 4e9, "node_left", "a", "", "a left the mesh"))
    await updates(client, lambda update: any(row["id"] == "a" and not row["up"] for row in update["nodes"]))


async def test_a_mesh_that_does_not_answer_is_said_to_be_out_of_date(served, fixed_mesh):
    _, client = served
    await updates(client, lambda update: update["contact"]["ok"])
    fixed_mesh.errors[("members", "hub")] = Unreachable("no route to 'hub'")
    update = await updates(client, lambda update: not update["contact"]["ok"])
    assert update["contact"]["text"] == "no route to 'hub'"


async def test_a_node_that_may_not_be_asked_is_shown_with_the_reason(served, fixed_mesh):
    fixed_mesh.errors[("status", "b")] = NotAllowed("node 'b' does not let 'hub' call zmesh:status")
    _, client = served
    await updates(client, lambda update: any(row["problem"] for row in update["nodes"] if row["id"] == "b"))


async def test_a_port_that_is_taken_is_an_error(fixed_mesh):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError, match="in use"):
            async with Dashboard(fixed_mesh, port=taken.getsockname()[1]):
                pass


async def test_it_closes_while_pages_are_open(fixed_mesh):
    async with Dashboard(fixed_mesh) as dashboard:
        url, _, query = dashboard.url.partition("?")
        async with httpx.AsyncClient(base_url=url, params=query) as client:
            reading = asyncio.ensure_future(updates(client, lambda update: False))
            await updates(client, lambda update: True)
            await dashboard.__aexit__(None, None, None)
            with pytest.raises((AssertionError, httpx.HTTPError)):
                await reading
