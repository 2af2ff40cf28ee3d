"""A ROUTER that listens. Its connections are told apart by the routing ids that libzmq makes up."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from typing import Any, cast

import zmq

from zmesh.core.message import LinkId
from zmesh.core.wire import Frames
from zmesh.errors import AddressError
from zmesh.transport.address import Target, bindable
from zmesh.transport.port import EVENTS, LAST, MORE, Owner, Port, send_body

BACKLOG = 1024
HUNG_UP_REMEMBERED = 4096
DOUBT_AGAIN = 0.05
NO_DESCRIPTOR = -1


class Listener(Port):
    """A ROUTER. Its connections are told apart by the routing ids that libzmq makes up."""

    def __init__(self, transport: Owner, target: Target) -> None:
        super().__init__(transport)
        self.cost = target.cost
        self._by_id: dict[bytes, LinkId] = {}
        self._ids: dict[LinkId, bytes] = {}
        self._by_descriptor: dict[int, list[LinkId]] = {}
        self._descriptors: dict[LinkId, int] = {}
        self._addresses: dict[LinkId, str] = {}
        self._hung_up: dict[bytes, None] = {}
        self._unbound: asyncio.Future[None] | None = None
        endpoint = bindable(target)
        path = endpoint.removeprefix("ipc://")
        self._path = path if path != endpoint and not path.startswith("@") else None
        self._open(zmq.ROUTER, endpoint, int(zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED))
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

    def where(self, link: LinkId) -> str:
        """The IP address of who dialled; the URL that it dialled, where that has no such addresses."""
        return self._addresses.get(link, self.url)

    def send(self, link: LinkId, frames: Frames) -> bool:
        """Hand frames to ZeroMQ; False if the connection takes no more now."""
        id = self._ids.get(link)
        if id is None:
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
            return True
        self._send(frames[0], MORE)
        self._send(frames[1], MORE)
        send_body(self._send, frames[2])
        return True

    def hang_up(self, link: LinkId, pause: float) -> None:
        """Know the connection no more; a ROUTER can't close it, so what it still says is thrown away."""
        id = self._forget(link)
        if id is not None:
            self._hung_up[id] = None
            if len(self._hung_up) > HUNG_UP_REMEMBERED:
                del self._hung_up[next(iter(self._hung_up))]

    def unbind(self) -> asyncio.Future[None] | None:
        """Stop listening; libzmq frees a TCP address some time after, and its monitor says when."""
        if not self.url.startswith("tcp:"):
            return None
        loop = self.transport.loop
        loop.remove_reader(self._fd)
        self._unbound = loop.create_future()
        self._socket.unbind(self.url)
        return self._unbound

    def close(self) -> None:
        """Close the socket and remove the file of a Unix one, which libzmq leaves."""
        self._shut()
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def _read(self) -> None:
        id: bytes = self._recv(LAST)
        link = self._by_id.get(id)
        if link is not None:
            self.handler.on_frames(link, self._read_parts())
            return
        if id in self._hung_up:
            self._read_parts()
            return
        first = self._recv(LAST, False)
        parts = [first.bytes, *(self._read_parts() if first.more else ())]
        link = self._by_id[id] = self.transport.new_link(self)
        self._ids[link] = id
        descriptor = self._descriptors[link] = _descriptor(first)
        self._by_descriptor.setdefault(descriptor, []).append(link)
        if self.url.startswith("tcp:"):
            with contextlib.suppress(zmq.ZMQError):
                self._addresses[link] = str(first.get("Peer-Address"))
        self.handler.on_link_up(link, dialled=False, cost=self.cost)
        self.handler.on_frames(link, parts)

    def _on_event(self, event: int, value: int) -> None:
        if event == zmq.EVENT_CLOSED:
            if self._unbound is not None and not self._unbound.done():
                self._unbound.set_result(None)
            return
        for link in list(self._by_descriptor.get(value, ())):
            self._doubt(link)
            self.transport.loop.call_later(DOUBT_AGAIN, self._doubt, link)

    def _doubt(self, link: LinkId) -> None:
        """A descriptor was closed that may have been this link's: have something sent, which tells (EHOSTUNREACH)."""
        if link in self._ids and not self._socket.closed:
            self._get(EVENTS)
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
            self._addresses.pop(link, None)
            descriptor = self._descriptors.pop(link)
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


def _bind_private(sock: zmq.Socket[bytes], endpoint: str) -> None:
    """Bind a Unix socket for this user only (mode 0600), and never in the place of one that is alive."""
    path = endpoint.removeprefix("ipc://")
    if not path.startswith("@") and os.path.exists(path) and not stat.S_ISSOCK(os.stat(path).st_mode):
        raise zmq.ZMQError(errno.EADDRINUSE)
    if not path.startswith("@") and os.path.exists(path) and _is_alive(path):
        raise zmq.ZMQError(errno.EADDRINUSE)
    before = os.umask(0o177)
    try:
        sock.bind(endpoint)
    finally:
        os.umask(before)


def _is_alive(path: str) -> bool:
    """Whether somebody listens on a Unix socket; one whose backlog is full does (EAGAIN, unix(7))."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            pass
    return True


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
