"""The queue of a full link: fair queueing of flows, with a bound in bytes.

Frames that the socket gave back go first, then control frames, then the flows in turn, one frame each, so that a small
message does not wait behind a large transfer. A flow is what one source sends to one destination, large frames and
small ones apart. If there is no room for a frame, the flow with most bytes drops its last ones; their source gets an
UNREACHABLE, and retransmits them at a lower rate (control heals by the digests in the PROBEs). That flow is found by a
heap of sizes with lazy deletion.
"""

from __future__ import annotations

import heapq
from collections import deque

from zmesh.core.limits import TokenBucket
from zmesh.core.message import NodeId
from zmesh.core.wire import Frames, size_of

MAX_QUEUED_BYTES = 16 * 1024 * 1024
FRAME_OVERHEAD = 256
BULK = 16 * 1024
SPARE_SIZES = 64

Flow = tuple[str, str, bool]


def weigh(frames: Frames) -> int:
    """The size of a frame in a queue, in bytes."""
    return size_of(frames) + FRAME_OVERHEAD


class _Waiting:
    """The queued frames of one flow."""

    __slots__ = ("frames", "size_bytes")

    def __init__(self) -> None:
        self.frames: deque[Frames] = deque()
        self.size_bytes = 0


class Queue:
    """The queue of one link; empty unless the link is full, or was lately."""

    __slots__ = ("_control", "_flows", "_given_back", "_returned", "_sizes", "full", "is_watched", "size_bytes")

    def __init__(self) -> None:
        self._returned: deque[Frames] = deque()
        self._given_back = 0
        self._control: deque[Frames] = deque()
        self._flows: dict[Flow, _Waiting] = {}
        self._sizes: list[tuple[int, Flow]] = []
        self.full = False
        self.is_watched = False
        """Whether the engine looks at all packets for this link, though it takes them."""
        self.size_bytes = 0

    def __bool__(self) -> bool:
        return self.full or self.size_bytes > 0

    def give_back(self, frames: Frames) -> None:
        """Queue a frame that the socket did not take, ahead of all others; several in the order of the calls."""
        self.full = True
        self._returned.insert(self._given_back, frames)
        self._given_back += 1
        self.size_bytes += weigh(frames)

    def push(self, frames: Frames, flow: Flow | None) -> list[Frames]:
        """Queue a frame; `flow` None is control. Returns the frames that were dropped for it, maybe this one."""
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
        """Take out the next frame, or None."""
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
        """Raise AssertionError if the byte counts are not those of the frames."""
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
        """The flow with most bytes, or None."""
        while self._sizes:
            size, flow = self._sizes[0]
            waiting = self._flows.get(flow)
            if waiting is not None and waiting.size_bytes == -size:
                return flow
            if waiting is not None and waiting.size_bytes < -size:
                heapq.heapreplace(self._sizes, (-waiting.size_bytes, flow))
            else:  # it is gone, or has grown, which has an entry of its own
                heapq.heappop(self._sizes)
        return None

    def _give_up(self, flow: Flow) -> Frames:
        """Drop the last frame of a flow."""
        waiting = self._flows[flow]
        frames = waiting.frames.pop()
        weight = weigh(frames)
        waiting.size_bytes -= weight
        self.size_bytes -= weight
        if not waiting.frames:
            del self._flows[flow]
        return frames


class Port:
    """The forwarding state of one link: its queue, and the node at its other end once that has sent its HELLO.

    `seals`: the node is a leaf with a certificate or a grant, which seals for itself; `granted`: with a grant.
    `error_frames` limits the
    UNREACHABLEs and EXPIREDs about frames of this link (as RFC 1812 section 4.3.2.8 does). `blocked`: what the event
    loop of the node is blocked in, empty if it is not.
    """

    __slots__ = ("blocked", "error_frames", "granted", "leaf", "node", "queue", "seals")

    def __init__(self, error_frames: TokenBucket) -> None:
        self.node: NodeId | None = None
        self.leaf = self.seals = self.granted = False
        self.queue = Queue()
        self.error_frames = error_frames
        self.blocked = ""

    def may_answer(self, now: float) -> bool:
        """Take a token for an UNREACHABLE or EXPIRED about a frame of this port; False if there is none."""
        if not self.error_frames.has(now):
            return False
        self.error_frames.spend(1)
        return True

    def set_blocked(self, text: str) -> None:
        """The event loop of the node is blocked in `text`, or (empty) it is not any more."""
        self.blocked = text
        self.queue.is_watched = bool(text)
