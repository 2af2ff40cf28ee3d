"""Packets that wait for others, to leave with them in one batch.

Nothing waits by itself: the shell holds packets back while it performs several effects, or has more messages to read,
and sends what has come together when that is done. A single packet goes out at once.
"""

from __future__ import annotations

from zmesh.core.message import LinkId
from zmesh.core.wire import LENGTH_BYTES, MAX_BATCH_BYTES, MAX_BATCHED, Frames, is_batchable


class Batches:
    """Packets that are `waiting` to leave, by link. `links` are those whose other end takes batches."""

    __slots__ = ("_room", "links", "waiting")

    def __init__(self) -> None:
        self.links: set[LinkId] = set()
        self.waiting: dict[LinkId, list[Frames]] = {}
        self._room: dict[LinkId, int] = {}

    def hold(self, link: LinkId, frames: Frames) -> bool:
        """Hold a packet back; False if it can't be in a batch with those that wait, and so has to follow them."""
        if link not in self.links or not is_batchable(frames):
            return False
        size = len(frames[0]) + LENGTH_BYTES
        waiting = self.waiting.get(link)
        if waiting is None:
            if size > MAX_BATCH_BYTES:
                return False
            self.waiting[link], self._room[link] = [frames], MAX_BATCH_BYTES - size
            return True
        room = self._room[link] - size
        if room < 0 or len(waiting) == MAX_BATCHED:
            return False
        waiting.append(frames)
        self._room[link] = room
        return True

    def take(self, link: LinkId) -> list[Frames]:
        """Take out what waits for a link, in order."""
        return self.waiting.pop(link, [])

    def take_all(self) -> dict[LinkId, list[Frames]]:
        """Take out all that waits."""
        waiting, self.waiting = self.waiting, {}
        return waiting
