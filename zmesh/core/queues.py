"""What a full link can't take, and in which order it goes later.

A link whose socket is full is not a failure but a fact. What it gave back goes first, then control, then the flows in
turn, one frame each, so that a small message does not wait behind a large transfer. A flow is what one source sends to
one destination, large frames and small ones apart. Bytes are bounded; what is past the bound is refused, and its
stream's owner sends it again (control heals by the digests in the probes).
"""

from __future__ import annotations

from collections import deque

from zmesh.core.message import Address
from zmesh.core.wire import Frames

MAX_QUEUED_BYTES = 16 * 1024 * 1024
FRAME_OVERHEAD = 256
BULK = 16 * 1024

Flow = tuple[Address, Address, bool]


def weigh(frames: Frames) -> int:
    """What a frame counts in a queue, in bytes."""
    return len(frames[1]) + len(frames[2]) + FRAME_OVERHEAD


class Queue:
    """The queue of one link; it exists for every link and is empty on all that keep up."""

    __slots__ = ("_control", "_flows", "_given_back", "_returned", "full", "size_bytes")

    def __init__(self) -> None:
        self._returned: deque[Frames] = deque()
        self._given_back = 0
        self._control: deque[Frames] = deque()
        self._flows: dict[Flow, deque[Frames]] = {}
        self.full = False
        self.size_bytes = 0

    def __bool__(self) -> bool:
        return self.full or self.size_bytes > 0

    def give_back(self, frames: Frames) -> None:
        """Keep a frame that the socket did not take, ahead of all that waits here; several in the order they come."""
        self.full = True
        self._returned.insert(self._given_back, frames)
        self._given_back += 1
        self.size_bytes += weigh(frames)

    def push(self, frames: Frames, flow: Flow | None) -> bool:
        """Keep a frame; `flow` None is control. False if there is no room for it."""
        weight = weigh(frames)
        if self.size_bytes + weight > MAX_QUEUED_BYTES:
            return False
        self.size_bytes += weight
        if flow is None:
            self._control.append(frames)
        else:
            self._flows.setdefault(flow, deque()).append(frames)
        return True

    def pop(self) -> Frames | None:
        """Take out what goes next, or None."""
        self._given_back = 0
        if self._returned:
            frames = self._returned.popleft()
        elif self._control:
            frames = self._control.popleft()
        elif self._flows:
            flow = next(iter(self._flows))
            waiting = self._flows.pop(flow)
            frames = waiting.popleft()
            if waiting:
                self._flows[flow] = waiting
        else:
            return None
        self.size_bytes -= weigh(frames)
        return frames

    def check(self) -> None:
        """Raise AssertionError if the count of bytes is not what is there."""
        kept = [
            *self._returned,
            *self._control,
            *(frames for waiting in self._flows.values() for frames in waiting),
        ]
        if sum(weigh(frames) for frames in kept) != self.size_bytes or not all(self._flows.values()):
            raise AssertionError("a queue's size is not that of its frames")
