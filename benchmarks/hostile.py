"""How much later honest pings are answered, and how much a node grows, while a member of the mesh misbehaves.

    python -m benchmarks.hostile [--json] [--check] [--seconds 5] [--attack NAME]

The node under attack is a process of its own, and so is each hostile member; this process pings the node over a link of
its own, first while it is idle (`idle_p99_ms`) and then while it is attacked (`p99_ms`); `ratio` is what the sender of
the pings sees of the attack. `grown_mb` is the most that the node's memory grew by.

The hostile member and the node that it attacks take processor time from the pings as well, whatever the node does. To
tell that share, pings to a third node, which nobody attacks, are measured during the attack in turns of TURN seconds
(`beside_p99_ms`).

With `--check` the exit status is 1 if the p99 during an attack is more than LIMIT times the idle one (which counts as
FLOOR_MS at least, since a loaded machine makes an idle p99 of nothing), if a ping failed, or if the node grew by more
than GROWTH_MB.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypedDict

import zmesh
from zmesh.core import wire
from zmesh.core.message import Address, MessageId, NodeId
from zmesh.core.wire import Frames, Kind
from zmesh.testing.member import Member
from zmesh.testing.process import Process

SCHEMA = "zmesh.bench.hostile/2"
LIMIT = 3.0
FLOOR_MS = 3.0
GROWTH_MB = 700.0
EVERY = 0.005
TURN = 1.0
WARM = 50
BODY = bytes(60_000)


class Result(TypedDict):
    """One attack. `pings` were answered meanwhile, `failed` were not."""

    schema: str
    attack: str
    pings: int
    failed: int
    idle_p99_ms: float
    beside_p99_ms: float
    p99_ms: float
    ratio: float
    grown_mb: float


# -- attacks: what a member sends for as long as it is asked to ------------------------------------------------------


def open_and_stop(member: Member) -> Iterator[Frames]:
    """Requests whose payload never ends."""
    while True:
        yield member.chunk("victim", b"begun")


def half_a_payload(member: Member) -> Iterator[Frames]:
    """Large first chunks, and nothing after them."""
    while True:
        yield member.chunk("victim", BODY)


def out_of_order(member: Member) -> Iterator[Frames]:
    """Chunks that are held for a first one that never comes."""
    while True:
        id = secrets.token_bytes(16)
        for sequence in range(1, 20):
            yield member.chunk("victim", BODY, message_id=id, directive=None, sequence=sequence)


def forge_sources(member: Member) -> Iterator[Frames]:
    """Requests in names that no node has."""
    number = 0
    while True:
        number += 1
        yield member.chunk("victim", b"x", source=f"forged-{number}")


def never_acknowledge(member: Member) -> Iterator[Frames]:
    """Requests whose replies are large and never acknowledged."""
    while True:
        yield member.chunk("victim", BODY, last=True)


def ask_for_everything(member: Member) -> Iterator[Frames]:
    """All routes and all records, again and again."""
    while True:
        yield wire.encode_link(Kind.RESEND, wire.Resend(True, True))


def ask_for_numbers(member: Member) -> Iterator[Frames]:
    """Questions for higher sequence numbers."""
    question = wire.SeqnoRequest(NodeId(Address("victim")), 1, 0, 9)
    while True:
        yield wire.encode_link(Kind.SEQNO_REQUEST, (question,) * 100)


def probe_without_pause(member: Member) -> Iterator[Frames]:
    """Probes, each with the digests of other tables."""
    for number in itertools.count():
        yield wire.encode_link(Kind.PROBE, wire.Probe(0.0, number, number, 0.0))


def make_up_destinations(member: Member) -> Iterator[Frames]:
    """UPDATEs about nodes that are not there, ever new ones."""
    for number in itertools.count():
        rows = [(NodeId(Address(f"made-up-{number}-{row}")), 9, 5, 50, 1, 0) for row in range(100)]
        yield wire.encode_update(wire.Update(0, 0, rows))


def forge_records(member: Member) -> Iterator[Frames]:
    """Records in the name of the node itself and of others, each with a higher serial than the one before."""
    for number in itertools.count(int(1000 * time.time())):
        names = ("victim", *(f"made-up-{row}" for row in range(20)))
        said = [wire.Record(NodeId(Address(name)), 9, number, (), (), b"") for name in names]
        yield wire.encode_records([wire.encode(record) for record in said])


def address_nobody(member: Member) -> Iterator[Frames]:
    """Requests to nodes that are not there, each to another one."""
    for number in itertools.count():
        yield member.chunk(f"nobody-{number}", b"x", last=True)


def speak_of_delays(member: Member) -> Iterator[Frames]:
    """Answers to probes that nobody has sent, with the longest text."""
    name = NodeId(Address("mallory"))
    note = wire.encode(wire.Unreachable(Kind.ACK, "queued", name, name, (), 1e17, "x" * wire.MAX_TEXT))
    while True:
        items = (wire.AckItem(MessageId(secrets.token_bytes(16)), True, 0, 0),)
        yield wire.encode_packet(Kind.UNREACHABLE, "victim", name, note, wire.encode(wire.Ack(1, 1, items)))


ATTACKS: dict[str, Callable[[Member], Iterator[Frames]]] = {
    "open-and-stop": open_and_stop,
    "half-a-payload": half_a_payload,
    "out-of-order": out_of_order,
    "forge-sources": forge_sources,
    "never-acknowledge": never_acknowledge,
    "ask-for-everything": ask_for_everything,
    "ask-for-numbers": ask_for_numbers,
    "probe-without-pause": probe_without_pause,
    "make-up-destinations": make_up_destinations,
    "forge-records": forge_records,
    "address-nobody": address_nobody,
    "speak-of-delays": speak_of_delays,
}


async def attack(name: str, url: str) -> None:
    """Be the hostile member until this process is ended."""
    async with Member("mallory", url) as member:
        await member.flood(ATTACKS[name](member))


# -- measuring -------------------------------------------------------------------------------------------------------


async def ping_for(mesh: zmesh.Controller, node: str, seconds: float) -> tuple[list[float], int]:
    """Ping a node for so long; how long each answer took in milliseconds, and how many there were none for."""
    took: list[float] = []
    failed = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        try:
            await mesh.ping_once(node)
        except zmesh.MeshError:
            failed += 1
        else:
            took.append(1000 * (time.perf_counter() - began))
        await asyncio.sleep(EVERY)
    return took, failed


def p99(took: list[float]) -> float:
    """The time within which 99 of 100 were answered."""
    return sorted(took)[int(0.99 * len(took))] if took else float("inf")


async def measure(name: str, seconds: float) -> Result:
    """Ping a new node while it is idle and then while it is attacked, in turns with one that nobody attacks."""
    async with contextlib.AsyncExitStack() as stack:
        victim, beside = (_start(stack, name) for name in ("victim", "beside"))
        config = zmesh.Config(node_id="honest", peers=[*victim.listening, *beside.listening])
        mesh = await stack.enter_async_context(zmesh.Controller(config))
        for each in ("victim", "beside"):
            await mesh.wait_for(each, timeout=30)
            for _ in range(WARM):
                await mesh.ping_once(each)
        idle, failed = await ping_for(mesh, "victim", seconds)
        before = victim.memory("VmRSS")
        words = ("-m", "benchmarks.hostile", "--serve", name, victim.listening[0])
        hostile = await asyncio.create_subprocess_exec(sys.executable, *words)
        stack.push_async_callback(hostile.wait)
        stack.callback(hostile.kill)
        took: dict[str, list[float]] = {"victim": [], "beside": []}
        for _ in range(math.ceil(seconds / TURN)):
            for each, times in took.items():
                more, unanswered = await ping_for(mesh, each, min(TURN, seconds))
                times.extend(more)
                failed += unanswered
        grown = victim.memory("VmHWM") - before
    attacked = took["victim"]
    return Result(
        schema=SCHEMA,
        attack=name,
        pings=len(attacked),
        failed=failed,
        idle_p99_ms=round(p99(idle), 2),
        beside_p99_ms=round(p99(took["beside"]), 2),
        p99_ms=round(p99(attacked), 2),
        ratio=round(p99(attacked) / max(FLOOR_MS, p99(idle)), 2),
        grown_mb=round(grown / 1024 / 1024, 1),
    )


def _start(stack: contextlib.AsyncExitStack, name: str) -> Process:
    node = Process({"node_id": name, "listen": ["tcp://127.0.0.1:*"]}, "")
    stack.callback(node.kill)
    return node


def main() -> int:
    """Measure each attack once and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__.partition("\n")[0])
    parser.add_argument("--attack", choices=sorted(ATTACKS), action="append", help="this one only; may be repeated")
    parser.add_argument("--seconds", type=float, default=5.0, help="of pings, idle and attacked (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one object a line instead of text")
    parser.add_argument("--check", action="store_true", help=f"fail above {LIMIT:g} times the idle p99")
    parser.add_argument("--serve", nargs=2, metavar=("ATTACK", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(attack(*options.serve))
        return 0
    bad = False
    for name in options.attack or ATTACKS:
        result = asyncio.run(measure(name, options.seconds))
        bad = bad or result["ratio"] > LIMIT or result["failed"] > 0 or result["grown_mb"] > GROWTH_MB
        if options.json:
            print(json.dumps(result))
        else:
            print(
                f"{name}: p99 {result['p99_ms']} ms, idle {result['idle_p99_ms']} ms ({result['ratio']} times), "
                f"to a node beside it {result['beside_p99_ms']} ms, "
                f"{result['failed']} of {result['failed'] + result['pings']} pings failed, "
                f"grown by {result['grown_mb']} MB"
            )
    return 1 if options.check and bad else 0


if __name__ == "__main__":
    sys.exit(main())
