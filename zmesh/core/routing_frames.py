"""Routing frames of a neighbour: decoded, charged to the rate limits of its link, handed to the tables."""

from __future__ import annotations

from zmesh.core import wire
from zmesh.core.adjacency import Adjacency
from zmesh.core.delivery import Delivery
from zmesh.core.effects import Report
from zmesh.core.forwarding import Forwarding
from zmesh.core.neighbours import MIN_RESENT, Link
from zmesh.core.routing import Routing
from zmesh.core.wire import Kind, Packet, WireError

KINDS = (
    Kind.UPDATE,
    Kind.RECORD,
    Kind.SEQNO_REQUEST,
    Kind.RESEND,
    Kind.CERTIFICATE_REQUEST,
    Kind.CERTIFICATE,
    Kind.STATEMENT,
)


class RoutingFrames:
    """The reader of routing frames of one node."""

    __slots__ = ("_adjacency", "_delivery", "_forwarding", "_routing")

    def __init__(self, routing: Routing, forwarding: Forwarding, delivery: Delivery, adjacency: Adjacency) -> None:
        self._routing = routing
        self._forwarding = forwarding
        self._delivery = delivery
        self._adjacency = adjacency

    def on_frame(self, link: Link, packet: Packet, now: float) -> None:
        """Process a frame of routing. Raises WireError for one that can't be read, RateExceeded."""
        routing, limiter, head = self._routing, link.limiter, packet.head
        if packet.kind == Kind.RESEND and packet.body:
            self._forwarding.set_blocked(link.id, wire.decode_keepalive(packet.body))
            return
        if self._forwarding.leaf or link.leaf:
            self._forwarding.emit(Report("frame_dropped", link.node, link.id, "leaf_has_no_tables"))
            return
        match packet.kind:
            case Kind.UPDATE:
                update = wire.decode_update(head)
                limiter.spend("route_entries", 1 + len(update.entries))
                routing.on_update(link.id, update, now)
            case Kind.RECORD:
                self._on_records(link, *wire.decode_records(head), now)
            case Kind.CERTIFICATE_REQUEST:
                digests = wire.decode_certificate_requests(head)
                limiter.spend("certificates", 1 + len(digests))
                for frames in wire.encode_certificates(routing.on_certificate_requests(digests)):
                    self._forwarding.enqueue(link.id, frames)
            case Kind.CERTIFICATE:
                for data in wire.decode_certificates(head):
                    limiter.spend("certificates", 1)
                    if routing.on_certificate(link.id, data, now):
                        self._delivery.on_contested(now)
            case Kind.STATEMENT:
                statements = wire.decode_statements(head)
                limiter.spend("statements", 1 + len(statements))
                if routing.on_statements(link.id, statements, now):
                    self._adjacency.check_trust(now, in_full=True)
            case Kind.SEQNO_REQUEST:
                for request in wire.decode_seqno_requests(head):
                    limiter.spend("seqno_requests", 1 + routing.on_seqno_request(link.id, request, now))
            case _:
                resend = wire.decode_resend(head)
                if resend.routes:
                    limiter.spend("resent_rows", max(MIN_RESENT, routing.resend_routes(link.id, now)))
                if resend.records:
                    limiter.spend("resent_rows", max(MIN_RESENT, routing.resend_records(link.id, now)))
                if resend.statements:
                    limiter.spend("resent_rows", max(MIN_RESENT, routing.resend_statements(link.id)))

    def _on_records(
        self, link: Link, records: list[tuple[wire.Record, bytes]], errors: list[WireError], now: float
    ) -> None:
        """Process each record by itself; those that can't be read are a single bad frame, whatever is beside them."""
        link.limiter.spend("record_updates", 1 + len(records) + len(errors))
        if self._routing.on_records(link.id, records, now):
            self._delivery.on_contested(now)
        if errors:
            raise WireError(f"{len(errors)} of {len(records) + len(errors)} records: {errors[0]}")
