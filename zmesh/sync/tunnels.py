"""TCP connections through the mesh for programs without asyncio: sockets, and ports that lead to other nodes."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import TYPE_CHECKING, Self

from zmesh.runtime import NodeThread
from zmesh.sync.blocking_node import BlockingNode
from zmesh.sync.iteration import in_the_loop

if TYPE_CHECKING:
    from zmesh.tunnel import Endpoint, Exposed, Forward, OnError, RemoteEndpoint


class ForwardedPort:
    """A port of this machine that leads to another node; made by `mesh.forward`, and used with `with`.

    `to` is where it leads, `addresses` where it listens. `made` counts the connections, `failed` those that came to
    nothing.
    """

    def __init__(self, node_thread: NodeThread, forward: Forward) -> None:
        self._node_thread = node_thread
        self._forward = forward

    @property
    def to(self) -> RemoteEndpoint:
        """The endpoint that it leads to."""
        return self._forward.to

    @property
    def addresses(self) -> list[Endpoint]:
        """The addresses that it listens on."""
        return self._forward.addresses

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._forward.port

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return self._forward.connections

    @property
    def made(self) -> int:
        """Connections since the start."""
        return self._forward.made

    @property
    def failed(self) -> int:
        """Connections that could not be made at the other node."""
        return self._forward.failed

    def close(self) -> None:
        """Stop listening, and reset the connections. Harmless when it is closed."""
        self._node_thread.do(self._forward.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class ExposedPort:
    """A service that this node exposes; made by `mesh.expose`, and used with `with`."""

    def __init__(self, node_thread: NodeThread, exposed: Exposed) -> None:
        self._node_thread = node_thread
        self._exposed = exposed
        self.name = exposed.name
        self.endpoint = exposed.endpoint

    def close(self) -> None:
        """Withdraw it. Harmless when it is withdrawn."""
        self._node_thread.do(in_the_loop(self._exposed.close))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Tunnels(BlockingNode):
    """The part of a Controller that makes TCP connections through the mesh."""

    def open_connection(
        self,
        node: str,
        host: str | None = None,
        port: int | None = None,
        *,
        service: str | None = None,
        route_timeout: float | None = None,
    ) -> socket.socket:
        """Connect to a TCP port as `node` sees it, as socket.create_connection does: a socket that is connected.

        `route_timeout` is in seconds. Raises as `zmesh.Controller.open_connection`.
        """
        return self._do(lambda: self._mesh.open_socket(node, host, port, service=service, route_timeout=route_timeout))

    def forward(
        self, listen: str | int, to: str, *, route_timeout: float | None = None, on_error: OnError | None = None
    ) -> ForwardedPort:
        """Let a port of this machine lead to another node: `with mesh.forward(8080, "edge-7:80") as forward`.

        `on_error` is called in the node's thread. As `zmesh.Controller.forward` in all else.
        """

        async def open_forward() -> Forward:
            return await self._mesh.forward(listen, to, route_timeout=route_timeout, on_error=on_error)

        return ForwardedPort(self._opened(), self._do(open_forward))

    def check_forward(self, to: str, timeout: float | None = None) -> None:
        """Check that a connection to `to` would be allowed, within `timeout` seconds.

        Raises as `zmesh.Controller.check_forward`.
        """
        self._do(lambda: self._mesh.check_forward(to, timeout))

    def expose(self, name: str, port: str | int) -> ExposedPort:
        """Let other nodes reach a port by a name, as `zmesh.Controller.expose`: `with mesh.expose("web", 8000)`."""
        return ExposedPort(self._opened(), self._do(in_the_loop(lambda: self._mesh.expose(name, port))))
