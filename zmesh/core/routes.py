"""The distance-vector table, free of loops at every instant.

For each destination a node keeps a *feasibility distance*: the sequence number and the smallest metric that it ever
held under it. It tells its neighbours how far its metric is above that, and adopts one of them as next hop only if that
one's distance, as it was told, is smaller than its own: it has a newer number, or the same one and a lower metric. Why
that rules out loops: a distance only ever shrinks. So the distance of a next hop is below that of the node that chose
it, when it is chosen; whatever is lost, late or down, it stays so when the next hop's shrinks, and when the node's own
does, because that shrinks to the metric that its next hop told, which is not below the next hop's distance, plus the
cost of the link, which is at least 1. Distances that fall along a path cannot come round in a circle.

This is the feasibility condition of RFC 8966 (section 3.5.1), after EIGRP's, with one difference: there the metric that
a neighbour told is compared, here the distance. They are the same until something fails. Then all metrics beyond the
failure grow, and the distances show still who was nearer before; whoever was can be a next hop without further ado.

Feasibility can leave a node without a route although there is a path: starvation. Then, and when a better path is not
feasible, the node asks the destination for a new sequence number (SEQNO_REQUEST, RFC 8966 section 3.8), which makes
every path to it feasible again. A next hop whose metric grows stays feasible, because its distance does not grow.
"""

from __future__ import annotations

from typing import NamedTuple

from zmesh.core.message import LinkId, NodeId
from zmesh.core.telling import Selected, Telling, Update
from zmesh.core.timers import Alarm, Timers
from zmesh.core.wire import FULL_BEGIN, FULL_END, INFINITY, MAX_HOPS, MAX_TTL, Row, SeqnoRequest

KEEP_DISTANCE = 180.0
REQUEST_AGAIN = 0.250
REQUEST_HOP = 0.015
REQUEST_AGAIN_MAX = 2.0
REQUEST_PATIENCE = 0.015
ASKED_FIRST = 1
LAGGING_TRIES = 2
REQUEST_MEMORY = 0.2
LISTEN = 2.5
MAX_SEQNO_LEAP = 1 << 60
_ANY = LinkId(-1)


class Change(NamedTuple):
    """The route in use to `destination` was `before` and is `after`; None: there is none."""

    destination: NodeId
    before: Selected | None
    after: Selected | None


class _Neighbour:
    """What one link told us."""

    __slots__ = ("cost", "heard", "received", "stale")

    def __init__(self, cost: int) -> None:
        self.cost = cost
        self.heard: dict[NodeId, Row] = {}
        self.received = 0
        self.stale: set[NodeId] | None = None


class Routes:
    """The routes of one node. `seqno` is where its own sequence number starts."""

    def __init__(self, node: NodeId, incarnation: int, seqno: int, alarm: Alarm) -> None:
        self.node = node
        self._alarm = alarm
        self._own = Selected(LinkId(0), incarnation, seqno, 0, 0, 0.0)
        self._neighbours: dict[LinkId, _Neighbour] = {}
        self._distances: dict[NodeId, tuple[int, int]] = {}
        self._selected: dict[NodeId, Selected] = {}
        self.dirty: dict[NodeId, LinkId] = {}
        """The destinations that `select` has to look at, with the one link that offers something better, or _ANY."""
        self.telling = Telling(node, self._selected, alarm)
        self._forget: Timers[NodeId] = Timers(alarm)
        self._blocked: set[NodeId] = set()
        self._wanting: Timers[NodeId] = Timers(alarm)
        self._asked: dict[NodeId, int] = {}
        self._requests: dict[LinkId, list[SeqnoRequest]] = {}
        self._passed_on: Timers[tuple[NodeId, int, LinkId]] = Timers(alarm)
        self._askers: dict[NodeId, dict[LinkId, list[SeqnoRequest]]] = {}
        self._listening: Timers[NodeId] = Timers(alarm)
        self.changed_at = 0.0
        self.moved_at = 0.0

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
        distance = self._distances.get(destination)
        found = [
            (link, entry[3] + neighbour.cost, _is_feasible(entry, distance))
            for link, neighbour in self._neighbours.items()
            if (selected is None or link != selected.link) and (entry := neighbour.heard.get(destination)) is not None
        ]
        return sorted((other for other in found if other[1] < INFINITY), key=lambda other: other[1])

    def sent(self, link: LinkId) -> int:
        """How many UPDATEs were sent on that link."""
        return self.telling.sent(link)

    def received(self, link: LinkId) -> int:
        """How many UPDATEs the other end of the link had sent when its last one came, if none was lost on the way."""
        neighbour = self._neighbours.get(link)
        return neighbour.received if neighbour else 0

    @property
    def seqno(self) -> int:
        """This node's own sequence number."""
        return self._own.seqno

    # -- what happens --------------------------------------------------------------------------------------------

    def link_up(self, link: LinkId, cost: int, now: float) -> None:
        """A link to a neighbour is up, which is told the whole table at once; no route leads over one that costs
        INFINITY.
        """
        self._neighbours[link] = _Neighbour(cost)
        self.telling.link_up(link, now)

    def link_down(self, link: LinkId) -> None:
        """The link is down, and with it all that was heard on it."""
        neighbour = self._neighbours.pop(link, None)
        if neighbour is None:
            return
        self.telling.link_down(link)
        self._requests.pop(link, None)
        selected, dirty = self._selected, self.dirty
        for destination, _entry in neighbour.heard.items():
            current = selected.get(destination)
            if current is None or current.link == link or destination in self._blocked:
                dirty[destination] = _ANY

    def set_cost(self, link: LinkId, cost: int) -> None:
        """The cost of a link has changed."""
        neighbour = self._neighbours.get(link)
        if neighbour is not None and neighbour.cost != cost:
            neighbour.cost = cost
            self.dirty.update(dict.fromkeys(neighbour.heard, _ANY))

    def resend(self, link: LinkId, now: float) -> None:
        """Tell that neighbour the whole table once more."""
        self.telling.resend(link, now)

    def update(self, link: LinkId, full: int, number: int, entries: list[Row]) -> None:
        """Take in what a neighbour tells. FULL_BEGIN and FULL_END in `full` bracket a whole table, which replaces all
        before it; `number` is then the count of UPDATEs so far.
        """
        neighbour = self._neighbours.get(link)
        if neighbour is None:
            return
        neighbour.received += 1
        if full & FULL_BEGIN:
            neighbour.stale = set(neighbour.heard)
            neighbour.received = number
        if neighbour.stale is not None:
            neighbour.stale.difference_update([entry[0] for entry in entries])
        self._hear(neighbour, link, entries)
        if full & FULL_END and neighbour.stale is not None:
            self._hear(neighbour, link, [(destination, 0, 0, INFINITY, 0, 0) for destination in neighbour.stale])
            neighbour.stale = None

    def request(self, link: LinkId, request: SeqnoRequest, now: float) -> None:
        """A neighbour asks for a newer sequence number: give it, or pass the question on.

        The answer goes to who asked and to nobody else, since a newer number alone changes no route.
        """
        destination, seqno = request.destination, request.seqno
        if destination == self.node:
            if seqno <= self._own.seqno + MAX_SEQNO_LEAP:
                self._own = self._own._replace(seqno=max(seqno, self._own.seqno))
                self.telling.answer(link, destination, now)
            return
        selected = self._selected.get(destination)
        if selected is not None and selected.seqno >= seqno:
            if selected.link != link:
                self.telling.answer(link, destination, now)
            return
        self._remember(link, request, now)
        if request.hops_left > 1:
            onward = selected is not None and selected.link != link
            links = [selected.link] if selected is not None and onward else self._offers(destination, link)
            fresh = [link for link in links if (destination, seqno, link) not in self._passed_on]
            self._ask(SeqnoRequest(destination, seqno, request.hops_left - 1), fresh, now)

    # -- what follows --------------------------------------------------------------------------------------------

    def select(self, now: float) -> list[Change]:
        """Choose anew wherever something has changed."""
        changes: list[Change] = []
        dirty, selected = self.dirty, self._selected
        while dirty:
            destination, link = dirty.popitem()
            before = selected.get(destination)
            after = self._choose(destination, before, link, now)
            if after is None:
                if before is None:
                    continue
                del selected[destination]
                self._forget.set(destination, now + KEEP_DISTANCE)
            else:
                if before is None:
                    self._forget.cancel(destination)
                elif before == after:
                    continue
                selected[destination] = after
                newer = self._shrink_distance(destination, after)
                if destination in self._blocked and (newer or (before is not None and after[3] < before[3])):
                    self._asked.pop(destination, None)  # what was asked for has come, and is not enough any more
                    self._wanting.set_sooner(destination, now + REQUEST_PATIENCE)
            if destination in self._askers and after is not None:
                self._answer_askers(destination, after, now)
                if before is None or before.link != after.link:
                    self._pass_on_again(destination, after, now)
            if before is not None and after is not None and before[3:5] == after[3:5] and before[:2] == after[:2]:
                continue  # it is the same but for its number, which nobody needs who does not ask
            if self._may_be_undone(destination, before, after):
                self.telling.hold(destination, now)
            else:
                self.telling.changed(destination, now)
            self.moved_at = now
            if before is None or after is None or before[:2] != after[:2]:
                self.changed_at = now
            changes.append(Change(destination, before, after))
        return changes

    def flush(self, now: float) -> list[Update]:
        """What to tell on which links; empty before its time."""
        return self.telling.flush(self._own, now)

    def requests(self, now: float) -> dict[LinkId, list[SeqnoRequest]]:
        """The SEQNO_REQUESTs to send, on which link."""
        for destination in self._wanting.expire(now):
            self._want(destination, now)
        requests, self._requests = self._requests, {}
        self.telling.urgent = False
        return requests

    def expire(self, now: float) -> None:
        """Forget what is too old to matter."""
        for destination in self._forget.expire(now):
            del self._distances[destination]
            if destination in self._blocked:
                self.dirty[destination] = _ANY
        self._passed_on.expire(now)
        for destination in self._listening.expire(now):
            del self._askers[destination]

    def next_deadline(self) -> float | None:
        """When `flush`, `requests` or `expire` has work."""
        deadlines = (
            self.telling.next_deadline(),
            self._wanting.next_deadline(),
            self._forget.next_deadline(),
            self._passed_on.next_deadline(),
            self._listening.next_deadline(),
        )
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    # -- inside --------------------------------------------------------------------------------------------------

    def _hear(self, neighbour: _Neighbour, link: LinkId, entries: list[Row]) -> None:
        """Note what matters: another word on the route in use, something cheaper, or anything where we are wanting."""
        heard, cost, dirty, selected, blocked = (
            neighbour.heard,
            neighbour.cost,
            self.dirty,
            self._selected,
            self._blocked,
        )
        for entry in entries:
            destination, _, _, metric, hops, _ = entry
            if metric < INFINITY and hops < MAX_HOPS:
                heard[destination] = entry
                current = selected.get(destination)
                if current is None or current.link == link or destination in blocked:
                    dirty[destination] = _ANY
                elif metric + cost < current.metric:
                    dirty[destination] = link if dirty.get(destination, link) == link else _ANY
            elif heard.pop(destination, None) is not None:
                current = selected.get(destination)
                if current is None or current.link == link or destination in blocked:
                    dirty[destination] = _ANY
        heard.pop(self.node, None)
        dirty.pop(self.node, None)

    def _choose(self, destination: NodeId, before: Selected | None, only: LinkId, now: float) -> Selected | None:
        """The best feasible route; `only` names the one link that may be better than the route in use."""
        best, best_link, best_entry = INFINITY, _ANY, None
        blocked = INFINITY
        mine = before.link if before is not None else _ANY
        links: dict[LinkId, _Neighbour] | tuple[LinkId, LinkId] = self._neighbours if only == _ANY else (only, mine)
        distance = self._distances.get(destination)
        for link in links:
            neighbour = self._neighbours[link]
            entry = neighbour.heard.get(destination)
            if entry is None:
                continue
            total = entry[3] + neighbour.cost
            if _is_feasible(entry, distance):
                if total < best or (total == best and link == mine):
                    best, best_link, best_entry = total, link, entry
            elif total < blocked:
                blocked = total
        if blocked < best:
            self._starve(destination, best == INFINITY, now)
        elif destination in self._blocked:
            self._content(destination)
        if best_entry is None:
            return None
        since = before.since if before is not None and best_link == mine else now
        excess = 0 if distance is None or best_entry[2] > distance[0] else max(0, best - distance[1])
        return Selected(best_link, best_entry[1], best_entry[2], best, best_entry[4] + 1, since, excess)

    def _starve(self, destination: NodeId, starving: bool, now: float) -> None:
        self._blocked.add(destination)
        if starving and destination not in self._asked:
            self._wanting.set(destination, now)
        else:
            self._wanting.set_default(destination, now + REQUEST_PATIENCE)

    def _content(self, destination: NodeId) -> None:
        self._blocked.discard(destination)
        self._wanting.cancel(destination)
        self._asked.pop(destination, None)

    def _want(self, destination: NodeId, now: float) -> None:
        """Ask for a newer sequence number, and again after a while that doubles, as long as it is wanted."""
        tries = self._asked[destination] = self._asked.get(destination, 0) + 1
        seqno, metric = self._distances[destination]
        if tries > LAGGING_TRIES or not self._lags(destination, seqno, metric):
            seqno += 1
        links = self._offers(destination, None)
        self._ask(SeqnoRequest(destination, seqno, MAX_TTL), links[:ASKED_FIRST] if tries == 1 else links, now)
        offers = [offer[4] for known in self._neighbours.values() if (offer := known.heard.get(destination))]
        pause = (REQUEST_AGAIN + REQUEST_HOP * max(offers, default=0)) * 2 ** min(tries - 1, 10)
        self._wanting.set(destination, now + min(REQUEST_AGAIN_MAX, pause))

    def _lags(self, destination: NodeId, seqno: int, metric: int) -> bool:
        """True if the number that is known here already would make something feasible, if only a neighbour had it."""
        offers = (neighbour.heard.get(destination) for neighbour in self._neighbours.values())
        return any(offer is not None and offer[2] < seqno and offer[3] < metric for offer in offers)

    def _offers(self, destination: NodeId, but: LinkId | None) -> list[LinkId]:
        """The links that lead there, the cheapest first."""
        offers = [
            (entry[3] + neighbour.cost, link)
            for link, neighbour in self._neighbours.items()
            if link != but and (entry := neighbour.heard.get(destination)) is not None
        ]
        return [link for _, link in sorted(offers)]

    def _ask(self, request: SeqnoRequest, links: list[LinkId], now: float) -> None:
        for link in links:
            self._passed_on.set((request.destination, request.seqno, link), now + REQUEST_MEMORY)
            self._requests.setdefault(link, []).append(request)
            self.telling.urgent = True

    def _shrink_distance(self, destination: NodeId, selected: Selected) -> bool:
        """Let the distance follow the route; True if that has a newer number."""
        distance = self._distances.get(destination)
        if distance is None or selected.seqno > distance[0] or selected.metric < distance[1]:
            self._distances[destination] = (selected.seqno, selected.metric)
        return distance is not None and selected.seqno > distance[0]

    def _remember(self, link: LinkId, request: SeqnoRequest, now: float) -> None:
        """Let that neighbour wait for the answer, and for no more than two: the lowest and the highest number."""
        askers = self._askers.setdefault(request.destination, {})
        others = [other for other in askers.get(link, ()) if other.seqno != request.seqno]
        waiting = sorted([*others, request], key=lambda waiting: waiting.seqno)
        askers[link] = waiting[:1] + waiting[1:][-1:]
        self._listening.set(request.destination, now + LISTEN)

    def _answer_askers(self, destination: NodeId, found: Selected, now: float) -> None:
        askers = self._askers[destination]
        for link, requests in list(askers.items()):
            waiting = [request for request in requests if request.seqno > found.seqno]
            if len(waiting) < len(requests) and link != found.link:
                self.telling.answer(link, destination, now)
            if waiting:
                askers[link] = waiting
            else:
                del askers[link]
        if not askers:
            del self._askers[destination]
            self._listening.cancel(destination)

    def _may_be_undone(self, destination: NodeId, before: Selected | None, after: Selected | None) -> bool:
        """True if what is lost may be found in a moment, or the detour that is found may be lost."""
        if before is None:
            return False
        former = self._neighbours.get(before.link)
        if after is None:
            return former is None and destination in self._blocked
        if after.metric <= before.metric:
            return False
        return self.telling.holds(destination) or (former is not None and destination not in former.heard)

    def _pass_on_again(self, destination: NodeId, found: Selected, now: float) -> None:
        """What was passed on before the route changed may have been lost with it."""
        askers = self._askers.get(destination, {})
        requests = [request for link, waiting in askers.items() if link != found.link for request in waiting]
        waiting = [request for request in requests if request.hops_left > 1]
        if waiting:
            request = max(waiting, key=lambda request: request.seqno)
            self._ask(request._replace(hops_left=request.hops_left - 1), [found.link], now)

    def check(self) -> None:
        """Raise AssertionError if an invariant of the table does not hold."""
        if self.dirty:
            raise AssertionError("routes that wait to be chosen between two events")
        self.telling.check()
        for destination, selected in self._selected.items():
            neighbour = self._neighbours.get(selected.link)
            entry = neighbour.heard.get(destination) if neighbour else None
            if neighbour is None or entry is None:
                raise AssertionError(f"a route to {destination!r} that no neighbour told")
            if (selected.metric, selected.seqno) != (entry[3] + neighbour.cost, entry[2]):
                raise AssertionError(f"the route to {destination!r} is not what the neighbour told")
            distance = self._distances[destination]
            if distance != (selected.seqno, selected.metric - selected.excess) or selected.excess < 0:
                raise AssertionError(f"the route to {destination!r} is past its feasibility distance")
        for destination in self._distances:
            if destination not in self._selected and destination not in self._forget:
                raise AssertionError(f"a feasibility distance of {destination!r} that nothing will drop")
        if set(self._askers) != set(self._listening):
            raise AssertionError("neighbours that wait for an answer, which nothing will forget")
        blocked = {
            destination
            for neighbour in self._neighbours.values()
            for destination, entry in neighbour.heard.items()
            if entry[3] + neighbour.cost
            < (self._selected[destination].metric if destination in self._selected else INFINITY)
        }
        if not blocked == self._blocked == set(self._wanting):
            raise AssertionError(f"better routes that nothing will ask for: {blocked ^ self._blocked}")


def _is_feasible(entry: Row, distance: tuple[int, int] | None) -> bool:
    """True if the feasibility distance of who told that is below this one, or there is none."""
    if distance is None or entry[2] > distance[0]:
        return True
    return entry[2] == distance[0] and entry[3] - entry[5] < distance[1]
