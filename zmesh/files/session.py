"""A copy as its client opens it: a request to `file:read`, `file:write` or `file:granted`, and its two streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from zmesh.errors import RemoteError, StreamClosed
from zmesh.files.records import EndedEarly, Kind, RecordReader, pack, record

if TYPE_CHECKING:
    from zmesh.requests import ReplyStream
    from zmesh.serving import OpenStream

READ, WRITE, GRANTED = "file:read", "file:write", "file:granted"


@asynccontextmanager
async def session(
    open_stream: OpenStream, node: str, directive: str, start: Mapping[str, Any], route_timeout: float | None
) -> AsyncIterator[tuple[RecordReader, ReplyStream]]:
    """The records of the node, and the request, which is written to.

    Raises as the request does, also in the place of what its end has brought about in the block.
    """
    begin = record(Kind.START, pack(start))
    request: ReplyStream = open_stream(
        node, directive, begin, route_timeout=route_timeout, buffered=False, writable=True
    )
    async with request as replies:
        reply = await anext(replies, None)
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
