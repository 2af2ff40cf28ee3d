"""Framing between a node and a worker process, over a Unix socket: kind (1 byte), length (4 bytes), body.

The node sends the job and then its payload; the worker sends replies and one DONE or FAILED. Neither reads ahead, so
the socket's buffer is the only buffer between them and a slow reader slows the writer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import struct
from collections.abc import Mapping
from enum import IntEnum

from zmesh.errors import MeshError
from zmesh.serving.isolation.limits import ImportPath

CHUNK_BYTES = 64 * 1024
"""Most bytes of a payload in one frame."""

MAX_FRAME = 256 * 1024
"""Most bytes in the body of a frame from a worker: a chunk, or the text and traceback of an error."""

_HEAD = struct.Struct(">BI")


class Frame(IntEnum):
    """The kind of a frame."""

    JOB = 1
    """The first frame from the node: a pickled Job."""

    CHUNK = 2
    """More of the payload, or of the reply that is open."""

    END = 3
    """The payload, or the reply that is open, is complete."""

    REPLY = 4
    """A whole reply."""

    OPEN = 5
    """A reply begins; its content follows in CHUNK frames."""

    DONE = 6
    """The function has returned."""

    DESCRIPTION = 8
    """The content type and the metadata of the reply that follows: a msgpack array; without it there are none."""

    FAILED = 7
    """The function raised, or the payload was aborted: a msgpack map."""


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """A request for a worker to run.

    `size` is the length in bytes of a payload in a file, else None; `lifetime` the seconds to its deadline; `folder`
    and `name` say where the worker may make a temporary file.
    """

    origin: ImportPath | bytes
    message_id: str
    directive: str
    sender: str
    header: Mapping[str, object]
    content_type: str
    metadata: Mapping[str, str]
    config: Mapping[str, object]
    lifetime: float | None
    stream: bool
    size: int | None
    folder: str
    name: str
    sys_path: list[str]


def frame(kind: Frame, body: bytes = b"") -> bytes:
    """Encode a frame."""
    return _HEAD.pack(kind, len(body)) + body


class Channel:
    """The non-blocking end of the socket, for an event loop.

    One task may send while another receives. `limit` is the most bytes in the body of a received frame.
    """

    __slots__ = ("_buffer", "_limit", "_socket")

    def __init__(self, connection: socket.socket, limit: int) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._limit = limit
        self._buffer = bytearray()

    async def send(self, kind: Frame, body: bytes = b"") -> None:
        """Send one frame, waiting for room in the socket's buffer. Raises OSError if the other end is closed."""
        await asyncio.get_running_loop().sock_sendall(self._socket, frame(kind, body))

    async def receive(self) -> tuple[int, bytes] | None:
        """Receive the next frame: its kind and body; None if the other end is closed.

        Raises MeshError for one over the limit.
        """
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
                data = await asyncio.get_running_loop().sock_recv(self._socket, CHUNK_BYTES)
            except ConnectionError:
                data = b""
            if not data:
                return None
            buffer += data


class BlockingChannel:
    """The blocking end of the socket, for plain functions.

    A signal handler that raises in the middle of a frame desynchronises the stream: every later call raises.
    """

    __slots__ = ("_broken", "socket")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._broken = False

    def send(self, kind: Frame, body: bytes = b"") -> None:
        """Send one frame. Raises OSError if the node has closed the socket."""
        self._begin()
        self.socket.sendall(frame(kind, body))
        self._broken = False

    def receive(self) -> tuple[int, bytes]:
        """Receive the next frame: its kind and body. Raises OSError if the node has closed the socket."""
        self._begin()
        kind, size = _HEAD.unpack(self._exactly(_HEAD.size))
        body = self._exactly(size)
        self._broken = False
        return kind, body

    def _begin(self) -> None:
        if self._broken:
            raise BrokenPipeError("a signal interrupted a frame to or from the node")
        self._broken = True

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = self.socket.recv(size)
            if not part:
                raise ConnectionResetError("the node has closed the connection")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
