"""A thread that watches an event loop: it tells what blocks the loop and for how long, and keeps links alive meanwhile.

User code on the loop that neither awaits nor returns keeps a node from answering its neighbours. Four times a second
this thread has the loop run a callback. While that does not run, it looks at the stack of the loop's thread, which
tells where it is and for which directive, and calls `while_blocked` for each node of that loop.

Code in C that holds the interpreter's lock keeps this thread from running as well. Then the loop's block is noticed and
counted when it is over, and nobody can have said where it was.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NamedTuple, Protocol

from zmesh.core import wire
from zmesh.core.effects import Report
from zmesh.core.engine import Engine
from zmesh.core.wire import Kind
from zmesh.failures import log_failure
from zmesh.transport import Transport
from zmesh.works import Works

log = logging.getLogger(__name__)

PERIOD = 0.25
"""Seconds between two looks at a loop, at most; a quarter of the heartbeat if that is shorter."""

SHORTEST_PERIOD = 0.02

JOIN_WITHIN = 1.0
"""Seconds that are waited for the thread's end, which takes longer only if it is stuck in a handler of the log."""

BLOCKED_AFTER = 1.0
"""Seconds after which a loop that does not go on is called blocked, in the log and the counters."""

STILL_BLOCKED_AFTER = 5.0
"""Seconds after which the log says so even though the loop does not go on."""

LINKS_KEPT = 30.0
"""Seconds of a block for which links are kept alive. After them the neighbours are told goodbye, and why."""

KEEPALIVE = wire.encode_link(Kind.RESEND, wire.Resend(False, False))
"""A frame that asks for nothing, but shows that the node is there. It needs no table of the engine."""

_RUN_DIRECTIVES = {Works._call.__code__, Works._iterate.__code__}
"""The functions in whose frames `running` is the work of a directive."""

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_NOT_THE_USER_S = (_OURS, os.path.dirname(os.__file__) + os.sep, "<frozen")
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Place(NamedTuple):
    """Where a thread is, as text, and whether it is in the middle of logging."""

    text: str
    logging: bool


UNSEEN = Place("code that keeps all threads waiting, as C code may", False)


class Watched(Protocol):
    """A node as the watchdog of its loop sees it."""

    def while_blocked(self, seconds: float, where: Place) -> None:
        """In the watchdog's thread: the loop has been blocked for so long; called at each look."""

    def after_block(self, seconds: float, where: Place) -> None:
        """On the loop: it goes on after having been blocked for so long. Comes after each `while_blocked`."""


class LinkGuard:
    """What the watchdog does for one node: keep its links alive while its loop is blocked, and tell of that."""

    def __init__(self, engine: Engine, transport: Transport, note: Callable[[Report], None]) -> None:
        self._engine = engine
        self._transport = transport
        self._note = note
        self._kept = 0.0
        self._logged = False
        self._let_go = False

    def while_blocked(self, seconds: float, where: Place) -> None:
        """Show the neighbours that the node is there; after LINKS_KEPT say goodbye to them."""
        heartbeat, now = self._engine.links.heartbeat, time.monotonic()
        if seconds >= heartbeat / 2 and now - self._kept >= heartbeat / 2 and not self._let_go:
            frames = KEEPALIVE
            if seconds > LINKS_KEPT:
                text = f"its event loop has been blocked for {seconds:.0f} s in {where.text[:1000]}"
                frames = wire.encode_link(Kind.GOODBYE, wire.Goodbye(text))
            links = [link.id for link in self._engine.links.up()]
            if self._transport.send_as_guest(links, frames):
                self._kept = now
                self._let_go = seconds > LINKS_KEPT
        if seconds >= STILL_BLOCKED_AFTER and not self._logged and not where.logging:
            self._logged = True
            log.warning("%s: event loop blocked for %.1f s so far in %s", self._engine.node, seconds, where.text)

    def after_block(self, seconds: float, where: Place) -> None:
        """Go on where the loop was when it was blocked, and tell of that if it took long."""
        self._logged = self._let_go = False
        self._transport.look_again()
        if seconds >= BLOCKED_AFTER:
            text = f"event loop blocked for {seconds:.1f} s in {where.text}"
            log.warning("%s: %s", self._engine.node, text)
            self._note(Report("loop_blocked", None, None, text))


class Watchdog:
    """The watchdog of one loop, there as long as anything on that loop is watched. To be used on the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._watched: dict[Watched, float] = {}
        self._period = PERIOD
        self._ended = threading.Event()
        self._asked = time.monotonic()
        self._answered = True
        self._where: Place | None = None
        self._told = False
        self._thread = threading.Thread(target=self._run, name="zmesh watchdog", daemon=True)

    def add(self, watched: Watched, heartbeat: float) -> None:
        """Watch the loop for this node, whose links live as long as something is heard every other `heartbeat` (s)."""
        self._watched = {**self._watched, watched: heartbeat}
        self._set_period()
        if len(self._watched) == 1:
            self._thread.start()

    def remove(self, watched: Watched) -> None:
        """Watch for this node no more; the thread ends with the last one, and has ended when this returns."""
        self._watched = {one: heartbeat for one, heartbeat in self._watched.items() if one is not watched}
        self._set_period()
        if not self._watched:
            self._ended.set()
            self._thread.join(JOIN_WITHIN)

    def watches_only(self, watched: Watched) -> bool:
        """Whether nobody else's loop is watched by this one."""
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
        where = self._where = self._where or place_of(sys._current_frames().get(self._loop_thread))
        self._told = True
        for watched in self._watched:
            try:
                watched.while_blocked(seconds, where or UNSEEN)
            except Exception as error:  # noqa: BLE001  # the tables that it reads may change under its eyes
                log_failure(log, "what is done while a loop is blocked has failed", error=error, level=logging.DEBUG)

    def _answer(self) -> None:
        """The loop goes on, or has never stopped."""
        seconds = time.monotonic() - self._asked
        where, self._where = self._where, None
        if self._told or seconds >= BLOCKED_AFTER:
            self._told = False
            for watched in self._watched:
                watched.after_block(seconds, where or UNSEEN)
        self._answered = True


class _Watchdogs:
    """The watchdogs of this process, by their loops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_loop: dict[asyncio.AbstractEventLoop, Watchdog] = {}
        os.register_at_fork(after_in_child=self._forget)

    def add(self, watched: Watched, heartbeat: float) -> None:
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

    def remove(self, watched: Watched) -> None:
        """Watch for this node no more. Harmless if that has never begun."""
        loop = asyncio.get_running_loop()
        with self._lock:
            watchdog = self._by_loop.get(loop)
            if watchdog is None:
                return
            if watchdog.watches_only(watched):
                del self._by_loop[loop]
        watchdog.remove(watched)

    def _forget(self) -> None:
        """In a forked child, which has none of the threads."""
        self._lock = threading.Lock()
        self._by_loop = {}


def place_of(frame: FrameType | None) -> Place | None:
    """Where a thread is: the directive or function, and the line of the innermost code of neither zmesh nor a library.

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
        if directive is None and code in _RUN_DIRECTIVES:
            directive = getattr(getattr(frame.f_locals.get("running"), "work", None), "directive", None)
        frame = frame.f_back
    at = user or innermost
    if at is None:
        return None
    return Place(f"{directive or at.f_code.co_qualname} ({at.f_code.co_filename}:{at.f_lineno})", logs)


watchdogs = _Watchdogs()
"""Those of this process."""
