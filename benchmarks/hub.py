"""How much of a core an idle hub takes: one node with many neighbours over TCP on loopback, at the default heartbeat.

    python -m benchmarks.hub [--json] [--check] [--neighbours 500] [--swing 0] [--seconds 20] [--processes 2]

This process is the hub, a real node. The neighbours are sockets, shared out over other processes, that say what nodes
say: they greet, advertise a route and a record each, probe every second and answer probes. (Hundreds of real nodes
in two processes would be busy with all that a hub of so many advertises.) Once no route has come or gone for a while,
nothing is sent but probes and their answers, four frames a second for each link. The processor time of the hub's
process is taken over `--seconds`, ZeroMQ's thread included.

With `--swing` that many of the neighbours answer probes at once for a while and 50 ms late for a while, as they might
on a busy machine, so that the costs of their links keep moving. `moves` counts how often the hub advertised new costs,
which goes to all neighbours each time.

With `--check` the exit status is 1 if that is more than LIMIT of a core, or if a link was lost meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import resource
import secrets
import sys
import time
from typing import TypedDict

import zmq

import zmesh
from zmesh.core import wire
from zmesh.core.message import Address, NodeId
from zmesh.core.wire import Kind

SCHEMA = "zmesh.bench.hub/1"
LIMIT = 0.10
HUB = NodeId(Address("hub"))
SETTLED = 15.0
START_TIMEOUT = 300.0
SWING = 10.0
LATE = 0.05
POLL = 0.05


class Result(TypedDict):
    """One measurement. `share` of a core, in the hub's process; `lost` counts links."""

    schema: str
    neighbours: int
    seconds: float
    cpu_s: float
    share: float
    moves: int
    lost: int
    settle_s: float
    peak_rss_mb: float


class Neighbour:
    """What a neighbour says: HELLO, its route and its record, and from then on probes and their answers."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], url: str, node: str, *, swings: bool) -> None:
        self.node = NodeId(Address(node))
        self.swings = swings
        self.phase = random.random()
        self.late: list[tuple[float, float]] = []
        self.incarnation = secrets.randbits(63)
        self.digest: int | None = None
        self.probe_at = math.inf
        self.open(context, url)
        self.greet()

    def open(self, context: zmq.Context[zmq.Socket[bytes]], url: str) -> None:
        """Connect."""
        self.socket = context.socket(zmq.DEALER)
        self.socket.connect(url)

    def greet(self) -> None:
        """Say HELLO."""
        self._say(Kind.HELLO, wire.Hello(self.node, self.incarnation, time.time(), False, 1, 0))

    def record(self) -> wire.Record:
        """Its record."""
        return wire.Record(self.node, self.incarnation, 1, ("echo:echo",), ((HUB, 100),), b"")

    def hear(self, now: float) -> None:
        """Read one message."""
        self.take(wire.read_packet(self.socket.recv_multipart()), now)

    def rows(self) -> list[wire.Row]:
        """The routes that it advertises: one to itself."""
        return [(self.node, self.incarnation, 1, 0, 0, 0)]

    def take(self, packet: wire.Packet, now: float) -> None:
        """Take in one packet."""
        head = packet.head
        if packet.kind == Kind.HELLO:
            rows = self.rows()
            starts = range(0, len(rows), wire.MAX_ENTRIES)
            for number, start in enumerate(starts, 1):
                full = wire.FULL_BEGIN * (number == 1) | wire.FULL_END * (number == len(starts))
                part = rows[start : start + wire.MAX_ENTRIES]
                self._send(wire.encode_update(wire.Update(full, number, part)))
            self._send(wire.encode_records([wire.encode(self.record())]))
            self.probe_at = now + random.random()
        elif packet.kind == Kind.PROBE:
            probe = wire.decode_probe(head)
            self.digest = probe.records
            if self.swings and (now / SWING + self.phase) % 1.0 < 0.5:
                self.late.append((now + LATE, probe.token))
            else:
                self._say(Kind.ECHO, wire.Echo(probe.token))

    def due(self) -> float:
        """When `act` has something to do."""
        return min(self.probe_at, self.late[0][0]) if self.late else self.probe_at

    def act(self, now: float) -> None:
        """Answer late; ask whether the hub is there, claiming to know what it knows."""
        while self.late and self.late[0][0] <= now:
            self._say(Kind.ECHO, wire.Echo(self.late.pop(0)[1]))
        if self.probe_at <= now:
            self.probe_at = now + random.uniform(0.9, 1.1)
            self._say(Kind.PROBE, wire.Probe(now, 1, self.digest or 0, 60.0))

    def _say(self, kind: Kind, value: tuple[object, ...]) -> None:
        self._send(wire.encode_link(kind, value))

    def _send(self, frames: wire.Frames) -> None:
        self.socket.send_multipart(frames)


def serve(url: str, first: int, count: int, swinging: int) -> None:
    """Be `count` neighbours of the hub until stdin ends; those with a number below `swinging` answer late at times."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 4096)
    poller = zmq.Poller()
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    neighbours = {}
    for i in range(count):
        neighbour = Neighbour(context, url, f"n{first + i}", swings=first + i < swinging)
        neighbours[neighbour.socket] = neighbour
        poller.register(neighbour.socket, zmq.POLLIN)
    while True:
        soonest = min(neighbour.due() for neighbour in neighbours.values())
        wait = min(1.0, max(0.0, soonest - time.monotonic()))
        for source, _ in poller.poll(math.ceil(1000 * wait)):
            if isinstance(source, int):
                context.destroy(0)
                return
            neighbours[source].hear(time.monotonic())
        now = time.monotonic()
        for neighbour in neighbours.values():
            if neighbour.due() <= now:
                neighbour.act(now)


async def measure(neighbours: int, seconds: float, processes: int, swinging: int) -> Result:
    """Start all, wait until no route of the hub has come or gone for a while, and watch it do nothing."""
    async with zmesh.Controller(zmesh.Config(node_id=HUB, listen=["tcp://127.0.0.1:*"])) as hub:
        began = time.monotonic()
        children = []
        try:
            for number in range(processes):
                first, end = number * neighbours // processes, (number + 1) * neighbours // processes
                share = (str(first), str(end - first), str(swinging))
                words = ("-m", "benchmarks.hub", "--serve", hub.listening[0], *share)
                pipe = asyncio.subprocess.PIPE
                children.append(await asyncio.create_subprocess_exec(sys.executable, *words, stdin=pipe))
            async with asyncio.timeout(START_TIMEOUT):
                await _settle(hub, neighbours)
            settled = time.monotonic() - began
            counts = hub.node.telemetry.counts
            lost, record = counts["link_lost"], hub.node.engine.routing.record(HUB)
            cpu, start = time.process_time(), time.monotonic()
            await asyncio.sleep(seconds)
            cpu, took = time.process_time() - cpu, time.monotonic() - start
            lost, after = counts["link_lost"] - lost, hub.node.engine.routing.record(HUB)
            moves = after.serial - record.serial if record is not None and after is not None else 0
        finally:
            for child in children:
                if child.stdin is not None:
                    child.stdin.close()
            await asyncio.gather(*(child.wait() for child in children))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Result(
        schema=SCHEMA,
        neighbours=neighbours,
        seconds=round(took, 2),
        cpu_s=round(cpu, 3),
        share=round(cpu / took, 4),
        moves=moves,
        lost=lost,
        settle_s=round(settled, 1),
        peak_rss_mb=round(peak, 1),
    )


async def _settle(hub: zmesh.Controller, neighbours: int) -> None:
    engine = hub.node.engine
    while True:
        await asyncio.sleep(POLL)
        if engine.settled(time.monotonic()) > SETTLED and len(engine.records()) == neighbours + 1:
            return


def main() -> int:
    """Measure once and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hub", description=__doc__.partition("\n")[0])
    parser.add_argument("--neighbours", type=int, default=500, help="of the hub (%(default)s)")
    parser.add_argument("--swing", type=int, default=0, help="how many of them answer late at times (%(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long it is watched (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="that the neighbours share (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one object instead of a line of text")
    parser.add_argument("--check", action="store_true", help=f"fail above {LIMIT:.0%}% of a core")
    parser.add_argument("--serve", nargs=4, metavar=("URL", "FIRST", "COUNT", "SWINGING"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], *(int(number) for number in options.serve[1:]))
        return 0
    result = asyncio.run(measure(options.neighbours, options.seconds, options.processes, options.swing))
    if options.json:
        print(json.dumps(result))
    else:
        print(
            f"{result['share']:.1%} of a core for {result['neighbours']} neighbours "
            f"({result['cpu_s']} s in {result['seconds']} s), "
            f"advertised moved costs {result['moves']} times, {result['lost']} links lost"
        )
    return 1 if options.check and (result["share"] > LIMIT or result["lost"]) else 0


if __name__ == "__main__":
    sys.exit(main())
