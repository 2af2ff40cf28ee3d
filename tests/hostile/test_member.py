"""The hostile member itself: a node takes it for a neighbour, keeps its link, and hears all that it says."""

import time

from zmesh.core import wire
from zmesh.core.wire import Kind
from zmesh.testing import eventually


async def test_a_member_is_a_neighbour_that_has_a_route_and_a_record(victim, member):
    node = victim()
    await member(node)
    await node.until(lambda counts: counts["nodes"] == 2 and counts["records"] == 2)


async def test_a_member_keeps_its_link_by_answering_probes(victim, member, pings):
    """For ten heartbeats; without answers it would lose it after three."""
    heartbeat = 0.4
    node = victim(heartbeat=heartbeat)
    mallory = await member(node)
    beside, until = await pings(node), time.monotonic() + 10 * heartbeat
    while time.monotonic() < until:
        await beside.more(10)
    assert mallory.links_lost == 0


async def test_a_node_answers_a_member(victim, member):
    node = victim()
    mallory = await member(node)
    mallory.send(mallory.chunk("victim", b"x", last=True))
    await eventually(lambda: [heard for heard in mallory.heard if heard.source == "victim"])


async def test_a_flood_arrives_whole(victim, member):
    node = victim()
    mallory = await member(node)
    expired = wire.Expired(Kind.CHUNK, "victim", "nobody")
    assert await mallory.flood(mallory.routed(Kind.EXPIRED, "victim", expired) for _ in range(2_000)) == 2_000
    assert await node.wait_reported("expired", 2_000) == 2_000


async def test_a_member_that_leaves_is_forgotten(victim, member):
    node = victim()
    mallory = await member(node)
    await node.until(lambda counts: counts["nodes"] == 2)
    await mallory.leave()
    await node.until(lambda counts: counts["nodes"] == 1 and counts["links"] == 0)


async def test_honest_pings_are_measured(victim, pings):
    beside = await pings(victim())
    await beside.more(20)
    assert beside.failed == []
    assert 0 < beside.at(0.5) <= beside.at(0.99) <= max(beside.seconds)
