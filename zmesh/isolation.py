"""Directives in processes of their own: what makes one, and what a node and such a process say to each other.

A function gets there by its name where it can be imported, else by value, as cloudpickle moves it. The two talk over a
socket in frames: the node sends the job and then its payload, the process sends replies and one ending. Neither reads
ahead of what it needs, so the socket's own buffer is all that lies between them, and a slow reader slows the writer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import socket
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from zmesh.config import ISOLATION
from zmesh.errors import MeshError

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
class Limits:
    """What a process may use. `None` is no limit. Raises ValueError for what can't be one."""

    max_memory_bytes: int | None = None
    max_cpu_seconds: int | None = None
    grace: float = 5.0

    def __post_init__(self) -> None:
        for name, (low, high) in ISOLATION.items():
            value = getattr(self, name)
            if value is None:
                continue
            kinds = (int, float) if name == "grace" else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                raise ValueError(f"{name} = {value!r} is not a number from {low:g} to {high:g}")


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a plugin's function is: the value of its entry point, and its attribute there (None: the thing itself)."""

    value: str
    attribute: str | None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Isolation:
    """That a directive is isolated: how its process gets the function, and the limits that the directive itself asks.

    `origin` is a Place, or the function pickled.
    """

    origin: Place | bytes
    asked: Mapping[str, int]

    def limits(self, directive: str, settings: Mapping[str, Mapping[str, Any]]) -> Limits:
        """What holds: the settings for this directive, else what it asks, else the settings for `*`."""
        return Limits(**{**settings.get("*", {}), **self.asked, **settings.get(directive, {})})


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


def asked(isolate: bool, max_memory_bytes: int | None, max_cpu_seconds: int | None) -> dict[str, int] | None:
    """The limits that a directive asks for; None if it is not isolated. Raises ValueError if they make no sense."""
    given = {"max_memory_bytes": max_memory_bytes, "max_cpu_seconds": max_cpu_seconds}
    limits = {name: value for name, value in given.items() if value is not None}
    Limits(**limits)
    if limits and not isolate:
        raise ValueError(f"{' and '.join(limits)} can't be held without isolate=True")
    return limits if isolate else None


def moved(function: Callable[..., object]) -> bytes:
    """The function as bytes that another process can load. Raises TypeError, with the reason, if that can't be done.

    What it refers to beside importable modules is copied as it is now.
    """
    import cloudpickle  # here: few programs isolate anything

    target = function
    while isinstance(target, functools.partial):
        target = target.func
    module = inspect.getmodule(target)
    by_value = module is not None and module.__name__ in sys.modules and not _importable(module)
    if by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(function))
    except Exception as error:  # each object may refuse in its own way
        raise TypeError(f"{function!r} can't be moved to a process of its own: {error}") from error
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)


def _importable(module: ModuleType) -> bool:
    """Whether an import by this module's name in a new process would find this module."""
    path: Sequence[str] | None = None
    found = None
    parts = module.__name__.split(".")
    for end in range(1, len(parts) + 1):
        found = _found(".".join(parts[:end]), path)
        if found is None:
            return False
        path = found.submodule_search_locations
    origin, file = getattr(found, "origin", None), getattr(module, "__file__", None)
    return origin is None or file is None or Path(origin).resolve() == Path(file).resolve()


def _found(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        if (found := finder.find_spec(name, path)) is not None:
            return found
    return None


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
