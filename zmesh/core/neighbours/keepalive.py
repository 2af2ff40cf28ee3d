"""What two neighbours find out about each other once a heartbeat: whether the other one is there, and knows the same.

A PROBE asks for an ECHO, which gives a round trip. It tells how many UPDATEs were sent on the link and the digest of
the records that are known. If that is not what has come here, something was lost, and is asked for again; records only
at the second time, since they may be on their way, and either less and less often while that does not help (see
`links.Comparison`). Between a node and a leaf there is nothing to compare.
"""

from __future__ import annotations

from zmesh.core import wire
from zmesh.core.effects import Report
from zmesh.core.forwarding import Forwarding
from zmesh.core.neighbours.links import Link
from zmesh.core.routing import Routing
from zmesh.core.wire import Kind


class Keepalive:
    """The probes of one node, those that it sends and those that it hears."""

    def __init__(self, routing: Routing, forwarding: Forwarding, *, leaf: bool) -> None:
        self._routing = routing
        self._forwarding = forwarding
        self._leaf = leaf

    def send(self, link: Link, now: float) -> None:
        """Ask a neighbour whether it is there, and tell it what it should know by now."""
        alone = link.leaf or self._leaf
        sent, digest = (0, 0) if alone else (self._routing.sent(link.id), self._routing.digest)
        probe = wire.Probe(now, sent, digest, self._routing.settled(now))
        self._forwarding.enqueue(link.id, wire.encode_link(Kind.PROBE, probe))

    def answer(self, link: Link, probe: wire.Probe) -> None:
        """Say that this node is there, and ask for what it should know and does not."""
        self._forwarding.enqueue(link.id, wire.encode_link(Kind.ECHO, wire.Echo(probe.token)))
        if not link.synced:
            link.synced = True
            self._forwarding.emit(Report("link_synced", link.node, link.id))
        if self._leaf or link.leaf:
            return
        routes_differ = link.routes.is_due(probe.routes, self._routing.received(link.id))
        records_differ = link.records.is_due(probe.records, self._routing.digest)
        if routes_differ or records_differ:
            self._forwarding.enqueue(link.id, wire.encode_link(Kind.RESEND, wire.Resend(routes_differ, records_differ)))
