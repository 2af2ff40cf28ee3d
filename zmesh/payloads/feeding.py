"""Feeds the outbound stream of an exchange as flow control makes room in it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from zmesh.core.message import Stream
from zmesh.payloads.source import Source
from zmesh.runtime import Driver, Tasks

READ_BYTES = 1024 * 1024
"""Most bytes that are read from a source at a time; as many as the largest chunk has (`wire.MAX_BODY`)."""


class StreamFeeder:
    """The writer of one outbound stream: waits for room in it, and moves a source into it.

    The handle of the exchange passes `on_room` and `on_stream_over` on to it.
    """

    __slots__ = ("_driver", "_stream", "_task", "_waiter")

    def __init__(self, driver: Driver, stream: Stream) -> None:
        self._driver = driver
        self._stream = stream
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    def spawn(self, tasks: Tasks, coroutine: Coroutine[object, object, None], name: str) -> None:
        """Run a coroutine that feeds this stream, as a task that is cancelled when the stream is over."""
        tasks.spawn(coroutine, name, self._on_start)

    async def room(self) -> int:
        """Wait until the stream takes more, and return how many bytes; 0 if it is over."""
        driver, stream = self._driver, self._stream
        while driver.is_open(stream):
            room = driver.room(stream)
            if room:
                return room
            if self._waiter is None:
                self._waiter = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._waiter,))
        return 0

    async def feed(self, source: Source, *, last: bool = True) -> None:
        """Send all of `source` as more of the message that is open, end the message (unless `last` is False), and close
        the source.

        Ends early when the exchange does. Raises what reading the source raises.
        """
        try:
            while room := await self.room():
                data = await source.read(min(room, READ_BYTES))
                if not data and not last:
                    return
                self._driver.feed(self._stream, data, last=not data)
                if not data:
                    return
        finally:
            source.close()

    def on_room(self) -> None:
        """The stream takes more."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def on_stream_over(self) -> None:
        """The stream takes no more: stop reading."""
        self.on_room()
        self.stop()

    def stop(self) -> None:
        """Cancel the task that was spawned to feed the stream."""
        task, self._task = self._task, None
        if task is not None:  # after its first step, so that it has its source to close
            task.get_loop().call_soon(task.cancel)

    def _on_start(self, task: asyncio.Task[None]) -> None:
        self._task = task
