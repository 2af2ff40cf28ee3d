"""Updates routes, queues and exchanges when a link is accepted, falls silent or ends.

The neighbours decide about a link by what they hear on it; here that is carried out in the other tables, in the order
that keeps them consistent: a link that ends is taken out of forwarding first, then its routes are replaced, then what
waited for it is routed anew.
"""

from __future__ import annotations

from zmesh.core.delivery import Delivery
from zmesh.core.forwarding import Forwarding
from zmesh.core.grants import Grants
from zmesh.core.message import Address, NodeId
from zmesh.core.neighbours import Accepted, Ended, Link, LinkEvent, Neighbours, State
from zmesh.core.routing import Routing


class Adjacency:
    """The links of one node as its routing, forwarding and delivery see them; a leaf has uplinks and no routes."""

    __slots__ = ("_delivery", "_forwarding", "_grants", "_leaf", "_neighbours", "_node", "_routing")

    def __init__(
        self,
        node: NodeId,
        neighbours: Neighbours,
        routing: Routing,
        forwarding: Forwarding,
        delivery: Delivery,
        grants: Grants,
    ) -> None:
        self._node = node
        self._neighbours = neighbours
        self._routing = routing
        self._forwarding = forwarding
        self._delivery = delivery
        self._grants = grants
        self._leaf = forwarding.leaf

    def follow(self, event: LinkEvent | None, now: float) -> None:
        """Carry out what the neighbours have decided about a link."""
        match event:
            case Accepted(link):
                self.establish(link, now)
            case Ended(link, reason):
                self.close(link, reason, now)

    def check_trust(self, now: float, *, in_full: bool = False) -> None:
        """End the links to nodes that are not believed any more."""
        self._routing.check_trust(now, in_full=in_full)
        if self._forwarding.end_to_end is not None:
            self._forwarding.end_to_end.sweep(now)
        for ended in self._neighbours.disbelieved(now):
            self.follow(ended, now)

    def clock_set(self, ahead: float, now: float) -> None:
        """The machine's clock was set ahead by so many seconds, or back: the links and grants that end by it, end."""
        self._neighbours.clock_set(ahead)
        if self._forwarding.key_exchanges is not None:
            self._forwarding.key_exchanges.clock_set(now)
        self.check_trust(now, in_full=True)

    def establish(self, link: Link, now: float) -> None:
        """Use a link that was accepted: for routes, or for a leaf."""
        self._neighbours.establish(link, now)
        if link.certified is not None:
            self._routing.add_certificate(link.certified)
        if self._leaf:
            if self._forwarding.uplink is None:
                self._forwarding.attach(link.id)
                self._grants.attached(link)
                self._delivery.on_attached(None, now)
            self._neighbours.probe(link, now)
        elif link.leaf:
            self._neighbours.probe(link, now)
            self._delivery.on_attached(Address(f"{link.node}@{self._node}"), now)
        else:
            self._neighbours.request_seqno(link)
            self._routing.link_up(link.id, link.node, link.routing_cost, now)
            self.flush(now)
            self._neighbours.probe(link, now)

    def close(self, link: Link, reason: str, now: float) -> None:
        """Remove a link, its routes, and what waits for it."""
        waiting = self._forwarding.close(link.id, remember=link.state is State.UP)
        self._neighbours.close(link, reason)
        if link.state is State.UP:
            self._detach(link, now)
        self._delivery.link_down(link.id, now)
        self._forwarding.reroute(waiting, now)

    def _detach(self, link: Link, now: float) -> None:
        if self._leaf:
            if self._forwarding.uplink == link.id:
                self._rehome(now)
        elif not link.leaf:
            self._routing.link_down(link.id, now)
            self.select(now)
        elif not self._neighbours.to(link.node):
            self._delivery.on_detached(Address(f"{link.node}@{self._node}"), now)
        self._establish_released(now)

    def _rehome(self, now: float) -> None:
        """Attach this leaf to another uplink, preferring one that is not suspect."""
        uplink = self._neighbours.best_uplink()
        self._forwarding.attach(uplink.id if uplink is not None else None)
        self._delivery.on_detached(None, now)
        if uplink is not None:
            self._grants.attached(uplink)
            self._delivery.on_attached(None, now)

    def _leave_suspect_uplink(self, now: float) -> None:
        uplink = self._neighbours.best_uplink()
        if uplink is not None and not uplink.suspect:
            self._rehome(now)

    def _establish_released(self, now: float) -> None:
        while (link := self._neighbours.released()) is not None:
            self.establish(link, now)

    def select(self, now: float) -> None:
        """Select routes, and apply the changes to the exchanges."""
        for change in self._routing.select(now):
            after = change.after
            self._forwarding.set_route(change.destination, after.link if after is not None else None)
            self._delivery.on_route(change.destination, self._forwarding.reach(change.destination), now)
            self._establish_released(now)
        for node in self._routing.take_rekeyed():
            self._delivery.on_route(node, self._forwarding.reach(node), now)

    def flush(self, now: float) -> None:
        """Send the updates, seqno requests and records that are due."""
        for link, frames in self._routing.flush(now):
            self._forwarding.enqueue(link, frames)

    def tick(self, now: float) -> None:
        """Send what is due to the neighbours, and end the links that are silent for too long."""
        self._neighbours.send_due(now)
        suspects, silent = self._neighbours.expire(now)
        if self._leaf and any(link.id == self._forwarding.uplink for link in suspects):
            self._leave_suspect_uplink(now)
        for link in silent:
            self.follow(self._neighbours.time_out(link, now), now)
        if self._neighbours.is_check_due(now):
            self.check_trust(now)
        if self._forwarding.sealing is not None and self._forwarding.sealing.tick(now):
            self._routing.sign_anew(now)
