"""How the sockets of a blocked loop are lent to another thread for a moment.

A libzmq socket may be used by one thread at a time, and may change hands with a full memory barrier between. The loop's
thread uses its sockets all the time and can't pay for a lock at each frame. So it looks at one flag (`shut`) before it
touches a socket, where code outside of this package may have run since it looked last. The other thread sets the flag
under a lock and then looks at the stack of the loop's thread: when the innermost function of zmesh there belongs to
this package, that thread may have looked already, and nothing is lent. Else it is elsewhere (in user code, most likely)
and will find the flag, and wait for the lock, wherever it comes back.

The stack is conclusive because one thread runs at a time: where the interpreter has no global lock (PEP 703), nothing
is lent.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PACKAGE = "zmesh."
INSIDE = "zmesh.transport."
WITHOUT_SOCKETS = "zmesh.transport.resolver"
"""The part of this package that touches none: there a loop waits for a name that is to be listened on."""
_ONE_RUNS_AT_A_TIME: bool = getattr(sys, "_is_gil_enabled", lambda: True)()


class Gate:
    """The gate of one transport; to be made on the loop's thread."""

    __slots__ = ("_lock", "_thread", "shut")

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self.shut = False

    def wait(self) -> None:
        """On the loop's thread, when the gate is shut: wait until the other one has done."""
        with self._lock:
            pass

    @contextmanager
    def enter(self) -> Iterator[bool]:
        """On another thread: whether it may use the sockets within the block; the loop waits for its end."""
        with self._lock:
            self.shut = True
            try:
                yield _ONE_RUNS_AT_A_TIME and not self._is_inside()
            finally:
                self.shut = False

    def _is_inside(self) -> bool:
        """Whether the loop's thread may be about to use a socket."""
        frame = sys._current_frames().get(self._thread)
        while frame is not None:
            module = frame.f_globals.get("__name__")
            if isinstance(module, str) and module.startswith(PACKAGE):
                return module.startswith(INSIDE) and module != WITHOUT_SOCKETS
            frame = frame.f_back
        return False
