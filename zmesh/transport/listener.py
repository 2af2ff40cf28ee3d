"""A ROUTER that listens. Its connections are identified by the routing ids that libzmq assigns."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import socket
import stat
from typing import TYPE_CHECKING, Any, cast

import zmq

from zmesh.core.message import LinkId
from zmesh.core.wire import Frames
from zmesh.errors import AddressError
from zmesh.runtime import close_in_child, closing
from zmesh.transport.accepted import AcceptedConnection, AcceptedConnections
from zmesh.transport.address import Target, is_loopback
from zmesh.transport.curve import KeyPair, key_to_text
from zmesh.transport.dial_status import DialError
from zmesh.transport.link_socket import LAST, MORE, NO_DESCRIPTOR, LinkSocket, send_rest
from zmesh.transport.resolver import Address, Resolver
from zmesh.transport.zap import key_of

if TYPE_CHECKING:
    from zmesh.transport.transport import Transport

BACKLOG = 1024
HUNG_UP_REMEMBERED = 4096
SUSPECT_AGAIN = 0.05
RETRY_FIRST = 0.001
RETRY_LAST = 0.05
RETRY_GROWTH = 1.25
_EVENTS = int(
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)

STRANGERS = {
    "plaintext": "it speaks plaintext, and this address takes encrypted links only; the URL that it dials needs {key}",
    "encrypted": "it dials with a key, and this address is plaintext; 'zmesh init' or 'zmesh join' gives this node one",
    "wrong_key": "it dials with another key than this address has; the URL that it dials needs {key}",
    "not_admitted": "this node does not let it in",
    "not_zeromq": "it does not speak ZeroMQ",
    "no_handshake": "it ended the connection, or was silent, before it had said who it is",
}
"""The reasons for which a connection ends in its handshake, by code; `{key}` is the query with the key."""


class Listener(LinkSocket):
    """A ROUTER, bound to the address of `target`; `keys` encrypt its connections. Raises AddressError if that fails."""

    def __init__(self, transport: Transport, target: Target, resolver: Resolver, keys: KeyPair | None = None) -> None:
        super().__init__(transport)
        self.cost = target.cost
        self._private = target.is_private
        self._keys = keys
        self._failure = ""
        self._by_id: dict[bytes, LinkId] = {}
        self._ids: dict[LinkId, bytes] = {}
        self._by_descriptor: dict[int, list[LinkId]] = {}
        self._descriptors: dict[LinkId, int] = {}
        self._addresses: dict[LinkId, str] = {}
        self._connections: dict[LinkId, AcceptedConnection] = {}
        self._hung_up: dict[bytes, None] = {}
        self._pauses: dict[LinkId, tuple[float, float]] = {}
        self._room_timer: asyncio.TimerHandle | None = None
        self._unbound: asyncio.Future[None] | None = None
        self._accepted: AcceptedConnections | None = None
        self._path: str | None = None
        self._listening = NO_DESCRIPTOR
        """The descriptor that libzmq accepts connections from, if it is one of ours."""
        if target.proxy is not None:
            raise AddressError(f"can't listen on {target.url}: a proxy is for peers that are dialled")
        try:
            self._listen(target, resolver)
        except (zmq.ZMQError, OSError) as error:
            raise AddressError(_why_not_bound(target, error)) from None
        self._start()

    def _listen(self, target: Target, resolver: Resolver) -> None:
        """Open and bind the socket. Raises ZMQError or OSError, and then leaves nothing."""
        hosts = _hosts(target, resolver)
        self._open(zmq.ROUTER, target.endpoint, _EVENTS)
        with contextlib.ExitStack() as undo:
            undo.callback(self._shut)
            self._socket.set(zmq.ROUTER_MANDATORY, 1)
            self._socket.set(zmq.BACKLOG, BACKLOG)
            if self._keys is not None:
                self._encrypt(self._keys)
            scheme, _, path = target.endpoint.partition("://")
            if scheme == "tcp" and hosts:
                self._take_over(_bind_tcp(hosts, target.port or 0), target.endpoint)
            elif scheme == "ipc" and not path.startswith("@"):
                listening, self._path = _bind_private(path), path
                self._take_over(listening, target.endpoint)
            else:
                self._socket.bind(target.endpoint)
            self.url = self._socket.get_string(zmq.LAST_ENDPOINT)
            if scheme == "tcp":
                port = int(self.url.rpartition(":")[2])
                silent = functools.partial(self._refused, "no_handshake")
                shut = self.handler.on_connection_shut
                self._accepted = AcceptedConnections(
                    self.transport.loop, port, self._drain_monitor, self._knows, shut, silent
                )
            undo.pop_all()

    def _encrypt(self, keys: KeyPair) -> None:
        """Admit CURVE alone, as the ZAP handler allows; before it is bound, since keys that come later do nothing."""
        self._socket.set(zmq.CURVE_SERVER, 1)
        self._socket.set(zmq.CURVE_SECRETKEY, keys.secret)
        self._socket.set(zmq.ZAP_DOMAIN, self.transport.zap_domain())
        self._socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)

    @property
    def key(self) -> bytes | None:
        """The public key that this address is dialled with; None for plaintext."""
        return self._keys.public if self._keys is not None else None

    def on_established(self, link: LinkId) -> None:
        """A link of this socket is up."""
        connection = self._connections.get(link)
        if self._accepted is not None and connection is not None:
            self._accepted.prove(self._descriptors[link], connection)

    def _take_over(self, listening: socket.socket, endpoint: str) -> None:
        """Have ZeroMQ accept the connections of a socket of ours (ZMQ_USE_FD).

        libzmq 4.3.5 ends the process where it binds a TCP address and no descriptor is left (it lists the interfaces
        first), and knows of no mode for Unix sockets.
        """
        with listening:
            listening.setblocking(False)
            self._socket.set(zmq.USE_FD, listening.fileno())
            self._socket.bind(endpoint)
            self._listening = listening.detach()
            close_in_child(self._listening)  # or the port would be taken for as long as a child runs

    def remote_address(self, link: LinkId) -> str:
        """The IP address that the link was dialled from; over `ipc://` and `inproc://` the URL of this listener."""
        return self._addresses.get(link, self.url)

    def send(self, link: LinkId, frames: Frames) -> bool:
        """Hand frames to ZeroMQ; False if the connection takes no more now. Frames for one that is gone are dropped."""
        id = self._ids.get(link)
        if id is None:
            self.handler.on_frames_lost(link, "link_gone")
            return True
        try:
            self._send(id, MORE)
        except zmq.Again:
            self.full.add(link)
            return False
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            self.transport.loop.call_soon(self._gone, link)
            self.handler.on_frames_lost(link, "link_gone")
            return True
        if len(frames) == 1:
            self._send(frames[0], LAST)
        else:
            self._send(frames[0], MORE)
            send_rest(self._send, frames)
        return True

    def _parts(self, link: LinkId, frames: Frames) -> tuple[bytes, ...]:
        id = self._ids.get(link)
        return (id, *frames) if id is not None else ()

    def hang_up(self, link: LinkId, pause: float) -> None:
        """Forget the connection: what it still sends is dropped, and over TCP it is shut down after HUNG_UP_WITHIN."""
        descriptor, connection = self._descriptors.get(link, NO_DESCRIPTOR), self._connections.get(link)
        id = self._forget(link)
        if id is not None:
            if self._accepted is not None and connection is not None:
                self._accepted.hang_up(descriptor, connection, id)
            self._hung_up[id] = None
            if len(self._hung_up) > HUNG_UP_REMEMBERED:
                del self._hung_up[next(iter(self._hung_up))]

    def unbind(self) -> asyncio.Future[None] | None:
        """Stop listening; libzmq frees a TCP address some time after, and its monitor says when."""
        if not self.url.startswith("tcp:"):
            return None
        if self.gate.shut:
            self.gate.wait()
        loop = self.transport.loop
        loop.remove_reader(self._fd)
        closing(self._listening)
        self._unbound = loop.create_future()
        self._socket.unbind(self.url)
        return self._unbound

    def close(self) -> None:
        """Close the socket, and remove the file of a Unix one."""
        self._shut()

    def _shut(self) -> None:
        closing(self._listening)
        super()._shut()
        if self._accepted is not None:
            self._accepted.close()
        if self._room_timer is not None:
            self._room_timer.cancel()
            self._room_timer = None
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def _read(self) -> None:
        id: bytes = self._recv(LAST)
        first = self._recv(LAST, False)
        parts = self._read_rest(first) if first.more else [first.bytes]
        link = self._by_id.get(id)
        if link is not None:
            self._take(link, parts)
            return
        if id in self._hung_up:
            self.handler.on_frames_lost(None, "hung_up")
            return
        link = self._by_id[id] = self.transport.new_link(self)
        self._ids[link] = id
        descriptor = self._descriptors[link] = _descriptor(first)
        self._by_descriptor.setdefault(descriptor, []).append(link)
        if self.url.startswith("tcp:"):
            with contextlib.suppress(zmq.ZMQError):
                self._addresses[link] = str(first.get("Peer-Address"))
        if self._accepted is not None:
            self._drain_monitor()  # whose descriptor that is: EVENT_ACCEPTED precedes anything received over it
            connection = self._accepted.greet(descriptor)
            if connection is not None:
                self._connections[link] = connection
        channel = key_of(first) + self._keys.public if self._keys is not None else b""
        self.handler.on_link_up(link, dialled=False, cost=self.cost, channel=channel, local=self._private)
        self._take(link, parts)

    def _on_event(self, event: int, value: int) -> None:
        if event == zmq.EVENT_CLOSED:
            if self._unbound is not None and not self._unbound.done():
                self._unbound.set_result(None)
            return
        if event == zmq.EVENT_ACCEPTED:
            if self._accepted is not None:
                self._accepted.on_accepted(value)
            return
        if event != zmq.EVENT_DISCONNECTED:
            self._failure = self._code_of(event, value)
            return
        failure, self._failure = self._failure, ""
        if self._accepted is not None:
            connection = self._accepted.on_disconnected(value)
            if connection is not None and failure not in ("", "no_handshake"):
                self._refused(failure, connection.address)
            elif connection is not None and not connection.was_linked:
                self._accepted.hold(connection)
        for link in list(self._by_descriptor.get(value, ())):
            self._suspect(link)
            self.transport.loop.call_later(SUSPECT_AGAIN, self._suspect, link)

    def _refused(self, code: str, address: str) -> None:
        """A connection has ended that never became a link."""
        key = f"?key={key_to_text(self._keys.public)}" if self._keys is not None else ""
        why = STRANGERS[code].format(key=key)
        self.handler.on_stranger(code, f"from {address or 'an unknown address'}: {why}")

    def _code_of(self, event: int, value: int) -> str:
        """Why the connection has failed in its handshake whose EVENT_DISCONNECTED is next; one of STRANGERS."""
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return "not_admitted"
        if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            return "no_handshake"
        if value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            return "encrypted" if self._keys is None else "plaintext"
        return "wrong_key" if value == zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC else "not_zeromq"

    def _suspect(self, link: LinkId) -> None:
        """A descriptor was closed that may have been this link's: have a frame sent, which fails with EHOSTUNREACH."""
        if self.gate.shut:
            self.gate.wait()
        if link in self._ids and not self.closed:
            self._events()
            self.handler.on_link_suspect(link)

    def _knows(self, id: bytes) -> bool:
        """Whether the connection of a routing id is still open. Only a send shows it; an empty message is ignored."""
        if self.gate.shut:
            self.gate.wait()
        self._events()
        try:
            self._send(id, MORE)
        except zmq.Again:
            return True
        except zmq.ZMQError:
            return False
        self._send(b"", LAST)
        return True

    def _retry(self, signalled: bool) -> None:
        """A ROUTER does not say which connection has room: only a send shows it, retried at growing intervals.

        Where there was nothing to read, room is what the descriptor's signal was about, and all are tried.
        """
        now = self.transport.loop.time()
        for link in list(self.full):
            due, pause = self._pauses.get(link, (0.0, RETRY_FIRST))
            if not signalled and now < due:
                continue
            self.full.discard(link)
            self.handler.on_link_ready(link)
            if link not in self.full:
                self._pauses.pop(link, None)
            else:
                self._pauses[link] = (now + pause, min(RETRY_LAST, pause * RETRY_GROWTH))

    def _retry_later(self, events: int) -> None:
        if self._room_timer is None:
            pauses = (self._pauses.get(link, (0.0, RETRY_FIRST))[0] for link in self.full)
            now = self.transport.loop.time()
            self._room_timer = self.transport.loop.call_at(max(now + RETRY_FIRST, min(pauses)), self._on_room_timer)

    def _on_room_timer(self) -> None:
        self._room_timer = None
        if not self.closed and not self.transport.closed:
            self.drain()

    def _gone(self, link: LinkId) -> None:
        """The connection is closed, as sending has shown; what came over it before, such as goodbye, is read first."""
        if link in self._ids:
            self.drain()
        if self._forget(link) is not None:
            self.transport.links.pop(link, None)
            self.handler.on_link_down(link, "the connection was closed")

    def _forget(self, link: LinkId) -> bytes | None:
        id = self._ids.pop(link, None)
        if id is not None:
            del self._by_id[id]
            self.full.discard(link)
            self._pauses.pop(link, None)
            self._addresses.pop(link, None)
            descriptor, connection = self._descriptors.pop(link), self._connections.pop(link, None)
            if self._accepted is not None and connection is not None:
                self._accepted.forget(descriptor, connection)
            beside = self._by_descriptor[descriptor]
            beside.remove(link)
            if not beside:
                del self._by_descriptor[descriptor]
        return id


def _descriptor(frame: Any) -> int:
    """The descriptor of the connection that a frame came over; none for `inproc://` and for peers before ZMTP 3."""
    try:
        return cast("int", frame.get(zmq.SRCFD))
    except zmq.ZMQError:
        return NO_DESCRIPTOR


def _hosts(target: Target, resolver: Resolver) -> list[Address]:
    """The addresses to listen on, of which the first that this machine has is taken; IPv4 first. Blocking.

    None for other addresses, and for the name of an interface, such as eth0, which ZeroMQ knows.
    """
    if not target.endpoint.startswith("tcp:"):
        return []
    if target.host == "*":
        return [Address(socket.AF_INET6, "::"), Address(socket.AF_INET, "0.0.0.0")]
    try:
        found = resolver.addresses_now(target.host)
    except DialError as failure:
        if target.host in [name for _, name in socket.if_nameindex()]:
            return []
        raise AddressError(f"can't listen on {target.url}: {failure.reason}") from None
    if is_loopback(target.host):
        found = [address for address in found if is_loopback(address.host)]
        if not found:
            raise AddressError(f"can't listen on {target.url}: {target.host} is not loopback on this machine")
    return sorted(found, key=lambda address: address.family != socket.AF_INET)


def _bind_tcp(hosts: list[Address], port: int) -> socket.socket:
    """A socket that listens on the first of the addresses that this machine has; on `::` for IPv4 as well."""
    for host in hosts:
        try:
            with contextlib.ExitStack() as closing:
                listening = closing.enter_context(socket.socket(host.family, socket.SOCK_STREAM))
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if host.family == socket.AF_INET6:
                    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host.host != "::"))
                listening.bind(host.socket_address(port))
                listening.listen(BACKLOG)
                closing.pop_all()
                return listening
        except OSError as error:
            if host == hosts[-1] or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    raise AssertionError("no address to listen on")


def _bind_private(path: str) -> socket.socket:
    """A Unix socket that listens for this user only (mode 0600), never in the place of one that is alive or of a file.

    The mode is set after it is bound and before it listens, so no other user can connect in between; the umask of
    the process stays as it is.
    """
    if os.path.exists(path):
        if not stat.S_ISSOCK(os.stat(path).st_mode) or _is_alive(path):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        os.unlink(path)
    with contextlib.ExitStack() as closing:
        listening = closing.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(path)
        closing.callback(os.unlink, path)
        os.chmod(path, 0o600)
        listening.listen(BACKLOG)
        closing.pop_all()
    return listening


def _is_alive(path: str) -> bool:
    """Whether a process listens on a Unix socket; one whose backlog is full does (EAGAIN, unix(7))."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            pass
    return True


def _why_not_bound(target: Target, error: zmq.ZMQError | OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            way_out = "; another port, or * for any free one, will do" if target.endpoint.startswith("tcp") else ""
            return f"can't listen on {target.url}: it is in use{way_out}"
        case errno.EACCES:
            return f"can't listen on {target.url}: this user may not"
        case errno.ENODEV | errno.EADDRNOTAVAIL:
            return f"can't listen on {target.url}: this machine has no such address"
        case _:
            return f"can't listen on {target.url}: {error.strerror or error}"
