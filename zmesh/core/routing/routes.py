"""The distance-vector routing table, free of loops at every instant.

For each destination a node keeps a *feasibility distance*: the seqno, and a metric that is at most the smallest that it
ever had under that seqno. It advertises by how much its metric exceeds the distance, and selects a neighbour as next
hop only if the neighbour's distance, as advertised, is smaller than its own: it has a newer seqno, or the same one and
a lower metric. That rules out loops: a distance only ever shrinks, and never to one that is not above the next hop's.
So the distance of a next hop is below that of the node that selects it, at the time of selection. Whatever is lost,
late or down, it stays below when the next hop's distance shrinks, and when the node's own does: that shrinks to the
metric that its next hop advertised, which is not below the next hop's distance, plus the cost of the link, which is at
least 1; or to what a neighbour requests, if that fits. Distances that fall along a path cannot return to where they
began.

This is the feasibility condition of RFC 8966 (section 3.5.1), after EIGRP's, with one difference: there the metric that
a neighbour advertises is compared, here its distance. They are the same until something fails. Then all metrics beyond
the failure grow, while the distances still show which neighbours were nearer before; those are safe next hops.

Feasibility can leave a node without a route although there is a path: starvation. Then, and when a better path is not
feasible, the node requests a smaller distance on that path, or a newer seqno (`seqno_requests`). A next hop whose
metric grows stays feasible, because its distance does not grow.

A frame of a neighbour, or a change of a link's cost, may make any number of destinations dirty. One stimulus selects at
most SELECTED_AT_ONCE of them, and the others follow at once, so that frames of other neighbours get their turn: for the
routes that is as if the UPDATE had come a little later. Those whose link is down are selected all.

There is room for so many destinations (`quotas`); one that finds none is refused, as if no neighbour had advertised it,
and tried again when there is room. A seqno that is too far ahead (`serials`) makes a row a retraction.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable

from zmesh.core.limits import DEFAULT_LIMITS
from zmesh.core.message import LinkId, NodeId
from zmesh.core.routing.advertisements import Advertisement, Advertiser, is_provisional
from zmesh.core.routing.destinations import NOT_STARVED, Destination, is_known
from zmesh.core.routing.quotas import Quotas
from zmesh.core.routing.routes_view import ReceivedRoutes, RoutesView, is_feasible
from zmesh.core.routing.selected_route import RouteChange, SelectedRoute
from zmesh.core.routing.seqno_requests import SeqnoRequests
from zmesh.core.routing.serials import HIGHEST
from zmesh.core.timers import Alarm, Timers
from zmesh.core.wire import FULL_BEGIN, FULL_END, INFINITY, MAX_HOPS, Row, SeqnoRequest

KEEP_DISTANCE = 180.0
SELECTED_AT_ONCE = 64
"""Destinations that one stimulus selects a route to; each takes up to 40 microseconds, with what follows from it."""
EVICTION_DELAY = 20.0
_ANY = LinkId(-1)


class Routes(RoutesView):
    """The routes of one node. `seqno` is where its own seqno starts."""

    def __init__(
        self,
        node: NodeId,
        incarnation: int,
        seqno: int,
        alarm: Alarm,
        max_destinations: int = DEFAULT_LIMITS.destinations,
    ) -> None:
        self.node = node
        self._own = SelectedRoute(LinkId(0), incarnation, seqno, 0, 0, 0.0)
        self._neighbours = {}
        self._table = {}
        self._selected = {}
        self.dirty: dict[NodeId, LinkId] = {}
        """The destinations that `select` has to examine, with the one link that offers a better route, or _ANY."""
        self._lost: dict[NodeId, None] = {}
        """Those of them whose next hop was on a link that is down: packets must not be sent there."""
        self._alarm = alarm
        self._select_on: float | None = None
        """When `select` goes on, if it has left destinations dirty."""
        self.advertiser = Advertiser(node, self._selected, alarm)
        self.seqno_requests = SeqnoRequests(alarm)
        self._forget: Timers[Destination] = Timers(alarm)
        """When to drop the feasibility distances of the others."""
        self.changed_at = 0.0
        """When a next hop was last selected or lost."""
        self.moved_at = 0.0
        """When a route last changed in a way that is advertised."""
        self._max_rows = max_destinations + 1  # an honest neighbour has as many destinations, and advertises itself
        self._quotas: Quotas[NodeId] = Quotas(max_destinations)
        """The same destinations as in the table, by the neighbour of their route; those without one are idle."""
        self._no_room = {}
        self.refused: Counter[tuple[LinkId | None, str]] = Counter()
        """How many rows were not accepted or kept, by the link that they came on and the reason."""

    # -- events --------------------------------------------------------------------------------------------------

    def link_up(self, link: LinkId, cost: int, now: float, neighbour: NodeId | None = None) -> None:
        """A link to a neighbour is up: it gets a full update. No route uses a link that costs INFINITY."""
        self._neighbours[link] = ReceivedRoutes(neighbour or link, cost)
        self.advertiser.link_up(link, now)

    def link_down(self, link: LinkId) -> None:
        """The link is down, and with it all routes that were received on it."""
        neighbour = self._neighbours.pop(link, None)
        if neighbour is None:
            return
        self.advertiser.link_down(link)
        self.seqno_requests.link_down(link)
        for name in neighbour.rows:
            if self._depends_on(self._table.get(name), link):
                self.dirty[name] = _ANY
        for name, destination in self._selected.items():
            if destination.selected is not None and destination.selected.link == link:
                self.dirty[name] = _ANY
                self._lost[name] = None
        self.dirty.update((name, _ANY) for name, offers in self.dirty.items() if offers == link)
        self.dirty.update(dict.fromkeys(self._no_room, _ANY))

    def set_cost(self, link: LinkId, cost: int) -> None:
        """The cost of a link has changed."""
        neighbour = self._neighbours.get(link)
        if neighbour is not None and neighbour.cost != cost:
            neighbour.cost = cost
            self.dirty.update(dict.fromkeys(neighbour.rows, _ANY))

    def resend(self, link: LinkId, now: float) -> None:
        """Send that neighbour a full update once more."""
        self.advertiser.resend(link, now)

    def update(self, link: LinkId, full: int, number: int, entries: list[Row], ceiling: int = HIGHEST) -> None:
        """Store the rows of an UPDATE. FULL_BEGIN and FULL_END in `full` bracket a full update, which replaces all rows
        before it; `number` is then the count of UPDATEs so far. No seqno may be above `ceiling`.
        """
        neighbour = self._neighbours.get(link)
        if neighbour is None:
            return
        neighbour.received += 1
        if full & FULL_BEGIN:
            neighbour.stale = set(neighbour.rows)
            neighbour.received = number
        if neighbour.stale is not None:
            neighbour.stale.difference_update([entry[0] for entry in entries])
        self._store(neighbour, link, entries, ceiling)
        if full & FULL_END and neighbour.stale is not None:
            gone = [name for name in neighbour.rows if name in neighbour.stale]
            self._store(neighbour, link, [(name, 0, 0, INFINITY, 0, 0) for name in gone], 0)
            neighbour.stale = None

    def request(self, link: LinkId, request: SeqnoRequest, now: float, ceiling: int = HIGHEST) -> int:
        """A neighbour requests a route of a smaller distance: answer or forward that. Returns on how many links the
        request was forwarded.

        The answer goes to that neighbour alone, since a smaller distance by itself changes no route. The own seqno
        follows up to `ceiling`.
        """
        name = request.destination
        if name == self.node:
            seqno = self._own.seqno if request.is_met_by(self._own.seqno, 0) else request.seqno + 1
            if seqno <= max(self._own.seqno, ceiling):
                self._own = self._own._replace(seqno=seqno)
                self.advertiser.answer(link, name, now)
            else:
                self.refused[link, "seqno_ahead"] += 1
            return 0
        destination = self._table.get(name)
        if destination is None:  # there is no route to it, and there was none; the name may be made up
            self.refused[link, "asked_for_unknown"] += 1
            return 0
        next_hop = destination.selected.link if destination.selected is not None else None
        if self._meet(destination, request, now):
            if next_hop != link:
                self.advertiser.answer(link, name, now)
            return 0
        self.seqno_requests.add_requester(link, request, now)
        onward = [next_hop] if next_hop is not None and next_hop != link else self._offers(name, link)
        return self.seqno_requests.forward(request, onward, now)

    # -- results -------------------------------------------------------------------------------------------------

    def select(self, now: float) -> list[RouteChange]:
        """Select the best feasible route to the dirty destinations: to all whose link is down, and SELECTED_AT_ONCE
        others, the first first. Returns what has changed for neighbours.
        """
        changes: list[RouteChange] = []
        lost, self._lost = self._lost, {}
        self._select(lost, changes, now)
        left = SELECTED_AT_ONCE
        while self.dirty and left > 0:
            some = list(itertools.islice(self.dirty, left))
            left -= len(some)
            self._select(reversed(some), changes, now)
        self._select_on = now if self.dirty else None
        if self.dirty:
            self._alarm.at(now)
        return changes

    def _select(self, names: Iterable[NodeId], changes: list[RouteChange], now: float) -> None:
        """Select the best feasible route to each of these, which are dirty."""
        dirty, table, requests = self.dirty, self._table, self.seqno_requests
        for name in names:
            link = dirty.pop(name)
            not_before = self._no_room.pop(name, 0.0)
            destination = table.get(name)
            before = destination.selected if destination is not None else None
            after = self._best(name, destination, link, now)
            if after is None:
                if destination is None or before is None:
                    continue
                self._lose(destination, now)
            elif after == before:
                if destination is not None and requests.has_requesters(name):
                    self._answer(destination, now)
                continue
            else:
                same_link = before is not None and before[0] == after[0]
                if not same_link and not self._find_room(name, after[0], not_before, changes, now):
                    table.pop(name, None)
                    continue
                if destination is None:
                    destination = table[name] = Destination(name)
                after = self._adopt(destination, after, now)
            if before is not None and after is not None and is_known(before, after):
                continue  # only the seqno has changed, which concerns only neighbours that have requested it
            self._advertise(destination, before, now)
            self.moved_at = now
            if before is None or after is None or before[:2] != after[:2]:
                self.changed_at = now
            changes.append(RouteChange(name, before, after))

    def flush(self, now: float) -> list[Advertisement]:
        """The UPDATEs that are due."""
        return self.advertiser.flush(self._own, now)

    def requests(self, now: float) -> dict[LinkId, list[SeqnoRequest]]:
        """The SEQNO_REQUESTs that are due, by link."""
        for destination in self.seqno_requests.due(now):
            if destination.id in self.dirty:
                self.seqno_requests.postpone(destination, now)
            else:
                self.seqno_requests.originate(destination, self._offers(destination.id, None), now)
        return self.seqno_requests.take()

    def expire(self, now: float) -> None:
        """Drop what has timed out."""
        for destination in self._forget.expire(now):
            self._quotas.drop(destination.id)
            destination.distance = None
            if destination.is_starved:
                self.dirty[destination.id] = _ANY  # now that there is no distance, the route is feasible
            else:
                del self._table[destination.id]
        if self._no_room and self._quotas.has_room:
            self.dirty.update(dict.fromkeys(self._no_room, _ANY))
        self.seqno_requests.expire(now)

    def next_deadline(self) -> float | None:
        """When `select`, `flush`, `requests` or `expire` has work."""
        tables = (self.advertiser, self.seqno_requests, self._forget)
        deadlines = (self._select_on, *(table.next_deadline() for table in tables))
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    # -- inside: selection ---------------------------------------------------------------------------------------

    def _store(self, neighbour: ReceivedRoutes, link: LinkId, entries: list[Row], ceiling: int) -> None:
        """Store received rows; a destination is dirty if its next hop has advertised it, if it has become cheaper, or
        if it is starved or without a route.
        """
        rows, cost, dirty, table = neighbour.rows, neighbour.cost, self.dirty, self._table
        scarce, not_starved = len(rows) + len(entries) > self._max_rows, NOT_STARVED
        for entry in entries:
            name, _, seqno, metric, hops, _ = entry
            if metric < INFINITY and hops < MAX_HOPS and seqno <= ceiling:
                if scarce and name not in rows and len(rows) >= self._max_rows:
                    self.refused[link, "destinations"] += 1
                    continue
                rows[name] = entry
                known = table.get(name)
                if (
                    known is None
                    or (selected := known.selected) is None
                    or selected[0] == link
                    or known.starvation is not not_starved
                ):
                    dirty[name] = _ANY
                elif metric + cost < selected[3]:
                    dirty[name] = link if dirty.get(name, link) == link else _ANY
            else:
                if metric < INFINITY:
                    self.refused[link, "max_hops" if seqno <= ceiling else "seqno_ahead"] += 1
                if rows.pop(name, None) is not None and self._depends_on(table.get(name), link):
                    dirty[name] = _ANY
        rows.pop(self.node, None)
        dirty.pop(self.node, None)

    def _depends_on(self, destination: Destination | None, link: LinkId) -> bool:
        """True if a destination has to be examined after a row of that link is gone."""
        return (
            destination is None
            or destination.selected is None
            or destination.selected.link == link
            or destination.is_starved
        )

    def _best(self, name: NodeId, destination: Destination | None, only: LinkId, now: float) -> SelectedRoute | None:
        """The best feasible route; `only` names the one link that may be better than the selected route, or is _ANY."""
        before = distance = None
        if destination is not None:
            before, distance = destination.selected, destination.distance
        best, best_link, best_row = INFINITY, _ANY, None
        blocked, blocked_link = INFINITY, _ANY
        mine = before[0] if before is not None else _ANY
        links: dict[LinkId, ReceivedRoutes] | tuple[LinkId, LinkId] = self._neighbours if only == _ANY else (only, mine)
        for link in links:
            neighbour = self._neighbours[link]
            row = neighbour.rows.get(name)
            if row is None:
                continue
            total = row[3] + neighbour.cost
            if is_feasible(row, distance):
                if total < best or (total == best and link == mine):
                    best, best_link, best_row = total, link, row
            elif total < blocked:
                blocked, blocked_link = total, link
        if destination is not None:
            if blocked < best:
                immediately = best == INFINITY and before is not None and mine not in self._neighbours
                self.seqno_requests.starve(destination, blocked_link, now, immediately=immediately)
            elif destination.starvation is not NOT_STARVED:
                self.seqno_requests.satisfied(destination)
        if best_row is None:
            return None
        since = before.since if before is not None and best_link == mine else now
        excess = 0 if distance is None or best_row[2] > distance[0] else max(0, best - distance[1])
        return SelectedRoute(best_link, best_row[1], best_row[2], best, best_row[4] + 1, since, excess)

    def _adopt(self, destination: Destination, after: SelectedRoute, now: float) -> SelectedRoute | None:
        """Use another route, or the same one that has changed; returns it, with the excess that it has in the end."""
        before, name, requests = destination.selected, destination.id, self.seqno_requests
        if before is None:
            self._forget.cancel(destination)
            self._selected[name] = destination
        destination.selected = after
        newer = destination.shrink_distance(after)
        if newer or before is None or after[3] < before[3]:
            requests.restart(destination, now, newer=newer)
        if requests.has_requesters(name):
            self._answer(destination, now)
            if before is None or before.link != after.link:
                requests.reforward(name, after.link, now)
        return destination.selected

    def _lose(self, destination: Destination, now: float) -> None:
        """There is no route any more; the distance is kept, since outdated UPDATEs may be in flight."""
        del self._selected[destination.id]
        destination.selected = None
        self._forget.set(destination, now + KEEP_DISTANCE)
        self._quotas.idle(destination.id)
        if self._no_room:  # an idle destination is evicted for one of these
            self.dirty[next(iter(self._no_room))] = _ANY

    def _advertise(self, destination: Destination, before: SelectedRoute | None, now: float) -> None:
        """Have a change of the selected route advertised, at once or after the hold-down."""
        former = self._neighbours.get(before[0]) if before is not None else None
        if is_provisional(destination, before, former.rows if former is not None else None):
            self.advertiser.hold_down(destination, now, found=before is None)
        else:
            self.advertiser.changed(destination, now)

    # -- inside: room for destinations ---------------------------------------------------------------------------

    def _find_room(self, name: NodeId, link: LinkId, not_before: float, changes: list[RouteChange], now: float) -> bool:
        """True if there is room for a route to this destination over that link; others may be evicted for it."""
        victims = None if now < not_before else self._quotas.take(name, self._neighbours[link].node)
        if victims is None:
            self._no_room[name] = not_before
            self.refused[link, "destinations"] += 1
            return False
        for victim in victims:
            self._evict(self._table.pop(victim), changes, now)
        return True

    def _evict(self, destination: Destination, changes: list[RouteChange], now: float) -> None:
        """Drop a destination for one of a neighbour that has advertised fewer. UPDATEs with its route are in flight,
        and without a distance to compare them with they could make a loop: so there is no route again before
        EVICTION_DELAY.
        """
        self.refused[None, "gave_way"] += 1
        name, before = destination.id, destination.selected
        destination.distance = destination.selected = None
        if name in self.dirty:
            self.dirty[name] = _ANY
        if before is not None or destination.is_starved:  # a neighbour still advertises it
            self._no_room[name] = now + EVICTION_DELAY
        if destination.is_starved:
            self.seqno_requests.satisfied(destination)
        if before is None:
            self._forget.cancel(destination)
            return
        del self._selected[name]
        self.advertiser.changed(destination, now)
        self.changed_at = self.moved_at = now
        changes.append(RouteChange(name, before, None))

    # -- inside: requests of neighbours --------------------------------------------------------------------------

    def _meet(self, destination: Destination, request: SeqnoRequest, now: float) -> bool:
        """True if this node's distance is as requested, or can be made so: shrunk, and still above the next hop's."""
        selected = destination.selected
        if selected is None or destination.id in self.dirty:
            return False
        if request.is_met_by(selected.seqno, selected.metric - selected.excess):
            return True
        onward, distance = self._neighbours[selected.link].rows[destination.id], request.distance - 1
        if onward[2] != request.seqno or onward[3] - onward[5] >= distance:
            return False
        destination.distance = (selected.seqno, distance)
        destination.selected = selected._replace(excess=selected.metric - distance)
        self.seqno_requests.restart(destination, now)
        return True

    def _answer(self, destination: Destination, now: float) -> None:
        """Answer the requests that are met by the selected route."""
        next_hop = destination.selected.link if destination.selected is not None else None
        for link in self.seqno_requests.answer(destination.id, lambda request: self._meet(destination, request, now)):
            if link != next_hop:
                self.advertiser.answer(link, destination.id, now)

    def _offers(self, name: NodeId, exclude: LinkId | None) -> list[LinkId]:
        """The links that a route to this destination was received on, the cheapest first."""
        offers = [
            (row[3] + neighbour.cost, link)
            for link, neighbour in self._neighbours.items()
            if link != exclude and (row := neighbour.rows.get(name)) is not None
        ]
        return [link for _, link in sorted(offers)]

    def check(self) -> None:
        """Raise AssertionError if an invariant of the table does not hold."""
        if self._lost or bool(self.dirty) != (self._select_on is not None):
            raise AssertionError("destinations that are dirty after an event")
        self.advertiser.check(self._table.values())
        for name, destination in self._table.items():
            selected, distance = destination.selected, destination.distance
            if (selected is not None) != (name in self._selected) or distance is None:
                raise AssertionError(f"a destination that is in the wrong table: {destination}")
            if selected is None:
                if destination not in self._forget:
                    raise AssertionError(f"a feasibility distance without a timeout: {destination}")
                continue
            neighbour = self._neighbours.get(selected.link)
            row = neighbour.rows.get(name) if neighbour else None
            if neighbour is not None and name in self.dirty:
                continue
            if neighbour is None or row is None:
                raise AssertionError(f"a route to {name!r} that no neighbour has advertised")
            if (selected.metric, selected.seqno) != (row[3] + neighbour.cost, row[2]):
                raise AssertionError(f"the route to {name!r} is not what the neighbour has advertised")
            if distance != (selected.seqno, selected.metric - selected.excess) or selected.excess < 0:
                raise AssertionError(f"the route to {name!r} is past its feasibility distance")
        self._quotas.check()
        if self._quotas.keys() != self._table.keys() or self._no_room.keys() & self._table.keys():
            raise AssertionError("a destination without an owner, or that was refused and is there")
        if self.dirty:
            return
        blocked = {
            name
            for neighbour in self._neighbours.values()
            for name, row in neighbour.rows.items()
            if row[3] + neighbour.cost < (selected.metric if (selected := self.get(name)) is not None else INFINITY)
            and name not in self._no_room
        }
        self.seqno_requests.check(self._table.values(), blocked)
