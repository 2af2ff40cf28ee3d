"""The read-only surface of a node: what its tables say at this moment, as plain values."""

from __future__ import annotations

import math
from typing import NamedTuple

from zmesh.core.credentials import PeerIdentity
from zmesh.core.delivery import Delivery
from zmesh.core.forwarding import Forwarding
from zmesh.core.message import Address, LinkId, MessageId, NodeId, Stream
from zmesh.core.neighbours import SUSPECT_COST as SUSPECT_COST
from zmesh.core.neighbours import Link, Neighbours
from zmesh.core.routing import Explanation as Explanation
from zmesh.core.routing import Loss as Loss
from zmesh.core.routing import Offer as Offer
from zmesh.core.routing import OfferState as OfferState
from zmesh.core.routing import Routing, SelectedRoute
from zmesh.core.timers import Alarm, WallClock
from zmesh.core.wire import Record, host_of, software_of, tags_of


class ActiveLink(NamedTuple):
    """A link that is up. `cost` includes the penalty for the smoothed round-trip time `rtt` (seconds).

    `heard` is the time of the last frame; `queued_bytes` wait because the link is full. `skew` is by how many seconds
    the clock of the other end was ahead at the handshake; None for nodes without an identity.
    """

    id: LinkId
    node: NodeId
    dialled: bool
    leaf: bool
    cost: int
    rtt: float | None
    suspect: bool
    heard: float
    queued_bytes: int
    skew: float | None


class Alternate(NamedTuple):
    """A route that is not selected. One that is not feasible could be a loop (RFC 8966 section 3.5.1)."""

    next_hop: NodeId
    metric: int
    feasible: bool


class ActiveRoute(NamedTuple):
    """The selected route to a destination, over a link with the round-trip time `rtt`, `since` that time of the engine.

    `alternates`: the other routes, the cheapest first.
    """

    destination: NodeId
    link: LinkId
    next_hop: NodeId
    metric: int
    hops: int
    rtt: float | None
    since: float
    alternates: tuple[Alternate, ...]


class View:
    """Read-only view of a node between two stimuli."""

    node: NodeId
    incarnation: int
    leaf: bool
    alarm: Alarm
    neighbours: Neighbours
    routing: Routing
    forwarding: Forwarding
    delivery: Delivery
    _clock: WallClock

    # -- time ----------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When `tick` is due; infinite if nothing is. Cheap to read after every stimulus."""
        return self.alarm.soonest

    def next_deadline(self) -> float | None:
        """When `tick` is due, or None. It may be too early, never too late."""
        soonest = self.alarm.soonest
        return soonest if soonest < math.inf else None

    # -- exchanges -----------------------------------------------------------------------------------------------

    @property
    def is_handing_over(self) -> bool:
        """True while a request of this node has not arrived whole at its server."""
        return self.delivery.has_undelivered_requests

    @property
    def waiting_bytes(self) -> int:
        """Bytes of payload of this node's requests that are unsent or unacknowledged."""
        return self.delivery.waiting_bytes

    @property
    def waiting_streams(self) -> int:
        """Requests and replies of which no frame has been sent yet."""
        return self.delivery.waiting_streams

    def room(self, stream: Stream) -> int:
        """How many bytes of payload the stream takes now; of 0 there will be a Pull or a StreamOver."""
        return self.delivery.room(stream)

    def is_open(self, stream: Stream) -> bool:
        """True while the stream may take more payload."""
        return self.delivery.is_open(stream)

    def is_lost(self, message_id: MessageId) -> bool:
        """True while there is no route to the server of this request."""
        return self.delivery.is_lost(message_id)

    def neighbour_of(self, message_id: MessageId) -> NodeId | None:
        """The neighbour that the first frame of a received request's client came from; None if the client is this node,
        or the request is over."""
        return self.delivery.neighbour_of(message_id)

    def obstacle(self, message_id: MessageId, now: float) -> str:
        """The cause that holds a request of this node back, for the text of an error; empty if none is known."""
        return self.delivery.obstacle(message_id, now)

    def stats(self) -> dict[str, int]:
        """How many entries the tables of exchanges have: `requests_made`, `requests_received`, `pending_acks`,
        `waiting_bytes`, `peers`."""
        return self.delivery.counts()

    def hint(self, destination: Address, now: float) -> str:
        """The end of an error's text about a node without a route: when it left, known nodes, failing dials."""
        return self.forwarding.hint(destination, now)

    # -- links ---------------------------------------------------------------------------------------------------

    @property
    def heartbeat(self) -> float:
        """Seconds between two probes of a link."""
        return self.neighbours.heartbeat

    @property
    def address(self) -> Address:
        """The source of this node's frames: its id, or `leaf@uplink`."""
        return self.forwarding.address

    @property
    def uplink(self) -> NodeId | None:
        """The node that this leaf is attached to; None if it is no leaf, or attached to none."""
        link = self.forwarding.uplink
        return self.forwarding.neighbour(link) if link is not None else None

    def links(self) -> list[ActiveLink]:
        """The links that are up."""
        return [self._link(link) for link in self.neighbours.up()]

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait because their links are full."""
        return self.forwarding.queued_bytes

    @property
    def epoch(self) -> float:
        """Seconds since 1970 at `now` 0, by the machine's clock as it was set last."""
        return self._clock.epoch

    def rtt(self, link: LinkId) -> float | None:
        """The smoothed round-trip time of a link in seconds; None before the first sample."""
        known = self.neighbours.get(link)
        return known.rtt if known is not None else None

    def is_enrolling(self, address: Address) -> bool:
        """Whether that is a leaf of this node without a certificate, which may enrol and do nothing else."""
        leaf, _, host = address.rpartition("@")
        return host == self.node and any(link.enrolling for link in self.neighbours.to(NodeId(Address(leaf))))

    def is_local(self, address: Address) -> bool:
        """Whether that is a leaf of this node over a connection that only this node's user can have opened."""
        leaf, _, host = address.rpartition("@")
        return host == self.node and any(link.local for link in self.neighbours.to(NodeId(Address(leaf))))

    # -- routes --------------------------------------------------------------------------------------------------

    def nodes(self) -> set[NodeId]:
        """All nodes that can be reached, this one among them."""
        return {self.node, *self.routing.destinations()}

    def route(self, destination: NodeId) -> ActiveRoute | None:
        """The selected route to a node; None if there is none, or it is this node."""
        selected = self.routing.route(destination)
        link = self.neighbours.get(selected.link) if selected is not None else None
        return self._route(destination, selected, link) if selected is not None and link is not None else None

    def routes(self) -> list[ActiveRoute]:
        """The selected routes, sorted by destination."""
        routes = (self.route(destination) for destination in sorted(self.routing.destinations()))
        return [route for route in routes if route is not None]

    def records(self) -> dict[NodeId, Record]:
        """The records of all nodes that can be reached, and of this one: directives, neighbours, costs."""
        return self.routing.records()

    def tags(self) -> dict[NodeId, tuple[tuple[str, ...], tuple[str, ...]]]:
        """Of all nodes that can be reached, and of this one: the tags of the certificate, and those that the node gives
        itself."""
        found = {}
        for node, record in self.records().items():
            certified = self.routing.certified(node)
            found[node] = (certified.identity.tags if certified is not None else (), tags_of(record))
        return found

    def explain(self, destination: NodeId) -> Explanation:
        """Why the route to a node is the one that it is, or why there is none."""
        return self.routing.explain(destination)

    def near(self, name: NodeId, now: float) -> tuple[NodeId, ...]:
        """Up to three known node ids that resemble an unknown one, within a rate; the closest first."""
        return self.forwarding.hints.near(name, now)

    def losses(self) -> dict[NodeId, Loss]:
        """The nodes that there was a route to and is none any more, as far as they are remembered."""
        return self.routing.losses()

    def software(self, node: NodeId) -> str:
        """The version of the software of a node that can be reached, or could until lately; "" if that is unknown."""
        record = self.routing.record(node)
        return software_of(record) if record is not None else ""

    def rtt_to(self, node: NodeId) -> float | None:
        """The smoothed round-trip time to a node over its whole path, in seconds; None if there was no exchange with it
        lately."""
        return self.delivery.rtt(Address(node))

    def duplicates(self) -> set[NodeId]:
        """The node ids that are used by two live nodes, or were refused for that."""
        return self.routing.duplicates()

    def identity(self, address: Address) -> PeerIdentity | None:
        """The proven identity of an address; None if that is not known, or this node has no identity.

        A node is who the certificate of its record says. A leaf without a certificate of its own acts in the name of
        the node that it is attached to. One with its own, which has a dot in its id, shows it to the nodes that it
        exchanges keys with.
        """
        leaf, _, host = address.rpartition("@")
        if host != self.node and self.forwarding.key_exchanges is not None:
            found = self.forwarding.key_exchanges.identity(address)
            if found is not None:
                return found
        if leaf and host == self.node:
            for link in self.neighbours.to(NodeId(Address(leaf))):
                if link.certified is not None:
                    return link.certified.identity
        if "." in leaf and not self.is_local(address):
            return None
        certified = self.routing.certified(host_of(address))
        return certified.identity if certified is not None else None

    def last_heard_by(self, node: NodeId) -> NodeId | None:
        """The last neighbour of a node that has left; None if that is unknown."""
        return self.routing.last_heard_by(node)

    def settled(self, now: float) -> float:
        """For how many seconds all next hops have been the same."""
        return self.routing.settled(now)

    def _link(self, link: Link) -> ActiveLink:
        kept = (link.id, link.node, link.dialled, link.leaf, link.cost, link.rtt, link.suspect, link.heard)
        return ActiveLink(*kept, self.forwarding.queued(link.id), link.skew)

    def _route(self, destination: NodeId, selected: SelectedRoute, link: Link) -> ActiveRoute:
        alternates = tuple(
            Alternate(known.node, metric, feasible)
            for other, metric, feasible in self.routing.others(destination)
            if (known := self.neighbours.get(other)) is not None
        )
        metric, hops, since = selected.metric, selected.hops, selected.since
        return ActiveRoute(destination, link.id, link.node, metric, hops, link.rtt, since, alternates)
