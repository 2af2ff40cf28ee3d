"""Members that ask for everything without a pause, or address nodes that are not there at full speed.

What a flood may cost in time is measured by `python -m benchmarks.hostile`; here honest pings are answered at all.
"""

import asyncio
import contextlib

import pytest

from tests.hostile.made_up import MEBIBYTE, advertised, forged, made_up, record_frames
from zmesh.core import wire
from zmesh.core.wire import Kind

BOUND = 64 * MEBIBYTE


def link(kind, head=()):
    return wire.encode_link(kind, head)


def hello(member):
    return link(Kind.HELLO, wire.Hello(member.node, member.incarnation, 0.0, False, int(member._link or 0), 0))


def _with_ttl(frames, ttl):
    (packet,) = frames
    return (packet[:3] + bytes((ttl,)) + packet[4:],)


FLOODS = {
    "resend": lambda member, number: link(Kind.RESEND, wire.Resend(True, True)),
    "seqno_request": lambda member, number: link(
        Kind.SEQNO_REQUEST, tuple(wire.SeqnoRequest("victim", 5, number % 7, 9) for _ in range(100))
    ),
    "probe": lambda member, number: link(Kind.PROBE, wire.Probe(float(number), number, number, 0.0)),
    "echo": lambda member, number: link(Kind.ECHO, wire.Echo(float(number))),
    "hello": lambda member, number: hello(member),
    "ask": lambda member, number: link(Kind.ASK),
    "record": lambda member, number: next(record_frames(*(forged(f"made-up-{i}", number + 1) for i in range(10)))),
    "update": lambda member, number: next(advertised(*made_up(100), seqno=number + 1)),
    "unknown node": lambda member, number: member.chunk(f"unknown-{number}", bytes(64), last=True),
    "unknown name": lambda member, number: member.chunk(f"honets{number % 3}", bytes(64), last=True),
    "out of ttl": lambda member, number: _with_ttl(member.chunk("honest", last=True), 1),
}  # fmt: skip


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_ends_nobodys_link_and_honest_pings_are_answered_all_the_while(victim, member, pings, flood):
    node = victim()
    beside = await pings(node)
    before = node.memory("VmHWM")
    mallory = await member(node)
    await node.until(lambda counts: counts["nodes"] == 3)
    flooding = asyncio.create_task(_flood_until_cancelled(mallory, FLOODS[flood]))
    beside.since()
    await beside.more(50)
    flooding.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await flooding
    assert flooding.cancelled()
    assert beside.failed == []
    assert node.memory("VmHWM") - before < BOUND
    reported = await node.reported()
    assert reported.get("link_lost", 0) == 0
    await mallory.leave()
    await node.until(lambda counts: counts["nodes"] == 2 and counts["links"] == 1 and counts["peers"] <= 2)
    beside.since()
    await beside.more(20)
    assert beside.failed == []


async def _flood_until_cancelled(mallory, make):
    number = 0
    while True:
        number += await mallory.flood(make(mallory, number + each) for each in range(100))


LIMITED = {"resend": 200, "seqno_request": 1000, "probe": 2000, "echo": 2000, "hello": 500, "record": 4000}


@pytest.mark.parametrize("flood", LIMITED)
async def test_what_is_asked_past_its_limit_is_counted_and_not_answered(victim, member, flood):
    """As much as a busy machine still sends faster than the limit gives back."""
    limits = {"resent_rows": [1, 640], "seqno_requests": [1, 1000], "probes": [1, 100], "greetings": [1, 20],
              "record_updates": [1, 1000]}  # fmt: skip
    node = victim(limits=limits, heartbeat=60.0)
    mallory = await member(node)
    await node.until(lambda counts: counts["nodes"] == 2)
    await mallory.flood(FLOODS[flood](mallory, number) for number in range(LIMITED[flood]))
    await node.wait_reported("frame_dropped:rate_limited")
    assert mallory.links_lost == 0
