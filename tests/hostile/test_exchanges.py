"""Members that open exchanges without end: the node stays small and answers others, and all is well when they leave."""

import pytest

from zmesh.core.wire import Kind
from zmesh.testing import eventually

MEBIBYTE = 1024 * 1024
COUNT = 100_000
BOUND = 160 * MEBIBYTE
"""What a node at its usual limits may take up more than before; 12,000 requests of one peer need about 5 kB each."""

SMALL = {"services": 120, "services_per_neighbour": 80, "services_per_peer": 40}


def overloaded(mallory):
    """How many final words have come to a member that say that there was no room."""
    return sum(heard.kind is Kind.CHUNK and b"overloaded" in heard.head for heard in mallory.heard)


@pytest.mark.timeout(1800)
async def test_a_hundred_thousand_requests_that_are_opened_and_left_take_up_no_more_than_the_limit(
    victim, member, pings
):
    node = victim(heartbeat=60.0, route_timeout=3600.0)  # however slow the machine is, it gives nothing up meanwhile
    beside = await pings(node)
    mallory = await member(node)
    before = node.memory("VmRSS")
    opened = await mallory.flood(mallory.chunk("victim", b"begun") for _ in range(COUNT))
    assert opened == COUNT
    refused = COUNT - 12_000
    assert await node.wait_reported("overloaded:services_per_peer", refused, timeout=900.0) == refused
    counts = await node.counts()
    assert 12_000 <= counts["services"] <= 12_000 + 40  # pings are among them until the last word is acknowledged
    await beside.more(20)
    assert beside.failed == []
    assert node.memory("VmHWM") - before < BOUND
    assert mallory.links_lost == 0


async def test_others_are_served_while_a_member_has_all_that_it_may(victim, member, honest):
    node = victim(limits=SMALL)
    mesh = await honest(node)
    await mesh.wait_for("victim", timeout=90)
    mallory = await member(node)
    await node.until(lambda counts: counts["nodes"] == 3)  # only who can be reached is answered
    await mallory.flood(mallory.chunk("victim", b"begun") for _ in range(200))
    assert await node.wait_reported("overloaded:services_per_peer", 160) == 160
    await eventually(lambda: overloaded(mallory))
    for number in range(30):
        assert (await mesh.request("victim", "echo:echo", b"%d" % number)).readall() == b"%d" % number


async def test_sources_that_are_made_up_get_no_more_than_the_link_that_they_come_on(victim, member, honest):
    node = victim(limits={**SMALL, "peers": 120, "peers_per_neighbour": 90})
    mesh = await honest(node)
    await mesh.wait_for("victim", timeout=90)
    mallory = await member(node)
    await mallory.flood(mallory.chunk("victim", b"x", source=f"forged-{number}") for number in range(2_000))
    await node.wait_reported("overloaded:services_per_neighbour", 1)
    await node.wait_reported("overloaded:peers_per_neighbour", 1)
    counts = await node.counts()
    assert 80 <= counts["services"] < 120
    assert counts["peers"] <= 90 + 1
    assert (await mesh.request("victim", "echo:echo", b"still")).readall() == b"still"


async def test_all_is_forgotten_when_the_member_leaves(victim, member, pings):
    """Its requests end when no route to it has come back for as long as the node waits for one."""
    node = victim(limits=SMALL, route_timeout=1.0)
    beside = await pings(node)
    mallory = await member(node)
    await mallory.flood(mallory.chunk("victim", b"begun") for _ in range(200))
    await node.until(lambda counts: counts["services"] >= 40)
    await mallory.leave()
    await node.until(lambda counts: counts["services"] < 40 and counts["requests"] < 40 and counts["nodes"] == 2)
    await beside.more(10)
    assert beside.failed == []


async def test_others_have_work_done_while_a_member_has_all_that_it_may(victim, member, honest):
    node = victim(max_work=80)
    mesh = await honest(node)
    await mesh.wait_for("victim", timeout=90)
    mallory = await member(node)
    await node.until(lambda counts: counts["nodes"] == 3)
    await mallory.flood(mallory.chunk("victim", b"3600", directive="sleep:execute", last=True) for _ in range(200))
    assert await node.wait_reported("overloaded:max_work_per_node", 130) == 130
    await eventually(lambda: overloaded(mallory))
    for number in range(30):
        assert (await mesh.request("victim", "echo:echo", b"%d" % number)).readall() == b"%d" % number
