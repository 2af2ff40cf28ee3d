"""Two transports as one connection: what one receives is written to the other.

Each direction ends by itself, and a reset goes on as a reset. While one transport takes no more, the other is not read.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from typing import Any

LINGER_ZERO = struct.pack("ii", 1, 0)
LOOK_EVERY = 1.0
"""Seconds from one look to the next at whether a TCP connection that is not read was reset meanwhile."""


class Relay:
    """The protocols `near` and `far` of two transports. `ended` is done when both connections are over."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.near, self.far = _Side(self), _Side(self)
        self.near.other, self.far.other = self.far, self.near

    def abort(self) -> None:
        """Reset both connections."""
        for side in (self.near, self.far):
            if side.transport is not None and not side.lost:
                reset(side.transport)

    def _on_lost(self) -> None:
        if self.near.lost and self.far.lost and not self.ended.done():
            self.ended.set_result(None)


class _Side(asyncio.Protocol):
    """The protocol of one of the two transports."""

    other: _Side

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self.transport: Any = None
        self.ended = False
        """Whether nothing more is received."""
        self.lost = False
        self._look_again: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there."""
        self.transport = transport
        keep_alive(transport)

    def data_received(self, data: bytes) -> None:
        """Write it to the other transport."""
        self.other.transport.write(data)

    def pause_writing(self) -> None:
        """Read no more of the other transport."""
        self.other.transport.pause_reading()
        self.other._look()

    def resume_writing(self) -> None:
        """Read the other transport again."""
        self.other._stop_looking()
        self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        """End that direction of the other transport, too."""
        self.ended = True
        other = self.other
        other.transport.write_eof()
        if other.ended:
            for side in (self, other):
                side.transport.close()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """Close the other transport, or reset it unless both directions had ended."""
        self.lost = True
        self._stop_looking()
        other = self.other
        if not other.lost and other.transport is not None:
            if error is None and self.ended and other.ended:
                other.transport.close()
            else:
                reset(other.transport)
        self._relay._on_lost()

    def _look(self) -> None:
        """Find out whether the connection was reset, unnoticed by a transport that does not read; and again."""
        sock = self.transport.get_extra_info("socket")
        if self.lost or sock is None:
            return
        poll = select.poll()
        poll.register(sock.fileno(), 0)
        if any(events & select.POLLERR for _, events in poll.poll(0)):
            self.transport.abort()
            return
        self._look_again = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look)

    def _stop_looking(self) -> None:
        timer, self._look_again = self._look_again, None
        if timer is not None:
            timer.cancel()


def reset(transport: Any) -> None:
    """Abort a transport; one of TCP sends RST instead of FIN (SO_LINGER of 0 s, socket(7))."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6) and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    transport.abort()


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Have the system find out when the other end of an idle TCP connection is gone (SO_KEEPALIVE, socket(7))."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
