"""A copy as its client opens it: a request to `file:read`, `file:write` or `file:granted`, and its two streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from zmesh.errors import RemoteError, StreamClosed
from zmesh.files.records import EndedEarly, Kind, RecordReader, record
from zmesh.remote import pack

if TYPE_CHECKING:
    from zmesh.requests import ReplyStream
    from zmesh.serving import OpenStream

READ, WRITE, GRANTED = "file:read", "file:write", "file:granted"


class Waiting:
    """The request of a copy that its node has not begun yet; None before and afterwards."""

    __slots__ = ("request",)

    def __init__(self) -> None:
        self.request: ReplyStream | None = None

    @property
    def for_route(self) -> bool:
        """Whether it waits because no route leads to its node."""
        return self.request is not None and self.request.is_lost

    @property
    def obstacle(self) -> str:
        """The obstacle that holds it back, for the text of an error; empty once it has begun."""
        return self.request.obstacle if self.request is not None else ""


@asynccontextmanager
async def session(
    open_stream: OpenStream,
    node: str,
    directive: str,
    start: Mapping[str, Any],
    route_timeout: float | None,
    waiting: Waiting | None = None,
) -> AsyncIterator[tuple[RecordReader, ReplyStream]]:
    """The records of the node, and the request, which is open for writing; `waiting` is kept up to date.

    `route_timeout` in seconds, as that of `stream`. Raises as the request does, also in place of an error in the block
    that its end has caused, and RemoteError if the node ends the copy early.
    """
    begin = record(Kind.START, pack(start))
    request: ReplyStream = open_stream(
        node, directive, begin, route_timeout=route_timeout, buffered=False, writable=True
    )
    async with request as replies:
        if waiting is not None:
            waiting.request = replies
        reply = await anext(replies, None)
        if waiting is not None:
            waiting.request = None
        if reply is None:
            raise RemoteError(f"node {node!r} has ended the copy before its end", node=node)
        try:
            yield RecordReader(aiter(reply.payload)), replies
        except (StreamClosed, EndedEarly):
            async for _ in replies:
                pass
            raise
        await replies.end()
        async for _ in replies:
            pass
