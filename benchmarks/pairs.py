"""What a packet costs a forwarder, by how many pairs of nodes talk over it: a table or cache that fills up shows here.

    python -m benchmarks.pairs [--json] [--check] [--few 10] [--many 10000] [--packets 20000] [--rounds 5]

This process is the forwarder, a real node. Its two neighbours are sockets in another process that say what nodes say:
one advertises a route to each of the destinations and counts what comes, the other sends packets of small requests,
each pair of a source and a destination in turn, in an order without a pattern. No two pairs share an address. A batch
of packets of few pairs and one of many are sent in turn. What counts is the processor time of the forwarder's process,
ZeroMQ's thread included, for a packet; every pair has sent one before.

With `--check` the exit status is 1 if a packet of many pairs takes more than LIMIT times as long, by the medians of the
rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import statistics
import sys
import time
from typing import TypedDict

import zmq

import zmesh
from benchmarks.chains import LOCAL, Machine, at_least, machine, machine_line
from benchmarks.hub import HUB, Neighbour
from zmesh.core import wire
from zmesh.core.message import Address, NodeId
from zmesh.core.wire import Frames, Kind
from zmesh.testing import eventually

SCHEMA = "zmesh.bench.pairs/1"
LIMIT = 1.1
START_TIMEOUT = 120.0
OUTSTANDING = 200
"""Packets that the sender is ahead of what has arrived, at the most."""

HEAD = bytes(80)
BODY = bytes(64)


class Result(TypedDict):
    """Microseconds of processor time for a packet, medians of the rounds, and their ratio."""

    schema: str
    few: int
    many: int
    packets: int
    rounds: int
    few_us: float
    many_us: float
    ratio: float
    machine: Machine


# -- the neighbours: a process of their own ---------------------------------------------------------------------------


class East(Neighbour):
    """The neighbour that all destinations are behind."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], url: str, pairs: int) -> None:
        self.pairs = pairs
        self.received = 0
        super().__init__(context, url, "east", swings=False)

    def rows(self) -> list[wire.Row]:
        """Routes to itself and to the destinations."""
        return super().rows() + [(destination(index), 1, 1, 1, 1, 0) for index in range(self.pairs)]

    def take(self, packet: wire.Packet, now: float) -> None:
        """Count chunks."""
        if packet.kind == Kind.CHUNK:
            self.received += 1
        else:
            super().take(packet, now)


def destination(index: int) -> NodeId:
    """The node that a pair sends to."""
    return NodeId(Address(f"d{index}"))


def packets(pairs: int) -> list[Frames]:
    """One of each pair, in an order without a pattern."""
    made = [wire.encode_packet(Kind.CHUNK, f"d{index}", f"s{index}", HEAD, BODY) for index in range(pairs)]
    random.Random(pairs).shuffle(made)
    return made


def serve(url: str, pairs: int) -> None:
    """Be both neighbours until stdin ends; for each line with a count of pairs and one of packets, send these."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    east, west = East(context, url, pairs), Neighbour(context, url, "west", swings=False)
    poller = zmq.Poller()
    for source in (sys.stdin.fileno(), east.socket, west.socket):
        poller.register(source, zmq.POLLIN)
    made: dict[int, list[Frames]] = {}
    sent = wanted = 0
    chosen: list[Frames] = []
    while True:
        wait = 0.0 if sent < wanted and sent - east.received < OUTSTANDING else 0.2
        ready = dict(poller.poll(math.ceil(1000 * wait)))
        now = time.monotonic()
        for neighbour in (east, west):
            while ready and neighbour.socket.poll(0):
                neighbour.hear(now)
            if neighbour.due() <= now:
                neighbour.act(now)
        while sent < wanted and sent - east.received < OUTSTANDING:
            west.socket.send_multipart(chosen[sent % len(chosen)])
            sent += 1
        if wanted and east.received == wanted:
            sent = wanted = east.received = 0
            print("done", flush=True)
        if sys.stdin.fileno() in ready:
            line = os.read(sys.stdin.fileno(), 100)
            if not line:
                context.destroy(0)
                return
            count, wanted = (int(word) for word in line.split())
            chosen = made[count] = made.get(count) or packets(count)


# -- measuring --------------------------------------------------------------------------------------------------------


async def measure(few: int, many: int, count: int, rounds: int) -> Result:
    """Both kinds of batches in turn."""
    began = os.getloadavg()[0]
    took: dict[int, list[float]] = {few: [], many: []}
    async with zmesh.Controller(zmesh.Config(node_id=HUB, listen=[LOCAL])) as hub:
        words = (sys.executable, "-m", "benchmarks.pairs", "--serve", hub.listening[0], str(many))
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe)
        stdin, stdout = child.stdin, child.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            await eventually(lambda: len(hub.node.engine.routes()) >= many + 2, timeout=START_TIMEOUT)

            async def batch(pairs: int, size: int) -> float:
                before = time.process_time()
                stdin.write(b"%d %d\n" % (pairs, size))
                if await stdout.readline() != b"done\n":
                    raise RuntimeError("the process of the neighbours has ended")
                return time.process_time() - before

            for pairs in took:
                await batch(pairs, max(pairs, count // 10))
            for turn in range(rounds):
                for pairs in sorted(took, reverse=bool(turn % 2)):
                    took[pairs].append(1e6 * await batch(pairs, count) / count)
        finally:
            stdin.close()
            await child.wait()
    few_us, many_us = statistics.median(took[few]), statistics.median(took[many])
    return {
        "schema": SCHEMA,
        "few": few,
        "many": many,
        "packets": count,
        "rounds": rounds,
        "few_us": round(few_us, 2),
        "many_us": round(many_us, 2),
        "ratio": round(many_us / few_us, 3),
        "machine": machine(began),
    }


def main() -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser("python -m benchmarks.pairs", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help=f"print one object of schema {SCHEMA}")
    parser.add_argument("--check", action="store_true", help=f"status 1 above a ratio of {LIMIT}")
    parser.add_argument("--few", type=at_least(1), default=10, help="pairs that talk at first (10)")
    parser.add_argument("--many", type=at_least(1), default=10_000, help="pairs that talk then (10000)")
    parser.add_argument("--packets", type=at_least(1), default=20_000, help="in a batch (20000)")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="batches of each kind (5)")
    parser.add_argument("--serve", nargs=2, metavar=("URL", "PAIRS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve[0], int(arguments.serve[1]))
        return 0
    result = asyncio.run(measure(arguments.few, arguments.many, arguments.packets, arguments.rounds))
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"a packet takes a forwarder {result['few_us']} us of processor time where {result['few']} pairs talk, and "
            f"{result['many_us']} us where {result['many']} do: ratio {result['ratio']}\n"
            f"medians of {result['rounds']} batches of {result['packets']} packets; {machine_line(result['machine'])}"
        )
    return 1 if arguments.check and result["ratio"] > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
