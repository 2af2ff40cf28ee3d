"""The client's side of one node: requests from sending to their final reply."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from zmesh.core.message import Address, MessageId, RequestHeader, Stream
from zmesh.errors import Cancelled, MeshError
from zmesh.payloads import PayloadStorage, Source, StreamFeeder
from zmesh.requests.admission import Admission
from zmesh.requests.exchange import Exchange, WithHandler
from zmesh.runtime import Driver, Tasks, describe, must_propagate

if TYPE_CHECKING:
    from zmesh.observe import RequestObserver


class Requests:
    """The requests of one node. The engine delivers replies to an Exchange through its handle, so no table maps them.

    What is kept is the set of open exchanges, since draining waits for those that are expected, and closing ends all.
    """

    def __init__(
        self, node_id: str, driver: Driver, tasks: Tasks, storage: PayloadStorage, max_waiting_bytes: int
    ) -> None:
        self.node_id = node_id
        self.driver = driver
        self.tasks = tasks
        self.storage = storage
        self.admission = Admission(node_id, driver.engine, max_waiting_bytes)
        self.observers: list[RequestObserver] = []
        """Observe each request of this node, from its sending to its end."""
        self._open: set[Exchange] = set()
        self._drained: asyncio.Future[None] | None = None
        self.at_close: set[Callable[[], None]] = set()
        """Called once when the node closes, before its requests are ended."""

    def __len__(self) -> int:
        """How many requests have not ended."""
        return len(self._open)

    def start(
        self,
        exchange: Exchange,
        directive: str,
        payload: bytes | Source,
        timeout: float | None,
        *,
        awaited: bool = False,
    ) -> None:
        """Start an exchange from any thread; `awaited`: the caller waits for replies, in the node's loop.

        `timeout` is in seconds. Raises Closed and Overloaded, as `send` does, and RuntimeError if `awaited` in another
        loop; a Source that is not sent is closed.
        """
        admission = self.admission
        try:
            if awaited:
                admission.check_begun()
                admission.check_loop()
            if admission.loop is not None and admission.thread not in (0, threading.get_ident()):
                self.post(admission.loop, exchange, directive, payload, timeout)
            else:
                self.send(exchange, directive, payload, timeout)
        except (MeshError, RuntimeError) as error:
            if isinstance(error, MeshError):
                error.message_id = exchange.message_id
            if isinstance(payload, Source):
                payload.close()
            raise

    def send(self, exchange: Exchange, directive: str, payload: bytes | Source, timeout: float | None) -> None:
        """Start an exchange. `timeout` in seconds. Raises Closed, and Overloaded if too much is waiting already."""
        self.admission.check()
        self._begin(exchange, directive, payload, timeout)

    def post(
        self,
        loop: asyncio.AbstractEventLoop,
        exchange: Exchange,
        directive: str,
        payload: bytes | Source,
        timeout: float | None,
    ) -> None:
        """Do what `send` does from another thread than that of the node's loop. Raises the same."""
        size = self.admission.reserve(len(payload) if isinstance(payload, bytes) else 0)
        try:
            loop.call_soon_threadsafe(self._on_posted, exchange, directive, payload, timeout, size)
        except RuntimeError:
            raise self.admission.closed() from None

    def cancel(self, message_id: MessageId, reset_code: int = 0) -> None:
        """Cancel a request, or reset it with a code above 0. Harmless if it is over."""
        self.driver.cancel(message_id, reset_code)

    def is_lost(self, message_id: MessageId) -> bool:
        """Whether no route leads to the recipient of this request at the moment."""
        return self.driver.engine.is_lost(message_id)

    def obstacle(self, message_id: MessageId) -> str:
        """The obstacle that holds this request back, for the text of an error; empty if none is known."""
        return self.driver.engine.obstacle(message_id, time.monotonic())

    def done(self, exchange: Exchange) -> None:
        """An exchange has had its final reply, or its handler has returned."""
        if exchange.ended and not exchange.expected:
            self._open.discard(exchange)
            if self._drained is not None:
                self.end_drain()

    async def drain(self) -> None:
        """Wait until all requests have arrived at their servers and every expected reply has come.

        Requests that last until they are closed are closed, and their replies are not waited for.
        """
        for exchange in list(self._open):
            if exchange.lasting:
                exchange.on_drain()
        while not self._is_drained():
            if self._drained is None or self._drained.done():
                self._drained = asyncio.get_running_loop().create_future()
                self.driver.on_idle = self.end_drain
            await asyncio.shield(self._drained)
        self.driver.on_idle = None

    def close(self) -> None:
        """Cancel the requests, and end them at once."""
        self._run_at_close()
        for exchange in list(self._open):
            if exchange.expected:
                self.driver.cancel(exchange.id)
            exchange.abandon(Cancelled.code, self._closed_before(exchange))

    def close_now(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Cancel the requests, and deliver nothing more, as `forget` does."""
        self._run_at_close()
        ours = [exchange.id for exchange in self._open if exchange.expected]
        self.forget(loop)
        for message_id in ours:
            self.driver.cancel(message_id)

    def forget(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Deliver nothing more, and call no handler: the program is being ended, which may strike amid anything.

        Requests that tasks wait for end as Cancelled in the next turn of `loop`, if that is given and not closed.
        """
        for exchange in self._open:
            if exchange.expected and not isinstance(exchange, WithHandler) and loop is not None:
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(exchange.abandon, Cancelled.code, self._closed_before(exchange))
        self._open.clear()
        self.driver.muted = True

    # -- inside --------------------------------------------------------------------------------------------------

    def _on_posted(
        self, exchange: Exchange, directive: str, payload: bytes | Source, timeout: float | None, size: int
    ) -> None:
        self.admission.release(size)
        if self.admission.shut:
            exchange.abandon(Cancelled.code, str(self.admission.closed()))
            if isinstance(payload, Source):
                payload.close()
        else:
            self._begin(exchange, directive, payload, timeout)

    def _begin(self, exchange: Exchange, directive: str, payload: bytes | Source, timeout: float | None) -> None:
        driver, id, writer = self.driver, exchange.id, exchange.writer
        whole = isinstance(payload, bytes) and writer is None
        if self.observers:
            exchange.endings = [each.sending(exchange, directive) for each in self.observers]
        effects = driver.engine.send(
            id,
            Address(exchange.recipient),
            RequestHeader(directive, time.time(), timeout, exchange.detached, exchange.content_type, exchange.metadata),
            payload if isinstance(payload, bytes) else b"",
            time.monotonic(),
            last=whole,
            timeout=timeout,
            route_timeout=exchange.route_timeout,
            handle=exchange,
        )
        self._open.add(exchange)
        if isinstance(payload, bytes):
            driver.perform(effects)
            if writer is not None:
                writer.begin()
            return
        feeder = exchange.feeder = StreamFeeder(driver, Stream(id, True))
        driver.perform(effects)
        feeder.spawn(self.tasks, self._feed(exchange, feeder, payload), f"zmesh payload {exchange.message_id}")

    async def _feed(self, exchange: Exchange, feeder: StreamFeeder, source: Source) -> None:
        try:
            await feeder.feed(source, last=exchange.writer is None)
            if exchange.writer is not None:
                exchange.writer.begin()
        except BaseException as error:  # whatever the program's own file or iterator raises
            if must_propagate(error):
                raise
            text = f"the payload for {exchange.recipient!r} could not be read: {describe(error)}"
            exchange.fail(Cancelled.code, text)
            self.cancel(exchange.id)

    def _run_at_close(self) -> None:
        while self.at_close:
            self.at_close.pop()()

    def _closed_before(self, exchange: Exchange) -> str:
        return f"node {self.node_id!r} was closed before the final reply of {exchange.recipient!r} came"

    def _is_drained(self) -> bool:
        if self.driver.closed:
            return True
        return not self.driver.engine.is_handing_over and not any(
            exchange.expected and not exchange.lasting for exchange in self._open
        )

    def end_drain(self) -> None:
        """Let `drain` return if there is nothing left to wait for, or the node is closed."""
        if self._drained is not None and not self._drained.done() and self._is_drained():
            self._drained.set_result(None)
