"""Metrics of one node, served or written: its state is read on its loop, and made text in other threads."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from zmesh.config import placed
from zmesh.errors import AddressError, ConfigError
from zmesh.metrics.meter import RequestMeter
from zmesh.metrics.settings import MetricsSettings, read_settings
from zmesh.operate import NodeReader
from zmesh.runtime import ThreadPool

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from zmesh.config import Config
    from zmesh.metrics.families import Reading
    from zmesh.metrics.server import ScrapeServer
    from zmesh.metrics.textfile import Textfile
    from zmesh.observe import LinkHistory
    from zmesh.operate import Host

log = logging.getLogger(__name__)

READ_WITHIN = 4.0
"""Seconds that a scrape waits for the loop of the node."""
FRESH = 0.2
"""Seconds for which a reading is used again, so that many scrapers cost the node no more than one."""


def checked_settings(config: Config) -> MetricsSettings:
    """The table `[metrics]`. Raises ConfigError if it can't be used, and if prometheus_client is not installed."""
    assert not isinstance(config.metrics, str)  # which Config has made a table
    try:
        settings = read_settings(config.metrics, insecure=config.insecure)
    except ConfigError as error:
        raise ConfigError(placed(str(error), config.origins().get("metrics"), config.file)) from None
    try:
        import prometheus_client  # noqa: F401  # here: it takes 30 ms, and few nodes have it
    except ImportError:
        raise ConfigError("metrics need prometheus_client: pip install 'zmesh-mq[metrics]'") from None
    return settings


class Exporter:
    """Serves or writes the metrics of one node, as its settings say.

    Raises ConfigError for a table `[metrics]` that can't be used, and if prometheus_client is not installed.
    """

    def __init__(self, host: Host, history: LinkHistory) -> None:
        self._settings = checked_settings(host.config)
        self._host = host
        self._reader = NodeReader(host, history)
        self.meter = RequestMeter()
        self.scrapes: Counter[str] = Counter(ok=0, refused=0, slow=0, broken=0, unread=0, unwritten=0)
        self._lock = threading.Lock()
        self._reading: Reading | None = None
        self._read_at = 0.0
        self._server: ScrapeServer | None = None
        self._file: Textfile | None = None
        host.requests.observers.append(self.meter)
        host.serving.observers.append(self.meter)

    @property
    def url(self) -> str | None:
        """The URL at which the metrics are served; None if they are not."""
        return self._server.url if self._server is not None else None

    async def start(self) -> None:
        """Serve or write metrics from now on.

        Raises AddressError if the address can't be bound, and ConfigError if the file can't be written.
        """
        from prometheus_client import CollectorRegistry, make_wsgi_app, write_to_textfile

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        settings = self._settings
        if settings.address is not None:
            from zmesh.metrics.server import ScrapeServer

            try:
                self._server = ScrapeServer(settings.address, self._answering(make_wsgi_app(registry)), self.scrapes)
            except OSError as error:
                where = f"{settings.address[0]}:{settings.address[1]}"
                raise AddressError(f"can't serve metrics at {where}: {error.strerror}; take another port") from None
            self._server.start()
            log.info("metrics are at %s", self._server.url)
        if settings.textfile is not None:
            from zmesh.metrics.textfile import Textfile

            def write(path: str) -> None:
                write_to_textfile(path, registry)
                self.scrapes["ok"] += 1

            file = Textfile(settings.textfile, settings.interval, write, self.scrapes)
            try:
                await _in_thread(file.start)
            except OSError as error:
                await self.close()
                raise ConfigError(f"can't write metrics to {settings.textfile}: {error.strerror}") from None
            self._file = file

    async def close(self) -> None:
        """End serving and writing. Harmless when done twice."""
        try:
            await _in_thread(self.close_now)
        except RuntimeError:  # no thread can be started
            self.close_now()

    def close_now(self) -> None:
        """As `close`, but blocks until the server has ended."""
        if self._server is not None:
            self._server.close()
        if self._file is not None:
            self._file.close()

    def collect(self) -> Iterator[Metric]:
        """The families of this moment, from any thread. Raises TimeoutError after READ_WITHIN in a blocked loop."""
        from zmesh.metrics.families import families_of

        return families_of(self._read())

    def _answering(self, app: Callable[..., Iterable[bytes]]) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
        """The app, with an answer also where the loop does not run."""

        def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            try:
                body = app(environ, start_response)
            except (TimeoutError, RuntimeError):  # the loop is blocked, or closed
                self.scrapes["unread"] += 1
                start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
                return [b"the event loop of this node is blocked\n"]
            self.scrapes["ok"] += 1
            return body

        return answer

    def _read(self) -> Reading:
        loop = self._host.loop
        assert loop is not None
        if asyncio._get_running_loop() is loop:
            return self._now()
        with self._lock:
            if self._reading is None or time.monotonic() - self._read_at > FRESH:
                waiter: Future[Reading] = Future()
                loop.call_soon_threadsafe(self._hand_over, waiter)
                self._reading = waiter.result(READ_WITHIN)
                self._read_at = time.monotonic()
            return self._reading

    def _hand_over(self, waiter: Future[Reading]) -> None:
        try:
            waiter.set_result(self._now())
        except (OSError, RuntimeError) as error:  # the process has no file descriptor left to read its own state
            waiter.set_exception(error)

    def _now(self) -> Reading:
        from zmesh.metrics.families import Reading

        host, engine = self._host, self._host.engine
        identity = host.identity
        trusted = identity.trust.authorities if identity is not None else ()
        return Reading(
            self._reader.status(),
            self.meter,
            engine.queued_bytes,
            engine.waiting_streams,
            engine.stats()["requests_received"],
            {each.public.hex()[:8]: float(each.not_after) for each in trusted},
            self.scrapes,
        )


async def _in_thread(job: Callable[[], None]) -> None:
    """Do what waits for a disk, or for the server's thread."""
    threads = ThreadPool(1, "zmesh-metrics")
    try:
        await threads.call(job)
    finally:
        threads.close()
