"""Client-side state of one exchange: reassembles replies, delivers them in order, and applies flow control.

Credit for more is released as soon as the program takes a reply, except for the one at the front of the queue: that is
collected (and spooled to disk when large) as it arrives, since it must be whole before it can be taken.
"""

from __future__ import annotations

import inspect
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

from zmesh.core.effects import Deliver
from zmesh.core.message import NO_METADATA, Eof, Message, MessageId, ReplyHeader, Stream, reply_id
from zmesh.errors import ExchangeError, MeshError, RemoteError, exchange_error
from zmesh.payloads import BufferedPayload, Payload, StreamedPayload
from zmesh.runtime import describe, log_exception, must_propagate, text_of

if TYPE_CHECKING:
    from zmesh.observe import Ended
    from zmesh.payloads import OutboundWriter, StreamFeeder
    from zmesh.requests.requests import Requests

log = logging.getLogger(__name__)

ResponseHandler = Callable[[Message], object]


class Reply(Message):
    """A reply; with the final one, how the exchange ended. `opening` is the header that came with it, if any."""

    __slots__ = ("_exchange", "_opening", "_serial", "final")
    payload: Payload

    def __init__(
        self, exchange: Exchange, opening: ReplyHeader | None, serial: int, payload: Payload, final: Eof | None
    ) -> None:
        self._header = None
        self._exchange = exchange
        self._opening = opening
        self._serial = serial
        self.payload = payload
        self.final = final

    @property
    def header(self) -> dict[str, object]:
        """The metadata of the payload, built at first use."""
        if self._header is None:
            self._header = self._exchange._describe(self._opening, self._serial, self.final)
        return self._header


class Exchange(ABC):
    """One request of this node, from sending to the final reply, and the handle of its exchange in the engine.

    Subclasses say who takes the replies. `detached`: the client does not wait for its end, so that its work goes on
    when this node is closed, or dies. `route_timeout`: seconds that it may be without a route to the recipient; None:
    those of the node. `content_type` ("" for bytes) and `metadata` are sent with the request.
    """

    detached = False
    lasting = False
    """Whether it lasts until the program closes it, so that draining does not wait for its end."""
    writer: OutboundWriter | None = None
    """The writer of the rest of the request, if it was opened for writing."""

    __slots__ = (
        "_arriving",
        "_behind",
        "_discards",
        "_ended_at",
        "_eof",
        "_failed",
        "_final_taken",
        "_header",
        "_held",
        "_queue",
        "_requests",
        "_serial",
        "content_type",
        "ended",
        "endings",
        "feeder",
        "hops",
        "id",
        "metadata",
        "recipient",
        "route_timeout",
    )

    def __init__(self, requests: Requests, id: MessageId, recipient: str) -> None:
        self._requests = requests
        self.id = id
        self.recipient = recipient
        self.route_timeout: float | None = None
        self.content_type = ""
        self.metadata = NO_METADATA
        self.ended = False
        self.endings: list[Ended] | None = None
        """The callbacks of observers, for its end."""
        self.hops = 0
        self.feeder: StreamFeeder | None = None
        """The sender of the request payload, if it is read from a source."""
        self._ended_at = 0.0
        self._eof: Eof | None = None
        self._final_taken = False
        self._failed: Eof | None = None
        self._discards = False
        self._queue: deque[Reply] = deque()
        self._held = 0
        """Credit of the replies in the queue, in bytes."""
        self._arriving: BufferedPayload | StreamedPayload | None = None
        self._behind: deque[Deliver] | None = None
        """Chunks that came after a reply that is being written to disk; None if there is no such reply."""
        self._header: ReplyHeader | None = None
        self._serial = 0

    @property
    def message_id(self) -> str:
        """The message id, 32 hex digits."""
        return self.id.hex()

    @property
    def final(self) -> Reply | None:
        """The last reply, whose header says how the request ended; None until then.

        It is made when it is asked for: one that is kept here would refer to this object, and both would stay until the
        garbage collector finds them.
        """
        if self._eof is None:
            return None
        return Reply(self, None, self._serial + 1, Payload(b""), self._eof)

    @property
    def expected(self) -> bool:
        """Whether draining and closing the node wait for the end of this exchange."""
        return not self.ended

    @property
    def is_lost(self) -> bool:
        """Whether no route leads to the recipient at the moment."""
        return self._requests.is_lost(self.id)

    @property
    def obstacle(self) -> str:
        """The obstacle that holds it back, for the text of an error; empty if none is known."""
        return self._requests.obstacle(self.id)

    # -- from the engine (its Handle) ----------------------------------------------------------------------------

    def on_chunk(self, chunk: Deliver) -> None:
        """The next chunk of the replies."""
        behind = self._behind
        if behind is not None:
            behind.append(chunk)
            return
        _, _, header, body, last, eof, credit, self.hops, _ = chunk[:]  # a plain tuple, which is unpacked at once
        if isinstance(header, ReplyHeader):
            self._header = header
        if self._failed is None and not self._discards:
            if last and self._arriving is None:
                self._queue.append(self._reply(Payload(body)))
            elif self._header is not None and (body or last):
                credit -= self._collect(chunk)
        if eof is not None:
            if self._behind is None:
                self._end(eof)
                return
            self._behind.append(chunk._replace(header=None, body=b"", last=False, credit=0))
        if self._queue:
            self._wake()
        if credit:
            self._release(credit)

    def on_room(self) -> None:
        """The request stream has send credit again."""
        if self.feeder is not None:
            self.feeder.on_room()

    def on_stream_over(self) -> None:
        """The request stream is closed for sending."""
        if self.feeder is not None:
            self.feeder.on_stream_over()

    def on_drain(self) -> None:  # noqa: B027
        """Called when the program is about to end, where `lasting`: end the request."""

    def on_abort(self, reason: str, reset_code: int) -> None:  # noqa: B027
        """Does nothing: only servers receive an Abort."""

    def on_failure(self, error: BaseException) -> None:
        """Called when `on_chunk` has raised: cancel the work, and end with RemoteError's code."""
        self._stop()
        self.abandon(RemoteError.code, f"node {self._requests.node_id!r} failed to take it in: {describe(error)}")

    # -- the end -------------------------------------------------------------------------------------------------

    def fail(self, reason: str, text: str) -> None:
        """Record the error that the exchange ends with, in place of the outcome in the final reply."""
        self._failed = self._failed or Eof(1, reason, text)

    def abandon(self, reason: str, text: str) -> None:
        """End the exchange at once, because the node closes."""
        if not self.ended:
            self._behind = None
            self._end(Eof(1, reason, text))

    def take(self) -> Reply | None:
        """The next reply, or None; its credit is released. The final one is given once."""
        if not self._queue:
            if self._final_taken:
                return None
            final = self.final
            self._final_taken = final is not None
            return final
        reply = self._queue.popleft()
        if self._held and not self._queue:
            self._release_held()
        return reply

    def discard(self) -> None:
        """Drop queued and later replies, so that they do not block the final one."""
        self._discards = True
        self._drop_arriving(ValueError("the request was cancelled"))
        for reply in self._queue:
            reply.payload.close()
        self._queue.clear()
        self._release_held()
        self._go_on()

    # -- inside --------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Cancel the work."""
        self._requests.cancel(self.id)

    def _collect(self, chunk: Deliver) -> int:
        """Add a chunk to a reply of several chunks; returns the bytes whose credit the reader will release."""
        arriving = self._arriving
        if arriving is None:
            arriving = self._arriving = self._requests.storage.buffered(self._release, self._refuse)
        try:
            later = arriving.feed(chunk.body)
        except (MeshError, OSError) as error:
            self._refuse(error)
            return 0
        if chunk.last:
            cast("BufferedPayload", arriving).finish(self._collected)
            if self._arriving is not None:  # what comes after it waits until it is written
                self._behind = deque()
        return later

    def _collected(self) -> None:
        """Called when a reply is complete and stored in memory or on disk."""
        arriving, self._arriving = self._arriving, None
        if arriving is not None:
            self._queue.append(self._reply(arriving))
        if self._behind is not None:
            self._wake()
            self._go_on()

    def _go_on(self) -> None:
        """Process the chunks that arrived while a reply was being written to disk."""
        behind, self._behind = self._behind, None
        for chunk in behind or ():
            self.on_chunk(chunk)

    def _refuse(self, error: Exception) -> None:
        """End the exchange, because a reply can't be stored."""
        self.fail("overloaded", f"a reply of {self.recipient!r} could not be kept: {text_of(error)}")
        self._stop()
        self._go_on()

    def _release(self, credit: int) -> None:
        """Release credit, once no reply is left in the queue."""
        if self._queue:
            self._held += credit
        elif credit and not self.ended:
            self._requests.driver.release_credit(Stream(self.id, False), credit)

    def _release_held(self) -> None:
        if self._held and not self.ended:
            held, self._held = self._held, 0
            self._requests.driver.release_credit(Stream(self.id, False), held)

    def _drop_arriving(self, error: Exception) -> None:
        arriving, self._arriving = self._arriving, None
        if arriving is not None:
            arriving.fail(error)

    def _reply(self, payload: Payload) -> Reply:
        header = self._header
        if header is not None:
            self._serial = header.serial
            payload.describe(header.content_type, header.metadata)
        return Reply(self, header, self._serial, payload, None)

    def _describe(self, header: ReplyHeader | None, serial: int, eof: Eof | None) -> dict[str, object]:
        described: dict[str, object] = {
            "message_id": reply_id(self.id, serial).hex(),
            "in_response_to": self.message_id,
            "sender": self.recipient,
            "recipient": self._requests.node_id,
            "timestamp": header.timestamp if header is not None else self._ended_at,
            "serial": serial,
            "code": 0 if eof is None else eof.code,
            "eof": eof is not None,
        }
        if eof is not None and eof.code:
            described["error"] = eof.error
            described["reason"] = eof.reason
        return described

    def _end(self, eof: Eof) -> None:
        self.ended = True
        self._ended_at = time.time()
        eof = self._failed or eof
        if self.endings is not None:
            for ended in self.endings:
                ended(eof.reason if eof.code else "", eof.error if eof.code else "")
        if self._arriving is not None:
            self._drop_arriving(self._error_of(eof))
        self._eof = eof
        self._wake()
        self._requests.done(self)

    def _error_of(self, eof: Eof) -> ExchangeError:
        return exchange_error(
            eof.reason, eof.error, node=self.recipient, message_id=self.message_id, reset_code=eof.reset_code
        )

    @abstractmethod
    def _wake(self) -> None:
        """Called when replies are available."""


class FireAndForget(Exchange):
    """An exchange whose replies are dropped."""

    detached = True

    __slots__ = ()

    @property
    def expected(self) -> bool:
        """Whether draining and closing the node wait for the end of this exchange."""
        return False

    def _wake(self) -> None:
        while self._queue:
            self.take()


class WithHandler(Exchange):
    """An exchange whose replies go to a handler, plain or async, one after the other."""

    __slots__ = ("_busy", "_handler")

    def __init__(self, requests: Requests, id: MessageId, recipient: str, handler: ResponseHandler) -> None:
        super().__init__(requests, id, recipient)
        self._handler = handler
        self._busy = False

    @property
    def expected(self) -> bool:
        """Whether draining and closing the node wait for the end of this exchange."""
        return not self.ended or self._busy or bool(self._queue)

    def _wake(self) -> None:
        while not self._busy and (message := self.take()) is not None:
            try:
                result = self._handler(message)
                awaited = result is not None and inspect.isawaitable(result)
            except BaseException as error:
                if must_propagate(error):
                    raise
                self._log(error)
                continue
            if awaited:
                self._busy = True
                self._requests.tasks.spawn(
                    self._finish(cast("Awaitable[object]", result)), f"zmesh handler {self.message_id}"
                )

    async def _finish(self, result: Awaitable[object]) -> None:
        try:
            await result
        except BaseException as error:
            if must_propagate(error):
                raise  # a cancelled handler is one whose node closes
            self._log(error)
        self._busy = False  # not after a Ctrl-C or when the node closes: then the handler is called no more
        self._wake()
        if self.ended:
            self._requests.done(self)

    def _log(self, error: BaseException) -> None:
        log_exception(log, "the response handler of %s raised", self.message_id, error=error, level=logging.ERROR)


class Inboxed(Exchange):
    """An exchange whose replies go into the node's common queue, for `recv`."""

    detached = True

    __slots__ = ("_inbox",)

    def __init__(self, requests: Requests, id: MessageId, recipient: str, inbox: Callable[[Message], None]) -> None:
        super().__init__(requests, id, recipient)
        self._inbox = inbox

    @property
    def expected(self) -> bool:
        """Whether draining and closing the node wait for the end of this exchange."""
        return False

    def _wake(self) -> None:
        while (message := self.take()) is not None:
            self._inbox(message)
