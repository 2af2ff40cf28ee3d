"""Records: the messages of which the two streams of a copy consist.

A record is one byte for its kind, the length of its body in four bytes (big-endian), and its body. The sender
of files announces what there is (ENTRY), at most WINDOW entries ahead of what it sends; the receiver answers each file
with WANT, and gets its content: CONTENT, any number of DATA and HOLE, and END with the digest of the whole file.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeAlias

import msgpack

from zmesh.errors import RemoteError
from zmesh.files.beneath import MAX_DEPTH
from zmesh.files.places import MAX_PATH

HEAD = struct.Struct(">BI")
DATA_BYTES = 1024 * 1024 - 4096
"""Bytes of a file in one record: with its head it fits into the largest chunk."""
MAX_BODY = 64 * 1024
"""Bytes of the body of any other record."""
WINDOW = 1024
"""Entries that may be announced before the first of them was sent."""
HOLE_BYTES = 256 * 1024 * 1024
"""Bytes of a hole in one record, all of which are hashed."""
MAX_NAME = 255
"""Bytes of the name of a file (NAME_MAX)."""
MAX_TEXT = 1000
"""Characters of an error."""

_INDEX = struct.Struct(">Q")
_SIGNED = struct.Struct(">Qq")


class EndedEarly(RemoteError):
    """A stream has ended before the copy has."""


class Kind(IntEnum):
    """The kind of a record; those from 32 on go from receiver to sender."""

    START = 1
    """The request of the client, as msgpack."""
    ENTRY = 2
    """A file, directory or link, as msgpack; they are numbered from 0."""
    CONTENT = 3
    """The number of the file whose content follows, and where in the file that begins."""
    DATA = 4
    HOLE = 5
    """So many zeros, eight bytes."""
    END = 6
    """The digest of the whole file, 16 bytes: XXH3 of 128 bits, as rsync has it."""
    ABORT = 7
    """The number of an entry that can't be sent, and the reason."""
    LEAVE = 8
    """The number of a directory all of whose content was sent."""
    FAULT = 9
    """Something that can't be read and is left out: the reason."""
    FINISH = 10
    """All was sent."""

    READY = 32
    """The destination is there; or, from the sender, the source."""
    WANT = 33
    """The number of a file, and from where on its content is wanted; -1: it is there already."""
    DONE = 34
    """The number of a file that is complete under its name."""
    FAILED = 35
    """The number of an entry that can't be written, and the reason."""
    AGAIN = 36
    """The number of a file whose digest differs from that of its resumed beginning: send it from the start."""
    FINISHED = 37
    """All was received."""
    GRANT = 38
    """A token with which another node may read this for the client, as long as the request lasts."""
    STATUS = 39
    """How far a copy between two other nodes is, as msgpack."""


Part: TypeAlias = "bytes | memoryview"


class Record(NamedTuple):
    """One record; the body of DATA is in the parts in which it came."""

    kind: int
    parts: list[Part]

    @property
    def body(self) -> bytes:
        """The body."""
        return bytes(self.parts[0]) if len(self.parts) == 1 else b"".join(self.parts)


def record(kind: Kind, body: bytes = b"") -> bytes:
    """The bytes of a record."""
    return HEAD.pack(kind, len(body)) + body


def numbered(kind: Kind, index: int, text: str = "") -> bytes:
    """A record about an entry."""
    return record(kind, _INDEX.pack(index) + text[:MAX_TEXT].encode(errors="backslashreplace"))


def positioned(kind: Kind, index: int, offset: int) -> bytes:
    """A record about an entry and an offset."""
    return record(kind, _SIGNED.pack(index, offset))


def number_of(body: bytes) -> tuple[int, str]:
    """The number of the entry that a record is about, and its text. Raises RemoteError."""
    if len(body) < _INDEX.size:
        raise RemoteError("a record has no number")
    return _INDEX.unpack_from(body)[0], body[_INDEX.size :].decode(errors="replace")


def position_of(body: bytes) -> tuple[int, int]:
    """The number of the entry that a record is about, and the offset. Raises RemoteError."""
    if len(body) != _SIGNED.size:
        raise RemoteError("a record has no number and offset")
    index, offset = _SIGNED.unpack(body)
    return index, offset


class Type(IntEnum):
    """The type of an entry."""

    FILE = 1
    DIRECTORY = 2
    LINK = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, directory or link.

    `names` are the components of its path from the source on, `mode` its permission bits, `mtime` its time in
    nanoseconds since 1970, `size` its bytes, and `target` that of a link.
    """

    type: Type
    names: tuple[bytes, ...]
    mode: int = 0
    mtime: int = 0
    size: int = 0
    target: bytes = b""

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.type == Type.DIRECTORY

    def packed(self) -> bytes:
        """Its record."""
        fields = (int(self.type), self.names, self.mode, self.mtime, self.size, self.target)
        return record(Kind.ENTRY, bytes(msgpack.packb(fields, use_bin_type=True)))

    @classmethod
    def of(cls, body: bytes) -> Entry:
        """The entry in a record. Raises RemoteError for anything that could be another path, or is out of range."""
        try:
            kind, names, mode, mtime, size, target = msgpack.unpackb(body, raw=False)
            entry = cls(Type(kind), tuple(names), mode, mtime, size, target)
        except (ValueError, TypeError, msgpack.UnpackException):
            raise RemoteError("a record is no entry") from None
        numbers = (mode, mtime, size)
        if (
            not all(isinstance(name, bytes) and _is_name(name) for name in entry.names)
            or len(entry.names) > MAX_DEPTH
            or not all(isinstance(each, int) and not isinstance(each, bool) for each in numbers)
            or not (0 <= mode <= 0o7777 and -(1 << 62) < mtime < 1 << 62 and 0 <= size < 1 << 62)
            or not isinstance(target, bytes)
            or len(target) > MAX_PATH
            or b"\0" in target
            or (entry.type == Type.LINK and not target)
        ):
            raise RemoteError("an entry has a name, number or target that no file has")
        return entry


def _is_name(name: bytes) -> bool:
    return 0 < len(name) <= MAX_NAME and name not in (b".", b"..") and b"/" not in name and b"\0" not in name


class RecordReader:
    """Reads records from the chunks of a payload, in the sizes in which they come, without copying DATA."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk: Part = b""
        self._at = 0

    async def next(self) -> Record | None:
        """The next record, None at the end. Raises RemoteError, also for a payload that ends within a record."""
        head = await self._head()
        if head is None:
            return None
        kind, length = HEAD.unpack(head)
        if length > (DATA_BYTES if kind == Kind.DATA else MAX_BODY):
            raise RemoteError(f"a record of {length} bytes is too long")
        parts: list[Part] = []
        while length:
            part = self._take(length)
            if part:
                parts.append(part)
                length -= len(part)
            elif not await self._more():
                raise EndedEarly("the payload ends within a record")
        return Record(kind, parts)

    async def _head(self) -> bytes | None:
        head = b""
        while len(head) < HEAD.size:
            part = self._take(HEAD.size - len(head))
            head += part
            if not part and not await self._more():
                if head:
                    raise EndedEarly("the payload ends within a record")
                return None
        return head

    def _take(self, most: int) -> Part:
        part = memoryview(self._chunk)[self._at : self._at + most]
        self._at += len(part)
        return part

    async def _more(self) -> bool:
        self._chunk, self._at = await anext(self._chunks, b""), 0
        return bool(self._chunk)
