"""The programs that `benchmarks.peers` compares: a node and a client of each kind, and whether it is installed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from benchmarks import latency
from benchmarks.chains import (
    HEAD_BYTES,
    ROUTE_BYTES,
    chain,
)
from benchmarks.floor import Forwarder, Socket
from benchmarks.latency import OUTSTANDING, START_TIMEOUT, Client, Flood

MODULE = "benchmarks.peers"
"""What runs the nodes of a chain, each in a process of its own."""
SUBJECT = "bench/echo"


# -- floor ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def floor_node(_: str, peer: str | None) -> AsyncIterator[str]:
    """A loop that sends each message back, or with `peer` passes all on."""
    with zmq.Context() as context:
        if peer is not None:
            forwarder = Forwarder(context, "tcp://127.0.0.1:*", peer)
            yield forwarder.front.socket.get_string(zmq.LAST_ENDPOINT)
            forwarder.close()
            return
        far = Socket(context, lambda message: far.send(message))
        far.socket.bind("tcp://127.0.0.1:*")
        far.start()
        yield far.socket.get_string(zmq.LAST_ENDPOINT)
        far.close()


@asynccontextmanager
async def floor_client(hops: int, size: int) -> AsyncIterator[Client]:
    """A loop whose callback wakes the task that awaits the answer, in the order of the requests."""
    frames = [os.urandom(ROUTE_BYTES + HEAD_BYTES + size)]
    clock = time.perf_counter
    loop = asyncio.get_running_loop()
    waiting: deque[asyncio.Future[list[bytes]]] = deque()
    with chain(MODULE, "floor", hops) as (_, url, _), zmq.Context() as context:
        near = Socket(context, lambda message: waiting.popleft().set_result(message))
        near.socket.connect(url)
        near.start()

        async def request() -> list[bytes]:
            answered: asyncio.Future[list[bytes]] = loop.create_future()
            waiting.append(answered)
            near.send(frames)
            return await answered

        async def ask(count: int) -> list[float]:
            took = []
            for _ in range(count):
                started = clock()
                await request()
                took.append(clock() - started)
            return took

        yield Client(ask, flooding(request))
        near.close()


def flooding(request: Callable[[], Awaitable[object]]) -> Flood:
    """What keeps so many requests in flight, and returns how many a second were answered."""

    async def flood(count: int, outstanding: int = OUTSTANDING) -> float:
        left = iter(range(count))

        async def worker() -> None:
            for _ in left:
                await request()

        started = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(outstanding)))
        return count / (time.perf_counter() - started)

    return flood


# -- Zenoh ------------------------------------------------------------------------------------------------------------


def zenoh_session(listen: str | None, peer: str | None) -> Any:
    """A session that forwards, or (without `listen`) one of a client."""
    import zenoh

    zenoh.init_log_from_env_or("error")
    config = zenoh.Config()
    config.insert_json5("mode", json.dumps("router" if listen else "client"))
    config.insert_json5("listen/endpoints", json.dumps([listen] if listen else []))
    config.insert_json5("connect/endpoints", json.dumps([peer] if peer else []))
    config.insert_json5("scouting/multicast/enabled", "false")
    return zenoh.open(config)


@asynccontextmanager
async def zenoh_node(_: str, peer: str | None) -> AsyncIterator[str]:
    """A router, which without `peer` answers as well."""
    url = f"tcp/127.0.0.1:{free_port()}"
    session = zenoh_session(url, peer)
    if peer is None:
        session.declare_queryable(SUBJECT, lambda query: query.reply(SUBJECT, query.payload))
    yield url
    session.close()


@asynccontextmanager
async def zenoh_client(hops: int, size: int) -> AsyncIterator[Client]:
    """A session that asks."""
    payload = os.urandom(size)
    clock = time.perf_counter
    with chain(MODULE, "zenoh", hops) as (_, url, _):
        session = zenoh_session(None, url)

        def asking(count: int) -> list[float]:
            took = []
            for _ in range(count):
                started = clock()
                if not list(session.get(SUBJECT, payload=payload)):
                    raise RuntimeError("Zenoh has no answer")
                took.append(clock() - started)
            return took

        def flooding(count: int, outstanding: int) -> float:
            room, done = threading.Semaphore(outstanding), threading.Semaphore(0)

            def answered(_: Any) -> None:
                room.release()
                done.release()

            started = clock()
            for _ in range(count):
                room.acquire()
                session.get(SUBJECT, answered, payload=payload)
            for _ in range(count):
                done.acquire()
            return count / (clock() - started)

        async def ask(count: int) -> list[float]:
            return asking(count)

        async def flood(count: int, outstanding: int = OUTSTANDING) -> float:
            return flooding(count, outstanding)

        deadline = time.monotonic() + START_TIMEOUT
        while not list(session.get(SUBJECT, payload=payload)) and time.monotonic() < deadline:
            time.sleep(0.1)  # noqa: ASYNC251  # nothing else runs here
        yield Client(ask, flood)
        session.close()


# -- NATS -------------------------------------------------------------------------------------------------------------


@contextmanager
def nats_servers(count: int) -> Iterator[tuple[str, str]]:
    """So many servers in a row, each a leaf node of the next; the URLs of the first and the last one."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls: list[str] = []
        leaf_port = 0
        for index in range(count):
            port, listens = free_port(), free_port()
            remote = f'remotes: [{{url: "nats-leaf://127.0.0.1:{leaf_port}"}}]' if leaf_port else ""
            config = folder / f"{index}.conf"
            config.write_text(
                f"listen: 127.0.0.1:{port}\nserver_name: bench-{index}\n"
                f"leafnodes {{ listen: 127.0.0.1:{listens}\n{remote} }}\n"
            )
            process = subprocess.Popen(
                ["nats-server", "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(process.wait, START_TIMEOUT)
            stack.callback(process.terminate)
            wait_for_port(port)
            wait_for_port(listens)
            urls.append(f"nats://127.0.0.1:{port}")
            leaf_port = listens
        yield urls[-1], urls[0]


@asynccontextmanager
async def nats_node(_: str, peer: str | None) -> AsyncIterator[str]:
    """A program that answers, at the server `peer`."""
    import nats

    assert peer is not None
    connection = await nats.connect(peer)

    async def answer(message: Any) -> None:
        await message.respond(message.data)

    await connection.subscribe(SUBJECT.replace("/", "."), cb=answer)
    await connection.flush()
    yield peer
    await connection.close()


@asynccontextmanager
async def nats_client(hops: int, size: int) -> AsyncIterator[Client]:
    """A program that asks, at the first server."""
    import nats

    payload, subject = os.urandom(size), SUBJECT.replace("/", ".")
    clock = time.perf_counter
    with nats_servers(hops) as (near, far), started_node("nats", far):
        connection = await nats.connect(near)
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:  # the servers say nothing when they know of the subject
            with contextlib.suppress(nats.errors.NoRespondersError, nats.errors.TimeoutError):
                await connection.request(subject, payload, timeout=1)
                break
            await asyncio.sleep(0.05)

        async def ask(count: int) -> list[float]:
            took = []
            for _ in range(count):
                started = clock()
                await connection.request(subject, payload, timeout=5)
                took.append(clock() - started)
            return took

        yield Client(ask, flooding(lambda: connection.request(subject, payload, timeout=30)))
        await connection.close()


@contextmanager
def started_node(kind: str, peer: str) -> Iterator[None]:
    """One node of that kind in a process of its own."""
    command = [sys.executable, "-m", MODULE, "--serve", kind, "--peer", peer]
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"the node of {kind} ended before it was ready")
        yield
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait(START_TIMEOUT)


# -- C ----------------------------------------------------------------------------------------------------------------


C_SOURCE = Path(__file__).with_name("proxy.c")


@contextmanager
def c_program() -> Iterator[str]:
    """The compiled program."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "proxy")
        subprocess.run(["cc", "-O2", "-o", program, str(C_SOURCE), "-lzmq"], check=True, capture_output=True)
        yield program


@asynccontextmanager
async def c_client(hops: int, size: int) -> AsyncIterator[Client]:
    """C programs of libzmq at both ends and between; the client prints each round trip."""
    with c_program() as program, contextlib.ExitStack() as stack:
        peer = ""
        for _ in range(hops + 1):
            url = f"tcp://127.0.0.1:{free_port()}"
            process = subprocess.Popen([program, "serve", url, *([peer] if peer else [])], stdin=subprocess.PIPE)
            stack.callback(process.wait, START_TIMEOUT)
            stack.callback(process.kill)
            peer = url
        words = [program, "ask", peer, str(ROUTE_BYTES + HEAD_BYTES + size)]
        client = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        stack.callback(client.wait, START_TIMEOUT)
        stack.callback(client.kill)
        assert client.stdin is not None
        assert client.stdout is not None
        write, read = client.stdin.write, client.stdout.readline

        async def ask(count: int) -> list[float]:
            write(f"1 {count}\n")
            return [float(await asyncio.to_thread(read)) for _ in range(count)]

        async def flood(count: int, outstanding: int = OUTSTANDING) -> float:
            write(f"{outstanding} {count}\n")
            return count / float(await asyncio.to_thread(read))

        yield Client(ask, flood)


# -- the kinds --------------------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """How a kind is measured. `missing` says why it can't be, or nothing."""

    client: Callable[[int, int], AbstractAsyncContextManager[Client]]
    missing: Callable[[], str]
    least_hops: int = 0


def _nothing() -> str:
    return ""


def _no_zenoh() -> str:
    return "" if find_spec("zenoh") else "eclipse-zenoh is not installed (pip install 'zmesh-mq[bench]')"


def _no_nats() -> str:
    if not find_spec("nats"):
        return "nats-py is not installed (pip install 'zmesh-mq[bench]')"
    return "" if shutil.which("nats-server") else "nats-server is not on PATH (Debian: apt install nats-server)"


def _no_c() -> str:
    if shutil.which("cc") is None:
        return "there is no C compiler"
    return "" if Path("/usr/include/zmq.h").exists() else "zmq.h is not there (Debian: apt install libzmq3-dev)"


KINDS = {
    "zmesh": Kind(latency.mesh_client, _nothing),
    "bare": Kind(latency.bare_client, _nothing),
    "floor": Kind(floor_client, _nothing),
    "zenoh": Kind(zenoh_client, _no_zenoh),
    "nats": Kind(nats_client, _no_nats, 1),
    "c": Kind(c_client, _no_c),
}
NODES = {"floor": floor_node, "zenoh": zenoh_node, "nats": nats_node}


def free_port() -> int:
    """A TCP port of loopback that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int) -> None:
    """Wait until something listens there."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port}")
