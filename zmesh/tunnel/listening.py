"""Listening on all addresses of a host at one port, also where that is any free one."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import Any, NamedTuple

from zmesh.errors import ConfigError
from zmesh.runtime import Acceptor
from zmesh.transport import DialError, resolve
from zmesh.tunnel.addresses import LOCALHOST, Endpoint

BACKLOG = 1024
ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
"""The errors of bind(2) for an address that this machine does not have, as where IPv6 is switched off."""


class Listener(Acceptor):
    """The sockets that listen; made by `listen`. `addresses` are those that they are bound to."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        super().__init__(sockets)
        self.addresses = [Endpoint(*sock.getsockname()[:2]) for sock in sockets]


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
    """As `listen`, for any host; its name is looked up without blocking the loop. Raises ConfigError."""
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
