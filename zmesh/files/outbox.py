"""The bytes that one end of a copy sends at a server, as an async iterator, which is the payload of a reply."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Self

WAITING_BYTES = 2 * 1024 * 1024
"""Bytes that may be queued; with more, `send` waits."""


class Outbox:
    """An async iterator of the bytes that `send` and `post` are given; it ends after `close`."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._closed = False
        self._changed: list[asyncio.Future[None]] = []

    async def send(self, data: bytes) -> None:
        """Hand over bytes; waits while many wait."""
        while self._size >= WAITING_BYTES:
            await self._change()
        self._waiting.append(data)
        self._size += len(data)
        self._wake()

    def post(self, data: bytes) -> None:
        """Hand over a few bytes without waiting; dropped if others wait."""
        if not self._waiting:
            self._waiting.append(data)
            self._size += len(data)
            self._wake()

    def close(self) -> None:
        """End after what was handed over."""
        self._closed = True
        self._wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            await self._change()
        data = self._waiting.popleft()
        self._size -= len(data)
        self._wake()
        return data

    async def _change(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._changed.append(future)
        await future

    def _wake(self) -> None:
        changed, self._changed = self._changed, []
        for future in changed:
            if not future.done():
                future.set_result(None)
