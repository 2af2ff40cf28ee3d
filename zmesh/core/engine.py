"""One node as a state machine: a stimulus in, a list of effects out.

The stimuli are `link_up`, `link_down`, `link_full`, `link_ready`, `dial_failed`, `dial_succeeded` and `receive` from
the transport, `send`, `feed`, `reply`, `cancel`, `release_credit` and `describe` from the program, `tick` and `resume`
from the clock and `close` at the end. Each takes the time as `now` and returns effects, in order.
`next_deadline` is when `tick` is due. The engine keeps no clock and does no I/O; whatever a neighbour sends, no
stimulus raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from zmesh.core import wire
from zmesh.core.adjacency import Adjacency
from zmesh.core.credentials import Credentials, LeafKey
from zmesh.core.delivery import Delivery
from zmesh.core.effects import Effect, Report, transmit
from zmesh.core.forwarding import DRAIN, Forwarding
from zmesh.core.grants import Grants
from zmesh.core.limits import DEFAULT_COST, DEFAULT_LIMITS, Limits
from zmesh.core.message import Address, Eof, LinkId, MessageId, NodeId, ReplyHeader, RequestHeader, Stream
from zmesh.core.neighbours import Authentication, Link, Links, Neighbours, RateExceeded, State
from zmesh.core.routing import Routing
from zmesh.core.routing_frames import KINDS as ROUTING_KINDS
from zmesh.core.routing_frames import RoutingFrames
from zmesh.core.timers import Alarm, Alarms, WallClock
from zmesh.core.view import View
from zmesh.core.wire import FIRST_ROUTED, Frames, Packet, WireError

_UP = State.UP  # a look-up in an enum costs as much as a call
_BATCH = int(wire.Kind.BATCH)
_KEY_EXCHANGE = int(wire.Kind.KEY_EXCHANGE)


class Engine(View):
    """A node of the mesh. `incarnation`: 64 random bits of this start; `epoch`: the seconds since 1970 at `now` 0;
    `serial`: where its counters start, higher at each start if the machine's clock allows (milliseconds since 1970).
    `credentials`: its identity, and what it believes of others; with None it is unauthenticated, as its neighbours.

    `leaf_key`: that of a leaf without credentials, for which its node may give it a grant.

    `enrolling`: a leaf that requests a certificate, and so links to a node whose own it may be unable to verify.

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
        credentials: Credentials | None = None,
        leaf_key: LeafKey | None = None,
        enrolling: bool = False,
    ) -> None:
        self.node = node
        self.incarnation = incarnation
        self.leaf = leaf
        self.credentials = credentials
        self.alarm = Alarm()
        self._neighbours_alarm, self._routing_alarm, self._delivery_alarm = (Alarm(self.alarm) for _ in range(3))
        clock = self._clock = WallClock(epoch)
        authentication = Authentication(node, incarnation, credentials, clock, leaf_key, leaf=leaf, enrolling=enrolling)
        links = Links(heartbeat, self._neighbours_alarm, limits)
        self.routing = Routing(
            node,
            incarnation,
            serial,
            links,
            self._emit,
            self._routing_alarm,
            now=now,
            epoch=epoch,
            leaf=leaf,
            limits=limits,
            credentials=credentials,
            clock=clock,
        )
        self.forwarding = Forwarding(node, incarnation, self.routing, leaf=leaf, limits=limits)
        if credentials is not None:
            self.forwarding.secure(credentials, clock, now)
        self.neighbours = Neighbours(
            node,
            incarnation,
            links,
            self.routing,
            self.forwarding,
            authentication,
            now=now,
            leaf=leaf,
            limits=limits,
        )
        self._open_link: Callable[[LinkId], Link | None] = links.get
        self.fib, self.batches = self.forwarding.fib, self.forwarding.batches
        self.delivery = Delivery(self.forwarding, route_timeout, self._delivery_alarm, leaf=leaf, limits=limits)
        grants = self._grants = Grants(self.forwarding, credentials, leaf_key, clock, limits, self.delivery.knows)
        self._adjacency = Adjacency(node, self.neighbours, self.routing, self.forwarding, self.delivery, grants)
        self._routing_frames = RoutingFrames(self.routing, self.forwarding, self.delivery, self._adjacency)
        self._alarms = Alarms(
            self.alarm,
            (self._neighbours_alarm, self.neighbours),
            (self._routing_alarm, self.routing),
            (self._delivery_alarm, self.delivery),
        )
        self._closed = False

    # -- stimuli: the transport ----------------------------------------------------------------------------------

    def link_up(
        self,
        link: LinkId,
        now: float,
        *,
        dialled: bool,
        cost: int = DEFAULT_COST,
        where: str = "",
        channel: bytes = b"",
        local: bool = False,
    ) -> list[Effect]:
        """Open a link on a connection. The end that dialled sends the first HELLO; the one that listens waits for it.

        `where`: the address of the other end, for logs. `channel`: both CURVE public keys, the dialler's first, or b"".
        `local`: only this node's user can open such a connection; a leaf needs no certificate on it.
        """
        if self.neighbours.get(link) is None and not self._closed:
            self.neighbours.open(link, now, dialled=dialled, cost=cost, where=where, channel=channel, local=local)
        return self._done(now)

    def link_down(self, link: LinkId, now: float, reason: str) -> list[Effect]:
        """End the link of a connection that was closed."""
        known = self.neighbours.get(link)
        if known is not None:
            self._adjacency.close(known, reason, now)
        return self._done(now)

    def link_full(self, link: LinkId, frames: Frames, now: float) -> list[Effect]:
        """Keep frames that the transport could not take, until `link_ready`."""
        self.forwarding.on_full(link, frames)
        return self._finish(now)

    def link_ready(self, link: LinkId, now: float, most: int = DRAIN) -> list[Effect]:
        """Send up to `most` of the frames that wait for a link that takes frames again; call it until it sends none.

        Where only sending shows whether the link takes frames, begin with `most` 1.
        """
        if self.forwarding.drain(link, most):
            self.delivery.on_link_ready(link, lambda: self.forwarding.is_lagging(link), now)
        return self._finish(now)

    def dial_failed(self, url: str, reason: str, now: float) -> list[Effect]:
        """Note that a peer could not be dialled, or has refused the link; errors about unreachable nodes list it."""
        self.forwarding.hints.dials.fail(url, reason, now)
        return self._done(now)

    def dial_succeeded(self, url: str, now: float) -> list[Effect]:
        """Note that the link to a dialled peer is up."""
        self.forwarding.hints.dials.succeed(url)
        return self._done(now)

    def receive(self, link: LinkId, frames: tuple[bytes, ...] | list[bytes], now: float) -> list[Effect]:
        """Process a frame that has arrived on a link. It raises nothing, whatever the frame contains."""
        known = self._open_link(link)
        if known is None:
            self.forwarding.emit(Report("frame_dropped", self.forwarding.neighbour(link), link, "link_gone"))
            return self._finish(now)
        return self._finish(now) if self._take_in(known, frames, now) else self._done(now)

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

        `timeout`: seconds for all of it, None: no limit. `route_timeout`: seconds that it may be without a route to the
        server, None: the default of the node. `handle` is the shell's own object for the exchange; Delivers carry it.
        """
        self.delivery.client.open(
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
        return self._finish(now)

    def attach(self, message_id: MessageId, handle: object) -> None:
        """Have each Deliver and Abort of a request that was received here carry `handle` from now on."""
        self.delivery.attach(message_id, handle)

    def feed(self, stream: Stream, body: bytes, now: float, *, last: bool) -> list[Effect]:
        """Append payload to the current message of a stream; at most `room(stream)` bytes."""
        self.delivery.feed(stream, body, last=last, now=now)
        return self._finish(now)

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
        """Send a reply to a request, and with `eof` end the exchange; ignored if the client is gone."""
        self.delivery.server.reply(message_id, header, body, last=last, eof=eof, now=now)
        return self._finish(now)

    def cancel(self, message_id: MessageId, now: float, reset_code: int = 0) -> list[Effect]:
        """Cancel a request of this node, or reset it with a code for the server's program.

        It ends with an Eof like any other.
        """
        self.delivery.cancel(message_id, now, reset_code)
        return self._finish(now)

    def reset(self, message_id: MessageId, code: int, error: str, now: float) -> list[Effect]:
        """End a request that was received here, and drop the replies that were not sent; the client's Eof has `code`.

        Ignored if its end was given already.
        """
        self.delivery.server.reset(message_id, code, error, now)
        return self._finish(now)

    def report_delay(self, message_id: MessageId, text: str, now: float) -> list[Effect]:
        """Report to the client of a request received here what its work waits for, as `text`."""
        self.delivery.server.report_delay(message_id, text)
        return self._finish(now)

    def stop_sending(self, message_id: MessageId, now: float) -> list[Effect]:
        """Have the client of a request received here send no more of it; ignored if it is complete."""
        self.delivery.server.stop_sending(message_id, now)
        return self._finish(now)

    def release_credit(self, stream: Stream, credit: int, now: float) -> list[Effect]:
        """Release the credit of a delivered chunk that the reader of the stream has read."""
        self.delivery.release_credit(stream, credit, now)
        return self._finish(now)

    def describe(
        self, capabilities: Iterable[str], now: float, tags: tuple[str, ...] = (), software: str = ""
    ) -> list[Effect]:
        """Advertise these directives, tags of this node's own, and the version of its software to all nodes."""
        self.routing.describe(capabilities, now, tags, software)
        return self._done(now)

    def trust_changed(self, now: float) -> list[Effect]:
        """Apply changed trust: links to nodes that the credentials no longer trust end."""
        self._adjacency.check_trust(now, in_full=True)
        return self._done(now)

    def clock_set(self, epoch: float, now: float) -> list[Effect]:
        """Follow the machine's clock, which was set: `now` 0 was `epoch` seconds after 1970."""
        ahead, self._clock.epoch = epoch - self._clock.epoch, epoch
        self._adjacency.clock_set(ahead, now)
        return self._done(now)

    def hang_up(self, link: LinkId, reason: str, now: float) -> list[Effect]:
        """Close a link that is not wanted any more, after a GOODBYE with the reason; harmless if it is closed."""
        known = self.neighbours.get(link)
        if known is not None:
            self.neighbours.dismiss(known, reason)
            self._adjacency.close(known, f"we leave: {reason}", now)
        return self._done(now)

    def set_limits(self, limits: Limits | None, route_timeout: float) -> None:
        """Apply other limits on requests of other nodes (None: the same), and another time that a request waits for a
        route (seconds).

        Exchanges that are open keep theirs.
        """
        self.delivery.set_limits(limits, route_timeout)

    def probe(self, link: LinkId, now: float) -> list[Effect]:
        """Send something on a link whose connection may be gone, so that the transport finds out."""
        known = self.neighbours.get(link)
        if known is not None:
            self.neighbours.probe(known, now)
        return self._done(now)

    def close(self, now: float, reason: str = "leaving") -> list[Effect]:
        """Flush acknowledgements and send a GOODBYE on all links. No stimulus may follow but those of closing links."""
        self._closed = True
        self.delivery.close()
        self.neighbours.say_goodbye(reason)
        return self._done(now)

    # -- time ----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Effect]:
        """Do the work that is due; tables whose alarm is not due are skipped."""
        if self._neighbours_alarm.soonest <= now:
            self._adjacency.tick(now)
        routing_due = self._routing_alarm.soonest <= now
        if routing_due:
            self.routing.expire(now)
            if not self.routing.is_contested:
                self.delivery.on_uncontested()
        if self._delivery_alarm.soonest <= now:
            self.delivery.tick(now)
        if routing_due and not self.routing.is_urgent:  # else it is done once, at the end of this stimulus
            self._adjacency.flush(now)
        effects = self._done(now)
        self._alarms.reset(now)
        return effects

    def resume(self, seconds: float, now: float) -> list[Effect]:
        """Disregard silence in the last `seconds`, in which the node did not read its sockets."""
        self.neighbours.forgive(seconds, now)
        return self._done(now)

    def check(self) -> None:
        """Raise AssertionError if any table contradicts itself or another; tests call this after every event."""
        self.neighbours.check()
        self.routing.check()
        self.delivery.check()
        self.forwarding.check()
        self._alarms.check()

    # -- inside: frames ------------------------------------------------------------------------------------------

    def _take_in(self, known: Link, frames: Frames | list[bytes], now: float) -> bool:
        """Process one frame; True if it has changed nothing in routes and records."""
        try:
            packet = wire.decode_packet(frames)
            is_routed = packet.kind >= FIRST_ROUTED
            if is_routed:
                self._on_routed(known, packet, frames, now)
            else:
                known.limiter.admit(packet.kind, now, is_up=known.state is _UP)
                wire.verify(frames, packet)
                if packet.kind == _BATCH:
                    return self._on_batch(known, wire.decode_batch(packet.body), now)
                self._on_link_frame(known, packet, now)
            known.strikes = 0
            known.heard = now
            if not known.suspect:
                return is_routed
            self.neighbours.on_heard_again(known)
        except RateExceeded as error:
            known.heard = now
            self.forwarding.emit(Report("frame_dropped", known.node or None, known.id, f"rate_limited: {error}"))
        except wire.ForeignVersion as error:
            self._adjacency.follow(self.neighbours.on_foreign_version(known, error, now), now)
        except WireError as error:
            self._adjacency.follow(self.neighbours.on_bad_frame(known, error), now)
        return False

    def _on_batch(self, link: Link, packets: list[Frames], now: float) -> bool:
        """Process the packets of a batch, as if each had come by itself; those that only pass through go by the FIB."""
        unchanged = True
        for frames in packets:
            if self._open_link(link.id) is not link:  # an earlier one has closed it
                break
            hop = self.fib.pass_on(link.id, frames, now)
            if hop is not None:
                self.forwarding.emit(transmit(hop))
            elif not self._take_in(link, frames, now):
                unchanged = False
        return unchanged

    def _on_routed(self, link: Link, route: Packet, frames: Frames | list[bytes], now: float) -> None:
        if link.state is not _UP:
            self.neighbours.on_early_frame(link)
            return
        if link.leaf and route.source != f"{link.node}@{self.node}":
            raise WireError("a leaf speaks for another node")
        if link.enrolling and not self.neighbours.admits_enrolling(link, route, sum(map(len, frames)), now):
            return
        forwarding = self.forwarding
        here = route.destination == forwarding.address or (self.leaf and self._is_me(route.destination))
        if here and forwarding.end_to_end is not None and not link.leaf:
            self._on_sealed(link, route, frames, now)
            return
        if here or (link.leaf and forwarding.sealing is not None and not route.sealed):
            try:
                wire.verify(frames, route)
            except WireError as error:
                forwarding.emit(Report("frame_dropped", wire.host_of(route.source), None, f"{error.reason}: {error}"))
                return
        if here:
            self._arrive(route, now, link.node)
        else:
            forwarding.forward(link.id, route, tuple(frames), now)

    def _on_sealed(self, link: Link, route: Packet, frames: Frames | list[bytes], now: float) -> None:
        """A packet for this node, which has an identity, from another node."""
        forwarding = self.forwarding
        end_to_end = forwarding.end_to_end
        assert end_to_end is not None
        if route.kind == _KEY_EXCHANGE:
            if not link.limiter.has("key_exchanges", now):
                raise RateExceeded("key_exchanges")
            link.limiter.spend("key_exchanges", 1)
            end_to_end.on_key_exchange(route, frames, now)
        elif self.leaf:
            for opened in end_to_end.unseal_at_leaf(route, frames, link.node):
                self._arrive(opened, now, link.node, route)
        else:
            found = forwarding.unseal(route, now)
            if found is not None:
                self._arrive(found, now, link.node, route)

    def _is_me(self, destination: Address) -> bool:
        """A leaf with several links has several addresses, also the one at an uplink that it was attached to before."""
        return destination.startswith(f"{self.node}@")

    def _arrive(self, route: Packet, now: float, via: NodeId | None, sealed: Packet | None = None) -> None:
        """Process a frame for this node. Errors in it are those of its source, not of the neighbour that forwards it.

        `via`: the neighbour that it came from; None: this node. `sealed`: the packet as it came, if it was sealed.
        """
        try:
            refusal = self.delivery.on_frame(route, now, via)
        except WireError as error:
            refusal = f"{error.reason}: {error}"
        if refusal == "restarted":
            self.forwarding.returned.send_unreachable(route if sealed is None else sealed, now, refusal)
        elif refusal is not None:
            self.forwarding.emit(Report("frame_dropped", wire.host_of(route.source), None, refusal))

    def _on_link_frame(self, link: Link, packet: Packet, now: float) -> None:
        if packet.kind == wire.Kind.GRANT and link.state is State.UP:
            self._grants.on_grant(link, packet, now)
        elif packet.kind not in ROUTING_KINDS or link.state is not State.UP:
            self._adjacency.follow(self.neighbours.on_frame(link, packet, now), now)
        else:
            self._routing_frames.on_frame(link, packet, now)

    # -- inside: the end of a stimulus ---------------------------------------------------------------------------

    def _emit(self, report: Report) -> None:
        self.forwarding.emit(report)

    def _finish(self, now: float) -> list[Effect]:
        """End a stimulus that changes nothing in routes and records."""
        forwarding = self.forwarding
        if forwarding.looped or forwarding.leaf_end is not None:
            return self._done(now)
        effects, forwarding.effects = forwarding.effects, []  # as `take` does, without its call
        return effects

    def _done(self, now: float) -> list[Effect]:
        """End the stimulus: select routes, deliver what this node has sent to itself, return the effects."""
        if self.routing.has_work:
            if self.routing.is_urgent:
                self._adjacency.select(now)
                self._adjacency.flush(now)
            self.routing.report_refused()
        while looped := self.forwarding.take_looped():
            for packet in looped:
                self._arrive(packet, now, None)
        if self.forwarding.leaf_end is not None:
            self.forwarding.leaf_end.send_requests(now)
        return self.forwarding.take()
