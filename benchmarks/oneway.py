"""Small messages in one direction, over zmesh and over bare ZeroMQ of the same shape.

    python -m benchmarks.oneway [--json] [--check] [--hops 1] [--batches N] [--rounds R] [--size 64]

Each chain has `hops` forwarders, every node a process of its own on TCP loopback. The client sends messages in batches
of BATCH; the far end counts them, and says when a batch is complete. Three kinds take turns:

`bare`     zmq.asyncio programs, which await each send and each receive, of one part as large as a packet of zmesh
`send`     `mesh.send` without a response: each message is a request of its own, which runs once
`stream`   `stream.write` to one request that stays open: the bytes arrive in order, and small writes share chunks

Medians are given in messages a second, and the ratios to `bare` (more is better). With `--check` the exit status is 1
if that of `stream` is below LIMIT.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypedDict

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
    Machine,
    add_serving,
    at_least,
    bare_node,
    chain,
    machine,
    machine_line,
    serve,
)

MODULE = "benchmarks.oneway"
SCHEMA = "zmesh.bench.oneway/1"
LIMIT = 1.0
BATCH = 1000
SEND, STREAM = "send", "stream"
ITEM, COUNT, TAKE = "bench:item", "bench:count", "bench:take"

Batches = Callable[[int], Awaitable[None]]


class Result(TypedDict):
    """What `--json` prints."""

    schema: str
    size_bytes: int
    hops: int
    rounds: int
    limit: float
    messages_a_second: dict[str, float]
    ratios: dict[str, float]
    machine: Machine


# -- the nodes: processes of their own, started by this program -------------------------------------------------------


@asynccontextmanager
async def mesh_node(name: str, peer: str | None) -> AsyncIterator[str]:
    """A zmesh node that counts messages, linked to the node at `peer` if there is one; gives its URL."""
    came = 0
    complete = asyncio.Event()

    async def item(work: zmesh.Work) -> None:
        nonlocal came
        came += 1
        if came % BATCH == 0:
            complete.set()

    async def count(work: zmesh.Work) -> int:
        await complete.wait()
        complete.clear()
        return came

    async def take(work: zmesh.Work) -> AsyncIterator[bytes]:
        batch_bytes, size = int(work.metadata["batch_bytes"]), 0
        async for piece in work:
            before, size = size, size + len(piece)
            if size // batch_bytes > before // batch_bytes:
                yield b"complete"

    controller = zmesh.Controller(zmesh.Config(node_id=name))
    controller.register(ITEM, item)
    controller.register(COUNT, count)
    controller.register(TAKE, take, stream=True)
    controller.enable_server([LOCAL])
    if peer is not None:
        controller.add_peer(peer)
    async with controller:
        yield controller.listening[0]


async def answer_batches(sock: zmq.asyncio.Socket) -> None:
    """What the far end of a bare chain does."""
    while True:
        for _ in range(BATCH):
            await sock.recv_multipart()
        await sock.send(b"complete")


# -- the client -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def bare_client(hops: int, size: int) -> AsyncIterator[Batches]:
    """A DEALER before a chain of bare nodes."""
    packet = os.urandom(ROUTE_BYTES + HEAD_BYTES + size)
    with chain(MODULE, BARE, hops) as (_, url, _), zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.connect(url)
        sock.linger = 0

        async def batches(count: int) -> None:
            for _ in range(count):
                for _ in range(BATCH):
                    await sock.send(packet)
                await sock.recv()

        yield batches


@asynccontextmanager
async def mesh_clients(hops: int, size: int) -> AsyncIterator[tuple[Batches, Batches]]:
    """A zmesh node before a chain of zmesh nodes: what sends requests, and what writes to a stream."""
    payload = os.urandom(size)
    async with contextlib.AsyncExitStack() as stack:
        far, url, _ = stack.enter_context(chain(MODULE, MESH, hops))
        mesh = await stack.enter_async_context(zmesh.Controller(node_id="client", peers=[url]))
        await mesh.wait_for(far)
        described = {"batch_bytes": str(BATCH * size)}
        stream = await stack.enter_async_context(mesh.stream(far, TAKE, writable=True, metadata=described))

        async def send(count: int) -> None:
            for _ in range(count):
                for _ in range(BATCH):
                    await mesh.send(payload, far, ITEM, expect_response=False)
                await mesh.request(far, COUNT)

        async def write(count: int) -> None:
            for _ in range(count):
                for _ in range(BATCH):
                    await stream.write(payload)
                await anext(stream)

        yield send, write


# -- measuring --------------------------------------------------------------------------------------------------------


async def measure(arguments: argparse.Namespace) -> Result:
    """All of it, as one object."""
    began = os.getloadavg()[0]
    rates: dict[str, list[float]] = defaultdict(list)
    async with contextlib.AsyncExitStack() as stack:
        bare = await stack.enter_async_context(bare_client(arguments.hops, arguments.size))
        send, write = await stack.enter_async_context(mesh_clients(arguments.hops, arguments.size))
        kinds: dict[str, Batches] = {BARE: bare, SEND: send, STREAM: write}
        for turn in range(arguments.rounds + 1):  # the first one warms up
            for kind in sorted(kinds, reverse=bool(turn % 2)):
                started = time.perf_counter()
                await kinds[kind](arguments.batches)
                if turn:
                    rates[kind].append(BATCH * arguments.batches / (time.perf_counter() - started))
    medians = {kind: round(statistics.median(rates[kind])) for kind in kinds}
    return {
        "schema": SCHEMA,
        "size_bytes": arguments.size,
        "hops": arguments.hops,
        "rounds": arguments.rounds,
        "limit": LIMIT,
        "messages_a_second": {kind: float(rate) for kind, rate in medians.items()},
        "ratios": {kind: round(medians[kind] / medians[BARE], 3) for kind in (SEND, STREAM)},
        "machine": machine(began),
    }


def table(result: Result) -> str:
    """The result for people."""
    rates, ratios = result["messages_a_second"], result["ratios"]
    lines = [f"{result['size_bytes']} bytes one way over {result['hops']} forwarders; messages a second", ""]
    lines += [f"{kind:<8} {rate:>10,.0f}  {ratios.get(kind, 1.0):>6.2f}" for kind, rate in rates.items()]
    return "\n".join([*lines, "", machine_line(result["machine"])])


def main() -> int:
    """Measure and print; the exit status."""
    parser = program.parser(
        "benchmarks.oneway", "small messages one way", SCHEMA, f"the ratio of `stream` is below {LIMIT}"
    )
    parser.add_argument("--hops", type=at_least(0), default=1, help="forwarding nodes (1)")
    parser.add_argument("--batches", type=at_least(1), default=2, help=f"batches of {BATCH} a round (2)")
    parser.add_argument("--rounds", type=at_least(1), default=10, help="rounds of each kind (10)")
    parser.add_argument("--size", type=at_least(1), default=64, help="bytes of payload (64)")
    add_serving(parser)
    arguments = parser.parse_args()
    if arguments.serve:
        mesh = arguments.serve == MESH
        node = mesh_node(arguments.name, arguments.peer) if mesh else bare_node(arguments.peer, answer_batches)
        asyncio.run(serve(node, arguments.name))
        return 0
    result = asyncio.run(measure(arguments))
    ratio = result["ratios"][STREAM]
    missed = [f"{STREAM} at {ratio:.2f} of the bare rate, limit {LIMIT}"] if ratio < LIMIT else []
    return program.conclude(result, arguments, table(result), missed)


if __name__ == "__main__":
    program.run(main)
