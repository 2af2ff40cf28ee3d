"""Outgoing payloads that are read piece by piece, as the receiver makes room for them."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, ItemsView, Iterable, Iterator, KeysView, Set, Sized, ValuesView
from typing import IO, Any, cast

from zmesh.runtime import ThreadPool, describe, is_a, must_propagate

_ACCEPTED = (
    "bytes, str, a mapping, list or number (sent as JSON), a path, a file, an (async) iterable of bytes, a Payload or "
    "None"
)
_BYTE_FORMATS = frozenset("Bbc")
_ADVICE = (
    ("model_dump", "its model_dump() is sent as JSON"),
    ("tobytes", "send its tobytes() for the bytes, or its tolist() as JSON"),
    ("tolist", "its tolist() is sent as JSON"),
    ("to_list", "its to_list() is sent as JSON"),
    ("to_pylist", "its to_pylist() is sent as JSON"),
    ("to_dict", "its to_dict() is sent as JSON"),
    ("to_dicts", "its to_dicts() is sent as JSON"),
    ("_asdict", "its _asdict() is sent as JSON"),
    ("__dataclass_fields__", "its dataclasses.asdict() is sent as JSON"),
)
"""Attributes of containers that are not sequences of pieces, and what to send instead; the first that an object has."""


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
        """Close what zmesh itself has opened; files and iterators of the program stay open."""


class ChunkSource(Source):
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


def source_of(payload: object) -> bytes | Source:
    """A source for a path, which is opened here and closed with it, or for a file or (async) iterable, which are not.

    An object that exports a buffer of bytes gives these bytes. Raises TypeError for anything else, and OSError if the
    path can't be opened.
    """
    if isinstance(payload, os.PathLike):
        file = open(payload, "rb", buffering=0)  # closed with the source
        return _FileSource(file, owned=file)
    view = _bytes_of(payload)
    if view is not None:
        # a mapped file may be larger than memory
        return _BufferSource(view) if hasattr(payload, "read") else bytes(view)
    if isinstance(payload, type):
        raise TypeError(f"a payload can't be the class {payload.__name__}; send {_ACCEPTED}")
    if hasattr(payload, "__aiter__"):
        return AsyncSource(payload.__aiter__())
    if callable(getattr(payload, "read", None)):
        return _FileSource(cast("IO[Any]", payload))
    if isinstance(payload, Iterator):
        return _IteratorSource(payload)
    advice = next((advice for attribute, advice in _ADVICE if hasattr(payload, attribute)), None)
    if advice is None and isinstance(payload, Iterable):
        advice = _check_pieces(payload)
        if advice is None:
            return _IteratorSource(iter(payload))
    raise TypeError(f"a payload can't be {type(payload).__name__}; {advice or f'send {_ACCEPTED}'}")


def _bytes_of(payload: object) -> memoryview | None:
    """The bytes that the object exports by the buffer protocol; None if it has none, or a buffer of something else."""
    try:
        view = memoryview(payload)  # type: ignore[arg-type]  # that is the question
    except (TypeError, BufferError, ValueError):
        return None
    return view if view.format.lstrip("@=<>!") in _BYTE_FORMATS and view.ndim == 1 else None


def _check_pieces(payload: Iterable[object]) -> str | None:
    """Advice instead of sending a container piece by piece; None if its pieces are bytes, as those of a stream are.

    What has no length is taken for a stream: looking at its first piece might wait for it.
    """
    if isinstance(payload, (Set, KeysView, ValuesView, ItemsView, range)):
        return "send list(...) of it as JSON"
    if not isinstance(payload, Sized):
        return None
    if hasattr(payload, "keys"):
        return "send dict(...) of it as JSON"
    if all(isinstance(piece, (bytes, bytearray, memoryview)) for piece in payload):
        return None
    return "send list(...) of it as JSON; only pieces that are bytes are sent one after the other"


def piece_of(piece: object) -> bytes:
    """The bytes of one piece of a payload; of text its UTF-8. Raises TypeError for anything else."""
    if type(piece) is bytes:
        return piece
    if isinstance(piece, str):
        return piece.encode()
    view = _bytes_of(piece)
    if view is None:
        raise TypeError(f"a payload is made of bytes, but its source gave {type(piece).__name__}")
    return bytes(view)


class ThreadSource(ChunkSource):
    """A source whose pieces come from something that may block, so that it is read in a thread of its own."""

    __slots__ = ("_threads",)

    def __init__(self) -> None:
        super().__init__()
        self._threads = ThreadPool(1, "zmesh-source")

    async def _next(self, limit: int) -> bytes:
        return await self._threads.call(lambda: self._pull(limit))

    @abstractmethod
    def _pull(self, limit: int) -> bytes:
        """The result of `_next`; called in a thread, where it may block."""

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
        return piece_of(self._read(limit))

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
            if data := piece_of(piece):
                return data
        return b""


class _BufferSource(ThreadSource):
    """A buffer that may lie on a disk, as that of a mapped file does."""

    __slots__ = ("_at", "_view")

    def __init__(self, view: memoryview) -> None:
        super().__init__()
        self._view: memoryview | None = view
        self._at = 0

    def _pull(self, limit: int) -> bytes:
        if self._view is None:
            return b""
        data = bytes(self._view[self._at : self._at + limit])
        self._at += len(data)
        return data

    def close(self) -> None:
        view, self._view = self._view, None
        if view is not None:
            self._threads.run(view.release)  # in line after the read that may be going on
        super().close()


class AsyncSource(ChunkSource):
    """A source whose pieces an async iterator gives, on the loop."""

    __slots__ = ("_iterator",)

    def __init__(self, iterator: AsyncIterator[object]) -> None:
        super().__init__()
        self._iterator = iterator

    async def _next(self, limit: int) -> bytes:
        try:
            async for piece in self._iterator:
                if data := piece_of(piece):
                    return data
        except BaseException as error:
            if is_a(error, Exception) or (must_propagate(error) and not is_a(error, SystemExit)):
                raise
            raise RuntimeError(describe(error)) from error  # it would end the loop or the task that reads here
        return b""
