"""Queries of single pages, such as for the routes of a node: few at a time, and equal ones once for all pages."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

AT_ONCE = 4
"""Queries that are under way in the mesh."""
WAITING = 32
"""Queries that may wait for their turn."""
KEPT = 128
"""Answers that are kept."""
QUERY_WITHIN = 10.0
"""Seconds that a query may take, so that nodes which do not answer do not delay the others."""
FRESH = 1.0
"""Seconds for which an answer is given again."""


class Busy(Exception):
    """Too many queries wait."""


class Queries:
    """Answers by query."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._open: dict[tuple[str, ...], asyncio.Task[Any]] = {}
        self._answers: OrderedDict[tuple[str, ...], tuple[float, Any]] = OrderedDict()

    async def answer(self, query: tuple[str, ...], ask: Callable[[], Awaitable[Any]]) -> Any:
        """The answer, at most FRESH seconds old. Raises Busy, TimeoutError, and what `ask` raises."""
        known = self._answers.get(query)
        if known is not None and time.monotonic() - known[0] < FRESH:
            return known[1]
        task = self._open.get(query)
        if task is None:
            if len(self._open) >= WAITING:
                raise Busy
            task = self._open[query] = asyncio.create_task(self._ask(query, ask))
            task.add_done_callback(_retrieve)
        return await asyncio.shield(task)

    async def _ask(self, query: tuple[str, ...], ask: Callable[[], Awaitable[Any]]) -> Any:
        try:
            async with self._turn:
                async with asyncio.timeout(QUERY_WITHIN):
                    found = await ask()
        finally:
            del self._open[query]
        self._answers[query] = (time.monotonic(), found)
        self._answers.move_to_end(query)
        if len(self._answers) > KEPT:
            self._answers.popitem(last=False)
        return found

    async def close(self) -> None:
        """Cancel what is under way."""
        tasks = list(self._open.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Take note of an error that no page waits for any more."""
    if not task.cancelled():
        task.exception()
