"""The distance-vector table, free of loops at every instant.

For each destination a node keeps a *feasibility distance*: the sequence number, and a metric that is at most the
smallest that it ever had under it. It tells its neighbours how far its metric is above that, and adopts one of them as
next hop only if that one's distance, as it was told, is smaller than its own: it has a newer number, or the same one
and a lower metric. Why that rules out loops: a distance only ever shrinks, and never to what is not above the next
hop's. So the distance of a next hop is below that of the node that chose it, when it is chosen; whatever is lost, late
or down, it stays so when the next hop's shrinks, and when the node's own does: that shrinks to the metric that its next
hop told, which is not below the next hop's distance, plus the cost of the link, which is at least 1; or to what a
neighbour asks for, if that fits. Distances that fall along a path cannot come round in a circle.

This is the feasibility condition of RFC 8966 (section 3.5.1), after EIGRP's, with one difference: there the metric that
a neighbour told is compared, here the distance. They are the same until something fails. Then all metrics beyond the
failure grow, and the distances show still who was nearer before; whoever was can be a next hop without further ado.

Feasibility can leave a node without a route although there is a path: starvation. Then, and when a better path is not
feasible, the node requests a smaller distance on that path, or a newer seqno (`seqno_requests`). A next hop whose
metric grows stays feasible, because its distance does not grow.

There is room for so many destinations (`quotas`); one that finds none is refused, as if no neighbour had told it, and
looked at again when there is room. A sequence number that is too far ahead (`serials`) makes an entry a retraction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from zmesh.core.limits import DEFAULT_LIMITS
from zmesh.core.message import LinkId, NodeId
from zmesh.core.routing.advertisements import Advertisement, Advertiser
from zmesh.core.routing.quotas import Quotas
from zmesh.core.routing.selected_route import RouteChange, SelectedRoute
from zmesh.core.routing.seqno_requests import SeqnoRequests
from zmesh.core.routing.serials import HIGHEST
from zmesh.core.timers import Alarm, Timers
from zmesh.core.wire import FULL_BEGIN, FULL_END, INFINITY, MAX_HOPS, Row, SeqnoRequest

KEEP_DISTANCE = 180.0
EVICTION_DELAY = 20.0
_ANY = LinkId(-1)


class _Neighbour:
    """What one link told us."""

    __slots__ = ("cost", "heard", "node", "received", "stale")

    def __init__(self, node: NodeId | LinkId, cost: int) -> None:
        self.node = node
        self.cost = cost
        self.heard: dict[NodeId, Row] = {}
        self.received = 0
        self.stale: set[NodeId] | None = None


class Routes:
    """The routes of one node. `seqno` is where its own sequence number starts."""

    def __init__(
        self,
        node: NodeId,
        incarnation: int,
        seqno: int,
        alarm: Alarm,
        max_destinations: int = DEFAULT_LIMITS.destinations,
    ) -> None:
        self.node = node
        self._alarm = alarm
        self._own = SelectedRoute(LinkId(0), incarnation, seqno, 0, 0, 0.0)
        self._neighbours: dict[LinkId, _Neighbour] = {}
        self.distances: dict[NodeId, tuple[int, int]] = {}
        self._selected: dict[NodeId, SelectedRoute] = {}
        self.dirty: dict[NodeId, LinkId] = {}
        """The destinations that `select` has to look at, with the one link that offers something better, or _ANY."""
        self.advertiser = Advertiser(node, self._selected, alarm)
        self._forget: Timers[NodeId] = Timers(alarm)
        self.seqno_requests = SeqnoRequests(alarm)
        self.changed_at = 0.0
        self.moved_at = 0.0
        self._max_rows = max_destinations + 1  # an honest neighbour has as many destinations, and tells of itself too
        self._quotas: Quotas[NodeId] = Quotas(max_destinations)
        """The destinations with a feasibility distance; those without a route are idle."""
        self._no_room: dict[NodeId, float] = {}
        """The destinations that were told and found no room, and when each may be looked at again."""
        self.refused: Counter[tuple[LinkId | None, str]] = Counter()
        """How many entries were not taken or kept, by the link that they came on and the reason."""

    # -- reading -------------------------------------------------------------------------------------------------

    def get(self, destination: NodeId) -> SelectedRoute | None:
        """The route in use, or None."""
        return self._selected.get(destination)

    def table(self) -> dict[NodeId, SelectedRoute]:
        """All routes in use."""
        return dict(self._selected)

    def names(self) -> Collection[NodeId]:
        """The destinations of all routes in use."""
        return self._selected.keys()

    def distance(self, destination: NodeId) -> tuple[int, int] | None:
        """The feasibility distance, as (seqno, metric)."""
        return self.distances.get(destination)

    def others(self, destination: NodeId) -> list[tuple[LinkId, int, bool]]:
        """The other links that lead there: the metric over each, and whether it is feasible; the cheapest first."""
        selected = self._selected.get(destination)
        distance = self.distances.get(destination)
        found = [
            (link, entry[3] + neighbour.cost, _is_feasible(entry, distance))
            for link, neighbour in self._neighbours.items()
            if (selected is None or link != selected.link) and (entry := neighbour.heard.get(destination)) is not None
        ]
        return sorted((other for other in found if other[1] < INFINITY), key=lambda other: other[1])

    def sent(self, link: LinkId) -> int:
        """How many UPDATEs were sent on that link."""
        return self.advertiser.sent(link)

    def received(self, link: LinkId) -> int:
        """How many UPDATEs the other end of the link had sent when its last one came, if none was lost on the way."""
        neighbour = self._neighbours.get(link)
        return neighbour.received if neighbour else 0

    @property
    def seqno(self) -> int:
        """This node's own sequence number."""
        return self._own.seqno

    # -- what happens --------------------------------------------------------------------------------------------

    def link_up(self, link: LinkId, cost: int, now: float, neighbour: NodeId | None = None) -> None:
        """A link to a neighbour is up, which is told the whole table at once; no route leads over one that costs
        INFINITY.
        """
        self._neighbours[link] = _Neighbour(neighbour or link, cost)
        self.advertiser.link_up(link, now)

    def link_down(self, link: LinkId) -> None:
        """The link is down, and with it all that was heard on it."""
        neighbour = self._neighbours.pop(link, None)
        if neighbour is None:
            return
        self.advertiser.link_down(link)
        self.seqno_requests.link_down(link)
        selected, dirty = self._selected, self.dirty
        for destination, _entry in neighbour.heard.items():
            current = selected.get(destination)
            if current is None or current.link == link or destination in self.seqno_requests.starved:
                dirty[destination] = _ANY
        dirty.update(dict.fromkeys(self._no_room, _ANY))

    def set_cost(self, link: LinkId, cost: int) -> None:
        """The cost of a link has changed."""
        neighbour = self._neighbours.get(link)
        if neighbour is not None and neighbour.cost != cost:
            neighbour.cost = cost
            self.dirty.update(dict.fromkeys(neighbour.heard, _ANY))

    def resend(self, link: LinkId, now: float) -> None:
        """Tell that neighbour the whole table once more."""
        self.advertiser.resend(link, now)

    def update(self, link: LinkId, full: int, number: int, entries: list[Row], ceiling: int = HIGHEST) -> None:
        """Take in what a neighbour tells. FULL_BEGIN and FULL_END in `full` bracket a whole table, which replaces all
        before it; `number` is then the count of UPDATEs so far, and no seqno may be above `ceiling`.
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
        self._hear(neighbour, link, entries, ceiling)
        if full & FULL_END and neighbour.stale is not None:
            gone = [destination for destination in neighbour.heard if destination in neighbour.stale]
            self._hear(neighbour, link, [(destination, 0, 0, INFINITY, 0, 0) for destination in gone], 0)
            neighbour.stale = None

    def request(self, link: LinkId, request: SeqnoRequest, now: float, ceiling: int = HIGHEST) -> int:
        """A neighbour asks for a route of a smaller distance: give it, or pass the question on. Returns on how many
        links it was passed on.

        The answer goes to who asked and to nobody else, since a smaller distance alone changes no route. The own seqno
        follows up to `ceiling`.
        """
        destination = request.destination
        if destination == self.node:
            seqno = self._own.seqno if request.is_met_by(self._own.seqno, 0) else request.seqno + 1
            if seqno <= max(self._own.seqno, ceiling):
                self._own = self._own._replace(seqno=seqno)
                self.advertiser.answer(link, destination, now)
            else:
                self.refused[link, "seqno_ahead"] += 1
            return 0
        if self._meet(request, now):
            if self._selected[destination].link != link:
                self.advertiser.answer(link, destination, now)
            return 0
        if destination not in self.distances:  # there is no way there, and there was none; names may be made up
            self.refused[link, "asked_for_unknown"] += 1
            return 0
        self.seqno_requests.add_requester(link, request, now)
        selected = self._selected.get(destination)
        onward = selected is not None and selected.link != link
        links = [selected.link] if selected is not None and onward else self._offers(destination, link)
        return self.seqno_requests.forward(request, links, now)

    # -- what follows --------------------------------------------------------------------------------------------

    def select(self, now: float) -> list[RouteChange]:
        """Choose anew wherever something has changed."""
        changes: list[RouteChange] = []
        dirty, selected, requests = self.dirty, self._selected, self.seqno_requests
        while dirty:
            destination, link = dirty.popitem()
            not_before = self._no_room.pop(destination, 0.0)
            before = selected.get(destination)
            after = self._choose(destination, before, link, now)
            if after is None:
                if before is None:
                    continue
                del selected[destination]
                self._forget.set(destination, now + KEEP_DISTANCE)
                self._quotas.idle(destination)
                self._look_again()
            elif not self._find_room(destination, after.link, not_before, changes, now):
                continue
            else:
                if before is None:
                    self._forget.cancel(destination)
                elif before == after:
                    if requests.has_requesters(destination):
                        self._answer(destination, now)
                    continue
                selected[destination] = after
                newer = self._shrink_distance(destination, after)
                if newer or before is None or after[3] < before[3]:
                    requests.restart(destination, now, newer=newer)
                if requests.has_requesters(destination):
                    self._answer(destination, now)
                    if before is None or before.link != after.link:
                        requests.reforward(destination, after.link, now)
                    after = selected[destination]
            if before is not None and after is not None and before[3:5] == after[3:5] and before[:2] == after[:2]:
                continue  # it is the same but for its number, which nobody needs who does not ask
            if self._may_be_undone(destination, before, after):
                self.advertiser.hold_down(destination, now, found=before is None)
            else:
                self.advertiser.changed(destination, now)
            self.moved_at = now
            if before is None or after is None or before[:2] != after[:2]:
                self.changed_at = now
            changes.append(RouteChange(destination, before, after))
        return changes

    def flush(self, now: float) -> list[Advertisement]:
        """What to tell on which links; empty before its time."""
        return self.advertiser.flush(self._own, now)

    def requests(self, now: float) -> dict[LinkId, list[SeqnoRequest]]:
        """The SEQNO_REQUESTs to send, on which link."""
        for destination in self.seqno_requests.due(now):
            self.seqno_requests.originate(
                destination, self.distances[destination], self._offers(destination, None), now
            )
        return self.seqno_requests.take()

    def expire(self, now: float) -> None:
        """Forget what is too old to matter."""
        for destination in self._forget.expire(now):
            del self.distances[destination]
            self._quotas.drop(destination)
            if destination in self.seqno_requests.starved:
                self.dirty[destination] = _ANY
        if self._no_room and self._quotas.has_room:
            self.dirty.update(dict.fromkeys(self._no_room, _ANY))
        self.seqno_requests.expire(now)

    def next_deadline(self) -> float | None:
        """When `flush`, `requests` or `expire` has work."""
        deadlines = (self.advertiser.next_deadline(), self.seqno_requests.next_deadline(), self._forget.next_deadline())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    # -- inside --------------------------------------------------------------------------------------------------

    def _hear(self, neighbour: _Neighbour, link: LinkId, entries: list[Row], ceiling: int) -> None:
        """Note what matters: another word on the route in use, something cheaper, or anything where we are wanting."""
        heard, cost, dirty, selected = neighbour.heard, neighbour.cost, self.dirty, self._selected
        starved, scarce = self.seqno_requests.starved, len(heard) + len(entries) > self._max_rows
        for entry in entries:
            destination, _, seqno, metric, hops, _ = entry
            if metric < INFINITY and hops < MAX_HOPS and seqno <= ceiling:
                if scarce and destination not in heard and len(heard) >= self._max_rows:
                    self.refused[link, "destinations"] += 1
                    continue
                heard[destination] = entry
                current = selected.get(destination)
                if current is None or current.link == link or destination in starved:
                    dirty[destination] = _ANY
                elif metric + cost < current.metric:
                    dirty[destination] = link if dirty.get(destination, link) == link else _ANY
            else:
                if metric < INFINITY:
                    self.refused[link, "max_hops" if seqno <= ceiling else "seqno_ahead"] += 1
                if heard.pop(destination, None) is None:
                    continue
                current = selected.get(destination)
                if current is None or current.link == link or destination in starved:
                    dirty[destination] = _ANY
        heard.pop(self.node, None)
        dirty.pop(self.node, None)

    def _choose(
        self, destination: NodeId, before: SelectedRoute | None, only: LinkId, now: float
    ) -> SelectedRoute | None:
        """The best feasible route; `only` names the one link that may be better than the route in use."""
        best, best_link, best_entry = INFINITY, _ANY, None
        blocked, blocked_link = INFINITY, _ANY
        mine = before.link if before is not None else _ANY
        links: dict[LinkId, _Neighbour] | tuple[LinkId, LinkId] = self._neighbours if only == _ANY else (only, mine)
        distance = self.distances.get(destination)
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
                blocked, blocked_link = total, link
        if blocked < best:
            immediately = best == INFINITY and before is not None and mine not in self._neighbours
            self.seqno_requests.starve(destination, blocked_link, now, immediately=immediately)
        elif destination in self.seqno_requests.starved:
            self.seqno_requests.satisfied(destination)
        if best_entry is None:
            return None
        since = before.since if before is not None and best_link == mine else now
        excess = 0 if distance is None or best_entry[2] > distance[0] else max(0, best - distance[1])
        return SelectedRoute(best_link, best_entry[1], best_entry[2], best, best_entry[4] + 1, since, excess)

    def _find_room(
        self, destination: NodeId, link: LinkId, not_before: float, changes: list[RouteChange], now: float
    ) -> bool:
        """True if there is room for a route to this destination over that link; others may have to give way to it."""
        victims = None if now < not_before else self._quotas.take(destination, self._neighbours[link].node)
        if victims is None:
            self._no_room[destination] = not_before
            self.refused[link, "destinations"] += 1
            return False
        for victim in victims:
            self._give_way(victim, changes, now)
        return True

    def _give_way(self, destination: NodeId, changes: list[RouteChange], now: float) -> None:
        """Forget a destination altogether, for one of a neighbour that has told of fewer. What neighbours have heard of
        the route is still under way, and with no distance to tell it from news it could lead in a circle: so it is let
        pass before there may be a route again.
        """
        self.refused[None, "gave_way"] += 1
        del self.distances[destination]
        before = self._selected.pop(destination, None)
        if destination in self.dirty:
            self.dirty[destination] = _ANY
        if before is not None or destination in self.seqno_requests.starved:  # somebody still tells of it
            self._no_room[destination] = now + EVICTION_DELAY
        if destination in self.seqno_requests.starved:
            self.seqno_requests.satisfied(destination)
        if before is None:
            self._forget.cancel(destination)
            return
        self.advertiser.changed(destination, now)
        self.changed_at = self.moved_at = now
        changes.append(RouteChange(destination, before, None))

    def _look_again(self) -> None:
        """There is room for one more destination, or one that is not in use would give way to it."""
        if self._no_room:
            self.dirty[next(iter(self._no_room))] = _ANY

    def _meet(self, request: SeqnoRequest, now: float) -> bool:
        """True if this node's distance is what is asked for, or can be made so: shrunk, and still above the next
        hop's.
        """
        destination = request.destination
        selected = self._selected.get(destination)
        if selected is None:
            return False
        if request.is_met_by(selected.seqno, selected.metric - selected.excess):
            return True
        onward, distance = self._neighbours[selected.link].heard[destination], request.distance - 1
        if onward[2] != request.seqno or onward[3] - onward[5] >= distance:
            return False
        self.distances[destination] = (selected.seqno, distance)
        self._selected[destination] = selected._replace(excess=selected.metric - distance)
        self.seqno_requests.restart(destination, now)
        return True

    def _answer(self, destination: NodeId, now: float) -> None:
        for link in self.seqno_requests.answer(destination, lambda request: self._meet(request, now)):
            if link != self._selected[destination].link:
                self.advertiser.answer(link, destination, now)

    def _offers(self, destination: NodeId, but: LinkId | None) -> list[LinkId]:
        """The links that lead there, the cheapest first."""
        offers = [
            (entry[3] + neighbour.cost, link)
            for link, neighbour in self._neighbours.items()
            if link != but and (entry := neighbour.heard.get(destination)) is not None
        ]
        return [link for _, link in sorted(offers)]

    def _shrink_distance(self, destination: NodeId, selected: SelectedRoute) -> bool:
        """Let the distance follow the route; True if that has a newer number."""
        distance = self.distances.get(destination)
        if distance is None or selected.seqno > distance[0] or selected.metric < distance[1]:
            self.distances[destination] = (selected.seqno, selected.metric)
        return distance is not None and selected.seqno > distance[0]

    def _may_be_undone(self, destination: NodeId, before: SelectedRoute | None, after: SelectedRoute | None) -> bool:
        """True if what is lost may be found in a moment, or the detour that is found may be lost.

        A neighbour that is lost with its own link is most likely dead, and then nobody will find it.
        """
        if before is None:
            return after is not None and after.excess > 0
        former = self._neighbours.get(before.link)
        if after is None:
            return former is None and before.hops > 1 and destination in self.seqno_requests.starved
        if after.metric <= before.metric:
            return False
        return self.advertiser.is_held_down(destination) or (former is not None and destination not in former.heard)

    def check(self) -> None:
        """Raise AssertionError if an invariant of the table does not hold."""
        if self.dirty:
            raise AssertionError("routes that wait to be chosen between two events")
        self.advertiser.check()
        for destination, selected in self._selected.items():
            neighbour = self._neighbours.get(selected.link)
            entry = neighbour.heard.get(destination) if neighbour else None
            if neighbour is None or entry is None:
                raise AssertionError(f"a route to {destination!r} that no neighbour told")
            if (selected.metric, selected.seqno) != (entry[3] + neighbour.cost, entry[2]):
                raise AssertionError(f"the route to {destination!r} is not what the neighbour told")
            distance = self.distances[destination]
            if distance != (selected.seqno, selected.metric - selected.excess) or selected.excess < 0:
                raise AssertionError(f"the route to {destination!r} is past its feasibility distance")
        for destination in self.distances:
            if destination not in self._selected and destination not in self._forget:
                raise AssertionError(f"a feasibility distance of {destination!r} that nothing will drop")
        self._quotas.check()
        if self._quotas.keys() != self.distances.keys() or self._no_room.keys() & self.distances.keys():
            raise AssertionError("a destination that counts for nobody, or that was refused and is there")
        blocked = {
            destination
            for neighbour in self._neighbours.values()
            for destination, entry in neighbour.heard.items()
            if entry[3] + neighbour.cost
            < (self._selected[destination].metric if destination in self._selected else INFINITY)
            and destination not in self._no_room
        }
        self.seqno_requests.check(blocked)


def _is_feasible(entry: Row, distance: tuple[int, int] | None) -> bool:
    """True if the feasibility distance of who told that is below this one, or there is none."""
    if distance is None or entry[2] > distance[0]:
        return True
    return entry[2] == distance[0] and entry[3] - entry[5] < distance[1]
