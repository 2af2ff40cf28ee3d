"""Leaves by the hundred, one after the other, at nodes that are processes of their own: their memory stays flat."""

import asyncio

import zmesh
from zmesh.testing import eventually

WARM_UP, LEAVES, AT_ONCE = 600, 400, 8
FLAT_BYTES = 1024 * 1024
COUNT = """
import zmesh.core.delivery.peers, zmesh.core.delivery.server, zmesh.core.wire
zmesh.core.delivery.peers.PEER_IDLE_TIMEOUT = 0.2  # instead of 30 s, or 5, so that it happens in the test
zmesh.core.delivery.server.LEAF_ROUTE_TIMEOUT = 0.2

async def forget_frames(mesh):
    # What was read and written of late is kept, up to 4096 of each kind: bounded, and not yet full here.
    for thing in vars(zmesh.core.wire).values():
        if hasattr(thing, "cache_clear"):
            thing.cache_clear()

async def tables(mesh):
    engine = mesh.node.engine
    return [len(engine.neighbours), *engine.routing.counts().values(), len(engine.forwarding),
            *engine.stats().values()]
"""


async def visit(urls, number):
    """What a command does: join, ask, leave."""
    config = zmesh.Config(node_id=f"leaf-{number}", peers=[urls[number % len(urls)]], ephemeral=True)
    async with zmesh.Controller(config) as leaf:
        answer = await leaf.request("far", "echo:echo", bytes(2000), timeout=60)
        assert len(answer) == 2000


async def visits(urls, first, count):
    for start in range(first, first + count, AT_ONCE):
        await asyncio.gather(*(visit(urls, number) for number in range(start, start + AT_ONCE)))


async def calm(nodes):
    """Wait until the nodes know of their neighbours and each other, and of nothing and nobody else."""
    for node, links in zip(nodes, (1, 2, 1), strict=True):
        wanted = [links, 2, 2, 3, 0, 0, links, 0, 0, 0, 0, 0]

        async def is_calm(node=node, wanted=wanted):
            return await node.ask("tables(mesh)") == wanted

        await eventually(is_calm)
        await node.ask("forget_frames(mesh)")


async def test_four_hundred_one_shot_leaves_leave_no_trace_in_the_memory_of_the_nodes(process):
    home = await process("home", more=COUNT)
    middle = await process("middle", more=COUNT, peers=home.listening)
    far = await process("far", more=COUNT, peers=middle.listening)
    nodes, urls = [home, middle, far], [home.listening[0], middle.listening[0]]
    await visits(urls, 0, WARM_UP)
    await calm(nodes)
    before = [node.memory("VmRSS") for node in nodes]
    await visits(urls, WARM_UP, LEAVES)
    await calm(nodes)
    grown = [node.memory("VmRSS") - was for node, was in zip(nodes, before, strict=True)]
    assert max(grown) < FLAT_BYTES, grown
