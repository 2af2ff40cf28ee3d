"""Outgoing payloads that are read piece by piece, as the receiver makes room for them."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from typing import IO, Any, cast

from zmesh.failures import describe, is_a, must_propagate
from zmesh.threads import Threads

_ACCEPTED = (
    "bytes, str, a dict, list or number (sent as JSON), a path, a file, an (async) iterable of bytes, a Payload or None"
)


class Source(ABC):
    """An outgoing payload that is read piece by piece, on the loop's thread, by one reader."""

    __slots__ = ()

    @abstractmethod
    async def read(self, limit: int) -> bytes:
        """The next 1 to `limit` bytes as soon as there are some; b"" at the end.

        Raises what the file or iterator raises, and TypeError if it gives anything but bytes or text.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what zmesh itself opened, which a file or iterator of the program's is not."""


class PieceSource(Source):
    """A source whose pieces come in sizes of their own."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest: memoryview | None = None

    async def read(self, limit: int) -> bytes:
        """The next piece, or the next `limit` bytes of one that is longer."""
        rest = self._rest
        if rest is None:
            piece = await self._next(limit)
            if len(piece) <= limit:
                return piece
            rest = memoryview(piece)
        self._rest = rest[limit:] if len(rest) > limit else None
        return bytes(rest[:limit])

    def close(self) -> None:
        """Nothing: what is read belongs to the program."""

    @abstractmethod
    async def _next(self, limit: int) -> bytes:
        """One piece, best of `limit` bytes, but longer or shorter is fine; b"" at the end only."""


def source(payload: object) -> Source:
    """A source for a path, which is opened here and closed with it, or for a file or (async) iterable, which are not.

    Raises TypeError for anything else, and OSError if the path can't be opened.
    """
    if isinstance(payload, os.PathLike):
        file = open(payload, "rb", buffering=0)  # closed with the source
        return _FileSource(file, owned=file)
    if hasattr(payload, "__aiter__"):
        return AsyncSource(payload.__aiter__())
    if callable(getattr(payload, "read", None)):
        return _FileSource(cast("IO[Any]", payload))
    if hasattr(payload, "__iter__"):
        return _IteratorSource(payload.__iter__())
    raise TypeError(f"a payload can't be {type(payload).__name__}; send {_ACCEPTED}")


def _to_bytes(piece: object) -> bytes:
    if type(piece) is bytes:
        return piece
    if isinstance(piece, (bytes, bytearray, memoryview)):
        return bytes(piece)
    if isinstance(piece, str):
        return piece.encode()
    raise TypeError(f"a payload is made of bytes, but its source gave {type(piece).__name__}")


class ThreadSource(PieceSource):
    """A source whose pieces come from something that may block, so that it is read in a thread of its own."""

    __slots__ = ("_threads",)

    def __init__(self) -> None:
        super().__init__()
        self._threads = Threads(1, "zmesh-source")

    async def _next(self, limit: int) -> bytes:
        return await self._threads.call(lambda: self._pull(limit))

    @abstractmethod
    def _pull(self, limit: int) -> bytes:
        """What `_next` gives, and in a thread where it may block."""

    def close(self) -> None:
        """Let the thread end."""
        self._threads.close()

    def __del__(self) -> None:
        self._threads.close()


class _FileSource(ThreadSource):
    __slots__ = ("_owned", "_read")

    def __init__(self, file: IO[Any], owned: IO[bytes] | None = None) -> None:
        super().__init__()
        # `read` of a buffered pipe waits until the whole limit has come, `read1` gives what there is
        self._read = file.read1 if isinstance(file, io.BufferedIOBase) else file.read
        self._owned = owned

    def _pull(self, limit: int) -> bytes:
        return _to_bytes(self._read(limit))

    def close(self) -> None:
        owned, self._owned = self._owned, None
        if owned is not None:
            self._threads.run(owned.close)  # in line after the read that may be going on
        super().close()


class _IteratorSource(ThreadSource):
    __slots__ = ("_iterator",)

    def __init__(self, iterator: Iterator[object]) -> None:
        super().__init__()
        self._iterator = iterator

    def _pull(self, limit: int) -> bytes:
        for piece in self._iterator:
            if data := _to_bytes(piece):
                return data
        return b""


class AsyncSource(PieceSource):
    """A source whose pieces an async iterator gives, on the loop."""

    __slots__ = ("_iterator",)

    def __init__(self, iterator: AsyncIterator[object]) -> None:
        super().__init__()
        self._iterator = iterator

    async def _next(self, limit: int) -> bytes:
        try:
            async for piece in self._iterator:
                if data := _to_bytes(piece):
                    return data
        except BaseException as error:
            if is_a(error, Exception) or (must_propagate(error) and not is_a(error, SystemExit)):
                raise
            raise RuntimeError(describe(error)) from error  # it would end the loop or the task that reads here
        return b""
