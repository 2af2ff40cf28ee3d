"""A port of this machine that leads to a port at another node: `mesh.forward`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any

from zmesh.core.effects import Report
from zmesh.errors import ConfigError, MeshError, NodeOverloaded
from zmesh.requests import Requests
from zmesh.runtime import log_exception, log_line, must_propagate
from zmesh.tunnel.addresses import Endpoint, RemoteEndpoint
from zmesh.tunnel.connection import connect
from zmesh.tunnel.listening import Listener, listen, listen_by_name, needs_name_server
from zmesh.tunnel.relay import Relay, reset
from zmesh.tunnel.tunnels import MAX_CONNECTIONS

log = logging.getLogger(__name__)

OnError = Callable[[Exception], None]


class Forward:
    """A port of this machine that leads to another node; made by `mesh.forward`.

    `async with mesh.forward(...) as forward`, or `await` it for one that is open until it is closed, or its node is. A
    connection that can't be made there is reset here. `to` is the remote end, `addresses` are those that it listens on,
    `port` the first one's port. `connections` counts those that are open, `made` all, `failed` those that could not be
    made. `route_timeout` is in seconds.
    """

    def __init__(
        self,
        requests: Requests,
        listen: Endpoint,
        to: RemoteEndpoint,
        *,
        max_connections: int = MAX_CONNECTIONS,
        route_timeout: float | None = None,
        on_error: OnError | None = None,
    ) -> None:
        self.to = to
        self.addresses: list[Endpoint] = []
        self.made = 0
        self.failed = 0
        self._requests = requests
        self._listen = listen
        self._max_connections = max_connections
        self._route_timeout = route_timeout
        self._on_error = on_error
        self._listener: Listener | None = None
        self._relays: set[Relay] = set()
        self._last_error = ""
        self._is_exhausted = False
        self._closed = False

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self.addresses[0].port if self.addresses else self._listen.port

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._relays)

    def __await__(self) -> Generator[Any, None, Forward]:
        return self._open().__await__()

    async def __aenter__(self) -> Forward:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop listening, and reset the connections. Harmless when it is closed."""
        relays = list(self._relays)
        self.close_now()
        if relays:
            await asyncio.wait([relay.ended for relay in relays])

    def close_now(self) -> None:
        """As `close`, without waiting for the end of the connections."""
        self._closed = True
        listener, self._listener = self._listener, None
        self._requests.at_close.discard(self.close_now)
        if listener is not None:
            listener.close()
            with contextlib.suppress(RuntimeError):  # the loop is closed
                for relay in list(self._relays):
                    relay.abort()

    async def _open(self) -> Forward:
        """Listen. Raises ConfigError if the address can't be listened on, and Closed if the node is not open."""
        if self._listener is None:
            self._requests.admission.check_open()
            self._closed = False
            await self._open_by_name()
        return self

    def open_now(self) -> None:
        """Listen, and accept connections as soon as the node runs. Raises as `_open`.

        Where the name of the host has to be looked up, that is done afterwards; what it fails with is logged.
        """
        name = f"zmesh forward {self._listen}"
        if needs_name_server(self._listen):
            self._requests.tasks.spawn(self._open_later(), name)
            return
        listener = listen(self._listen)
        self._take(listener)
        self._requests.tasks.spawn(self._serve_later(listener), name)

    async def _open_by_name(self) -> None:
        listener = await listen_by_name(self._listen)
        if self._listener is None and not self._closed and not self._requests.driver.closed:
            self._take(listener)
            self._serve(listener)
        else:  # opened or closed while the name was looked up
            listener.close()

    async def _open_later(self) -> None:
        try:
            await self._open_by_name()
        except ConfigError as error:
            log_line(log, logging.ERROR, "%s", error)

    async def _serve_later(self, listener: Listener) -> None:
        self._serve(listener)

    def _take(self, listener: Listener) -> None:
        self._listener = listener
        self._requests.at_close.add(self.close_now)
        self.addresses = listener.addresses

    def _serve(self, listener: Listener) -> None:
        listener.serve(lambda: _Accepted(self), self._on_exhausted)

    def _on_exhausted(self, error: OSError) -> None:
        """There is nothing left to accept a connection with; it waits."""
        self._note("forward_accept")
        if not self._is_exhausted:
            self._is_exhausted = True
            reason = os.strerror(error.errno or 0).lower()
            log_line(
                log,
                logging.WARNING,
                "port %d accepts no connections for now: %s; those that come wait",
                self.port,
                reason,
            )

    def _connect(self, transport: asyncio.BaseTransport) -> asyncio.Protocol | None:
        """Relay an accepted connection; the protocol that goes on with it, None if it was reset."""
        if self._listener is None:  # closed between accept(2) and here
            reset(transport)
            return None
        if len(self._relays) >= self._max_connections:
            limit = "forward_connections"
            self._note(limit)
            text = f"{self._max_connections} connections are open already on port {self.port}"
            self._fail(NodeOverloaded(text, limit=limit))
            reset(transport)
            return None
        self._is_exhausted = False
        self.made += 1
        relay = Relay()
        relay.near.connection_made(transport)
        self._relays.add(relay)
        relay.ended.add_done_callback(lambda _: self._relays.discard(relay))
        try:
            connect(
                self._requests, self.to, relay.far, self._on_outcome, at_once=True, route_timeout=self._route_timeout
            )
        except MeshError as error:
            self._fail(error)
        return relay.near

    def _on_outcome(self, error: Exception | None) -> None:
        if error is not None:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failed += 1
        if str(error) != self._last_error:  # the same one again and again says nothing new
            self._last_error = str(error)
            log_line(log, logging.WARNING, "a connection to %s has failed: %s", self.to, error)
        if self._on_error is not None:
            try:
                self._on_error(error)
            except BaseException as failure:  # whatever the program's own function raises
                if must_propagate(failure):
                    raise
                log_exception(log, "on_error of the forward to %s has failed", self.to, error=failure)

    def _note(self, limit: str) -> None:
        self._requests.driver.perform([Report("overloaded", None, None, limit)])


class _Accepted(asyncio.Protocol):
    """A connection that was accepted just now."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        protocol = self._forward._connect(transport)
        if protocol is not None and isinstance(transport, asyncio.Transport):
            transport.set_protocol(protocol)
