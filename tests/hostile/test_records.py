"""Members that say things in others' names, with the highest serials, and more than anybody can keep."""

import time

import pytest

from tests.hostile.made_up import BOUND, HEARTBEAT, advertised, forged, just_accepted, made_up, record_frames
from zmesh.core import wire
from zmesh.core.limits import DEFAULT_LIMITS
from zmesh.core.wire import U63, U64, Record
from zmesh.testing import eventually


@pytest.mark.parametrize("serial", ["highest", "near the ceiling", "a little higher"])
async def test_a_node_replaces_every_forged_record_of_itself(victim, member, honest, serial):
    """Of the victim, of an honest node that is there, and of one that comes later."""
    node = victim(heartbeat=0.2)
    mesh = await honest(node, heartbeat=0.2)
    mallory = await member(node)
    await mesh.wait_for("mallory")
    number = {"highest": U63, "near the ceiling": just_accepted(), "a little higher": int(1000 * time.time()) + 5}[
        serial
    ]
    incarnations = [1, U64, mallory.incarnations["victim"], mesh.node.engine.incarnation]
    for incarnation in incarnations:
        await mallory.flood(
            record_frames(*(forged(name, number, incarnation) for name in ("victim", "honest", "later")))
        )
    await mallory.flood(advertised("later"))
    await mallory.leave()
    later = await honest(node, "later", heartbeat=0.2)
    for each in (mesh, later):
        await eventually(
            lambda each=each: {name: record.capabilities.count("forged:one")
                               for name, record in each.node.engine.records().items()}
            == {"victim": 0, "honest": 0, "later": 0},
            timeout=60.0,
        )  # fmt: skip
        await each.ping_once("victim", timeout=60.0)

    async def agree():
        return {await node.ask("digest(mesh)")} == {each.node.engine.routing.digest for each in (mesh, later)}

    await eventually(agree)


async def test_a_bad_record_among_good_ones_spoils_none_of_them(victim, member):
    node = victim()
    mallory = await member(node)
    await mallory.flood(advertised("one", "two"))
    good = [wire.encode(forged(name, 5)) for name in ("one", "two")]
    mallory.send(wire.encode_records([good[0], b"garbage", good[1]]))
    await node.until(lambda counts: counts["records"] == 4)
    assert (await node.reported())["frame_dropped:garbage"] == 1


async def test_a_hundred_thousand_records_take_up_a_bounded_part_of_a_node_and_nobodys_place(
    victim, member, honest, pings
):
    node = victim(heartbeat=HEARTBEAT)
    beside = await pings(node, heartbeat=HEARTBEAT)
    before = node.memory("VmHWM")
    mallory = await member(node)
    neighbours = tuple((f"node-{number}", 100) for number in range(20))
    for start in range(0, 100_000, 5000):
        names = made_up(5000, start=start)
        await mallory.flood(advertised(*names))
        await mallory.flood(record_frames(*(Record(name, 9, 5, ("made:up",) * 10, neighbours, b"") for name in names)))

    async def bounds():  # a slow machine sends them no faster than the limit on their rate gives back
        return (await node.reported()).keys() & {"frame_dropped:rate_limited", "record_refused:gave_way"}

    assert await eventually(bounds)
    late = await honest(node, "late", heartbeat=HEARTBEAT)
    await late.wait_for("victim", timeout=60.0)
    await eventually(lambda: late.node.engine.routing.record("victim"), timeout=60.0)
    beside.since()
    await beside.more(20)
    assert beside.failed == []
    assert (await node.counts())["records"] <= DEFAULT_LIMITS.nodes + 1
    assert node.memory("VmHWM") - before < 2 * BOUND
    await mallory.leave()
    await node.until(lambda counts: counts["records"] == counts["nodes"] == 3)


async def test_records_of_nodes_without_a_route_are_not_forwarded(victim, member, honest):
    node = victim()
    mesh = await honest(node)
    mallory = await member(node)
    await mesh.wait_for("mallory")
    await mallory.flood(record_frames(*(forged(name, 5) for name in made_up(4000))))
    await mallory.flood([*advertised("real"), *record_frames(forged("real", 5))])
    await eventually(lambda: mesh.node.engine.routing.record("real"), timeout=60.0)
    assert mesh.node.engine.routing.counts()["records"] == 4
