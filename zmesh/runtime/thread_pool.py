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
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from zmesh.runtime.exceptions import describe, is_a
from zmesh.runtime.forks import ProcessOrigin

T = TypeVar("T")

RELEASE_SLOT_AFTER = 0.1
"""Seconds that a worker thread waits for the mesh before it releases its slot."""


def _succeed(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        fits = is_a(error, Exception) and not is_a(error, StopIteration)  # which no future takes
        future.set_exception(error if fits else RuntimeError(describe(error)))


class _Here(threading.local):
    pool: ThreadPool | None = None


_here = _Here()


@contextmanager
def released_slot() -> Iterator[None]:
    """Release the slot of a worker thread while it waits for the mesh, so that the pool may start another.

    What it waits for may need a thread of the same pool, and if all of them waited like this, for ever.
    """
    pool = _here.pool
    if pool is None:
        yield
        return
    pool._widen()
    try:
        yield
    finally:
        pool._narrow()


def wait_in_thread(future: Future[T]) -> T:
    """The result of a future that the mesh settles; a worker thread gives up its place if that takes long."""
    if _here.pool is None:
        return future.result()
    with suppress(TimeoutError):  # which may be the result as well; then it is there
        return future.result(RELEASE_SLOT_AFTER)
    with released_slot():
        return future.result()


class ThreadPool:
    """Runs jobs in at most `limit` daemon threads, in order of arrival; a thread starts when one is needed.

    Threads that are in `released_slot` are not counted.
    """

    __slots__ = ("_closed", "_configured", "_free", "_jobs", "_limit", "_lock", "_name", "_origin", "_threads")

    def __init__(self, limit: int, name: str) -> None:
        self._limit = self._configured = limit
        self._name = name
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """Have no threads and no jobs: at first, and in a fork, which has none of its parent's threads."""
        self._origin = ProcessOrigin()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._free = 0
        """How many threads have no job, less the jobs that are queued."""
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
            self._free -= 1
            try:
                self._start_if_needed()
            except RuntimeError:
                if not self._threads:
                    self._jobs.get_nowait()  # there is no other job, and no thread to take this one
                    self._free += 1
                    raise

    def _start_if_needed(self) -> None:
        if self._free >= 0 or len(self._threads) >= self._limit:
            return
        thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads) + 1}", daemon=True)
        self._threads.append(thread)
        try:
            thread.start()
        except RuntimeError:
            self._threads.remove(thread)
            raise
        self._free += 1

    def _widen(self) -> None:
        with self._lock:
            self._limit += 1
            with suppress(RuntimeError):
                self._start_if_needed()

    def _narrow(self) -> None:
        with self._lock:
            self._limit -= 1

    def _is_surplus(self) -> bool:
        """Whether a thread that has done its job has to end, as those that waited have taken their places again."""
        with self._lock:
            if len(self._threads) > self._limit:
                self._threads.remove(threading.current_thread())
                return True
            self._free += 1
            return False

    def set_limit(self, limit: int) -> None:
        """Allow that many threads from now on; those past it end with the job that they have."""
        with self._lock:
            self._limit += limit - self._configured
            self._configured = limit
            with suppress(RuntimeError):
                self._start_if_needed()

    async def call(self, function: Callable[[], T]) -> T:
        """Run `function()` in a thread, and return or raise its outcome. A caller that is cancelled leaves it running.

        An exception that is no `Exception` (SystemExit, say) is raised as a RuntimeError, because it would end the
        caller's loop.
        """
        return await self.submit(function)

    def submit(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """As `call`, but the function is queued when this returns."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                settle = partial(_succeed, future, function())
            except BaseException as error:  # noqa: BLE001  # all of it is the caller's
                settle = partial(_fail, future, error)
            with suppress(RuntimeError):  # the loop is closed: there is no waiter
                loop.call_soon_threadsafe(settle)

        self.run(job)
        return future

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
        _here.pool = self
        while (job := self._jobs.get()) is not None:
            job()
            job = None  # hold nothing while idle
            if self._is_surplus():
                return
        self._jobs.put(None)  # for the next thread
