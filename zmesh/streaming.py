"""Moving a payload from its source into a stream, as fast as the stream has room and no faster."""

from __future__ import annotations

from typing import Protocol

from zmesh.core.message import Stream
from zmesh.source import Source

READ_BYTES = 256 * 1024


class Feeder(Protocol):
    """A node, as far as a stream that is fed needs it."""

    async def room_for(self, stream: Stream) -> int: ...
    def feed(self, stream: Stream, body: bytes, *, last: bool) -> None: ...
    def is_open(self, stream: Stream) -> bool: ...


async def send_source(feeder: Feeder, stream: Stream, source: Source) -> None:
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
