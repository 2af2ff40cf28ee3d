"""The tasks of one node: started together with it, supervised, and ended with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager, suppress
from types import GeneratorType
from typing import Any

from zmesh.runtime.interrupts import supervised

OnStart = Callable[[asyncio.Task[None]], None]


class Tasks:
    """A group of tasks. The failure of one is logged and ends nothing else.

    A coroutine that is spawned before `start` is deferred until then.
    """

    __slots__ = ("_closed", "_deferred", "_loop", "_tasks")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._deferred: list[tuple[Coroutine[object, object, None], str, OnStart | None]] = []
        self._closed = False

    def start(self) -> None:
        """Run the deferred coroutines in the running loop, and from now on each one as it is spawned."""
        self._loop = asyncio.get_running_loop()
        deferred, self._deferred = self._deferred, []
        for coroutine, name, on_start in deferred:
            self.spawn(coroutine, name, on_start)

    def spawn(self, coroutine: Coroutine[object, object, None], name: str, on_start: OnStart | None = None) -> None:
        """Run a coroutine as a task; `on_start` is called with it. After `wind_down` the coroutine is closed unrun."""
        if self._closed:
            coroutine.close()
        elif self._loop is None:
            self._deferred.append((coroutine, name, on_start))
        else:
            task = self._loop.create_task(supervised(coroutine, name), name=name)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if on_start is not None:
                on_start(task)

    async def wind_down(self, within: float) -> None:
        """Take no more, wait up to `within` seconds for the tasks to end, and cancel those that did not."""
        self._shut()
        if self._tasks and within:
            await asyncio.wait(set(self._tasks), timeout=within)
        for task in self._tasks:
            task.cancel()

    async def join(self) -> None:
        """Wait until every task has ended, also if that is cancelled meanwhile."""
        cancelled: asyncio.CancelledError | None = None
        while self._tasks:
            try:
                await asyncio.wait(set(self._tasks))
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def close_now(self) -> None:
        """Cancel the tasks, or abandon them where their loop is closed; waits for nothing."""
        self._shut()
        for task in list(self._tasks):
            abandon(task)

    def _shut(self) -> None:
        self._closed = True
        deferred, self._deferred = self._deferred, []
        for coroutine, *_ in deferred:
            coroutine.close()


def abandon(task: asyncio.Task[Any]) -> None:
    """Cancel a task that may never run again, so that nothing is printed when it is collected as garbage.

    Where the loop is closed the coroutine is closed here, which runs its `finally` blocks.
    """
    if task.done():
        if not task.cancelled():
            task.exception()  # or it would be printed that nobody has asked for it
        return
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # what asyncio's own `run_until_complete` sets
    if not task.get_loop().is_closed():
        task.cancel()
        return
    coroutine: Any = task.get_coro()
    is_running = coroutine.gi_running if isinstance(coroutine, GeneratorType) else coroutine.cr_running
    if not is_running:  # else it is what calls this
        with suppress(BaseException):  # whatever its `finally` blocks raise, which has no receiver left
            coroutine.close()


@asynccontextmanager
async def described_timeout(seconds: float | None, describe: Callable[[], str]) -> AsyncIterator[None]:
    """As `asyncio.timeout`, but its TimeoutError has the text that `describe` returns when the time is over.

    That is before the block is cancelled, and with it what it waits for, of which nothing is known afterwards.
    """
    known: list[str] = []
    with ExitStack() as timer:
        if seconds is not None:
            handle = asyncio.get_running_loop().call_later(seconds, lambda: known.append(describe()))
            timer.callback(handle.cancel)
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimeoutError("".join(known)) from None
