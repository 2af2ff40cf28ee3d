"""Route advertisements: which UPDATEs a node sends to its neighbours, and when.

A change is advertised to all neighbours at once; changes within COALESCE of it go together in the next UPDATE. Many
links make that longer, so that a hub which has started does not send every one of them each of its new routes apart.
Retractions bypass coalescing, so that they outrun the path exploration that follows when a node dies (ghost flushing:
Bremler-Barr, Afek and Schwarz, INFOCOM 2003). Split horizon: nothing is advertised to the next hop of a route (RFC 8966
section 3.7.4). A new link gets a full update, and so does a neighbour that sends RESEND.

Hold-down: a change that is likely to be reverted is advertised only after HOLD_DOWN, which damps path hunting: all
nodes beyond see one change instead of two (`is_provisional` says which changes those are). That makes no loops: a node
without a route forwards nothing, and what neighbours know of the feasibility distance is not below the real one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from zmesh.core.message import LinkId, NodeId
from zmesh.core.routing.destinations import ADVERTISED, HELD_DOWN, PENDING, RETRACTING, Destination
from zmesh.core.routing.selected_route import SelectedRoute
from zmesh.core.timers import Alarm, Timers
from zmesh.core.wire import FULL_BEGIN, FULL_END, INFINITY, MAX_ENTRIES, Row

COALESCE = 0.005
COALESCE_PER_LINK = 0.0002
"""Seconds that the pause is at least for each link: a hub with 500 of them sends 500 UPDATEs for one change."""
HOLD_DOWN = 0.04


class Advertisement(NamedTuple):
    """One UPDATE for several links."""

    links: list[LinkId]
    full: int
    number: int
    entries: list[Row]


class _Recipient:
    """How many UPDATEs were sent on one link, and whether a full update is due there."""

    __slots__ = ("needs_full_update", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.needs_full_update = True


_Exceptions = dict[LinkId, list[tuple[int, Row | None]]]


class Advertiser:
    """The advertisements of one node. `selected` are the destinations that there is a route to."""

    def __init__(self, node: NodeId, selected: Mapping[NodeId, Destination], alarm: Alarm) -> None:
        self._node = node
        self._selected = selected
        self._alarm = alarm
        self._recipients: dict[LinkId, _Recipient] = {}
        self._pending: dict[Destination, None] = {}
        """The destinations that are PENDING, in the order in which they changed."""
        self._timers: Timers[Destination] = Timers(alarm)
        """When to advertise those that are RETRACTING or HELD_DOWN."""
        self._answers: dict[LinkId, dict[NodeId, None]] = {}
        """The routes that neighbours get in answer to a seqno request."""
        self._flush_at: float | None = None
        self._flushed_at = -math.inf
        self.urgent = False
        """True if an UPDATE has to be sent before the stimulus ends."""

    def sent(self, link: LinkId) -> int:
        """How many UPDATEs were sent on that link."""
        recipient = self._recipients.get(link)
        return recipient.sent if recipient else 0

    def link_up(self, link: LinkId, now: float) -> None:
        """A link to a neighbour is up: it gets a full update."""
        self._recipients[link] = _Recipient()
        self._flush_at_once(now)

    def link_down(self, link: LinkId) -> None:
        """The link is down."""
        self._recipients.pop(link, None)
        self._answers.pop(link, None)

    def resend(self, link: LinkId, now: float) -> None:
        """Send that neighbour a full update once more."""
        recipient = self._recipients.get(link)
        if recipient is not None:
            recipient.needs_full_update = True
            self._flush_at_once(now)

    def answer(self, link: LinkId, name: NodeId, now: float) -> None:
        """Advertise this route to the neighbour that has requested it; if it was held down, then to all."""
        if link in self._recipients:
            destination = self._selected.get(name)
            if destination is not None and destination.advertising is HELD_DOWN:
                self.changed(destination, now)
            self._answers.setdefault(link, {})[name] = None
            self._flush_at_once(now)

    def changed(self, destination: Destination, now: float) -> None:
        """Advertise that the selected route has changed, or at once that there is none."""
        before = destination.advertising
        after = destination.changed()
        if after is RETRACTING:
            self._pending.pop(destination, None)
            self._timers.set(destination, now)
            self.urgent = True
            return
        if before is PENDING:
            return
        if before is not ADVERTISED:
            self._timers.cancel(destination)
        self._pending[destination] = None
        if self._flush_at is None:
            pause = max(COALESCE, COALESCE_PER_LINK * len(self._recipients))
            self._flush_at = max(now, self._flushed_at + pause)
            self._alarm.at(self._flush_at)

    def hold_down(self, destination: Destination, now: float, *, found: bool = False) -> None:
        """Advertise a change that may be reverted after HOLD_DOWN, counted from the first one unless a route was
        `found` after there was none. A neighbour that waits for an answer to a seqno request gets it now, and then all
        others do.
        """
        if any(destination.id in answers for answers in self._answers.values()):
            self.changed(destination, now)
            return
        destination.held_down()
        self._pending.pop(destination, None)
        if found:
            self._timers.set(destination, now + HOLD_DOWN)
        else:
            self._timers.set_default(destination, now + HOLD_DOWN)

    def flush(self, own: SelectedRoute, now: float) -> list[Advertisement]:
        """The UPDATEs that are due; `own` is the route of this node to itself."""
        self.urgent = False
        due = dict.fromkeys(self._timers.expire(now))
        if self._flush_at is not None and self._flush_at <= now:
            self._flush_at, self._flushed_at = None, now
            due.update(self._pending)
            self._pending = {}
        elif not due:
            return []
        updates: list[Advertisement] = []
        rows, exceptions = self._changes(due)
        current = {link for link, recipient in self._recipients.items() if not recipient.needs_full_update}
        self._append([link for link in self._recipients if link in current and link not in exceptions], rows, updates)
        for link, changes in exceptions.items():
            if link in current:
                self._append([link], _patched(rows, changes), updates)
        for link, recipient in self._recipients.items():
            if recipient.needs_full_update:
                updates += self._full_update(link, recipient, own)
        answers, self._answers = self._answers, {}
        for link, names in answers.items():
            self._append([link], self._answer_rows(names, own), updates)
        return updates

    def next_deadline(self) -> float | None:
        """When `flush` has work."""
        timer = self._timers.next_deadline()
        if self._flush_at is None or (timer is not None and timer < self._flush_at):
            return timer
        return self._flush_at

    def _flush_at_once(self, now: float) -> None:
        self._flush_at = now
        self.urgent = True

    def _changes(self, due: Iterable[Destination]) -> tuple[list[Row], _Exceptions]:
        """Advertise these destinations: the rows of those that have changed, and the exceptions of split horizon.

        The latter are, for a link, what to send in place of the row with that number, or (number -1) in addition; None:
        nothing. The new next hop of a route gets a retraction if the route was advertised to it before, and the former
        one, to which it was not, gets the route.
        """
        rows: list[Row] = []
        exceptions: _Exceptions = {}
        for destination in due:
            before = destination.advertise()
            after = destination.advertised
            retraction: Row = (destination.id, 0, 0, INFINITY, 0, 0)
            if after is None:
                if before is not None:
                    exceptions.setdefault(before.link, []).append((len(rows), None))
                    rows.append(retraction)
                continue
            moved = before is not None and before.link != after.link
            if before is None or (before[1], before[3:5]) != (after[1], after[3:5]):
                exceptions.setdefault(after.link, []).append((len(rows), retraction if moved else None))
                rows.append(_row(destination.id, after))
            elif moved:
                exceptions.setdefault(after.link, []).append((-1, retraction))
                exceptions.setdefault(before.link, []).append((-1, _row(destination.id, after)))
        return rows, exceptions

    def _append(self, links: list[LinkId], rows: list[Row], updates: list[Advertisement]) -> None:
        """Add these rows for these links, in as many UPDATEs as it takes."""
        for start in range(0, len(rows) if links else 0, MAX_ENTRIES):
            updates.append(Advertisement(links, 0, 0, rows[start : start + MAX_ENTRIES]))
            for link in links:
                self._recipients[link].sent += 1

    def _full_update(self, link: LinkId, recipient: _Recipient, own: SelectedRoute) -> list[Advertisement]:
        """All routes for one neighbour, as the other neighbours know them."""
        recipient.needs_full_update = False
        selected = (one for one in self._selected.values() if one.advertising is not HELD_DOWN)
        table = [(one.id, one.selected) for one in selected] + [(one.id, one.advertised) for one in self._timers]
        rows = [_row(self._node, own)]
        rows += [_row(name, route) for name, route in table if route is not None and route.link != link]
        updates: list[Advertisement] = []
        for start in range(0, len(rows), MAX_ENTRIES):
            recipient.sent += 1
            full = (FULL_BEGIN if start == 0 else 0) | (FULL_END if start + MAX_ENTRIES >= len(rows) else 0)
            updates.append(Advertisement([link], full, recipient.sent, rows[start : start + MAX_ENTRIES]))
        return updates

    def _answer_rows(self, names: Iterable[NodeId], own: SelectedRoute) -> list[Row]:
        rows: list[Row] = []
        for name in names:
            destination = self._selected.get(name)
            route = own if name == self._node else destination.selected if destination is not None else None
            if route is not None:
                rows.append(_row(name, route))
        return rows

    def check(self, destinations: Iterable[Destination]) -> None:
        """Raise AssertionError if a change would not be advertised; `destinations` are all that there are."""
        for destination in {*destinations, *self._timers, *self._pending}:
            destination.check()
            if (destination.advertising is PENDING) != (destination in self._pending):
                raise AssertionError(f"no UPDATE will advertise {destination}")
            if (destination.advertising in (HELD_DOWN, RETRACTING)) != (destination in self._timers):
                raise AssertionError(f"no timer will advertise {destination}")
        if self._pending and self._flush_at is None:
            raise AssertionError("pending changes, and no UPDATE is due")


def is_provisional(destination: Destination, before: SelectedRoute | None, rows: Mapping[NodeId, Row] | None) -> bool:
    """True if a change of the selected route is likely to be reverted, and has to be held down. `rows` are those that
    the next hop of the route `before` advertises now; None: the link to it is down.

    | change                  | is provisional if                                                                     |
    | ----------------------- | ------------------------------------------------------------------------------------- |
    | a route is found        | it is an alternate that the answer to a seqno request has made feasible: it may lead  |
    |                         | through a node that has died, and be retracted                                        |
    | the route is lost       | it was lost with its own link, and a seqno request may restore it; not if the         |
    |                         | destination was the neighbour itself, which is most likely dead                       |
    | the metric grows        | the change before is held down, or the next hop has retracted its route, and this one |
    |                         | may be retracted too                                                                  |
    | the metric does not grow | never                                                                                |
    """
    after = destination.selected
    if before is None:
        return after is not None and after[6] > 0
    if after is None:
        return rows is None and before.hops > 1 and destination.is_starved
    if after[3] <= before[3]:
        return False
    return destination.advertising is HELD_DOWN or (rows is not None and destination.id not in rows)


def _patched(rows: list[Row], changes: list[tuple[int, Row | None]]) -> list[Row]:
    patched: list[Row | None] = list(rows)
    for number, row in changes:
        if number < 0:
            patched.append(row)
        else:
            patched[number] = row
    return [row for row in patched if row is not None]


def _row(destination: NodeId, route: SelectedRoute) -> Row:
    return (destination, route.incarnation, route.seqno, route.metric, route.hops, route.excess)
