"""Blocking iterators over what a node's event loop yields in its own thread."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from zmesh import requests
from zmesh.errors import Closed, ExchangeError
from zmesh.requests import Reply
from zmesh.runtime import NodeThread

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")


class Iteration(Generic[T]):
    """A blocking iterator; `close`, or leaving the `with` block, cancels what it waits for."""

    def __init__(
        self, node_thread: NodeThread, source: AsyncIterator[T], close: Callable[[], Awaitable[object]]
    ) -> None:
        self._node_thread = node_thread
        self._close = close
        self._source = source

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        item, over = self._node_thread.do(lambda: _step(self._source))
        if over or item is None:
            raise StopIteration
        return item

    def close(self) -> None:
        """Cancel the operation, and wait until it has ended. Harmless when it is over."""
        with suppress(Closed):
            self._node_thread.do(self._close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class ReplyStream(Iteration[Reply]):
    """The replies to one request, in order: `with mesh.stream(...) as replies: for reply in replies`.

    The request is sent when the block is entered. Iterating raises an ExchangeError at the end if the work failed.
    Leaving the block before that cancels the work, and the block ends when the work has.
    """

    def __init__(self, node_thread: NodeThread, replies: requests.ReplyStream) -> None:
        super().__init__(node_thread, replies, replies.cancel)
        self._replies = replies

    def __enter__(self) -> Self:
        with ExitStack() as unless_sent:
            unless_sent.callback(self.close)
            self._node_thread.do(in_the_loop(self._replies.send))
            unless_sent.pop_all()
        return self

    def write(self, data: Buffer | str) -> None:
        """Write more of the request's payload; waits while the other end makes no room. Raises StreamClosed."""
        self._node_thread.do(lambda: self._replies.write(data))

    def end(self) -> None:
        """End the request's payload; replies still come. Harmless when it is ended, or no longer wanted."""
        self._node_thread.do(self._replies.end)

    def reset(self, code: int = 0) -> ExchangeError | None:
        """Stop the work at once with a code, 0 to 2**32 - 1, and wait for its end; the result is that of `cancel`."""
        return self._node_thread.do(lambda: self._replies.reset(code))

    @property
    def message_id(self) -> str:
        """The message id of the request, 32 hex digits."""
        return self._replies.message_id

    @property
    def final(self) -> Reply | None:
        """The final reply, whose `code`, `error` and `reason` say how the request ended; None until then."""
        return self._replies.final

    def cancel(self) -> ExchangeError | None:
        """Stop the work and wait for its end; the error that it ended with, None if it had succeeded already."""
        return self._node_thread.do(self._replies.cancel)


def in_the_loop(function: Callable[[], T]) -> Callable[[], Awaitable[T]]:
    """A function for the event loop that calls a plain one there."""

    async def called() -> T:
        return function()

    return called


async def _step(source: AsyncIterator[T]) -> tuple[T | None, bool]:
    try:
        return await anext(source), False
    except StopAsyncIteration:
        return None, True
