"""The replies to one request as an asynchronous stream, and the exchange behind a request with one reply.

Without `buffered`, a reply is handed over when its first bytes arrive, and flow control lets the sender send more as
it is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from zmesh.core.effects import Deliver
from zmesh.core.message import Eof, MessageId
from zmesh.errors import ExchangeError, TooManyReplies, exchange_error
from zmesh.payloads import Payload, StreamedPayload
from zmesh.requests.exchange import Exchange, Reply
from zmesh.runtime import Wakeup

if TYPE_CHECKING:
    from zmesh.requests.requests import Requests


class ReplyStream(Exchange):
    """The replies to one request, in order: `async with mesh.stream(...) as replies: async for reply in replies`.

    The request is sent when the block is entered. Iterating gives each reply that carries a payload and raises an
    ExchangeError at the end if the work failed. Leaving the block before that cancels the work, and so does cancelling
    the task that waits for a reply; the block ends when the work has.

    `message_id` is 32 hex digits, `final` the final reply, whose `code`, `error` and `reason` say how the request
    ended (None until then), `hops` the number of links that the last reply crossed.
    """

    __slots__ = ("_buffered", "_ends", "_loop", "_reading", "_start", "_waiter")

    def __init__(
        self,
        requests: Requests,
        id: MessageId,
        recipient: str,
        start: Callable[[ReplyStream], None],
        *,
        buffered: bool = True,
    ) -> None:
        super().__init__(requests, id, recipient)
        self._start: Callable[[ReplyStream], None] | None = start
        self._loop: asyncio.AbstractEventLoop | None = None
        self._buffered = buffered
        self._waiter: Wakeup | None = None
        self._ends: list[asyncio.Future[None]] = []
        self._reading: StreamedPayload | None = None

    async def __aenter__(self) -> Self:
        return self.send()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if kind is not GeneratorExit:
            await self.cancel()
            return
        self._cancel_soon()
        if asyncio._get_running_loop() is not None:
            await self.finished()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Reply:
        if self._start is not None:
            raise RuntimeError("replies are taken inside of the block of `async with mesh.stream(...) as replies`")
        reply = await self._next()
        if reply.final is None:
            return reply
        self._check(reply.final)
        raise StopAsyncIteration

    def send(self) -> Self:
        """Send the request now, as entering the block does; `cancel` is then the caller's to call.

        Raises Closed, Overloaded, and RuntimeError if it was sent already.
        """
        start, self._start = self._start, None
        if start is None:
            raise RuntimeError("this request was sent already; a stream is entered once")
        self._loop = asyncio.get_running_loop()
        start(self)
        return self

    async def only_payload(self) -> Payload | None:
        """The payload of the only reply, None if there is only the final one.

        Raises what the work failed with, and TooManyReplies if there is a second reply; the rest is cancelled then.
        """
        payload = None
        reply = await self._next()
        if reply.final is None:
            payload = reply.payload
            reply = await self._next()
            if reply.final is None:
                self.cancel()
                self.discard()
                raise TooManyReplies(
                    f"node {self.recipient!r} sent more than one reply; use `stream` to have them all",
                    node=self.recipient,
                    message_id=self.message_id,
                )
        self._check(reply.final)
        return payload

    def cancel(self) -> Ending:
        """Stop the work. Harmless if it is over, or was never begun.

        Without `await`, the replies that are left can still be taken, and the final one says how the work ended. With
        `await`, they are discarded, and the result, once the work has ended, is the ExchangeError that it ended with
        (Cancelled, if nothing else came before), or None if it had succeeded already.
        """
        if not self.ended and self._start is None:
            self._stop()
        return Ending(self)

    def discard(self) -> None:
        """Drop queued and later replies, so that they do not block the final one."""
        super().discard()
        self._close_reading()

    async def finished(self) -> ExchangeError | None:
        """Wait for the end; the error that it was, or None."""
        if self._start is not None:
            return None
        if not self.ended:
            end = asyncio.get_running_loop().create_future()
            self._ends.append(end)
            await end
        final = self.final
        assert final is not None
        return self._error(final.final)

    def _collect(self, chunk: Deliver) -> int:
        if self._buffered:
            return super()._collect(chunk)
        arriving = self._arriving
        if arriving is None:
            arriving = self._arriving = StreamedPayload(partial(self._requests.driver.release_credit, chunk.stream))
            self._queue.append(self._reply(arriving))
        arriving.feed(chunk.body)
        if chunk.last:
            self._arriving = None
            arriving.finish()
        return len(chunk.body)

    def _wake(self) -> None:
        if self._waiter is not None:
            self._waiter.wake()
        if self.ended and self._ends:
            ends, self._ends = self._ends, []
            for end in ends:
                if not end.done():
                    end.set_result(None)

    async def _next(self) -> Reply:
        """The next reply, as soon as it is there; after the last one always the final one."""
        if self._reading is not None:
            self._close_reading()
        while (reply := self.take() or self.final) is None:
            if self._waiter is not None:
                raise RuntimeError("another task waits for the replies of this request")
            self._waiter = Wakeup()
            try:
                await self._waiter
            except asyncio.CancelledError:
                self.cancel()
                self.discard()
                raise
            except GeneratorExit:
                self._cancel_soon()
                raise
            finally:
                self._waiter = None
        if not self._buffered and isinstance(reply.payload, StreamedPayload):
            self._reading = reply.payload
        return reply

    def _cancel_soon(self) -> None:
        """Cancel in the next turn of the loop: garbage is collected in any thread, and amid the node's own code."""
        if self._loop is not None and not self.ended:
            with suppress(RuntimeError):  # the loop is closed, and the node with it
                self._loop.call_soon_threadsafe(_leave, self)

    def _close_reading(self) -> None:
        """Close the previous reply, read to its end or not, before the next one is returned."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.close()

    def _error(self, eof: Eof | None) -> ExchangeError | None:
        if eof is None or not eof.code:
            return None
        return exchange_error(eof.reason, eof.error, node=self.recipient, message_id=self.message_id)

    def _check(self, eof: Eof) -> None:
        if (error := self._error(eof)) is not None:
            raise error


class Ending:
    """The result of `ReplyStream.cancel`: await it for the end of the work."""

    __slots__ = ("_request",)

    def __init__(self, request: ReplyStream) -> None:
        self._request = request

    def __await__(self) -> Generator[object, None, ExchangeError | None]:
        self._request.discard()
        return self._request.finished().__await__()


def _leave(request: ReplyStream) -> None:
    request.cancel()
    request.discard()
