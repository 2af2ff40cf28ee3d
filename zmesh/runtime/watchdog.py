"""Watchdog thread of an event loop: reports what blocks the loop and for how long, and keeps links alive meanwhile.

User code on the loop that neither awaits nor returns keeps a node from answering its neighbours. Four times a second
this thread has the loop run a callback. While that does not run, it looks at the stack of the loop's thread, which
shows the location and the directive, and calls `while_blocked` for each node of that loop.

Code in C that holds the interpreter's lock keeps this thread from running as well. Then the loop's block is noticed and
counted when it is over, and its location is unknown.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from types import CodeType, FrameType
from typing import NamedTuple, Protocol

from zmesh.runtime.exceptions import log_exception

log = logging.getLogger(__name__)

PERIOD = 0.25
"""Seconds between two looks at a loop, at most; a quarter of the heartbeat if that is shorter."""

SHORTEST_PERIOD = 0.02

JOIN_WITHIN = 1.0
"""Seconds that are waited for the thread's end, which takes longer only if it is stuck in a handler of the log."""

BLOCKED_AFTER = 1.0
"""Seconds after which a loop that does not go on is called blocked, in the log and the counters."""

LAG_PERIOD = 60.0
"""Seconds of which the longest delay of a loop is kept."""

directive_frames: set[CodeType] = set()
"""The functions in whose frames `running` is the work of a directive."""

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_NOT_THE_USER_S = (_OURS, os.path.dirname(os.__file__) + os.sep, "<frozen")
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class StackLocation(NamedTuple):
    """The place at which a thread executes, as text, and whether it is logging there."""

    text: str
    logging: bool


UNSEEN = StackLocation("code that keeps all threads waiting, as C code may", False)


class LoopLag:
    """How late a loop runs its callbacks, in seconds: `last` time, and at the `worst` of the last one to two minutes.

    A callback that is due at once is late by what runs before it.
    """

    __slots__ = ("_before", "_now", "_until", "last")

    def __init__(self) -> None:
        self.last = 0.0
        self._now = self._before = 0.0
        self._until = 0.0

    @property
    def worst(self) -> float:
        """The longest delay of the last one to two minutes."""
        return max(self._now, self._before)

    def note(self, seconds: float, now: float) -> None:
        """Note that a callback was late by so many seconds."""
        if now >= self._until:
            self._before, self._now, self._until = self._now, 0.0, now + LAG_PERIOD
        self.last = seconds
        self._now = max(self._now, seconds)


class WatchedNode(Protocol):
    """A node as the watchdog of its loop sees it."""

    def while_blocked(self, seconds: float, where: StackLocation) -> None:
        """In the watchdog's thread: the loop has been blocked for so long; called at each look."""

    def after_block(self, seconds: float, where: StackLocation) -> None:
        """On the loop: it goes on after having been blocked for so long. Comes after each `while_blocked`."""


class Watchdog:
    """The watchdog of one loop, there as long as anything on that loop is watched. To be used on the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._watched: dict[WatchedNode, float] = {}
        self._period = PERIOD
        self.lag = LoopLag()
        self._ended = threading.Event()
        self._asked = time.monotonic()
        self._answered = True
        self._where: StackLocation | None = None
        self._reported = False
        self._thread = threading.Thread(target=self._run, name="zmesh watchdog", daemon=True)

    def add(self, watched: WatchedNode, heartbeat: float) -> None:
        """Watch the loop for this node, whose links live as long as something is heard every other `heartbeat` (s)."""
        self._watched = {**self._watched, watched: heartbeat}
        self._set_period()
        if len(self._watched) == 1:
            self._thread.start()

    def remove(self, watched: WatchedNode) -> None:
        """Stop watching for this node; the thread ends with the last one, and has ended when this returns."""
        self._watched = {one: heartbeat for one, heartbeat in self._watched.items() if one is not watched}
        self._set_period()
        if not self._watched:
            self._ended.set()
            self._thread.join(JOIN_WITHIN)

    def watches_only(self, watched: WatchedNode) -> bool:
        """Whether this is the only node watched."""
        return list(self._watched) == [watched]

    def _set_period(self) -> None:
        self._period = max(SHORTEST_PERIOD, min([PERIOD, *(each / 4 for each in self._watched.values())]))

    def _run(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            while not self._ended.wait(self._period):
                self._look()

    def _look(self) -> None:
        now = time.monotonic()
        if self._answered:
            self._answered, self._asked = False, now
            self._loop.call_soon_threadsafe(self._answer)
            return
        seconds = now - self._asked
        where = self._where = self._where or stack_location(sys._current_frames().get(self._loop_thread))
        self._reported = True
        for watched in self._watched:
            try:
                watched.while_blocked(seconds, where or UNSEEN)
            except Exception as error:  # noqa: BLE001  # the tables that it reads may change under its eyes
                log_exception(log, "what is done while a loop is blocked has failed", error=error, level=logging.DEBUG)

    def _answer(self) -> None:
        """The loop goes on, or has never stopped."""
        now = time.monotonic()
        seconds = now - self._asked
        self.lag.note(seconds, now)
        where, self._where = self._where, None
        if self._reported or seconds >= BLOCKED_AFTER:
            self._reported = False
            for watched in self._watched:
                try:
                    watched.after_block(seconds, where or UNSEEN)
                except Exception as error:  # noqa: BLE001  # else the loop would be taken for blocked for ever
                    log_exception(log, "what is done after a loop was blocked has failed", error=error)
        self._answered = True


class _Watchdogs:
    """The watchdogs of this process, by their loops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_loop: dict[asyncio.AbstractEventLoop, Watchdog] = {}
        os.register_at_fork(after_in_child=self._forget)

    def add(self, watched: WatchedNode, heartbeat: float) -> None:
        """Watch the running loop for this node, and call it when the loop is blocked."""
        loop = asyncio.get_running_loop()
        with self._lock:
            watchdog = self._by_loop.get(loop)
            if watchdog is None:
                watchdog = self._by_loop[loop] = Watchdog(loop)
        try:
            watchdog.add(watched, heartbeat)
        except RuntimeError as error:  # the system has no thread to spare: the node does without
            log.warning("no thread can be started to watch the event loop: %s", error)
            with self._lock:
                del self._by_loop[loop]

    def remove(self, watched: WatchedNode, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Stop watching for this node in its loop, by default the running one. Harmless if it is not watched."""
        loop = loop or asyncio.get_running_loop()
        with self._lock:
            watchdog = self._by_loop.get(loop)
            if watchdog is None:
                return
            if watchdog.watches_only(watched):
                del self._by_loop[loop]
        watchdog.remove(watched)

    def lag(self, loop: asyncio.AbstractEventLoop) -> LoopLag | None:
        """How late that loop runs its callbacks; None if nothing on it is watched."""
        with self._lock:
            watchdog = self._by_loop.get(loop)
        return watchdog.lag if watchdog is not None else None

    def _forget(self) -> None:
        """In a forked child, which has none of the threads."""
        self._lock = threading.Lock()
        self._by_loop = {}


def stack_location(frame: FrameType | None) -> StackLocation | None:
    """The location of a thread: the directive or function, and the line of the innermost code of the program's own.

    None if it waits for events, or has no stack.
    """
    innermost = user = None
    directive = None
    logs = False
    while frame is not None:
        logs = logs or frame.f_globals.get("__name__") == "logging"
        code = frame.f_code
        if innermost is None:
            if code.co_name in ("select", "poll") and "select" in code.co_filename:
                return None
            innermost = frame
        if user is None and not code.co_filename.startswith(_NOT_THE_USER_S):
            user = frame if not any(folder in code.co_filename for folder in _INSTALLED) else None
        if directive is None and code in directive_frames:
            directive = getattr(getattr(frame.f_locals.get("running"), "work", None), "directive", None)
        frame = frame.f_back
    at = user or innermost
    if at is None:
        return None
    return StackLocation(f"{directive or at.f_code.co_qualname} ({at.f_code.co_filename}:{at.f_lineno})", logs)


watchdogs = _Watchdogs()
"""The watchdogs of this process."""
