"""Fan-out of one request to many nodes, with bounded concurrency; answers are yielded in order of arrival.

The limit counts open requests and answers that have not been read yet, so that a slow reader slows the sending. It does
not count a request whose node is unreachable at the moment: it waits for a route without using resources at a server,
and must not delay the others.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from zmesh.core.message import MessageId
from zmesh.errors import ExchangeError, MeshError, Overloaded
from zmesh.payloads import Payload, PayloadLike, Source, StreamedPayload, encode
from zmesh.requests.exchange import Exchange
from zmesh.runtime import describe, is_a, must_propagate

if TYPE_CHECKING:
    from zmesh.requests.requests import Requests

LOOK_AGAIN = 0.1
"""Seconds between checks whether a route still leads to the nodes of the requests that count against the limit."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of one node.

    `replies` are the payloads of its replies, in order; those that came before a failure are among them. `error` is
    what the request ended in, None for success. `message_id` is "" if it could not even be sent.
    """

    node: str
    message_id: str
    replies: tuple[Payload, ...]
    error: MeshError | None

    @property
    def payload(self) -> Payload | None:
        """The payload of the first reply, None if there was none."""
        return self.replies[0] if self.replies else None


def repeatable(payload: PayloadLike) -> Callable[[], PayloadLike]:
    """A function that gives the payload to each of many requests.

    Raises TypeError for one that can be read only once (a file, an iterator), and OSError if a path can't be opened.
    """
    if isinstance(payload, StreamedPayload):
        raise _read_once(payload)
    if isinstance(payload, os.PathLike):
        with open(payload, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise TypeError(f"{os.fspath(payload)!r} is no regular file, so it can't be read once for each node")
        return lambda: payload
    if isinstance(payload, Payload):
        return lambda: payload
    body = encode(payload)
    if isinstance(body, Source):
        body.close()
        raise _read_once(payload)
    return lambda: body


def _read_once(payload: object) -> TypeError:
    return TypeError(
        f"a payload for many nodes is read once for each, which {type(payload).__name__} can't be; "
        "send bytes, str, a mapping, list or number (as JSON), a path or a Payload"
    )


class FanoutRequest(Exchange):
    """The request to one of the nodes; it collects its replies."""

    __slots__ = ("_done", "replies")

    def __init__(
        self, requests: Requests, id: MessageId, recipient: str, done: Callable[[FanoutRequest, Answer], None]
    ) -> None:
        super().__init__(requests, id, recipient)
        self._done = done
        self.replies: list[Payload] = []

    def stop(self) -> None:
        """Cancel the work, and discard later replies."""
        self._stop()
        self.discard()

    def _wake(self) -> None:
        while (reply := self.take()) is not None:
            eof = reply.final
            if eof is None:
                self.replies.append(reply.payload)
                continue
            error = None
            if eof.code:
                error = self._error_of(eof)
            self._done(self, Answer(self.recipient, self.message_id, tuple(self.replies), error))


class Fanout:
    """The requests of one `request_many`; `start` sends one of them."""

    def __init__(
        self,
        nodes: Iterable[str],
        limit: int,
        start: Callable[[str, Callable[[FanoutRequest, Answer], None]], FanoutRequest],
    ) -> None:
        self._waiting = deque(nodes)
        self._limit = limit
        self._start = start
        self._open: set[FanoutRequest] = set()
        self._answers: deque[Answer] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    @property
    def over(self) -> bool:
        """Whether every answer has been yielded."""
        return not (self._waiting or self._open or self._answers)

    async def next(self) -> Answer | None:
        """The next answer; None when all have been yielded. Raises RuntimeError if another task waits for one."""
        self._fill()
        while not self._answers:
            if not self._open:
                return None
            if self._waiter is not None:
                raise RuntimeError("another task waits for these answers")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        answer = self._answers.popleft()
        self._fill()
        return answer

    def stop(self) -> None:
        """Send no more requests, cancel the open ones, and discard their replies."""
        self._stopped = True
        self._waiting.clear()
        for answer in self._answers:
            for payload in answer.replies:
                payload.close()
        self._answers.clear()
        for request in list(self._open):
            request.stop()

    async def ended(self) -> None:
        """Wait until no request is open."""
        while await self.next() is not None:
            pass

    def _fill(self) -> None:
        """Send as many more requests as the limit allows."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return
        busy = len(self._answers) + sum(not request.is_lost for request in self._open)
        while self._waiting and busy < self._limit:
            node = self._waiting.popleft()
            try:
                request = self._start(node, self._on_done)
            except Overloaded as error:
                if self._open:  # there will be room when one of those is over
                    self._waiting.appendleft(node)
                    break
                self._answers.append(Answer(node, "", (), error))
            except BaseException as error:
                if must_propagate(error):
                    raise
                self._answers.append(Answer(node, "", (), _as_mesh_error(error, node)))
            else:
                if not request.ended:
                    self._open.add(request)
                    busy += not request.is_lost
                    continue
            busy += 1
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(LOOK_AGAIN, self._fill)

    def _on_done(self, request: FanoutRequest, answer: Answer) -> None:
        self._open.discard(request)
        if self._stopped:
            for payload in answer.replies:
                payload.close()
        else:
            self._answers.append(answer)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Answers:
    """The result of `request_many`: an async iterator of the Answer of each node, in order of arrival.

    Nothing is sent before the first one is asked for. Leaving the `async for` early, and cancelling the task that
    waits, cancels what is open. As a context manager (`async with`), and by `aclose`, it also waits until that has
    ended.
    """

    __slots__ = ("_fanout", "_loop")

    def __init__(self, fanout: Fanout) -> None:
        self._fanout = fanout
        self._loop: asyncio.AbstractEventLoop | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Answer:
        self._loop = asyncio.get_running_loop()
        try:
            answer = await self._fanout.next()
        except asyncio.CancelledError:
            self._fanout.stop()
            raise
        if answer is None:
            raise StopAsyncIteration
        return answer

    async def aclose(self) -> None:
        """Cancel the open requests, and wait until they have ended."""
        self._fanout.stop()
        await self._fanout.ended()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if kind is GeneratorExit and asyncio._get_running_loop() is None:  # this coroutine is garbage, and can't await
            self._fanout.stop()
        else:
            await self.aclose()

    def __del__(self) -> None:
        if self._loop is not None and not self._fanout.over:
            with suppress(RuntimeError):  # the loop is closed, and the node with it
                self._loop.call_soon_threadsafe(self._fanout.stop)


def _as_mesh_error(error: BaseException, node: str) -> MeshError:
    if is_a(error, MeshError):
        return cast("MeshError", error)
    return ExchangeError(f"the payload for {node!r} could not be read: {describe(error)}", node=node)
