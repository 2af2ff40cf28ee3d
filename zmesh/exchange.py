"""The asking side of an exchange: replies are put together, handed over in order, and none is held without bound.

Room for more is given back to the sender as soon as the program takes a reply, except for the one at the front of the
queue: that is collected (and spooled to disk when large) as it arrives, since it must be whole before it can be taken.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from abc import ABC, abstractmethod
from asyncio import CancelledError, current_task
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from functools import partial

from zmesh.core.effects import Deliver
from zmesh.core.message import Eof, Message, MessageId, ReplyHeader, Stream, reply_id
from zmesh.errors import MeshError, exchange_error
from zmesh.payload import Arriving, Payload
from zmesh.streaming import Desk

log = logging.getLogger(__name__)

ResponseHandler = Callable[[Message], object]


class Reply(Message):
    """A reply, and with the final one how the exchange ended."""

    __slots__ = ("final",)
    payload: Payload

    def __init__(self, make: Callable[[], dict[str, object]], payload: Payload, final: Eof | None) -> None:
        super().__init__(make, payload)
        self.final = final


class Exchange(ABC):
    """One request of this node, from sending to the final reply; subclasses say who takes the replies.

    `detached`: nobody waits for its end, so that its work goes on when this node is closed, or dies.
    """

    detached = False

    __slots__ = (
        "_arriving",
        "_desk",
        "_ended_at",
        "_failed",
        "_header",
        "_held",
        "_queue",
        "_serial",
        "ended",
        "hops",
        "id",
        "message_id",
        "on_end",
        "recipient",
    )

    def __init__(self, desk: Desk, id: MessageId, recipient: str) -> None:
        self._desk = desk
        self.on_end: Callable[[Exchange], None] | None = None
        self.id = id
        self.message_id = id.hex()
        self.recipient = recipient
        self.ended = False
        self._ended_at = 0.0
        self.hops = 0
        self._failed: Eof | None = None
        self._queue: deque[Reply] = deque()
        self._held = 0
        self._arriving: Arriving | None = None
        self._header: ReplyHeader | None = None
        self._serial = 0

    @property
    def expected(self) -> bool:
        """Whether somebody waits for the end of this exchange."""
        return not self.ended

    def piece(self, piece: Deliver) -> None:
        """Take the next piece of the replies."""
        if piece.header is not None and isinstance(piece.header, ReplyHeader):
            self._header = piece.header
        self.hops = piece.hops
        if self._failed is not None:
            pass
        elif piece.last and self._arriving is None:
            self._put(self._message(piece, Payload(piece.body)))
        elif self._header is not None and (piece.body or piece.last):
            self._collect(piece)
        if piece.eof is not None:
            self._end(piece.eof)
        elif self._queue:
            self._held += piece.weight
        else:
            self._desk.consumed(piece.stream, piece.weight)

    def fail(self, reason: str, text: str) -> None:
        """Let the exchange end with this, whatever the other end says."""
        self._failed = self._failed or Eof(1, reason, text)

    def abandon(self, reason: str, text: str) -> None:
        """End the exchange here and now, because the node closes."""
        if not self.ended:
            self._end(Eof(1, reason, text))

    def take(self) -> Reply | None:
        """The next reply, or None; what it took up is given back to the sender."""
        if not self._queue:
            return None
        message = self._queue.popleft()
        if not self._queue and self._held and not self.ended:
            held, self._held = self._held, 0
            self._desk.consumed(Stream(self.id, False), held)
        return message

    def _collect(self, piece: Deliver) -> None:
        if self._arriving is None:
            self._arriving = Arriving(spool_dir=self._desk.spool_dir, max_bytes=self._desk.max_payload_bytes)
        arriving = self._arriving
        try:
            arriving.feed(piece.body)
        except (MeshError, OSError) as error:
            self.fail("overloaded", f"a reply of {self.recipient!r} could not be kept: {error}")
            self._desk.cancel(self.message_id)
            return
        if piece.last:
            self._arriving = None
            arriving.finish()
            self._put(self._message(piece, arriving))

    def _message(self, piece: Deliver, payload: Payload) -> Reply:
        header = self._header
        if header is not None:
            self._serial = header.serial
        return Reply(partial(self._describe, header, self._serial, None), payload, None)

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
            self._arriving.close()
            self._arriving = None
        self._put(Reply(partial(self._describe, None, self._serial + 1, eof), Payload(b""), eof))
        self._tell_end()

    def _tell_end(self) -> None:
        if self.on_end is not None:
            self.on_end(self)

    def _put(self, message: Reply) -> None:
        self._queue.append(message)
        self._wake()

    @abstractmethod
    def _wake(self) -> None:
        """A reply has come in."""


class Unheard(Exchange):
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


class Handled(Exchange):
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
            except (Exception, CancelledError):  # the latter is that of a task which the handler has looked at
                log.exception("the response handler of %s raised", self.message_id)
                continue
            if inspect.isawaitable(result):
                self._busy = True
                self._desk.spawn(self._finish(result), f"zmesh handler {self.message_id}")

    async def _finish(self, result: Awaitable[object]) -> None:
        try:
            await result
        except (Exception, CancelledError) as error:
            task = current_task()
            if isinstance(error, CancelledError) and task is not None and task.cancelling():
                raise  # it is the handler itself that was cancelled: the node closes
            log.exception("the response handler of %s raised", self.message_id)
        self._busy = False  # not after a Ctrl-C or when the node closes: then the handler is called no more
        self._wake()
        if self.ended:
            self._tell_end()


class Received(Exchange):
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


class Request(Exchange):
    """A request that is under way: await it for the one payload, or iterate over it for the replies.

    Awaiting gives the payload of the reply (None if there was none but the final one) and raises what went wrong, as
    an ExchangeError. Iterating gives each reply that carries a payload, and raises at the end if the work failed. What
    stops early (leaving the loop, cancelling the task that waits) cancels the work.
    """

    __slots__ = ("_waiter",)

    def __init__(self, desk: Desk, id: MessageId, recipient: str) -> None:
        super().__init__(desk, id, recipient)
        self._waiter: asyncio.Future[None] | None = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done() and (self.ended or len(self._queue) == 1):
            waiter.set_result(None)

    def cancel(self) -> None:
        """Stop the work; the exchange then ends as cancelled (or as it ended meanwhile)."""
        if not self.ended:
            self._desk.cancel(self.message_id)

    def _arrival(self) -> Generator[object, None, Reply]:
        """Wait for the next reply."""
        while (reply := self.take()) is None:
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            try:
                yield from waiter
            except asyncio.CancelledError:
                self.cancel()
                raise
            finally:
                self._waiter = None
        return reply

    def _check(self, eof: Eof) -> None:
        if eof.code:
            raise exchange_error(eof.reason, eof.error, node=self.recipient, message_id=self.message_id)

    def __await__(self) -> Generator[object, None, Payload | None]:
        payload: Payload | None = None
        replies = 0
        while (reply := (yield from self._arrival())).final is None:
            replies += 1
            if replies > 1:
                self.cancel()
                raise MeshError(f"{self.recipient!r} sent more than one reply; use async for to have them all")
            payload = reply.payload
        self._check(reply.final)
        return payload

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._replies()

    async def _replies(self) -> AsyncIterator[Message]:
        try:
            while (reply := await _Next(self._arrival)).final is None:
                yield reply
        finally:
            self.cancel()
        self._check(reply.final)


class _Next:
    """An awaitable of what a generator comes to."""

    __slots__ = ("_arrival",)

    def __init__(self, arrival: Callable[[], Generator[object, None, Reply]]) -> None:
        self._arrival = arrival

    def __await__(self) -> Generator[object, None, Reply]:
        return self._arrival()
