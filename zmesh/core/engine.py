"""One node as a state machine: a stimulus in, a list of effects out.

The stimuli are `link_up`, `link_down`, `link_full`, `link_ready`, `dial_failed`, `dial_succeeded` and `receive` from
the transport, `send`, `feed`, `reply`, `cancel`, `release_credit` and `describe` from the program, `tick` and `resume`
from the clock and `close` at the end. Each takes the time as `now` and returns what is to be done, in order.
`next_deadline` is when `tick` is due. The engine keeps no clock and does no I/O; whatever a neighbour sends, no
stimulus raises.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from zmesh.core import wire
from zmesh.core.delivery.delivery import Delivery
from zmesh.core.effects import Effect, HangUp, Report
from zmesh.core.forwarding.forwarding import DRAIN, LAGGING_BYTES, Forwarding
from zmesh.core.forwarding.queues import Queue
from zmesh.core.limits import DEFAULT_LIMITS, Limits, TokenBucket
from zmesh.core.message import Address, Eof, LinkId, MessageId, NodeId, ReplyHeader, RequestHeader, Stream
from zmesh.core.neighbours.handshake import REDIAL_REFUSED, TAKEN, Handshake
from zmesh.core.neighbours.keepalive import Keepalive
from zmesh.core.neighbours.links import DEFAULT_COST, MAX_STRIKES, Link, Links, State
from zmesh.core.neighbours.rate_limits import MIN_RESENT, RateExceeded
from zmesh.core.routing import Routing
from zmesh.core.timers import Alarm
from zmesh.core.wire import FIRST_ROUTED, Frames, Kind, Route, WireError

_BETWEEN_NODES = (Kind.UPDATE, Kind.RECORD, Kind.SEQNO_REQUEST, Kind.RESEND)


class Engine:
    """A node of the mesh. `incarnation`: 64 random bits of this start; `epoch`: the seconds since 1970 at `now` 0;
    `serial`: where its counters start, higher at each start if the machine's clock allows (milliseconds since 1970).

    A `leaf` (an ephemeral node) forwards nothing, and the mesh keeps no route to it: its address is `leaf@neighbour`.
    """

    def __init__(
        self,
        node: NodeId,
        incarnation: int,
        *,
        now: float,
        epoch: float = 0.0,
        serial: int = 1,
        heartbeat: float = 1.0,
        route_timeout: float = 30.0,
        leaf: bool = False,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.node = node
        self.incarnation = incarnation
        self.leaf = leaf
        self.limits = limits
        self.alarm = Alarm()
        self.links = Links(heartbeat, self.alarm, limits)
        self.routing = Routing(
            node,
            incarnation,
            serial,
            self.links,
            self._emit,
            self.alarm,
            now=now,
            epoch=epoch,
            leaf=leaf,
            limits=limits,
        )
        self._admissions = TokenBucket(limits.admissions, now)
        self.forwarding = Forwarding(node, incarnation, self.links, self.routing, leaf=leaf, limits=limits)
        self.delivery = Delivery(self.forwarding, route_timeout, self.alarm, leaf=leaf, limits=limits)
        self.keepalive = Keepalive(self.routing, self.forwarding, leaf=leaf)
        self.handshake = Handshake(
            node, incarnation, self.routing.started, self.links, self.routing, self.forwarding, leaf=leaf
        )
        self._closed = False

    # -- stimuli: the transport ----------------------------------------------------------------------------------

    def link_up(
        self, link: LinkId, now: float, *, dialled: bool, cost: int = DEFAULT_COST, where: str = ""
    ) -> list[Effect]:
        """A connection is there. The one who dialled greets; the one who listened waits for the greeting.

        `where` the other end is, in words, is for people.
        """
        if self.links.get(link) is None and not self._closed:
            opened = self.links.open(link, dialled=dialled, cost=cost, now=now, where=where)
            self.forwarding.queues[link] = Queue()
            if dialled:
                self.handshake.greet(opened, now)
        return self._done(now)

    def link_down(self, link: LinkId, now: float, reason: str) -> list[Effect]:
        """A connection is gone, as the transport knows for certain."""
        self._lose(link, reason, now)
        return self._done(now)

    def link_full(self, link: LinkId, frames: Frames, now: float) -> list[Effect]:
        """The transport could not take these frames; they are kept until `link_ready`."""
        queue = self.forwarding.queues.get(link)
        if queue is not None:
            queue.give_back(frames)
        else:
            self.forwarding.emit(Report("frame_dropped", self.links.neighbour(link), link, "link_gone"))
        return self._done(now)

    def link_ready(self, link: LinkId, now: float, most: int = DRAIN) -> list[Effect]:
        """The link takes frames again. Returns the next of them, `most` of those that wait; call again until none is.

        Where only sending tells whether it takes any, the first call asks for one.
        """
        queue = self.forwarding.drain(link, most)
        if queue is not None and queue.size_bytes < LAGGING_BYTES:
            self.delivery.on_link_ready(link, lambda: queue.size_bytes >= LAGGING_BYTES, now)
        return self._done(now)

    def dial_failed(self, url: str, reason: str, now: float) -> list[Effect]:
        """A peer could not be dialled, or did not take this node in; errors about unreachable nodes say so."""
        self.forwarding.dials.fail(url, reason, now)
        return self._done(now)

    def dial_succeeded(self, url: str, now: float) -> list[Effect]:
        """There is a link to a peer that is dialled."""
        self.forwarding.dials.succeed(url)
        return self._done(now)

    def receive(self, link: LinkId, frames: tuple[bytes, ...] | list[bytes], now: float) -> list[Effect]:
        """A frame has come on a link. Nothing that is in it can raise."""
        known = self.links.get(link)
        if known is None:
            self.forwarding.emit(Report("frame_dropped", self.links.neighbour(link), link, "link_gone"))
            return self._done(now)
        try:
            if len(frames) != 3 or len(frames[2]) > wire.MAX_BODY or len(frames[1]) > wire.MAX_HEAD:
                raise WireError(f"{len(frames)} parts, or one too long")
            route = wire.decode_route(frames[0])
            if route.kind >= FIRST_ROUTED:
                self._on_routed(known, route, (frames[0], frames[1], frames[2]), now)
            else:
                known.limiter.admit(route.kind, now, is_up=known.state is State.UP)
                # What a foreign version says in its HELLO is not read, and may end in anything.
                head = wire.unseal(route, frames[1], frames[2]) if route.version == wire.VERSION else b""
                self._on_neighbour(known, route, head, now)
            known.strikes = 0
            known.heard = now
            if known.suspect:
                self._trust(known)
        except RateExceeded as error:
            known.heard = now
            self.forwarding.emit(Report("frame_dropped", known.node or None, link, f"rate_limited: {error}"))
        except WireError as error:
            self._strike(known, error, now)
        return self._done(now)

    # -- stimuli: the program ------------------------------------------------------------------------------------

    def send(
        self,
        message_id: MessageId,
        recipient: Address,
        header: RequestHeader,
        body: bytes,
        now: float,
        *,
        last: bool = True,
        timeout: float | None = None,
        route_timeout: float | None = None,
        handle: object = None,
    ) -> list[Effect]:
        """Open an exchange; `last` False: more payload follows through `feed`.

        `timeout`: seconds for all of it, None: no limit. `route_timeout`: seconds that it may be without a way to the
        recipient, None: those of the node. `handle` is the shell's own object for the exchange; Delivers carry it.
        """
        self.delivery.open_request(
            message_id,
            recipient,
            header,
            body,
            last=last,
            timeout=timeout,
            now=now,
            route_timeout=route_timeout,
            handle=handle,
        )
        return self._done(now)

    def attach(self, message_id: MessageId, handle: object) -> None:
        """Have each Deliver and Abort of a request that was received here carry `handle` from now on."""
        self.delivery.attach(message_id, handle)

    def feed(self, stream: Stream, body: bytes, now: float, *, last: bool) -> list[Effect]:
        """More payload of the message under way on a stream; never more than `room(stream)` bytes."""
        self.delivery.feed(stream, body, last=last, now=now)
        return self._done(now)

    def reply(
        self,
        message_id: MessageId,
        header: ReplyHeader | None,
        body: bytes,
        now: float,
        *,
        last: bool = True,
        eof: Eof | None = None,
    ) -> list[Effect]:
        """A reply to a request, and with `eof` its final word; harmless if the caller is gone."""
        self.delivery.reply(message_id, header, body, last=last, eof=eof, now=now)
        return self._done(now)

    def cancel(self, message_id: MessageId, now: float) -> list[Effect]:
        """Stop a request of this node; its final word comes as with any other."""
        self.delivery.cancel(message_id, now)
        return self._done(now)

    def release_credit(self, stream: Stream, credit: int, now: float) -> list[Effect]:
        """The reader of a stream has read a delivered chunk of that credit."""
        self.delivery.release_credit(stream, credit, now)
        return self._done(now)

    def describe(self, capabilities: Iterable[str], now: float) -> list[Effect]:
        """Tell all nodes what this one can do."""
        self.routing.describe(capabilities, now)
        return self._done(now)

    def probe(self, link: LinkId, now: float) -> list[Effect]:
        """The transport suspects that a connection is gone: have something sent, which tells."""
        known = self.links.get(link)
        if known is not None:
            if known.state is State.UP:
                self.keepalive.send(known, now)
            else:
                self.forwarding.enqueue(link, wire.encode_link(Kind.ASK))
        return self._done(now)

    def close(self, now: float, reason: str = "leaving") -> list[Effect]:
        """Say what is owed, and goodbye on all links; the node is over after this."""
        self._closed = True
        self.delivery.close()
        for link in self.links.up():
            self.forwarding.enqueue(link.id, wire.encode_link(Kind.GOODBYE, wire.Goodbye(reason)))
        return self._done(now)

    # -- time ----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Effect]:
        """Do what is due."""
        for link in self.links.due(now):
            if link.state is State.UP:
                self.keepalive.send(link, now)
            elif link.state is State.OPENING:
                self.handshake.greet(link, now)  # again: it, or the answer to it, may be lost
        suspects, silent = self.links.expire(now)
        for link in suspects:
            self.forwarding.emit(Report("link_suspect", link.node, link.id, f"silent for {now - link.heard:.3g} s"))
            self.routing.set_cost(link.id, link.routing_cost)
            if self.forwarding.uplink is link and any(not other.suspect for other in self.links.up()):
                self._rehome(now)
        for link in silent:
            if link.state is State.UP and link.heard == now:  # it took the place of one that was lost just now
                continue
            if link.state is State.QUARANTINED:
                self._refuse(link, self.handshake.duplicate(link), now)
            else:
                how = "silent" if link.state is State.UP else "no greeting"
                self.forwarding.emit(HangUp(link.id, how, 0.0))
                self._lose(link.id, f"{how} for {now - link.heard:.3g} s", now)
        self.routing.expire(now)
        if not self.routing.is_contested:
            self.delivery.on_uncontested()
        self.delivery.tick(now)
        self._select(now)
        self._flush(now)
        effects = self._done(now)
        self._set_alarm()
        return effects

    def resume(self, seconds: float, now: float) -> list[Effect]:
        """The node could not listen for the last `seconds`: what its neighbours have said meanwhile is still unread."""
        self.links.forgive(seconds, now)
        return self._done(now)

    def next_deadline(self) -> float | None:
        """When `tick` is due, or None if nothing is. It may turn out that nothing was; it is never too late."""
        soonest = self.alarm.soonest
        return soonest if soonest < math.inf else None

    def _set_alarm(self) -> None:
        tables = (self.delivery, self.links, self.routing)
        deadlines = [table.next_deadline() for table in tables]
        self.alarm.soonest = min((when for when in deadlines if when is not None), default=math.inf)

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When `tick` is due; infinite if nothing is. Cheap to read after every stimulus."""
        return self.alarm.soonest

    @property
    def is_handing_over(self) -> bool:
        """True while a request of this node has not arrived whole at its server."""
        return self.delivery.handing_over

    @property
    def waiting_bytes(self) -> int:
        """Bytes of payload of this node's requests that are unsent or unacknowledged."""
        return self.delivery.waiting_bytes

    @property
    def waiting_streams(self) -> int:
        """Requests and replies of which no frame has been sent yet."""
        return self.delivery.waiting_streams

    def room(self, stream: Stream) -> int:
        """How many bytes of payload the stream takes now; of 0 there will be a Pull or a StreamOver."""
        return self.delivery.room(stream)

    def is_open(self, stream: Stream) -> bool:
        """True while the stream may take more payload."""
        return self.delivery.is_open(stream)

    def is_lost(self, message_id: MessageId) -> bool:
        """True while there is no route to the server of this request."""
        return self.delivery.is_lost(message_id)

    def stats(self) -> dict[str, int]:
        """How many entries the tables of exchanges have: `calls`, `services`, `acks`, `waiting_bytes`, `peers`."""
        return self.delivery.counts()

    def hint(self, destination: Address, now: float) -> str:
        """What to add to an error about a node without a route: when it left, known nodes, failing dials."""
        return self.forwarding.hint(destination, now)

    def last_heard_by(self, node: NodeId) -> NodeId | None:
        """The node that was the last to hear of one that has left; None if that is unknown."""
        return self.routing.last_heard_by(node)

    def rtt(self, link: LinkId) -> float | None:
        """The smoothed round-trip time of a link in seconds; None before the first sample."""
        known = self.links.get(link)
        return known.rtt if known is not None else None

    def settled(self, now: float) -> float:
        """For how many seconds this node's routes have been as they are."""
        return self.routing.settled(now)

    def nodes(self) -> set[NodeId]:
        """All nodes that can be reached, this one among them."""
        return {self.node, *self.routing.destinations()}

    def check(self) -> None:
        """Raise AssertionError if any table contradicts itself or another; tests call this after every event."""
        self.links.check()
        self.routing.check()
        self.delivery.check()
        self.forwarding.check()

    # -- inside: forwarding --------------------------------------------------------------------------------------

    def _on_routed(self, link: Link, route: Route, frames: Frames, now: float) -> None:
        if link.state is not State.UP:
            self.handshake.ask(link)
            self.forwarding.emit(Report("frame_dropped", None, link.id, "not_greeted"))
            return
        if link.leaf and route.source != f"{link.node}@{self.node}":
            raise WireError("a leaf speaks for another node")
        if route.destination == self.forwarding.address or (self.leaf and self._is_me(route.destination)):
            self._arrive(route, frames, now, link.node)
            return
        self.forwarding.forward(link, route, frames, now)

    def _is_me(self, destination: Address) -> bool:
        """A leaf of several links is known by several addresses, also by that of a node it hung on before."""
        return destination.startswith(f"{self.node}@")

    def _arrive(self, route: Route, frames: Frames, now: float, via: NodeId | None) -> None:
        """Take in a frame for this node; what a far node got wrong in it is not its neighbour's fault.

        `via`: the neighbour that it has come from; None: this node, and it has no checksum.
        """
        try:
            head = frames[1] if via is None else wire.unseal(route, frames[1], frames[2])
            refusal = self.delivery.on_frame(route, head, frames[2], now, via)
        except WireError as error:
            refusal = f"{error.reason}: {error}"
        if refusal == "restarted":
            self.forwarding.send_unreachable(Kind.UNREACHABLE, route, frames, now, refusal)
        elif refusal is not None:
            self.forwarding.emit(Report("frame_dropped", wire.host_of(route.source), None, refusal))

    # -- inside: what neighbours say -----------------------------------------------------------------------------

    def _on_neighbour(self, link: Link, route: Route, head: bytes, now: float) -> None:
        kind = route.kind
        if kind == Kind.HELLO:
            if route.version != wire.VERSION:
                text = f"protocol version {route.version} is not {wire.VERSION}, which we speak"
                self._refuse(link, wire.Refuse("version", text), now)
            else:
                self._on_hello(link, wire.decode_hello(head), now)
        elif kind == Kind.REFUSE:
            refuse = wire.decode_refuse(head)
            self.handshake.on_refused(link, refuse)
            self._lose(link.id, f"refused: {refuse.text}", now)
        elif kind == Kind.ASK:
            if link.dialled:
                self._restart(link, now)
            else:
                self.forwarding.emit(Report("frame_dropped", link.node or None, link.id, "unexpected: ASK"))
        elif link.state is not State.UP:
            self.handshake.ask(link)
            self.forwarding.emit(Report("frame_dropped", None, link.id, "not_greeted"))
        else:
            self._on_up(link, kind, head, now)

    def _on_up(self, link: Link, kind: int, head: bytes, now: float) -> None:
        if kind in _BETWEEN_NODES and (self.leaf or link.leaf):
            self.forwarding.emit(Report("frame_dropped", link.node, link.id, "leaf_has_no_tables"))
            return
        match kind:
            case Kind.PROBE:
                self.keepalive.answer(link, wire.decode_probe(head))
            case Kind.ECHO:
                sample = now - wire.decode_echo(head).token
                if 0 <= sample < 3600:
                    self._measure(link, sample, now)
                else:
                    self.forwarding.emit(Report("frame_dropped", link.node, link.id, "unexpected: ECHO"))
            case Kind.UPDATE:
                update = wire.decode_update(head)
                link.limiter.spend("route_entries", 1 + len(update.entries))
                self.routing.on_update(link.id, update, now)
            case Kind.RECORD:
                self._on_records(link, *wire.decode_records(head), now)
            case Kind.SEQNO_REQUEST:
                for request in wire.decode_seqno_requests(head):
                    forwarded = self.routing.on_seqno_request(link.id, request, now)
                    link.limiter.spend("seqno_requests", 1 + forwarded)
            case Kind.RESEND:
                resend = wire.decode_resend(head)
                if resend.routes:
                    link.limiter.spend("resent_rows", max(MIN_RESENT, self.routing.resend_routes(link.id, now)))
                if resend.records:
                    link.limiter.spend("resent_rows", max(MIN_RESENT, self.routing.resend_records(link.id, now)))
            case _:
                reason = wire.decode_goodbye(head).reason
                self.forwarding.emit(HangUp(link.id, reason, 0.0))
                self._lose(link.id, f"they left: {reason}", now)

    def _on_records(
        self, link: Link, records: list[tuple[wire.Record, bytes]], errors: list[WireError], now: float
    ) -> None:
        """Take in each record by itself; those that can't be read are a single bad frame, whatever is beside them."""
        link.limiter.spend("record_updates", 1 + len(records) + len(errors))
        if self.routing.on_records(link.id, records, now):
            self.delivery.on_contested(now)
        if errors:
            raise WireError(f"{len(errors)} of {len(records) + len(errors)} records: {errors[0]}")

    # -- inside: opening and closing links -----------------------------------------------------------------------

    def _on_hello(self, link: Link, hello: wire.Hello, now: float) -> None:
        if link.state is State.OPENING and not self._admissions.has(now):
            raise RateExceeded("too many links are admitted; the other end greets again")
        verdict = self.handshake.on_hello(link, hello, now)
        if verdict.refusal is not None:
            self._refuse(link, verdict.refusal, now)
        elif verdict.admitted:
            self._establish(link, now)
        for rival in verdict.rivals:
            self.keepalive.send(rival, now)

    def _establish(self, link: Link, now: float) -> None:
        if not link.dialled:
            self.handshake.greet(link, now, answers=link.session)
        self._admissions.spend(1)
        self.links.establish(link, now)
        self.forwarding.emit(Report("link_up", link.node, link.id, "leaf" if link.leaf else ""))
        if self.leaf:
            if self.forwarding.uplink is None:
                self.forwarding.attach(link)
                self.delivery.on_attached(None, now)
            self.keepalive.send(link, now)
        elif link.leaf:
            self.keepalive.send(link, now)
            self.delivery.on_attached(Address(f"{link.node}@{self.node}"), now)
        else:
            self.handshake.ask_newcomer(link)
            self.routing.link_up(link.id, link.node, link.routing_cost, now)
            self._flush(now)
            self.keepalive.send(link, now)

    def _measure(self, link: Link, sample: float, now: float) -> None:
        """Take in a round trip. Routes and record follow: at the first one at once, later when it is time."""
        first = link.rtt is None
        moved = link.measure(sample)
        if self.leaf or link.leaf:
            return
        if first:
            self.routing.link_measured(link.id, link.routing_cost, now)
        elif moved:
            self.routing.cost_moved(link.id, now)

    def _restart(self, link: Link, now: float) -> None:
        """The other end does not know us on this connection (any more): open it again as a new link would be."""
        if link.state is State.UP:
            self.forwarding.emit(HangUp(link.id, "the other end knows us no more", 0.0))
            self._lose(link.id, "the other end knows us no more", now)
        else:
            self.handshake.greet(link, now)

    def _refuse(self, link: Link, refuse: wire.Refuse, now: float) -> None:
        self.handshake.refuse(link, refuse)
        if refuse.reason in TAKEN and not link.leaf:
            node = link.node or self.node
            self.routing.refuse_duplicate(node, link.incarnation, link.started, link.where, now)
        self._lose(link.id, f"refused: {refuse.text}", now)

    def _lose(self, id: LinkId, reason: str, now: float) -> None:
        link = self.links.close(id)
        if link is None:
            return
        waiting = self.forwarding.queues.pop(id)
        if link.state is State.UP:
            self.forwarding.emit(Report("link_lost", link.node, id, reason))
            self._detach(link, now)
        elif link.state is State.OPENING and link.dialled and not link.refused:
            self.forwarding.emit(Report("link_not_greeted", None, id, reason, text=link.where))
        self.delivery.link_down(id, now)
        self.forwarding.reroute(waiting, now)

    def _detach(self, link: Link, now: float) -> None:
        if self.leaf:
            if self.forwarding.uplink is link:
                self._rehome(now)
        elif link.leaf:
            if not self.links.to(link.node):
                self.delivery.on_detached(Address(f"{link.node}@{self.node}"), now)
        else:
            self.routing.link_down(link.id, now)
            self._select(now)
        self._admit_quarantined(now)

    def _rehome(self, now: float) -> None:
        """This leaf hangs on another of its neighbours from now on, one that is not suspect if there is any."""
        self.forwarding.attach(min(self.links.up(), key=lambda link: link.suspect, default=None))
        self.delivery.on_detached(None, now)
        if self.forwarding.uplink is not None:
            self.delivery.on_attached(None, now)

    def _admit_quarantined(self, now: float) -> None:
        while (link := self.handshake.released()) is not None:
            self._establish(link, now)

    def _strike(self, link: Link, error: WireError, now: float) -> None:
        self.forwarding.emit(Report("frame_dropped", link.node or None, link.id, f"{error.reason}: {error}"))
        link.strikes += 1
        if link.strikes >= MAX_STRIKES:
            self.forwarding.emit(HangUp(link.id, f"{MAX_STRIKES} bad frames in a row", REDIAL_REFUSED))
            self._lose(link.id, f"{MAX_STRIKES} bad frames in a row: {error}", now)

    def _trust(self, link: Link) -> None:
        """A suspect link is heard again; it may have been lost in the same breath."""
        if self.links.get(link.id) is link:
            self.links.trust(link)
            self.routing.set_cost(link.id, link.routing_cost)

    # -- inside: the end of a stimulus ---------------------------------------------------------------------------

    def _emit(self, report: Report) -> None:
        self.forwarding.emit(report)

    def _select(self, now: float) -> None:
        """Select routes, and let the exchanges follow the changes."""
        for change in self.routing.select(now):
            incarnation = change.after.incarnation if change.after is not None else None
            self.delivery.on_route(change.destination, incarnation, now)
            if self.links.quarantined():
                self._admit_quarantined(now)

    def _flush(self, now: float) -> None:
        """Send what is due of routes, seqno requests and records."""
        for link, frames in self.routing.flush(now):
            self.forwarding.enqueue(link, frames)

    def _done(self, now: float) -> list[Effect]:
        """Bring the stimulus to its end: choose routes, loop what this node sent to itself, hand out the effects."""
        if self.routing.has_work:
            if self.routing.is_urgent:
                self._select(now)
                self._flush(now)
            self.routing.report_refused()
        while self.forwarding.looped:
            looped, self.forwarding.looped = self.forwarding.looped, []
            for frames in looped:
                self._arrive(wire.decode_route(frames[0]), frames, now, None)
        return self.forwarding.take()
