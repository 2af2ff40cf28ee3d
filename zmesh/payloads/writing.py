"""The writing end of a stream whose payload is written as it comes to be: a request, or one reply to it.

Small writes are coalesced without a timer: the first one after a pause goes out at once, those that follow in the same
turn of the event loop go out together at its end, and those for which there is no room as soon as there is. Nothing
waits for an acknowledgement, as Nagle's algorithm (RFC 896) would.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from zmesh.core.message import Stream
from zmesh.payloads.payload import CHUNK
from zmesh.runtime import Driver


class OutboundWriter:
    """Writes one outbound stream. `begin` is called once the payload that the request was given has been sent.

    `ended` is set by `end`, `over` when the stream takes no more: the exchange is over, or the other end has sent
    STOP_SENDING. `moved` is called when some of what waited has been handed over, and when the stream is over.
    """

    __slots__ = (
        "_begun",
        "_blocked",
        "_driver",
        "_loop",
        "_pending",
        "_size",
        "_stream",
        "_turn",
        "_waiter",
        "ended",
        "moved",
        "over",
    )

    def __init__(self, driver: Driver, stream: Stream, moved: Callable[[], None] | None = None) -> None:
        self._driver = driver
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._pending: deque[bytes | memoryview] = deque()
        self._size = 0
        self._begun = False
        self._blocked = True
        self._turn = False
        """Whether something was sent in this turn of the loop, so that what follows waits for its end."""
        self._waiter: asyncio.Future[None] | None = None
        self.moved = moved
        self.ended = False
        self.over = False

    def begin(self) -> None:
        """Feed the stream from now on."""
        self._begun = True
        self._flush()

    async def room(self) -> None:
        """Wait until all that was written before has been handed over, or the stream is over."""
        while self._blocked and not self.over:
            if self._waiter is None:
                self._waiter = self._loop.create_future()
            await asyncio.wait((self._waiter,))

    @property
    def pending_bytes(self) -> int:
        """Bytes that were written and wait for room."""
        return self._size

    def write(self, data: bytes) -> None:
        """Append bytes to the stream; ones for which there is no room wait in memory (`pending_bytes`)."""
        if not data:
            return
        self._pending.append(data)
        self._size += len(data)
        if not self._turn:
            self._turn = True
            self._loop.call_soon(self._on_turn)
            self._flush()
        elif self._size >= CHUNK:
            self._flush()

    def end(self) -> None:
        """End the message with what was written."""
        self.ended = True
        self._flush()

    def on_room(self) -> None:
        """The stream takes more."""
        if self._begun:
            self._flush()

    def on_stream_over(self) -> None:
        """The stream takes no more."""
        self.over = True
        self._pending.clear()
        self._size = 0
        self._wake()

    def _on_turn(self) -> None:
        self._turn = False
        if self._size and not self._blocked:
            self._turn = True
            self._loop.call_soon(self._on_turn)
            self._flush()

    def _flush(self) -> None:
        driver, stream = self._driver, self._stream
        if not self._begun or self.over:
            return
        while self._size or self.ended:
            room = driver.room(stream)
            if not room:  # a Pull or a StreamOver will come
                self._blocked = True
                return
            data = self._take(room)
            is_last = self.ended and not self._size
            if is_last:
                self.over = True
            driver.feed(stream, data, last=is_last)
            if is_last:
                break
        self._blocked = False
        self._wake()

    def _take(self, most: int) -> bytes:
        """The next bytes, `most` of them."""
        pending = self._pending
        if len(pending) == 1 and self._size <= most:
            self._size = 0
            return bytes(pending.popleft())
        parts: list[bytes | memoryview] = []
        while pending and most:
            part = pending.popleft()
            if len(part) > most:
                pending.appendleft(memoryview(part)[most:])
                part = memoryview(part)[:most]
            parts.append(part)
            most -= len(part)
            self._size -= len(part)
        return b"".join(parts)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if self.moved is not None:
            self.moved()
