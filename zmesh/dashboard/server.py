"""The server of the dashboard: an HTTP server on loopback, and the task that polls the mesh meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from zmesh.dashboard.feed import Feed
from zmesh.dashboard.guard import TOKEN_BYTES, Guard
from zmesh.dashboard.model import MeshModel
from zmesh.dashboard.poller import Poller
from zmesh.dashboard.source import Source
from zmesh.runtime import Acceptor

try:
    import uvicorn

    from zmesh.dashboard.web import Pages
except ModuleNotFoundError as error:
    raise ImportError(f"the dashboard needs {error.name}: pip install 'zmesh-mq[web]'", name=error.name) from None

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
STOPPED_AFTER = 20
"""Seconds after which the kernel gives up a connection whose other end takes nothing."""
MAX_CONNECTIONS = 64
CLOSE_WITHIN = 1


class _Server(uvicorn.Server):
    """A server that leaves signals to the program around it, and accepts its connections by an Acceptor."""

    _acceptor: Acceptor | None = None
    _is_exhausted = False
    exhausted = 0
    """How often there was nothing left to accept a connection with."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections from now on."""
        await super().startup(sockets=[])
        self._acceptor = Acceptor(sockets or [])
        self._acceptor.serve(self._connect, self._on_exhausted)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept none any more, and end those that are open."""
        if self._acceptor is not None:
            self._acceptor.close()
        await super().shutdown(sockets=[])

    def _connect(self) -> asyncio.Protocol:
        """Serve an accepted connection, as uvicorn does at a server of asyncio."""
        self._is_exhausted = False
        protocol: type[asyncio.Protocol] = self.config.http_protocol_class
        return protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[call-arg]

    def _on_exhausted(self, error: OSError) -> None:
        """There is nothing left to accept a connection with; it waits."""
        self.exhausted += 1
        if not self._is_exhausted:
            self._is_exhausted = True
            reason = os.strerror(error.errno or 0).lower()
            log.warning("the dashboard accepts no connections for now: %s; those that come wait", reason)


class Dashboard:
    """Serves the dashboard on loopback while it is open, as an asynchronous context manager.

    `source` is a Controller, or what answers as one. `port` 0 takes a free one. Raises OSError for a port that is
    taken.
    """

    def __init__(self, source: Source, *, port: int = 0) -> None:
        self.model = MeshModel()
        self.feed = Feed(self.model)
        self.poller = Poller(source, self.model, lambda: len(self.feed) > 0)
        self._pages = Pages(source, self.model, self.poller, self.feed)
        self._token = secrets.token_urlsafe(TOKEN_BYTES)
        self.app = Guard(self._pages.application(), self._token)
        """The application, for a test or another server."""
        self._port = port
        self._stack = contextlib.AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: _Server | None = None

    @property
    def token(self) -> str:
        """The token that each request has to carry."""
        return self._token

    @property
    def exhausted(self) -> int:
        """How often there was no descriptor or memory left to accept a connection with."""
        return self._server.exhausted if self._server is not None else 0

    @property
    def url(self) -> str:
        """The URL of the page, with the token; the port is known once it is open."""
        return f"http://{HOST}:{self._port}/?token={self._token}"

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            listener = stack.enter_context(_listener(self._port))
            self._port = listener.getsockname()[1]
            server = self._server = _Server(
                uvicorn.Config(
                    self.app, log_config=None, access_log=False, lifespan="off", ws="none", server_header=False,
                    limit_concurrency=MAX_CONNECTIONS, timeout_graceful_shutdown=CLOSE_WITHIN,
                )
            )  # fmt: skip
            stack.push_async_callback(self._pages.queries.close)
            self._tasks = [
                asyncio.create_task(each)
                for each in (server.serve(sockets=[listener]), self.feed.run(), self.poller.run())
            ]
            stack.push_async_callback(self._close, server)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def wait(self) -> None:
        """Wait until one of its tasks fails, and raise that; else for ever."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def _close(self, server: uvicorn.Server) -> None:
        serving, *others = self._tasks
        server.should_exit = True
        for task in others:
            task.cancel()
        await asyncio.gather(serving, *others, return_exceptions=True)


def _listener(port: int) -> socket.socket:
    """A socket on loopback. Raises OSError."""
    listener = socket.create_server((HOST, port))
    listener.setblocking(False)
    if sys.platform == "linux":
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STOPPED_AFTER * 1000)
    return listener
