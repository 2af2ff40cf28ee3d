"""The thread of a node whose program has no event loop of its own."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from zmesh.errors import Closed
from zmesh.runtime.thread_pool import wait_in_thread

T = TypeVar("T")

nodes_in_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()
"""The number of nodes that run in each event loop."""

AT_EXIT_WITHIN = 5.0
"""Seconds that the interpreter's end waits for a controller that was not closed."""


class NodeThread:
    """The thread that a node runs in. It has no reference to the Controller, whose collection as garbage ends it."""

    def __init__(self, mesh: AbstractAsyncContextManager[object], node_id: str) -> None:
        self._mesh = mesh
        self._node_id = node_id
        self._process = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopping = False
        self._opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name=f"zmesh {node_id}", daemon=True)

    def start(self) -> None:
        """Start the thread; returns when the node is open. Raises what opening it raises, such as AddressError."""
        atexit.register(self._at_exit)
        self._thread.start()
        with ExitStack() as unless_open:
            unless_open.callback(self.end)
            self._opened.result()
            unless_open.pop_all()

    def do(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run the work in the loop, and return its result; it is cancelled if the wait is interrupted.

        Raises what it raises, and Closed when the node has ended.
        """
        loop = self.loop()
        call = _Call(work)
        try:
            return wait_in_thread(self._submit(call, loop))
        except concurrent.futures.CancelledError:
            raise self._closed() from None
        finally:
            if not call.over:  # Ctrl-C, which may come before there is a future
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(call.cancel)

    def _submit(self, call: _Call[T], loop: asyncio.AbstractEventLoop) -> concurrent.futures.Future[T]:
        coroutine = call.run()
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError:
            coroutine.close()
            raise self._closed() from None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The node's loop. Raises Closed when it has ended, or in a fork, and RuntimeError as `check` does."""
        self.check()
        if self._loop is None or self._loop.is_closed():
            raise self._closed()
        return self._loop

    def end(self) -> None:
        """Close the node; returns when the thread has ended. Harmless when it has, and in a forked child."""
        if self._process != os.getpid():
            return
        refuse_in_loop_of_node()
        self.stop()
        self._thread.join()
        atexit.unregister(self._at_exit)

    def stop(self) -> None:
        """Have the thread end, also while it starts."""
        self._stopping = True
        if self._loop is not None and self._stop is not None and self._process == os.getpid():
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._stop.set)

    def _at_exit(self) -> None:
        """Close the node at the end of the interpreter, while there are threads."""
        if self._process == os.getpid():
            self.stop()
            self._thread.join(AT_EXIT_WITHIN)

    def check(self) -> None:
        """Raises Closed in a fork of the node's process, and RuntimeError in a loop that runs a node."""
        if self._process != os.getpid():
            raise Closed(
                f"node {self._node_id!r} belongs to the process {self._process}, of which this one is a fork; "
                "make a Controller after forking",
                node=self._node_id,
            )
        refuse_in_loop_of_node()

    def _closed(self) -> Closed:
        node = self._node_id
        return Closed(f"node {node!r} is closed; call inside of `with Controller(...)`", node=node)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001  # the caller of `open` gets it
            if not self._opened.done():
                self._opened.set_exception(error)

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._stopping:
            self._stop.set()
        async with self._mesh:
            self._opened.set_result(None)
            await self._stop.wait()


def refuse_in_loop_of_node() -> None:
    """Raises RuntimeError where waiting would stop a node, which may be the one that is waited for."""
    loop = asyncio._get_running_loop()
    if loop is not None and nodes_in_loop.get(loop, 0) > 0:
        raise RuntimeError(
            "zmesh.sync would stop the event loop that runs in this thread, and the node that runs there (a handler "
            "is called in such a loop, too); use zmesh.Controller with `async with` there"
        )


class _Call(Generic[T]):
    """Work for the loop, which the thread that waits for it can cancel from the moment that it is submitted."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._task: asyncio.Task[object] | None = None
        self._cancelled = False
        self.over = False

    async def run(self) -> T:
        self._task = asyncio.current_task()
        try:
            if self._cancelled:
                raise asyncio.CancelledError
            return await self._work()
        finally:
            self.over = True

    def cancel(self) -> None:
        """Cancel the work, or keep it from beginning. To be called in the loop; harmless when it is over."""
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()
