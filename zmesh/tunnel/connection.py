"""The client's end of a connection: an exchange with the node that connects, as a transport."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Any

from zmesh.core.effects import Deliver
from zmesh.core.message import ReplyHeader, Stream
from zmesh.errors import Cancelled, ExchangeError, MeshError, UnknownDirective
from zmesh.payloads import OutboundWriter
from zmesh.requests import Exchange, Requests
from zmesh.runtime import new_message_id
from zmesh.tunnel.addresses import Endpoint, RemoteEndpoint
from zmesh.tunnel.transport import StreamTransport

NAMESPACE = "tcp"
CONNECT = f"{NAMESPACE}:connect"
EXPOSE = f"{NAMESPACE}:expose"
CHECK = "check"
"""Metadata of a request that only checks whether a connection would be allowed."""
RESET = 1
"""The code of a reset that stands for a TCP connection that was reset."""

Outcome = Callable[[Exception | None], None]


class Connection(Exchange):
    """A connection to a TCP port at another node; `transport` is the program's end of it.

    `outcome` is called once: with None when it is connected, else with the ExchangeError. `protocol` gets its transport
    when it is connected, if it has not got it before.
    """

    lasting = True

    __slots__ = ("_outcome", "_protocol", "_remote", "outbound", "transport", "writer")

    def __init__(
        self, requests: Requests, remote: RemoteEndpoint, protocol: asyncio.Protocol, outcome: Outcome
    ) -> None:
        super().__init__(requests, new_message_id(), remote.node)
        self._protocol: asyncio.Protocol | None = protocol
        self._outcome: Outcome | None = outcome
        self.writer = self.outbound = OutboundWriter(requests.driver, Stream(self.id, True))
        self.transport = ClientTransport(self)
        self._remote = remote
        self.metadata = metadata_of(remote)

    def on_chunk(self, chunk: Deliver) -> None:
        """The next chunk of what the other end sends."""
        if isinstance(chunk.header, ReplyHeader):
            self.transport.on_connected(chunk.header)
            self.begin()
            self._tell(None)
        kept = self.transport.feed(chunk.body) if chunk.body else 0
        if not self.ended and chunk.credit > kept:
            self._requests.driver.release_credit(chunk.stream, chunk.credit - kept)
        if chunk.last:
            self.transport.feed_eof()
        if chunk.eof is not None:
            self._end(chunk.eof)

    def on_room(self) -> None:
        """The request stream has send credit again."""
        self.outbound.on_room()

    def on_stream_over(self) -> None:
        """The request stream is closed for sending."""
        self.outbound.on_stream_over()

    def on_drain(self) -> None:
        """The program ends: so does the connection, after what was written."""
        if self._protocol is None:
            self.transport.close()
        else:
            self.reset()

    def begin(self) -> None:
        """Hand the protocol its transport, if it has none yet."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            self.transport.begin(self.outbound, self.give_back, protocol)

    def give_back(self, size_bytes: int) -> None:
        """Release credit of what was read late."""
        if not self.ended and size_bytes:
            self._requests.driver.release_credit(Stream(self.id, False), size_bytes)

    def reset(self) -> None:
        """Reset it at the other end."""
        if not self.ended:
            self._requests.cancel(self.id, RESET)

    def _wake(self) -> None:
        """Called when the exchange has ended."""
        eof = self.final.final if self.final is not None else None
        self._queue.clear()
        error = explained(self._error_of(eof), self._remote) if eof is not None and eof.code else None
        self.outbound.on_stream_over()
        self._tell(error or Cancelled("the connection was closed before it was made", node=self.recipient))
        self.transport.on_end(error)

    def _tell(self, error: Exception | None) -> None:
        outcome, self._outcome = self._outcome, None
        if outcome is not None:
            outcome(error)


class ClientTransport(StreamTransport):
    """The transport of a Connection. `get_extra_info` knows `node`, and `peername` once it is connected."""

    def __init__(self, connection: Connection) -> None:
        super().__init__({"node": connection.recipient})
        self._connection = connection
        self._peername: tuple[str, int] | None = None

    def on_connected(self, header: ReplyHeader) -> None:
        """The other node has connected."""
        address = header.metadata.get("address")
        if address is not None:
            try:
                self._peername = (*Endpoint.of(address),)
            except MeshError:
                pass  # of a later version

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The address that the node has connected to, as `peername`."""
        return self._peername or default if name == "peername" else super().get_extra_info(name, default)

    def on_end(self, error: MeshError | None) -> None:
        """The exchange has ended."""
        if error is not None:
            lost = ConnectionResetError(errno.ECONNRESET, str(error))
            lost.__cause__ = error
            self._lose(lost)
        elif not (self._eof or self._eof_waits):
            self._lose(ConnectionResetError(errno.ECONNRESET, f"node {self._connection.recipient!r} has closed it"))

    def _reset(self) -> None:
        self._connection.reset()

    def _finish(self) -> None:
        pass  # the other end has the last word


def directive_of(remote: RemoteEndpoint) -> str:
    """The directive that connects to it."""
    return CONNECT if remote.endpoint is not None else f"{NAMESPACE}:{remote.service}"


def explained(error: ExchangeError, remote: RemoteEndpoint) -> ExchangeError:
    """The error, which names the service if that is what is unknown there."""
    if not isinstance(error, UnknownDirective) or remote.service is None:
        return error
    return UnknownDirective(
        f"node {remote.node!r} exposes nothing by the name {remote.service!r}; it would, with 'zmesh expose "
        f"{remote.service} PORT' there",
        node=remote.node,
    )


def metadata_of(remote: RemoteEndpoint) -> dict[str, str]:
    """The metadata of the request to connect."""
    return {} if remote.endpoint is None else {"host": remote.endpoint.host, "port": str(remote.endpoint.port)}


def connect(
    requests: Requests,
    remote: RemoteEndpoint,
    protocol: asyncio.Protocol,
    outcome: Outcome,
    *,
    at_once: bool = False,
    route_timeout: float | None = None,
) -> ClientTransport:
    """Open a connection. With `at_once` the protocol has its transport when this returns, and may write before it is
    connected, which spares a round trip.

    `route_timeout`: seconds that it may be without a route. Raises Closed and Overloaded.
    """
    connection = Connection(requests, remote, protocol, outcome)
    connection.route_timeout = route_timeout
    if at_once:
        connection.begin()
    try:
        requests.start(connection, directive_of(remote), b"", None, awaited=True)
    except MeshError as error:
        connection.transport.on_end(error)
        raise
    return connection.transport
