"""The links of a node from the first connection to the last frame: handshake, keepalive, cost, rate limits.

A link is OPENING until both ends have sent a HELLO, then UP; in between it is QUARANTINED if the node id at its other
end may be in use elsewhere. Methods that change the state of a link return an event (`Accepted`, `Ended`), which
the engine carries out with `establish` and `close`, and passes on to routing and delivery.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from zmesh.core import wire
from zmesh.core.credentials import SWEEP
from zmesh.core.durations import exact
from zmesh.core.effects import HangUp, Report, Transmit
from zmesh.core.forwarding import Forwarding
from zmesh.core.limits import DEFAULT_LIMITS, Limits, TokenBucket
from zmesh.core.message import LinkId, NodeId
from zmesh.core.neighbours.authentication import Authentication
from zmesh.core.neighbours.handshake import REDIAL_REFUSED, TAKEN, Handshake
from zmesh.core.neighbours.keepalive import Keepalive
from zmesh.core.neighbours.links import MAX_STRIKES, Link, Links, State
from zmesh.core.neighbours.rate_limits import RateExceeded
from zmesh.core.routing import Routing
from zmesh.core.wire import Kind, Packet, WireError

MAX_RTT = 3600.0
MAX_ENROLLING = 8192
"""Bytes that a frame of a node that enrols may have."""


class Accepted(NamedTuple):
    """The handshake of a link is complete: `establish` it."""

    link: Link


class Ended(NamedTuple):
    """A link is over: `close` it."""

    link: Link
    reason: str


LinkEvent = Accepted | Ended


class Neighbours:
    """The neighbours of one node. `links`: its table of links, which `routing` reads as well."""

    def __init__(
        self,
        node: NodeId,
        incarnation: int,
        links: Links,
        routing: Routing,
        forwarding: Forwarding,
        authentication: Authentication,
        *,
        now: float,
        leaf: bool,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._node = node
        self._leaf = leaf
        self._links = links
        self._routing = routing
        self._forwarding = forwarding
        self._admissions = TokenBucket(limits.admissions, now)
        self._most_enrolling = limits.enrolling
        self._keepalive = Keepalive(routing, forwarding, leaf=leaf)
        self._authentication = authentication
        self._handshake = Handshake(
            node, incarnation, routing.started, links, routing, forwarding, authentication, leaf=leaf
        )
        self._checked_at = now

    # -- reading -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._links)

    @property
    def heartbeat(self) -> float:
        """Seconds between two probes of a link."""
        return self._links.heartbeat

    def get(self, link: LinkId) -> Link | None:
        """The link of that number, or None if it is closed."""
        return self._links.get(link)

    def __iter__(self) -> Iterator[Link]:
        return iter(self._links)

    def up(self) -> list[Link]:
        """The links that are up."""
        return self._links.up()

    def to(self, node: NodeId) -> list[Link]:
        """The links to that node that are up, the cheapest first."""
        return self._links.to(node)

    def best_uplink(self) -> Link | None:
        """The link that a leaf should attach to: one that is not suspect, if there is any."""
        return min(self._links.up(), key=lambda link: link.suspect, default=None)

    # -- opening and closing -------------------------------------------------------------------------------------

    def open(
        self,
        link: LinkId,
        now: float,
        *,
        dialled: bool,
        cost: int,
        where: str,
        channel: bytes = b"",
        local: bool = False,
    ) -> None:
        """A connection is there. The end that dialled sends the first HELLO."""
        opened = self._links.open(link, dialled=dialled, cost=cost, now=now, where=where, channel=channel, local=local)
        self._forwarding.open(link, now)
        if self._authentication.expires:
            self._links.alarm.at(self._checked_at + SWEEP)
        if dialled:
            self._handshake.send_hello(opened, now)

    def establish(self, link: Link, now: float) -> None:
        """Bring up an accepted link."""
        if not link.dialled:
            self._handshake.send_hello(link, now, answers=link.session)
        self._admissions.spend(1)
        self._links.establish(link, now)
        if link.leaf:
            self._bind_leaf(link)
        else:
            self._forwarding.admit(link.id, link)
        self._forwarding.emit(Report("link_up", link.node, link.id, "leaf" if link.leaf else ""))

    def request_seqno(self, link: Link) -> None:
        """Have a neighbour that has restarted send a route to itself that is newer than those of before."""
        self._handshake.request_seqno(link)

    def probe(self, link: Link, now: float) -> None:
        """Send something that the other end has to answer: a PROBE, or an ASK if the link is not up."""
        if link.state is State.UP:
            self._keepalive.send(link, now)
        else:
            self._forwarding.enqueue(link.id, wire.encode_link(Kind.ASK))

    def close(self, link: Link, reason: str) -> None:
        """Take out a link that is over, and report it."""
        self._links.close(link.id)
        if link.state is State.UP:
            self._bind_leaf(link)
            self._forwarding.emit(Report("link_lost", link.node, link.id, reason))
        elif link.state is State.OPENING and link.dialled and not link.refused:
            self._forwarding.emit(Report("link_not_greeted", None, link.id, reason, text=link.where))

    def released(self) -> Link | None:
        """A quarantined link whose node id is not in use elsewhere any more, or None."""
        return self._handshake.released()

    def disbelieved(self, now: float) -> list[Ended]:
        """Refuse the links whose other end is not believed any more; `close` each of them."""
        self._checked_at = now
        ended = []
        for link in self._links.up():
            error = self._authentication.check(link, self._routing.certified(link.node), now)
            if error is not None:
                ended.append(self._refuse(link, wire.Refuse(error.reason, error.text), now))
        return ended

    def clock_set(self, ahead: float) -> None:
        """The clock of this node was set: those of the others are ahead of it by so much less."""
        for link in self._links.up():
            if link.skew is not None:
                link.skew -= ahead

    def is_check_due(self, now: float) -> bool:
        """Whether it is time for `disbelieved`: certificates expire without a frame that would say so."""
        return self._authentication.expires and now >= self._checked_at + SWEEP

    def say_goodbye(self, reason: str) -> None:
        """Send a GOODBYE on all links that are up."""
        for link in self._links.up():
            self._forwarding.enqueue(link.id, wire.encode_link(Kind.GOODBYE, wire.Goodbye(reason)))

    def dismiss(self, link: Link, reason: str) -> None:
        """Send a GOODBYE on a link, if it is up, and have it closed; `close` it."""
        if link.state is State.UP:
            frames = wire.encode_link(Kind.GOODBYE, wire.Goodbye(reason))
            self._forwarding.emit(Transmit(link.id, frames))
        self._forwarding.emit(HangUp(link.id, reason, 0.0))

    # -- frames --------------------------------------------------------------------------------------------------

    def on_frame(self, link: Link, packet: Packet, now: float) -> LinkEvent | None:
        """Process a frame of the handshake or the keepalive. Raises WireError, RateExceeded."""
        match packet.kind:
            case Kind.HELLO:
                return self._on_hello(link, wire.decode_hello(packet.head), now)
            case Kind.REFUSE:
                refuse = wire.decode_refuse(packet.head)
                self._handshake.on_refused(link, refuse)
                return Ended(link, f"refused: {refuse.text}")
            case Kind.ASK:
                return self._on_ask(link, now)
        if link.state is not State.UP:
            self.on_early_frame(link)
            return None
        match packet.kind:
            case Kind.PROBE:
                self._forwarding.set_blocked(link.id, "")
                self._keepalive.answer(link, wire.decode_probe(packet.head))
            case Kind.ECHO:
                self._on_echo(link, wire.decode_echo(packet.head), now)
            case _:
                reason = wire.decode_goodbye(packet.head).reason
                self._forwarding.emit(HangUp(link.id, reason, 0.0))
                return Ended(link, f"they left: {reason}")
        return None

    def admits_enrolling(self, link: Link, route: Packet, size_bytes: int, now: float) -> bool:
        """Whether to take a routed frame of a leaf that enrols: few and small ones, for this node. Raises RateExceeded,
        WireError.
        """
        if size_bytes > MAX_ENROLLING:
            raise WireError(f"{size_bytes} bytes from a node that enrols, where {MAX_ENROLLING} are allowed")
        if not link.limiter.has("greetings", now):
            raise RateExceeded("greetings, of a node that enrols")
        link.limiter.spend("greetings", 1)
        if route.destination != self._node:
            self._forwarding.emit(Report("frame_dropped", link.node, link.id, "enrolling"))
            return False
        return True

    def on_early_frame(self, link: Link) -> None:
        """A frame has come on a link that is not up: it is dropped, and the other end asked for its HELLO."""
        self._handshake.request_hello(link)
        self._forwarding.emit(Report("frame_dropped", None, link.id, "not_greeted"))

    def on_heard_again(self, link: Link) -> None:
        """A suspect link has been heard, and is not suspect any more, unless what was heard has closed it."""
        if self._links.get(link.id) is link:
            self._links.trust(link)
            self._routing.set_cost(link.id, link.routing_cost)
            self._bind_leaf(link)

    def on_bad_frame(self, link: Link, error: WireError) -> Ended | None:
        """A frame that can't be read has come; MAX_STRIKES of them in a row end the link."""
        self._forwarding.emit(Report("frame_dropped", link.node or None, link.id, f"{error.reason}: {error}"))
        link.strikes += 1
        if link.strikes < MAX_STRIKES:
            return None
        self._forwarding.emit(HangUp(link.id, f"{MAX_STRIKES} bad frames in a row", REDIAL_REFUSED))
        return Ended(link, f"{MAX_STRIKES} bad frames in a row: {error}")

    def on_foreign_version(self, link: Link, foreign: wire.ForeignVersion, now: float) -> LinkEvent | None:
        """A HELLO or REFUSE of the version without version ranges has come: refuse it in that version, or end."""
        version = foreign.version
        if version >= wire.LOWEST_VERSION and not foreign.refused:
            return None  # of a dialler that can't know which version is spoken here; its other HELLO says all
        if link.state is not State.OPENING:
            return self.on_bad_frame(link, foreign)
        if foreign.refused:
            self._handshake.on_refused(link, wire.Refuse("version", foreign.text))
            return Ended(link, f"refused: {foreign.text}")
        text = f"protocol version {version} is not {wire.LOWEST_VERSION} to {wire.VERSION}, which this node speaks"
        return self._refuse(link, wire.Refuse("version", text), now, version)

    def _on_hello(self, link: Link, hello: wire.Hello, now: float) -> LinkEvent | None:
        if not (hello.lowest <= wire.VERSION and hello.highest >= wire.LOWEST_VERSION):
            text = (
                f"protocol versions {hello.lowest} to {hello.highest} are not {wire.LOWEST_VERSION} to {wire.VERSION}, "
                "which this node speaks"
            )
            return self._refuse(link, wire.Refuse("version", text), now)
        link.version = min(wire.VERSION, hello.highest)
        if link.state is State.OPENING and not self._admissions.has(now):
            raise RateExceeded("too many links are admitted; the other end greets again")
        verdict = self._handshake.on_hello(link, hello, now)
        if verdict.admitted and link.enrolling and sum(map(_is_enrolling, self._links.up())) >= self._most_enrolling:
            text = f"{self._most_enrolling} nodes enrol at {self._node!r} already; try again in a minute"
            return self._refuse(link, wire.Refuse("enrolling", text), now)
        for rival in verdict.rivals:
            self._keepalive.send(rival, now)
        if verdict.refusal is not None:
            return self._refuse(link, verdict.refusal, now)
        return Accepted(link) if verdict.admitted else None

    def _on_ask(self, link: Link, now: float) -> Ended | None:
        """The other end does not know this connection (any more): open it again as a new link."""
        if not link.dialled:
            self._forwarding.emit(Report("frame_dropped", link.node or None, link.id, "unexpected: ASK"))
        elif link.state is State.UP:
            self._forwarding.emit(HangUp(link.id, "the other end knows us no more", 0.0))
            return Ended(link, "the other end knows us no more")
        else:
            self._handshake.send_hello(link, now)
        return None

    def _on_echo(self, link: Link, echo: wire.Echo, now: float) -> None:
        """Take in a round trip. The first one makes the link usable for routes; later ones move its cost."""
        sample = now - echo.token
        if not 0 <= sample < MAX_RTT:
            self._forwarding.emit(Report("frame_dropped", link.node, link.id, "unexpected: ECHO"))
            return
        first = link.rtt is None
        moved = link.measure(sample)
        if link.leaf:
            self._bind_leaf(link)
        elif first and not self._leaf:
            self._routing.link_measured(link.id, link.routing_cost, now)
        elif moved and not self._leaf:
            self._routing.cost_moved(link.id, now)

    def _refuse(self, link: Link, refuse: wire.Refuse, now: float, version: int = wire.VERSION) -> Ended:
        self._handshake.refuse(link, refuse, version)
        if refuse.reason in TAKEN and not link.leaf:
            node = link.node or self._node
            self._routing.refuse_duplicate(node, link.incarnation, link.started, link.where, now)
        return Ended(link, f"refused: {refuse.text}")

    def _bind_leaf(self, link: Link) -> None:
        """Have frames for an attached leaf take its cheapest link."""
        if link.leaf:
            links = self._links.to(link.node)
            self._forwarding.bind_leaf(link.node, links[0].id if links else None)

    # -- time ----------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `send_due`, `expire` or `disbelieved` has work."""
        deadline = self._links.next_deadline()
        if deadline is None or not self._authentication.expires:
            return deadline
        return min(deadline, self._checked_at + SWEEP)

    def send_due(self, now: float) -> None:
        """Send the PROBEs that are due, and again the HELLOs that were not answered."""
        for link in self._links.due(now):
            if link.state is State.UP:
                self._keepalive.send(link, now)
            elif link.state is State.OPENING:
                self._handshake.send_hello(link, now)

    def expire(self, now: float) -> tuple[list[Link], list[Link]]:
        """The links that have just become suspect, and those that have timed out: call `time_out` for each of these."""
        suspects, silent = self._links.expire(now)
        for link in suspects:
            self._forwarding.emit(Report("link_suspect", link.node, link.id, f"silent for {exact(now - link.heard)}"))
            self._routing.set_cost(link.id, link.routing_cost)
            self._bind_leaf(link)
        return suspects, silent

    def time_out(self, link: Link, now: float) -> Ended | None:
        """A link has been silent, or quarantined, for too long; None if it took the place of one that was just lost."""
        if link.state is State.UP and link.heard == now:
            return None
        if link.state is State.QUARANTINED:
            return self._refuse(link, self._handshake.duplicate(link), now)
        how = "silent" if link.state is State.UP else "no greeting"
        self._forwarding.emit(HangUp(link.id, how, 0.0))
        return Ended(link, f"{how} for {exact(now - link.heard)}")

    def forgive(self, seconds: float, now: float) -> None:
        """Count no silence for the last `seconds`, in which this node could not listen."""
        self._links.forgive(seconds, now)

    def check(self) -> None:
        """Raise AssertionError if the tables contradict each other."""
        self._links.check()


def _is_enrolling(link: Link) -> bool:
    return link.enrolling
