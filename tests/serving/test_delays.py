"""Work that has not begun, since others have all threads: the answers to its client's probes say so."""

import threading

import pytest

import zmesh
from zmesh.testing import Mesh, eventually


@pytest.fixture
async def mesh():
    """A leaf, which probes each second, and a node with one thread."""
    async with Mesh("far", tcp=True, max_workers=1) as nodes:
        far = nodes["far"]
        config = zmesh.Config(node_id="leaf", ephemeral=True, peers=far.listening)
        async with zmesh.Controller(config) as leaf:
            await leaf.wait_for("far")
            yield leaf, far


async def test_a_request_that_waits_for_a_thread_is_said_to_until_it_has_one(mesh):
    leaf, far = mesh
    goes_on = threading.Event()
    far.register("t:holds", lambda work: goes_on.wait())
    first = leaf.stream("far", "t:holds").send()
    await eventually(lambda: len(far.node.serving.runner) == 1)
    second = leaf.stream("far", "t:holds").send()
    waits = "node 'far': t:holds has not begun, other requests have all threads (max_workers is 1)"
    await eventually(lambda: second.obstacle == waits)
    assert first.obstacle == ""
    goes_on.set()
    for request in (first, second):
        assert (await request.only_payload()).value() is True
