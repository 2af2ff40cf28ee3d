"""What the tests under faults share: proxies to lay before a node, nodes in processes of their own, and recipients."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

import zmesh
from tests.waiting import WITHIN
from zmesh.testing import eventually
from zmesh.testing.proxy import Proxy


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A TCP port on which nobody listens while the test runs."""
    with socket.socket() as keeper:
        keeper.bind(("127.0.0.1", 0))
        yield keeper.getsockname()[1]


@pytest_asyncio.fixture
async def before() -> AsyncIterator[Callable[[zmesh.Controller], Any]]:
    """Lays a proxy before a listening node: `await before(node)`, whose `url` is to be dialled instead."""
    async with contextlib.AsyncExitStack() as stack:

        async def lay(node: zmesh.Controller) -> Proxy:
            return await stack.enter_async_context(Proxy(node.listening[0]))

        yield lay


class Process:
    """A `zmesh node` in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self._process = process
        self.url = url

    async def kill(self) -> None:
        """End it without a word, as a power cut would."""
        await self.end(signal.SIGKILL)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Have it end, if it has not yet."""
        if self._process.returncode is None:
            self._process.send_signal(number)
        await self._process.communicate()


@pytest_asyncio.fixture
async def process(tmp_path: Any) -> AsyncIterator[Callable[..., Any]]:
    """Starts nodes: `await process("name", *urls of peers, heartbeat=1.0)`; returns when the node listens."""
    processes: list[Process] = []
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ZMESH_")}

    async def start(name: str, *peers: str, **settings: object) -> Process:
        config = tmp_path / f"{name}.toml"
        config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
        words = ["--id", name, "--listen", "tcp://127.0.0.1:*", "--config", str(config), "--json"]
        words += [word for peer in peers for word in ("--peer", peer)]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "zmesh_cli", "node", *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env=environment | {"XDG_RUNTIME_DIR": str(tmp_path)},
        )
        assert process.stdout is not None
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), WITHIN))
        processes.append(Process(process, ready["listening"][0]))
        return processes[-1]

    yield start
    for each in processes:
        await each.end(signal.SIGKILL)


class Callee:
    """What a recipient does, and how often it did it: `runs` counts by directive, `read` the bytes that came."""

    def __init__(self, node: zmesh.Controller) -> None:
        self.runs: Counter[str] = Counter()
        self.read = 0
        self.slowest = 0.0
        node.register("callee:take", self.take, stream=True)
        node.register("callee:give", self.give)
        node.register("callee:count", self.count)

    async def take(self, work: zmesh.Work) -> str:
        """Take a payload in; its size and checksum. `slowest` is the longest time between two pieces."""
        self.runs["take"] += 1
        size = total = 0
        heard = asyncio.get_running_loop().time()
        async for piece in work.payload:
            size, total = size + len(piece), zlib.crc32(piece, total)
            self.read += len(piece)
            now = asyncio.get_running_loop().time()
            self.slowest, heard = max(self.slowest, now - heard), now
        return f"{size} {total}"

    async def give(self, work: zmesh.Work) -> object:
        """Give the payload back."""
        self.runs["give"] += 1
        return work.payload

    async def count(self, work: zmesh.Work) -> AsyncIterator[str]:
        """Count up to a number, a reply each."""
        self.runs["count"] += 1
        for number in range(int(work.payload.text())):
            yield str(number)
            await asyncio.sleep(0.002)


@pytest.fixture
def callee() -> type[Callee]:
    """`callee(node)` lets a node take, give back and count."""
    return Callee


class Replies:
    """A response handler that keeps all that it was given."""

    def __init__(self) -> None:
        self.messages: list[zmesh.Message] = []

    def __call__(self, message: zmesh.Message) -> None:
        self.messages.append(message)

    async def whole(self, timeout: float = WITHIN) -> list[str]:
        """The replies as texts, once the last one has come: numbered without a gap, and the last one alone an eof."""
        await eventually(lambda: self.messages and self.messages[-1].header["eof"], timeout)
        count = len(self.messages)
        assert [message.header["serial"] for message in self.messages] == list(range(1, count + 1))
        assert [message.header["eof"] for message in self.messages] == [False] * (count - 1) + [True]
        assert self.messages[-1].header["code"] == 0, self.messages[-1].header
        return [message.payload.readall().decode() for message in self.messages[:-1]]


@pytest.fixture
def replies() -> type[Replies]:
    """`replies()` is a response handler."""
    return Replies
