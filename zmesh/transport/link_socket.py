"""ZeroMQ socket that carries links, drained without blocking when its file descriptor becomes readable.

A socket is read when its file descriptor turns readable and is then drained without blocking; since that descriptor is
edge-triggered (ZMQ_FD in the libzmq manual), ZMQEVENTS is looked at again after every send. Measured, that costs a
third less for each hop than awaiting `recv_multipart`.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, cast

import zmq
from zmq.utils.monitor import parse_monitor_message

from zmesh.core.message import LinkId
from zmesh.core.wire import MAX_BODY, Frames
from zmesh.transport.lingering import ZMQ_LINGER_MS, inode_of
from zmesh.transport.readiness import EVENTS, events_reader

if TYPE_CHECKING:
    from zmesh.transport.transport import Transport

HIGH_WATER = 64
"""Messages that a connection holds in either direction (ZMQ_SNDHWM, ZMQ_RCVHWM)."""
HANDSHAKE_MS = 5_000
"""After which a connection without a finished ZMTP handshake is closed (ZMQ_HANDSHAKE_IVL)."""
KEEPALIVE = 10
"""Seconds of silence before the first TCP keepalive, and between two (ZMQ_TCP_KEEPALIVE_IDLE and _INTVL)."""
KEEPALIVES = 3
"""Intervals of KEEPALIVE without an answer after which the kernel ends a connection (ZMQ_TCP_MAXRT)."""
MAX_FRAME = MAX_BODY + 4096
"""Bytes of the longest frame; a longer one ends its connection (ZMQ_MAXMSGSIZE)."""
BATCH = 64
BATCH_SECONDS = 0.002
LOOKS = 3
"""Messages after which a socket is asked whether there is more. From then on there is likely much, and it is read until
it has none, which an exception says: that costs as much as so many looks."""

UNCOPIED = 16 * 1024
BODY = 1
NO_DESCRIPTOR = -1
MONITOR_HIGH_WATER = 65_536
"""Events that may wait to be read. With more, libzmq's I/O thread waits, and with it every link of the process."""

MORE = int(zmq.SNDMORE | zmq.DONTWAIT)
LAST = int(zmq.DONTWAIT)
OUT = int(zmq.POLLOUT)
IN = int(zmq.POLLIN)

_BEGINNINGS = (int(zmq.EVENT_ACCEPTED), int(zmq.EVENT_CONNECTED))


class TransportHandler(Protocol):
    """Receives the events of a transport, all on the loop's thread."""

    def on_link_up(self, link: LinkId, *, dialled: bool, cost: int, channel: bytes = b"", local: bool = False) -> None:
        """A connection is established, dialled or accepted; `channel` and `local` as `Engine.link_up` takes them."""

    def on_link_down(self, link: LinkId, reason: str) -> None:
        """A connection is closed."""

    def on_link_ready(self, link: LinkId) -> None:
        """A link that was full may take more."""

    def on_link_suspect(self, link: LinkId) -> None:
        """A connection may be closed; a send on it fails then."""

    def on_frames(self, link: LinkId, frames: list[bytes]) -> None:
        """A message was received: its parts, four at most."""

    def on_burst(self) -> None:
        """More messages wait to be read than the one that was handed over; `on_burst_end` comes when that is done."""

    def on_burst_end(self) -> None:
        """The messages that were there have been handed over."""

    def on_dial_failed(self, url: str, reason: str, code: str = "") -> None:
        """A peer did not answer; it is dialled again. `code` is that of a DialFailure."""

    def on_frames_lost(self, link: LinkId | None, reason: str) -> None:
        """A message was thrown away: what was sent on a link that had just gone, or came from one that was hung up."""

    def on_connection_shut(self, reason: str) -> None:
        """A connection that no link had been made of was ended."""

    def on_stranger(self, code: str, text: str) -> None:
        """A connection has ended in its handshake: where it came from, and why; `code` is one of STRANGERS."""


class LinkSocket(ABC):
    """A socket of a transport: the base class of Listener (many links) and Connection (one)."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.handler = transport.handler
        self.gate = transport.gate
        self._traffic = transport.traffic.by_link
        self.full: set[LinkId] = set()
        self.closed = False
        self._scheduled = False
        self._monitor: zmq.Socket[bytes] | None = None
        self._connected: set[int] = set()
        """The descriptors of its connections, exact in the order of the monitor's events."""
        self._socket: zmq.Socket[bytes]
        self._fd = self._monitor_fd = NO_DESCRIPTOR

    def _open(self, kind: int, endpoint: str, events: int) -> None:
        """Make the socket and its monitor. Raises ZMQError or OSError (no descriptor is left), and leaves nothing."""
        self._socket = self.transport.context.socket(kind, socket_class=zmq.Socket)
        with ExitStack() as undo:
            undo.callback(self._shut)
            self._set_options(self._socket, endpoint)
            # The methods of pyzmq's backend: the ones on top of them wrap each number in an enum and look for options
            # that are not used here, which costs 10 microseconds for each request and reply.
            self._events = events_reader(self._socket)
            self._recv = cast("Callable[..., Any]", partial(zmq.backend.Socket.recv, self._socket))
            self._send = cast("Callable[..., Any]", partial(zmq.backend.Socket.send, self._socket))
            fd = cast("int", self._socket.get(zmq.FD))
            self.transport.loop.add_reader(fd, self.drain)
            self._fd = fd
            if not endpoint.startswith("inproc:"):
                self._open_monitor(events)
            undo.pop_all()

    def _set_options(self, sock: zmq.Socket[bytes], endpoint: str) -> None:
        sock.set(zmq.SNDHWM, HIGH_WATER)
        sock.set(zmq.RCVHWM, HIGH_WATER)
        sock.set(zmq.LINGER, ZMQ_LINGER_MS)
        sock.set(zmq.MAXMSGSIZE, MAX_FRAME)
        sock.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        self._patience = HANDSHAKE_MS / 1000
        # For connections that never said HELLO, which no probe looks after, the kernel asks. (libzmq would as well,
        # with ZMQ_HEARTBEAT_IVL. But 4.3.5 aborts the process when it does so on a connection that broke while unread.)
        sock.set(zmq.TCP_KEEPALIVE, 1)
        sock.set(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE)
        sock.set(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE)
        sock.set(zmq.TCP_KEEPALIVE_CNT, KEEPALIVES - 1)
        sock.set(zmq.TCP_MAXRT, 1000 * KEEPALIVE * KEEPALIVES)
        sock.set(zmq.IPV6, int("[" in endpoint))

    def _open_monitor(self, events: int) -> None:
        name = f"inproc://zmesh-monitor-{id(self._socket):x}-{self._fd}"
        self._socket.monitor(name, events)
        self._monitor = self.transport.context.socket(zmq.PAIR, socket_class=zmq.Socket)
        self._monitor.set(zmq.RCVHWM, MONITOR_HIGH_WATER)
        self._monitor.connect(name)
        fd = cast("int", self._monitor.get(zmq.FD))
        self.transport.loop.add_reader(fd, self._drain_monitor)
        self._monitor_fd = fd

    def _start(self) -> None:
        """Look once: setting a socket up may have swallowed the first signal of its descriptor."""
        self.transport.loop.call_soon(self.drain)
        if self._monitor is not None:
            self.transport.loop.call_soon(self._drain_monitor)

    def _shut(self) -> None:
        if self.gate.shut:
            self.gate.wait()
        loop = self.transport.loop
        if self._monitor is not None:
            if self._monitor_fd != NO_DESCRIPTOR:
                loop.remove_reader(self._monitor_fd)
            self._linger(self._monitor)
            self._socket.monitor(None, 0)
            self._monitor.close(0)
            self._monitor = None
        if self._fd != NO_DESCRIPTOR:
            loop.remove_reader(self._fd)
        self._fd = self._monitor_fd = NO_DESCRIPTOR
        self.closed = True
        self._socket.close()

    def _linger(self, monitor: zmq.Socket[bytes]) -> None:
        """Have the connections that are still there shut down in time."""
        connections = [(descriptor, inode_of(descriptor)) for descriptor in self._connected]
        for _ in self._pending_events(monitor):  # they may say that a descriptor was closed before we looked at it
            pass
        self.transport.lingering.add(each for each in connections if each[0] in self._connected)

    def on_established(self, link: LinkId) -> None:  # noqa: B027  # where there is nothing to do
        """A link of this socket is up."""

    @abstractmethod
    def remote_address(self, link: LinkId) -> str:
        """The address of the other end of a link: the URL that was dialled, or the IP address of the dialler."""

    def check_soon(self) -> None:
        """Drain at the loop's next turn if there is input, or if a full link may have room again."""
        if self._scheduled or self.closed:
            return
        if self.gate.shut:
            self.gate.wait()
        events = self._events()
        if events & IN:
            self._scheduled = True
            self.transport.loop.call_soon(self.drain)
        elif self.full:
            self._retry_later(events)

    def drain(self) -> None:
        """Read all that is there; after BATCH messages or BATCH_SECONDS others get their turn first."""
        self._scheduled = False
        transport, gate = self.transport, self.gate
        if self.closed or transport.closed:
            return
        transport.draining = True
        read = 0
        until = math.inf
        try:
            while True:
                if gate.shut:
                    gate.wait()
                try:
                    self._read()
                except zmq.Again:
                    break
                read += 1
                if gate.shut:
                    gate.wait()
                if self.closed or (read <= LOOKS and not self._events() & IN):
                    break
                now = monotonic()
                if until == math.inf:
                    until = now + BATCH_SECONDS
                    self.handler.on_burst()
                if read == BATCH or now > until:
                    self._scheduled = True
                    transport.loop.call_soon(self.drain)
                    break
            if self.full and not self.closed:
                self._retry(not read)
                self.check_soon()
        finally:
            if until < math.inf:
                self.handler.on_burst_end()  # which may send here, and so swallow a signal
            else:
                transport.touched.discard(self)
            transport.draining = False
            if transport.touched:
                transport.settle()

    def send_from_thread(self, link: LinkId, frames: Frames) -> None:
        """Send frames from a thread that `gate` has let in; they are dropped where the connection has no room."""
        if link in self.full or self.closed:
            return
        parts = self._parts(link, frames)
        try:
            for index, part in enumerate(parts, 1):
                self._send(part, MORE if index < len(parts) else LAST)
        except zmq.ZMQError:  # of the first part only: the connection is full or gone, as the loop will find
            pass

    def _read_rest(self, frame: Any) -> list[bytes]:
        """The parts of a message of which that one is the first, and not the last. A long body stays uncopied; more
        than four are thrown away."""
        parts: list[Any] = [frame.bytes]
        while frame.more:
            frame = self._recv(LAST, False)
            if len(parts) < 4:
                parts.append(frame if len(parts) == BODY and len(frame) >= UNCOPIED else frame.bytes)
        return parts

    def _take(self, link: LinkId, parts: list[bytes]) -> None:
        """Hand a message to the node, and count it."""
        traffic = self._traffic[link]
        traffic.messages_in += 1
        traffic.bytes_in += len(parts[0]) if len(parts) == 1 else sum(map(len, parts))
        self.handler.on_frames(link, parts)

    def _drain_monitor(self) -> None:
        """Handle all pending monitor events."""
        if self._monitor is not None:
            for event, value in self._pending_events(self._monitor):
                self._on_event(event, value)

    def _pending_events(self, monitor: zmq.Socket[bytes]) -> Iterator[tuple[int, int]]:
        """The events that the monitor has for us, with their values; none any more once the socket is closed."""
        while not self.closed and cast("int", monitor.get(EVENTS)) & IN:
            message = parse_monitor_message(monitor.recv_multipart(zmq.DONTWAIT))
            event, value = int(message["event"]), message["value"]
            if event in _BEGINNINGS:
                self._connected.add(value)
            elif event == zmq.EVENT_DISCONNECTED:
                self._connected.discard(value)
            yield event, value

    @abstractmethod
    def send(self, link: LinkId, frames: Frames) -> bool:
        """Hand frames to ZeroMQ; False if there is no room."""

    @abstractmethod
    def _parts(self, link: LinkId, frames: Frames) -> tuple[bytes, ...]:
        """The frames as the parts of a message for that link; none if the link is gone."""

    @abstractmethod
    def hang_up(self, link: LinkId, pause: float) -> None:
        """Close a link of this socket; a dialled peer is dialled again after `pause` seconds at the earliest."""

    def unbind(self) -> asyncio.Future[None] | None:
        """Stop listening, before `close`; the future is resolved once the address is free. None if it is already."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Close the socket."""

    @abstractmethod
    def _retry(self, signalled: bool) -> None:
        """Have the node try full links again that may have room; `signalled` if that is why the descriptor spoke."""

    @abstractmethod
    def _retry_later(self, events: int) -> None:
        """Looking (the socket's `events`) may have swallowed the signal that a full link has room: see to it."""

    @abstractmethod
    def _read(self) -> None:
        """Read one message that is there."""

    @abstractmethod
    def _on_event(self, event: int, value: int) -> None:
        """Handle a monitor event; `value` is a descriptor, or an errno."""


def send_rest(send: Callable[..., object], frames: Frames) -> None:
    """Send all parts but the first; a last one that came in as a ZeroMQ frame goes on uncopied."""
    for part in frames[1:-1]:
        send(part, MORE)
    body: object = frames[-1]
    send(body, LAST, type(body) is not zmq.Frame)
