"""Random message ids of 128 bits, unique among all requests of all nodes."""

from __future__ import annotations

import os

from zmesh.core.message import MessageId

PAGE = 4096


class _MessageIds:
    """Reads the system's source of randomness a page at a time, since each read is a system call."""

    def __init__(self) -> None:
        self._left: list[MessageId] = []
        os.register_at_fork(after_in_child=self._left.clear)  # a fork shares them with its parent

    def take(self) -> MessageId:
        """The next 16 bytes of the page. Needs no lock: `pop` is one step, and two threads may read a page each."""
        while True:
            try:
                return self._left.pop()
            except IndexError:
                pass
            page = os.urandom(PAGE)
            self._left += [MessageId(page[at : at + 16]) for at in range(0, PAGE, 16)]


_ids = _MessageIds()


def new_message_id() -> MessageId:
    """A random message id of 128 bits. Safe to call from any thread and in a fork."""
    return _ids.take()
