"""The distance-vector table, free of loops at every instant.

For each destination a node keeps a *feasibility distance*: the sequence number and the smallest metric that it ever
held under it. It adopts a neighbour as next hop only if what that neighbour told is feasible, i.e. has a newer
sequence number, or the same one and a metric strictly below the feasibility distance. Why that rules out loops: a
neighbour never tells a metric below its own feasibility distance, so the distance of a next hop is strictly smaller
than that of the node that chose it, and since distances only ever shrink (until the sequence number grows, which comes
before any metric) that stays true whatever is lost, late or down. Distances that strictly fall along a path cannot
come round in a circle. This is the feasibility condition of RFC 8966 (section 3.5.1), after EIGRP's.

Feasibility can leave a node without a route although there is a path: starvation. Then, and when a better path is not
feasible, the node asks the destination for a new sequence number (SEQNO_REQUEST, RFC 8966 section 3.8), which makes
every path to it feasible again. A next hop may keep its place when its metric grows past the feasibility distance,
because the distances along the path are unchanged by that.
"""

from __future__ import annotations

from typing import NamedTuple

from zmesh.core.message import LinkId, NodeId
from zmesh.core.timers import Alarm, Timers
from zmesh.core.wire import INFINITY, MAX_HOPS, MAX_TTL, Entry, SeqnoRequest, entry_digest

COALESCE = 0.010
KEEP_DISTANCE = 180.0
REQUEST_AGAIN = 0.250
REQUEST_AGAIN_MAX = 2.0
REQUEST_PATIENCE = 0.060
REQUEST_MEMORY = 0.200
MAX_SEQNO_LEAP = 1 << 60
_MODULUS = 1 << 64


class Selected(NamedTuple):
    """The route in use to one destination; `metric` and `hops` count from this node."""

    link: LinkId
    incarnation: int
    seqno: int
    metric: int
    hops: int
    since: float


class Change(NamedTuple):
    """The route in use to `destination` was `before` and is `after`; None: there is none."""

    destination: NodeId
    before: Selected | None
    after: Selected | None


class _Neighbour:
    """What one link told us, and what we told it."""

    __slots__ = ("cost", "heard", "heard_digest", "stale", "told", "told_digest", "whole")

    def __init__(self, cost: int) -> None:
        self.cost = cost
        self.heard: dict[NodeId, Entry] = {}
        self.heard_digest = 0
        self.told: dict[NodeId, Entry] = {}
        self.told_digest = 0
        self.whole = True
        self.stale: set[NodeId] | None = None


class Routes:
    """The routes of one node. `seqno` is where its own sequence number starts."""

    def __init__(self, node: NodeId, incarnation: int, seqno: int, alarm: Alarm) -> None:
        self.node = node
        self._alarm = alarm
        self._own = Entry(node, incarnation, seqno, 0, 0)
        self._neighbours: dict[LinkId, _Neighbour] = {}
        self._candidates: dict[NodeId, dict[LinkId, Entry]] = {}
        self._distances: dict[NodeId, tuple[int, int]] = {}
        self._selected: dict[NodeId, Selected] = {}
        self.dirty: dict[NodeId, None] = {}
        """The destinations that `select` has to look at."""
        self._untold: dict[NodeId, None] = {node: None}
        self._flush_at: float | None = None
        self._forget: Timers[NodeId] = Timers(alarm)
        self._wanting: Timers[NodeId] = Timers(alarm)
        self._asked: dict[NodeId, int] = {}
        self._requests: list[tuple[LinkId, SeqnoRequest]] = []
        self._passed_on: Timers[tuple[NodeId, int]] = Timers(alarm)
        self.changed_at = 0.0

    # -- reading -------------------------------------------------------------------------------------------------

    def get(self, destination: NodeId) -> Selected | None:
        """The route in use, or None."""
        return self._selected.get(destination)

    def table(self) -> dict[NodeId, Selected]:
        """All routes in use."""
        return dict(self._selected)

    def distance(self, destination: NodeId) -> tuple[int, int] | None:
        """The feasibility distance, as (seqno, metric)."""
        return self._distances.get(destination)

    def others(self, destination: NodeId) -> list[tuple[LinkId, int, bool]]:
        """The other links that lead there: the metric over each, and whether it is feasible; the cheapest first."""
        selected = self._selected.get(destination)
        found = [
            (link, entry.metric + neighbour.cost, self._feasible(entry))
            for link, neighbour in self._neighbours.items()
            if (selected is None or link != selected.link) and (entry := neighbour.heard.get(destination)) is not None
        ]
        return sorted(found, key=lambda other: other[1])

    def told_digest(self, link: LinkId) -> int:
        """The digest of what was last told on that link."""
        neighbour = self._neighbours.get(link)
        return neighbour.told_digest if neighbour else 0

    def heard_digest(self, link: LinkId) -> int:
        """The digest of what was heard on that link."""
        neighbour = self._neighbours.get(link)
        return neighbour.heard_digest if neighbour else 0

    @property
    def seqno(self) -> int:
        """This node's own sequence number."""
        return self._own.seqno

    # -- what happens --------------------------------------------------------------------------------------------

    def link_up(self, link: LinkId, cost: int, now: float) -> None:
        """A link to a neighbour is up; it is told the whole table at once."""
        self._neighbours[link] = _Neighbour(cost)
        self._flush_at = now
        self._alarm.at(now)

    def link_down(self, link: LinkId) -> None:
        """The link is down, and with it all that was heard on it."""
        neighbour = self._neighbours.pop(link, None)
        if neighbour is None:
            return
        for destination in neighbour.heard:
            self._drop_candidate(destination, link)

    def set_cost(self, link: LinkId, cost: int) -> None:
        """The cost of a link has changed."""
        neighbour = self._neighbours.get(link)
        if neighbour is not None and neighbour.cost != cost:
            neighbour.cost = cost
            self.dirty.update(dict.fromkeys(neighbour.heard))

    def resend(self, link: LinkId, now: float) -> None:
        """Tell that neighbour the whole table once more."""
        neighbour = self._neighbours.get(link)
        if neighbour is not None:
            neighbour.told, neighbour.told_digest, neighbour.whole = {}, 0, True
            self._flush_at = now
            self._alarm.at(now)

    def update(self, link: LinkId, entries: tuple[Entry, ...], *, begin: bool, end: bool) -> None:
        """Take in what a neighbour tells; `begin` and `end` bracket a whole table, which replaces all before it."""
        neighbour = self._neighbours.get(link)
        if neighbour is None:
            return
        if begin:
            neighbour.stale = set(neighbour.heard)
        for entry in entries:
            if neighbour.stale is not None:
                neighbour.stale.discard(entry.destination)
            self._hear(neighbour, link, entry)
        if end and neighbour.stale is not None:
            for destination in neighbour.stale:
                self._hear(neighbour, link, Entry(destination, 0, 0, INFINITY, 0))
            neighbour.stale = None

    def request(self, link: LinkId, request: SeqnoRequest, now: float) -> None:
        """A neighbour asks for a newer sequence number: give it, or pass the question on."""
        destination, seqno = request.destination, request.seqno
        if destination == self.node:
            if self._own.seqno < seqno <= self._own.seqno + MAX_SEQNO_LEAP:
                self._own = self._own._replace(seqno=seqno)
                self._tell(destination, now)
                self._hurry(now)  # somebody has no route meanwhile
            return
        selected = self._selected.get(destination)
        if selected is not None and selected.seqno >= seqno:
            neighbour = self._neighbours.get(link)
            if neighbour is not None and selected.link != link:
                self._untell(neighbour, destination)
                self._tell(destination, now)
            return
        if request.hops_left <= 1 or (destination, seqno) in self._passed_on:
            return
        self._passed_on.set((destination, seqno), now + REQUEST_MEMORY)
        self._ask(destination, seqno, request.hops_left - 1, but=link)

    # -- what follows --------------------------------------------------------------------------------------------

    def select(self, now: float) -> list[Change]:
        """Choose anew wherever something has changed."""
        changes: list[Change] = []
        while self.dirty:
            destination, _ = self.dirty.popitem()
            before = self._selected.get(destination)
            after = self._choose(destination, before, now)
            if after is not None:
                self._selected[destination] = after
                self._shrink_distance(destination, after)
                self._forget.cancel(destination)
            elif before is not None:
                del self._selected[destination]
                self._forget.set(destination, now + KEEP_DISTANCE)
            if before != after:
                self._tell(destination, now)
                if _path(before) != _path(after):
                    self.changed_at = now
                changes.append(Change(destination, before, after))
        return changes

    def flush(self, now: float) -> list[tuple[LinkId, list[Entry], bool]]:
        """What to tell on which link, and whether that is a whole table; empty before its time."""
        if self._flush_at is None or self._flush_at > now:
            return []
        self._flush_at = None
        untold, self._untold = self._untold, {}
        told: list[tuple[LinkId, list[Entry], bool]] = []
        for link, neighbour in self._neighbours.items():
            whole = neighbour.whole
            destinations = [self.node, *self._selected] if whole else list(untold)
            entries = [
                entry for destination in destinations if (entry := self._news(neighbour, link, destination)) is not None
            ]
            neighbour.whole = False
            if entries or whole:
                told.append((link, entries, whole))
        return told

    def requests(self, now: float) -> list[tuple[LinkId, SeqnoRequest]]:
        """The SEQNO_REQUESTs to send, on which link."""
        for destination in self._wanting.expire(now):
            self._want(destination, now)
        requests, self._requests = self._requests, []
        return requests

    def expire(self, now: float) -> None:
        """Forget what is too old to matter."""
        for destination in self._forget.expire(now):
            del self._distances[destination]
            if destination in self._candidates:
                self.dirty[destination] = None
        self._passed_on.expire(now)

    def next_deadline(self) -> float | None:
        """When `flush`, `requests` or `expire` has work."""
        deadlines = (
            self._flush_at,
            self._wanting.next_deadline(),
            self._forget.next_deadline(),
            self._passed_on.next_deadline(),
        )
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    # -- inside --------------------------------------------------------------------------------------------------

    def _hear(self, neighbour: _Neighbour, link: LinkId, entry: Entry) -> None:
        destination = entry.destination
        before = neighbour.heard.pop(destination, None)
        if before is not None:
            neighbour.heard_digest = (neighbour.heard_digest - entry_digest(before)) % _MODULUS
        if entry.metric < INFINITY:
            neighbour.heard[destination] = entry
            neighbour.heard_digest = (neighbour.heard_digest + entry_digest(entry)) % _MODULUS
            if destination != self.node:
                self._candidates.setdefault(destination, {})[link] = entry
                self.dirty[destination] = None
        elif before is not None:
            self._drop_candidate(destination, link)

    def _drop_candidate(self, destination: NodeId, link: LinkId) -> None:
        candidates = self._candidates.get(destination)
        if candidates is not None and candidates.pop(link, None) is not None:
            self.dirty[destination] = None
            if not candidates:
                del self._candidates[destination]

    def _feasible(self, entry: Entry) -> bool:
        distance = self._distances.get(entry.destination)
        if distance is None or entry.seqno > distance[0]:
            return True
        return entry.seqno == distance[0] and entry.metric < distance[1]

    def _choose(self, destination: NodeId, before: Selected | None, now: float) -> Selected | None:
        best: tuple[int, bool, LinkId, Entry] | None = None
        blocked = INFINITY
        for link, entry in self._candidates.get(destination, {}).items():
            metric = entry.metric + self._neighbours[link].cost
            current = before is not None and before.link == link
            if metric >= INFINITY or entry.hops >= MAX_HOPS:
                continue
            if not (self._feasible(entry) or (current and before is not None and entry.seqno == before.seqno)):
                blocked = min(blocked, metric)
            elif best is None or (metric, not current, link) < best[:3]:
                best = (metric, not current, link, entry)
        self._mind_starvation(destination, best[0] if best else INFINITY, blocked, now)
        if best is None:
            return None
        metric, moved, link, entry = best
        since = now if moved or before is None else before.since
        return Selected(link, entry.incarnation, entry.seqno, metric, entry.hops + 1, since)

    def _mind_starvation(self, destination: NodeId, best: int, blocked: int, now: float) -> None:
        if blocked >= best:
            self._wanting.cancel(destination)
            self._asked.pop(destination, None)
        elif best == INFINITY and destination not in self._asked:
            self._wanting.set(destination, now)
        else:
            self._wanting.set_default(destination, now + REQUEST_PATIENCE)

    def _want(self, destination: NodeId, now: float) -> None:
        """Ask for a newer sequence number, and again after a while that doubles, as long as it is wanted."""
        tries = self._asked[destination] = self._asked.get(destination, 0) + 1
        seqno, _ = self._distances[destination]
        self._passed_on.set((destination, seqno + 1), now + REQUEST_MEMORY)
        self._ask(destination, seqno + 1, MAX_TTL, but=None)
        self._wanting.set(destination, now + min(REQUEST_AGAIN_MAX, REQUEST_AGAIN * 2 ** min(tries, 10)))

    def _ask(self, destination: NodeId, seqno: int, hops_left: int, *, but: LinkId | None) -> None:
        request = SeqnoRequest(destination, seqno, hops_left)
        selected = self._selected.get(destination)
        if selected is not None and selected.link != but:
            self._requests.append((selected.link, request))
            if but is not None:
                return
        for link in self._candidates.get(destination, {}):
            if link != but and (selected is None or link != selected.link):
                self._requests.append((link, request))

    def _shrink_distance(self, destination: NodeId, selected: Selected) -> None:
        distance = self._distances.get(destination)
        if distance is None or selected.seqno > distance[0]:
            self._distances[destination] = (selected.seqno, selected.metric)
        elif selected.metric < distance[1]:
            self._distances[destination] = (distance[0], selected.metric)

    def _tell(self, destination: NodeId, now: float) -> None:
        self._untold[destination] = None
        if self._flush_at is None:
            self._flush_at = now + COALESCE
            self._alarm.at(self._flush_at)

    def _hurry(self, now: float) -> None:
        self._flush_at = now
        self._alarm.at(now)

    def _entry(self, link: LinkId, destination: NodeId) -> Entry | None:
        """What to tell on `link` of a destination: nothing of one that is reached over that very link."""
        if destination == self.node:
            return self._own
        selected = self._selected.get(destination)
        if selected is None or selected.link == link:
            return None
        return Entry(destination, selected.incarnation, selected.seqno, selected.metric, selected.hops)

    def _news(self, neighbour: _Neighbour, link: LinkId, destination: NodeId) -> Entry | None:
        entry, before = self._entry(link, destination), neighbour.told.get(destination)
        if entry == before:
            return None
        self._untell(neighbour, destination)
        if entry is None:
            return Entry(destination, 0, 0, INFINITY, 0)
        neighbour.told[destination] = entry
        neighbour.told_digest = (neighbour.told_digest + entry_digest(entry)) % _MODULUS
        return entry

    def _untell(self, neighbour: _Neighbour, destination: NodeId) -> None:
        before = neighbour.told.pop(destination, None)
        if before is not None:
            neighbour.told_digest = (neighbour.told_digest - entry_digest(before)) % _MODULUS

    def check(self) -> None:
        """Raise AssertionError if an invariant of the table does not hold."""
        if self.dirty:
            raise AssertionError("routes that wait to be chosen between two events")
        for destination, selected in self._selected.items():
            neighbour = self._neighbours.get(selected.link)
            entry = neighbour.heard.get(destination) if neighbour else None
            if neighbour is None or entry is None:
                raise AssertionError(f"a route to {destination!r} that no neighbour told")
            if selected.metric != entry.metric + neighbour.cost or selected.seqno != entry.seqno:
                raise AssertionError(f"the route to {destination!r} is not what the neighbour told")
            distance = self._distances[destination]
            if distance[0] != selected.seqno or distance[1] > selected.metric:
                raise AssertionError(f"the route to {destination!r} is past its feasibility distance")
        for link, neighbour in self._neighbours.items():
            for told, entries in ((neighbour.told_digest, neighbour.told), (neighbour.heard_digest, neighbour.heard)):
                if told != sum(entry_digest(entry) for entry in entries.values()) % _MODULUS:
                    raise AssertionError(f"a digest of link {link} is not the sum of its routes")
        for destination in self._distances:
            if destination not in self._selected and destination not in self._forget:
                raise AssertionError(f"a feasibility distance of {destination!r} that nothing will drop")


def _path(selected: Selected | None) -> tuple[LinkId, int] | None:
    return None if selected is None else (selected.link, selected.incarnation)
