"""Worker threads that never keep the program from ending.

The executor of the standard library joins its threads when the interpreter exits, so that one plugin, or one read from
a silent pipe, would hold the program for ever. These threads are daemons: who closes the pool may wait for them, and
what does not end is named and left behind.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from zmesh.failures import describe, is_a
from zmesh.forks import Origin

T = TypeVar("T")


def _succeed(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        fits = is_a(error, Exception) and not is_a(error, StopIteration)  # which no future takes
        future.set_exception(error if fits else RuntimeError(describe(error)))


class Threads:
    """Runs jobs in at most `limit` daemon threads, in the order of their coming; a thread starts when one is needed."""

    __slots__ = ("_closed", "_idle", "_jobs", "_limit", "_lock", "_name", "_origin", "_threads")

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """Have no threads and no jobs: at first, and in a fork, which has none of its parent's threads."""
        self._origin = Origin()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def run(self, job: Callable[[], None]) -> None:
        """Run `job`, which must not raise, as soon as a thread is free.

        Raises RuntimeError after `close`, and where the system gives no thread to run it.
        """
        if not self._origin.is_here:
            self._begin()
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the threads {self._name!r} are closed")
            self._jobs.put(job)
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._limit:
                self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads) + 1}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                self._jobs.get_nowait()  # there is no other job, and nobody else to take this one
                raise
        else:
            self._threads.append(thread)

    async def call(self, function: Callable[[], T]) -> T:
        """What `function()` returns or raises, from a thread. A caller that is cancelled leaves it running.

        What is no `Exception` (SystemExit, say) comes as a RuntimeError, because it would end the caller's loop.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                settle = partial(_succeed, future, function())
            except BaseException as error:  # noqa: BLE001  # all of it is the caller's
                settle = partial(_fail, future, error)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle)

        self.run(job)
        return await future

    def close(self) -> None:
        """Take no more jobs; each thread ends with what is queued already."""
        if not self._origin.is_here:
            self._begin()
        with self._lock:
            self._closed = True
        self._jobs.put(None)

    def join(self, timeout: float) -> list[str]:
        """Wait up to `timeout` seconds for the threads to end after `close`; the names of those that did not."""
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                self._idle.release()
                job = self._jobs.get()
            if job is None:
                self._jobs.put(None)  # for the next thread
                return
            job()
            job = None  # hold nothing while idle
