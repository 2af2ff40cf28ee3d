"""The replies to one request as an asynchronous stream, which may be written to; and the exchange behind `request`.

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

from zmesh.arguments import check_reset_code
from zmesh.core.effects import Deliver
from zmesh.core.message import Eof, MessageId, Stream
from zmesh.errors import Cancelled, ExchangeError, StreamClosed, TooManyReplies
from zmesh.payloads import Payload, StreamedPayload, piece_of
from zmesh.requests.exchange import Exchange, Reply
from zmesh.runtime import Wakeup

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from zmesh.payloads import OutboundWriter
    from zmesh.requests.requests import Requests


class ReplyStream(Exchange):
    """The replies to one request, in order: `async with mesh.stream(...) as replies: async for reply in replies`.

    The request is sent when the block is entered. Iterating gives each reply that carries a payload and raises an
    ExchangeError at the end if the work failed. Leaving the block before that cancels the work, and so does cancelling
    the task that waits for a reply; the block ends when the work has.

    With `writable`, the request is open for writing: `write` what follows the payload, if one was given, and `end` it.
    The two directions have a window each, so that none waits for the other.

    `message_id` is 32 hex digits, `final` the final reply, whose `code`, `error` and `reason` say how the request
    ended (None until then), `hops` the number of links that the last reply crossed.
    """

    __slots__ = ("_buffered", "_ends", "_loop", "_reading", "_start", "_stopped_with", "_waiter", "_writable", "writer")

    def __init__(
        self,
        requests: Requests,
        id: MessageId,
        recipient: str,
        start: Callable[[ReplyStream], None],
        *,
        buffered: bool = True,
        writable: bool = False,
    ) -> None:
        Exchange.__init__(self, requests, id, recipient)  # three times as fast as `super()`
        self._start: Callable[[ReplyStream], None] | None = start
        self._loop: asyncio.AbstractEventLoop | None = None
        self._buffered = buffered
        self._waiter: Wakeup | None = None
        self._ends: tuple[asyncio.Future[None], ...] = ()
        self._reading: StreamedPayload | None = None
        self._writable = writable
        self._stopped_with: int | None = None
        self.writer: OutboundWriter | None = None

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
        if self._writable:
            from zmesh.payloads import OutboundWriter  # here: most requests are whole when they are sent

            self.writer = OutboundWriter(self._requests.driver, Stream(self.id, True))
        begun = False
        try:
            start(self)
            begun = True
        finally:
            if not begun:  # there is no end to wait for
                self._start, self.writer = _refuse, None
        return self

    async def write(self, data: Buffer | str) -> None:
        """Write more of the request's payload; text as UTF-8. Waits while the other end makes no room for what was
        written before; one that is cancelled while it waits has written nothing.

        Writes are no messages: the other end reads the same bytes, in pieces of any size. Raises StreamClosed once they
        are no longer wanted, the ExchangeError that the request has ended with, and RuntimeError after `end`.
        """
        piece = piece_of(data)
        writer = self._open_writer()
        self._check_wanted(writer)
        await writer.room()
        self._check_wanted(writer)
        writer.write(piece)

    async def end(self) -> None:
        """End the request's payload; replies still come. Harmless when it is ended, or no longer wanted.

        Raises RuntimeError if the request was not opened with `writable`, or is not sent yet.
        """
        writer = self._open_writer()
        if not writer.ended:
            writer.end()

    def reset(self, code: int = 0) -> Ending:
        """Stop the work at once, with a code of the program's own, from 0 (as `cancel`) to 2**32 - 1.

        A directive finds it in `work.reset_code`. The result is that of `cancel`. Raises TypeError and ConfigError for
        what can't be a code.
        """
        check_reset_code(code)
        if not self.ended and self._start is None:
            self._stop(code)
        return Ending(self)

    async def only_payload(self) -> Payload | None:
        """The payload of the only reply, None if there is only the final one.

        Raises the ExchangeError that the work failed with, and TooManyReplies if there is a second reply; the rest is
        cancelled then.
        """
        reply = await self._next()
        if reply.final is not None:
            self._check(reply.final)
            return None
        if self._queue or self._eof is None:
            second = await self._next()
            if second.final is None:
                self.cancel()
                self.discard()
                raise TooManyReplies(
                    f"node {self.recipient!r} sent more than one reply; use `stream` to have them all",
                    node=self.recipient,
                    message_id=self.message_id,
                )
        self._check(self._eof)
        return reply.payload

    def cancel(self) -> Ending:
        """Stop the work. Harmless if it is over, or was never begun.

        Without `await`, the replies that are left can still be taken, and the final one says how the work ended. With
        `await`, they are discarded, and the result, once the work has ended, is the ExchangeError that it ended with
        (Cancelled, if nothing else came before), or None if it had succeeded already.
        """
        return self.reset()

    def on_room(self) -> None:
        """The request stream has send credit again."""
        super().on_room()
        if self.writer is not None:
            self.writer.on_room()

    def on_stream_over(self) -> None:
        """The request stream is closed for sending."""
        super().on_stream_over()
        if self.writer is not None:
            self.writer.on_stream_over()

    def discard(self) -> None:
        """Drop queued and later replies, so that they do not block the final one."""
        super().discard()
        self._close_reading()

    async def finished(self) -> ExchangeError | None:
        """Wait for the end; the ExchangeError that the work ended with, or None for success."""
        if self._start is not None:
            return None
        if not self.ended:
            end = asyncio.get_running_loop().create_future()
            self._ends += (end,)
            await end
        return self._error(self._eof)

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

    def _stop(self, reset_code: int = 0) -> None:
        if self._stopped_with is None:
            self._stopped_with = reset_code
        self._requests.cancel(self.id, reset_code)

    def _error_of(self, eof: Eof) -> ExchangeError:
        error = super()._error_of(eof)
        if isinstance(error, Cancelled) and not error.reset_code and self._stopped_with is not None:
            error.reset_code = self._stopped_with  # the other end confirms the reset without its code
        return error

    def _open_writer(self) -> OutboundWriter:
        if self.writer is None:
            raise RuntimeError(
                "a request is written inside of the block of `async with mesh.stream(..., writable=True) as stream`"
            )
        return self.writer

    def _check_wanted(self, writer: OutboundWriter) -> None:
        """Raise what keeps more of the request from being written."""
        if writer.ended:
            raise RuntimeError("nothing can be written to a request after `end`")
        if self.ended:
            self._check(self._eof)
            raise StreamClosed(
                f"the work at node {self.recipient!r} has ended, so no more of the request is wanted",
                node=self.recipient,
                message_id=self.message_id,
            )
        if writer.over and self._stopped_with is not None:
            text = f"the request to {self.recipient!r} was cancelled here"
            code = self._stopped_with
            raise Cancelled(text, node=self.recipient, message_id=self.message_id, reset_code=code)
        if writer.over:
            raise StreamClosed(
                f"the work at node {self.recipient!r} reads no more of the request; its replies can still be taken",
                node=self.recipient,
                message_id=self.message_id,
            )

    def _wake(self) -> None:
        if self.ended and self.writer is not None:
            self.writer.on_stream_over()
        if self._waiter is not None:
            self._waiter.wake()
        if self.ended and self._ends:
            ends, self._ends = self._ends, ()
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
        return self._error_of(eof)

    def _check(self, eof: Eof | None) -> None:
        if (error := self._error(eof)) is not None:
            raise error


class Ending:
    """The result of `ReplyStream.cancel` and `reset`: await it for the end of the work."""

    __slots__ = ("_request",)

    def __init__(self, request: ReplyStream) -> None:
        self._request = request

    def __await__(self) -> Generator[object, None, ExchangeError | None]:
        self._request.discard()
        return self._request.finished().__await__()


def _refuse(request: ReplyStream) -> None:
    raise RuntimeError("this request was refused when it was sent; a stream is entered once")


def _leave(request: ReplyStream) -> None:
    request.cancel()
    request.discard()
