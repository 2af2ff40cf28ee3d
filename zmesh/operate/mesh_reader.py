"""A node's view of the mesh: members, links, and the explanation of its routes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from zmesh.core.message import Address, NodeId
from zmesh.core.view import SUSPECT_COST, ActiveLink, Explanation, Loss, Offer, OfferState
from zmesh.operate.json_form import Seconds
from zmesh.operate.members import GraphLink, GraphNode, Member, MemberList, MeshGraph
from zmesh.operate.paths import Hop, RouteExplanation, RouteLoss, RouteOffer

if TYPE_CHECKING:
    from zmesh.core.engine import Engine
    from zmesh.operate.host import Host
    from zmesh.operate.node_reader import NodeReader

MAX_HEARD_BY = 3
"""Neighbours of a member that are named."""


class MeshReader:
    """Reads the tables of one node; what it says of links with it, `own` knows."""

    def __init__(self, host: Host, own: NodeReader) -> None:
        self._host = host
        self._own = own

    @property
    def _engine(self) -> Engine:
        return self._host.engine

    # -- members and links ---------------------------------------------------------------------------------------

    def members(self) -> MemberList:
        """All nodes that can be reached, and those that have left, as far as they are remembered."""
        engine, now = self._engine, time.monotonic()
        heard: dict[str, ActiveLink] = {}
        for link in engine.links():
            if not link.leaf and (link.node not in heard or link.heard > heard[link.node].heard):
                heard[link.node] = link
        tags, duplicates = engine.tags(), engine.duplicates()
        present = [self._present(node, heard.get(node), tags.get(node), now) for node in sorted(engine.nodes())]
        gone = [self._gone(node, loss, now) for node, loss in engine.losses().items()]
        gone.sort(key=lambda member: member.left or 0.0)
        if duplicates:
            from dataclasses import replace

            present = [replace(each, duplicate=each.node in duplicates) for each in present]
        return MemberList(engine.node, (*present, *gone))

    def _present(
        self, node: NodeId, link: ActiveLink | None, tags: tuple[tuple[str, ...], tuple[str, ...]] | None, now: float
    ) -> Member:
        engine = self._engine
        route = engine.routing.route(node)
        record = engine.routing.record(node)
        certified, own = tags if tags is not None else ((), ())
        rtt = link.rtt if link is not None else engine.rtt_to(node) if node != engine.node else None
        if link is not None or node == engine.node:
            by: tuple[str, ...] = (engine.node,)
        else:
            beside = [name for name, _ in record.neighbours] if record is not None else []
            by = tuple(name for name in beside if engine.routing.route(name) is not None)[:MAX_HEARD_BY]
        return Member(
            node=node,
            reachable=True,
            version=engine.software(node),
            tags=certified,
            own_tags=own,
            next_hop=engine.routing.neighbour(route.link) if route is not None else None,
            hops=route.hops if route is not None else 0,
            cost=route.metric if route is not None else 0,
            rtt=Seconds(rtt) if rtt is not None else None,
            heard=Seconds(now - link.heard) if link is not None else None,
            heard_by=by,
        )

    def _gone(self, node: NodeId, loss: Loss, now: float) -> Member:
        by = (loss.heard_by,) if loss.heard_by is not None else ()
        return Member(node, False, self._engine.software(node), heard_by=by, left=Seconds(now - loss.at))

    def graph(self) -> MeshGraph:
        """The nodes that can be reached, and the links between them with the cost at either end."""
        engine = self._engine
        tags, records = engine.tags(), engine.records()
        nodes = []
        for node in sorted(engine.nodes()):
            route = engine.routing.route(node)
            hops = route.hops if route is not None else 0
            nodes.append(GraphNode(node, hops, engine.software(node), tags[node][0] if node in tags else ()))
        costs = {(node, other): cost for node, record in records.items() for other, cost in record.neighbours}
        pairs = sorted({(min(pair), max(pair)) for pair in costs if pair[1] in records})
        links = tuple(GraphLink(a, b, costs.get((a, b)), costs.get((b, a))) for a, b in pairs)
        return MeshGraph(engine.node, tuple(nodes), links)

    # -- routes --------------------------------------------------------------------------------------------------

    def why(self, destination: str) -> RouteExplanation:
        """The explanation of this node's route to a destination, or why there is none."""
        engine, now = self._engine, time.monotonic()
        node = NodeId(Address(destination))
        found = engine.explain(node)
        links = {link.id: link for link in engine.links()}
        selected = found.selected
        settled = Seconds(engine.settled(now))
        offers = tuple(self._offer(offer, found, links.get(offer.link), now) for offer in found.offers)
        state = self._state(node, found.loss)
        return RouteExplanation(
            node=engine.node,
            destination=destination,
            state=state,
            next_hop=engine.routing.neighbour(selected.link) if selected is not None else None,
            cost=selected.metric if selected is not None else None,
            hops=selected.hops if selected is not None else None,
            since=Seconds(now - selected.since) if selected is not None else None,
            seqno=found.distance[0] if found.distance is not None else None,
            feasibility_distance=found.distance[1] if found.distance is not None else None,
            offers=offers if state != "self" else (),
            silent=found.silent if state != "self" else (),
            following=found.following.neighbour if found.following is not None else None,
            starvation=found.starvation.value,
            settled=settled,
            lost=self._loss(node, found.loss, now),
            falls=self._own.falls(destination, now),
            dialling=self._own.dialling(destination),
            near=engine.near(node, now) if state == "unknown" else (),
        )

    def hop(self, destination: str, origin: str | None) -> Hop:
        """The next hop to a node, and the one back to the origin of a trace."""
        engine, now = self._engine, time.monotonic()
        node = NodeId(Address(destination))
        loss = engine.explain(node).loss
        route = engine.route(node)
        back = engine.route(NodeId(Address(origin))) if origin is not None else None
        state, back_to = self._state(node, loss), back.next_hop if back is not None else None
        if route is None:
            return Hop(engine.node, destination, state, back=back_to, lost=self._loss(node, loss, now))
        (link,) = (each for each in engine.links() if each.id == route.link)
        return Hop(
            node=engine.node,
            destination=destination,
            state=state,
            next_hop=route.next_hop,
            where=self._own.where(route.link),
            cost=route.metric,
            hops=route.hops,
            link_cost=link.cost,
            rtt=Seconds(link.rtt) if link.rtt is not None else None,
            queued_bytes=link.queued_bytes,
            heard=Seconds(now - link.heard),
            suspect=link.suspect,
            back=back_to,
        )

    def _state(self, node: NodeId, loss: Loss | None) -> str:
        if node == self._engine.node:
            return "self"
        if self._engine.routing.route(node) is not None:
            return "reachable"
        return "left" if loss is not None else "unknown"

    def _loss(self, node: NodeId, loss: Loss | None, now: float) -> RouteLoss | None:
        if loss is None:
            return None
        falls = self._own.falls(node, now) if loss.heard_by == self._engine.node else ()
        reason = falls[0].reason if falls else ""
        return RouteLoss(Seconds(now - loss.at), loss.next_hop, loss.metric, loss.hops, loss.heard_by, reason)

    def _offer(self, offer: Offer, found: Explanation, link: ActiveLink | None, now: float) -> RouteOffer:
        return RouteOffer(
            neighbour=offer.neighbour,
            where=self._own.where(offer.link),
            state=offer.state.value,
            cost=offer.metric,
            advertised=offer.advertised,
            link_cost=offer.link_cost,
            distance=offer.distance,
            seqno=offer.seqno,
            hops=offer.hops,
            suspect=link is not None and link.suspect,
            text=_why(offer, found, now) + _suspicion(offer, link, now),
        )


def _suspicion(offer: Offer, link: ActiveLink | None, now: float) -> str:
    """The part of an offer's cost that is due to a suspect link, in words to append to `_why`."""
    if link is not None and link.suspect:
        silent = f"silent for {now - link.heard:.1f} s"
        return f"; its link is suspect ({silent}), which adds {SUSPECT_COST} to its cost"
    if offer.state is not OfferState.UNUSABLE and offer.advertised >= SUSPECT_COST:
        return f"; a link beyond {offer.neighbour} is suspect, which adds {SUSPECT_COST} to its cost"
    return ""


def _why(offer: Offer, found: Explanation, now: float) -> str:
    """Why an offer is in its state, in words."""
    selected, distance = found.selected, found.distance
    match offer.state:
        case OfferState.SELECTED:
            return "the cheapest feasible route"
        case OfferState.FEASIBLE:
            if selected is None:
                return "feasible; there is no room in the table" if found.refused else "feasible"
            dearer = offer.metric - selected.metric
            return f"feasible, and costs {dearer} more" if dearer else "feasible, and costs the same"
        case OfferState.UNFEASIBLE:
            least = distance[1] if distance is not None else 0
            below = f"its distance {offer.distance} is not below the feasibility distance {least}"
            if distance is not None and offer.seqno < distance[0]:
                below = f"its seqno {offer.seqno} is older than {distance[0]}"
            return f"unfeasible: {below}, so it could lead back here"
        case OfferState.UNUSABLE:
            return "unusable: no round trip has been measured on its link yet"
