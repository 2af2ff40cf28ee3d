"""Errors to the source of a frame that could not be forwarded, or was refused: UNREACHABLE and EXPIRED.

Neither is ever answered by another one (as with ICMP, RFC 792).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.core import wire
from zmesh.core.credentials import Unsealable
from zmesh.core.message import NodeId
from zmesh.core.routing import Routing
from zmesh.core.wire import FLAG_SEALED, Frames, Kind, Packet, WireError

if TYPE_CHECKING:
    from zmesh.core.forwarding.forwarding import Forwarding

MAX_RETURNED = 64 * 1024
"""Bytes in the head of a frame about which an UNREACHABLE, whose body it is, is sent."""

_ANSWERED = (Kind.CHUNK, Kind.CANCEL, Kind.ACK, Kind.KEY_EXCHANGE)


class Returned:
    """The errors that one node sends about frames."""

    __slots__ = ("_forwarding", "_routing")

    def __init__(self, forwarding: Forwarding, routing: Routing) -> None:
        self._forwarding = forwarding
        self._routing = routing

    def send_unreachable(self, route: Packet, now: float, reason: str = "no_route") -> None:
        """Send an UNREACHABLE to the source of a frame; the frame's own head is its body."""
        forwarding, hints = self._forwarding, self._forwarding.hints
        if reason == "no_route" and route.host == forwarding.node:
            reason = "gone"
        elif reason == "no_route" and self._routing.has_left(route.host):
            reason = "left"
        near = hints.near(route.destination, now) if reason == "no_route" else ()
        dials = hints.dials.describe(now) if wire.host_of(route.source) == forwarding.node else ""
        text = f"{hints.describe_departure(route.host, now)}{dials}".removeprefix("; ")
        self._send(route, reason, text, self._routing.settled(now), near)

    def refuse_keys(self, packet: Packet, reason: str, text: str, now: float) -> None:
        """Send an UNREACHABLE to the leaf of a KEY_EXCHANGE that is refused."""
        self._send(packet, reason, text, self._routing.settled(now))

    def send_expired(self, route: Packet) -> None:
        """Send an EXPIRED about a frame whose ttl has ended here."""
        head = wire.encode(wire.Expired(route.kind, self._forwarding.node, route.destination))
        self._send_back(Kind.EXPIRED, head, route)

    def send_full(self, refused: Frames) -> None:
        """Send an UNREACHABLE about a chunk that a full queue refused: its source retransmits it, and slows down."""
        route = wire.decode_packet(refused)
        if route.kind == Kind.CHUNK and not self._forwarding.leaf:
            self._send(route, "full")

    def send_blocked(self, route: Packet) -> None:
        """Send an UNREACHABLE about a packet that was passed on to a neighbour whose event loop is blocked."""
        self._send(route, "blocked", self._forwarding.describe_block(route.destination))

    def _send(
        self, route: Packet, reason: str, text: str = "", settled: float = 0.0, near: tuple[NodeId, ...] = ()
    ) -> None:
        text, at = text[: wire.MAX_TEXT], self._forwarding.node
        head = wire.encode(wire.Unreachable(route.kind, reason, at, route.destination, near, settled, text))
        self._send_back(Kind.UNREACHABLE, head, route)

    def _send_back(self, kind: Kind, head: bytes, route: Packet) -> None:
        forwarding = self._forwarding
        if route.kind not in _ANSWERED or len(route.head) > MAX_RETURNED or forwarding.next_hop(route.source) is None:
            return
        about, sealing = route.head, forwarding.sealing
        if route.sealed == FLAG_SEALED and sealing is not None and wire.host_of(route.source) == forwarding.node:
            try:
                about = sealing.reopen(route.kind, route.destination, route.source, about)
            except (Unsealable, WireError):  # not a packet of this node, whatever its source says
                return
        forwarding.originate(route.source, kind, head, about)
