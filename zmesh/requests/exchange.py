"""The asking side of an exchange: replies are put together, handed over in order, and none is held without bound.

Room for more is given back to the sender as soon as the program takes a reply, except for the one at the front of the
queue: that is collected (and spooled to disk when large) as it arrives, since it must be whole before it can be taken.
"""

from __future__ import annotations

import inspect
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from typing import cast

from zmesh.core.effects import Deliver
from zmesh.core.message import Eof, Message, MessageId, ReplyHeader, Stream, reply_id
from zmesh.errors import MeshError, exchange_error
from zmesh.payloads import BufferedPayload, Desk, Payload, StreamedPayload
from zmesh.runtime import log_exception, must_propagate, text_of

log = logging.getLogger(__name__)

ResponseHandler = Callable[[Message], object]


class Reply(Message):
    """A reply, and with the final one how the exchange ended. `opening` is what the other end said of it, if it did."""

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
        """What is said about the payload; made when it is first asked for."""
        if self._header is None:
            self._header = self._exchange._describe(self._opening, self._serial, self.final)
        return self._header


class Exchange(ABC):
    """One request of this node, from sending to the final reply; subclasses say who takes the replies.

    `final` is the last reply, whose header tells how the request has ended; None until then.

    `detached`: nobody waits for its end, so that its work goes on when this node is closed, or dies.

    `route_timeout`: seconds that it may be without a way to the recipient; None: those of the node.
    """

    detached = False

    __slots__ = (
        "_arriving",
        "_behind",
        "_deaf",
        "_desk",
        "_ended_at",
        "_failed",
        "_header",
        "_held",
        "_queue",
        "_serial",
        "ended",
        "final",
        "hops",
        "id",
        "message_id",
        "on_end",
        "recipient",
        "route_timeout",
    )

    def __init__(self, desk: Desk, id: MessageId, recipient: str) -> None:
        self._desk = desk
        self.on_end: Callable[[Exchange], None] | None = None
        self.id = id
        self.message_id = id.hex()
        self.recipient = recipient
        self.route_timeout: float | None = None
        self.ended = False
        self.final: Reply | None = None
        self._ended_at = 0.0
        self.hops = 0
        self._failed: Eof | None = None
        self._deaf = False
        self._queue: deque[Reply] = deque()
        self._held = 0
        self._arriving: BufferedPayload | StreamedPayload | None = None
        self._behind: deque[Deliver] | None = None
        self._header: ReplyHeader | None = None
        self._serial = 0

    @property
    def expected(self) -> bool:
        """Whether somebody waits for the end of this exchange."""
        return not self.ended

    def piece(self, piece: Deliver) -> None:
        """Take the next piece of the replies."""
        behind = self._behind
        if behind is not None:
            behind.append(piece)
            return
        if piece.header is not None and isinstance(piece.header, ReplyHeader):
            self._header = piece.header
        self.hops = piece.hops
        credit = piece.credit
        if self._failed is None and not self._deaf:
            credit -= self._receive(piece)
        if piece.eof is not None:
            if self._behind is None:
                self._end(piece.eof)
                return
            self._behind.append(piece._replace(header=None, body=b"", last=False, credit=0))
        if self._queue:
            self._wake()
        self._give_back(credit)

    def fail(self, reason: str, text: str) -> None:
        """Let the exchange end with this, whatever the other end says."""
        self._failed = self._failed or Eof(1, reason, text)

    def abandon(self, reason: str, text: str) -> None:
        """End the exchange here and now, because the node closes."""
        if not self.ended:
            self._behind = None
            self._end(Eof(1, reason, text))

    def take(self) -> Reply | None:
        """The next reply, or None; what it took up is given back to the sender."""
        if not self._queue:
            return None
        message = self._queue.popleft()
        if self._held and not self._queue:
            self._give_back_held()
        return message

    def discard(self) -> None:
        """Throw away what has come and what still comes, lest it keep the end from coming."""
        self._deaf = True
        self._drop_arriving(ValueError("the request was cancelled"))
        final = self._queue.pop() if self._queue and self._queue[-1].final is not None else None
        for reply in self._queue:
            reply.payload.close()
        self._queue.clear()
        if final is not None:
            self._queue.append(final)
        self._give_back_held()
        self._go_on()

    def _receive(self, piece: Deliver) -> int:
        """Take in a piece of payload; the bytes of it whose reader will give their room back."""
        if piece.last and self._arriving is None:
            self._queue.append(self._message(Payload(piece.body)))
        elif self._header is not None and (piece.body or piece.last):
            return self._collect(piece)
        return 0

    def _collect(self, piece: Deliver) -> int:
        arriving = self._arriving
        if arriving is None:
            desk = self._desk
            arriving = self._arriving = BufferedPayload(
                spool_dir=desk.spool_dir,
                max_bytes=desk.max_payload_bytes,
                disk=desk.disk,
                written=self._give_back,
                failed=self._refuse,
            )
        try:
            later = arriving.feed(piece.body)
        except (MeshError, OSError) as error:
            self._refuse(error)
            return 0
        if piece.last:
            cast("BufferedPayload", arriving).finish(self._collected)
            if self._arriving is not None:  # what comes after it waits until it is written
                self._behind = deque()
        return later

    def _collected(self) -> None:
        """All of a reply has come, and is where it belongs."""
        arriving, self._arriving = self._arriving, None
        if arriving is not None:
            self._queue.append(self._message(arriving))
        if self._behind is not None:
            self._wake()
            self._go_on()

    def _go_on(self) -> None:
        """Take what has come behind a reply that was being written."""
        behind, self._behind = self._behind, None
        for piece in behind or ():
            self.piece(piece)

    def _refuse(self, error: Exception) -> None:
        """End the exchange, since a reply can't be kept."""
        self.fail("overloaded", f"a reply of {self.recipient!r} could not be kept: {text_of(error)}")
        self._desk.cancel(self.message_id)
        self._go_on()

    def _give_back(self, credit: int) -> None:
        """Let the sender have room again, once there is nothing left that nobody has taken."""
        if self._queue:
            self._held += credit
        elif credit and not self.ended:
            self._desk.release_credit(Stream(self.id, False), credit)

    def _drop_arriving(self, error: Exception) -> None:
        arriving, self._arriving = self._arriving, None
        if arriving is not None:
            arriving.fail(error)

    def _give_back_held(self) -> None:
        if self._held and not self.ended:
            held, self._held = self._held, 0
            self._desk.release_credit(Stream(self.id, False), held)

    def _message(self, payload: Payload) -> Reply:
        header = self._header
        if header is not None:
            self._serial = header.serial
        return Reply(self, header, self._serial, payload, None)

    def _describe(self, header: ReplyHeader | None, serial: int, eof: Eof | None) -> dict[str, object]:
        described: dict[str, object] = {
            "message_id": reply_id(self.id, serial).hex(),
            "in_response_to": self.message_id,
            "sender": self.recipient,
            "recipient": self._desk.node_id,
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
        if self._arriving is not None:
            self._drop_arriving(exchange_error(eof.reason, eof.error, node=self.recipient, message_id=self.message_id))
        self.final = Reply(self, None, self._serial + 1, Payload(b""), eof)
        self._queue.append(self.final)
        self._wake()
        self._tell_end()

    def _tell_end(self) -> None:
        if self.on_end is not None:
            self.on_end(self)

    @abstractmethod
    def _wake(self) -> None:
        """There are replies to be taken."""


class FireAndForget(Exchange):
    """An exchange whose replies nobody wants."""

    detached = True

    __slots__ = ()

    @property
    def expected(self) -> bool:
        """Whether somebody waits for the end of this exchange."""
        return False

    def _wake(self) -> None:
        while self.take() is not None:
            pass


class WithHandler(Exchange):
    """An exchange whose replies go to a handler, plain or async, one after the other."""

    __slots__ = ("_busy", "_handler")

    def __init__(self, desk: Desk, id: MessageId, recipient: str, handler: ResponseHandler) -> None:
        super().__init__(desk, id, recipient)
        self._handler = handler
        self._busy = False

    @property
    def expected(self) -> bool:
        """Whether somebody waits for the end of this exchange."""
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
                self._desk.spawn(self._finish(cast("Awaitable[object]", result)), f"zmesh handler {self.message_id}")

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
            self._tell_end()

    def _log(self, error: BaseException) -> None:
        log_exception(log, "the response handler of %s raised", self.message_id, error=error, level=logging.ERROR)


class Inboxed(Exchange):
    """An exchange whose replies go into the node's common queue, for `recv`."""

    detached = True

    __slots__ = ("_inbox",)

    def __init__(self, desk: Desk, id: MessageId, recipient: str, inbox: Callable[[Message], None]) -> None:
        super().__init__(desk, id, recipient)
        self._inbox = inbox

    @property
    def expected(self) -> bool:
        """Whether somebody waits for the end of this exchange."""
        return False

    def _wake(self) -> None:
        while (message := self.take()) is not None:
            self._inbox(message)
