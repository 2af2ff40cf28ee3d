"""Listening on all addresses of a host at one port, also where that is any free one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from zmesh.errors import ConfigError
from zmesh.tunnel.addresses import Endpoint

BACKLOG = 1024
ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
"""What binding to an address fails with that this machine does not have, as where IPv6 is switched off."""


class Listener:
    """The sockets that listen; made by `listen`. `addresses` are where."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        self._servers: list[asyncio.Server] = []
        self.addresses = [Endpoint(*sock.getsockname()[:2]) for sock in sockets]

    async def serve(self, factory: Callable[[], asyncio.Protocol]) -> None:
        """Accept connections from now on."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            self._servers.append(await loop.create_server(factory, sock=sock, backlog=BACKLOG))

    def close(self) -> None:
        """Listen no more, also where the loop is closed."""
        for server in self._servers:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                server.close()
        for sock in self._sockets:
            sock.close()


def listen(endpoint: Endpoint) -> Listener:
    """Listen on all addresses of a host, which is this machine. Raises ConfigError if one can't be listened on."""
    found = None
    with contextlib.ExitStack() as undo:
        try:
            found = socket.getaddrinfo(*endpoint, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            sockets = _bound(endpoint.port, list(dict.fromkeys(found)), undo)
        except OSError as error:
            reason = os.strerror(error.errno).lower() if found is not None and error.errno else error.strerror
            raise ConfigError(f"can't listen on {endpoint}: {reason}; choose another address") from None
        undo.pop_all()
    return Listener(sockets)


def _bound(port: int, found: list[Any], undo: contextlib.ExitStack) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for family, kind, protocol, _, address in found:
        sock = undo.enter_context(socket.socket(family, kind, protocol))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
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
