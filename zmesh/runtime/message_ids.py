"""Random message ids of 128 bits, unique among all requests of all nodes."""

from __future__ import annotations

import os
import threading

from zmesh.core.message import MessageId

PAGE = 4096


class _MessageIds:
    """Reads the system's source of randomness a page at a time, since each read is a system call."""

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Drop the page, which a fork shares with its parent, and the lock, which a thread of the parent may hold."""
        self._lock = threading.Lock()
        self._page = b""
        self._at = 0

    def take(self) -> MessageId:
        """The next 16 bytes of the page."""
        with self._lock:
            if self._at == len(self._page):
                self._page, self._at = os.urandom(PAGE), 0
            at, self._at = self._at, self._at + 16
            return MessageId(self._page[at : at + 16])


_ids = _MessageIds()


def new_message_id() -> MessageId:
    """A random message id of 128 bits. Safe to call from any thread and in a fork."""
    return _ids.take()
