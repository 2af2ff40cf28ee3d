"""How many processes may run at a time, a number that may change while some run."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Slots:
    """`async with` waits until fewer than `limit` are in it."""

    __slots__ = ("_free", "_limit", "_surplus")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = asyncio.Semaphore(limit)
        self._surplus = 0
        """Slots that are taken away as soon as they are free, since the limit was lowered."""

    def set_limit(self, limit: int) -> None:
        """Change the limit; blocks that were entered already stay."""
        more, self._limit = limit - self._limit, limit
        self._surplus -= more
        while self._surplus < 0:
            self._surplus += 1
            self._free.release()

    async def __aenter__(self) -> None:
        await self._free.acquire()
        while self._surplus:
            self._surplus -= 1
            await self._free.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._free.release()
