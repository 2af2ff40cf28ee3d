"""One large transfer there and one back, over zmesh and over bare ZeroMQ forwarders of the same shape.

    python -m benchmarks.bulk [--json] [--check] [--bytes 1073741824] [--hops 2] [--rounds R]
                              [--pings] [--transfers N] [--requests N]

For both kinds there is a chain on TCP loopback, every node a process of its own, and this process is the client. The
bare chain is made of `zmq.asyncio` programs which do nothing but await `recv_multipart` and `send_multipart`, and
carries the payload in messages of MESSAGE_BYTES. The kinds take turns. What counts is the time from the
first byte given to the last one taken. Over zmesh "there" is one request whose payload an async iterator gives and a
plugin reads as it comes; "back" is one reply, which the client spools to a file, as any program's payload of that size.

The memory of each zmesh process is what its resident set grows to, at the most, over what it is before the transfers.

`--pings` sends a ping every PING_EVERY seconds, before and during more transfers, and compares their round trips.
`--transfers N` runs N transfers at a time, each from a node of its own at the first forwarder (at the far end without
forwarders), and prints how far the slowest was when the first was done. `--requests N` sends N small requests after
a transfer has begun, and prints how much of it had been read when all of them were answered.

With `--check` the exit status is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
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
    MEGABYTE,
    MESH,
    ROUTE_BYTES,
    Kind,
    Machine,
    add_serving,
    at_least,
    bare_node,
    chain,
    forget_peak,
    machine,
    machine_line,
    memory,
    order,
    serve,
)
from zmesh.testing import eventually

MODULE = "benchmarks.bulk"
SCHEMA = "zmesh.bench.bulk/1"
TAKE, TAKEN, GIVE = "bench:take", "bench:taken", "bench:give"
WARM_UP = 16 * 1024 * 1024
START_TIMEOUT = 20.0
PING_EVERY = 0.01
PINGS = 400
"""How many pings, at least, are sent alone and how many beside transfers: a p99 of fewer is the luck of one or two."""

LEAST_RATIO = 1.4
MOST_GROWTH = 64 * 1024 * 1024
MOST_SLOWDOWN = 5.0
LEAST_SHARE = 0.8
MESSAGE_BYTES = 64 * 1024
"""Payload in a message of the bare chain; zmesh's chunks are as long before it has measured the path."""

FRAMES = [os.urandom(ROUTE_BYTES), os.urandom(HEAD_BYTES), os.urandom(MESSAGE_BYTES)]
BLOCK = FRAMES[2] * 4


class Pace(TypedDict):
    """Megabytes (10^6 bytes) a second, medians of the rounds, and their ratio."""

    bare_mb_s: float
    zmesh_mb_s: float
    ratio: float


class Memory(TypedDict):
    """The resident set of one process in bytes: before the transfers, at the most, and the difference."""

    node: str
    before: int
    peak: int
    growth: int


class Pings(TypedDict):
    """The 99th percentiles of round trips in milliseconds, without and beside a transfer."""

    idle_p99_ms: float
    busy_p99_ms: float
    ratio: float
    count: int


class Fairness(TypedDict):
    """How many transfers shared the path, and how far the slowest was when the first was done (1: as far)."""

    transfers: int
    share: float


class Passing(TypedDict):
    """How long small requests took beside a transfer, and how much of it had been read by then (0 to 1)."""

    requests: int
    seconds: float
    of_transfer: float


class Result(TypedDict):
    """What `--json` prints; what was not asked for is None."""

    schema: str
    bytes: int
    hops: int
    rounds: int
    there: Pace
    back: Pace
    memory: list[Memory]
    pings: Pings | None
    fairness: Fairness | None
    passing: Passing | None
    machine: Machine


# -- the nodes: processes of their own --------------------------------------------------------------------------------


@asynccontextmanager
async def mesh_node(name: str, peer: str | None) -> AsyncIterator[str]:
    """A zmesh node that takes and gives payloads, linked to the node at `peer` if there is one; gives its URL."""
    taken: dict[str, int] = {}

    async def take(work: zmesh.Work) -> int:
        count = 0
        async for piece in work.payload:
            count += len(piece)
            taken[work.message_id] = count
        del taken[work.message_id]
        return count

    async def give(work: zmesh.Work) -> object:
        return blocks(int(work.payload.json()))

    controller = zmesh.Controller(zmesh.Config(node_id=name))
    controller.register(TAKE, take, stream=True)
    controller.register(TAKEN, lambda work: taken)
    controller.register(GIVE, give)
    controller.enable_server([LOCAL])
    if peer is not None:
        controller.add_peer(peer)
    async with controller:
        yield controller.listening[0]


async def blocks(count: int) -> AsyncIterator[bytes]:
    """That many bytes."""
    for start in range(0, count, len(BLOCK)):
        yield BLOCK[: count - start]


async def take_and_give(sock: zmq.asyncio.Socket) -> None:
    """The far end of a bare chain: it gets a direction and a count of messages, and receives or sends as many."""
    while True:
        way, count = json.loads((await sock.recv_multipart())[0])
        if way == "there":
            for _ in range(count):
                await sock.recv_multipart()
            await sock.send_multipart([b"done"])
        else:
            for _ in range(count):
                await sock.send_multipart(FRAMES)


# -- the clients ------------------------------------------------------------------------------------------------------

Transfer = Callable[[str, int], Coroutine[object, object, float]]


@asynccontextmanager
async def bare_client(hops: int) -> AsyncIterator[Transfer]:
    """A DEALER before a chain of bare nodes; what it gives transfers bytes there or back and returns the seconds."""
    with chain(MODULE, BARE, hops) as (_, url, _), zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.connect(url)
        sock.linger = 0

        async def transfer(way: str, size: int) -> float:
            count = -(-size // MESSAGE_BYTES)
            started = time.perf_counter()
            await sock.send_multipart([json.dumps([way, count]).encode()])
            if way == "there":
                for _ in range(count):
                    await sock.send_multipart(FRAMES)
                await sock.recv_multipart()
            else:
                for _ in range(count):
                    await sock.recv_multipart()
            return time.perf_counter() - started

        yield transfer


class MeshClient:
    """A zmesh node before a chain of them."""

    def __init__(self, far: str, url: str, name: str = "client") -> None:
        self.far = far
        self.mesh = zmesh.Controller(zmesh.Config(node_id=name))
        self.mesh.add_peer(url)

    async def ready(self) -> None:
        """Return when there is a way to the far end."""
        async with asyncio.timeout(START_TIMEOUT):
            await self.mesh.ping_once(self.far)

    async def transfer(self, way: str, size: int) -> float:
        """Transfer that many bytes; the seconds that it took."""
        started = time.perf_counter()
        if way == "there":
            answer = await self.mesh.request(self.far, TAKE, blocks(size))
            expect(size, int(answer.json()) if answer is not None else 0)
        else:
            count = 0
            async for reply in self.mesh.stream(self.far, GIVE, size, buffered=False).send():
                async for piece in reply.payload:
                    count += len(piece)
            expect(size, count)
        return time.perf_counter() - started

    async def taken(self) -> dict[str, int]:
        """How many bytes the far end has taken of each transfer that is under way."""
        answer = await self.mesh.request(self.far, TAKEN)
        return dict(answer.json()) if answer is not None else {}


def expect(sent: int, received: int) -> None:
    """Make sure that what is measured works."""
    if sent != received:
        raise RuntimeError(f"{sent} bytes were sent, and {received} came")


# -- measuring --------------------------------------------------------------------------------------------------------


async def measure(arguments: argparse.Namespace) -> Result:
    """All of it, as one object."""
    began, size = os.getloadavg()[0], arguments.bytes
    took: dict[tuple[Kind, str], list[float]] = {}
    async with contextlib.AsyncExitStack() as stack:
        far, url, pids = stack.enter_context(chain(MODULE, MESH, arguments.hops))
        client = MeshClient(far, url)
        await stack.enter_async_context(client.mesh)
        await client.ready()
        bare = await stack.enter_async_context(bare_client(arguments.hops))
        transfers: dict[Kind, Transfer] = {BARE: bare, MESH: client.transfer}
        for transfer in transfers.values():
            await transfer("there", WARM_UP)
            await transfer("back", WARM_UP)
        watched = dict(zip([f"{MESH}-{index}" for index in range(len(pids))], pids, strict=True))
        watched = {"client": os.getpid(), **watched}
        memories: list[Memory] = []
        for turn in range(arguments.rounds):
            for kind in order(turn):
                before = {name: start_watching(pid) for name, pid in watched.items()}
                for way in ("there", "back"):
                    note(f"round {turn + 1}: {kind} {way} ...")
                    took.setdefault((kind, way), []).append(await transfers[kind](way, size))
                if kind == MESH:
                    memories = most(memories, [grown(name, pid, before[name]) for name, pid in watched.items()])
        pings = await measure_pings(client, size) if arguments.pings else None
        fairness = await measure_fairness(far, url, size, arguments.transfers) if arguments.transfers > 1 else None
        passing = await measure_passing(client, size, arguments.requests) if arguments.requests else None
    return {
        "schema": SCHEMA,
        "bytes": size,
        "hops": arguments.hops,
        "rounds": arguments.rounds,
        "there": pace(size, took[BARE, "there"], took[MESH, "there"]),
        "back": pace(size, took[BARE, "back"], took[MESH, "back"]),
        "memory": memories,
        "pings": pings,
        "fairness": fairness,
        "passing": passing,
        "machine": machine(began),
    }


def pace(size: int, bare: list[float], mesh: list[float]) -> Pace:
    """The medians as megabytes a second."""
    theirs, ours = (size / MEGABYTE / statistics.median(seconds) for seconds in (bare, mesh))
    return {"bare_mb_s": round(theirs, 1), "zmesh_mb_s": round(ours, 1), "ratio": round(ours / theirs, 3)}


def start_watching(pid: int) -> int:
    """The bytes in memory now, from where the peak begins anew."""
    forget_peak(pid)
    return memory(pid, "VmRSS")


def grown(name: str, pid: int, before: int) -> Memory:
    """What a process grew to since `start_watching`."""
    peak = memory(pid, "VmHWM")
    return {"node": name, "before": before, "peak": peak, "growth": peak - before}


def most(known: list[Memory], new: list[Memory]) -> list[Memory]:
    """For each process the round in which it grew most."""
    return [max(pair, key=lambda one: one["growth"]) for pair in zip(known or new, new, strict=True)]


async def measure_pings(client: MeshClient, size: int) -> Pings:
    """Round trips of pings to the far end, alone and beside a transfer there."""
    note("pings, idle and beside a transfer ...")

    async def ping() -> float:
        started = time.perf_counter()
        await client.mesh.ping_once(client.far)
        took = time.perf_counter() - started
        await asyncio.sleep(PING_EVERY)
        return 1000 * took

    idle = [await ping() for _ in range(PINGS)]
    busy: list[float] = []
    while len(busy) < PINGS:
        transfer = asyncio.create_task(client.transfer("there", size))
        while not transfer.done():
            busy.append(await ping())
        await transfer
    before, beside = (statistics.quantiles(samples, n=100)[98] for samples in (idle, busy))
    return {
        "idle_p99_ms": round(before, 2),
        "busy_p99_ms": round(beside, 2),
        "ratio": round(beside / before, 2),
        "count": len(busy),
    }


async def measure_fairness(far: str, url: str, size: int, count: int) -> Fairness:
    """Transfers from several nodes over the same links."""
    note(f"{count} transfers at a time ...")
    given = [0] * count

    async def counted(index: int) -> AsyncIterator[bytes]:
        async for block in blocks(size):
            yield block
            given[index] += len(block)

    async with contextlib.AsyncExitStack() as stack:
        clients = [MeshClient(far, url, f"client-{index}") for index in range(count)]
        for client in clients:
            await stack.enter_async_context(client.mesh)
            await client.ready()
        requests = [client.mesh.stream(far, TAKE, counted(index)).send() for index, client in enumerate(clients)]
        await asyncio.wait([asyncio.ensure_future(wait_for(request)) for request in requests],
                           return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        share = min(given) / max(given)
        for request in requests:
            await request.only_payload()
    return {"transfers": count, "share": round(share, 3)}


async def wait_for(request: zmesh.ReplyStream) -> None:
    """Return when a request is over, and leave its reply to who wants it."""
    await eventually(lambda: request.ended, timeout=3600.0)


async def measure_passing(client: MeshClient, size: int, count: int) -> Passing:
    """Small requests that are sent when a transfer is under way."""
    note(f"{count} small requests beside a transfer ...")
    transfer = asyncio.create_task(client.transfer("there", size))
    while not await client.taken():
        pass
    started = time.perf_counter()
    await asyncio.gather(*(client.mesh.request(client.far, "echo:echo", b"small") for _ in range(count)))
    seconds = time.perf_counter() - started
    read = max((await client.taken()).values(), default=size)
    await transfer
    return {"requests": count, "seconds": round(seconds, 3), "of_transfer": round(read / size, 3)}


def note(text: str) -> None:
    """Say what goes on."""
    print(text, file=sys.stderr)


# -- output -----------------------------------------------------------------------------------------------------------


def table(result: Result) -> str:
    """The result for people, ready to be quoted in a commit."""
    lines = [
        f"{result['bytes']:,} bytes over {result['hops']} forwarders on TCP loopback, each node a process;",
        f"megabytes a second, medians of {result['rounds']} rounds, bare zmq.asyncio and zmesh in turn",
        "",
        "            bare    zmesh   ratio",
    ]
    for way, row in (("there", result["there"]), ("back", result["back"])):
        lines.append(f"{way:<6} {row['bare_mb_s']:>9.1f} {row['zmesh_mb_s']:>8.1f} {row['ratio']:>7.2f}")
    lines += ["", "memory in MiB  before   peak  growth"]
    for each in result["memory"]:
        before, peak, growth = (each[key] / 2**20 for key in ("before", "peak", "growth"))
        lines.append(f"{each['node']:<12} {before:>8.1f} {peak:>6.1f} {growth:>7.1f}")
    lines.append("")
    if (pings := result["pings"]) is not None:
        lines.append(
            f"pings: p99 {pings['idle_p99_ms']} ms idle, {pings['busy_p99_ms']} ms beside a transfer "
            f"({pings['count']} of them), ratio {pings['ratio']}"
        )
    if (fairness := result["fairness"]) is not None:
        lines.append(f"{fairness['transfers']} transfers: the slowest had {fairness['share']:.0%} of the fastest")
    if (passing := result["passing"]) is not None:
        lines.append(
            f"{passing['requests']} requests took {passing['seconds']} s beside a transfer, "
            f"of which {passing['of_transfer']:.0%} had come by then"
        )
    lines.append(machine_line(result["machine"]))
    return "\n".join(lines)


def missed(result: Result) -> list[str]:
    """The goals that were not reached."""
    pings, fairness, passing = result["pings"], result["fairness"], result["passing"]
    goals = [
        (f"at least {LEAST_RATIO} of the bare rate", result["there"]["ratio"] >= LEAST_RATIO),
        (f"memory grows by less than {MOST_GROWTH} bytes", all(m["growth"] < MOST_GROWTH for m in result["memory"])),
        (f"pings beside a transfer take less than {MOST_SLOWDOWN} times as long",
         pings is None or pings["ratio"] < MOST_SLOWDOWN),
        (f"the slowest transfer has {LEAST_SHARE} of the first", fairness is None or fairness["share"] >= LEAST_SHARE),
        ("small requests pass a large one", passing is None or passing["of_transfer"] < 1),
    ]  # fmt: skip
    return [goal for goal, reached in goals if not reached]


def main() -> int:
    """Measure and print; the exit status."""
    parser = program.parser(MODULE, "large transfers beside bare ZeroMQ", SCHEMA, "a goal is missed")
    parser.add_argument("--bytes", type=at_least(1), default=256 * 1024 * 1024, help="of one transfer (268435456)")
    parser.add_argument("--hops", type=at_least(0), default=2, help="forwarding nodes (2)")
    parser.add_argument("--rounds", type=at_least(1), default=3, help="transfers of each kind, there and back (3)")
    parser.add_argument("--pings", action="store_true", help="measure pings beside a transfer")
    parser.add_argument("--transfers", type=at_least(1), default=1, help="measure so many transfers at a time")
    parser.add_argument("--requests", type=at_least(0), default=0, help="measure so many requests beside a transfer")
    add_serving(parser)
    arguments = parser.parse_args()
    if arguments.serve:
        mesh = arguments.serve == MESH
        name, peer = arguments.name, arguments.peer
        asyncio.run(serve(mesh_node(name, peer) if mesh else bare_node(peer, take_and_give), name))
        return 0
    result = asyncio.run(measure(arguments))
    return program.conclude(result, arguments, table(result), missed(result))


if __name__ == "__main__":
    program.run(main)
