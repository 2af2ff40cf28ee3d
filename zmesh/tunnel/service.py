"""`tcp:connect` connects to a TCP port for another node; each service that is exposed is a directive of its own.

The work lasts as long as the connection. The request's payload is what the client sends, the only reply's payload what
it receives; each ends by itself. The metadata of the request name the host and the port.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from zmesh.errors import ConfigError, NodeOverloaded, RemoteError
from zmesh.payloads import StreamedPayload
from zmesh.serving import Work, directive
from zmesh.tunnel.addresses import Endpoint, checked
from zmesh.tunnel.connection import CHECK, RESET
from zmesh.tunnel.dialling import addresses, dial
from zmesh.tunnel.relay import Relay
from zmesh.tunnel.settings import TcpSettings
from zmesh.tunnel.transport import StreamTransport

log = logging.getLogger(__name__)


class Tcp:
    """The connections that one node makes for others."""

    settings = TcpSettings

    def __init__(self) -> None:
        self._settings = TcpSettings()
        self._connections: Counter[str] = Counter()
        self._total = 0

    async def start(self, settings: TcpSettings) -> None:
        """Take the settings."""
        self._settings = settings

    @directive(stream=True)
    async def connect(self, work: Work) -> None:
        """Connect to the host and port of the metadata, and relay both directions until both have ended.

        Raises NotAllowed for what `[tcp]` does not allow, NodeOverloaded, ConnectFailed, and RemoteError for metadata
        that name no port.
        """
        await self._relay(work, _endpoint_in(work.metadata))

    async def _relay(self, work: Work, endpoint: Endpoint) -> None:
        node = str(work.header["recipient"])
        if CHECK in work.metadata:
            await addresses(endpoint, self._settings, node)
            return
        with self._counted(work.sender.rpartition("@")[2], node), ExitStack() as undo:
            sock = undo.enter_context(await dial(endpoint, self._settings, node))
            address = Endpoint(*sock.getpeername()[:2])
            relay = Relay()
            undo.callback(relay.abort)
            await asyncio.get_running_loop().create_connection(lambda: relay.near, sock=sock)
            transport = ServerTransport(work)
            transport.begin_reply(relay.far, address)
            await relay.ended
            undo.pop_all()
            if transport.was_reset:
                work.reset(RESET, f"the connection of node {node!r} to {endpoint} was reset")

    @contextmanager
    def _counted(self, client: str, node: str) -> Iterator[None]:
        """Count a connection meanwhile. Raises NodeOverloaded where there are too many."""
        limits = self._settings
        for count, name in (
            (self._total, "max_connections"),
            (self._connections[client], "max_connections_per_node"),
        ):
            if count >= getattr(limits, name):
                raise NodeOverloaded(
                    f"node {node!r} has {count} connections already ([tcp] {name}); close some, or set it higher there"
                )
        self._total += 1
        self._connections[client] += 1
        try:
            yield
        finally:
            self._total -= 1
            self._connections[client] -= 1
            if not self._connections[client]:
                del self._connections[client]


class ServerTransport(StreamTransport):
    """The end of a connection at the node that has connected for another one."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work = work
        self.was_reset = False

    def begin_reply(self, protocol: asyncio.Protocol, address: Endpoint) -> None:
        """Open the reply, and hand over what has come of the request. `address` is what was connected to."""
        writer = self._work.open_reply(metadata={"address": str(address)})
        self.begin(writer, self._give_back, protocol)
        payload = self._work.payload
        if isinstance(payload, StreamedPayload):
            self._give_back = payload.divert(self)
        else:
            self.feed(payload.readall())
            self.feed_eof()

    def _reset(self) -> None:
        self.was_reset = True

    def _finish(self) -> None:
        pass  # the work ends when the connection has


def _endpoint_in(metadata: Mapping[str, str]) -> Endpoint:
    port = metadata.get("port", "")
    try:
        return checked(metadata.get("host", "localhost"), int(port) if port.isascii() and port.isdigit() else port)
    except ConfigError as error:
        raise RemoteError(f"tcp:connect takes a host and a port as metadata: {error}") from None
