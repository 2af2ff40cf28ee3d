"""Fork detection: a node, its sockets and its threads can't be used in a forked child.

`os.fork` copies memory and descriptors, and the one thread that called it. What is left in the child of a node is a
copy without its threads, beside sockets and an epoll set that are the parent's still.

A copy of a descriptor keeps open what the parent closes: a port stays taken, a lock stays held, and the other end of a
connection or pipe waits for an end that does not come. So a child closes the copies of those that `close_in_child` was
given. Copies that only libzmq knows stay open: its connections are ended by heartbeats, and by what nodes say.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    import socket

_generation = 0
_sockets: WeakSet[socket.socket] = WeakSet()
_descriptors: set[int] = set()


def close_in_child(what: socket.socket | int) -> None:
    """Have a forked child close its copy of a socket, or of a descriptor, which is to be given to `closing`."""
    if isinstance(what, int):
        _descriptors.add(what)
    else:
        _sockets.add(what)


def closing(descriptor: int) -> None:
    """A descriptor that `close_in_child` was given is about to be closed, and its number to be another's."""
    _descriptors.discard(descriptor)


def _in_child() -> None:
    global _generation
    _generation += 1
    for sock in list(_sockets):
        with suppress(OSError):
            sock.close()
    _sockets.clear()
    for descriptor in _descriptors:
        with suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


os.register_at_fork(after_in_child=_in_child)


class ProcessOrigin:
    """The process that something was made in."""

    __slots__ = ("_generation", "pid")

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._generation = _generation

    @property
    def is_here(self) -> bool:
        """Whether that is this process; False in a fork of it. Costs no system call."""
        return self._generation == _generation
