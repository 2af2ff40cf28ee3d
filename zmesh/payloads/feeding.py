"""What both sides of an exchange share: the node as they see it, and moving a payload into a stream as it has room."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Protocol

from zmesh.core.message import Eof, MessageId, ReplyHeader, Stream
from zmesh.payloads.source import Source
from zmesh.runtime import ThreadPool

READ_BYTES = 256 * 1024


class Desk(Protocol):
    """What the two sides of an exchange need of their node."""

    node_id: str
    spool_dir: str | None
    max_payload_bytes: int
    disk: ThreadPool

    def reply(
        self, id: MessageId, header: ReplyHeader | None, body: bytes, *, last: bool = True, eof: Eof | None = None
    ) -> None:
        """Answer a request; nothing happens if the requester is gone."""

    def feed(self, stream: Stream, body: bytes, *, last: bool) -> None:
        """More of the message that is open on a stream."""

    def release_credit(self, stream: Stream, credit: int) -> None:
        """A delivered piece has been read, and there is room for more."""

    def cancel(self, message_id: str) -> None:
        """Stop a request of this node."""

    def is_open(self, stream: Stream) -> bool:
        """Whether the stream may take more."""

    def room(self, stream: Stream) -> int:
        """How many bytes the stream takes now."""

    async def room_for(self, stream: Stream) -> int:
        """Wait until the stream takes more; 0 if it is over."""

    def spawn(self, coroutine: Coroutine[object, object, None], name: str, feeds: Stream | None = None) -> None:
        """Run something in the node's task group; what feeds a stream is cancelled when that is over."""


async def send_source(feeder: Desk, stream: Stream, source: Source) -> None:
    """Feed all of `source` into the message that is open on `stream`, end the message, and close the source.

    Ends early when the exchange does. Raises what reading the source raises.
    """
    try:
        while feeder.is_open(stream):
            room = await feeder.room_for(stream)
            if not room:
                return
            data = await source.read(min(room, READ_BYTES))
            feeder.feed(stream, data, last=not data)
            if not data:
                return
    finally:
        source.close()
