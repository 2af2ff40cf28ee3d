"""The explanation of a route, and the hops of a path, as `zmesh:why` and `zmesh:hop` answer them."""

from __future__ import annotations

from dataclasses import dataclass

from zmesh.operate.json_form import JsonForm, Seconds
from zmesh.operate.status import LinkFall


@dataclass(frozen=True, slots=True)
class RouteOffer(JsonForm):
    """A route that a neighbour advertises; the words are those of RFC 8966.

    `state` is `selected`, `feasible` (it may be used, and is no cheaper), `unfeasible` (it could be a loop, as the
    neighbour's `distance` is not below this node's feasibility distance) or `unusable` (the link has no cost yet).
    `cost` is what the neighbour `advertised` plus `link_cost`; `hops` count from this node. `text` says why it is in
    that state.
    """

    neighbour: str
    where: str
    state: str
    cost: int
    advertised: int
    link_cost: int
    distance: int
    seqno: int
    hops: int
    suspect: bool
    text: str


@dataclass(frozen=True, slots=True)
class RouteLoss(JsonForm):
    """The last route to a node that can't be reached: how long ago it was lost, and what it was.

    `heard_by` is the node that had the last link with it, and `reason` why that one lost it, where they are known.
    """

    age: Seconds
    next_hop: str | None
    cost: int
    hops: int
    heard_by: str | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RouteExplanation(JsonForm):
    """The explanation of the route of `node` to `destination`.

    `state` is `reachable`, `self`, `left` (there was a route) or `unknown`. The route in use begins at `next_hop`,
    which was selected `since` so many seconds. `seqno` and `feasibility_distance` are the feasibility distance; any
    route is feasible where they are None. `offers` are the routes of neighbours, the one in use first, then the
    feasible ones by cost; `silent` neighbours advertise none. `following` is the neighbour that takes over at once if
    the link with the next hop is lost. `starvation` is `waiting` or `requested` while a better route is not feasible
    and a seqno request is due or sent. `settled` is for how long no route of the node has changed. `falls` are the last
    falls of direct links with the destination, and `dialling` is why it can't be dialled. `near` are known ids that
    resemble an unknown one.
    """

    node: str
    destination: str
    state: str
    next_hop: str | None = None
    cost: int | None = None
    hops: int | None = None
    since: Seconds | None = None
    seqno: int | None = None
    feasibility_distance: int | None = None
    offers: tuple[RouteOffer, ...] = ()
    silent: tuple[str, ...] = ()
    following: str | None = None
    starvation: str = "none"
    settled: Seconds | None = None
    lost: RouteLoss | None = None
    falls: tuple[LinkFall, ...] = ()
    dialling: str = ""
    near: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hop(JsonForm):
    """The next hop of `node` to `destination`: `next_hop`, over the link at `where`.

    `state` and `lost` are as in RouteExplanation. The link has `link_cost`, `rtt`, `queued_bytes`, was `heard` so many
    seconds ago, and is `suspect` while it is silent. `back` is the next hop to the node that the trace began at.
    """

    node: str
    destination: str
    state: str
    next_hop: str | None = None
    where: str = ""
    cost: int | None = None
    hops: int | None = None
    link_cost: int | None = None
    rtt: Seconds | None = None
    queued_bytes: int = 0
    heard: Seconds | None = None
    suspect: bool = False
    back: str | None = None
    lost: RouteLoss | None = None


@dataclass(frozen=True, slots=True)
class TraceStep(JsonForm):
    """One hop of a path: `number` counts from 1, at the node where the trace began.

    `node` has answered within `reply`, round trip, and `hop` is its answer: where it sends on, None if it has not
    answered. `arrived` is true at the destination. `error` says how the trace ended where it did not get there. Steps
    of the path back, which is shown where it differs, have `back` set.
    """

    number: int
    node: str
    reply: Seconds | None = None
    hop: Hop | None = None
    arrived: bool = False
    error: str = ""
    back: bool = False
