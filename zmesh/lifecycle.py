"""The task that a node runs in: opened once, run to its end in one event loop, and closed once.

A program may end without closing its nodes: its loop is closed, or never runs again. They are closed by an exit handler
then, and one warning is logged for each.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from zmesh.errors import Closed
from zmesh.runtime import close_loop, ignore_exit, raise_lost_interrupts

if TYPE_CHECKING:
    from zmesh.node import Node

AT_EXIT_WITHIN = 5.0
"""Seconds that the end of the interpreter waits for a node whose loop still runs, in a thread of its own."""

_open_nodes: WeakSet[Node] = WeakSet()

Main = Callable[[], Coroutine[Any, Any, Any]] | Coroutine[Any, Any, Any]


class Lifecycle:
    """Opens, runs and closes one node; `on_end` is called with its task when that is done."""

    def __init__(
        self, node: Node, loop: asyncio.AbstractEventLoop | None, on_end: Callable[[asyncio.Task[None]], None]
    ) -> None:
        self._node = node
        self._loop = loop
        self._owns_loop = False
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._error_is_known = False
        """Whether the program knows already what has ended the node before its time."""
        self.is_leaving = False
        """Whether `run` is about to cancel what else runs in its loop."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that the node runs in: the one given, the running one, or else one of its own."""
        if self._loop is None:
            try:
                self._loop = asyncio.get_running_loop()
            except RuntimeError:
                self._loop = asyncio.new_event_loop()
                self._owns_loop = True
        return self._loop

    @property
    def is_over(self) -> bool:
        """Whether the node was open, and is closed."""
        return self._task is not None and self._task.done()

    def closed(self) -> Closed:
        """The error for calls after the end."""
        node = self._node.node_id
        return Closed(f"node {node!r} is closed; a Controller is opened once: make another", node=node)

    def begin(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        """The node's task, made in this loop unless there is one already."""
        if self._task is None:
            self._loop = loop
            self._ready = loop.create_future()
            self._task = loop.create_task(self._node.run(self._ready), name=f"zmesh {self._node.node_id}")
            self._node.admission.loop = loop
            self._task.add_done_callback(self._on_done)
            _open_nodes.add(self._node)
        return self._task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        _open_nodes.discard(self._node)
        self._on_end(task)

    async def open(self) -> None:
        """As Controller.open."""
        self._node.admission.check_process()
        if self._task is not None:
            self._node.admission.check_loop()
            if self._task.done() and self._error_is_known:
                raise self.closed()
        task = self.begin(asyncio.get_running_loop())
        ready = self._ready
        assert ready is not None
        await asyncio.wait((ready, task), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            self._error_is_known = True
            task.result()
            if not ready.done():
                raise self.closed()

    async def close(self) -> None:
        """As Controller.close."""
        if self._node.admission.is_foreign:
            return
        self._node.stop()
        if self._task is None:
            return
        self._node.admission.check_loop()
        await asyncio.wait((self._task,))
        if not self._error_is_known:
            self._error_is_known = True
            self._task.result()

    def run(self, main: Main | None) -> Any:
        """As Controller.run."""
        with contextlib.ExitStack() as unless_run:
            if inspect.iscoroutine(main):
                unless_run.callback(main.close)
            loop = self._loop_to_run(main)
            unless_run.pop_all()
        self.begin(loop)  # before the tasks that the program has made there already, which may send
        task = loop.create_task(self._run(main), name="zmesh run")
        try:
            with raise_lost_interrupts(loop):
                return loop.run_until_complete(task)
        except (KeyboardInterrupt, SystemExit):
            if self._owns_loop:
                loop.set_exception_handler(ignore_exit)
            self._abort()
            if not task.done():  # else it was main that was interrupted, and the node has been closed already
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    loop.run_until_complete(task)
            raise
        finally:
            if self._owns_loop and not self._node.admission.is_foreign:
                close_loop(loop)

    def _loop_to_run(self, main: Main | None) -> asyncio.AbstractEventLoop:
        if main is not None and not callable(main) and not inspect.isawaitable(main):
            raise TypeError(f"run takes a coroutine function, not {type(main).__name__}")
        self._node.admission.check_process()
        if self.is_over:
            raise self.closed()
        loop = self.loop
        if loop.is_running():
            raise RuntimeError("run starts the event loop, but it runs already; use `async with Controller(...)` there")
        if loop.is_closed():
            raise self.closed()
        return loop

    async def _run(self, main: Main | None) -> Any:
        try:
            await self.open()
            if main is None:
                assert self._task is not None
                await asyncio.shield(self._task)
                return None
            work = main() if callable(main) else main
            if not inspect.isawaitable(work):
                raise TypeError(f"run takes a coroutine function, and {main!r} is none: it gave {type(work).__name__}")
            result = await work
            await self._node.drain()
            return result
        except (KeyboardInterrupt, SystemExit):
            self._abort()
            raise
        finally:
            self.is_leaving = self._owns_loop
            await self.close()

    def _abort(self) -> None:
        """End the node at once: nothing goes before what ends the program, which may have struck anywhere."""
        self._node.abort(loop_ends=self._owns_loop)
        self._error_is_known = True


@atexit.register
def _close_at_exit() -> None:
    """Close the nodes that the program has left open."""
    for node in list(_open_nodes):
        loop = node.admission.loop
        if loop is not None and loop.is_running() and not node.admission.is_foreign:
            closed = threading.Event()
            with contextlib.suppress(RuntimeError):  # the loop was closed just now
                loop.call_soon_threadsafe(_close_in_loop, node, closed)
                closed.wait(AT_EXIT_WITHIN)
        else:
            node.close_now()


def _close_in_loop(node: Node, closed: threading.Event) -> None:
    node.close_now()
    closed.set()
