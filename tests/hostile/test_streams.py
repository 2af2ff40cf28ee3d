"""Members that send half of a payload and wait, send it out of order, or never take the replies."""

import secrets

from zmesh.core.wire import Kind
from zmesh.testing import eventually

CHUNK = bytes(60_000)
KEPT = {"kept_bytes": 4_000_000, "kept_bytes_per_neighbour": 3_000_000, "kept_bytes_per_peer": 2_000_000}
ALLOWED = 64 * 1024 * 1024


def numbers(mallory, kind):
    return sum(heard.kind is kind for heard in mallory.heard)


async def test_chunks_that_are_held_for_one_that_never_comes_take_up_no_more_than_the_limit(victim, member, pings):
    node = victim(limits=KEPT)
    beside = await pings(node)
    mallory = await member(node)
    before = node.memory("VmRSS")

    def gaps():
        for _ in range(100):
            id = secrets.token_bytes(16)
            for sequence in range(1, 20):
                yield mallory.chunk("victim", CHUNK, message_id=id, directive=None, sequence=sequence)

    await mallory.flood(gaps())
    await node.wait_reported("overloaded:kept_bytes_per_peer")
    await beside.more(10)
    assert beside.failed == []
    assert (await node.counts())["kept_bytes"] <= KEPT["kept_bytes_per_peer"]
    assert node.memory("VmHWM") - before < ALLOWED


async def test_half_a_payload_does_not_keep_others_from_sending_whole_ones(victim, member, honest):
    node = victim(limits=KEPT)
    mesh = await honest(node)
    await mesh.wait_for("victim", timeout=90)
    mallory = await member(node)
    await mallory.flood(mallory.chunk("victim", CHUNK) for _ in range(300))
    payload = bytes(600_000)
    assert (await mesh.request("victim", "echo:echo", payload)).readall() == payload


async def test_replies_that_are_never_acknowledged_take_up_no_more_than_the_limit(victim, member, pings):
    node = victim(limits=KEPT)
    beside = await pings(node)
    mallory = await member(node)
    before = node.memory("VmRSS")
    await mallory.flood(mallory.chunk("victim", CHUNK, last=True) for _ in range(500))
    await node.wait_reported("overloaded:kept_bytes_per_peer")
    await beside.more(10)
    assert beside.failed == []
    assert (await node.counts())["kept_bytes"] <= 2 * KEPT["kept_bytes_per_peer"]
    assert node.memory("VmHWM") - before < ALLOWED
    await eventually(lambda: numbers(mallory, Kind.CHUNK))
