"""The state of a destination: the selected route, what neighbours know of it, and whether a better route is blocked.

What has been advertised, against what is selected (`Advertising`; BGP has the two in its Adj-RIBs-Out and Loc-RIB, RFC
4271 section 3.2). `changed` and `held_down` follow a change of the selected route, `advertise` builds an UPDATE:

| state      | neighbours know                 | changed | held down | advertise  | the UPDATE is sent |
| ---------- | ------------------------------- | ------- | --------- | ---------- | ------------------ |
| ADVERTISED | the selected route, or no route | P or R  | HELD_DOWN | -          | -                  |
| PENDING    | a former route, or no route     | P or R  | HELD_DOWN | ADVERTISED | after COALESCE     |
| HELD_DOWN  | a former route, or no route     | P or R  | HELD_DOWN | ADVERTISED | after HOLD_DOWN    |
| RETRACTING | a route, and none is selected   | P or R  | HELD_DOWN | ADVERTISED | at once            |

`changed` leads to PENDING (P) if a route is selected, else to RETRACTING (R).

Whether a route is known that is cheaper than the selected one, or the only one, and not feasible (`Starvation`):

| state     | requests of this round       | starve                         | requested | restart | satisfied |
| --------- | ---------------------------- | ------------------------------ | --------- | ------- | --------- |
| NONE      | -                            | WAITING, round 1               | -         | -       | -         |
| WAITING   | the first is due             | -                              | REQUESTED | -       | NONE      |
| REQUESTED | sent; the next is due later  | WAITING if another is cheapest | -         | WAITING | NONE      |

`restart` begins another round when the node's own distance has shrunk, so that what was requested is not enough, and
round 1 if there is a newer seqno.
"""

from __future__ import annotations

from enum import Enum

from zmesh.core.message import LinkId, NodeId
from zmesh.core.routing.selected_route import SelectedRoute


class Advertising(Enum):
    """How what neighbours know of a destination relates to the selected route."""

    ADVERTISED = "advertised"
    PENDING = "pending"
    HELD_DOWN = "held down"
    RETRACTING = "retracting"


class Starvation(Enum):
    """Whether a better route is blocked by the feasibility condition, and whether a seqno request was sent."""

    NONE = "none"
    WAITING = "waiting"
    REQUESTED = "requested"


ADVERTISED, PENDING, HELD_DOWN, RETRACTING = Advertising
NOT_STARVED, WAITING, REQUESTED = Starvation


class Destination:
    """One destination. `distance` is the feasibility distance as (seqno, metric); None: there is none yet."""

    __slots__ = (
        "advertised",
        "advertising",
        "distance",
        "id",
        "requested_from",
        "rounds",
        "selected",
        "starvation",
        "tries",
    )

    def __init__(self, id: NodeId) -> None:
        self.id = id
        self.selected: SelectedRoute | None = None
        self.distance: tuple[int, int] | None = None
        self.advertised: SelectedRoute | None = None
        self.advertising = ADVERTISED
        self.starvation = NOT_STARVED
        self.tries = 0
        """How many requests were sent in this round."""
        self.rounds = 1
        self.requested_from: LinkId | None = None
        """The link with the cheapest offer when the last request was sent."""

    def __repr__(self) -> str:
        return f"<{self.id}: {self.advertising.value}, starvation {self.starvation.value}, {self.selected}>"

    # -- selection -----------------------------------------------------------------------------------------------

    def shrink_distance(self, selected: SelectedRoute) -> bool:
        """Let the feasibility distance follow a newly selected route; True if that has a newer seqno."""
        distance = self.distance
        if distance is None or selected.seqno > distance[0] or selected.metric < distance[1]:
            self.distance = (selected.seqno, selected.metric)
        return distance is not None and selected.seqno > distance[0]

    # -- advertising ---------------------------------------------------------------------------------------------

    def changed(self) -> Advertising:
        """The selected route has changed, and neighbours have to be informed; returns the new state."""
        self.advertising = RETRACTING if self.selected is None else PENDING
        return self.advertising

    def held_down(self) -> None:
        """The selected route has changed, and may change back in a moment."""
        self.advertising = HELD_DOWN

    def advertise(self) -> SelectedRoute | None:
        """The selected route goes into an UPDATE; returns the one that was advertised before."""
        before, self.advertised = self.advertised, self.selected
        self.advertising = ADVERTISED
        return before

    # -- starvation ----------------------------------------------------------------------------------------------

    @property
    def is_starved(self) -> bool:
        """True if a better route is blocked."""
        return self.starvation is not NOT_STARVED

    def starve(self, cheapest: LinkId) -> bool:
        """A better route is blocked, the cheapest over that link; True if a request for it is due.

        If the last request went to another link first, that was the wrong one.
        """
        if self.starvation is NOT_STARVED:
            self.rounds, self.requested_from = 1, None
            self._wait()
        elif self.requested_from != cheapest:
            self._wait()
        return self.starvation is WAITING

    def restart(self, *, newer: bool) -> None:
        """The distance has shrunk, or there is a `newer` seqno: what was requested is not enough any more."""
        self.rounds = 1 if newer else self.rounds + (self.starvation is REQUESTED)
        self._wait()

    def _wait(self) -> None:
        self.starvation, self.tries = WAITING, 0

    def requested(self, cheapest: LinkId) -> int:
        """A request is sent, to that link first; returns how many there were in this round."""
        self.starvation, self.requested_from = REQUESTED, cheapest
        self.tries += 1
        return self.tries

    def satisfied(self) -> None:
        """No route is better than the selected one."""
        self.starvation = NOT_STARVED

    def check(self) -> None:
        """Raise AssertionError if a state does not agree with the routes."""
        known = self.advertising is ADVERTISED
        if known and not is_known(self.advertised, self.selected):
            raise AssertionError(f"a change that is not to be advertised: {self}")
        if (self.advertising is RETRACTING and self.selected is not None) or (
            self.advertising is PENDING and self.selected is None
        ):
            raise AssertionError(f"an advertisement of the wrong kind: {self}")
        if (self.starvation is REQUESTED) != (self.starvation is not NOT_STARVED and self.tries > 0):
            raise AssertionError(f"requests that were not counted: {self}")


def is_known(advertised: SelectedRoute | None, selected: SelectedRoute | None) -> bool:
    """True if neighbours that know `advertised` need no UPDATE: next hop, incarnation, metric and hops are the same."""
    if advertised is None or selected is None:
        return advertised is selected
    return advertised[:2] == selected[:2] and advertised[3:5] == selected[3:5]
