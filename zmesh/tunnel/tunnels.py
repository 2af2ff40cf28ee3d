"""TCP connections as a program makes them: `forward` and `open_connection`, which a Controller inherits."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from zmesh.arguments import check_node, check_timeout
from zmesh.errors import ConfigError, UnknownDirective
from zmesh.requests import Requester

if TYPE_CHECKING:
    from zmesh.requests import Requests
    from zmesh.tunnel.addresses import RemoteEndpoint
    from zmesh.tunnel.exposed import Exposed, Host
    from zmesh.tunnel.forward import Forward, OnError


P = TypeVar("P", bound=asyncio.Protocol)
MAX_CONNECTIONS = 4096
"""Connections of one Forward at a time, unless the program says otherwise."""


class Tunnels(Requester):
    """The part of a Controller that makes TCP connections through the mesh."""

    @property
    @abstractmethod
    def _requests(self) -> Requests:
        """The requests of the node."""

    @property
    @abstractmethod
    def _host(self) -> Host:
        """The node, which takes directives. Raises Closed when it is closed."""

    def forward(
        self,
        listen: str | int,
        to: str,
        *,
        max_connections: int = MAX_CONNECTIONS,
        route_timeout: float | None = None,
        on_error: OnError | None = None,
    ) -> Forward:
        """Let a port of this machine lead to another node: `async with mesh.forward(8080, "edge-7:80") as forward`.

        `listen` is `[HOST:]PORT`, at localhost without a host; port 0 is any free one, which is `forward.port` then.
        `to` is `NODE:[HOST:]PORT`, as that node sees the host, or `NODE:NAME` of a service that it exposes. The node
        must allow `tcp:connect`, or `tcp:NAME`.

        `on_error`, a function, is called with the error of each connection that could not be made. `route_timeout` is
        how long one may be without a route, in seconds. Past `max_connections` at a time, one more is reset.

        Raises ConfigError for a malformed address. When it is opened, raises ConfigError for one that can't be listened
        on, and Closed.
        """
        from zmesh.tunnel.addresses import Endpoint, RemoteEndpoint
        from zmesh.tunnel.forward import Forward  # here: few programs make connections

        check_timeout(route_timeout, "route_timeout")
        where, remote = Endpoint.of(listen, zero=True), RemoteEndpoint.of(to)
        return Forward(
            self._requests,
            where,
            remote,
            max_connections=max_connections,
            route_timeout=route_timeout,
            on_error=on_error,
        )

    def expose(self, name: str, port: str | int) -> Exposed:
        """Let other nodes reach a port by a name: they forward to `NODE:NAME`, this node being NODE.

        `port` is `[HOST:]PORT` as this node sees it, and need not be among the targets of `[tcp]`. Only nodes that
        `[allow]` lets call `tcp:NAME` reach it. It stays until the Exposed is closed, as at the end of a `with` block,
        or the node is. Raises ConfigError for a name that is malformed or taken.
        """
        from zmesh.tunnel.addresses import Endpoint
        from zmesh.tunnel.exposed import Exposed  # here: few programs expose ports

        return Exposed(self._host, name, Endpoint.of(port))

    async def check_forward(self, to: str, timeout: float | None = None) -> None:
        """Check that a connection to `to` (as `forward` takes it) would be allowed, without making one.

        Raises NotAllowed, UnknownDirective for a service that is not exposed, TimedOut after `timeout` seconds, any
        other ExchangeError, and ConfigError for a malformed `to`.
        """
        from zmesh.tunnel.addresses import RemoteEndpoint
        from zmesh.tunnel.connection import CHECK, directive_of, explained, metadata_of

        remote = RemoteEndpoint.of(to)
        metadata = {**metadata_of(remote), CHECK: "1"}
        try:
            await self.request(remote.node, directive_of(remote), metadata=metadata, timeout=timeout)
        except UnknownDirective as error:
            raise explained(error, remote) from None

    async def open_connection(
        self,
        node: str,
        host: str | None = None,
        port: int | None = None,
        *,
        service: str | None = None,
        limit: int = 65536,
        route_timeout: float | None = None,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a TCP port as `node` sees it, as asyncio.open_connection does: a reader and a writer.

        Without a `host`, that is localhost at the node; with a `service` in place of host and port, the service that
        the node exposes by that name. `limit` is that of the reader, in bytes; `route_timeout` the seconds that it may
        be without a route. The node must allow `tcp:connect`, or `tcp:SERVICE`.

        Raises ConnectFailed (an OSError) if the node can't connect, and any other ExchangeError. A connection that
        breaks later raises ConnectionResetError.
        """
        reader = asyncio.StreamReader(limit)
        transport, protocol = await self.create_connection(
            lambda: asyncio.StreamReaderProtocol(reader),
            node,
            host,
            port,
            service=service,
            route_timeout=route_timeout,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())

    async def open_socket(
        self,
        node: str,
        host: str | None = None,
        port: int | None = None,
        *,
        service: str | None = None,
        route_timeout: float | None = None,
    ) -> socket.socket:
        """Connect to a TCP port as `node` sees it, and return a blocking socket, for libraries that take one.

        The node's loop moves its bytes, so that loop must go on running. As `open_connection` in all else.
        """
        from zmesh.tunnel.sockets import connected_socket  # here: few programs make connections

        return await connected_socket(
            lambda factory: self.create_connection(
                factory, node, host, port, service=service, route_timeout=route_timeout
            )
        )

    async def create_connection(
        self,
        protocol_factory: Callable[[], P],
        node: str,
        host: str | None = None,
        port: int | None = None,
        *,
        service: str | None = None,
        route_timeout: float | None = None,
    ) -> tuple[asyncio.Transport, P]:
        """Connect to a TCP port as `node` sees it, as `loop.create_connection` does: a transport and a protocol.

        As `open_connection` in all else.
        """
        from zmesh.tunnel.connection import connect  # here: few programs make connections

        check_node(node)
        check_timeout(route_timeout, "route_timeout")
        remote = _remote(node, host, port, service)
        connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_outcome(error: Exception | None) -> None:
            if connected.done():
                return
            if error is not None:
                connected.set_exception(error)
            else:
                connected.set_result(None)

        protocol = protocol_factory()
        with contextlib.ExitStack() as undo:
            transport = connect(self._requests, remote, protocol, on_outcome, route_timeout=route_timeout)
            undo.callback(transport.abort)
            await connected
            undo.pop_all()
        return transport, protocol


def _remote(node: str, host: str | None, port: int | None, service: str | None) -> RemoteEndpoint:
    from zmesh.tunnel.addresses import LOCALHOST, RemoteEndpoint, check_service, checked

    if service is not None:
        if host is not None or port is not None:
            raise ConfigError("give either a service, or a host and a port")
        return RemoteEndpoint(node, None, check_service(service))
    return RemoteEndpoint(node, checked(LOCALHOST if host is None else host, port))
