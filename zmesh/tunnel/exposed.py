"""A service that this node exposes by a name: a directive `tcp:NAME`, for as long as it is exposed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from zmesh.errors import ConfigError
from zmesh.serving import Directives, Work
from zmesh.tunnel.addresses import Endpoint, check_service
from zmesh.tunnel.connection import NAMESPACE

if TYPE_CHECKING:
    from zmesh.requests import Requests


class Host(Protocol):
    """A node as services and forwarded ports use it."""

    node_id: str
    requests: Requests
    directives: Directives

    def register(self, name: str, function: Callable[..., object], **options: Any) -> None:
        """Offer a directive."""

    def unregister(self, name: str) -> None:
        """Remove a directive."""


class Exposed:
    """A service that this node exposes; made by `mesh.expose`. `name` is its name, `endpoint` its host and port.

    `close` withdraws it, and so does the end of a `with` block; connections that are open stay.
    """

    def __init__(self, host: Host, name: str, endpoint: Endpoint) -> None:
        self.name = check_service(name)
        self.endpoint = endpoint
        self._host = host
        self._directive = f"{NAMESPACE}:{name}"
        try:
            host.register(self._directive, partial(serve, host, endpoint), stream=True)
        except ValueError:
            raise ConfigError(f"node {host.node_id!r} exposes {name!r} already; choose another name") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Withdraw it. Harmless when it is withdrawn."""
        directive, self._directive = self._directive, ""
        if directive:
            self._host.unregister(directive)


async def serve(host: Host, endpoint: Endpoint, work: Work) -> None:
    """Connect to an exposed service, by the limits of the node's `[tcp]`."""
    from zmesh.tunnel.service import Tcp

    tcp = host.directives.plugin(NAMESPACE)
    if not isinstance(tcp, Tcp):  # a leaf has no plugins
        tcp = Tcp()
        tcp.attach_node(host)
    await tcp.relay(work, endpoint, any_target=True)
