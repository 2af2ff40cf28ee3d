"""Programs as readers of the guide write them, and the other nodes of the mesh that they talk to."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import zmesh as receptor
from tests.own_process import without_blocks
from tests.waiting import WITHIN
from zmesh.testing import eventually


class Elsewhere:
    """A node with a thread and an event loop of its own, as far away from a program as another machine is.

    Besides the built-in directives it has `depot:store`, which keeps what it gets and confirms it, `depot:store_later`,
    which does so when `go_on` is set, and `depot:count`, which sends as many replies as it is asked for.
    """

    def __init__(self, node_id: str, *, listen: str = "tcp://127.0.0.1:*", **settings: Any) -> None:
        self.node_id = node_id
        self.stored: list[bytes] = []
        self._config = receptor.Config(node_id=node_id, listen=(listen,), **settings)
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), name=f"node {node_id}")
        self._thread.start()
        self._opened.result(WITHIN)

    @property
    def url(self) -> str:
        """Where it listens, as the guide writes addresses."""
        return self.controller.listening[0].replace("tcp://", "rnp://")

    def call(self, function: Callable[[], Any]) -> Any:
        """What the function returns, called in the node's own thread."""

        async def called() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(WITHIN)

    def eventually(self, predicate: Callable[[], object], timeout: float = WITHIN) -> None:
        """Return when the predicate, called in the node's own thread, holds."""
        asyncio.run_coroutine_threadsafe(eventually(predicate, timeout), self._loop).result(timeout + WITHIN)

    def kept(self, count: int) -> list[bytes]:
        """What was stored here, as soon as it is so many messages: `run` hands them over and no more."""
        with contextlib.suppress(AssertionError):  # the caller's comparison tells more
            self.eventually(lambda: len(self.stored) >= count)
        return self.call(lambda: list(self.stored))

    def nodes(self) -> list[str]:
        """The nodes that this one knows of."""
        return self.call(self.controller.receptor.router.get_nodes)

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join(WITHIN)
        assert not self._thread.is_alive()

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        self.go_on = asyncio.Event()
        self.controller = receptor.Controller(self._config)
        self.controller.register("depot:store", self._store)
        self.controller.register("depot:store_later", self._store_later)
        self.controller.register("depot:count", count)
        try:
            async with self.controller:
                self._opened.set_result(None)
                await self._closing.wait()
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)

    async def _store(self, work: receptor.Work) -> str:
        self.stored.append(work.payload.readall())
        return f"stored {len(work.payload)} bytes"

    async def _store_later(self, work: receptor.Work) -> str:
        await self.go_on.wait()
        return await self._store(work)


async def count(work: receptor.Work) -> Any:
    for number in range(int(work.payload.text())):
        yield str(number)


@pytest.fixture
def elsewhere() -> Iterator[Callable[..., Elsewhere]]:
    """Starts nodes: `elsewhere("depot")`, with a `listen` URL and settings or without."""
    nodes: list[Elsewhere] = []

    def start(node_id: str, **settings: Any) -> Elsewhere:
        nodes.append(Elsewhere(node_id, **settings))
        return nodes[-1]

    yield start
    for node in nodes:
        node.close()


@pytest.fixture
def depot(elsewhere: Callable[..., Elsewhere]) -> Elsewhere:
    """A node called `depot`."""
    return elsewhere("depot")


class Program:
    """A program that an interpreter of its own runs; warnings are errors there."""

    def __init__(self, source: str, folder: Path, *arguments: str) -> None:
        script = folder / "program.py"
        script.write_text(textwrap.dedent(source), encoding="utf-8")
        self._errors = folder / "stderr.txt"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ZMESH_")}
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-W", "error", str(script), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=folder,
                env=environment,
                text=True,
            )

    @property
    def stderr(self) -> str:
        return without_blocks(self._errors.read_text(encoding="utf-8"))

    def line(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n") or self.stderr

    def running(self) -> bool:
        return self._process.poll() is None

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def end(self, timeout: float = WITHIN) -> int:
        """Its exit code, once it has ended by itself."""
        return self._process.wait(timeout)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Program]]:
    """Runs programs: `program(source, *arguments)`, each in a folder of its own."""
    programs: list[Program] = []

    def run(source: str, *arguments: str) -> Program:
        programs.append(Program(source, tmp_path_factory.mktemp("program"), *arguments))
        return programs[-1]

    yield run
    for each in programs:
        each.close()


@pytest.fixture
def free_port() -> Iterator[int]:
    """A TCP port on which nobody listens, and which is given to nobody else while the test runs."""
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as ZeroMQ does, so that it can bind it too
        keeper.bind(("127.0.0.1", 0))
        yield keeper.getsockname()[1]


@pytest.fixture
def answers() -> Callable[[int], bool]:
    """Whether something listens on a port of this machine."""

    def connects(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return connects
