"""The connections of closed sockets: each is shut down before libzmq gives up what it has left to send over it.

A socket that is closed still sends what it was given, for ZMQ_LINGER at most. When that time is over, libzmq takes the
rest of a message away from a connection that is still there, and if the other end resets the connection in that moment,
libzmq 4.3.5 aborts the process (`session_base_t::clean_pipes`, which wants the parts of a message that was half sent).
A peer that reads nothing and then resets can cause that. So a connection is shut down LINGER_MS after its socket was
closed, half of ZMQ_LINGER: while the parts are still there.

libzmq's thread closes the descriptors, and says so no more once the socket is closed. So a connection is known by its
descriptor and its inode, which no other socket has at the same time, and what is shut down is a duplicate.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterable
from contextlib import suppress

LINGER_MS = 500
"""For how long a socket that is closed still sends what it was given."""
ZMQ_LINGER_MS = 2 * LINGER_MS
"""When libzmq ends what is left of a socket that was closed (ZMQ_LINGER): its connections are shut down by then."""
LOOK_FIRST = 0.001
LOOK_LAST = 0.02


class LingeringConnections:
    """The connections of the closed sockets of one transport."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: dict[tuple[int, int], float] = {}
        """By descriptor and inode: when to shut it down, in seconds of the monotonic clock."""
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def add(self, connections: Iterable[tuple[int, int]]) -> None:
        """Shut these down in LINGER_MS, those that libzmq has closed by then excepted."""
        self._due.update(dict.fromkeys(connections, time.monotonic() + LINGER_MS / 1000))
        self._schedule()

    async def ended(self) -> None:
        """Wait until all are closed or shut down."""
        pause = LOOK_FIRST
        while self._sweep():
            await asyncio.sleep(pause)
            pause = min(LOOK_LAST, 2 * pause)

    def ended_now(self) -> None:
        """Wait without the loop until all are closed or shut down; blocks for LINGER_MS at most."""
        pause = LOOK_FIRST
        while self._sweep():
            time.sleep(pause)
            pause = min(LOOK_LAST, 2 * pause)

    def _schedule(self) -> None:
        if self._due and self._timer is None and not self._loop.is_closed():
            delay = min(self._due.values()) - time.monotonic()
            self._timer = self._loop.call_later(max(0.0, delay), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._sweep()
        self._schedule()

    def _sweep(self) -> bool:
        """Forget those that are closed, shut down those that are due; False if none are left."""
        now = time.monotonic()
        for connection, due in list(self._due.items()):
            descriptor, inode = connection
            if due <= now:
                _shut_down(descriptor, inode)
            if due <= now or inode_of(descriptor) != inode:
                del self._due[connection]
        if not self._due and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return bool(self._due)


def inode_of(descriptor: int) -> int:
    """The inode of a descriptor, -1 if it is closed."""
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return -1


def _shut_down(descriptor: int, inode: int) -> None:
    """Shut a connection down (shutdown(2)), unless the descriptor is another's by now."""
    with suppress(OSError):  # it is closed, its other end has ended it, or there is no descriptor for a duplicate
        duplicate = os.dup(descriptor)
        try:
            if inode_of(duplicate) == inode:
                sock = socket.socket(fileno=duplicate)
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                finally:
                    sock.detach()
        finally:
            os.close(duplicate)
