"""Fork detection: a node, its sockets and its threads can't be used in a forked child.

`os.fork` copies memory and descriptors, and the one thread that called it. What is left in the child of a node is a
copy without its threads, beside sockets and an epoll set that are the parent's still.
"""

from __future__ import annotations

import os

_generation = 0


def _in_child() -> None:
    global _generation
    _generation += 1


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
