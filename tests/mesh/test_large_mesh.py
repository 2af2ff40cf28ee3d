"""Two hundred nodes in one process: they converge, and every node reaches every other."""

import asyncio
import random

from zmesh.testing import Mesh, eventually

NODES = 200
EXTRA_LINKS = 60
SEED = 20


def links(rng):
    """A random tree in which old nodes have more links, as meshes that grow have, and some links across."""
    names = [f"n{number:03d}" for number in range(NODES)]
    ends = [names[0]]
    found = set()
    for name in names[1:]:
        peer = rng.choice(ends)
        found.add((name, peer))
        ends += [name, peer]
    while len(found) < NODES - 1 + EXTRA_LINKS:
        one, other = sorted(rng.sample(names, 2), reverse=True)
        found.add((one, other))
    return names, sorted(found)


async def test_two_hundred_nodes_converge_and_every_node_reaches_every_other():
    names, edges = links(random.Random(SEED))
    # All share one loop here, so that a probe of each link every second would be most of what it does.
    async with Mesh(heartbeat=10.0) as mesh:
        for name in names:
            await mesh.add(name)
        for dialler, listener in edges:
            await mesh.connect(dialler, listener)
        await mesh.settle(timeout=240)
        await eventually(lambda: routes_agree(mesh, names), timeout=240)
        # A request and its reply use the routes of all nodes on the path, in both directions: so an eighth will do.
        for index, name in enumerate(names):
            others = names[index::8]
            pongs = await asyncio.gather(*(mesh[name].ping_once(other, timeout=240) for other in others))
            assert [pong.node for pong in pongs] == others
        assert not any(mesh[name].node.telemetry.counts["link_lost"] for name in names)


def routes_agree(mesh, names):
    """Follow the next hops of all 40,000 pairs: each path takes as many hops as its route says."""
    for destination in names:
        hops = {destination: 0}
        for name in names:
            path = []
            while name not in hops:
                assert name not in path, f"a loop on the way to {destination}: {path}"
                path.append(name)
                name = mesh[name].node.router.next_hop(destination)
                if name is None:
                    return False
            for distance, passed in enumerate(reversed(path), hops[name] + 1):
                hops[passed] = distance
        for name in names:
            route = mesh[name].node.engine.routing.route(destination)
            if (route.hops if route else 0) != hops[name]:
                return False
    return True
