"""Executes directives that are plain functions or generators in worker threads, and sends their replies on the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from zmesh.errors import Closed
from zmesh.payloads import Outgoing, outgoing
from zmesh.runtime import ThreadPool, wait_in_thread
from zmesh.serving.shape import Shape

if TYPE_CHECKING:
    from zmesh.payloads import PayloadLike, Response
    from zmesh.serving.running import RunningWork

    End: TypeAlias = Callable[[RunningWork, BaseException | None, Outgoing | None], None]


class ThreadExecutor:
    """The worker threads of one node, on the running loop. `end` is called there with work that has ended."""

    def __init__(self, max_workers: int, end: End) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = end
        self._threads = ThreadPool(max_workers, "zmesh-work")

    def set_limit(self, max_workers: int) -> None:
        """Change the number of threads."""
        self._threads.set_limit(max_workers)

    def submit(self, running: RunningWork) -> None:
        """Run the work as soon as a thread is free. Raises RuntimeError if no thread can be started."""
        running.claim = threading.Lock()
        run: Callable[[], None] = partial(self._run, running)
        if running.work._context is not None:  # a copy, as a context runs in one thread at a time
            run = partial(running.work._context.copy().run, run)
        self._threads.run(run)

    def close(self) -> None:
        """End the threads, each when its work has ended."""
        self._threads.close()

    def join(self, timeout: float) -> list[str]:
        """Wait for the end of the threads; returns the names of those that have not ended after `timeout` seconds."""
        return self._threads.join(timeout)

    # -- in a worker thread --------------------------------------------------------------------------------------

    def _run(self, running: RunningWork) -> None:
        if running.claim is None or not running.claim.acquire(blocking=False):
            return  # cancelled before it began
        running.thread = threading.current_thread().name
        entry, work = running.entry, running.work
        encoded: Outgoing | None = None
        failure: BaseException | None = None
        try:
            if entry.shape is Shape.QUEUE:
                entry.run(work, partial(self._put, running))
            elif entry.shape is Shape.GENERATOR:
                with closing(entry.run(work)) as values:
                    for value in values:
                        self._put(running, value)
            elif (result := entry.run(work)) is not None:
                encoded = outgoing(result)
        except BaseException as error:  # noqa: BLE001  # SystemExit and the like must not end the thread
            failure = error
        try:
            self._call_soon(self._end, running, failure, encoded)
        except Closed:
            if encoded is not None:
                encoded.close()
        finally:
            failure = None  # its traceback holds this frame

    def _put(self, running: RunningWork, value: PayloadLike | Response | Outgoing) -> None:
        """Send one reply; blocks until it was accepted."""
        running.work.raise_if_cancelled()
        if value is None:
            return
        waiter: Future[None] = Future()
        try:
            self._call_soon(self._send, running, outgoing(value), waiter)
            wait_in_thread(waiter)
        finally:
            del waiter  # an exception in it holds this frame

    def _call_soon(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            raise Closed("the node is closed, and its loop with it") from None

    # -- on the loop ---------------------------------------------------------------------------------------------

    def _send(self, running: RunningWork, reply: Outgoing, waiter: Future[None]) -> None:
        """Send a reply for `_put`, whose thread blocks until `reply` has returned."""
        if running.reason is not None:
            reply.close()
            waiter.set_exception(running.work.cancellation())
            return
        task = running.handing = asyncio.get_running_loop().create_task(running.request.reply(reply))
        task.add_done_callback(partial(self._sent, running, waiter))

    def _sent(self, running: RunningWork, waiter: Future[None], task: asyncio.Task[None]) -> None:
        running.handing = None
        if task.cancelled():
            waiter.set_exception(running.work.cancellation())
        elif (error := task.exception()) is not None:
            waiter.set_exception(error)
        else:
            waiter.set_result(None)
