"""Records: the messages of which the two streams of a command consist.

A record is one byte for its kind, the length of its body in four bytes (big-endian), and its body. In the payload of
the request records follow each other without regard to chunks; each reply is one or more whole records.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncGenerator, AsyncIterable, Collection, Iterator, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import msgpack

from zmesh.errors import RemoteError, did_you_mean

HEAD = struct.Struct(">BI")
MAX_BODY = 4 * 1024 * 1024
"""Bytes that the body of a record may have; a command line and its environment have to fit (ARG_MAX is 2 MiB)."""


INPUT_WINDOW = 1024 * 1024
"""Bytes of INPUT that may be sent before the command has taken them; so signals never wait behind its stdin."""


class Kind(IntEnum):
    """The kind of a record; those from 16 on go from server to client."""

    START = 1
    """The command, as msgpack."""
    INPUT = 2
    """Bytes for stdin."""
    INPUT_END = 3
    """The end of stdin."""
    SIGNAL = 4
    """A signal, by number, in one byte."""
    RESIZE = 5
    """The new size of the terminal: rows and columns, two bytes each."""

    STARTED = 16
    """The command runs: its process id, four bytes."""
    STDOUT = 17
    STDERR = 18
    EXIT = 19
    """The command has exited and all its output was sent: exit code, or minus a signal, four bytes, signed."""
    NOT_STARTED = 20
    """The command could not be started: 126 or 127 as a shell would exit with, one byte, then the reason as text."""
    EXPIRED = 21
    """As EXIT, of a command that was stopped because its time was over."""
    CREDIT = 22
    """So many more bytes of INPUT may be sent, four bytes; INPUT_WINDOW of them may be from the start."""


class Record(NamedTuple):
    """One record."""

    kind: int
    body: bytes


def record(kind: Kind, body: bytes = b"") -> bytes:
    """The bytes of a record."""
    return HEAD.pack(kind, len(body)) + body


def number(value: int) -> bytes:
    """A body that is one signed number of four bytes."""
    return value.to_bytes(4, "big", signed=True)


def number_of(body: bytes) -> int:
    """The number in a body of four bytes. Raises RemoteError."""
    if len(body) != 4:
        raise RemoteError(f"a record with a number has {len(body)} bytes instead of 4")
    return int.from_bytes(body, "big", signed=True)


def size_of_terminal(body: bytes) -> tuple[int, int]:
    """The rows and columns in the body of RESIZE. Raises RemoteError."""
    if len(body) != 4:
        raise RemoteError(f"the size of a terminal has {len(body)} bytes instead of 4")
    return int.from_bytes(body[:2], "big"), int.from_bytes(body[2:], "big")


def terminal_size(rows: int, columns: int) -> bytes:
    """The body of RESIZE."""
    return min(rows, 65535).to_bytes(2, "big") + min(columns, 65535).to_bytes(2, "big")


class Decoder:
    """Records from bytes that come in pieces of any size."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Record]:
        """The records that are complete. Raises RemoteError for one that is too long."""
        data = self._rest + data if self._rest else data
        at, size = 0, len(data)
        while size - at >= HEAD.size:
            kind, length = HEAD.unpack_from(data, at)
            if length > MAX_BODY:
                raise RemoteError(f"a record of {length} bytes is longer than {MAX_BODY}")
            if size - at - HEAD.size < length:
                break
            at += HEAD.size
            yield Record(kind, data[at : at + length])
            at += length
        self._rest = data[at:]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left of a record that has not come to its end."""
        return not self._rest


async def records_of(chunks: AsyncIterable[bytes]) -> AsyncGenerator[Record, None]:
    """The records in a payload that is read while it arrives. Raises RemoteError if one is cut off."""
    decoder = Decoder()
    async for chunk in chunks:
        for each in decoder.feed(chunk):
            yield each
    if not decoder.is_empty:
        raise RemoteError("the payload ends within a record")


def pack(value: Mapping[str, Any]) -> bytes:
    """A mapping as the body of a record."""
    return bytes(msgpack.packb(value, use_bin_type=True))


def unpack(body: bytes) -> dict[str, Any]:
    """The mapping in the body of a record. Raises RemoteError."""
    try:
        value = msgpack.unpackb(body, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise RemoteError(f"a record is not msgpack: {error}") from None
    if not isinstance(value, dict):
        raise RemoteError("a record holds no table")
    return value


def check_keys(asked: Mapping[str, object], known: Collection[str], directive: str) -> None:
    """Raises RemoteError for a key that the directive does not know: what it asks for would be left out in silence."""
    for key in asked:
        if key not in known:
            hint = did_you_mean(str(key), known) or f"; it takes {', '.join(known)}"
            raise RemoteError(f"{directive} takes no {key!r}{hint}")
