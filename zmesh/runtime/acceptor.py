"""Accepting TCP connections, in turns, and waiting where there is nothing left to accept one with.

Where the process or the machine has no descriptor or memory left, connections wait in the backlog of the socket, and
are accepted when there is some again. asyncio's own server would log BACKLOG tracebacks a second meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable

from zmesh.runtime.forks import close_in_child

ACCEPTED_AT_ONCE = 64
"""Connections that are accepted before others have their turn on the loop."""
ACCEPT_AGAIN = 0.5
"""Seconds until accepting is tried again where there was no descriptor or memory for it."""
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""The errors of accept(2) where the process or the machine has no descriptor or memory left."""


class Acceptor:
    """Accepts the connections of sockets that listen, which do not block."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        self._loop: asyncio.AbstractEventLoop | None = None
        self._factory: Callable[[], asyncio.Protocol] = asyncio.Protocol
        self._on_exhausted: Callable[[OSError], None] = lambda error: None
        self._paused: dict[socket.socket, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        for sock in sockets:
            close_in_child(sock)

    def serve(self, factory: Callable[[], asyncio.Protocol], on_exhausted: Callable[[OSError], None]) -> None:
        """Accept connections from now on. `on_exhausted` is called whenever there is nothing left to accept one with;
        it waits then."""
        self._loop = asyncio.get_running_loop()
        self._factory, self._on_exhausted = factory, on_exhausted
        for sock in self._sockets:
            if sock.fileno() >= 0:
                self._loop.add_reader(sock, self._accept, sock)

    def close(self) -> None:
        """Stop listening, also where the loop is closed."""
        for timer in self._paused.values():
            timer.cancel()
        self._paused.clear()
        for sock in self._sockets:
            if self._loop is not None and not self._loop.is_closed() and sock.fileno() >= 0:
                self._loop.remove_reader(sock)
            sock.close()

    def _accept(self, sock: socket.socket) -> None:
        assert self._loop is not None
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _ = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._pause(self._loop, sock, error)
                    return
                continue  # of this connection, which has failed meanwhile (accept(2))
            close_in_child(connection)
            task = self._loop.create_task(self._take(connection), name="zmesh accept")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _pause(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, error: OSError) -> None:
        """Try again later: the socket stays readable, so that the loop would do nothing else."""
        loop.remove_reader(sock)
        self._paused[sock] = loop.call_later(ACCEPT_AGAIN, self._resume, loop, sock)
        self._on_exhausted(error)

    def _resume(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        del self._paused[sock]
        loop.add_reader(sock, self._accept, sock)

    async def _take(self, connection: socket.socket) -> None:
        with contextlib.ExitStack() as unless_taken:
            unless_taken.callback(connection.close)
            connection.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(self._factory, connection)
            unless_taken.pop_all()
