"""The HTTP server for scrapes: threads of its own, few at a time, none for long.

Whoever scrapes more often than SCRAPES, beside more than MAX_SCRAPERS others, or reads for longer than SCRAPE_WITHIN is
hung up on and counted. So scrapers cost a node a bounded share of its time, whatever they do.
"""

from __future__ import annotations

import io
import logging
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TextIO, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from zmesh.core.limits import Rate, TokenBucket
from zmesh.runtime import EXHAUSTED, close_in_child

log = logging.getLogger(__name__)

MAX_SCRAPERS = 4
"""Connections that are served at a time."""
SCRAPES = Rate(10, 20)
"""Connections a second, and at once."""
SCRAPE_WITHIN = 5.0
"""Seconds that one may take."""
LOOK_EVERY = 0.5

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Handler(WSGIRequestHandler):
    """Serves one scrape, and logs nothing."""

    timeout = SCRAPE_WITHIN

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def get_stderr(self) -> TextIO:
        """A stream that drops the traceback of a scraper that has hung up."""
        return io.StringIO()


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], app: App, scrapes: Counter[str]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._open: dict[Any, float] = {}
        self._rate = TokenBucket(SCRAPES, time.monotonic())
        self._scrapes = scrapes
        self._ending = threading.Event()
        super().__init__(address, _Handler)
        close_in_child(self.socket)
        self.set_app(app)

    def server_bind(self) -> None:
        """Bind without looking up a name, which may take long."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection. Where nothing is left to do that with, it waits for a moment, and so does the thread,
        as the socket stays readable."""
        try:
            connection, where = super().get_request()
        except OSError as error:
            if error.errno in EXHAUSTED:
                self._scrapes["refused"] += 1
                self._ending.wait(LOOK_EVERY)
            raise
        close_in_child(connection)
        return connection, where

    def shutdown(self) -> None:
        """End `serve_forever`."""
        self._ending.set()
        super().shutdown()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether a connection is served."""
        now = time.monotonic()
        if len(self._open) >= MAX_SCRAPERS or not self._rate.has(now):
            self._scrapes["refused"] += 1
            return False
        self._rate.spend(1)
        self._open[request] = now
        return True

    def service_actions(self) -> None:
        """Hang up on those that take too long; called by the accepting thread."""
        now = time.monotonic()
        for connection, since in list(self._open.items()):
            if now - since > SCRAPE_WITHIN and self._open.pop(connection, None) is not None:
                self._scrapes["slow"] += 1
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:  # it has ended just now
                    pass

    def shutdown_request(self, request: Any) -> None:
        """A connection is over."""
        self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper has hung up, or sent no request in time."""
        self._scrapes["broken"] += 1
        log.debug("a scrape from %s failed", client_address, exc_info=True)


class ScrapeServer:
    """Serves `app` at an address. Raises OSError if that can't be bound."""

    def __init__(self, address: tuple[str, int], app: App, scrapes: Counter[str]) -> None:
        self._server = _Server(address, app, scrapes)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(LOOK_EVERY,), name="zmesh metrics", daemon=True
        )

    @property
    def url(self) -> str:
        """The URL of the metrics."""
        host, port = cast("tuple[str, int]", self._server.server_address[:2])
        return f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"

    def start(self) -> None:
        """Accept scrapes from now on."""
        self._thread.start()

    def close(self) -> None:
        """Accept none any more; those that are served end by themselves."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()
