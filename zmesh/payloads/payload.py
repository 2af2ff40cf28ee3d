"""Payloads: what a program hands over to be sent, and what a message that came in carries.

Outgoing, `encode` turns whatever a program sends into bytes, or into a `Source` that is read piece by piece as the
receiver makes room. Incoming, a `Payload` reads like a file, whether it is complete in memory, was collected while it
arrived and spooled to disk when large (`buffered`), or is read while the rest is under way (`StreamedPayload`).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

from zmesh.payloads.content import BYTES, JSON, JSON_TYPES, TEXT, value_of
from zmesh.payloads.source import Source, ThreadSource, source_of
from zmesh.payloads.spool import Spool
from zmesh.runtime import ThreadPool, text_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

_NO_METADATA: Mapping[str, str] = MappingProxyType({})

CHUNK = 64 * 1024
"""Bytes that iteration over a payload gives at most at a time."""


class Readable(Protocol):
    """A file, or what is read like one."""

    def read(self, size: int, /) -> bytes | str:
        """The next bytes, or text; nothing at the end."""


PayloadLike: TypeAlias = (
    "Buffer | str | Mapping[Any, Any] | list[Any] | tuple[Any, ...] | float | os.PathLike[str] | os.PathLike[bytes] "
    "| Readable | Iterable[Buffer | str] | AsyncIterable[Buffer | str] | Payload | Source | None"
)
"""The types that can be sent as a payload; sending a set of text or an array of numbers, which fit them too, raises."""


def encode(payload: PayloadLike) -> bytes | Source:
    """The bytes to send, or a Source where there may be more than memory should hold.

    Text is UTF-8, always, also when a file of that name exists; a mapping, list, tuple, number or bool is JSON; None is
    empty; what has the bytes of a buffer is sent as it is. A path is opened here, and closed with the source. A file is
    read from where it stands, an iterator or iterable of bytes from its start, both in a thread of their own and
    neither closed. A Payload is sent whole, also after reads.

    Give standard input unbuffered, `open(0, "rb", buffering=0, closefd=False)`: Python aborts when a program ends
    while a thread waits in the buffered one.

    Raises TypeError for anything else, ValueError for what JSON or UTF-8 can't express, OSError if a path can't be
    opened.
    """
    if type(payload) is bytes:
        return payload
    if isinstance(payload, str):
        return payload.encode()
    if payload is None:
        return b""
    if isinstance(payload, JSON_TYPES):
        return _to_json(payload)
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return bytes(payload)
    if isinstance(payload, Payload):
        return payload._outgoing()
    if isinstance(payload, Source):
        return payload
    return source_of(payload)


def content_type_of(payload: PayloadLike) -> str:
    """The content type of what `encode` makes of a payload: JSON, TEXT, that of a Payload, or "" for bytes."""
    if type(payload) is bytes or payload is None:
        return ""
    if isinstance(payload, str):
        return TEXT
    if isinstance(payload, JSON_TYPES):
        return JSON
    return payload._content_type if isinstance(payload, Payload) else ""


def _to_json(value: Mapping[Any, Any] | list[Any] | tuple[Any, ...] | float) -> bytes:
    kind = type(value).__name__
    try:
        value = dict(value) if isinstance(value, Mapping) else value
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_to_dict).encode()
    except TypeError as error:
        raise TypeError(f"a {kind} is sent as JSON, but: {text_of(error)}") from None
    except RecursionError:
        raise ValueError(f"a {kind} is sent as JSON, but this one is nested too deeply") from None


def _to_dict(value: object) -> object:
    """Convert a mapping that is no dict, for JSON."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


class _SpoolSource(ThreadSource):
    __slots__ = ("_offset", "_payload")

    def __init__(self, payload: Payload) -> None:
        super().__init__()
        self._payload = payload  # keeps the file
        self._offset = 0

    def _pull(self, limit: int) -> bytes:
        data = self._payload._read_at(self._offset, limit)
        self._offset += len(data)
        return data


class Payload:
    """The payload of one message; it reads like a file opened for reading bytes.

    It is false when it is empty, `len` counts bytes, `async for` and `for` give chunks of up to 64 KiB. Large ones lie
    in a temporary file, without a name until `name` is asked for, which is gone when the payload is closed, collected
    as garbage, or the process ends. After `close`, reading raises ValueError. Not to be read from two threads at once.

    `value` gives it back as it was sent, by its `content_type`; `metadata` is that of the message, text to text.

    `read`, `readall`, `text`, `json`, `value` and `for` read such a file in the calling thread, which on the event loop
    holds up the node as long as the disk takes; `async for` reads it in a thread of its own.
    """

    __slots__ = ("__weakref__", "_content", "_content_type", "_position", "_spool", "_spool_dir", "metadata")

    def __init__(self, content: bytes = b"", *, spool_dir: str | None = None) -> None:
        self._content: bytes | None = content
        self._content_type = ""
        self.metadata: Mapping[str, str] = _NO_METADATA
        self._position = 0
        self._spool: Spool | None = None
        self._spool_dir = spool_dir

    def read(self, size: int | None = -1, /) -> bytes:
        """The next `size` bytes, fewer at the end only; all that is left if `size` is negative or None."""
        position = self._position
        if size is None or size < 0:
            size = max(0, len(self) - position)
        data = self._read_at(position, size)
        self._position = position + len(data)
        return data

    def read1(self, size: int | None = -1, /) -> bytes:
        """The next piece, `size` bytes and 64 KiB of it at most; b"" at the end."""
        return self.read(CHUNK if size is None or size < 0 else min(size, CHUNK))

    def readall(self) -> bytes:
        """All of it from the start, whatever was read before; the position stays."""
        content = self._content
        return content if content is not None else self._read_at(0, len(self))

    def text(self) -> str:
        """All of it as UTF-8 text. Raises UnicodeDecodeError, which is a ValueError."""
        return self.readall().decode()

    def json(self) -> Any:
        """All of it as the value that its JSON stands for. Raises ValueError if it is none, or nested too deeply."""
        try:
            return json.loads(self.readall())
        except RecursionError:
            raise ValueError("the JSON is nested too deeply") from None

    @property
    def content_type(self) -> str:
        """The content type that its sender gave, such as `application/json`; `application/octet-stream` without one.

        The text of another program: it may be anything of up to 128 characters.
        """
        return self._content_type or BYTES

    def describe(self, content_type: str, metadata: Mapping[str, str]) -> Self:
        """Set the content type and metadata of its message's header; returns the payload itself."""
        self._content_type = content_type
        self.metadata = metadata
        return self

    def value(self) -> Any:
        """All of it as it was sent: the value of JSON, text as str; bytes for any other content type.

        Raises InvalidPayload, a ValueError, if it is not what its content type says.
        """
        return value_of(self.readall(), self._content_type)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to `offset` bytes from the start (or the position, or the end, as `whence` says); the new position.

        Raises ValueError for a position before the start.
        """
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self)}.get(whence)
        if start is None or start + offset < 0:
            raise ValueError(f"can't seek to {offset} from {whence}")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """The position of the next read, in bytes from the start."""
        return self._position

    def readable(self) -> bool:
        """True (io.IOBase)."""
        return True

    @property
    def name(self) -> str:
        """The path of a file with this content, which is deleted with the payload. May write that file.

        Raises OSError if it can't be written.
        """
        if self._spool is None:
            content = self._read_at(0, len(self))
            self._spool = Spool(self._spool_dir)
            self._spool.write(content)
        return self._spool.path()

    def spooled(self) -> Spool | None:
        """The file that the content lies in; None if memory holds it."""
        return self._spool if self._content is None else None

    def close(self) -> None:
        """Drop the content and delete its temporary file; harmless when done twice."""
        self._content = None
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()

    def __len__(self) -> int:
        if self._content is not None:
            return len(self._content)
        return self._spool.size if self._spool is not None else 0

    def __bool__(self) -> bool:
        return len(self) > 0

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(CHUNK):
            yield chunk

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Chunks(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} bytes>"

    def _read_at(self, position: int, size: int) -> bytes:
        if self._content is not None:
            if position == 0 and size >= len(self._content):
                return self._content
            return self._content[position : position + size]
        if self._spool is None:
            raise ValueError("the payload is closed")
        return self._spool.read(position, size) if size else b""

    def _outgoing(self) -> bytes | Source:
        content = self._content
        if content is not None:
            return content
        self._read_at(0, 0)  # raises if it can't be read
        return _SpoolSource(self)


class _Chunks:
    """`async for chunk in payload` for one that is complete: lets the loop go on between chunks of a large one.

    One that lies in a file is read in a thread.
    """

    __slots__ = ("_payload", "_threads")

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        self._threads: ThreadPool | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        payload = self._payload
        if payload.spooled() is not None:
            chunk = await self._read()
        else:
            if payload.tell():
                await asyncio.sleep(0)
            chunk = payload.read(CHUNK)
        if chunk:
            return chunk
        self._close()
        raise StopAsyncIteration

    async def _read(self) -> bytes:
        if self._threads is None:
            self._threads = ThreadPool(1, "zmesh-payload")
        payload, position = self._payload, self._payload.tell()
        chunk = await self._threads.call(lambda: payload._read_at(position, CHUNK))
        payload._position = position + len(chunk)
        return chunk

    def _close(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.close()

    def __del__(self) -> None:
        self._close()
