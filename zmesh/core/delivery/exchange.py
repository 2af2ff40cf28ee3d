"""The part of an exchange that both sides have in common: two streams, and the peer at the other end.

Each side has a state machine of its own: `ClientExchange` and `ServerExchange` say in a table which events lead from
which state to which.
"""

from __future__ import annotations

from zmesh.core.delivery.inbound import InboundStream
from zmesh.core.delivery.outbound import OutboundStream
from zmesh.core.delivery.peers import Peer
from zmesh.core.message import LinkId, MessageId, make_stream

SILENCE_TIMEOUT = 45.0
"""Seconds without a frame of the peer, although there is a route, after which an exchange ends."""


class Exchange:
    """One side of an exchange: a request that this node has made, or one that it has received.

    `outbound_id` and `inbound_id` name its two streams, `is_client` says which side this is. `host` is the node that
    the peer is or is attached to. `peer_incarnation` is the one that its chunks are for, 0 while that is unknown;
    `link` the one that was last sent on; `unreachable_since` when the route to the peer was lost, None while there is
    one; `charged_bytes` what the peer's quota is charged with for it. `handle` is the shell's own object for the
    exchange, which each Deliver and Abort carries.
    """

    __slots__ = (
        "address",
        "charged_bytes",
        "handle",
        "host",
        "inbound",
        "inbound_id",
        "is_client",
        "link",
        "message_id",
        "outbound",
        "outbound_id",
        "peer",
        "peer_incarnation",
        "request_number",
        "unreachable_since",
    )

    def __init__(self, message_id: MessageId, peer: Peer, peer_incarnation: int, *, request: bool) -> None:
        self.message_id = message_id
        self.peer = peer
        self.address = peer.address
        self.host = peer.host
        self.peer_incarnation = peer_incarnation
        self.request_number = 0
        self.is_client = request
        self.outbound_id = make_stream((message_id, request))
        self.inbound_id = make_stream((message_id, not request))
        self.outbound = OutboundStream(peer.path.congestion)
        self.inbound = InboundStream()
        self.link: LinkId | None = None
        self.unreachable_since: float | None = None
        self.charged_bytes = 0
        self.handle: object = None

    def find_route(self) -> None:
        """There is a route to the peer, or a frame has come from it."""
        self.unreachable_since = None

    def set_incarnation(self, incarnation: int) -> None:
        """The incarnation of the peer is known, or (0) has to be discovered anew."""
        self.peer_incarnation = incarnation

    def buffered_bytes(self) -> int:
        """Bytes kept here for the peer: at a server the unread part of the request, as credit, and the unacknowledged
        part of the replies; at a client the chunks that arrived early (how long replies stay unread is up to itself).
        """
        inbound = self.inbound
        if self.is_client:
            return inbound.buffered_credit
        outbound = self.outbound
        return inbound.received - inbound.released + outbound.unsent_bytes + outbound.unacked_bytes

    def update_quota(self) -> None:
        """Charge the peer's quota with `buffered_bytes`, without a call: this is called 3 times a request."""
        inbound, outbound = self.inbound, self.outbound
        if self.is_client:
            kept = inbound.buffered_credit
        else:
            kept = inbound.received - inbound.released + outbound.unsent_bytes + outbound.unacked_bytes
        if kept != self.charged_bytes:
            self.peer.quota.add_bytes(kept - self.charged_bytes)
            self.charged_bytes = kept

    def check(self) -> None:
        """Raise AssertionError if the quota is not charged with what is kept."""
        if self.charged_bytes != self.buffered_bytes():
            raise AssertionError("a quota is not charged with what is kept")
