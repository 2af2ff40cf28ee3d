"""What trust costs: zmesh with identities beside zmesh without, and bulk beside bare forwarders with CURVE.

    python -m benchmarks.security [--json] [--check] [--rounds 30] [--bytes 134217728] [--io-threads 1] [--part NAME]

Every node is a process of its own on TCP loopback, and this process is the client. The kinds are `secure`, zmesh nodes
with identities of one authority, whose links and payloads are encrypted as far as zmesh encrypts them; `plain`, zmesh
nodes without; `curve` and `bare`, chains of `zmq.asyncio` programs that do nothing but pass on, with CURVE and without.
All kinds of one part run at a time and take turns, so whatever else the machine does meets all alike.

- `hops`: round trips of 64 bytes over 0, 1 and 2 forwarders; the ratio of the medians, `secure` to `plain`.
- `rate`: requests a second, direct, with 100 under way; `secure` to `plain`.
- `bulk`: a transfer over two forwarders, in megabytes a second; `secure` to `curve`, the bare ones in messages as large
  as a chunk of zmesh's, and the share of the plaintext rate that each kind of encryption leaves.
- `strangers`: pings of a member while another process opens connections without a pause, of which each speaks
  plaintext, garbage or half of a handshake; the p99 beside that of an idle node (FLOOR_MS at least), and pings lost.

`--io-threads` is for the ZeroMQ context of each zmesh node. With `--check` the exit status is 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypedDict

import zmq
import zmq.asyncio

import zmesh
from benchmarks import program
from benchmarks.chains import (
    HEAD_BYTES,
    LOCAL,
    MEGABYTE,
    ROUTE_BYTES,
    Machine,
    add_serving,
    at_least,
    chain,
    machine,
    machine_line,
    serve,
)
from zmesh.core.wire import MAX_BODY
from zmesh.identity import Identity, Issuer, Profile, State
from zmesh.identity.keys import IdentityKey
from zmesh.testing.process import Process
from zmesh.transport.context import shared

MODULE = "benchmarks.security"
SCHEMA = "zmesh.bench.security/1"
SECURE, PLAIN, CURVE, BARE = "secure", "plain", "curve", "bare"
PARTS = ("hops", "rate", "bulk", "strangers")
HOPS = (0, 1, 2)
REQUESTS = 100
OUTSTANDING = 100
RATE_REQUESTS = 3000
RATE_ROUNDS = 8
BULK_HOPS = 2
BULK_ROUNDS = 3
WARM_UP = 200
WARM_UP_BYTES = 16 * 1024 * 1024
PINGS = 400
FLOOR_MS = 3.0
START_TIMEOUT = 30.0

MOST_P50 = 1.15
LEAST_RATE = 0.85
LEAST_OF_CURVE = 0.9
MOST_P99 = 2.0

ROOT = "ZMESH_BENCH_IDENTITIES"
IO_THREADS = "ZMESH_BENCH_IO_THREADS"
ECHO, TAKE = "bench:echo", "bench:take"
FRAMES = [os.urandom(ROUTE_BYTES), os.urandom(HEAD_BYTES), os.urandom(MAX_BODY)]
CURVE_KEYS = (b"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", b"JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6")
"""The pair of RFC 26's reference, for bare chains; public and secret."""


class Result(TypedDict):
    """What `--json` prints; a part that was not measured is None. `missed` names the limits that do not hold."""

    schema: str
    io_threads: int
    hops: dict[str, dict[str, float]] | None
    rate: dict[str, float] | None
    bulk: dict[str, float] | None
    strangers: dict[str, float] | None
    missed: list[str]
    machine: Machine


# -- identities -------------------------------------------------------------------------------------------------------


@contextmanager
def identities(names: list[str]) -> Iterator[None]:
    """A folder with the identity of each node, which this process and its children find."""
    with tempfile.TemporaryDirectory() as root:
        now = time.time()
        issuer = Issuer.create(State(Path(root) / "authority"), "bench", now)
        for name in names:
            key = IdentityKey.generate()
            certificate = issuer.issue(key.public, name, (), now)
            Identity.create(State(Path(root) / name), Profile("bench", name), key, certificate, issuer.trust)
        os.environ[ROOT] = root
        yield


def config(name: str, kind: str) -> zmesh.Config:
    """The settings of a node."""
    return zmesh.Config(node_id=name, identity=os.path.join(os.environ[ROOT], name) if kind == SECURE else None)


# -- the nodes: processes of their own --------------------------------------------------------------------------------


@asynccontextmanager
async def mesh_node(name: str, kind: str, peer: str | None) -> AsyncIterator[str]:
    """A zmesh node that answers ECHO and takes payloads, linked to the node at `peer` if there is one; its URL."""

    async def take(work: zmesh.Work) -> int:
        count = 0
        async for piece in work.payload:
            count += len(piece)
        return count

    shared.acquire().set(zmq.IO_THREADS, int(os.environ.get(IO_THREADS, "1")))
    controller = zmesh.Controller(config(name, kind))
    controller.register(ECHO, lambda work: work.payload.readall())
    controller.register(TAKE, take, stream=True)
    controller.enable_server([LOCAL])
    if peer is not None:
        controller.add_peer(peer)
    async with controller:
        yield controller.listening[0]
    await shared.release()


@asynccontextmanager
async def bare_node(kind: str, peer: str | None) -> AsyncIterator[str]:
    """A socket that counts messages, or with `peer` two that pass all on, both ways; gives its URL."""

    async def pump(source: zmq.asyncio.Socket, target: zmq.asyncio.Socket) -> None:
        while True:
            await target.send_multipart(await source.recv_multipart())

    async def take(sock: zmq.asyncio.Socket) -> None:
        while True:
            for _ in range(int((await sock.recv_multipart())[0])):
                await sock.recv_multipart()
            await sock.send_multipart([b"done"])

    with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as front, context.socket(zmq.DEALER) as back:
        if kind == CURVE:
            front.curve_server = True
            front.curve_secretkey = CURVE_KEYS[1]
        front.bind(LOCAL)
        if peer is None:
            pumps = [asyncio.create_task(take(front))]
        else:
            dial(back, kind, peer)
            pumps = [asyncio.create_task(pump(front, back)), asyncio.create_task(pump(back, front))]
        yield front.get_string(zmq.LAST_ENDPOINT)
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        front.linger = back.linger = 0


def dial(sock: zmq.asyncio.Socket, kind: str, url: str) -> None:
    """Connect a socket of a bare chain."""
    sock.linger = 0
    if kind == CURVE:
        sock.curve_serverkey = CURVE_KEYS[0]
        sock.curve_publickey, sock.curve_secretkey = zmq.curve_keypair()
    sock.connect(url)


# -- the clients ------------------------------------------------------------------------------------------------------

Transfer = Callable[[int], Awaitable[float]]


class MeshClient:
    """A zmesh node before a chain of them, linked to the node at `url`."""

    def __init__(self, kind: str, far: str, url: str) -> None:
        self.far = far
        self.mesh = zmesh.Controller(config("client", kind))
        self.mesh.add_peer(url)

    async def ready(self) -> None:
        """Return when there is a route to the far end."""
        await self.mesh.wait_for(self.far, START_TIMEOUT)

    async def ask(self, count: int) -> list[float]:
        """Make one request after the other; the seconds of each."""
        took, payload = [], os.urandom(64)
        for _ in range(count):
            started = time.perf_counter()
            await self.mesh.request(self.far, ECHO, payload)
            took.append(time.perf_counter() - started)
        return took

    async def flood(self, count: int) -> float:
        """Make that many with OUTSTANDING under way; how many a second."""
        left, payload = iter(range(count)), os.urandom(64)

        async def worker() -> None:
            for _ in left:
                await self.mesh.request(self.far, ECHO, payload)

        started = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(OUTSTANDING)))
        return count / (time.perf_counter() - started)

    async def transfer(self, size: int) -> float:
        """Send that many bytes to the far end; the seconds."""

        async def blocks() -> AsyncIterator[bytes]:
            for start in range(0, size, MAX_BODY):
                yield FRAMES[2][: size - start]

        started = time.perf_counter()
        answer = await self.mesh.request(self.far, TAKE, blocks())
        if int(answer.json()) != size:
            raise RuntimeError(f"{size} bytes were sent, and {answer.json()} came")
        return time.perf_counter() - started


@asynccontextmanager
async def mesh_clients(hops: int) -> AsyncIterator[dict[str, MeshClient]]:
    """A client of each kind of zmesh, each before a chain, warmed up."""
    async with AsyncExitStack() as stack:
        found = {}
        for kind in (SECURE, PLAIN):
            far, url, _ = stack.enter_context(chain(MODULE, kind, hops))
            found[kind] = MeshClient(kind, far, url)
            await stack.enter_async_context(found[kind].mesh)
            await found[kind].ready()
            await found[kind].ask(WARM_UP)
        yield found


@asynccontextmanager
async def bare_transfer(kind: str) -> AsyncIterator[Transfer]:
    """A DEALER before a chain of bare nodes; what it gives transfers bytes and returns the seconds."""
    with (
        chain(MODULE, kind, BULK_HOPS) as (_, url, _),
        zmq.asyncio.Context() as context,
        context.socket(zmq.DEALER) as sock,
    ):
        dial(sock, kind, url)

        async def transfer(size: int) -> float:
            count = -(-size // MAX_BODY)
            started = time.perf_counter()
            await sock.send_multipart([str(count).encode()])
            for _ in range(count):
                await sock.send_multipart(FRAMES)
            await sock.recv_multipart()
            return time.perf_counter() - started

        yield transfer


# -- measuring --------------------------------------------------------------------------------------------------------


async def measure_hops(rounds: int) -> dict[str, dict[str, float]]:
    """Medians of round trips in microseconds, by the count of forwarders."""
    found = {}
    for hops in HOPS:
        took: dict[str, list[float]] = {SECURE: [], PLAIN: []}
        async with mesh_clients(hops) as clients:
            for turn in range(rounds):
                for kind in turns(turn, clients):
                    took[kind] += await clients[kind].ask(REQUESTS)
        p50 = {kind: 1e6 * statistics.median(each) for kind, each in took.items()}
        found[str(hops)] = {**rounded(p50), "ratio": round(p50[SECURE] / p50[PLAIN], 3)}
    return found


async def measure_rate() -> dict[str, float]:
    """Requests a second, direct."""
    rates: dict[str, list[float]] = {SECURE: [], PLAIN: []}
    async with mesh_clients(0) as clients:
        for turn in range(RATE_ROUNDS):
            for kind in turns(turn, clients):
                rates[kind].append(await clients[kind].flood(RATE_REQUESTS))
    rate = {kind: statistics.median(each) for kind, each in rates.items()}
    return {**rounded(rate), "ratio": round(rate[SECURE] / rate[PLAIN], 3)}


async def measure_bulk(size: int) -> dict[str, float]:
    """Megabytes a second over two forwarders."""
    took: dict[str, list[float]] = {}
    async with AsyncExitStack() as stack:
        clients = await stack.enter_async_context(mesh_clients(BULK_HOPS))
        transfers: dict[str, Transfer] = {kind: client.transfer for kind, client in clients.items()}
        for kind in (CURVE, BARE):
            transfers[kind] = await stack.enter_async_context(bare_transfer(kind))
        for transfer in transfers.values():
            await transfer(WARM_UP_BYTES)
        for turn in range(BULK_ROUNDS):
            for kind in turns(turn, transfers):
                took.setdefault(kind, []).append(await transfers[kind](size))
    pace = {kind: size / MEGABYTE / statistics.median(each) for kind, each in took.items()}
    return {
        **rounded(pace),
        "ratio": round(pace[SECURE] / pace[CURVE], 3),
        "share_of_plain": round(pace[SECURE] / pace[PLAIN], 3),
        "bare_share_of_plain": round(pace[CURVE] / pace[BARE], 3),
    }


async def measure_strangers() -> dict[str, float]:
    """The p99 of pings in milliseconds, idle and beside strangers."""
    hub = await Process.begin("hub", identity=os.path.join(os.environ[ROOT], "hub"))
    try:
        client = MeshClient(SECURE, "hub", hub.listening[0])
        async with client.mesh:
            await client.ready()
            idle, _ = await pings(client)
            port = hub.listening[0].partition("?")[0].rpartition(":")[2]
            command = (sys.executable, "-m", MODULE, "--serve", "strangers", "--peer", port)
            attack = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
            busy, lost = await pings(client)
            await attack.communicate(b"")
            counts = await hub.ask("asyncio.sleep(0, dict(mesh.node.telemetry.counts))")
    finally:
        await asyncio.to_thread(hub.close)
    refused = sum(count for key, count in counts.items() if key.startswith("stranger_refused"))
    return {
        "idle_p99_ms": round(idle, 2),
        "p99_ms": round(busy, 2),
        "ratio": round(max(busy, FLOOR_MS) / max(idle, FLOOR_MS), 2),
        "lost": lost,
        "strangers": refused,
    }


async def pings(client: MeshClient) -> tuple[float, int]:
    """The p99 in milliseconds, and how many were lost."""
    took, lost = [], 0
    for _ in range(PINGS):
        started = time.perf_counter()
        try:
            await client.mesh.ping_once(client.far, 5.0)
        except zmesh.MeshError:
            lost += 1
        took.append(1000 * (time.perf_counter() - started))
        await asyncio.sleep(0.005)
    return statistics.quantiles(took, n=100)[98], lost


async def attack(port: int) -> None:
    """Open connections without a pause, ten at a time, and say what no member says."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00"
    half = greeting + b"CURVE".ljust(20, b"\0") + bytes(32) + b"\x04\xc8\x05HELLO\x01\x00" + bytes(100)
    talks = [os.urandom(1000), greeting + b"NULL".ljust(20, b"\0") + bytes(32), half]

    async def stranger(number: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(talks[number % len(talks)])
                await asyncio.sleep(0.02)
                writer.transport.abort()

    strangers = asyncio.gather(*map(stranger, range(10)))
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), strangers.cancel)  # the parent has ended
    with contextlib.suppress(asyncio.CancelledError):
        await strangers


def turns(turn: int, kinds: dict[str, object]) -> list[str]:
    """The kinds, of which another one goes first in each turn."""
    names = list(kinds)
    first = turn % len(names)
    return names[first:] + names[:first]


def rounded(values: dict[str, float]) -> dict[str, float]:
    """To one digit after the point."""
    return {name: round(value, 1) for name, value in values.items()}


async def measure(arguments: argparse.Namespace) -> Result:
    """All parts that are wanted, as one object."""
    began, wanted = os.getloadavg()[0], arguments.part or PARTS
    shared.acquire().set(zmq.IO_THREADS, arguments.io_threads)
    hops = await measure_hops(arguments.rounds) if "hops" in wanted else None
    rate = await measure_rate() if "rate" in wanted else None
    bulk = await measure_bulk(arguments.bytes) if "bulk" in wanted else None
    strangers = await measure_strangers() if "strangers" in wanted else None
    await shared.release()
    missed = [f"p50 over {count} forwarders" for count, row in (hops or {}).items() if row["ratio"] > MOST_P50]
    missed += ["requests a second"] if rate and rate["ratio"] < LEAST_RATE else []
    missed += ["bulk"] if bulk and bulk["ratio"] < LEAST_OF_CURVE else []
    missed += ["pings beside strangers"] if strangers and (strangers["ratio"] > MOST_P99 or strangers["lost"]) else []
    return {
        "schema": SCHEMA,
        "io_threads": arguments.io_threads,
        "hops": hops,
        "rate": rate,
        "bulk": bulk,
        "strangers": strangers,
        "missed": missed,
        "machine": machine(began),
    }


# -- output -----------------------------------------------------------------------------------------------------------


def table(result: Result) -> str:
    """The result for people, ready to be quoted in a commit."""
    lines = [f"with identities beside without, {result['io_threads']} I/O threads a node"]
    for count, row in (result["hops"] or {}).items():
        text = f"p50 over {count} forwarders: {row[SECURE]:.0f} us beside {row[PLAIN]:.0f} us"
        lines.append(f"{text}: {row['ratio']:.2f} (at most {MOST_P50})")
    if rate := result["rate"]:
        text = f"{rate[SECURE]:,.0f} requests/s beside {rate[PLAIN]:,.0f}"
        lines.append(f"{text}: {rate['ratio']:.2f} (at least {LEAST_RATE})")
    if bulk := result["bulk"]:
        text = f"bulk over {BULK_HOPS} forwarders: {bulk[SECURE]:.0f} MB/s beside {bulk[CURVE]:.0f} of bare CURVE"
        lines.append(f"{text}: {bulk['ratio']:.2f} (at least {LEAST_OF_CURVE})")
        text = f"share of plaintext: {bulk['share_of_plain']:.2f} of {bulk[PLAIN]:.0f} MB/s"
        lines.append(f"{text}, bare {bulk['bare_share_of_plain']:.2f} of {bulk[BARE]:.0f} MB/s")
    if strangers := result["strangers"]:
        text = f"p99 of pings {strangers['p99_ms']:.1f} ms beside {strangers['strangers']:.0f} strangers"
        text += f", idle {strangers['idle_p99_ms']:.1f} ms, {strangers['lost']:.0f} lost"
        lines.append(f"{text}: {strangers['ratio']:.2f} (at most {MOST_P99})")
    return "\n".join([*lines, machine_line(result["machine"])])


def main() -> int:
    """Measure and print; the exit status."""
    parser = program.parser("benchmarks.security", "what trust costs", SCHEMA, "a limit is missed")
    parser.add_argument("--rounds", type=at_least(2), default=30, help="rounds of round trips (30)")
    parser.add_argument("--bytes", type=at_least(1), default=128 * 1024 * 1024, help="bytes of a transfer (134217728)")
    parser.add_argument("--io-threads", type=at_least(1), default=1, help="threads of ZeroMQ in each zmesh node (1)")
    parser.add_argument("--part", action="append", choices=PARTS, help="measure this part alone")
    add_serving(parser)
    arguments = parser.parse_args()
    if arguments.serve == "strangers":
        asyncio.run(attack(int(arguments.peer)))
    elif arguments.serve:
        mesh = arguments.serve in (SECURE, PLAIN)
        node = mesh_node(arguments.name, arguments.serve, arguments.peer) if mesh else None
        asyncio.run(serve(node or bare_node(arguments.serve, arguments.peer), arguments.name))
    if arguments.serve:
        return 0
    os.environ[IO_THREADS] = str(arguments.io_threads)
    with identities(["client", "hub", *(f"{SECURE}-{index}" for index in range(BULK_HOPS + 1))]):
        result = asyncio.run(measure(arguments))
    return program.conclude(result, arguments, table(result), result["missed"])


if __name__ == "__main__":
    program.run(main)
