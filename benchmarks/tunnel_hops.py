"""Where the time of a round trip through a tunnel goes: at which node, and in which step.

    python -m benchmarks.tunnel_hops [--json] [--trips 1000]

Three nodes in processes of their own without identities, `desk`, `hub` and `edge`; `desk` forwards a port to a server
that `edge` reaches. A client sends 64 bytes and waits until they are back, one trip at a time. Each node notes when its
loop begins to read a socket, has a message, sends one and has sent it, and when a tunnel gets and has written data, by
the clock that all processes share (CLOCK_MONOTONIC). The table has the medians of the intervals between two notes,
added up by kind of step; noting them takes some 10 µs of a trip.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import time
from collections import Counter, defaultdict
from itertools import pairwise
from typing import TypedDict

from benchmarks.chains import Machine, at_least, machine, machine_line
from benchmarks.program import conclude, parser, run
from benchmarks.tunnel import ECHO, MESSAGE, server
from zmesh.testing.process import Process

SCHEMA = "zmesh.bench.tunnel_hops/1"
WARM_UP = 100
NOTES = r"""
from time import monotonic_ns
from zmesh.transport.connection import Connection
from zmesh.transport.link_socket import LinkSocket
from zmesh.transport.listener import Listener
from zmesh.tunnel.relay import _Side

LOG, FORWARDS = [], []

def noted(kind, name, before, after):
    function = kind.__dict__[name]
    def wrapper(*values, **named):
        if before:
            LOG.append((monotonic_ns(), before))
        result = function(*values, **named)
        if after:
            LOG.append((monotonic_ns(), after))
        return result
    setattr(kind, name, wrapper)

noted(LinkSocket, "drain", "read", None)
noted(LinkSocket, "_take", "message", None)
noted(Connection, "send", "send", "sent")
noted(Listener, "send", "send", "sent")
noted(_Side, "data_received", "data", "written")

async def forward(mesh, port):
    FORWARDS.append(await mesh.forward("127.0.0.1:0", f"edge:127.0.0.1:{port}"))
    return FORWARDS[-1].port

async def taken():
    notes = LOG[:]
    LOG.clear()
    return notes
"""
OVER_A_LINK = "from one node's zmq_send to the next node's loop"
SENDING, RECEIVING = "zmq_send", "zmq_recv"
PROTOCOL, TCP, WRITING = "zmesh: packet, route, exchange", "TCP of the client and the server", "writing to TCP"
STEPS = {
    ("written", "data"): TCP, ("data", "written"): WRITING, ("data", "send"): PROTOCOL, ("send", "sent"): SENDING,
    ("sent", "read"): OVER_A_LINK, ("read", "message"): RECEIVING, ("message", "send"): PROTOCOL,
    ("message", "data"): PROTOCOL,
}  # fmt: skip
_AWAY = [("hub", "read"), ("hub", "message"), ("hub", "send"), ("hub", "sent")]
PATH = [
    ("desk", "data"), ("desk", "send"), ("desk", "sent"), *_AWAY,
    ("edge", "read"), ("edge", "message"), ("edge", "data"), ("edge", "written"),
    ("edge", "data"), ("edge", "send"), ("edge", "sent"), *_AWAY,
    ("desk", "read"), ("desk", "message"), ("desk", "data"), ("desk", "written"),
]  # fmt: skip
"""The notes of one trip, in their order."""


class Result(TypedDict):
    """Medians in microseconds: of a whole trip, and of each kind of step in one, with how many of it there are."""

    schema: str
    trip_us: float
    steps: dict[str, tuple[int, float]]
    trips: int
    machine: Machine


def trips(port: int, count: int) -> list[tuple[int, int]]:
    """When each of so many trips began and ended."""
    times = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(ECHO)
        for _ in range(WARM_UP + count):
            began, received = time.monotonic_ns(), 0
            connection.sendall(MESSAGE)
            while received < len(MESSAGE):
                received += len(connection.recv(len(MESSAGE)))
            times.append((began, time.monotonic_ns()))
    return times[WARM_UP:]


def intervals(began: int, ended: int, notes: list[tuple[int, str, str]]) -> dict[int, float] | None:
    """The microseconds up to each note of the PATH, and to the end; None if another packet came in between."""
    found, before, wanted = {}, began, 0
    for at, node, kind in notes:
        if wanted < len(PATH) and (node, kind) == PATH[wanted]:
            found[wanted], before, wanted = (at - before) / 1000, at, wanted + 1
    if wanted < len(PATH) - 1:
        return None
    found.setdefault(len(PATH) - 1, 0.0)  # the client may read before the node goes on
    found[len(PATH)] = max(0, ended - before) / 1000
    return found


async def measure(count: int) -> Result:
    """Measure so many trips."""
    where = machine(os.getloadavg()[0])
    with server() as target:
        hub = await Process.begin("hub", more=NOTES)
        edge = await Process.begin("edge", more=NOTES, listen=[], peers=hub.listening, allow={"tcp:*": ["*"]})
        desk = await Process.begin("desk", more=NOTES, listen=[], peers=hub.listening)
        nodes = {"hub": hub, "edge": edge, "desk": desk}
        try:
            await desk.ask("mesh.wait_for('edge')")
            port = await desk.ask(f"forward(mesh, {target})")
            times = await asyncio.to_thread(trips, port, count)
            notes = [(at, name, kind) for name, node in nodes.items() for at, kind in await node.ask("taken()")]
        finally:
            for node in (desk, edge, hub):
                await asyncio.to_thread(node.close)
    return result_of(times, sorted(notes), where)


def result_of(times: list[tuple[int, int]], notes: list[tuple[int, str, str]], where: Machine) -> Result:
    """The medians of what was noted."""
    found: dict[int, list[float]] = defaultdict(list)
    at = used = 0
    for began, ended in times:
        while at < len(notes) and notes[at][0] < began:
            at += 1
        until = at
        while until < len(notes) and notes[until][0] < ended:
            until += 1
        trip = intervals(began, ended, notes[at:until])
        if trip is not None:
            used += 1
            for index, value in trip.items():
                found[index].append(value)
    kinds = [TCP, *(STEPS[before[1], after[1]] for before, after in pairwise(PATH)), TCP]
    total: dict[str, float] = defaultdict(float)
    for index, kind in enumerate(kinds):
        total[kind] += statistics.median(found[index]) if found[index] else 0.0
    counts = Counter(kinds)
    return {
        "schema": SCHEMA,
        "trip_us": round(statistics.median((ended - began) / 1000 for began, ended in times), 1),
        "steps": {kind: (counts[kind], round(value, 1)) for kind, value in total.items()},
        "trips": used,
        "machine": where,
    }


def show(result: Result) -> str:
    """The result for people."""
    lines = [machine_line(result["machine"]), f"{result['trip_us']:6.0f} µs  a round trip, of {result['trips']}"]
    lines += [f"{value:6.0f} µs  {count} times {kind}" for kind, (count, value) in result["steps"].items()]
    return "\n".join(lines)


def main() -> int:
    """Measure, and print."""
    assert __doc__ is not None
    parsing = parser("benchmarks.tunnel_hops", __doc__.partition("\n")[0], SCHEMA, "never: nothing is held here")
    parsing.add_argument("--trips", type=at_least(10), default=1000, help="round trips; default 1000")
    arguments = parsing.parse_args()
    result = asyncio.run(measure(arguments.trips))
    return conclude(result, arguments, show(result), [])


if __name__ == "__main__":
    run(main)
