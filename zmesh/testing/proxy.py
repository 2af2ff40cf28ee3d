"""A TCP proxy that impairs connections: delay, rate, silence, half-open ends, cuts, and flipped bits.

It stands between a node that dials and one that listens, and works on bytes, without knowledge of the protocol.
Each direction is a `Lane` with settings of its own, which may change at any time and hold for bytes that come from then
on. A lane behaves as a link does that is slow in the middle: bytes leave one after the other at its rate, travel for
its delay, and what finds no room makes the sender's TCP wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
from collections import deque
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

READ_BYTES = 64 * 1024
QUEUE_BYTES = 256 * 1024
IN_FLIGHT_BYTES = 16 * 1024 * 1024
CATCH_UP = 0.010


class Lane:
    """One direction through a proxy, shared by all connections as a link is.

    `delay` in seconds; `rate` in bytes a second; `passed` and `swallowed` count bytes. While `dead` is True all bytes
    are swallowed. While it is frozen (`freeze`, `thaw`) none is taken in or let out, and none is lost.
    """

    def __init__(self) -> None:
        self.delay = 0.0
        self.rate = math.inf
        self.dead = False
        self.passed = 0
        self.swallowed = 0
        self._free_at = 0.0
        self._flip_after: int | None = None
        self._thawed = asyncio.Event()
        self._thawed.set()

    def freeze(self) -> None:
        """Stop, as when a cable is unplugged: the bytes wait."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Let the bytes pass again."""
        self._thawed.set()

    def flip(self, after: int = 0) -> None:
        """Flip one bit, once, in the byte that comes after that many others."""
        self._flip_after = after

    @property
    def capacity(self) -> float:
        """How many bytes of a connection may be in flight in the lane."""
        return min(IN_FLIGHT_BYTES, QUEUE_BYTES + (self.rate * self.delay if self.delay else 0))

    async def open(self) -> None:
        """Return as soon as the lane is not frozen."""
        await self._thawed.wait()

    async def leave(self, size: int) -> float:
        """Wait until `size` bytes have left at the lane's rate; when they arrive, in the loop's time."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        # A task that was woken late catches up, or every late wake-up would make the lane slower than it says.
        self._free_at = max(self._free_at, now - CATCH_UP) + size / self.rate
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)
        return max(self._free_at, now) + self.delay

    def spoil(self, data: bytes) -> bytes:
        """The bytes as they come out, which are those that went in, but for `flip`."""
        after = self._flip_after
        if after is None:
            return data
        if after >= len(data):
            self._flip_after = after - len(data)
            return data
        self._flip_after = None
        return data[:after] + bytes((data[after] ^ 0x10,)) + data[after + 1 :]


class _Connection:
    """Two sockets, and the bytes that travel between them."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writers = [writer]
        self.task: asyncio.Task[None] | None = None
        self.lossy = False

    def close(self, *, reset: bool) -> None:
        for writer in self.writers:
            if reset:
                with contextlib.suppress(OSError):
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
            else:
                writer.close()

    def cut(self, *, reset: bool) -> None:
        self.close(reset=reset)
        if self.task is not None:
            self.task.cancel()


class Proxy:
    """A TCP proxy to `target`, a `tcp://` URL; dial its `url` instead. `async with` opens and closes it.

    `forth` is the lane from the one who dials to the target, `back` the other. `connections` counts all that were
    accepted. With `refusing` True new connections are reset at once. Closing it leaves no task and no socket.
    """

    def __init__(self, target: str, port: int = 0) -> None:
        self.aim(target)
        self._wanted_port = port
        self.forth = Lane()
        self.back = Lane()
        self.connections = 0
        self.refusing = False
        self.url = ""
        self._server: asyncio.Server | None = None
        self._open: set[_Connection] = set()

    @property
    def lanes(self) -> tuple[Lane, Lane]:
        """Both directions."""
        return self.forth, self.back

    def aim(self, target: str) -> None:
        """Lead new connections to this `tcp://` URL, as when what listened there has moved."""
        parts = urlsplit(target)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 0

    def slow(self, *, delay: float = 0.0, rate: float = math.inf) -> None:
        """Give both lanes this delay (seconds, in each direction) and rate (bytes a second)."""
        for lane in self.lanes:
            lane.delay, lane.rate = delay, rate

    def cut(self, *, reset: bool = True) -> None:
        """End all connections, with RST, or without `reset` with FIN; new ones can be made."""
        for connection in list(self._open):
            connection.cut(reset=reset)

    def swallow(self) -> None:
        """Swallow all bytes: connections stay, new ones are accepted, and nothing passes."""
        for lane in self.lanes:
            lane.dead = True

    def freeze(self) -> None:
        """Let nothing pass, as when a cable is unplugged; the bytes wait for `heal`."""
        for lane in self.lanes:
            lane.freeze()

    def heal(self) -> None:
        """Let all pass again at once and untouched; connections that lack bytes are reset."""
        self.refusing = False
        self.slow()
        for lane in self.lanes:
            lane.dead = False
            lane.thaw()
        for connection in list(self._open):
            if connection.lossy:
                connection.cut(reset=True)

    async def open(self) -> None:
        """Listen. Raises OSError if the port is taken."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._wanted_port, limit=4 * READ_BYTES)
        self._wanted_port = self._server.sockets[0].getsockname()[1]
        self.url = f"tcp://127.0.0.1:{self._wanted_port}"

    async def close(self) -> None:
        """End all connections and listen no more; harmless when done twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        self.cut()
        await asyncio.gather(*(each.task for each in self._open if each.task), return_exceptions=True)
        await server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = _Connection(writer)
        if self.refusing or self._server is None:
            connection.close(reset=True)
            return
        self._open.add(connection)
        connection.task = asyncio.create_task(self._serve(connection, reader, writer), name="zmesh proxy")
        connection.task.add_done_callback(lambda task: self._open.discard(connection))

    async def _serve(self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(self._host, self._port, limit=4 * READ_BYTES)
            connection.writers.append(back)
            async with asyncio.TaskGroup() as group:
                for lane, source, target in ((self.forth, reader, back), (self.back, there, writer)):
                    flight = _Flight()
                    group.create_task(_take_in(connection, lane, source, flight))
                    group.create_task(_let_out(connection, lane, flight, target))
        except* OSError:
            connection.close(reset=True)  # one end is gone, so the other end's connection goes as well
        finally:
            connection.close(reset=False)


class _Flight:
    """The bytes of one connection that are in flight in a lane, in order."""

    def __init__(self) -> None:
        self._queue: deque[tuple[float, bytes]] = deque()
        self._size_bytes = 0
        self._changed = asyncio.Event()

    async def put(self, arrives: float, data: bytes, capacity: float) -> None:
        while self._size_bytes >= capacity:
            self._changed.clear()
            await self._changed.wait()
        self._queue.append((arrives, data))
        self._size_bytes += len(data)
        self._changed.set()

    async def take(self) -> tuple[float, bytes]:
        while not self._queue:
            self._changed.clear()
            await self._changed.wait()
        arrives, data = self._queue.popleft()
        self._size_bytes -= len(data)
        self._changed.set()
        return arrives, data


async def _take_in(connection: _Connection, lane: Lane, reader: asyncio.StreamReader, flight: _Flight) -> None:
    """Take bytes into a lane until there are no more; b"" is the end."""
    data = b"-"
    while data:
        await lane.open()
        data = await reader.read(READ_BYTES)
        if lane.dead and data:
            connection.lossy = True
            lane.swallowed += len(data)
        else:
            await lane.open()
            await flight.put(await lane.leave(len(data)), lane.spoil(data), lane.capacity)


async def _let_out(connection: _Connection, lane: Lane, flight: _Flight, writer: asyncio.StreamWriter) -> None:
    """Let bytes out of a lane when they have arrived."""
    loop = asyncio.get_running_loop()
    while True:
        arrives, data = await flight.take()
        if arrives > loop.time():
            await asyncio.sleep(arrives - loop.time())
        await lane.open()
        if lane.dead:
            connection.lossy = True
            lane.swallowed += len(data)
        elif not data:
            writer.write_eof()
            return
        else:
            lane.passed += len(data)
            writer.write(data)
            await writer.drain()
