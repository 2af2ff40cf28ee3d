"""A request that a program waits for: awaited for its one payload, or iterated over for its replies.

With `stream=True` replies are handed over while they arrive, and room for more is given back as they are read.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

from zmesh.core.effects import Deliver
from zmesh.core.message import Eof, MessageId
from zmesh.errors import ExchangeError, TooManyReplies, exchange_error
from zmesh.payloads.feeding import Desk
from zmesh.payloads.payload import Payload, StreamedPayload
from zmesh.requests.exchange import Exchange, Reply
from zmesh.runtime.eager import Wakeup


class Request(Exchange):
    """A request that is under way: await it for the one payload, or iterate over it for the replies.

    Awaiting gives the payload of the reply (None if there was none but the final one) and raises what went wrong, as
    an ExchangeError; TooManyReplies if there is a second one. Awaiting again comes to the same. Iterating gives each
    reply that carries a payload, and raises at the end if the work failed. What stops early cancels the work:
    cancelling the task that waits, and leaving the loop. As a context manager (`async with mesh.request(...) as
    request`) it is cancelled where the block is left, if it is not over by then, and the block ends when the work has.
    """

    __slots__ = ("_answer", "_awaited", "_ends", "_reading", "_streams", "_taken", "_waiter")

    def __init__(self, desk: Desk, id: MessageId, recipient: str, *, stream: bool = False) -> None:
        super().__init__(desk, id, recipient)
        self._streams = stream
        self._waiter: Wakeup | None = None
        self._ends: list[asyncio.Future[None]] = []
        self._reading: StreamedPayload | None = None
        self._awaited = 0
        """Replies that awaiting has come to."""
        self._answer: weakref.ref[Payload] | None = None
        """The payload of the first of them, whose file is to be gone when the program has dropped it."""
        self._taken = False
        """Whether an iteration has given a reply away."""

    def cancel(self) -> Ending:
        """Stop the work. Harmless if it is over, or was never begun.

        Leave what this returns alone and take the replies that are left, of which the last tells the end. Or await it:
        then they are thrown away, and it gives, once the work has ended, the ExchangeError that it ended in (Cancelled,
        if nothing else came before), or None if it had succeeded already.
        """
        if not self.ended:
            self._desk.cancel(self.message_id)
        return Ending(self)

    def discard(self) -> None:
        """Throw away what has come and what still comes, lest it keep the end from coming."""
        super().discard()
        self._let_go()

    async def finished(self) -> ExchangeError | None:
        """Wait for the end; the error that it was, or None."""
        if not self.ended:
            end = asyncio.get_running_loop().create_future()
            self._ends.append(end)
            await end
        final = self.final
        assert final is not None
        return self._error(final.final)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.cancel()

    def __await__(self) -> Generator[object, None, Payload | None]:
        if self._streams:
            self.cancel()
            self.discard()
            raise TypeError("a request with stream=True is not awaited; take its replies with `async for`")
        if self._taken:
            raise RuntimeError("the replies of this request were taken already, by iterating over it")
        payload = self._answer() if self._answer is not None else None
        while self._awaited < 2 and (reply := (yield from self._arrival())).final is None:
            self._awaited += 1
            payload = reply.payload
            self._answer = weakref.ref(payload)
        if self._awaited > 1:
            self.cancel()
            self.discard()
            raise TooManyReplies(
                f"node {self.recipient!r} sent more than one reply; use `async for` to have them all",
                node=self.recipient,
                message_id=self.message_id,
            )
        if self.final is not None and self.final.final is not None:
            self._check(self.final.final)
        if self._awaited and payload is None:
            raise RuntimeError("this request was awaited before, and the payload that it gave was dropped; keep it")
        return payload

    def __aiter__(self) -> AsyncIterator[Reply]:
        return Arrivals(self)

    def _collect(self, piece: Deliver) -> int:
        if not self._streams:
            return super()._collect(piece)
        arriving = self._arriving
        if arriving is None:
            arriving = self._arriving = StreamedPayload(partial(self._desk.release_credit, piece.stream))
            self._queue.append(self._message(arriving))
        arriving.feed(piece.body)
        if piece.last:
            self._arriving = None
            arriving.finish()
        return len(piece.body)

    def _wake(self) -> None:
        if self._waiter is not None:
            self._waiter.wake()
        if self.ended and self._ends:
            ends, self._ends = self._ends, []
            for end in ends:
                if not end.done():
                    end.set_result(None)

    def _arrival(self) -> Generator[object, None, Reply]:
        """Wait for the next reply; the final one comes again and again."""
        if self._reading is not None:
            self._let_go()
        while (reply := self.take() or self.final) is None:
            if self._waiter is not None:
                raise RuntimeError("another task waits for the replies of this request")
            self._waiter = Wakeup()
            try:
                yield from self._waiter.__await__()
            except asyncio.CancelledError:
                self.cancel()
                self.discard()
                raise
            finally:
                self._waiter = None
        if self._streams and isinstance(reply.payload, StreamedPayload):
            self._reading = reply.payload
        return reply

    def _let_go(self) -> None:
        """Whoever asks for the next reply has done with the one before, read to its end or not."""
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
    """What cancelling a request gives back: await it to know that, and how, the work has ended."""

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        self._request = request

    def __await__(self) -> Generator[object, None, ExchangeError | None]:
        self._request.discard()
        return self._request.finished().__await__()


class Arrivals:
    """The replies of a request, one after the other; the request is cancelled when this is dropped before their end.

    That is what leaving an `async for` early does. It is a matter of the next turn of the loop: garbage is collected
    between any two instructions of any thread, where the node can't be called.
    """

    __slots__ = ("_loop", "_request")

    def __init__(self, request: Request) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # for `__del__`, should there be none
        self._request = request
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Reply:
        request = self._request
        if request._awaited and not request._taken:
            raise RuntimeError("this request was awaited, and its reply taken; iterate over it instead")
        reply = await _Next(request._arrival)
        if reply.final is None:
            request._taken = True
            return reply
        request._check(reply.final)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Cancel the request, unless it is over, and wait for its end."""
        await self._request.cancel()

    def __del__(self) -> None:
        if self._loop is not None and not self._request.ended:
            with suppress(RuntimeError):  # the loop is closed, and the node with it
                self._loop.call_soon_threadsafe(_leave, self._request)


def _leave(request: Request) -> None:
    request.cancel()
    request.discard()


class _Next:
    """An awaitable of what a generator comes to."""

    __slots__ = ("_arrival",)

    def __init__(self, arrival: Callable[[], Generator[object, None, Reply]]) -> None:
        self._arrival = arrival

    def __await__(self) -> Generator[object, None, Reply]:
        return self._arrival()
