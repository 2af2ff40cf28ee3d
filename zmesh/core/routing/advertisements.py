"""Route advertisements: which UPDATEs a node sends to its neighbours, and when.

A change is advertised to all neighbours at once; changes within COALESCE of it go together in the next UPDATE.
Retractions bypass coalescing, so that they outrun the path exploration that follows when a node dies (ghost flushing:
Bremler-Barr, Afek and Schwarz, INFOCOM 2003). Split horizon: nothing is advertised to the next hop of a route (RFC 8966
section 3.7.4). A new link gets a full update, and so does a neighbour that sends RESEND.

Hold-down: a change that is likely to be reverted is advertised only after HOLD_DOWN, which damps path hunting. It
applies to a route lost with its own link (a seqno request may restore it, unless the neighbour itself was the
destination), and to a costlier alternate that is selected after a retraction or because of an answer to a seqno request
(the alternate may lead through the same dead node and be retracted too). This is safe: a node without a route forwards
nothing, and the feasibility distance that neighbours know still is above that of the node.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from zmesh.core.message import LinkId, NodeId
from zmesh.core.routing.selected_route import SelectedRoute
from zmesh.core.timers import Alarm, Timers
from zmesh.core.wire import FULL_BEGIN, FULL_END, INFINITY, MAX_ENTRIES, Row

COALESCE = 0.005
HOLD_DOWN = 0.04


class Advertisement(NamedTuple):
    """One UPDATE for several links."""

    links: list[LinkId]
    full: int
    number: int
    entries: list[Row]


class _Recipient:
    """How much was told on one link, and whether it is to be told everything."""

    __slots__ = ("needs_full_update", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.needs_full_update = True


class Advertiser:
    """What the neighbours have been told, and what they have not. `selected` are the routes in use."""

    def __init__(self, node: NodeId, selected: Mapping[NodeId, SelectedRoute], alarm: Alarm) -> None:
        self._node = node
        self._selected = selected
        self._alarm = alarm
        self._neighbours: dict[LinkId, _Recipient] = {}
        self._advertised: dict[NodeId, SelectedRoute] = {}
        self._pending: dict[NodeId, None] = {}
        self._held_down: Timers[NodeId] = Timers(alarm)
        """What is told by itself at its time: a route that is gone at once, what may be undone after HOLD_DOWN."""
        self._answers: dict[LinkId, dict[NodeId, None]] = {}
        self._flush_at: float | None = None
        self._flushed_at = -math.inf
        self.urgent = False
        """Whether there is something to tell that must not wait."""

    def sent(self, link: LinkId) -> int:
        """How many UPDATEs were sent on that link."""
        neighbour = self._neighbours.get(link)
        return neighbour.sent if neighbour else 0

    def link_up(self, link: LinkId, now: float) -> None:
        """A link to a neighbour is up."""
        self._neighbours[link] = _Recipient()
        self._hurry(now)

    def link_down(self, link: LinkId) -> None:
        """The link is down."""
        self._neighbours.pop(link, None)
        self._answers.pop(link, None)

    def resend(self, link: LinkId, now: float) -> None:
        """Tell that neighbour the whole table once more."""
        neighbour = self._neighbours.get(link)
        if neighbour is not None:
            neighbour.needs_full_update = True
            self._hurry(now)

    def answer(self, link: LinkId, destination: NodeId, now: float) -> None:
        """Tell that neighbour how this destination stands; what was held back is told to all then."""
        if link in self._neighbours:
            if destination in self._held_down:
                self.changed(destination, now)
            self._answers.setdefault(link, {})[destination] = None
            self._hurry(now)

    def changed(self, destination: NodeId, now: float) -> None:
        """The route to `destination` has changed, or is gone."""
        if destination not in self._selected:
            self._pending.pop(destination, None)
            self._held_down.set(destination, now)
            self.urgent = True
            return
        self._held_down.cancel(destination)
        self._pending[destination] = None
        if self._flush_at is None:
            self._flush_at = max(now, self._flushed_at + COALESCE)
            self._alarm.at(self._flush_at)

    def hold_down(self, destination: NodeId, now: float, *, found: bool = False) -> None:
        """The route to `destination` has changed, or is gone, and that may be undone in a moment. It waits for that
        unless somebody is told of it already, for whom it would never be undone; what was `found` when there was none
        waits from now on.
        """
        if any(destination in answers for answers in self._answers.values()):
            self.changed(destination, now)
            return
        self._pending.pop(destination, None)
        if found:
            self._held_down.set(destination, now + HOLD_DOWN)
        else:
            self._held_down.set_default(destination, now + HOLD_DOWN)

    def is_held_down(self, destination: NodeId) -> bool:
        """True if what has become of that route is not told yet, because it may be undone."""
        return destination in self._held_down

    def flush(self, own: SelectedRoute, now: float) -> list[Advertisement]:
        """What to tell on which links; empty before its time. `own` is how this node tells of itself."""
        self.urgent = False
        pending = dict.fromkeys(self._held_down.expire(now))
        if self._flush_at is not None and self._flush_at <= now:
            self._flush_at, self._flushed_at = None, now
            pending.update(self._pending)
            self._pending = {}
        elif not pending:
            return []
        updates: list[Advertisement] = []
        news, exceptions = self._news(pending)
        links = [
            link for link, known in self._neighbours.items() if not known.needs_full_update and link not in exceptions
        ]
        self._tell(links, news, updates)
        for link, changes in exceptions.items():
            if link in self._neighbours and not self._neighbours[link].needs_full_update:
                self._tell([link], _patched(news, changes), updates)
        for link, neighbour in self._neighbours.items():
            if neighbour.needs_full_update:
                updates += self._full_update(link, neighbour, own)
        answers, self._answers = self._answers, {}
        for link, destinations in answers.items():
            routes = ((to, own if to == self._node else self._selected.get(to)) for to in destinations)
            self._tell([link], [_row(to, route) for to, route in routes if route is not None], updates)
        return updates

    def next_deadline(self) -> float | None:
        """When `flush` has work."""
        held = self._held_down.next_deadline()
        if self._flush_at is None or (held is not None and held < self._flush_at):
            return held
        return self._flush_at

    def _hurry(self, now: float) -> None:
        self._flush_at = now
        self.urgent = True

    def _news(self, pending: Iterable[NodeId]) -> tuple[list[Row], dict[LinkId, list[tuple[int, Row | None]]]]:
        """What has changed of these since it was told, which counts as told from here on, and what is said otherwise.

        The latter is, for a link, what to say in place of the news with that number, or (number -1) besides; None is
        nothing. It follows from the next hop, which is told nothing: the new one is told that the route is gone, if it
        was told of one before, and the former one, which was told nothing, of the route that there is now.
        """
        news: list[Row] = []
        exceptions: dict[LinkId, list[tuple[int, Row | None]]] = {}
        advertised = self._advertised
        for destination in pending:
            before, after = advertised.get(destination), self._selected.get(destination)
            lost: Row = (destination, 0, 0, INFINITY, 0, 0)
            if after is None:
                if before is not None:
                    del advertised[destination]
                    exceptions.setdefault(before.link, []).append((len(news), None))
                    news.append(lost)
                continue
            advertised[destination] = after
            moved = before is not None and before.link != after.link
            if before is None or (before[1], before[3:5]) != (after[1], after[3:5]):
                exceptions.setdefault(after.link, []).append((len(news), lost if moved else None))
                news.append(_row(destination, after))
            elif moved:
                exceptions.setdefault(after.link, []).append((-1, lost))
                exceptions.setdefault(before.link, []).append((-1, _row(destination, after)))
        return news, exceptions

    def _tell(self, links: list[LinkId], rows: list[Row], updates: list[Advertisement]) -> None:
        """Tell these neighbours the same, in parts."""
        for start in range(0, len(rows) if links else 0, MAX_ENTRIES):
            updates.append(Advertisement(links, 0, 0, rows[start : start + MAX_ENTRIES]))
            for link in links:
                self._neighbours[link].sent += 1

    def _full_update(self, link: LinkId, neighbour: _Recipient, own: SelectedRoute) -> list[Advertisement]:
        """The whole table for one neighbour, in parts: what the others know."""
        neighbour.needs_full_update = False
        table = {to: route for to, route in self._selected.items() if to not in self._held_down}
        table.update((to, self._advertised[to]) for to in self._held_down if to in self._advertised)
        rows = [_row(self._node, own)]
        rows += [_row(to, route) for to, route in table.items() if route.link != link]
        updates: list[Advertisement] = []
        for start in range(0, len(rows), MAX_ENTRIES):
            neighbour.sent += 1
            full = (FULL_BEGIN if start == 0 else 0) | (FULL_END if start + MAX_ENTRIES >= len(rows) else 0)
            updates.append(Advertisement([link], full, neighbour.sent, rows[start : start + MAX_ENTRIES]))
        return updates

    def check(self) -> None:
        """Raise AssertionError if a route is told of otherwise than it is, and nothing will tell."""
        for destination in self._advertised.keys() | self._selected.keys():
            advertised, current = self._advertised.get(destination), self._selected.get(destination)
            if (
                not _is_same(advertised, current)
                and destination not in self._pending
                and destination not in self._held_down
            ):
                raise AssertionError(f"nobody will hear of the route to {destination!r}")
        if self._pending and self._flush_at is None:
            raise AssertionError("news that nothing will tell")


def _patched(news: list[Row], changes: list[tuple[int, Row | None]]) -> list[Row]:
    rows: list[Row | None] = list(news)
    for number, row in changes:
        if number < 0:
            rows.append(row)
        else:
            rows[number] = row
    return [row for row in rows if row is not None]


def _is_same(advertised: SelectedRoute | None, current: SelectedRoute | None) -> bool:
    """True if neighbours that know `advertised` need no news of `current`: all but seqno, excess and age is equal."""
    return (
        advertised is not None
        and current is not None
        and (advertised[:2], advertised[3:5]) == (current[:2], current[3:5])
    )


def _row(destination: NodeId, route: SelectedRoute) -> Row:
    return (destination, route.incarnation, route.seqno, route.metric, route.hops, route.excess)
