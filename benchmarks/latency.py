"""The round trip of a small request and its reply, over zmesh and over bare ZeroMQ of the same shape.

    python -m benchmarks.latency [--json] [--check] [--hops 0,1,2,4] [--outstanding 1,10,100] [--requests N]
                                 [--rounds R] [--size 64]

For each count of forwarding nodes there are two chains on TCP loopback, every node a process of its own: one of zmesh
nodes, the last of which answers `bench:echo`; and one of `zmq.asyncio` programs which do nothing but await
`recv_multipart` and `send_multipart`, on frames as large as zmesh's. Both have the same number of processes, sockets
and frames. (The bare ones use DEALER sockets throughout. With ROUTERs to listen, as zmesh has them, ZeroMQ adds a frame
at each hop, and the baseline is up to 4 % slower.) The client of both is this process, and short rounds of the two
alternate, each going first in turn, so that whatever else the machine does meets both alike. The garbage collector is
left as it is, and the event loop is asyncio's own.

Then the same direct, without a forwarder, with so many requests under way at all times, in requests a second.

With `--check` the exit status is 1 if the median of zmesh is more than LIMITS times the bare one at any count of hops.
These are what zmesh holds; what it is meant to reach is in `benchmarks.report`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple, Protocol, TypedDict

import zmq
import zmq.asyncio

import zmesh
from benchmarks import program
from benchmarks.chains import (
    BARE,
    HEAD_BYTES,
    LOCAL,
    MESH,
    ROUTE_BYTES,
    Kind,
    Machine,
    add_serving,
    at_least,
    bare_node,
    chain,
    machine,
    machine_line,
    order,
    serve,
)

MODULE = "benchmarks.latency"
SCHEMA = "zmesh.bench.latency/2"
LIMITS = {0: 1.7, 1: 1.35}
LIMIT = 1.2
"""For more forwarders than LIMITS has."""

OUTSTANDING = 100
RATE_ROUNDS = 5
RATE_REQUESTS = 4000
WARM_UP = 300
ECHO = "bench:echo"
START_TIMEOUT = 20.0


class Times(TypedDict):
    """Round trips in microseconds: the median and the 99th percentile."""

    p50_us: float
    p99_us: float


class Spread(TypedDict):
    """The quartiles of the ratios of single rounds."""

    p25: float
    p75: float


class Row(TypedDict):
    """What was measured over `hops` forwarding nodes; `ratio` is that of the medians."""

    hops: int
    bare: Times
    zmesh: Times
    ratio: float
    ratio_by_round: Spread


class Rate(TypedDict):
    """Requests a second, direct; `ratio` is zmesh to bare, so that more is better here."""

    outstanding: int
    bare: float
    zmesh: float
    ratio: float


class Result(TypedDict):
    """What `--json` prints."""

    schema: str
    size_bytes: int
    requests: int
    rounds: int
    hops: list[Row]
    rates: list[Rate]
    machine: Machine


# -- the nodes: processes of their own, started by this program -------------------------------------------------------


@asynccontextmanager
async def mesh_node(name: str, peer: str | None) -> AsyncIterator[str]:
    """A zmesh node that answers ECHO, linked to the node at `peer` if there is one; gives its URL."""

    async def echo(work: zmesh.Work) -> bytes:
        return work.payload.readall()

    controller = zmesh.Controller(zmesh.Config(node_id=name))
    controller.register(ECHO, echo)
    controller.enable_server([LOCAL])
    if peer is not None:
        controller.add_peer(peer)
    async with controller:
        yield controller.listening[0]


async def send_back(sock: zmq.asyncio.Socket) -> None:
    """What the far end of a bare chain does."""
    while True:
        await sock.send_multipart(await sock.recv_multipart())


# -- the client -------------------------------------------------------------------------------------------------------


class Flood(Protocol):
    """Makes `count` requests with `outstanding` of them under way at all times; how many a second were answered."""

    def __call__(self, count: int, outstanding: int = OUTSTANDING, /) -> Awaitable[float]:
        """Make them."""


class Client(NamedTuple):
    """The near end of a chain.

    `ask` makes one request after the other and returns the seconds that each took; `flood` makes that many with so many
    under way at all times, and returns how many a second were answered.
    """

    ask: Callable[[int], Awaitable[list[float]]]
    flood: Flood


@asynccontextmanager
async def bare_client(hops: int, size: int) -> AsyncIterator[Client]:
    """A DEALER before a chain of bare nodes."""
    frames = [os.urandom(ROUTE_BYTES), os.urandom(HEAD_BYTES), os.urandom(size)]
    clock = time.perf_counter
    with chain(MODULE, BARE, hops) as (_, url, _), zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.connect(url)
        sock.linger = 0

        async def ask(count: int) -> list[float]:
            took = []
            echoed: list[bytes] = frames
            for _ in range(count):
                started = clock()
                await sock.send_multipart(frames)
                echoed = await sock.recv_multipart()
                took.append(clock() - started)
            expect(echoed[2], frames[2])
            return took

        async def flood(count: int, outstanding: int = OUTSTANDING) -> float:
            started = clock()
            for _ in range(outstanding):
                await sock.send_multipart(frames)
            for _ in range(count - outstanding):
                await sock.recv_multipart()
                await sock.send_multipart(frames)
            for _ in range(outstanding):
                await sock.recv_multipart()
            return count / (clock() - started)

        yield Client(ask, flood)


@asynccontextmanager
async def mesh_client(hops: int, size: int) -> AsyncIterator[Client]:
    """A zmesh node before a chain of zmesh nodes."""
    payload = os.urandom(size)
    clock = time.perf_counter
    with chain(MODULE, MESH, hops) as (far, url, _):
        mesh = zmesh.Controller(zmesh.Config(node_id="client"))
        mesh.add_peer(url)

        async def ask(count: int) -> list[float]:
            took = []
            echoed = None
            for _ in range(count):
                started = clock()
                echoed = await mesh.request(far, ECHO, payload)
                took.append(clock() - started)
            expect(echoed.readall() if echoed is not None else b"", payload)
            return took

        async def flood(count: int, outstanding: int = OUTSTANDING) -> float:
            left = iter(range(count))

            async def worker() -> None:
                for _ in left:
                    await mesh.request(far, ECHO, payload)

            started = clock()
            await asyncio.gather(*(worker() for _ in range(outstanding)))
            return count / (clock() - started)

        async with mesh:
            yield Client(ask, flood)


def expect(echoed: bytes, sent: bytes) -> None:
    """Make sure that what is measured works."""
    if echoed != sent:
        raise RuntimeError(f"{len(sent)} bytes were sent, and {len(echoed)} other ones came back")


@asynccontextmanager
async def clients(hops: int, size: int) -> AsyncIterator[dict[Kind, Client]]:
    """Both kinds of client, each with its chain, warmed up."""
    makers: dict[Kind, Callable[[int, int], AbstractAsyncContextManager[Client]]] = {
        BARE: bare_client,
        MESH: mesh_client,
    }
    async with contextlib.AsyncExitStack() as stack:
        found = {kind: await stack.enter_async_context(make(hops, size)) for kind, make in makers.items()}
        for client in found.values():
            async with asyncio.timeout(START_TIMEOUT):
                await client.ask(WARM_UP)
        yield found


# -- measuring --------------------------------------------------------------------------------------------------------


async def measure_hops(hops: int, arguments: argparse.Namespace) -> Row:
    """Round trips over `hops` forwarding nodes, in microseconds."""
    took: dict[Kind, list[list[float]]] = {BARE: [], MESH: []}
    async with clients(hops, arguments.size) as found:
        for turn in range(arguments.rounds):
            for kind in order(turn):
                took[kind].append(await found[kind].ask(arguments.requests))
    bare, mesh = summary(took[BARE]), summary(took[MESH])
    by_round = [
        statistics.median(ours) / statistics.median(theirs) for theirs, ours in zip(took[BARE], took[MESH], strict=True)
    ]
    quartiles = statistics.quantiles(by_round, n=4)
    return {
        "hops": hops,
        "bare": bare,
        "zmesh": mesh,
        "ratio": round(mesh["p50_us"] / bare["p50_us"], 3),
        "ratio_by_round": {"p25": round(quartiles[0], 3), "p75": round(quartiles[2], 3)},
    }


def summary(rounds: list[list[float]]) -> Times:
    """The median and the 99th percentile over all rounds, in microseconds."""
    samples = [seconds for one in rounds for seconds in one]
    return {
        "p50_us": round(1e6 * statistics.median(samples), 1),
        "p99_us": round(1e6 * statistics.quantiles(samples, n=100)[98], 1),
    }


async def measure_rates(arguments: argparse.Namespace) -> list[Rate]:
    """Requests a second without a forwarder, by how many are under way: the medians of RATE_ROUNDS."""
    measured: list[Rate] = []
    async with clients(0, arguments.size) as found:
        for outstanding in arguments.outstanding:
            rates: dict[Kind, list[float]] = {BARE: [], MESH: []}
            count = min(RATE_REQUESTS, 1000 + 30 * outstanding)  # few at a time take longer
            for client in found.values():
                await client.flood(count // 2, outstanding)
            for turn in range(RATE_ROUNDS):
                for kind in order(turn):
                    rates[kind].append(await found[kind].flood(count, outstanding))
            bare, mesh = round(statistics.median(rates[BARE])), round(statistics.median(rates[MESH]))
            measured.append({"outstanding": outstanding, "bare": bare, "zmesh": mesh, "ratio": round(mesh / bare, 3)})
    return measured


async def measure(arguments: argparse.Namespace) -> Result:
    """All of it, as one object."""
    began = os.getloadavg()[0]
    hops = []
    for count in arguments.hops:
        print(f"{count} hops ...", file=sys.stderr)
        hops.append(await measure_hops(count, arguments))
    print("direct, several outstanding ...", file=sys.stderr)
    rates = await measure_rates(arguments)
    return {
        "schema": SCHEMA,
        "size_bytes": arguments.size,
        "requests": arguments.requests,
        "rounds": arguments.rounds,
        "hops": hops,
        "rates": rates,
        "machine": machine(began),
    }


# -- output -----------------------------------------------------------------------------------------------------------


def table(result: Result) -> str:
    """The result for people, ready to be quoted in a commit."""
    lines = [
        f"{result['size_bytes']} bytes there and back over TCP loopback, each node a process; microseconds,",
        f"{result['rounds']} rounds of {result['requests']} requests, bare zmq.asyncio and zmesh in turn",
        "",
        "forwarders   bare p50  zmesh p50   ratio  (quartiles)    bare p99  zmesh p99",
    ]
    for row in result["hops"]:
        bare, mesh, spread = row[BARE], row[MESH], row["ratio_by_round"]
        lines.append(
            f"{row['hops']:>10} {bare['p50_us']:>10.0f} {mesh['p50_us']:>10.0f} {row['ratio']:>7.2f}"
            f"  ({spread['p25']:.2f} - {spread['p75']:.2f})"
            f" {bare['p99_us']:>10.0f} {mesh['p99_us']:>10.0f}"
        )
    lines.append("")
    lines += [
        f"direct, {rate['outstanding']} outstanding: bare {rate[BARE]:,}/s, zmesh {rate[MESH]:,}/s"
        for rate in result["rates"]
    ]
    lines.append(machine_line(result["machine"]))
    return "\n".join(lines)


def counts(text: str) -> list[int]:
    """A list such as 0,1,2,4."""
    values = [int(part) for part in text.split(",")]
    if not all(0 <= value <= 64 for value in values):
        raise argparse.ArgumentTypeError("each count of forwarding nodes must be from 0 to 64")
    return values


def outstandings(text: str) -> list[int]:
    """A list such as 1,10,100."""
    values = [int(part) for part in text.split(",")]
    if not all(1 <= value <= RATE_REQUESTS // 4 for value in values):
        raise argparse.ArgumentTypeError(f"each count of requests must be from 1 to {RATE_REQUESTS // 4}")
    return values


def main() -> int:
    """Measure and print; the exit status."""
    parser = program.parser("benchmarks.latency", "round trips beside bare ZeroMQ", SCHEMA, "a ratio exceeds its limit")
    parser.add_argument("--hops", type=counts, default=[0, 1, 2, 4], help="counts of forwarding nodes (0,1,2,4)")
    parser.add_argument("--outstanding", type=outstandings, default=[1, 10, 100], help="requests under way (1,10,100)")
    parser.add_argument("--requests", type=at_least(10), default=100, help="requests a round (100)")
    parser.add_argument("--rounds", type=at_least(2), default=50, help="rounds of each kind (50)")
    parser.add_argument("--size", type=at_least(0), default=64, help="bytes of payload (64)")
    add_serving(parser)
    arguments = parser.parse_args()
    if arguments.serve:
        mesh = arguments.serve == MESH
        node = mesh_node(arguments.name, arguments.peer) if mesh else bare_node(arguments.peer, send_back)
        asyncio.run(serve(node, arguments.name))
        return 0
    result = asyncio.run(measure(arguments))
    missed = [
        f"{row['ratio']:.2f} of the bare median over {row['hops']} forwarders, limit {LIMITS.get(row['hops'], LIMIT)}"
        for row in result["hops"]
        if row["ratio"] > LIMITS.get(row["hops"], LIMIT)
    ]
    return program.conclude(result, arguments, table(result), missed)


if __name__ == "__main__":
    program.run(main)
