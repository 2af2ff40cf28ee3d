"""The way out of a node: which link a frame leaves on, for frames of its own and for those of others alike.

A forwarder reads and changes the first part of a frame only. A frame that it can't pass on is sent back to its source
in a note that says why (as ICMP does, RFC 792), which is itself never answered.
"""

from __future__ import annotations

import difflib
import heapq
import itertools
from operator import eq
from typing import NamedTuple

from zmesh.core import wire
from zmesh.core.effects import Effect, Report, Transmit
from zmesh.core.forwarding.queues import BULK, Queue
from zmesh.core.limits import DEFAULT_LIMITS, Limits, TokenBucket
from zmesh.core.message import Address, LinkId, NodeId
from zmesh.core.neighbours.dials import Dials
from zmesh.core.neighbours.links import Link, Links
from zmesh.core.routing import Routing
from zmesh.core.wire import FIRST_ROUTED, Frames, Kind, Route

LAGGING_BYTES = 256 * 1024
DRAIN = 32
MAX_NAMES_COMPARED = 512
MAX_NAMES_MATCHED = 16
MAX_NEAR_CACHED = 256
MAX_NAMES_SHOWN = 8


class NextHop(NamedTuple):
    """How frames leave for a node: the link, the node's incarnation (0: not known here), and whether the link lags."""

    link: LinkId
    incarnation: int
    lagging: bool


class Forwarding:
    """The queues of a node's links, and the effects of the stimulus at hand. `address` is where replies go to."""

    def __init__(
        self,
        node: NodeId,
        incarnation: int,
        links: Links,
        routing: Routing,
        *,
        leaf: bool,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.node = node
        self.incarnation = incarnation
        self.leaf = leaf
        self.address = Address(node)
        self.uplink: Link | None = None
        self.queues: dict[LinkId, Queue] = {}
        self.looped: list[Frames] = []
        self.dials = Dials()
        self._effects: list[Effect] = []
        self._links = links
        self._routing = routing
        self._suggestions = TokenBucket(limits.suggestions, 0.0)
        self._near: dict[str, tuple[NodeId, ...]] = {}
        self._near_at = 0.0

    def take(self) -> list[Effect]:
        """Hand out the effects of the stimulus at hand."""
        effects, self._effects = self._effects, []
        return effects

    def attach(self, uplink: Link | None) -> None:
        """A leaf hangs on the node at the end of this link from now on, or on none."""
        self.uplink = uplink
        self.address = Address(f"{self.node}@{uplink.node}" if uplink is not None else self.node)

    def drain(self, link: LinkId, most: int = DRAIN) -> Queue | None:
        """The link takes frames again: send the next of them, `most` of those that wait."""
        queue = self.queues.get(link)
        if queue is None:
            return None
        queue.full = False
        for _ in range(most):
            frames = queue.pop()
            if frames is None:
                break
            self._effects.append(Transmit(link, frames))
        return queue

    def forward(self, link: Link, route: Route, frames: Frames, now: float) -> None:
        """Pass a frame of another node on."""
        if not link.leaf and wire.host_of(route.source) == self.node:
            self.emit(Report("frame_dropped", link.node, link.id, "own_source"))
        elif self.leaf:
            self.emit(Report("frame_dropped", link.node, link.id, "leaf_forwards_nothing"))
        elif not route.onward:
            self.emit(Report("expired", route.host, link.id, route.source))
            self._note(link, Kind.EXPIRED, route, frames, now)
        elif (out := self.egress(route.destination, route.host)) is None:
            self.emit(Report("frame_dropped", route.host, link.id, "no_route"))
            self._note(link, Kind.UNREACHABLE, route, frames, now)
        else:
            self.enqueue(out, (route.onward, frames[1], frames[2]), route.kind, route.source, route.destination)

    def reroute(self, waiting: Queue, now: float) -> None:
        """A link is gone: what waited for it and is not of this node takes the way that there is now.

        This node's own frames are sent again by those that they belong to, as soon as the route has changed.
        """
        while not self.leaf and (frames := waiting.pop()) is not None:
            route = wire.decode_route(frames[0])
            if route.kind < FIRST_ROUTED or route.source == self.address:
                continue
            out = self.egress(route.destination, route.host)
            if out is None:
                self.emit(Report("frame_dropped", route.host, None, "no_route"))
                self.send_unreachable(Kind.UNREACHABLE, route, frames, now)
            else:
                self.enqueue(out, frames, route.kind, route.source, route.destination)

    def next_hop(self, destination: Address) -> NextHop | None:
        """How a routed frame leaves for its destination now."""
        if destination == self.node:
            return NextHop(LinkId(0), self.incarnation, False)
        selected = None if self.leaf else self._routing.route(NodeId(destination))
        if selected is not None:
            link, incarnation = selected.link, selected.incarnation
        else:
            found = self.egress(destination, wire.host_of(destination))
            if found is None:
                return None
            link, incarnation = found, 0
        return NextHop(link, incarnation, self.queues[link].size_bytes >= LAGGING_BYTES)

    def neighbour(self, link: LinkId) -> NodeId | None:
        """Who is, or lately was, at the other end of a link."""
        return self._links.neighbour(link)

    def originate(self, destination: Address, kind: Kind, head: bytes, body: bytes, link: LinkId | None = None) -> None:
        """Send a routed frame from this node, on the link of its `way` if the caller has it."""
        if destination == self.node:
            self.looped.append((wire.encode_route(kind, destination, Address(self.node)), head, body))
            return
        if link is None:
            link = self.egress(destination, wire.host_of(destination))
        if link is None:
            self.emit(Report("frame_dropped", wire.host_of(destination), None, "no_route"))
            return
        source = self.address
        self.enqueue(link, wire.seal(kind, destination, source, head, body), kind, source, destination)

    def has_left(self, destination: Address) -> bool:
        """Whether there was a route to that node, and is none any more."""
        return self._routing.has_left(wire.host_of(destination))

    def hint(self, destination: Address, now: float) -> str:
        """What to add to an error about a node that can't be reached: when it left or which nodes are known, and which
        peers are dialled in vain.
        """
        dials = self.dials.describe(now)
        if self.leaf:
            return f"; not linked to any node{dials}" if self.uplink is None else ""
        known = self._known(wire.host_of(destination), now)
        if self.has_left(destination):
            return known + dials
        nodes = heapq.nsmallest(MAX_NAMES_SHOWN + 1, self._routing.destinations())
        shown = ", ".join(nodes[:MAX_NAMES_SHOWN]) + (", ..." if len(nodes) > MAX_NAMES_SHOWN else "")
        near = self._compare(wire.host_of(destination))
        likely = f" (did you mean {near[0]!r}?)" if near else ""
        return f"{known}; known nodes: {shown or 'none'}{likely}{dials}"

    def _known(self, host: NodeId, now: float) -> str:
        """What is known of a node, if there is no route to it."""
        if host == self.node or self._routing.route(host) is not None:
            return ""
        return f"; {self._routing.describe_departure(host, now)}"

    def emit(self, effect: Effect) -> None:
        """Add an effect to those of the stimulus at hand."""
        self._effects.append(effect)

    def egress(self, destination: Address, host: NodeId) -> LinkId | None:
        """The link that frames for that destination leave on, or None."""
        if self.leaf:
            return self.uplink.id if self.uplink is not None else None
        if host == self.node:
            links = self._links.to(NodeId(Address(destination.partition("@")[0])))
            return links[0].id if links and links[0].leaf else None
        selected = self._routing.route(host)
        return selected.link if selected is not None else None

    def enqueue(self, link: LinkId, frames: Frames, kind: int = 0, source: str = "", destination: str = "") -> None:
        """Send frames on a link, or queue them if it is full: chunks by source and destination, all else as control."""
        queue = self.queues.get(link)
        if queue is None:
            self._effects.append(Report("frame_dropped", self._links.neighbour(link), link, "link_gone"))
            return
        if not (queue.full or queue.size_bytes):
            self._effects.append(Transmit(link, frames))
            return
        flow = (source, destination, len(frames[2]) >= BULK) if kind == Kind.CHUNK else None
        for refused in queue.push(frames, flow):
            known = self._links.get(link)
            self._effects.append(Report("frame_dropped", known.node if known else None, link, "queue_full"))
            self._push_back(refused)

    def send_unreachable(self, kind: Kind, route: Route, frames: Frames, now: float, reason: str = "no_route") -> None:
        """Tell the source of a frame why it got no further; the frame's own head goes back as the body."""
        if kind is Kind.EXPIRED:
            head = wire.encode(wire.Expired(route.kind, self.node, route.destination))
        else:
            if reason == "no_route" and route.host == self.node:
                reason = "gone"
            elif reason == "no_route" and self._routing.has_left(route.host):
                reason = "left"
            near = self.near(route.destination, now) if reason == "no_route" else ()
            settled = self._routing.settled(now)
            dials = self.dials.describe(now) if wire.host_of(route.source) == self.node else ""
            text = f"{self._known(route.host, now)}{dials}".removeprefix("; ")[: wire.MAX_TEXT]
            head = wire.encode(wire.Unreachable(route.kind, reason, self.node, route.destination, near, settled, text))
        self._send_back(kind, head, route, frames)

    def _note(self, link: Link, kind: Kind, route: Route, frames: Frames, now: float) -> None:
        """Answer a frame of this link that goes no further, as often as its limit allows (as in RFC 1812, 4.3.2.8)."""
        if link.limiter.has("error_frames", now):
            link.limiter.spend("error_frames", 1)
            self.send_unreachable(kind, route, frames, now)

    def _push_back(self, refused: Frames) -> None:
        """Tell the source of a chunk that a full queue refused it, so that it is sent again, and more slowly."""
        route = wire.decode_route(refused[0])
        if route.kind == Kind.CHUNK and not self.leaf:
            head = wire.encode(wire.Unreachable(route.kind, "full", self.node, route.destination, (), 0.0))
            self._send_back(Kind.UNREACHABLE, head, route, refused)

    def _send_back(self, kind: Kind, head: bytes, route: Route, frames: Frames) -> None:
        content = frames[1][: -wire.SUM_BYTES]
        if route.kind not in (Kind.CHUNK, Kind.CANCEL, Kind.ACK) or len(content) > wire.MAX_BODY:
            return
        if self.next_hop(route.source) is not None:
            self.originate(route.source, kind, head, content)

    def near(self, name: str, now: float) -> tuple[NodeId, ...]:
        """Up to three known node ids that resemble a name that somebody else has asked for, the closest first; none if
        the name itself is known, or more names have been compared of late than `limits.suggestions`.
        """
        if self._near_at != self._routing.changed_at or len(self._near) >= MAX_NEAR_CACHED:
            self._near, self._near_at = {}, self._routing.changed_at
        if name not in self._near:
            if not self._suggestions.has(now):
                return ()
            self._suggestions.spend(1)
            self._near[name] = self._compare(name)
        return self._near[name]

    def _compare(self, name: str) -> tuple[NodeId, ...]:
        if self._routing.record(NodeId(Address(name))) is not None:
            return ()
        names = itertools.islice(self._routing.destinations(), MAX_NAMES_COMPARED)
        likely = heapq.nlargest(MAX_NAMES_MATCHED, (self.node, *names), key=lambda other: _ends_alike(name, other))
        return tuple(NodeId(Address(match)) for match in difflib.get_close_matches(name, likely, n=3, cutoff=0.6))

    def check(self) -> None:
        """Raise AssertionError if effects were not handed out, or links and queues do not match."""
        if self._effects or self.looped:
            raise AssertionError("effects that were not handed out")
        if set(self.queues) != {link.id for link in self._links}:
            raise AssertionError("a link without a queue, or a queue without a link")
        for queue in self.queues.values():
            queue.check()


def _ends_alike(name: str, other: str) -> float:
    """How many characters of two names are the same, counted from either end: a typing error leaves the rest as it was,
    and shifts it in one direction at most. That costs far less than to match them.
    """
    same = sum(map(eq, name, other)) + sum(map(eq, reversed(name), reversed(other)))
    return float(same) / max(len(name), len(other))
