"""Who listens in on a mesh: on the network, and at forwarders."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import pytest

import zmesh
from zmesh.core.message import LinkId
from zmesh.identity.tickets import with_key
from zmesh.runtime import Driver


class Wiretap:
    """A TCP connection's middle that passes all bytes on and keeps a copy."""

    def __init__(self, target: str) -> None:
        self._host, self._port = urlsplit(target).hostname, urlsplit(target).port
        self.heard = bytearray()
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Wiretap":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, self._port)
        self._writers += [writer, back]
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.get_running_loop().create_task(self._pass(source, sink))
            self._tasks.add(task)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                self.heard += data
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[bytes]]]:
    """What each node's transport has given it, by node id: the parts of each message."""
    found: dict[str, list[list[bytes]]] = {}
    before = Driver.on_frames

    def on_frames(self: Driver, link: LinkId, frames: list[bytes]) -> None:
        found.setdefault(self.engine.node, []).append([bytes(part) for part in frames])
        before(self, link, frames)

    monkeypatch.setattr(Driver, "on_frames", on_frames)
    return found


def keyed(controller: zmesh.Controller, url: str = "") -> str:
    """The URL to dial a node at, with its key; or another one that leads there."""
    identity: Any = controller.config.identity
    return with_key(url or controller.listening[0], identity.curve.public)
