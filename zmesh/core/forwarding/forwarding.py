"""The forwarding plane of a node: the link that each frame leaves on, for its own frames and those it forwards.

A forwarder reads and changes the first part of a frame only. A frame that can't be forwarded goes back to its source in
an UNREACHABLE or EXPIRED, which itself is never answered (as with ICMP, RFC 792).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

from zmesh.core import wire
from zmesh.core.credentials import Credentials, Unsealable
from zmesh.core.effects import Effect, Report, Transmit, transmit
from zmesh.core.forwarding.batches import Batches
from zmesh.core.forwarding.end_to_end import EndToEnd
from zmesh.core.forwarding.fib import Fib, Ingress
from zmesh.core.forwarding.hints import Hints
from zmesh.core.forwarding.key_exchanges import KeyExchanges, Waiting
from zmesh.core.forwarding.queues import BULK, Port, Queue
from zmesh.core.forwarding.returned import Returned
from zmesh.core.forwarding.sealing import Sealing
from zmesh.core.limits import DEFAULT_LIMITS, Limits, TokenBucket
from zmesh.core.message import Address, LinkId, NodeId
from zmesh.core.routing import Routing
from zmesh.core.timers import WallClock
from zmesh.core.wire import FIRST_ROUTED, FLAG_LEAF, FLAG_SEALED, MAX_TTL, Frames, Kind, Packet, WireError

LAGGING_BYTES = 256 * 1024
DRAIN = 32
MAX_FORMER = 64


class NextHop(NamedTuple):
    """How frames leave for a node: the link, the node's incarnation (0: not known here), and whether the link lags."""

    link: LinkId
    incarnation: int
    lagging: bool


# Spares a call of Python code for each frame.
_next_hop = cast("Callable[[tuple[LinkId, int, bool]], NextHop]", partial(tuple.__new__, NextHop))


class Forwarding:
    """The ports of a node, and the effects of the current stimulus.

    `address` is the source of this node's frames. The routes come from `routing`; a leaf has none, and sends everything
    over its `uplink`.
    """

    def __init__(
        self, node: NodeId, incarnation: int, routing: Routing, *, leaf: bool, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self.node = node
        self.incarnation = incarnation
        self.leaf = leaf
        self.address = Address(node)
        self.uplink: LinkId | None = None
        self._last_home: NodeId | None = None
        """The node that this leaf was attached to last, for the texts of errors."""
        self.hints = Hints(node, routing, limits)
        self.fib = Fib(node)
        self.batches = Batches()
        self.returned = Returned(self, routing)
        self.sealing: Sealing | None = None
        """Seals what leaves for other nodes; None: packets are in plain, or this is a leaf."""
        self.key_exchanges: KeyExchanges | None = None
        """With leaves that have certificates or grants, and of one; None: this node has neither."""
        self.end_to_end: EndToEnd | None = None
        self.leaf_end: EndToEnd | None = None
        """The same where this is a leaf."""
        self._limits = limits
        self._routing = routing
        self._ports: dict[LinkId, Port] = {}
        self._former: dict[LinkId, NodeId] = {}
        self._leaves: dict[NodeId, LinkId] = {}
        self.looped: list[Packet] = []
        """Frames that this node has sent to itself."""
        self.effects: list[Effect] = []

    def __len__(self) -> int:
        return len(self._ports)

    # -- effects -------------------------------------------------------------------------------------------------

    def emit(self, effect: Effect) -> None:
        """Add an effect to those of the current stimulus."""
        self.effects.append(effect)

    def take(self) -> list[Effect]:
        """Take out the effects of the current stimulus."""
        effects, self.effects = self.effects, []
        return effects

    def take_looped(self) -> list[Packet]:
        """Take out the frames that this node has sent to itself."""
        looped, self.looped = self.looped, []
        return looped

    # -- ports ---------------------------------------------------------------------------------------------------

    def open(self, link: LinkId, now: float) -> None:
        """Open the port of a new link."""
        self._ports[link] = Port(TokenBucket(self._limits.error_frames, now))

    def identify(
        self,
        link: LinkId,
        node: NodeId,
        *,
        leaf: bool,
        certified: bool = False,
        granted: bool = False,
        takes_batches: bool = False,
    ) -> None:
        """The other end of a link has sent its HELLO."""
        if takes_batches:
            self.batches.links.add(link)
        port = self._ports[link]
        port.node, port.leaf, port.granted = node, leaf, granted
        port.seals = leaf and (certified or granted)

    def admit(self, link: LinkId, ingress: Ingress) -> None:
        """A link to a node that is no leaf is up: the FIB passes its packets on."""
        if not self.leaf:
            self.fib.admit(link, ingress)

    def close(self, link: LinkId, *, remember: bool) -> Queue:
        """Close the port of a link that is gone; returns its queue. `remember`: its neighbour, for errors."""
        port = self._ports.pop(link)
        self.fib.close(link)
        self.batches.links.discard(link)
        if remember and port.node is not None:
            self._former[link] = port.node
            if len(self._former) > MAX_FORMER:
                del self._former[next(iter(self._former))]
        return port.queue

    def attach(self, uplink: LinkId | None) -> None:
        """Send everything of this leaf over that link from now on; None: it has no uplink."""
        self.uplink = uplink
        if uplink is not None:
            self._last_home = self._ports[uplink].node
        self.address = Address(f"{self.node}@{self._ports[uplink].node}" if uplink is not None else self.node)

    def bind_leaf(self, leaf: NodeId, link: LinkId | None) -> None:
        """Send frames for an attached leaf over that link from now on; None: it is attached no more."""
        if link is None:
            self._leaves.pop(leaf, None)
        else:
            self._leaves[leaf] = link

    def set_route(self, destination: NodeId, link: LinkId | None) -> None:
        """Enter a selected next hop into the FIB; None: there is no route any more."""
        if link is None:
            self.fib.remove(destination)
        else:
            self.fib.enter(destination, link, self._ports[link].queue)

    def neighbour(self, link: LinkId) -> NodeId | None:
        """The node at the other end of a link that is open, or was up lately; None if that is not known."""
        port = self._ports.get(link)
        return port.node if port is not None else self._former.get(link)

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for full links."""
        return sum(port.queue.size_bytes for port in self._ports.values())

    def queued(self, link: LinkId) -> int:
        """Bytes that wait because that link is full."""
        port = self._ports.get(link)
        return port.queue.size_bytes if port is not None else 0

    # -- the socket of a link ------------------------------------------------------------------------------------

    def on_full(self, link: LinkId, frames: Frames) -> None:
        """The transport could not take these frames; they go first when the link is drained."""
        port = self._ports.get(link)
        if port is not None:
            port.queue.give_back(frames)
        else:
            self.emit(Report("frame_dropped", self.neighbour(link), link, "link_gone"))

    def drain(self, link: LinkId, most: int = DRAIN) -> bool:
        """The transport takes frames again: send `most` of those that wait. True if the link does not lag any more."""
        port = self._ports.get(link)
        if port is None:
            return False
        queue = port.queue
        queue.full = False
        for _ in range(most):
            frames = queue.pop()
            if frames is None:
                break
            self.effects.append(Transmit(link, frames))
        return queue.size_bytes < LAGGING_BYTES

    def is_lagging(self, link: LinkId) -> bool:
        """True if so much waits for a link that streams should wait, too."""
        return self._ports[link].queue.size_bytes >= LAGGING_BYTES

    def set_blocked(self, link: LinkId, text: str) -> None:
        """The event loop of the neighbour is blocked in `text`, or (empty) it is not any more."""
        port = self._ports.get(link)
        if port is not None and port.blocked != text:
            port.set_blocked(text)

    def describe_block(self, destination: Address) -> str:
        """The directive that blocks the next hop to a destination, for the text of an error; empty if none does."""
        link = self.egress(destination)
        port = self._ports.get(link) if link is not None else None
        return f"node {port.node!r}: {port.blocked}" if port is not None and port.blocked else ""

    def enqueue(self, link: LinkId, frames: Frames, kind: int = 0, source: str = "", destination: str = "") -> None:
        """Send frames on a link, or queue them if it is full: chunks by source and destination, all else as control."""
        port = self._ports.get(link)
        if port is None:
            self.effects.append(Report("frame_dropped", self.neighbour(link), link, "link_gone"))
            return
        queue = port.queue
        if not (queue.full or queue.size_bytes):
            self.effects.append(transmit((link, frames)))
            return
        flow = (source, destination, wire.size_of(frames) >= BULK) if kind == Kind.CHUNK else None
        for refused in queue.push(frames, flow):
            self.effects.append(Report("frame_dropped", port.node, link, "queue_full"))
            self.returned.send_full(refused)

    # -- frames of this node -------------------------------------------------------------------------------------

    def next_hop(self, destination: Address) -> NextHop | None:
        """How a routed frame leaves for its destination now; None without a route."""
        if destination == self.node:
            return NextHop(LinkId(0), self.incarnation, False)
        selected, sealing = None if self.leaf else self._routing.route(NodeId(destination)), self.sealing
        if selected is not None:
            link, incarnation = selected[:2]
            if sealing is not None:  # as `knows` has it, without its call
                record = sealing.record(NodeId(destination))
                if record is None or record.incarnation != incarnation:
                    return None
        else:
            host = wire.host_of(destination)
            unreachable = sealing is not None and host != self.node and self.reach(host) is None
            found = None if unreachable else self._egress(destination, host)
            if found is None:
                return None
            link, incarnation = found, 0
        return _next_hop((link, incarnation, self._ports[link].queue.size_bytes >= LAGGING_BYTES))

    def reach(self, node: NodeId) -> int | None:
        """The incarnation of another node that packets can be sent to; None without a route, or a key to seal with."""
        selected = self._routing.route(node)
        if selected is None or (self.sealing is not None and not self.sealing.knows(node, selected.incarnation)):
            return None
        return selected.incarnation

    def originate(self, destination: Address, kind: Kind, head: bytes, body: bytes, link: LinkId | None = None) -> None:
        """Send a routed frame of this node, on the link of its NextHop if the caller has it."""
        if destination == self.node:
            self.looped.append(wire.loop_packet(kind, destination, head, body))
            return
        if link is None:
            link = self._egress(destination, wire.host_of(destination))
        if link is None:
            self.emit(Report("frame_dropped", wire.host_of(destination), None, "no_route"))
            return
        source = self.address
        frames: Frames | None
        if self.key_exchanges is None:  # as `_encode` has it, without its call
            frames = wire.encode_packet(kind, destination, source, head, body)
        else:
            frames = self._encode(kind, destination, source, head, body)
            if frames is None:
                if self.leaf and self.end_to_end is not None:
                    self.end_to_end.wait(Waiting(kind, destination, head, body))
                return
        port = self._ports.get(link)
        if port is None or port.queue.full or port.queue.size_bytes:
            self.enqueue(link, frames, kind, source, destination)
        else:
            self.effects.append(transmit((link, frames)))

    def _encode(
        self, kind: int, destination: Address, source: Address, head: bytes, body: bytes, ttl: int = MAX_TTL
    ) -> Frames | None:
        """A packet of this node or a leaf of it as it leaves, sealed if it has to be; None if it is dropped."""
        exchanges, sealing = self.key_exchanges, self.sealing
        host = wire.host_of(destination) if "@" in destination else NodeId(destination)
        if exchanges is None or host == (self.home if self.leaf else self.node):
            return wire.encode_packet(kind, destination, source, head, body, ttl)
        if len(host) != len(destination) or self.leaf:  # for a leaf, or by one
            party = destination if exchanges.knows(destination) else Address(host)
            if exchanges.is_by_home(party):
                return wire.encode_packet(kind, destination, source, head, body, ttl)
            if exchanges.knows(party):
                found = exchanges.seal(party, kind, destination, source, head, body)
                if found is not None:
                    return wire.encode_sealed(kind, destination, source, *found, ttl, FLAG_SEALED | FLAG_LEAF)
                sealing = None
        sealed = sealing.seal(kind, destination, source, head, body) if sealing is not None else None
        if sealed is None:
            if not self.leaf:
                self.emit(Report("frame_dropped", host, None, "no_key"))
            return None
        return wire.encode_sealed(kind, destination, source, *sealed, ttl)

    def secure(self, credentials: Credentials, clock: WallClock, now: float) -> None:
        """Seal from end to end, with the keys of this node's identity."""
        if not self.leaf:
            self.sealing = Sealing(self.node, self.incarnation, credentials, self._routing, now, self._limits)
        self.exchange_keys(
            KeyExchanges(self.node, self.incarnation, credentials, clock, leaf=self.leaf, limits=self._limits)
        )

    def exchange_keys(self, key_exchanges: KeyExchanges | None) -> None:
        """Seal for leaves that have certificates or grants, or as one; they are in plain otherwise, or sealed by their
        node. None: this leaf seals no more.
        """
        self.key_exchanges = key_exchanges
        self.end_to_end = EndToEnd(self, key_exchanges) if key_exchanges is not None else None
        self.leaf_end = self.end_to_end if self.leaf else None

    @property
    def home(self) -> NodeId | None:
        """The node that this leaf is attached to."""
        return self.neighbour(self.uplink) if self.uplink is not None else None

    def unseal(self, packet: Packet, now: float, *, reopens: bool = True) -> Packet | None:
        """A packet that has come for this node, or for a leaf of it, in plain; None if it is dropped.

        `reopens`: a packet that an error returns was sealed here, and not by a leaf.
        """
        exchanges, sealing = self.key_exchanges, self.sealing
        if exchanges is None or sealing is None:
            return packet
        try:
            if packet.sealed & FLAG_LEAF:
                return wire.in_plain(packet, *exchanges.open(packet))
            if "@" in packet.source and exchanges.knows(packet.source):  # its node could have made this
                raise Unsealable("not_by_the_leaf")
            return sealing.open(packet, reopens=reopens)
        except Unsealable as error:
            if error.reason == "restarted" or (error.reason == "no_key" and packet.sealed & FLAG_LEAF):
                self.returned.send_unreachable(packet, now, error.reason)
            reason = f"unsealable: {error.reason}"
        except WireError as error:
            reason = f"{error.reason}: {error}"
        self.emit(Report("frame_dropped", wire.host_of(packet.source), None, reason))
        return None

    def has_left(self, destination: Address) -> bool:
        """True if there was a route to that node, and is none any more."""
        return self._routing.has_left(wire.host_of(destination))

    def hint(self, destination: Address, now: float) -> str:
        """The end of an error's text about a node without a route: when it left, known nodes, failing dials."""
        if self.leaf:
            before = f" since the link with {self._last_home!r} was lost" if self._last_home is not None else ""
            dials = self.hints.dials.describe(now)
            return "" if self.uplink is not None else f"; not linked to any node{before}{dials}"
        return self.hints.hint(destination, now)

    # -- frames of other nodes -----------------------------------------------------------------------------------

    def forward(self, link: LinkId, route: Packet, frames: Frames, now: float) -> None:
        """Forward a frame that came on a link."""
        port = self._ports[link]
        if not port.leaf and wire.host_of(route.source) == self.node:
            self.emit(Report("frame_dropped", port.node, link, "own_source"))
        elif self.leaf:
            self.emit(Report("frame_dropped", port.node, link, "leaf_forwards_nothing"))
        elif route.ttl <= 1:
            self.emit(Report("expired", route.host, link, route.source))
            if port.may_answer(now):
                self.returned.send_expired(route)
        elif (out := self._egress(route.destination, route.host)) is None:
            self.emit(Report("frame_dropped", route.host, link, "no_route"))
            if port.may_answer(now):
                self.returned.send_unreachable(route, now)
        elif (onward := self._onward(port, out, route, frames, now)) is not None:
            self.enqueue(out, onward, route.kind, route.source, route.destination)
            if self._ports[out].blocked and route.kind in (Kind.CHUNK, Kind.ACK) and port.may_answer(now):
                self.returned.send_blocked(route)

    def _is_for_leaf(self, route: Packet) -> bool:
        """Whether a packet for a leaf that seals for itself is to be passed on as it is."""
        if not route.sealed & FLAG_LEAF:
            return route.kind == Kind.KEY_EXCHANGE
        try:
            return self.key_exchanges is not None and not self.key_exchanges.is_for_here(route)
        except WireError:
            return False

    def _onward(self, port: Port, out: LinkId, route: Packet, frames: Frames, now: float) -> Frames | None:
        """A frame as it leaves; what a leaf of this node has sent is sealed here, and what is for one opened."""
        if self.sealing is None or port.leaf is (route.host == self.node):
            return wire.onward(frames)
        if port.leaf:
            if port.granted and route.kind == Kind.KEY_EXCHANGE and not self._routing.takes_grants(route.host):
                if port.may_answer(now):
                    self.returned.send_unreachable(route, now, "no_grants")
                return None
            if route.sealed or route.kind == Kind.KEY_EXCHANGE:
                return wire.onward(frames)
            found: Packet | None = route
        else:
            seals = self._ports[out].seals
            if seals and self._is_for_leaf(route):
                return wire.onward(frames)
            found = self.unseal(route, now, reopens=not seals)
        if found is None:
            return None
        return self._encode(found.kind, found.destination, found.source, found.head, found.body, found.ttl - 1)

    def reroute(self, waiting: Queue, now: float) -> None:
        """Forward the frames of other nodes that waited for a link which is gone over the current routes.

        This node's own frames are retransmitted by their streams as soon as the route has changed.
        """
        while not self.leaf and (frames := waiting.pop()) is not None:
            if len(frames) > 2:  # a HELLO for nodes of version 1
                continue
            route = wire.decode_packet(frames)
            if route.kind < FIRST_ROUTED or route.source == self.address:
                continue
            out = self._egress(route.destination, route.host)
            if out is None:
                self.emit(Report("frame_dropped", route.host, None, "no_route"))
                self.returned.send_unreachable(route, now)
            else:
                self.enqueue(out, frames, route.kind, route.source, route.destination)

    def egress(self, destination: Address) -> LinkId | None:
        """The link that frames for that destination leave on, or None."""
        return self._egress(destination, wire.host_of(destination))

    # -- inside --------------------------------------------------------------------------------------------------

    def _egress(self, destination: Address, host: NodeId) -> LinkId | None:
        """The link that frames for that destination leave on, or None."""
        if self.leaf:
            return self.uplink
        if host == self.node:
            return self._leaves.get(NodeId(Address(destination.partition("@")[0])))
        selected = self._routing.route(host)
        return selected.link if selected is not None else None

    def check(self) -> None:
        """Raise AssertionError if effects were not taken out, or an entry leads to a link without a port."""
        if self.effects or self.looped:
            raise AssertionError("effects that were not taken out")
        if self.end_to_end is not None:
            self.end_to_end.check()
        if not self._ports.keys() >= {*self._leaves.values(), *([self.uplink] if self.uplink is not None else [])}:
            raise AssertionError("an entry that leads to a link without a port")
        routes = {destination: selected.link for destination, selected in self._routing.routes().items()}
        self.fib.check(routes, {link: port.queue for link, port in self._ports.items()})
        if self.sealing is not None:
            self.sealing.check()
        for port in self._ports.values():
            port.queue.check()
