"""The last events of one node, in memory and, where it has a folder of state, on its disk: `zmesh:events` shows them.

Of each kind so many are kept a second and no more (RATE), so that a link that flaps does not push all others out. A
peer that can't be dialled is one event for each reason. Leaves, such as commands, have none. What follows the events
of a node has a queue of MAX_UNREAD; of one that is slower the oldest are dropped, and it gets their number.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from zmesh.core.effects import Report
from zmesh.core.limits import Limits, Rate, TokenBucket
from zmesh.core.message import Address, LinkId, NodeId
from zmesh.errors import NodeOverloaded, RemoteError
from zmesh.operate.directives import EVENTS
from zmesh.operate.node_event import NodeEvent, event_of
from zmesh.runtime import ThreadPool
from zmesh.serving import member_of

if TYPE_CHECKING:
    from pathlib import Path

    from zmesh.operate.event_store import EventStore
    from zmesh.serving import Directives, Work

KEPT = 4_000
"""Events that a node keeps."""
RATE = Rate(2, 100)
"""Events of one kind."""
WRITE_AFTER = 1.0
"""Seconds after an event until it is on the disk, with all others until then."""
MAX_UNREAD = 1_000
"""Events that wait for one follower."""
MAX_FOLLOWERS = 32
MAX_FOLLOWERS_PER_NODE = 24
"""Of those, followers at one node."""
BATCH = 200
"""Events in one reply."""
MAX_REASONS = 1_024
"""Peers whose last dial failure is remembered."""
DEFAULT_LAST = 50
MAX_ASKED = 4_096
"""Bytes of the payload of a request."""
LATEST = 1e15
"""Seconds since 1970 that a time is below, in either direction."""
_ASKED = ("since", "last", "follow")
CLOSE_WITHIN = 1.0
_LOST = "events_lost"


class _Follower:
    """One request that follows the events: those that it has not taken yet, and how many are lost to it."""

    __slots__ = ("lost", "member", "unread", "waiter")

    def __init__(self, member: str) -> None:
        self.member = member
        self.unread: deque[NodeEvent] = deque()
        self.lost = 0
        self.waiter: asyncio.Event = asyncio.Event()

    def put(self, event: NodeEvent) -> bool:
        """Queue an event; False if another one had to go for it."""
        fits = len(self.unread) < MAX_UNREAD
        if not fits:
            self.unread.popleft()
            self.lost += 1
        self.unread.append(event)
        self.waiter.set()
        return fits

    async def take(self) -> list[NodeEvent]:
        """The next events, once there are some."""
        await self.waiter.wait()
        taken = [self.unread.popleft() for _ in range(min(BATCH, len(self.unread)))]
        if not self.unread:
            self.waiter.clear()
        return taken


class EventLog:
    """The events of one node. `folder`: where they are kept; None: in memory alone."""

    def __init__(
        self,
        node_id: str,
        folder: Path | None,
        directives: Directives,
        limits: Limits,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.node_id = node_id
        self.lost = 0
        """Events that were dropped because a follower was slow."""
        self._clock = clock
        self._events: deque[NodeEvent] = deque(maxlen=KEPT)
        self._number = 0
        self._buckets: dict[str, TokenBucket] = {}
        self._left_out: dict[str, int] = {}
        self._ends: dict[LinkId, tuple[str, bool]] = {}
        self._leaves: set[LinkId] = set()
        self._reasons: dict[str, str] = {}
        self._followers: set[_Follower] = set()
        self._rows = TokenBucket(limits.shown_rows, time.monotonic())
        self._folder = folder
        self._store: EventStore | None = None
        self._threads: ThreadPool | None = None
        self._unwritten: list[NodeEvent] = []
        self._timer: asyncio.TimerHandle | None = None
        directives.register(EVENTS, self._serve)

    # -- open and close ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read what the last run of the node has left."""
        if self._folder is not None:
            from zmesh.operate.event_store import EventStore  # here: many nodes have no folder

            self._threads = ThreadPool(1, "zmesh-events")
            store = EventStore(self._folder, KEPT)
            former = await self._threads.call(store.load)
            self._store = store
            self._events.extend(former)
            self._number = former[-1].number if former else 0
        self.note(self._about("node_started", f"{self.node_id} has started"), _nowhere)

    async def close(self) -> None:
        """Write the unwritten events, and take no more; takes CLOSE_WITHIN seconds at most."""
        written: asyncio.Event = asyncio.Event()
        loop = asyncio.get_running_loop()

        def done() -> None:
            with suppress(RuntimeError):  # the loop is closed: there is no waiter
                loop.call_soon_threadsafe(written.set)

        threads = self._finish(done)
        if threads is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_WITHIN):
                    await written.wait()
                threads.join(CLOSE_WITHIN)  # it is idle, so this takes microseconds

    def close_now(self) -> None:
        """As `close`, but blocks meanwhile. Harmless when it is closed."""
        threads = self._finish(lambda: None)
        if threads is not None:
            threads.join(CLOSE_WITHIN)

    def _finish(self, done: Callable[[], None]) -> ThreadPool | None:
        """Have all of it written, and `done` called in the thread then; None if there is no thread."""
        if self._threads is None:
            return None
        self.note(self._about("node_stopped", f"{self.node_id} has stopped"), _nowhere)
        threads, store, self._threads = self._threads, self._store, None
        if self._timer is not None:
            self._timer.cancel()
        if store is not None:
            if self._unwritten:
                threads.run(partial(store.write, self._unwritten))
            threads.run(store.close)
            threads.run(done)
        else:
            done()
        threads.close()
        return threads

    # -- events --------------------------------------------------------------------------------------------------

    def note(self, report: Report, ends: Callable[[LinkId], tuple[str, bool]]) -> None:
        """Keep the event of a report; `ends` gives the address of a link's other end, and whether this node dialled."""
        if not self._is_event(report, ends):
            return
        now = time.monotonic()
        bucket = self._buckets.get(report.event)
        if bucket is None:
            bucket = self._buckets[report.event] = TokenBucket(RATE, now)
        if not bucket.has(now):
            self._left_out[report.event] = self._left_out.get(report.event, 0) + 1
            self._forget_link(report)
            return
        known = self._ends.get
        more = self._left_out.get(report.event, 0)
        event = event_of(report, self._number + 1, self._clock(), lambda link: known(link) or ends(link), more)
        self._forget_link(report)
        if event is None:
            return
        bucket.spend(1)
        self._left_out.pop(report.event, None)
        self._number += 1
        self._events.append(event)
        for follower in self._followers:
            self.lost += not follower.put(event)
        if self._threads is not None:
            self._unwritten.append(event)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(WRITE_AFTER, self._write)

    def _forget_link(self, report: Report) -> None:
        if report.event == "link_lost" and report.link is not None:
            self._ends.pop(report.link, None)

    def _is_event(self, report: Report, ends: Callable[[LinkId], tuple[str, bool]]) -> bool:
        """Whether a report is worth an event: not one about a leaf, nor a reason that is known."""
        link = report.link
        match report.event:
            case "link_up" if link is not None:
                if report.detail == "leaf":
                    self._leaves.add(link)
                    return False
                self._ends[link] = ends(link)
                self._reasons.pop(self._ends[link][0], None)
            case "link_lost" if link is not None and link in self._leaves:
                self._leaves.discard(link)
                return False
            case "dial_failed":
                url, _, reason = report.detail.partition(": ")
                if self._reasons.get(url) == reason:
                    return False
                self._reasons[url] = reason
                if len(self._reasons) > MAX_REASONS:
                    del self._reasons[next(iter(self._reasons))]
        return True

    def _write(self) -> None:
        self._timer = None
        events, self._unwritten = self._unwritten, []
        if events and self._threads is not None and self._store is not None:
            self._threads.run(partial(self._store.write, events))

    def _about(self, kind: str, text: str) -> Report:
        return Report(kind, NodeId(Address(self.node_id)), None, text)

    # -- the directive -------------------------------------------------------------------------------------------

    async def _serve(self, work: Work) -> AsyncGenerator[dict[str, object], None]:
        """The events that the payload asks for, in batches, and with `follow` all that come."""
        if len(work.payload) > MAX_ASKED:
            raise RemoteError(f"{EVENTS} takes {MAX_ASKED} bytes at most")
        since, last, follow = _asked(work.payload.json() if work.payload else {})
        member = member_of(work.sender)
        if follow:
            self._check_followers(member)
        if not self._rows.has(time.monotonic()):
            text = f"node {self.node_id!r} has shown as much as it does in a second; try again in one"
            raise NodeOverloaded(text, limit="shown_rows")
        follower = _Follower(member)
        if follow:
            self._followers.add(follower)
        try:
            chosen = [event for event in self._events if event.time >= since]
            chosen = chosen[len(chosen) - last :] if last is not None and last < len(chosen) else chosen
            self._rows.spend(max(1, len(chosen)))
            for batch in _batches(chosen):
                yield self._reply(batch)
            while follow:
                events = await follower.take()
                lost, follower.lost = follower.lost, 0
                if lost:
                    text = f"{lost} events were not read in time, and are gone"
                    events.insert(0, NodeEvent(events[0].number, events[0].time, _LOST, "", "", text))
                yield self._reply(events)
        finally:
            self._followers.discard(follower)

    def _check_followers(self, member: str) -> None:
        """Raises NodeOverloaded if too many follow."""
        own = sum(each.member == member for each in self._followers)
        if len(self._followers) >= MAX_FOLLOWERS:
            many, limit = f"{MAX_FOLLOWERS} requests", "event_followers"
        elif own >= MAX_FOLLOWERS_PER_NODE:
            many, limit = f"{own} requests of {member!r}", "event_followers_per_node"
        else:
            return
        raise NodeOverloaded(f"{many} follow {self.node_id!r} already; ask without following", limit=limit)

    def _reply(self, events: Iterable[NodeEvent]) -> dict[str, object]:
        shown = [event.to_json() for event in events]
        return {"schema": "zmesh.events/1", "node": self.node_id, "events": shown}


def _batches(events: list[NodeEvent]) -> Iterable[list[NodeEvent]]:
    for at in range(0, max(1, len(events)), BATCH):
        yield events[at : at + BATCH]


def _asked(asked: object) -> tuple[float, int | None, bool]:
    """From when on, how many at most, and whether to follow. Raises RemoteError for malformed ones."""
    if not isinstance(asked, dict):
        raise RemoteError(f'{EVENTS} takes an object such as {{"since": 1796123559.0, "last": 50, "follow": true}}')
    for key in asked:
        if key not in _ASKED:
            raise RemoteError(f"{EVENTS} takes no {key!r}; it takes {', '.join(_ASKED)}")
    since, last, follow = asked.get("since"), asked.get("last"), asked.get("follow", False)
    if since is not None and (
        isinstance(since, bool) or not isinstance(since, (int, float)) or not abs(since) < LATEST
    ):
        raise RemoteError("since is a number: seconds since 1970")
    if last is not None and (isinstance(last, bool) or not isinstance(last, int) or last < 0):
        raise RemoteError("last is a number of events")
    if not isinstance(follow, bool):
        raise RemoteError("follow is true or false")
    if since is None and last is None:
        last = DEFAULT_LAST
    return float(since or 0.0), last, follow


def _nowhere(link: LinkId) -> tuple[str, bool]:
    return "", False
