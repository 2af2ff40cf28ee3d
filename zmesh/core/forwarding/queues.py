"""What a full link can't take, and in which order it goes later.

A link whose socket is full is not a failure but a fact. What it gave back goes first, then control, then the flows in
turn, one frame each, so that a small message does not wait behind a large transfer. A flow is what one source sends to
one destination, large frames and small ones apart. Bytes are bounded. When there is no room for a frame, the flow that
has most of them waiting gives up its last ones; their source is told, and sends them again more slowly (control heals
by the digests in the probes). That flow is found by a heap of sizes; one that is no longer true is corrected when it
comes to the top.
"""

from __future__ import annotations

import heapq
from collections import deque

from zmesh.core.wire import Frames

MAX_QUEUED_BYTES = 16 * 1024 * 1024
FRAME_OVERHEAD = 256
BULK = 16 * 1024
SPARE_SIZES = 64

Flow = tuple[str, str, bool]


def weigh(frames: Frames) -> int:
    """What a frame counts in a queue, in bytes."""
    return len(frames[1]) + len(frames[2]) + FRAME_OVERHEAD


class _Waiting:
    """What waits of one flow."""

    __slots__ = ("frames", "size_bytes")

    def __init__(self) -> None:
        self.frames: deque[Frames] = deque()
        self.size_bytes = 0


class Queue:
    """The queue of one link; it exists for every link and is empty on all that keep up."""

    __slots__ = ("_control", "_flows", "_given_back", "_returned", "_sizes", "full", "size_bytes")

    def __init__(self) -> None:
        self._returned: deque[Frames] = deque()
        self._given_back = 0
        self._control: deque[Frames] = deque()
        self._flows: dict[Flow, _Waiting] = {}
        self._sizes: list[tuple[int, Flow]] = []
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

    def push(self, frames: Frames, flow: Flow | None) -> list[Frames]:
        """Keep a frame; `flow` None is control. Returns the frames that had to go for want of room, maybe this one."""
        weight = weigh(frames)
        refused: list[Frames] = []
        while self.size_bytes + weight > MAX_QUEUED_BYTES:
            largest = self._largest()
            own = self._flows.get(flow) if flow is not None else None
            if largest is None or (
                flow is not None and self._flows[largest].size_bytes < (own.size_bytes if own else 0) + weight
            ):
                return [*refused, frames]
            refused.append(self._give_up(largest))
        self.size_bytes += weight
        if flow is None:
            self._control.append(frames)
        else:
            waiting = self._flows.get(flow)
            if waiting is None:
                waiting = self._flows[flow] = _Waiting()
            waiting.frames.append(frames)
            waiting.size_bytes += weight
            self._note_size(flow, waiting)
        return refused

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
            frames = waiting.frames.popleft()
            waiting.size_bytes -= weigh(frames)
            if waiting.frames:
                self._flows[flow] = waiting
        else:
            return None
        self.size_bytes -= weigh(frames)
        return frames

    def check(self) -> None:
        """Raise AssertionError if the count of bytes is not what is there."""
        for waiting in self._flows.values():
            if not waiting.frames or sum(weigh(frames) for frames in waiting.frames) != waiting.size_bytes:
                raise AssertionError("a flow's size is not that of its frames")
        noted = {flow for size, flow in self._sizes if flow in self._flows and -size >= self._flows[flow].size_bytes}
        if noted != set(self._flows):
            raise AssertionError("a flow that would not be found if it were the largest")
        kept = sum(weigh(frames) for frames in (*self._returned, *self._control))
        if kept + sum(waiting.size_bytes for waiting in self._flows.values()) != self.size_bytes:
            raise AssertionError("a queue's size is not that of its frames")

    def _note_size(self, flow: Flow, waiting: _Waiting) -> None:
        heapq.heappush(self._sizes, (-waiting.size_bytes, flow))
        if len(self._sizes) > 2 * len(self._flows) + SPARE_SIZES:
            self._sizes = [(-each.size_bytes, flow) for flow, each in self._flows.items()]
            heapq.heapify(self._sizes)

    def _largest(self) -> Flow | None:
        """The flow that has most bytes waiting, or None if there is none."""
        while self._sizes:
            size, flow = self._sizes[0]
            waiting = self._flows.get(flow)
            if waiting is not None and waiting.size_bytes == -size:
                return flow
            if waiting is not None and waiting.size_bytes < -size:
                heapq.heapreplace(self._sizes, (-waiting.size_bytes, flow))
            else:  # it is gone, or has grown, and that is noted as well
                heapq.heappop(self._sizes)
        return None

    def _give_up(self, flow: Flow) -> Frames:
        """Take out the last frame of a flow."""
        waiting = self._flows[flow]
        frames = waiting.frames.pop()
        weight = weigh(frames)
        waiting.size_bytes -= weight
        self.size_bytes -= weight
        if not waiting.frames:
            del self._flows[flow]
        return frames
