"""Fixtures for real sockets: a count of what a test leaves behind, processes, and a bad TCP connection."""

import asyncio
import contextlib
import os
import re
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.ports import FreePorts
from zmesh.core.effects import Report
from zmesh.node import Node
from zmesh.testing import eventually
from zmesh.testing.process import Process
from zmesh.transport.context import open_transports

# --- what is left behind --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def _own_temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder for the temporary files of this process, in which those of others on this machine are not counted."""
    tempfile.tempdir = str(tmp_path_factory.mktemp("temporary"))
    yield
    tempfile.tempdir = None


def census() -> Counter[str]:
    """All that this process holds and should give back: descriptors, threads (also ZeroMQ's), tasks, files, contexts.

    The threads of the loop's own executor are the loop's, which ends them when it is closed.
    """
    found: Counter[str] = Counter()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found["descriptor " + re.sub(r"\d+", "N", os.readlink(f"/proc/self/fd/{descriptor}"))] += 1
    executor = sum(thread.name.startswith("asyncio_") for thread in threading.enumerate())
    found["threads"] = len(os.listdir("/proc/self/task")) - executor
    for thread in threading.enumerate():
        if not thread.name.startswith("asyncio_"):
            found[f"thread {thread.name}"] += 1
    with contextlib.suppress(RuntimeError):
        found.update(f"task {re.sub('[0-9]+', 'N', task.get_name())}" for task in asyncio.all_tasks())
    found["transports"] = open_transports()
    found["temporary files"] = len(list(Path(tempfile.gettempdir()).glob("zmesh-*")))
    return found


@pytest.fixture(name="census")
def _census() -> Callable[[], Counter[str]]:
    """What the process holds at the moment."""
    return census


@pytest.fixture
def complaints() -> list[dict[str, Any]]:
    """What callbacks of the loop have raised."""
    return []


@pytest_asyncio.fixture(autouse=True)
async def nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complaints: list[dict[str, Any]]
) -> AsyncIterator[None]:
    """After every test here, all that it opened is gone, and no callback has raised."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where nobody else leaves anything
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    before = census()
    yield
    assert complaints == []
    with contextlib.suppress(AssertionError):
        await eventually(lambda: not census() - before, timeout=60)
    assert census() - before == Counter()


@pytest.fixture
def reports() -> Callable[[Node], list[Report]]:
    """`reports(node)` is a list that grows with each report of that node."""

    def of(node: Node) -> list[Report]:
        seen: list[Report] = []
        node.watch(seen.append)
        return seen

    return of


# --- other processes ------------------------------------------------------------------------------------------------


@pytest.fixture
def process() -> Iterator[Callable[..., Process]]:
    """Starts nodes: `await process("name", peers=[...])`, on a free port; `more` is code for their expressions."""
    processes: list[Process] = []

    async def start(node_id: str, *, more: str = "", **settings: Any) -> Process:
        processes.append(await Process.begin(node_id, more=more, **settings))
        return processes[-1]

    yield start
    for each in processes:
        each.close()


# --- a bad connection -----------------------------------------------------------------------------------------------


class Wire:
    """A TCP connection to a listening node that can be cut, or frozen so that nothing passes and nothing is closed."""

    def __init__(self, target: str) -> None:
        self._host, self._port = target.removeprefix("tcp://").split(":")
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self.passed = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = "tcp://{}:{}".format(*self._server.sockets[0].getsockname())

    def cut(self) -> None:
        """Break all connections; new ones can be made."""
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    async def close(self) -> None:
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            there, back = await asyncio.open_connection(self._host, int(self._port))
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        for source, target in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pass_on(source, target), name="wire")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                self.passed += len(data)
                writer.write(data)
                await writer.drain()
        writer.close()
        self._writers.discard(writer)


@pytest_asyncio.fixture
async def wire() -> AsyncIterator[Callable[[str], Any]]:
    """Lays wires: `await wire(url)` is one whose own `url` leads to that one."""
    wires: list[Wire] = []

    async def lay(target: str) -> Wire:
        wires.append(Wire(target))
        await wires[-1].open()
        return wires[-1]

    yield lay
    for each in wires:
        await each.close()


# --- strangers ------------------------------------------------------------------------------------------------------


@pytest.fixture
def zmq_socket() -> Iterator[Callable[..., Any]]:
    """Makes ZeroMQ sockets of any kind that are connected to a URL: `zmq_socket("DEALER", url)`."""
    import zmq

    context: Any = zmq.Context()
    context.socket(zmq.PAIR).close()  # its threads start with the first socket, and are not the node's
    sockets: list[Any] = []

    def connect(kind: str, url: str) -> Any:
        sock = context.socket(getattr(zmq, kind))
        sockets.append(sock)
        sock.linger = 0
        sock.connect(url)
        return sock

    yield connect
    for each in sockets:
        each.close()
    context.term()


@pytest_asyncio.fixture
async def server(free_port: int) -> AsyncIterator[Callable[..., Any]]:
    """Starts other kinds of servers: `await server(talk)` has each connection talked to; its value is the URL.

    Called with None it stops the server, and the port is free.
    """
    servers: list[asyncio.Server] = []
    talks: set[asyncio.Task[None]] = set()

    async def start(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any] | None) -> str:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            talks.add(task)
            try:
                with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                    await talk(reader, writer)
            finally:
                writer.transport.abort()
                talks.discard(task)

        if talk is None:
            await stop()
        else:
            servers.append(await asyncio.start_server(connected, "127.0.0.1", free_port))
        return f"tcp://127.0.0.1:{free_port}"

    async def stop() -> None:
        while servers:
            servers[-1].close()
            for task in talks:
                task.cancel()
            await asyncio.gather(*talks, return_exceptions=True)
            await servers.pop().wait_closed()

    yield start
    await stop()


@pytest.fixture
def free_ports() -> Iterator[FreePorts]:
    """Gives TCP ports on which nobody listens, and which are given to nobody else while the test runs."""
    with contextlib.closing(FreePorts()) as ports:
        yield ports


@pytest.fixture
def free_port() -> Iterator[int]:
    """One of them."""
    with contextlib.closing(FreePorts()) as ports:
        yield ports()
