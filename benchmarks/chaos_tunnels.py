"""Connections through the mesh amid chaos: what each of them sends, and what must have become of it.

Every node exposes a server that sends back what it gets. A client opens connections to it, sends in pieces, with pauses
in which nothing goes, reads meanwhile, and ends its direction or resets the connection. What has come back must be the
beginning of what was sent, whatever befalls the nodes, and all of it if the other direction has ended as it should.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import zmesh
from benchmarks.workload import TRANSIENT, Verdict, content

SERVICE = "echo"
ALLOW = {f"tcp:{SERVICE}": ["*"]}
SIZES = (0, 1, 1000, 70_000, 300_000, 1_000_000)
PIECE = 20_000
IDLE = (0.0, 0.0, 0.0, 0.3, 2.0)
AT_A_TIME = 12
PAUSE = 0.05


@contextlib.asynccontextmanager
async def serve_tunnels(mesh: zmesh.Controller) -> AsyncIterator[None]:
    """Expose the server at a node."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        with mesh.expose(SERVICE, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"):
            yield
    finally:
        server.close()


@dataclass
class Tunnel:
    """One connection, and what came of it: `ending` is "" while it is open, `eof` if both directions have ended."""

    number: int
    node: str
    size: int
    idle: float
    resets: bool
    received: bytes = b""
    ending: str = ""


class Connector:
    """A client that opens connections until it is stopped."""

    def __init__(self, mesh: zmesh.Controller, seed: int, nodes: Sequence[str]) -> None:
        self.tunnels: list[Tunnel] = []
        self._mesh = mesh
        self._random = random.Random(seed)
        self._nodes = list(nodes)
        self._tasks: set[asyncio.Task[None]] = set()

    async def work(self, seconds: float) -> None:
        """Open connections for so many seconds."""
        until, rng = time.monotonic() + seconds, self._random
        while time.monotonic() < until:
            if len(self._tasks) < AT_A_TIME:
                chosen = rng.choice(self._nodes), rng.choice(SIZES), rng.choice(IDLE), rng.random() < 0.1
                self.tunnels.append(Tunnel(len(self.tunnels), *chosen))
                task = asyncio.create_task(self._run(self.tunnels[-1]))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(PAUSE)

    async def settle(self, within: float) -> None:
        """Wait for the end of all."""
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=within)
            for task in late:
                task.cancel()

    @property
    def whole(self) -> int:
        """Connections of which both directions have ended."""
        return sum(tunnel.ending == "eof" for tunnel in self.tunnels)

    def judge(self, verdict: Verdict) -> None:
        """Add to the verdict what is wrong with them."""
        for tunnel in self.tunnels:
            whole = content(tunnel.number, tunnel.size)
            what = ""
            if not tunnel.ending:
                what, verdict.unended = "has not ended", verdict.unended + 1
            elif not whole.startswith(tunnel.received):
                what, verdict.wrong = "has brought back other bytes", verdict.wrong + 1
            elif tunnel.ending == "eof" and tunnel.received != whole:
                what, verdict.lost = f"has lost {len(whole) - len(tunnel.received)} bytes", verdict.lost + 1
            elif tunnel.ending not in ("eof", "reset", "unknown_directive", *TRANSIENT):
                what, verdict.wrong = f"has ended as {tunnel.ending}", verdict.wrong + 1
            if what:
                verdict.complaints.append(f"connection {tunnel.number} to {tunnel.node} {what}")

    async def _run(self, tunnel: Tunnel) -> None:
        try:
            reader, writer = await self._mesh.open_connection(tunnel.node, service=SERVICE)
        except zmesh.MeshError as error:
            tunnel.ending = error.code
            return
        sending = asyncio.create_task(self._send(tunnel, writer))
        try:
            while data := await reader.read(65536):
                tunnel.received += data
            await sending
            tunnel.ending = tunnel.ending or "eof"
        except ConnectionError:
            tunnel.ending = "reset"
        finally:
            sending.cancel()
            await asyncio.wait((sending,))
            writer.close()

    async def _send(self, tunnel: Tunnel, writer: asyncio.StreamWriter) -> None:
        whole = content(tunnel.number, tunnel.size)
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(whole), PIECE):
                writer.write(whole[start : start + PIECE])
                await writer.drain()
                if start == 0:
                    await asyncio.sleep(tunnel.idle)
            if tunnel.resets:
                writer.transport.abort()
                tunnel.ending = "reset"
            else:
                writer.write_eof()
