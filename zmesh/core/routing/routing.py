"""The control plane of one node: its routes, its records, and everything that decides about them.

The engine reports what happens to links and hands over the frames of neighbours; it calls `select` and sends what
`flush` returns at the end of a stimulus if `is_urgent`, and at each tick.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from zmesh.core import wire
from zmesh.core.credentials import Certified, Credentials
from zmesh.core.effects import Report
from zmesh.core.limits import DEFAULT_LIMITS, Limits
from zmesh.core.message import LinkId, NodeId
from zmesh.core.routing.certificates import Certificates, Unverified
from zmesh.core.routing.cost_damping import CostDamping
from zmesh.core.routing.departed import Departed
from zmesh.core.routing.duplicates import STARTUP, Duplicates, describe_duplicate, describe_refused
from zmesh.core.routing.records import Records, unsigned
from zmesh.core.routing.routes import Routes
from zmesh.core.routing.routing_view import RoutingView
from zmesh.core.routing.selected_route import RouteChange
from zmesh.core.routing.serials import ceiling
from zmesh.core.routing.statements import Statements
from zmesh.core.routing.verification import Verification
from zmesh.core.timers import Alarm, WallClock
from zmesh.core.wire import MAX_ENTRIES, Frames, Kind, Record, Refused, SeqnoRequest, Update


class Adjacencies(Protocol):
    """The links of this node, as far as routing has to know them."""

    def neighbour(self, id: LinkId) -> NodeId | None:
        """The node at the other end of a link that is up or was lost lately."""

    def neighbours(self) -> tuple[tuple[NodeId, int], ...]:
        """The neighbours that the own record lists, each with the cost of the cheapest link to it."""

    def routing_cost(self, id: LinkId) -> int | None:
        """The cost of a link for routes, INFINITY if it must not be used yet; None if there is no such link."""


class Routing(RoutingView):
    """The routes and records of one node.

    `serial`: where the node's seqno and the serial of its record start; `epoch`: seconds since 1970 at `now` 0. Reports
    go to `emit`. A `leaf` floods no record.
    """

    def __init__(
        self,
        node: NodeId,
        incarnation: int,
        serial: int,
        adjacencies: Adjacencies,
        emit: Callable[[Report], None],
        alarm: Alarm,
        *,
        now: float,
        epoch: float = 0.0,
        leaf: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        credentials: Credentials | None = None,
        clock: WallClock | None = None,
    ) -> None:
        self.node = node
        self.incarnation = incarnation
        self.started = epoch + now
        self._epoch = epoch
        self._leaf = leaf
        self._startup_ends = now + STARTUP
        self._adjacencies = adjacencies
        self._emit = emit
        self._capabilities: tuple[str, ...] = ()
        self._tags: tuple[str, ...] = ()
        self._software = ""
        self._routes = Routes(node, incarnation, serial, alarm, limits.destinations)
        self.route = self._routes.get
        self._routes.changed_at = now
        self._certificates: Certificates | None = None
        self._statements: Statements | None = None
        if credentials is not None and not leaf:
            self._statements = Statements(credentials)
            self._certificates = Certificates(credentials, clock or WallClock(epoch), alarm, limits)
        self._records = Records(
            node,
            incarnation,
            serial,
            alarm,
            limits.nodes,
            started=self.started,
            sign=self._certificates.sign if self._certificates is not None else unsigned,
        )
        self.record = self._records.all().get
        self._verification: Verification | None = None
        if self._certificates is not None:
            self._verification = Verification(node, self._certificates, self._records, self._routes, emit)
        self._duplicates = Duplicates(alarm, limits)
        self._departed = Departed(node, self._routes, self._records, limits)
        self._cost_damping = CostDamping(alarm)
        self._links = {}
        self._fallen: dict[LinkId, NodeId] = {}
        """The neighbours at links that are down since the last selection."""

    # -- links ---------------------------------------------------------------------------------------------------

    def link_up(self, link: LinkId, neighbour: NodeId, cost: int, now: float) -> None:
        """A link to a neighbour that keeps routes is up; it gets a full update and all records."""
        self._links[link] = neighbour
        self._routes.link_up(link, cost, now, neighbour)
        self._records.link_up(link, now, neighbour)
        if self._statements is not None:
            self._statements.link_up(link)
        self._originate(now)

    def link_down(self, link: LinkId, now: float) -> None:
        """Such a link is down."""
        if link in self._links:
            self._fallen[link] = self._links.pop(link)
        self._routes.link_down(link)
        self._records.link_down(link)
        if self._certificates is not None:
            self._certificates.link_down(link)
        if self._statements is not None:
            self._statements.link_down(link)
        self._originate(now)

    def set_cost(self, link: LinkId, cost: int) -> None:
        """Use this cost for a link at once, in routes alone: the link has become suspect, or is not any more."""
        self._routes.set_cost(link, cost)

    def link_measured(self, link: LinkId, cost: int, now: float) -> None:
        """The first round trip of a link is known, from which on it may be used."""
        self._routes.set_cost(link, cost)
        self._originate(now)

    def cost_moved(self, link: LinkId, now: float) -> None:
        """The round-trip time has moved the cost of a link; routes and record follow as cost damping allows."""
        self._cost_damping.add(link)
        self._apply_costs(now)

    # -- what neighbours send ------------------------------------------------------------------------------------

    def on_update(self, link: LinkId, update: Update, now: float) -> None:
        """Process an UPDATE."""
        self._routes.update(link, *update, ceiling(self._epoch, now))

    def on_seqno_request(self, link: LinkId, request: SeqnoRequest, now: float) -> int:
        """Answer or forward a SEQNO_REQUEST; returns on how many links it is forwarded."""
        return self._routes.request(link, request, now, ceiling(self._epoch, now))

    def on_records(self, link: LinkId, records: Iterable[tuple[Record, bytes]], now: float) -> bool:
        """Process records, each with its bytes; True if they prove that another live node has this node's id."""
        highest = ceiling(self._epoch, now)
        proven = False
        for record, blob in records:
            known = self._records.get(record.node)
            if self._verification is not None and not self._verification.accepts(link, record, blob, known, now):
                continue
            outranks = known is not None and self._records.outranks(record, highest)
            if known is not None and outranks and self._duplicates.witness(record, known, now):
                text = describe_duplicate(record, known, self.node)
                self._emit(Report("duplicate_id", record.node, None, text))
                if record.node == self.node:
                    proven = True
                    self._check_id_taken(record, text, now)
            if self._records.update(link, record, blob, now, highest):
                for refused in record.refused:
                    if known is None or refused not in known.refused:
                        self._on_refused_elsewhere(record.node, refused, now)
        return proven

    def take_rekeyed(self) -> list[NodeId]:
        """Take out the nodes whose record has another key than before, or is gone."""
        rekeyed, self._records.rekeyed = list(self._records.rekeyed), {}
        return rekeyed if self._certificates is not None else []

    def sign_anew(self, now: float) -> None:
        """The key of the own record has changed."""
        self._originate(now)

    def on_certificate_requests(self, digests: list[bytes]) -> list[bytes]:
        """The certificates that a neighbour requests, as far as they are known."""
        return self._certificates.requested(digests) if self._certificates is not None else []

    def on_certificate(self, link: LinkId, data: bytes, now: float) -> bool:
        """Process a certificate, and the records that wait for it; True as for `on_records`."""
        if self._certificates is None:
            return False
        proven = False
        try:
            for origin, record, blob in self._certificates.learn(data):
                proven = self.on_records(origin, [(record, blob)], now) or proven
        except Unverified as error:
            self._records.refused[link, error.reason] += 1
        return proven

    def add_certificate(self, certified: Certified) -> None:
        """A neighbour has shown its certificate."""
        if self._certificates is not None:
            self._certificates.add(certified)

    def on_statements(self, link: LinkId, statements: list[bytes], now: float) -> bool:
        """Process statements of authorities; True if one is new, and what is believed has to be checked."""
        if self._statements is None:
            return False
        news, refused = self._statements.accept(link, statements)
        for text in news:
            self._emit(Report("trust_changed", self._adjacencies.neighbour(link), link, text))
        for reason in refused:
            self._records.refused[link, reason] += refused[reason]
        return bool(news)

    def resend_statements(self, link: LinkId) -> int:
        """Send that neighbour all statements; returns how many there are."""
        return self._statements.resend(link) if self._statements is not None else 0

    @property
    def statements_digest(self) -> int:
        """The sum of the digests of the statements of authorities; 0 without credentials."""
        return self._statements.digest if self._statements is not None else 0

    def certified(self, node: NodeId) -> Certified | None:
        """The certificate that the record of a node is signed with; None if it has none."""
        return self._certificates.of(self._records.get(node)) if self._certificates is not None else None

    def check_trust(self, now: float, *, in_full: bool) -> list[NodeId]:
        """Drop the records of nodes that are not believed any more, and return these; `in_full`: trust has changed."""
        if self._verification is None or self._statements is None:
            return []
        if in_full:
            self._statements.update()
        dropped = self._verification.drop_disbelieved(now, in_full=in_full)
        if in_full:
            self._originate(now)
        return dropped

    def resend_routes(self, link: LinkId, now: float) -> int:
        """Send that neighbour a full update; returns how many routes there are."""
        self._routes.resend(link, now)
        return len(self._routes.names())

    def resend_records(self, link: LinkId, now: float) -> int:
        """Send that neighbour all records; returns how many there are."""
        self._records.resend(link, now)
        return len(self._records)

    # -- this node -----------------------------------------------------------------------------------------------

    def describe(self, capabilities: Iterable[str], now: float, tags: tuple[str, ...] = (), software: str = "") -> None:
        """Advertise these directives, tags of this node's own, and the version of its software from now on."""
        self._tags, self._software = tags, software
        self._capabilities = tuple(name.encode(errors="replace").decode() for name in capabilities)
        self._originate(now)

    def refuse_duplicate(self, node: NodeId, incarnation: int, started: float, where: str, now: float) -> None:
        """A second node with that id was refused on a link; the own record lists it."""
        if self._duplicates.refuse(node, incarnation, started, where, now):
            self._originate(now)

    # -- results -------------------------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        """True if the stimulus must not end without `select`, `flush` or `report_refused`."""
        routes = self._routes
        return bool(
            routes.dirty
            or routes.advertiser.urgent
            or routes.seqno_requests.outgoing
            or routes.refused
            or self._records.refused
            or self._records.rekeyed
            or (self._certificates is not None and self._certificates.has_wanted)
            or (self._statements is not None and self._statements.has_work)
        )

    @property
    def is_urgent(self) -> bool:
        """True if routes have to be selected, or frames must be sent, before the stimulus ends."""
        routes = self._routes
        wanted = self._certificates is not None and self._certificates.has_wanted
        stated = self._statements is not None and self._statements.has_work
        urgent = routes.dirty or routes.advertiser.urgent or routes.seqno_requests.outgoing or wanted or stated
        return bool(urgent or self._records.rekeyed)

    def select(self, now: float) -> list[RouteChange]:
        """Select routes where anything has changed. Returns the destinations whose next hop or incarnation is new."""
        changes = [
            change
            for change in self._routes.select(now)
            if change.before is None or change.after is None or change.before[:2] != change.after[:2]
        ]
        for node, before, after in changes:
            self._records.set_reachable(node, after is not None, now)
            if after is None:
                assert before is not None  # a change begins or ends with a route
                next_hop = self._links.get(before.link) or self._fallen.get(before.link)
                self._departed.leave(node, before, next_hop, now)
                self._emit(Report("node_left", node))
                continue
            if before is None:
                self._departed.join(node)
                self._emit(Report("node_joined", node))
            self._emit(Report("route_changed", node, after.link, f"metric {after.metric}, {after.hops} hops"))
        self._fallen.clear()
        return changes

    def flush(self, now: float) -> list[tuple[LinkId, Frames]]:
        """The frames that are due, each with the link to send it on."""
        due: list[tuple[LinkId, Frames]] = []
        for advertisement in self._routes.flush(now):
            frames = wire.encode_update(Update(*advertisement[1:]))
            due.extend((link, frames) for link in advertisement.links)
        for link, requests in self._routes.requests(now).items():
            for start in range(0, len(requests), MAX_ENTRIES):
                part = tuple(requests[start : start + MAX_ENTRIES])
                due.append((link, wire.encode_link(Kind.SEQNO_REQUEST, part)))
        if self._certificates is not None:
            for link, digests in self._certificates.take_wanted().items():
                due.extend((link, frames) for frames in wire.encode_certificate_requests(digests))
        if self._statements is not None:
            due.extend(self._statements.flush())
        due.extend((link, wire.encode_records(blobs)) for link, blobs in self._records.flush(now))
        return due

    def report_refused(self) -> None:
        """Report the entries and records that were not accepted since the last call: one report for each reason."""
        for event, refused in (("route_refused", self._routes.refused), ("record_refused", self._records.refused)):
            if refused:
                self._report_refused(event, refused)

    def expire(self, now: float) -> None:
        """Apply damped costs that are due, and drop what has timed out."""
        self._apply_costs(now)
        self._routes.expire(now)
        for node in self._records.expire(now):
            self._emit(Report("node_forgotten", node))
        if self._certificates is not None:
            self._certificates.expire(now, self._records.all())
        if self._duplicates.expire(now):
            self._originate(now)

    def next_deadline(self) -> float | None:
        """When `expire`, `select` or `flush` has work."""
        tables = (self._cost_damping, self._routes, self._records, self._duplicates)
        deadlines = [table.next_deadline() for table in tables]
        if self._certificates is not None:
            deadlines.append(self._certificates.next_deadline())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def check(self) -> None:
        """Raise AssertionError if a table contradicts itself or another."""
        self._routes.check()
        self._records.check()
        self._duplicates.check()
        self._departed.check()
        if self._certificates is not None:
            self._certificates.check()

    # -- inside --------------------------------------------------------------------------------------------------

    def _originate(self, now: float) -> None:
        """Originate the own record anew if anything in it has changed."""
        if self._leaf:
            return
        neighbours, refused = self._adjacencies.neighbours(), self._duplicates.refused()
        for cut in self._records.describe(self._capabilities, neighbours, now, refused, self._tags, self._software):
            self._emit(Report("record_cut", self.node, None, cut))

    def _apply_costs(self, now: float) -> None:
        """Let routes and record follow the links whose cost has moved, if it is time."""
        moved = self._cost_damping.take(now)
        for link in moved:
            cost = self._adjacencies.routing_cost(link)
            if cost is not None:
                self._routes.set_cost(link, cost)
        if moved:
            self._originate(now)

    def _on_refused_elsewhere(self, at: NodeId, refused: Refused, now: float) -> None:
        """Another node's record lists a duplicate that it has refused."""
        if refused[:2] == (self.node, self.incarnation):
            return
        text = describe_refused(refused, at, self.node)
        self._emit(Report("duplicate_id", refused.node, None, text))
        if refused.node == self.node:
            self._check_id_taken(refused, text, now)

    def _check_id_taken(self, other: Record | Refused, text: str, now: float) -> None:
        """Report `id_taken` if this node was started later than the other one with its id, and only just now."""
        later = (self.started, self.incarnation) > (other.started, other.incarnation)
        if later and now < self._startup_ends:
            self._emit(Report("id_taken", self.node, None, text))

    def _report_refused(self, event: str, refused: Counter[tuple[LinkId | None, str]]) -> None:
        for (link, reason), count in refused.items():
            node = self._adjacencies.neighbour(link) if link is not None else None
            self._emit(Report(event, node, link, f"{reason}: {count}", count=count))
        refused.clear()
