"""Why a node uses the route to a destination that it uses, or has none: everything that decides it, as one value.

The words are those of RFC 8966: a route that a neighbour offers is *feasible* if the neighbour's distance, as it
advertises it, is below this node's feasibility distance, or has a newer seqno. Only feasible routes are selected, of
these the cheapest; so when the selected one is lost, the cheapest of the feasible others takes its place at once. An
*unfeasible* one could be a loop, and is not used before a seqno request has been answered.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from zmesh.core.message import LinkId, NodeId
from zmesh.core.routing.departed import Departed
from zmesh.core.routing.destinations import Advertising, Starvation
from zmesh.core.routing.routes import Routes
from zmesh.core.routing.selected_route import SelectedRoute
from zmesh.core.wire import INFINITY


class OfferState(Enum):
    """The state of a route that a neighbour offers.

    SELECTED: it is used. FEASIBLE: it may be, and is not cheaper. UNFEASIBLE: it could be a loop. UNUSABLE: the link
    has no cost yet, because no round trip has been measured.
    """

    SELECTED = "selected"
    FEASIBLE = "feasible"
    UNFEASIBLE = "unfeasible"
    UNUSABLE = "unusable"


class Offer(NamedTuple):
    """A route that a neighbour advertises: its `seqno`, the `advertised` metric, and the `distance` (the neighbour's
    own feasibility distance) that feasibility is decided by. `metric` is the advertised one plus the cost of the link,
    `hops` count from this node."""

    link: LinkId
    neighbour: NodeId
    state: OfferState
    seqno: int
    advertised: int
    distance: int
    link_cost: int
    metric: int
    hops: int


class Loss(NamedTuple):
    """The last route to a destination without one: when it was lost (the engine's time), and what it was.

    `heard_by` is the reachable node, or this one, that was linked last to the destination; None if that is unknown.
    """

    at: float
    next_hop: NodeId | None
    metric: int
    hops: int
    heard_by: NodeId | None


class Explanation(NamedTuple):
    """Why `selected` is the route to `destination`; None: there is none.

    `distance` is the feasibility distance as (seqno, metric); None: there is none, and any route is feasible. `offers`
    are the routes that neighbours advertise, the selected one first, then the feasible ones, the cheapest first.
    `silent` are the neighbours that advertise none. `following` is the offer that is selected if the link of the
    selected route is lost now. `refused` is true where the table has no room for the destination.
    """

    destination: NodeId
    selected: SelectedRoute | None
    distance: tuple[int, int] | None
    offers: tuple[Offer, ...]
    silent: tuple[NodeId, ...]
    following: Offer | None
    starvation: Starvation
    advertising: Advertising
    refused: bool
    loss: Loss | None


def explain(name: NodeId, routes: Routes, departed: Departed, links: dict[LinkId, NodeId]) -> Explanation:
    """The explanation of the route to a destination; `links` are the neighbours of all links that routes may use."""
    state, selected = routes.destination(name), routes.get(name)
    distance = state.distance if state is not None else None
    offers, silent = [], []
    for link, neighbour in links.items():
        candidate = routes.candidate(name, link)
        if candidate is None:
            silent.append(neighbour)
            continue
        (_, _, seqno, advertised, hops, excess), cost, is_feasible = candidate
        metric = min(INFINITY, advertised + cost)
        kind = OfferState.FEASIBLE if is_feasible else OfferState.UNFEASIBLE
        if metric >= INFINITY:
            kind = OfferState.UNUSABLE
        elif selected is not None and selected.link == link:
            kind = OfferState.SELECTED
        below = advertised - excess
        offers.append(Offer(link, neighbour, kind, seqno, advertised, below, cost, metric, hops + 1))
    following = min(
        (offer for offer in offers if offer.state is OfferState.FEASIBLE), key=lambda offer: offer.metric, default=None
    )
    order = list(OfferState)
    offers.sort(key=lambda offer: (order.index(offer.state), offer.metric))
    return Explanation(
        name,
        selected,
        distance,
        tuple(offers),
        tuple(dict.fromkeys(sorted(silent))),
        following,
        state.starvation if state is not None else Starvation.NONE,
        state.advertising if state is not None else Advertising.ADVERTISED,
        routes.is_refused(name),
        loss_of(name, departed),
    )


def loss_of(name: NodeId, departed: Departed) -> Loss | None:
    """How the last route to a node was lost; None if it has one, never had one, or that is forgotten."""
    known = departed.get(name)
    if known is None:
        return None
    return Loss(known.at, known.next_hop, known.metric, known.hops, departed.heard_by(name))
