"""Keepalive: a PROBE on each link once a heartbeat, which the neighbour answers with an ECHO.

The ECHO gives a round-trip time. A PROBE carries the number of UPDATEs sent on the link and the digests of the sender's
records and statements. If these differ from the receiver's, something was lost, and the receiver sends a RESEND: for
records only at the second difference in a row, since they may be in flight, and for all less and less often while that
does not help (see `links.Comparison`). Between a node and a leaf there is nothing to compare.
"""

from __future__ import annotations

from zmesh.core import wire
from zmesh.core.effects import Report
from zmesh.core.forwarding import Forwarding
from zmesh.core.neighbours.links import Link
from zmesh.core.routing import Routing
from zmesh.core.wire import Kind


class Keepalive:
    """Sends the PROBEs of one node and answers those of its neighbours."""

    def __init__(self, routing: Routing, forwarding: Forwarding, *, leaf: bool) -> None:
        self._routing = routing
        self._forwarding = forwarding
        self._leaf = leaf

    def send(self, link: Link, now: float) -> None:
        """Send a PROBE."""
        alone = link.leaf or self._leaf
        routing = self._routing
        sent, *digests = (0, 0, 0) if alone else (routing.sent(link.id), routing.digest, routing.statements_digest)
        probe = wire.Probe(now, sent, digests[0], routing.settled(now), digests[1])
        self._forwarding.enqueue(link.id, wire.encode_link(Kind.PROBE, probe))

    def answer(self, link: Link, probe: wire.Probe) -> None:
        """Answer a PROBE with an ECHO, and with a RESEND if tables differ."""
        self._forwarding.enqueue(link.id, wire.encode_link(Kind.ECHO, wire.Echo(probe.token)))
        if not link.synced:
            link.synced = True
            self._forwarding.emit(Report("link_synced", link.node, link.id))
        if self._leaf or link.leaf:
            return
        routes_differ = link.routes.is_due(probe.routes, self._routing.received(link.id))
        records_differ = link.records.is_due(probe.records, self._routing.digest)
        statements_differ = link.statements.is_due(probe.statements, self._routing.statements_digest)
        if routes_differ or records_differ or statements_differ:
            resend = wire.Resend(routes_differ, records_differ, statements_differ)
            self._forwarding.enqueue(link.id, wire.encode_link(Kind.RESEND, resend))
