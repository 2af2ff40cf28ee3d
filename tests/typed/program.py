"""A program of somebody who has `mypy --strict` look at it; the environment `type` does, and nobody runs it."""

import array
import collections
import io
import mmap
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypedDict

import zmesh
import zmesh.sync


class Order(TypedDict):
    """What is sent as JSON."""

    crates: int


class Reader:
    """What is read like a file."""

    def read(self, size: int = -1, /) -> bytes:
        """Nothing."""
        return b""


def pieces() -> Iterator[bytes]:
    """Pieces of bytes."""
    yield b"bytes"


def lines() -> Iterator[str]:
    """Pieces of text."""
    yield "text"


async def views() -> AsyncIterator[memoryview]:
    """Pieces of a buffer."""
    yield memoryview(b"view")


async def main(mesh: zmesh.Controller, order: Order, mapped: mmap.mmap, table: Mapping[int, str]) -> None:
    """Everything that the page says can be a payload."""
    payloads: list[zmesh.PayloadLike] = [
        *(b"bytes", bytearray(b"array"), memoryview(b"view"), mapped, array.array("B"), "text", None),
        *(order, {"a": 1}, {1: 2}, table, collections.UserDict(a=1), MappingProxyType({"a": 1})),
        *([1, "two"], (1, 2), 7, 2.5, True),
        *(Path("file"), io.BytesIO(), io.StringIO(), Reader()),
        *(pieces(), lines(), views(), [b"json"], collections.deque([b"piece"])),
    ]
    for payload in payloads:
        mesh.send(payload, "edge", "echo:echo")
        answer = await mesh.request("edge", "echo:echo", payload, timeout=5)
        if answer is not None:
            mesh.send(answer, "edge", "echo:echo")


def without_asyncio(mesh: zmesh.sync.Controller, payload: zmesh.PayloadLike) -> str:
    """The same without asyncio."""
    answer = mesh.request("edge", "echo:echo", payload)
    try:
        mesh.send(order, "edge", "echo:echo")
    except ValueError as error:
        return str(error)
    return answer.text() if answer is not None else ""


order: Order = {"crates": 12}
