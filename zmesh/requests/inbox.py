"""The replies of a node that have no handler: kept until the program receives them, the oldest dropped past a limit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

from zmesh.core.message import Message
from zmesh.errors import Closed

MAX_INBOX = 10_000
"""Maximum number of queued replies; beyond it the oldest are dropped."""


class Inbox:
    """The reply queue of one node. `check` raises Closed when no reply can arrive any more."""

    def __init__(self, check: Callable[[], None], dropped: Callable[[], None]) -> None:
        self._check = check
        self._dropped = dropped
        self._messages: deque[Message] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, message: Message) -> None:
        """Append a reply."""
        if len(self._messages) >= MAX_INBOX:
            self._messages.popleft()
            self._dropped()
        self._messages.append(message)
        self.wake()

    def wake(self) -> None:
        """Wake the waiting reader, which then checks the queue again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def check(self) -> None:
        """Raises Closed if the queue is empty and no reply can arrive any more."""
        if not self._messages:
            self._check()

    async def next(self) -> Message:
        """Wait for and remove the oldest reply. Raises Closed."""
        while not self._messages:
            self._check()
            if self._waiter is None or self._waiter.done():
                self._waiter = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._waiter)
        return self._messages.popleft()


class Replies:
    """The result of `recv`: an awaitable of one message, and an async iterator of all."""

    __slots__ = ("_begun", "_inbox")

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._begun = False

    def __await__(self) -> Generator[Any, None, Message]:
        return self._inbox.next().__await__()

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        if not self._begun:
            self._inbox.check()
            self._begun = True
        try:
            return await self._inbox.next()
        except Closed:
            raise StopAsyncIteration from None
