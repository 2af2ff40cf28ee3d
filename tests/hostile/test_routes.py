"""A member that advertises a hundred thousand destinations, or honest ones in their stead."""

from tests.hostile.made_up import BOUND, HEARTBEAT, advertised, made_up
from zmesh.core import wire
from zmesh.core.limits import DEFAULT_LIMITS
from zmesh.core.routing.serials import MAX_LEAD_MS
from zmesh.core.wire import FULL_BEGIN, FULL_END, MAX_ENTRIES
from zmesh.testing import eventually

MADE_UP = 100_000


async def test_a_hundred_thousand_destinations_take_up_a_bounded_part_of_a_node_and_nobodys_place(
    victim, member, honest, pings
):
    node = victim(heartbeat=HEARTBEAT)
    beside = await pings(node, heartbeat=HEARTBEAT)
    before = node.memory("VmHWM")
    mallory = await member(node)
    await mallory.flood(advertised(*made_up(MADE_UP)))
    await node.until(lambda counts: counts["nodes"] > DEFAULT_LIMITS.destinations // 2)
    await node.wait_reported("route_refused:destinations")
    assert (await node.counts())["nodes"] <= DEFAULT_LIMITS.destinations + 1
    late = await honest(node, "late", heartbeat=HEARTBEAT)
    await late.wait_for("victim", timeout=60.0)
    await late.ping_once("victim", timeout=60.0)
    beside.since()
    await beside.more(20)
    assert beside.failed == []
    assert node.memory("VmHWM") - before < BOUND
    await mallory.leave()
    await node.until(lambda counts: counts["nodes"] == 3)
    await beside.more(20)


async def test_destinations_that_come_and_go_do_not_pile_up(victim, member, pings):
    limit = 200
    node = victim(limits={"destinations": limit})
    beside = await pings(node)
    mallory = await member(node)
    for wave in range(20):
        names = made_up(limit // 2, f"wave-{wave}")
        await mallory.flood(advertised(*names))
        await mallory.flood(advertised(*names, metric=wire.INFINITY))

    async def is_known():  # for as long as the rate of new ones is limited, one is dropped
        await mallory.flood(advertised("the-last"))
        return (await node.counts())["nodes"] == 4

    await eventually(is_known)
    assert await node.ask("count_distances(mesh)") <= limit
    assert beside.failed == []


async def test_a_member_that_takes_an_honest_nodes_place_with_a_number_far_ahead_gives_it_back_when_it_leaves(
    victim, member, honest
):
    """It may lead its traffic astray while it is there, but not have the last word."""
    node = victim(heartbeat=0.2)
    mesh = await honest(node, heartbeat=0.2)
    mallory = await member(node)
    await mesh.wait_for("victim")
    for seqno in (wire.U63, 10 * MAX_LEAD_MS, MAX_LEAD_MS):
        await mallory.flood(advertised("honest", seqno=seqno, metric=0))
    await node.wait_reported("route_refused:seqno_ahead", 2)
    await mallory.leave()
    await eventually(lambda: "mallory" not in mesh.node.engine.nodes(), timeout=60.0)
    await mesh.ping_once("victim", timeout=60.0)


async def test_a_whole_table_that_never_ends_is_no_more_than_a_table(victim, member, pings):
    node = victim(limits={"destinations": 500})
    beside = await pings(node)
    mallory = await member(node)
    rows = [(name, 9, 5, 50, 1, 0) for name in made_up(MAX_ENTRIES)]
    await mallory.flood(wire.encode_update(wire.Update(FULL_BEGIN, 1, rows)) for _ in range(100))
    await mallory.flood([wire.encode_update(wire.Update(flag, 2, rows[:1])) for flag in (FULL_BEGIN, FULL_END)])
    await node.until(lambda counts: counts["nodes"] == 3)
    await beside.more(20)
    assert beside.failed == []
