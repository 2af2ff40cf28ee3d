"""Payloads that are read while the rest arrives."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Protocol

from zmesh.payloads.pieces import PayloadOfPieces
from zmesh.payloads.source import AsyncSource, Source
from zmesh.runtime import RELEASE_SLOT_AFTER, released_slot


class Sink(Protocol):
    """Takes the chunks of a payload as they arrive, in place of a reader."""

    def feed(self, data: bytes) -> int:
        """Take data; returns how many of its bytes it keeps, to be reported later to what `divert` has returned."""

    def feed_eof(self) -> None:
        """The payload is complete."""


class StreamedPayload(PayloadOfPieces):
    """A payload that is read while the rest is still under way.

    `async for chunk in payload` on the loop, and `for chunk in payload` or `read` in another thread, wait for what
    comes and end with it; a read on the loop that would have to wait raises BlockingIOError. It never goes to disk:
    what is unread stays in memory, and `consumed`, called on the loop's thread with a number of bytes, reports what is
    read or dropped, every byte once, so that the sender's window bounds them. `closed` is called when the payload is
    closed before its end. Both it and its writer's side (`feed`, `finish`, `fail`) belong to the loop's thread.
    """

    __slots__ = (
        "_arrived",
        "_chunks",
        "_closed",
        "_consumed",
        "_error",
        "_loop",
        "_sink",
        "_thread",
        "_waiter",
    )

    def __init__(self, consumed: Callable[[int], None] | None = None, closed: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._content = None
        self._consumed = consumed
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._chunks: deque[bytes] = deque()
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._arrived = threading.Condition()
        self._sink: Sink | None = None

    def divert(self, sink: Sink) -> Callable[[int], None]:
        """Hand all chunks, those that have arrived and later ones, to a sink on the loop in place of a reader.

        Returns what the sink calls with the bytes that it has kept, once they are done with.
        """
        self._sink = sink
        while self._chunks:
            chunk = self._chunks.popleft()
            self._give_back(len(chunk) - sink.feed(chunk))
        if self._ended:
            sink.feed_eof()
        return self._give_back

    @property
    def complete(self) -> bool:
        """Whether all of it has come, read or not."""
        return self._ended

    def feed(self, chunk: bytes) -> int:
        """Hand the next chunk to the reader; after `finish`, `fail` or `close` it is dropped.

        Returns how many of its bytes `consumed` will report: all, or those that a sink has kept.
        """
        if self._ended or self._error is not None:
            self._give_back(len(chunk))
        elif self._sink is not None:
            self._size += len(chunk)
            return self._sink.feed(chunk)
        elif chunk:
            with self._arrived:
                self._size += len(chunk)
                self._chunks.append(chunk)
                self._arrived.notify_all()
            self._wake()
        return len(chunk)

    def finish(self) -> None:
        """Mark the payload complete; the reader ends after the last chunk."""
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()
        self._wake()
        if self._sink is not None and self._error is None:
            self._sink.feed_eof()

    def fail(self, error: BaseException) -> None:
        """End the payload with an error, which a waiting reader and each later read raises; drop unread chunks."""
        with self._arrived:
            if self._error is not None:
                return
            self._error = error
            unread = sum(map(len, self._chunks))
            self._chunks.clear()
            self._arrived.notify_all()
        self._give_back(unread)
        self._wake()

    def close(self) -> None:
        """Drop unread and later chunks; a reader that waits gets ValueError."""
        closed, self._closed = self._closed, None
        if closed is not None and not self._ended and self._error is None:
            self._in_loop(closed)
        self.fail(ValueError("the payload is closed"))
        self._rest = b""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next chunk as soon as it is there; for one task at a time."""
        if self._rest:
            chunk, self._rest = self._rest, b""
        else:
            while not self._chunks and not self._ended and self._error is None:
                if self._waiter is not None and not self._waiter.done():
                    raise RuntimeError("another task is reading this payload")
                self._waiter = self._loop.create_future()
                await self._waiter
            chunk = self._take()
        if not chunk:
            raise StopAsyncIteration
        self._position += len(chunk)
        return chunk

    def _outgoing(self) -> bytes | Source:
        return AsyncSource(self)

    def _take(self) -> bytes:
        """The next chunk, b"" at the end; waits for it, except on the loop's thread."""
        with self._arrived:
            while not self._chunks and not self._ended and self._error is None:
                if threading.get_ident() == self._thread:
                    raise BlockingIOError("nothing to read yet; on the loop, use `async for chunk in payload`")
                if not self._arrived.wait(RELEASE_SLOT_AFTER):
                    with released_slot():
                        self._arrived.wait()
            if self._error is not None:
                raise self._error
            if not self._chunks:
                return b""
            chunk = self._chunks.popleft()
        self._give_back(len(chunk))
        return chunk

    def _give_back(self, size_bytes: int) -> None:
        if self._consumed is None or not size_bytes:
            return
        self._in_loop(self._consumed, size_bytes)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._in_loop(_release, waiter)

    def _in_loop(self, function: Callable[..., None], *arguments: object) -> None:
        if threading.get_ident() == self._thread:
            function(*arguments)
        else:
            with suppress(RuntimeError):  # the loop is closed, and the sender's window with it
                self._loop.call_soon_threadsafe(function, *arguments)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
