"""The stream of updates to pages: server-sent events, RATE a second at most, to MAX_CLIENTS pages.

An update is made once for all pages. Each page has a queue of QUEUED updates; one that is slower, or has stopped
reading, is dropped and counted, and gets everything anew when it connects again.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import TYPE_CHECKING

from zmesh.dashboard.model import MeshModel, time_of_last

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

UPDATE_EVERY = 0.25
MAX_CLIENTS = 16
QUEUED = 40
"""Updates that may wait for one page: those of 10 s."""
HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
_BUSY = f"{MAX_CLIENTS} pages are open already; close one\n".encode()


class _Client:
    """One page: the updates that it has not got yet."""

    __slots__ = ("dropped", "has_more", "queue")

    def __init__(self, first: bytes) -> None:
        self.queue: deque[bytes] = deque([first])
        self.has_more = asyncio.Event()
        self.has_more.set()
        self.dropped = asyncio.Event()

    def put(self, update: bytes) -> bool:
        """Queue an update; False if there is no room."""
        if len(self.queue) >= QUEUED:
            self.dropped.set()
            return False
        self.queue.append(update)
        self.has_more.set()
        return True

    async def take(self) -> bytes:
        """All that waits."""
        await self.has_more.wait()
        self.has_more.clear()
        waiting = b"".join(self.queue)
        self.queue.clear()
        return waiting


class Feed:
    """All streams of updates; an ASGI application that is one such stream."""

    def __init__(self, model: MeshModel) -> None:
        self.opened = 0
        self.dropped = 0
        """Pages that were too slow."""
        self.refused = 0
        """Pages that were too many."""
        self._model = model
        self._clients: set[_Client] = set()
        self._sent = (model.versions.current, 0, 0.0)

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def counters(self) -> dict[str, int]:
        """How many streams are open, and how many were dropped and refused."""
        return {
            "open": len(self._clients), "opened": self.opened, "dropped": self.dropped, "refused": self.refused,
        }  # fmt: skip

    async def run(self) -> None:
        """Send updates until cancelled."""
        while True:
            await asyncio.sleep(UPDATE_EVERY)
            self.update()

    def update(self) -> None:
        """Send what has changed since the last update."""
        model = self._model
        if model.versions.current == self._sent[0]:
            return
        version = model.versions.current
        if self._clients:
            version, update = self._written(*self._sent)
            for client in list(self._clients):
                if not client.put(update):
                    self._clients.discard(client)
                    self.dropped += 1
        self._sent = (version, model.event_count, time_of_last(model.lines))

    def _written(self, version: int, events: int, lines: float) -> tuple[int, bytes]:
        """The changes since a version, and the version that they lead to."""
        written = []
        for update in self._model.updates(version, events, lines):
            update["feed"] = self.counters
            version = update["version"]
            written.append(f"data: {json.dumps(update, separators=(',', ':'))}\n\n".encode())
        return version, b"".join(written)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One stream, until the page is closed or dropped."""
        if len(self._clients) >= MAX_CLIENTS:
            self.refused += 1
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"10")]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": _BUSY})
            return
        self.opened += 1
        self.update()  # so that the next update begins where this page does
        client = _Client(self._written(0, 0, 0.0)[1])
        self._clients.add(client)
        ends = [
            asyncio.ensure_future(each) for each in (_pump(client, send), client.dropped.wait(), _disconnected(receive))
        ]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._clients.discard(client)
            for each in ends:
                each.cancel()
            await asyncio.gather(*ends, return_exceptions=True)


async def _pump(client: _Client, send: Send) -> None:
    """Send what waits, as fast as the page reads."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    while True:
        await send({"type": "http.response.body", "body": await client.take(), "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
