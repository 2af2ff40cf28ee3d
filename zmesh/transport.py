"""ZeroMQ sockets: listen, dial, send, drain, hang up, close. Here, and nowhere else, is ZeroMQ spoken.

A listen address is one ROUTER, a peer is one DEALER. A socket is read when its file descriptor turns readable and is
then drained without blocking; since that descriptor is edge-triggered (ZMQ_FD in the libzmq manual), ZMQ_EVENTS is
looked at again after every send. Measured, that costs a third less for each hop than awaiting `recv_multipart`.

A connection is a *link* with a number of its own. On a ROUTER that is a routing id that libzmq made up, on a DEALER one
connection between two monitor events: whatever comes after a reconnect belongs to a new link.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import random
import socket
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import parse_qsl, urlsplit

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from zmesh.core.links import DEFAULT_COST
from zmesh.core.message import LinkId
from zmesh.core.wire import MAX_HEAD, Frames
from zmesh.errors import AddressError

log = logging.getLogger(__name__)

HIGH_WATER = 64
LINGER_MS = 500
HANDSHAKE_MS = 5_000
HEARTBEAT_MS = 10_000
CONNECT_MS = 5_000
REDIAL_FIRST_MS = 50
REDIAL_LAST_MS = 1_000
MAX_FRAME = MAX_HEAD + 4096
MAX_SOCKETS = 32_768
BACKLOG = 1024
BATCH = 64
UNCOPIED = 16 * 1024
HUNG_UP_REMEMBERED = 4096
REDIAL_FIRST = 0.1
REDIAL_LAST = 10.0
DOUBT_AGAIN = 0.05
NO_DESCRIPTOR = -1
TRY_AGAIN = 0.001

Context = zmq.Context[zmq.Socket[bytes]]

_MORE = int(zmq.SNDMORE | zmq.DONTWAIT)
_LAST = int(zmq.DONTWAIT)
_EVENTS = int(zmq.EVENTS)
_IN = int(zmq.POLLIN)

_FAILURES = {
    int(zmq.EVENT_CONNECT_RETRIED): "nothing answers there",
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): "the connection was closed while it was being set up",
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): "what answers there does not speak ZeroMQ",
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): "the other side does not let us in",
}
_DIALLER_EVENTS = int(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED) | sum(_FAILURES)


class Handler(Protocol):
    """Whom the transport tells what happens; all on the loop's thread."""

    def on_link_up(self, link: LinkId, *, dialled: bool, cost: int) -> None:
        """A connection is there, dialled or listened for."""

    def on_link_down(self, link: LinkId, reason: str) -> None:
        """A connection is gone for certain."""

    def on_link_ready(self, link: LinkId) -> None:
        """A link that was full may take more."""

    def on_link_doubtful(self, link: LinkId) -> None:
        """A connection may be gone; sending on it will tell."""

    def on_frames(self, link: LinkId, frames: list[bytes]) -> None:
        """A message has come: its parts, four at most."""

    def on_dial_failed(self, url: str, reason: str) -> None:
        """A peer did not answer; it is dialled again."""


class Target(NamedTuple):
    """A URL as ZeroMQ wants it, the cost of links through it, and as it was given."""

    endpoint: str
    cost: int
    url: str


def parse_url(url: str) -> Target:
    """Read `tcp://host:port`, `ipc://path`, `inproc://name` or `rnp://host:port`, with `?cost=N` or without.

    Raises AddressError with what is wrong and how it should look.
    """
    parts = urlsplit(url)
    scheme = "tcp" if parts.scheme == "rnp" else parts.scheme
    if parts.scheme == "rnps":
        raise AddressError(
            f"{url!r} asks for encryption, and this node has no key; use tcp:// inside a trusted network"
        )
    if scheme not in ("tcp", "ipc", "inproc"):
        raise AddressError(f"{url!r} is no address: it must begin with tcp://, ipc://, inproc:// or rnp://")
    cost = DEFAULT_COST
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key != "cost" or not value.isdigit() or not 1 <= int(value) <= 100_000:
            raise AddressError(f"{url!r}: after the ? only cost=N with N from 1 to 100000 is known, not {key}={value}")
        cost = int(value)
    rest = parts.netloc + parts.path
    if not rest:
        raise AddressError(f"{url!r} has nothing after {parts.scheme}://")
    if scheme == "tcp":
        host, colon, port = rest.rpartition(":")
        if not colon or not host or not (port == "*" or (port.isdigit() and int(port) <= 65535)):
            raise AddressError(
                f"{url!r} is no TCP address: it must look like tcp://host:port, the port from 0 to 65535"
            )
        if port == "0":
            rest = f"{host}:*"
    elif scheme == "ipc" and len(rest.encode()) > 106:
        raise AddressError(f"{url!r}: a socket's path may have 106 bytes, and this one has {len(rest.encode())}")
    return Target(f"{scheme}://{rest}", cost, url)


class _Context:
    """The one ZeroMQ context of the process, there as long as any transport is open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._context: zmq.asyncio.Context | None = None
        self._users = 0

    def acquire(self) -> Context:
        with self._lock:
            if self._context is None:
                self._context = zmq.asyncio.Context()
                self._context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
            self._users += 1
            return cast("Context", self._context)

    def release(self) -> Callable[[], object] | None:
        """Give it back; what is returned must be called (it blocks for LINGER_MS at most) to end it for good."""
        with self._lock:
            self._users -= 1
            if self._users or self._context is None:
                return None
            context, self._context = self._context, None
            return context.term

    @property
    def users(self) -> int:
        return self._users


_context = _Context()


def open_transports() -> int:
    """How many transports of this process hold the ZeroMQ context; 0 when all are closed."""
    return _context.users


class Transport:
    """The sockets of one node."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.loop = asyncio.get_running_loop()
        self.context = _context.acquire()
        self.links: dict[LinkId, _Port] = {}
        self.listening: list[str] = []
        self._ports: list[_Port] = []
        self._touched: set[_Port] = set()
        self._numbers = itertools.count(1)
        self._draining = False
        self.closed = False

    def listen(self, url: str) -> str:
        """Bind a ROUTER and return the real URL (with the port, where `*` was given).

        Raises AddressError if the address is malformed, taken, or not of this machine.
        """
        port = _Listener(self, parse_url(url))
        self._ports.append(port)
        self.listening.append(port.url)
        return port.url

    def dial(self, url: str) -> None:
        """Keep a connection to a peer up, dialling again for ever. Raises AddressError if the URL is malformed."""
        self._ports.append(_Dialler(self, parse_url(url)))

    def send(self, link: LinkId, frames: Frames) -> bool:
        """Hand frames to ZeroMQ; False if the link is full, and `on_link_ready` will come. Never blocks."""
        port = self.links.get(link)
        if port is None:
            return True
        if link in port.full:
            return False
        self._touched.add(port)
        return port.send(link, frames)

    def settle(self) -> None:
        """To be called after sending: look for input whose signal the sending has swallowed."""
        if self._draining or not self._touched:
            return
        touched, self._touched = self._touched, set()
        for port in touched:
            port.check_soon()

    def hang_up(self, link: LinkId, pause: float) -> None:
        """Close a link; what was dialled is dialled again, after `pause` seconds at the earliest."""
        port = self.links.pop(link, None)
        if port is not None:
            port.hang_up(link, pause)

    def is_full(self, link: LinkId) -> bool:
        """Whether the last frames for that link did not go out."""
        port = self.links.get(link)
        return port is not None and link in port.full

    def healthy(self, link: LinkId) -> None:
        """The node has taken the link up: should it be lost, it is dialled again soon."""
        port = self.links.get(link)
        if port is not None:
            port.healthy()

    def new_link(self, port: _Port) -> LinkId:
        """Number a new connection."""
        link = LinkId(next(self._numbers))
        self.links[link] = port
        return link

    async def close(self) -> None:
        """Close every socket; what was handed over is sent on for LINGER_MS. Nothing is left afterwards."""
        if self.closed:
            return
        self.closed = True
        for port in self._ports:
            port.close()
        self._ports.clear()
        self.links.clear()
        end = _context.release()
        if end is not None:
            await self.loop.run_in_executor(None, end)


class _Port(ABC):
    """What listeners and diallers share: a socket that is drained when its descriptor says so."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.handler = transport.handler
        self.full: set[LinkId] = set()
        self._scheduled = False
        self._monitor: zmq.Socket[bytes] | None = None
        self._socket: zmq.Socket[bytes]

    def _open(self, kind: int, endpoint: str, events: int) -> None:
        context = self.transport.context
        self._socket = sock = context.socket(kind, socket_class=zmq.Socket)
        sock.set(zmq.SNDHWM, HIGH_WATER)
        sock.set(zmq.RCVHWM, HIGH_WATER)
        sock.set(zmq.LINGER, LINGER_MS)
        sock.set(zmq.MAXMSGSIZE, MAX_FRAME)
        sock.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        sock.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)  # for connections that never said HELLO, which no probe looks after
        sock.set(zmq.HEARTBEAT_TIMEOUT, 3 * HEARTBEAT_MS)
        sock.set(zmq.IPV6, int("[" in endpoint))
        # The methods of pyzmq's backend: the ones on top of them wrap each number in an enum and look for options that
        # are not used here, which costs 10 microseconds for each request and reply.
        self._get = cast("Callable[[int], int]", partial(zmq.backend.Socket.get, sock))
        self._recv = cast("Callable[..., Any]", partial(zmq.backend.Socket.recv, sock))
        self._send = cast("Callable[..., Any]", partial(zmq.backend.Socket.send, sock))
        self._fd = self._get(zmq.FD)
        self.transport.loop.add_reader(self._fd, self.drain)
        if not endpoint.startswith("inproc:"):
            name = f"inproc://zmesh-monitor-{id(sock):x}-{self._fd}"
            sock.monitor(name, events)
            self._monitor = context.socket(zmq.PAIR, socket_class=zmq.Socket)
            self._monitor.connect(name)
            self._monitor_fd = cast("int", self._monitor.get(zmq.FD))
            self.transport.loop.add_reader(self._monitor_fd, self._drain_monitor)

    def _start(self) -> None:
        """Look once: setting a socket up may have swallowed the first signal of its descriptor."""
        self.transport.loop.call_soon(self.drain)
        if self._monitor is not None:
            self.transport.loop.call_soon(self._drain_monitor)

    def _shut(self) -> None:
        loop = self.transport.loop
        if self._monitor is not None:
            loop.remove_reader(self._monitor_fd)
            self._socket.disable_monitor()
            self._monitor.close(0)
            self._monitor = None
        loop.remove_reader(self._fd)
        self._socket.close()

    @abstractmethod
    def healthy(self) -> None:
        """The link has come up for good."""

    def check_soon(self) -> None:
        """Drain at the loop's next turn if there is input, or a full link to try again."""
        if self._scheduled or self._socket.closed:
            return
        if self._get(_EVENTS) & _IN:
            self._scheduled = True
            self.transport.loop.call_soon(self.drain)
        elif self.full:
            # Looking may have swallowed the signal that there is room again, and only trying tells whether there is.
            self._scheduled = True
            self.transport.loop.call_later(TRY_AGAIN, self.drain)

    def drain(self) -> None:
        """Read all that is there, BATCH messages before others get their turn."""
        self._scheduled = False
        if self._socket.closed:
            return
        transport = self.transport
        transport._draining = True
        try:
            for _ in range(BATCH):
                try:
                    self._read()
                except zmq.Again:
                    break
                if self._socket.closed or not self._get(_EVENTS) & _IN:
                    break
            else:
                self._scheduled = True
                transport.loop.call_soon(self.drain)
            if self.full:
                self._retry()
                self.check_soon()
        finally:
            transport._draining = False
            transport._touched.discard(self)
            transport.settle()

    def _retry(self) -> None:
        for link in list(self.full):
            self.full.discard(link)
            self.handler.on_link_ready(link)

    def _read_parts(self) -> list[bytes]:
        """The parts of the message at hand; more than three are read and thrown away."""
        recv = self._recv
        frame = recv(_LAST, False)
        parts: list[Any] = [frame.bytes]
        while frame.more:
            frame = recv(_LAST, False)
            if len(parts) < 4:
                parts.append(frame if len(frame) >= UNCOPIED else frame.bytes)
        return parts

    def _drain_monitor(self) -> None:
        while self._monitor is not None and cast("int", self._monitor.get(_EVENTS)) & _IN:
            event = parse_monitor_message(self._monitor.recv_multipart(zmq.DONTWAIT))
            self._on_event(int(event["event"]), event["value"])

    @abstractmethod
    def send(self, link: LinkId, frames: Frames) -> bool:
        """Hand frames to ZeroMQ; False if there is no room."""

    @abstractmethod
    def hang_up(self, link: LinkId, pause: float) -> None:
        """Close a link of this port."""

    @abstractmethod
    def close(self) -> None:
        """Close the socket."""

    @abstractmethod
    def _read(self) -> None:
        """Read one message that is there."""

    @abstractmethod
    def _on_event(self, event: int, value: int) -> None:
        """The monitor tells something; `value` is a descriptor, or an errno."""


class _Listener(_Port):
    """A ROUTER. Its connections are told apart by the routing ids that libzmq makes up."""

    def __init__(self, transport: Transport, target: Target) -> None:
        super().__init__(transport)
        self.cost = target.cost
        self._by_id: dict[bytes, LinkId] = {}
        self._ids: dict[LinkId, bytes] = {}
        self._by_descriptor: dict[int, list[LinkId]] = {}
        self._descriptors: dict[LinkId, int] = {}
        self._hung_up: dict[bytes, None] = {}
        endpoint = _bindable(target)
        path = endpoint.removeprefix("ipc://")
        self._path = path if path != endpoint and not path.startswith("@") else None
        self._open(zmq.ROUTER, endpoint, int(zmq.EVENT_DISCONNECTED))
        self._socket.set(zmq.ROUTER_MANDATORY, 1)
        self._socket.set(zmq.BACKLOG, BACKLOG)
        try:
            if endpoint.startswith("ipc://"):
                _bind_private(self._socket, endpoint)
            else:
                self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self._shut()
            raise AddressError(_why_not_bound(target, error)) from None
        self.url = self._socket.get_string(zmq.LAST_ENDPOINT)
        self._start()

    def send(self, link: LinkId, frames: Frames) -> bool:
        id = self._ids.get(link)
        if id is None:
            return True
        try:
            self._send(id, _MORE)
        except zmq.Again:
            self.full.add(link)
            return False
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            self.transport.loop.call_soon(self._gone, link)
            return True
        _send_rest(self._send, frames)
        return True

    def hang_up(self, link: LinkId, pause: float) -> None:
        id = self._forget(link)
        if id is not None:
            self._hung_up[id] = None
            if len(self._hung_up) > HUNG_UP_REMEMBERED:
                del self._hung_up[next(iter(self._hung_up))]

    def close(self) -> None:
        self._shut()
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def healthy(self) -> None:
        pass

    def _read(self) -> None:
        id: bytes = self._recv(_LAST)
        link = self._by_id.get(id)
        if link is not None:
            self.handler.on_frames(link, self._read_parts())
            return
        if id in self._hung_up:
            self._read_parts()
            return
        first = self._recv(_LAST, False)
        parts = [first.bytes, *(self._read_parts() if first.more else ())]
        link = self._by_id[id] = self.transport.new_link(self)
        self._ids[link] = id
        descriptor = self._descriptors[link] = _descriptor(first)
        self._by_descriptor.setdefault(descriptor, []).append(link)
        self.handler.on_link_up(link, dialled=False, cost=self.cost)
        self.handler.on_frames(link, parts)

    def _on_event(self, event: int, value: int) -> None:
        for link in list(self._by_descriptor.get(value, ())):
            self._doubt(link)
            self.transport.loop.call_later(DOUBT_AGAIN, self._doubt, link)

    def _doubt(self, link: LinkId) -> None:
        """A descriptor was closed that may have been this link's: have something sent, which tells (EHOSTUNREACH)."""
        if link in self._ids and not self._socket.closed:
            self._get(_EVENTS)
            self.handler.on_link_doubtful(link)

    def _gone(self, link: LinkId) -> None:
        if self._forget(link) is not None:
            self.transport.links.pop(link, None)
            self.handler.on_link_down(link, "the connection was closed")

    def _forget(self, link: LinkId) -> bytes | None:
        id = self._ids.pop(link, None)
        if id is not None:
            del self._by_id[id]
            self.full.discard(link)
            descriptor = self._descriptors.pop(link)
            beside = self._by_descriptor[descriptor]
            beside.remove(link)
            if not beside:
                del self._by_descriptor[descriptor]
        return id


class _Dialler(_Port):
    """A DEALER. libzmq redials by itself; a link that the node hangs up on gets a new socket after a pause."""

    def __init__(self, transport: Transport, target: Target) -> None:
        super().__init__(transport)
        self.target = target
        self.link: LinkId | None = None
        self._pause = REDIAL_FIRST
        self._redial: asyncio.TimerHandle | None = None
        self._connect()

    def _connect(self) -> None:
        self._redial = None
        self._open(zmq.DEALER, self.target.endpoint, _DIALLER_EVENTS)
        sock = self._socket
        sock.set(zmq.IMMEDIATE, 1)
        sock.set(zmq.RECONNECT_IVL, REDIAL_FIRST_MS)
        sock.set(zmq.RECONNECT_IVL_MAX, REDIAL_LAST_MS)
        sock.set(zmq.CONNECT_TIMEOUT, CONNECT_MS)
        try:
            sock.connect(self.target.endpoint)
        except zmq.ZMQError as error:
            self._shut()
            raise AddressError(f"can't dial {self.target.url}: {error.strerror or error}") from None
        self._start()
        if self._monitor is None:
            self.transport.loop.call_soon(self._up)

    def send(self, link: LinkId, frames: Frames) -> bool:
        try:
            self._send(frames[0], _MORE)
        except zmq.Again:
            self.full.add(link)
            return False
        self._send(frames[1], _MORE)
        _send_body(self._send, frames[2])
        return True

    def hang_up(self, link: LinkId, pause: float) -> None:
        self.link = None
        self._replace(pause)

    def _replace(self, pause: float) -> None:
        """Close the socket and dial with a new one, after `pause` seconds at the earliest, and later each time."""
        self._shut()
        self.full.clear()
        delay = max(pause, self._pause) * random.uniform(1.0, 1.5)
        self._pause = min(REDIAL_LAST, self._pause * 2)
        self._redial = self.transport.loop.call_later(delay, self._connect)

    def close(self) -> None:
        if self._redial is not None:
            self._redial.cancel()
            self._redial = None
        else:
            self._shut()

    def healthy(self) -> None:
        """The next pause is the shortest again."""
        self._pause = REDIAL_FIRST

    def _read(self) -> None:
        parts = self._read_parts()
        if self.link is not None:
            self.handler.on_frames(self.link, parts)

    def _up(self) -> None:
        if self._socket.closed:
            return
        self._down("dialled again")
        self.link = self.transport.new_link(self)
        self.handler.on_link_up(self.link, dialled=True, cost=self.target.cost)

    def _down(self, reason: str) -> None:
        link, self.link = self.link, None
        if link is not None:
            self.full.discard(link)
            self.transport.links.pop(link, None)
            self.handler.on_link_down(link, reason)

    def _on_event(self, event: int, value: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._up()
            return
        if event != zmq.EVENT_DISCONNECTED and self.link is None:
            self.handler.on_dial_failed(self.target.url, _FAILURES[event])
        if event != zmq.EVENT_CONNECT_RETRIED:
            # libzmq redials where nobody answers, but gives up for good on one who breaks the protocol.
            self._down("the connection was closed")
            if not self._socket.closed:
                self._replace(0.0)


def _descriptor(frame: Any) -> int:
    """The descriptor of the connection that a frame came over; none for `inproc://` and for peers before ZMTP 3."""
    try:
        return cast("int", frame.get(zmq.SRCFD))
    except zmq.ZMQError:
        return NO_DESCRIPTOR


def _send_rest(send: Callable[[bytes, int], object], frames: Frames) -> None:
    send(frames[0], _MORE)
    send(frames[1], _MORE)
    _send_body(send, frames[2])


def _send_body(send: Callable[..., object], body: bytes) -> None:
    """The last part; one that came in as a ZeroMQ frame goes on uncopied."""
    if type(body) is bytes:
        send(body, _LAST)
    else:
        send(body, _LAST, False)


def _bindable(target: Target) -> str:
    """The endpoint with its host as a number, which is what zmq_bind takes."""
    scheme, _, rest = target.endpoint.partition("://")
    if scheme != "tcp":
        return target.endpoint
    host, _, port = rest.rpartition(":")
    if host == "*" or host.startswith("[") or host.replace(".", "").isdigit():
        return target.endpoint
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        number = str(sorted(found, key=lambda entry: entry[0] != socket.AF_INET)[0][4][0])
        return f"tcp://[{number}]:{port}" if ":" in number else f"tcp://{number}:{port}"
    return target.endpoint


def _bind_private(sock: zmq.Socket[bytes], endpoint: str) -> None:
    """Bind a Unix socket for this user only (mode 0600), and never in the place of one that is alive."""
    path = endpoint.removeprefix("ipc://")
    if not path.startswith("@") and os.path.exists(path) and not stat.S_ISSOCK(os.stat(path).st_mode):
        raise zmq.ZMQError(errno.EADDRINUSE)
    if not path.startswith("@") and os.path.exists(path):
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.settimeout(1.0)
            probe.connect(path)
            raise zmq.ZMQError(errno.EADDRINUSE)
    before = os.umask(0o177)
    try:
        sock.bind(endpoint)
    finally:
        os.umask(before)


def _why_not_bound(target: Target, error: zmq.ZMQError) -> str:
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
