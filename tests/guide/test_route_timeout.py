"""How long a request waits for a route may be said with it."""

import asyncio
import threading

import pytest

import zmesh
import zmesh.sync
from tests.waiting import WITHIN
from zmesh.testing import Mesh

WAYS = ["request", "send", "request_many", "ping_once"]


@pytest.fixture
async def mesh():
    """A node that waits an hour for a route; nobody else is there."""
    async with Mesh("a", route_timeout=3600) as alone:
        yield alone["a"]


async def ask(mesh, way, **limits):
    """Ask a node that is not there, in one of the ways; the reason that this ended in."""
    if way == "send":
        ended = asyncio.get_running_loop().create_future()
        mesh.send(None, "nobody", "echo:echo", lambda reply: ended.set_result(reply.header["reason"]), **limits)
        return await ended
    if way == "request_many":
        async for answer in mesh.request_many(["nobody"], "echo:echo", **limits):
            return answer.error.code
    with pytest.raises(zmesh.ExchangeError) as raised:
        await (
            mesh.request("nobody", "echo:echo", **limits) if way == "request" else mesh.ping_once("nobody", **limits)
        )
    return raised.value.code


@pytest.mark.parametrize("way", WAYS)
async def test_a_request_ends_by_the_route_timeout_that_it_names(mesh, way):
    assert await ask(mesh, way, timeout=3600, route_timeout=0.05) == "unreachable"


@pytest.mark.parametrize("wrong", [-1, float("inf"), float("nan"), 10**30, "1", True, b""])
@pytest.mark.parametrize("way", WAYS)
async def test_a_route_timeout_that_can_t_be_kept_is_refused_at_the_call(mesh, way, wrong):
    with pytest.raises((TypeError, zmesh.ConfigError)):
        await ask(mesh, way, route_timeout=wrong)
    assert mesh.node.engine.stats()["requests_made"] == 0


def test_programs_without_asyncio_may_say_it_too():
    with zmesh.sync.Controller(zmesh.Config(node_id="a", route_timeout=3600)) as mesh:
        with pytest.raises(zmesh.Unreachable):
            mesh.request("nobody", "echo:echo", timeout=3600, route_timeout=0.05)
        with pytest.raises(zmesh.Unreachable):
            mesh.ping_once("nobody", 3600, route_timeout=0.05)
        with pytest.raises(zmesh.Unreachable):
            with mesh.stream("nobody", "echo:echo", timeout=3600, route_timeout=0.05) as replies:
                list(replies)
        (answer,) = mesh.request_many(["nobody"], "echo:echo", timeout=3600, route_timeout=0.05)
        assert isinstance(answer.error, zmesh.Unreachable)
        ended = threading.Event()
        mesh.send(None, "nobody", "echo:echo", lambda reply: ended.set(), timeout=3600, route_timeout=0.05)
        assert ended.wait(WITHIN)
