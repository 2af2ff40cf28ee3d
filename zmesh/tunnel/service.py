"""`tcp:connect` connects to a TCP port for another node; each service that is exposed is a directive of its own.

The work lasts as long as the connection. The request's payload is what the client sends, the only reply's payload what
it receives; each ends by itself. The metadata of the request name the host and the port.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack

from zmesh.errors import ConfigError, ConnectFailed, RemoteError
from zmesh.payloads import StreamedPayload
from zmesh.runtime import close_in_child
from zmesh.serving import MemberQuota, NodePlugin, Work, directive, member_of
from zmesh.tunnel.addresses import Endpoint, RemoteEndpoint, checked
from zmesh.tunnel.connection import CHECK, RESET
from zmesh.tunnel.dialling import addresses, dial
from zmesh.tunnel.exposed import Exposed, Host
from zmesh.tunnel.forward import Forward
from zmesh.tunnel.relay import Relay
from zmesh.tunnel.settings import ForwardedPort, Service, TcpSettings
from zmesh.tunnel.transport import StreamTransport


class Tcp(NodePlugin):
    """The connections that one node makes for others, and what its configuration forwards and exposes."""

    settings = TcpSettings

    def __init__(self) -> None:
        self._settings = TcpSettings()
        self._connections = MemberQuota("tcp", "max_connections", "connections")
        self._services = MemberQuota("tcp", "max_services", "services")
        self._host: Host | None = None
        self._forwards: dict[ForwardedPort, Forward] = {}
        self._exposed: dict[Service, Exposed] = {}

    def attach_node(self, node: Host) -> None:
        """Take the node."""
        self._host = node

    async def start(self, settings: TcpSettings) -> None:
        """Take the settings, and open what they forward and expose. Raises ConfigError."""
        self.reload(settings)

    def reload(self, settings: TcpSettings) -> None:
        """Take other settings, and open and close what they forward and expose.

        Connections that are open go on; those of a port that is forwarded no more are reset.
        Raises ConfigError, and then has changed nothing.
        """
        assert self._host is not None
        gone = [port for port in self._forwards if port not in settings.forward]
        withdrawn = [service for service in self._exposed if service not in settings.expose]
        names = {service.name for service in withdrawn}
        with ExitStack() as undo:
            forwards = {}
            for port in settings.forward:
                if port not in self._forwards:
                    where, to = Endpoint.of(port.listen, zero=True), RemoteEndpoint.of(port.to)
                    forward = forwards[port] = Forward(self._host.requests, where, to)
                    undo.callback(forward.close_now)
                    forward.open_now()
            for service in settings.expose:
                if service not in self._exposed and service.name not in names:
                    self._exposed[service] = undo.enter_context(self._expose(service))
                    undo.callback(self._exposed.pop, service)
            undo.pop_all()
        self._forwards |= forwards
        for port in gone:
            self._forwards.pop(port).close_now()
        for service in withdrawn:
            self._exposed.pop(service).close()
        for service in settings.expose:
            if service not in self._exposed:  # that name led elsewhere
                self._exposed[service] = self._expose(service)
        self._settings = settings

    async def close(self) -> None:
        """Close what the configuration has opened."""
        for forward in self._forwards.values():
            await forward.close()
        for exposed in self._exposed.values():
            exposed.close()

    def _expose(self, service: Service) -> Exposed:
        assert self._host is not None
        return Exposed(self._host, service.name, Endpoint(service.host, service.port))

    @directive(stream=True)
    async def connect(self, work: Work) -> None:
        """Connect to the host and port of the metadata, and relay both directions until both have ended.

        Raises NotAllowed for what `[tcp]` does not allow, NodeOverloaded, ConnectFailed, and RemoteError for metadata
        that name no port.
        """
        await self.relay(work, _endpoint_in(work.metadata, "tcp:connect"))

    @directive
    async def expose(self, work: Work) -> AsyncGenerator[bytes, None]:
        """Expose the host and port of the metadata by the `name` in them, for as long as the request lasts.

        Raises as `connect`, and RemoteError for a name that is none or taken.
        """
        endpoint = _endpoint_in(work.metadata, "tcp:expose")
        assert self._host is not None
        host, limits, member = self._host, self._settings, member_of(work.sender)
        with self._services.one_more(host.node_id, member, limits.max_services, limits.max_services_per_node):
            await addresses(endpoint, limits, host.node_id)
            try:
                exposed = Exposed(host, work.metadata.get("name", ""), endpoint)
            except ConfigError as error:
                raise RemoteError(str(error)) from None
            with exposed:
                yield b""
                await asyncio.get_running_loop().create_future()

    async def relay(self, work: Work, endpoint: Endpoint, *, any_target: bool = False) -> None:
        """Connect to the endpoint, and relay both directions. `any_target`: whatever `[tcp] targets` says."""
        node, settings = str(work.header["recipient"]), self._settings
        if CHECK in work.metadata:
            await addresses(endpoint, settings, node, any_target=any_target)
            return
        counted = self._connections.one_more(
            node, member_of(work.sender), settings.max_connections, settings.max_connections_per_node
        )
        with counted, ExitStack() as undo:
            sock = undo.enter_context(await dial(endpoint, settings, node, any_target=any_target))
            close_in_child(sock)
            address = _peer_of(sock, endpoint, node)
            relay = Relay()
            undo.callback(relay.abort)
            await asyncio.get_running_loop().create_connection(lambda: relay.near, sock=sock)
            transport = ServerTransport(work)
            transport.begin_reply(relay.far, address)
            await relay.ended
            undo.pop_all()
            if transport.was_reset:
                work.reset(RESET, f"the connection of node {node!r} to {endpoint} was reset")


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


def _peer_of(sock: socket.socket, endpoint: Endpoint, node: str) -> Endpoint:
    """The address that was connected to. Raises ConnectFailed if the connection was reset just now."""
    try:
        return Endpoint(*sock.getpeername()[:2])
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise ConnectFailed(f"node {node!r} can't connect to {endpoint}: {reason}") from None


def _endpoint_in(metadata: Mapping[str, str], directive: str) -> Endpoint:
    port = metadata.get("port", "")
    try:
        return checked(metadata.get("host", "localhost"), int(port) if port.isascii() and port.isdigit() else port)
    except ConfigError as error:
        raise RemoteError(f"{directive} takes a host and a port as metadata: {error}") from None
