"""Listening on all addresses of a host at one port, also where that is any free one, and accepting connections.

Where the process or the machine has no descriptor or memory left, connections wait in the backlog of the socket, and
are accepted when there is some again. asyncio's own server would log BACKLOG tracebacks a second meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from zmesh.errors import ConfigError
from zmesh.runtime import close_in_child
from zmesh.transport import DialError, resolve
from zmesh.tunnel.addresses import LOCALHOST, Endpoint

BACKLOG = 1024
ACCEPTED_AT_ONCE = 64
"""Connections that are accepted before others have their turn on the loop."""
ACCEPT_AGAIN = 0.5
"""Seconds until accepting is tried again where there was no descriptor or memory for it."""
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
"""What binding to an address fails with that this machine does not have, as where IPv6 is switched off."""


class Listener:
    """The sockets that listen; made by `listen`. `addresses` are where."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        self._loop: asyncio.AbstractEventLoop | None = None
        self._factory: Callable[[], asyncio.Protocol] = asyncio.Protocol
        self._on_exhausted: Callable[[OSError], None] = lambda error: None
        self._paused: dict[socket.socket, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.addresses = [Endpoint(*sock.getsockname()[:2]) for sock in sockets]
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
        """Listen no more, also where the loop is closed."""
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


class _Place(NamedTuple):
    """An address to listen on; `address` is as `socket.bind` takes it, with any port."""

    family: int
    address: tuple[Any, ...]


def needs_name_server(endpoint: Endpoint) -> bool:
    """Whether the host is a name that has to be looked up, which may take long."""
    if endpoint.host == LOCALHOST:
        return False
    try:
        socket.getaddrinfo(endpoint.host, None, flags=socket.AI_NUMERICHOST)
    except OSError:
        return True
    return False


async def listen_by_name(endpoint: Endpoint) -> Listener:
    """As `listen`, for any host; its name is looked up without blocking the loop."""
    if not needs_name_server(endpoint):
        return listen(endpoint)
    try:
        found = await resolve(endpoint.host)
    except DialError as error:
        raise _refused(endpoint, error.reason) from None
    return _listening(endpoint, [_Place(each.family, each.socket_address(endpoint.port)) for each in found])


def listen(endpoint: Endpoint) -> Listener:
    """Listen on all addresses of a host, which is this machine and needs no name server (`needs_name_server`).

    Raises ConfigError if one can't be listened on.
    """
    try:
        found = socket.getaddrinfo(*endpoint, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise _refused(endpoint, str(error.strerror)) from None
    return _listening(endpoint, list(dict.fromkeys(_Place(family, address) for family, *_, address in found)))


def _listening(endpoint: Endpoint, places: list[_Place]) -> Listener:
    with contextlib.ExitStack() as undo:
        try:
            sockets = _bound(endpoint.port, places, undo)
        except OSError as error:
            raise _refused(endpoint, os.strerror(error.errno or 0).lower()) from None
        undo.pop_all()
    return Listener(sockets)


def _refused(endpoint: Endpoint, reason: str) -> ConfigError:
    return ConfigError(f"can't listen on {endpoint}: {reason}; choose another address")


def _bound(port: int, places: list[_Place], undo: contextlib.ExitStack) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for family, address in places:
        try:
            sock = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address[0], port, *address[2:]))
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except OSError as error:
            if error.errno not in ABSENT:
                raise
            missing = error
            continue
        port = sock.getsockname()[1]
        sockets.append(sock)
    if not sockets and missing is not None:
        raise missing
    return sockets
