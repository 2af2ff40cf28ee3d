"""What a node and a process of its own say to each other, over a socket, in frames.

The node sends the job and then its payload, the process sends replies and one ending. Neither reads ahead of what it
needs, so the socket's own buffer is all that lies between them, and a slow reader slows the writer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import struct
from collections.abc import Mapping
from enum import IntEnum

from zmesh.errors import MeshError
from zmesh.serving.isolation.limits import Place

PIECE = 64 * 1024
"""Bytes of a payload that go into one frame at most."""

MAX_FRAME = 256 * 1024
"""Bytes that a frame of a process may have: a piece, or the text and the traceback of an error."""

_HEAD = struct.Struct(">BI")


class Frame(IntEnum):
    """What a frame says."""

    JOB = 1
    """The first from the node: a pickled Job."""

    PIECE = 2
    """More of the payload, or of the reply that is open."""

    END = 3
    """The payload, or the reply that is open, is complete."""

    REPLY = 4
    """A whole reply."""

    OPEN = 5
    """A reply begins whose content follows in pieces."""

    DONE = 6
    """The function has ended."""

    FAILED = 7
    """The function raised, or the payload will not be complete: a msgpack map."""


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What a process needs to know to begin. `size` is of a payload that lies in a file, else None."""

    origin: Place | bytes
    message_id: str
    directive: str
    sender: str
    header: Mapping[str, object]
    config: Mapping[str, object]
    lifetime: float | None
    stream: bool
    size: int | None
    folder: str
    name: str
    search: list[str]


def frame(kind: Frame, body: bytes = b"") -> bytes:
    """A frame as it goes over the socket."""
    return _HEAD.pack(kind, len(body)) + body


class Channel:
    """The socket as a loop uses it: frames out, which wait for room, and frames in, one after the other.

    One task may send and another receive. `limit` bounds the frames that come in, in bytes.
    """

    __slots__ = ("_buffer", "_limit", "_socket")

    def __init__(self, connection: socket.socket, limit: int) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._limit = limit
        self._buffer = bytearray()

    async def send(self, kind: Frame, body: bytes = b"") -> None:
        """Send one frame; returns when the socket has taken it. Raises OSError when the other end is gone."""
        await asyncio.get_running_loop().sock_sendall(self._socket, frame(kind, body))

    async def receive(self) -> tuple[int, bytes] | None:
        """The next frame; None when the other end is gone. Raises MeshError for one that is too long."""
        buffer = self._buffer
        while True:
            if len(buffer) >= _HEAD.size:
                kind, size = _HEAD.unpack_from(buffer)
                if size > self._limit:
                    raise MeshError(f"a frame of {size} bytes, where {self._limit} are the most")
                if len(buffer) >= _HEAD.size + size:
                    body = bytes(memoryview(buffer)[_HEAD.size : _HEAD.size + size])
                    del buffer[: _HEAD.size + size]
                    return kind, body
            try:
                data = await asyncio.get_running_loop().sock_recv(self._socket, PIECE)
            except ConnectionError:
                data = b""
            if not data:
                return None
            buffer += data


class Line:
    """The socket as a plain function uses it: every call waits until it is done.

    A signal that raises in the middle of a frame tears it, and nothing can be sent or received from then on.
    """

    __slots__ = ("_torn", "socket")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._torn = False

    def send(self, kind: Frame, body: bytes = b"") -> None:
        """Send one frame. Raises OSError if the node is gone."""
        self._begin()
        self.socket.sendall(frame(kind, body))
        self._torn = False

    def receive(self) -> tuple[int, bytes]:
        """The next frame. Raises OSError if the node is gone."""
        self._begin()
        kind, size = _HEAD.unpack(self._exactly(_HEAD.size))
        body = self._exactly(size)
        self._torn = False
        return kind, body

    def _begin(self) -> None:
        if self._torn:
            raise BrokenPipeError("the connection to the node was torn by a signal")
        self._torn = True

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = self.socket.recv(size)
            if not part:
                raise ConnectionResetError("the node is gone")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
