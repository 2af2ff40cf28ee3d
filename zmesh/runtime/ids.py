"""Message ids, which no two requests of any two nodes share."""

from __future__ import annotations

import os
import threading

from zmesh.core.message import MessageId

PAGE = 4096


class _Ids:
    """Message ids from the system's source of randomness, a page at a time: one by one, each costs a system call."""

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """In a fork: give no id that the parent gives, and take no lock that another of its threads may have held."""
        self._lock = threading.Lock()
        self._page = b""
        self._at = 0

    def take(self) -> MessageId:
        """An id that was never given before."""
        with self._lock:
            if self._at == len(self._page):
                self._page, self._at = os.urandom(PAGE), 0
            at, self._at = self._at, self._at + 16
            return MessageId(self._page[at : at + 16])


ids = _Ids()
"""The source of this process."""
