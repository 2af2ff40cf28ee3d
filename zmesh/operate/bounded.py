"""One operation for many nodes, with bounded concurrency; results are yielded in order of arrival."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Bounded(Generic[T]):
    """An async iterator of the results of `one` for each node; at most `limit` are under way.

    It ends when the last one has ended. Leaving it early, as a context manager or by `aclose`, cancels the others.
    `one` returns the error of a node, instead of raising it.
    """

    def __init__(self, nodes: Iterable[str], limit: int, one: Callable[[str], Awaitable[T]]) -> None:
        self._waiting = deque(nodes)
        self._limit = limit
        self._one = one
        self._open: set[asyncio.Future[T]] = set()
        self._done: deque[asyncio.Future[T]] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        with ExitStack() as unless_given:
            unless_given.callback(self._stop)
            while not self._done:
                while self._waiting and len(self._open) < self._limit:
                    self._open.add(asyncio.ensure_future(self._one(self._waiting.popleft())))
                if not self._open:
                    raise StopAsyncIteration
                done, self._open = await asyncio.wait(self._open, return_when=asyncio.FIRST_COMPLETED)
                self._done.extend(done)
            result = self._done.popleft().result()
            unless_given.pop_all()
            return result

    async def aclose(self) -> None:
        """Cancel the operations under way, and wait for their end."""
        open_ = self._stop()
        if open_:
            await asyncio.wait(open_)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    def _stop(self) -> set[asyncio.Future[T]]:
        self._waiting.clear()
        self._done.clear()
        stopped, self._open = self._open, set()
        for each in stopped:
            each.cancel()
        return stopped
