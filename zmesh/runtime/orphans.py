"""Reaper of orphaned zombies, in process 1 of a container or a child subreaper.

What a directive starts and leaves behind becomes a child of such a process when its parent ends, and a zombie when it
ends itself. An init would reap it; a program would have to know that it is one. A zombie is reaped here only if nothing
in this process refers to it: no `subprocess.Popen` (asyncio's are such), no `multiprocessing` process, no result of
`os.fork`; and only if its exit status was not asked for during GRACE seconds, which covers what C code has started.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

log = logging.getLogger(__name__)

PERIOD = 5.0
"""Seconds between two looks for zombies."""

GRACE = 30.0
"""Seconds that a zombie is left to those who may want its exit status."""

_PR_GET_CHILD_SUBREAPER = 37


def adopts() -> bool:
    """Whether orphans become children of this process (Linux)."""
    if os.getpid() == 1:
        return True
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None or not sys.platform.startswith("linux"):
        return False
    flag = ctypes.c_int()
    return prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0) == 0 and flag.value != 0


class _Forked:
    """The children of this process that `os.fork` has made, to which only process ids in the program refer."""

    def __init__(self) -> None:
        self.pids: set[int] = set()
        self._listens = False
        self._before_fork = threading.local()

    def listen(self) -> None:
        """Record the children of forks from now on."""
        if not self._listens:
            self._listens = True
            os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self.pids.clear)

    def _before(self) -> None:
        self._before_fork.children = set(_children_of("thread-self"))

    def _after(self) -> None:
        self.pids.update(set(_children_of("thread-self")) - self._before_fork.children)


_forked = _Forked()


class OrphanReaper:
    """Reaps orphans on the running loop; does nothing where this process gets none."""

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.reaped = 0
        if adopts():
            _forked.listen()
            self._loop = asyncio.get_running_loop()
            self._timer = self._loop.call_later(PERIOD, self._look)

    def close(self) -> None:
        """Stop reaping."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = self._loop.call_later(PERIOD, self._look)
        now = time.monotonic()
        children = set(_children())
        zombies = set(filter(_is_zombie, children))
        _forked.pids &= children
        self._seen = {pid: self._seen.get(pid, now) for pid in zombies}
        due = {pid for pid, since in self._seen.items() if now - since >= GRACE} - _forked.pids
        if not due:
            return
        known = set(_known_here())
        for pid in due - known:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
                self.reaped += 1
                log.debug("reaped the orphan %d", pid)
        for pid in due & known:  # to be looked at again after as long
            self._seen[pid] = now


def _children() -> list[int]:
    """The children of all threads of this process."""
    with suppress(OSError):
        return [pid for thread in os.listdir("/proc/self/task") for pid in _children_of(f"self/task/{thread}")]
    return []


def _children_of(thread: str) -> list[int]:
    try:
        with open(f"/proc/{thread}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:  # the thread has ended, or this kernel has no such file
        return []


def _is_zombie(pid: int) -> bool:
    """Whether this child has ended; its exit status stays there to be asked for."""
    with suppress(ChildProcessError):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    return False


def _known_here() -> Iterator[int]:
    """The process ids that objects of this process stand for."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    kinds: tuple[type, ...] = (subprocess.Popen,)
    if multiprocessing is not None:
        kinds += (multiprocessing.BaseProcess,)
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    server = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    for pid in (getattr(tracker, "_pid", None), getattr(server, "_forkserver_pid", None)):
        if isinstance(pid, int):
            yield pid
    for thing in gc.get_objects():
        if issubclass(type(thing), kinds):
            pid = vars(thing).get("pid") or getattr(vars(thing).get("_popen"), "pid", None)
            if isinstance(pid, int):
                yield pid
