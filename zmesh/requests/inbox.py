"""The replies of a node that have no handler: kept until the program receives them, the oldest dropped past a limit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

from zmesh.core.message import Message
from zmesh.errors import Closed

MAX_INBOX = 10_000
"""Replies that are kept; past it the oldest are dropped."""


class Inbox:
    """The queue of one node. `check` raises what keeps a reader from waiting: Closed, when nothing will come."""

    def __init__(self, check: Callable[[], None], dropped: Callable[[], None]) -> None:
        self._check = check
        self._dropped = dropped
        self._messages: deque[Message] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, message: Message) -> None:
        """Keep one more."""
        if len(self._messages) >= MAX_INBOX:
            self._messages.popleft()
            self._dropped()
        self._messages.append(message)
        self.wake()

    def wake(self) -> None:
        """Have whoever waits look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def check(self) -> None:
        """Raises Closed if nothing is here and nothing will come."""
        if not self._messages:
            self._check()

    async def next(self) -> Message:
        """The oldest one, once there is one. Raises Closed."""
        while not self._messages:
            self._check()
            if self._waiter is None or self._waiter.done():
                self._waiter = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._waiter)
        return self._messages.popleft()


class Replies:
    """What `recv` gives back: an awaitable of one message, and an async iterator of all."""

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
