"""The handshake that opens a link, and the detection of duplicate node ids.

Both ends send a HELLO with their node id and incarnation. A link is refused if its other end has this node's own id, or
if both ends are leaves. If the id is in use by another incarnation, the link is quarantined until that incarnation
times out, as after a restart (then the newcomer is accepted), or answers a probe (then the newcomer is refused: two
live nodes have one id).
"""

from __future__ import annotations

from typing import NamedTuple

from zmesh.core import wire
from zmesh.core.credentials import REASONS, Disbelieved
from zmesh.core.effects import HangUp, Report, Transmit
from zmesh.core.forwarding import Forwarding
from zmesh.core.message import NodeId
from zmesh.core.neighbours.authentication import Authentication
from zmesh.core.neighbours.links import Link, Links, State
from zmesh.core.routing import Routing, describe_links
from zmesh.core.wire import Kind

REDIAL_REFUSED = 5.0
TAKEN = ("duplicate_id", "own_id")
"""The reasons of a REFUSE because of another node of the same name."""


class Verdict(NamedTuple):
    """The result of a HELLO: the link is admitted, or refused, or it waits for the `rivals` to time out or answer."""

    admitted: bool = False
    refusal: wire.Refuse | None = None
    rivals: tuple[Link, ...] = ()


class Handshake:
    """The handshakes of one node. `started`: when it was, in seconds since the epoch."""

    def __init__(
        self,
        node: NodeId,
        incarnation: int,
        started: float,
        links: Links,
        routing: Routing,
        forwarding: Forwarding,
        authentication: Authentication,
        *,
        leaf: bool,
    ) -> None:
        self.node = node
        self.incarnation = incarnation
        self.leaf = leaf
        self._started = started
        self._links = links
        self._routing = routing
        self._forwarding = forwarding
        self._authentication = authentication

    def send_hello(self, link: Link, now: float, answers: int = 0) -> None:
        """Send a HELLO; `answers` is the session of the HELLO that this one answers."""
        link.greeted, link.greetings = now, link.greetings + 1
        hello = wire.Hello(
            self.node,
            self.incarnation,
            self._started,
            self.leaf,
            link.id,
            answers,
            extensions={wire.BATCHES: b"", **self._authentication.prove(link, now)},
        )
        self._forwarding.enqueue(link.id, wire.encode_link(Kind.HELLO, hello))
        if link.dialled and link.greetings == 2:  # a node of version 1 hears nothing else, and then says so
            self._forwarding.enqueue(link.id, wire.hello_for_version1(wire.VERSION))

    def request_hello(self, link: Link) -> None:
        """Request a HELLO from an unidentified peer that has dialled."""
        if link.state is State.OPENING and not link.dialled:
            self._forwarding.enqueue(link.id, wire.encode_link(Kind.ASK))

    def on_hello(self, link: Link, hello: wire.Hello, now: float) -> Verdict:
        """Process a HELLO."""
        if link.state is State.UP or (link.dialled and hello.answers != link.id):
            same = (hello.node, hello.incarnation, hello.session) == (link.node, link.incarnation, link.session)
            if same and not link.dialled:  # they have not heard the answer to their first one
                self.send_hello(link, now, answers=link.session)
            elif not same:
                self._forwarding.emit(Report("frame_dropped", link.node or None, link.id, "unexpected: HELLO"))
            return Verdict()
        endorsements = self._authentication.endorsements(hello)
        if self.leaf:
            self._authentication.learn(endorsements)
        else:
            self._routing.on_statements(link.id, endorsements, now)
        try:
            link.certified = self._authentication.verify(link, hello, now)
        except Disbelieved as error:
            return Verdict(refusal=wire.Refuse(error.reason, error.text))
        link.incarnation, link.started = hello.incarnation, hello.started
        if hello.node == self.node:
            reason, whose = ("own_id", "another node")
            if hello.incarnation == self.incarnation:
                reason, whose = ("itself", "this node itself")
            text = f"the id {hello.node!r} is taken by the node at this end ({whose})"
            return Verdict(refusal=wire.Refuse(reason, text, self._started))
        if hello.leaf and self.leaf:
            return Verdict(refusal=wire.Refuse("leaf", "both ends are ephemeral, and neither forwards"))
        link.node, link.leaf = hello.node, hello.leaf
        link.session = hello.session
        grants = wire.GRANTS in hello.extensions and self._authentication.takes_grants(link)
        link.grants = grants and (self.leaf or (link.leaf and link.certified is None))
        self._forwarding.identify(
            link.id,
            link.node,
            leaf=link.leaf,
            certified=link.certified is not None,
            granted=link.grants,
            takes_batches=wire.BATCHES in hello.extensions,
        )
        if link.dialled and link.greetings == 1 and link.rtt is None:  # of several, it is not known which is answered
            link.measure(now - link.greeted)
        rivals, known_alive = self._rivals(link)
        if not rivals and not known_alive:
            return Verdict(admitted=True)
        if link.state is State.QUARANTINED:
            return Verdict()
        self._links.quarantine(link, now)
        link.heard = now
        self._forwarding.emit(
            Report("link_quarantined", link.node, link.id, "another incarnation of it may still be alive")
        )
        return Verdict(rivals=rivals)

    def duplicate(self, link: Link) -> wire.Refuse:
        """The REFUSE for a quarantined link whose node id is in use elsewhere."""
        text, started = f"another node called {link.node!r} is alive in the mesh", 0.0
        others, record = self._rivals(link)[0], self._routing.record(link.node)
        if link.certified is not None and others and others[0].certified is not None:
            keys = (others[0].certified.identity.key, link.certified.identity.key)
            text = f"{text} (key {keys[0]}, and this one has {keys[1]}; zmesh revoke the one that must go)"
        if others:
            text, started = f"{text}, linked to {self.node}", others[0].started
        elif record is not None:
            text, started = f"{text}, {describe_links(record)}", record.started
        return wire.Refuse("duplicate_id", text, started)

    def refuse(self, link: Link, refuse: wire.Refuse, version: int = wire.VERSION) -> None:
        """Send a REFUSE, in a form that a node of that version reads; the caller closes the link."""
        known = version >= wire.LOWEST_VERSION
        frames = wire.encode_link(Kind.REFUSE, refuse) if known else wire.refuse_version1(refuse.text)
        self._forwarding.emit(Transmit(link.id, frames))
        self._turn_away(link, f"we refuse: {refuse.text}", refuse)
        if refuse.reason == "own_id" and link.started < self._started:
            self._forwarding.emit(
                Report("id_taken", self.node, link.id, "the other node of this name was started earlier")
            )

    def on_refused(self, link: Link, refuse: wire.Refuse) -> None:
        """Process a REFUSE; the caller closes the link."""
        self._turn_away(link, f"they refuse: {refuse.text}", refuse)
        if refuse.reason in TAKEN and refuse.started <= self._started:
            self._forwarding.emit(Report("id_taken", self.node, link.id, refuse.text))

    def request_seqno(self, link: Link) -> None:
        """Request a feasible seqno from a neighbour that has restarted, and may have begun at a lower one."""
        known, selected = self._routing.distance(link.node), self._routing.route(link.node)
        record = self._routing.record(link.node)
        incarnations = (selected and selected.incarnation, record and record.incarnation)
        if known is not None and link.incarnation not in incarnations:
            request = wire.SeqnoRequest(link.node, known[0], 0, 1)
            self._forwarding.enqueue(link.id, wire.encode_link(Kind.SEQNO_REQUEST, (request,)))

    def _turn_away(self, link: Link, text: str, refuse: wire.Refuse) -> None:
        node, link.refused = link.node or None, True
        self._forwarding.emit(Report("link_refused", node, link.id, text, text=refuse.reason))
        if refuse.reason in REASONS:
            self._forwarding.emit(Report("not_trusted", node, link.id, refuse.text, text=refuse.reason))
        if refuse.reason in TAKEN:
            self._forwarding.emit(Report("duplicate_id", node or self.node, link.id, text))
        self._forwarding.emit(HangUp(link.id, refuse.text, REDIAL_REFUSED))

    def released(self) -> Link | None:
        """A quarantined link whose node id is not in use elsewhere any more, or None."""
        return next((link for link in self._links.quarantined() if not any(self._rivals(link))), None)

    def _rivals(self, link: Link) -> tuple[tuple[Link, ...], bool]:
        """The links to other incarnations of the node at the end of this one, and whether there is a route to one."""
        others = tuple(
            other
            for other in self._links.to(link.node)
            if (other.incarnation, other.leaf) != (link.incarnation, link.leaf)
        )
        selected = None if link.leaf or others else self._routing.route(link.node)
        return others, selected is not None and selected.incarnation != link.incarnation
