"""The streams of a command at its client: stdin with what else goes to the server, and readers of stdout and stderr."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Self

from zmesh.remote.records import INPUT_WINDOW, Kind, record

STREAM_LIMIT = 256 * 1024
"""Bytes of stdout, and as many of stderr, that wait here for a reader; then the command waits."""
INPUT_PIECE = 64 * 1024


class StdinWriter:
    """Writes to the stdin of a command, as an asyncio.StreamWriter does."""

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send data; it is queued here until the command takes it. Ignored when the command has exited.

        Raises RuntimeError after `write_eof`.
        """
        self._outgoing.put(bytes(data))

    def writelines(self, pieces: Sequence[bytes]) -> None:
        """Send pieces of data."""
        self.write(b"".join(pieces))

    async def drain(self) -> None:
        """Wait until at most INPUT_PIECE bytes are queued here. Raises BrokenPipeError if the command has exited."""
        await self._outgoing.drained()
        if self._outgoing.closed:
            raise BrokenPipeError("the command has exited")

    def can_write_eof(self) -> bool:
        """True."""
        return True

    def write_eof(self) -> None:
        """End stdin, after what was written."""
        self._outgoing.end()

    def close(self) -> None:
        """End stdin, after what was written."""
        self._outgoing.end()

    def is_closing(self) -> bool:
        """Whether it was ended, or the command has exited."""
        return self._outgoing.ended or self._outgoing.closed

    async def wait_closed(self) -> None:
        """Wait until all that was written was sent."""
        await self._outgoing.drained(all_of_it=True)


class Outgoing:
    """The request's payload: the start, then input within the server's credit, and signals ahead of waiting input."""

    def __init__(self, begin: bytes) -> None:
        self.ended = False
        self.closed = False
        self._urgent: deque[bytes] = deque((begin,))
        self._input: deque[bytes] = deque()
        self._input_bytes = 0
        self._credit = INPUT_WINDOW
        self._end_sent = False
        self._more: asyncio.Future[None] | None = None
        self._drained: list[tuple[int, asyncio.Future[None]]] = []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while (data := self._take()) is None:
            if self.closed:
                raise StopAsyncIteration
            self._more = asyncio.get_running_loop().create_future()
            await self._more
        return data

    def urgent(self, data: bytes) -> None:
        """Send a record ahead of input that waits."""
        if not self.closed:
            self._urgent.append(data)
            self._wake()

    def put(self, data: bytes) -> None:
        """Send input. Raises RuntimeError after `end`."""
        if self.ended and data:
            raise RuntimeError("stdin was closed")
        if data and not self.closed:
            self._input.append(data)
            self._input_bytes += len(data)
            self._wake()

    def end(self) -> None:
        """Send the end of input, after all input."""
        self.ended = True
        self._wake()

    def add_credit(self, size: int) -> None:
        """Add to the credit: the command has taken `size` bytes of input."""
        self._credit += size
        self._wake()

    def close(self) -> None:
        """End the payload; what waits is dropped."""
        self.closed = True
        self._urgent.clear()
        self._input.clear()
        self._input_bytes = 0
        self._release()
        self._wake()

    async def drained(self, *, all_of_it: bool = False) -> None:
        """Wait until at most INPUT_PIECE bytes (or none) of the input wait here."""
        most = 0 if all_of_it else INPUT_PIECE
        if self._input_bytes > most and not self.closed:
            future = asyncio.get_running_loop().create_future()
            self._drained.append((most, future))
            await future

    def _take(self) -> bytes | None:
        if self._urgent:
            return self._urgent.popleft()
        size = min(self._credit, INPUT_PIECE)
        if self._input and size > 0:
            data = self._input.popleft()
            if len(data) > size:
                self._input.appendleft(data[size:])
                data = data[:size]
            self._credit -= len(data)
            self._input_bytes -= len(data)
            self._release()
            return record(Kind.INPUT, data)
        if self.ended and not self._input and not self._end_sent:
            self._end_sent = True
            return record(Kind.INPUT_END)
        return None

    def _release(self) -> None:
        for most, future in self._drained:
            if self._input_bytes <= most and not future.done():
                future.set_result(None)
        self._drained = [(most, future) for most, future in self._drained if not future.done()]

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)


class _Flow(asyncio.ReadTransport):
    """The transport that a StreamReader pauses when its buffer is full."""

    def __init__(self) -> None:
        super().__init__()
        self._going = asyncio.Event()
        self._going.set()

    def pause_reading(self) -> None:
        self._going.clear()

    def resume_reading(self) -> None:
        self._going.set()

    async def wait(self) -> None:
        await self._going.wait()


class OutputReader(asyncio.StreamReader):
    """One output stream of a command."""

    def __init__(self) -> None:
        super().__init__(limit=STREAM_LIMIT // 2)
        self._flow = _Flow()
        self.set_transport(self._flow)

    async def take(self, data: bytes) -> None:
        """Hand data to the reader; waits while the buffer is full."""
        self.feed_data(data)
        await self._flow.wait()

    def end(self, kind: object, error: BaseException | None, at: object) -> None:
        """End it; as the exit of a context, whose error, if it has one, is raised to the reader too."""
        if isinstance(error, Exception):
            self.set_exception(error)
        else:
            self.feed_eof()
