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
    metadata = MappingProxyType({"name": "cat"})
    mesh.send(b"", "edge", "echo:echo", handle, content_type="image/png", metadata=metadata)
    async with mesh.stream("edge", "echo:echo", order, content_type="a/b", metadata={"a": "b"}) as replies:
        async for reply in replies:
            print(reply.metadata["name"], reply.payload.value())
    async for each in mesh.request_many(["edge"], "echo:echo", order, metadata=metadata, content_type=None):
        if each.payload is not None:
            print(each.payload.metadata["name"], each.payload.content_type, each.payload.value()["crates"])


def handle(message: zmesh.Message) -> None:
    """A handler of replies."""
    print(message.metadata["name"], message.payload.content_type, message.payload.value())


@zmesh.directive(name="image")
def crop(work: zmesh.Work) -> zmesh.Response:
    """A directive that replies with metadata."""
    text: str = work.payload.value()
    return zmesh.Response(text, content_type=work.payload.content_type, metadata=work.metadata)


@zmesh.directive(name="images")
async def crop_all(work: zmesh.Work) -> AsyncIterator[zmesh.Response | bytes | dict[str, int]]:
    """One that yields replies with metadata, and others."""
    yield zmesh.Response({"a": 1}, metadata={"name": work.metadata["name"]})
    yield b"bytes"
    yield {"a": 1}


def without_asyncio(mesh: zmesh.sync.Controller, payload: zmesh.PayloadLike) -> str:
    """The same without asyncio."""
    answer = mesh.request("edge", "echo:echo", payload, content_type="a/b", metadata={"name": "cat"})
    with mesh.stream("edge", "echo:echo", payload, metadata={"name": "cat"}) as replies:
        for reply in replies:
            print(reply.metadata["name"])
    for each in mesh.request_many(["edge"], "echo:echo", b"", metadata={"name": "cat"}, content_type="a/b"):
        print(each.error)
    try:
        mesh.send(order, "edge", "echo:echo")
    except ValueError as error:
        return str(error)
    return answer.text() if answer is not None else ""


order: Order = {"crates": 12}
