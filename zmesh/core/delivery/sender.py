"""The sending half of all exchanges: when chunks are sent, retransmitted, and probed for.

A stream sends as much as its windows allow and as its link keeps up with, BURST chunks at a time, or BURST_BYTES; one
whose link lags, or whose path is full, waits for its turn among the others. Chunks in flight are covered by the
retransmission timer of their path (`path`); a stream has its own only while its chunks get no ack although others
make progress, or while the receiver's limit holds it back. Exchanges with nothing in flight are swept every
PROBE_INTERVAL seconds: a probe is an ack that asks for one, and shows whether the peer still knows the exchange.

Every chunk names the incarnation of the peer that it is for. A node learns it from its route. A leaf, which has no
routes, discovers it: it sends a probe before the first chunk, and every LEAF_PROBE_INTERVAL seconds to see whether the
peer has restarted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from zmesh.core import wire
from zmesh.core.delivery.congestion import CHUNK, SMALL
from zmesh.core.delivery.exchange import Exchange
from zmesh.core.delivery.flow_control import CHUNK_OVERHEAD
from zmesh.core.delivery.host_index import HostIndex
from zmesh.core.delivery.outbound import OutboundChunk
from zmesh.core.delivery.peers import Peer, Peers
from zmesh.core.effects import Pull, StreamOver
from zmesh.core.forwarding import Forwarding
from zmesh.core.message import Address, Eof, LinkId, ReplyHeader, RequestHeader, Stream
from zmesh.core.timers import Alarm, Timers
from zmesh.core.wire import ACKS, NO_EXTENSIONS, AckItem, Kind

_CHUNK = Kind.CHUNK  # a look-up in an enum costs as much as a call

BURST = 16
BURST_BYTES = BURST * CHUNK
"""Credit after which a burst ends, though it has fewer chunks."""

PROBE_INTERVAL = 15.0
LEAF_PROBE_INTERVAL = 1.0


class Sender:
    """The outbound streams of a node; `probe_interval`: seconds between two sweeps."""

    def __init__(
        self, forwarding: Forwarding, peers: Peers, alarm: Alarm, probe_interval: float = PROBE_INTERVAL
    ) -> None:
        self._probe_interval = probe_interval
        self._forwarding = forwarding
        self._peers = peers
        self._alarm = alarm
        self._sweep_at = math.inf
        self._blocked: dict[LinkId, dict[Stream, Exchange]] = {}
        self.exchanges = HostIndex()
        """All that are open, those of which nothing is to be sent too."""
        self.timers: Timers[Stream] = Timers(alarm)
        """The streams that wait for something else than the retransmission timer of their path."""
        self._paths: Timers[Peer] = Timers(alarm)
        self.waiting_bytes = 0
        """Bytes of payload of this node's requests that are unsent or unacknowledged."""
        self.waiting_streams = 0
        """Streams with something to send of which nothing was sent yet."""

    # -- which exchanges there are -------------------------------------------------------------------------------

    def add(self, exchange: Exchange, now: float) -> None:
        """An exchange has begun; the next sweep is at most `probe_interval` seconds away."""
        self.exchanges.add(exchange)
        if self._sweep_at == math.inf:
            self._sweep_at = now + self._probe_interval
            self._alarm.at(self._sweep_at)

    def remove(self, exchange: Exchange, now: float) -> None:
        """An exchange is over: send no more of it."""
        outbound, request = exchange.outbound, exchange.is_client
        if outbound.unsent or not outbound.complete:
            self.drop_unsent(exchange)
        if request:
            self.waiting_bytes -= outbound.unsent_bytes + outbound.unacked_bytes
        self.timers.cancel(exchange.outbound_id)
        if self._blocked:
            for waiting in self._blocked.values():
                waiting.pop(exchange.outbound_id, None)
        self.exchanges.remove(exchange)
        path = exchange.peer.path
        path.remove(exchange)
        if len(outbound.unacked) != len(outbound.lost):
            if request and exchange.inbound.expected:  # a reply implies that it has arrived
                path.congestion.on_delivered(outbound.in_flight, None, now)
                if path.retries:
                    self._on_progress(exchange, now)
            outbound.abandon()
        if path.is_awaited:
            self.serve(exchange.peer, now)
        self._peers.close_exchange(exchange.peer, now)

    def check(self) -> None:
        """Raise AssertionError if something is in flight that no timer retransmits, or is counted wrongly."""
        exchanges = self.exchanges.with_address(None)
        for exchange in exchanges:
            exchange.outbound.check()
            exchange.check()
            if exchange.outbound.unacked and not (self._is_timed(exchange) or exchange.peer.path.is_waiting(exchange)):
                raise AssertionError("chunks in flight without a retransmission timer")
        for peer in {exchange.peer for exchange in exchanges if exchange.peer.path.is_awaited}:
            of_peer = [exchange for exchange in exchanges if exchange.peer is peer]
            if not any(self._is_timed(exchange) for exchange in of_peer):
                raise AssertionError("streams that wait for a path on which nothing is in flight")
        if exchanges and self.next_deadline() is None:
            raise AssertionError("exchanges that no timer wakes")
        requests = [exchange.outbound for exchange in exchanges if exchange.is_client]
        if sum(outbound.kept_bytes for outbound in requests) != self.waiting_bytes:
            raise AssertionError("the count of waiting bytes is not that of the streams")
        unsent = sum(bool(exchange.outbound.unsent) and not exchange.outbound.next for exchange in exchanges)
        if unsent != self.waiting_streams:
            raise AssertionError("the count of waiting streams is not that of the streams")

    def _is_timed(self, exchange: Exchange) -> bool:
        """Whether a timer will call the exchange's `on_timer`."""
        return exchange.outbound_id in self.timers or exchange.peer.path.is_timed(exchange)

    # -- the sweep -----------------------------------------------------------------------------------------------

    def sweep_due(self, now: float) -> bool:
        """Whether it is time for a sweep."""
        return now >= self._sweep_at

    def sweep(self, now: float) -> None:
        """Probe for each exchange that has nothing in flight."""
        exchanges = self.exchanges.with_address(None)
        probed: dict[Address, Peer] = {}
        for exchange in exchanges:
            if not self._is_timed(exchange):
                self.probe(exchange, flush=False)
                probed[exchange.address] = exchange.peer
        for peer in probed.values():
            self._peers.flush(peer)
        self._sweep_at = now + self._probe_interval if exchanges else math.inf

    def next_deadline(self) -> float | None:
        """When a timer or the sweep is due."""
        deadlines = (self.timers.next_deadline(), self._paths.next_deadline(), self._sweep_at)
        soonest = min(deadline for deadline in deadlines if deadline is not None)
        return soonest if soonest < math.inf else None

    def expire(self, now: float, most: int) -> list[Stream]:
        """The streams whose timer, or that of their path, has expired; the first `most` of them."""
        expired = self.timers.expire(now, most)
        while len(expired) < most and (due := self._paths.expire(now, 1)):
            path = due[0].path
            expired += [exchange.outbound_id for exchange in path.expire(now, most - len(expired))]
            deadline = path.deadline()
            if deadline is not None:
                self._paths.set(due[0], max(now, deadline))
        return expired

    # -- what is sent --------------------------------------------------------------------------------------------

    def push(
        self,
        exchange: Exchange,
        header: RequestHeader | ReplyHeader | None,
        body: bytes,
        *,
        last: bool,
        eof: Eof | None,
        complete: bool,
    ) -> None:
        """Append to the exchange's outbound stream; `pump` sends it."""
        outbound = exchange.outbound
        if not outbound.unsent and not outbound.next:
            self.waiting_streams += 1
        outbound.push(header, body, last=last, eof=eof, complete=complete)
        if exchange.is_client:
            self.waiting_bytes += len(body)
        else:
            exchange.update_quota()
        if complete and outbound.pull_pending:
            outbound.pull_pending = False
            self._forwarding.emit(StreamOver(exchange.outbound_id, exchange.handle))

    def send_only(
        self,
        exchange: Exchange,
        header: RequestHeader | ReplyHeader | None,
        body: bytes,
        now: float,
        *,
        last: bool,
        eof: Eof | None,
    ) -> bool:
        """Send the only chunk of a stream at once, as `push` and `pump` would; False if anything holds it back."""
        outbound, path = exchange.outbound, exchange.peer.path
        if outbound.next or outbound.unsent or len(body) > SMALL - CHUNK_OVERHEAD or path.is_awaited:
            return False
        hop = self._forwarding.next_hop(exchange.address)
        if hop is None or not path.congestion.fits(SMALL):
            return False
        link, incarnation, lagging = hop
        if lagging or not (exchange.peer_incarnation or incarnation):
            return False
        if not exchange.peer_incarnation:
            exchange.set_incarnation(incarnation)
        exchange.link = link
        chunk = outbound.send_only(header, body, now, last=last, eof=eof)
        if exchange.is_client:
            self.waiting_bytes += len(body)
        else:
            exchange.update_quota()
        self._send(exchange, chunk, link, now)
        self._restart_timer(exchange, now)
        return True

    def pump(self, exchange: Exchange, now: float) -> bool:
        """Send what the windows and the link allow; False if there is something to send and no route."""
        outbound, path = exchange.outbound, exchange.peer.path
        if not outbound.has_pending:
            return True
        if path.is_awaited:
            credit = outbound.next_credit()
            if path.is_behind(credit) and not outbound.is_flow_blocked:
                path.wait(exchange, credit)
                return self._forwarding.next_hop(exchange.address) is not None
            return self._transmit(exchange, 1, now)
        return self._transmit(exchange, BURST, now)

    def serve(self, peer: Peer, now: float) -> None:
        """Let the streams that wait for the window of a path send, a chunk each in turn."""
        path = peer.path
        while path.is_awaited and (exchange := path.next_turn()) is not None:
            if not self._transmit(exchange, 1, now):
                self._set_timer(exchange, now, waits=False)

    def _transmit(self, exchange: Exchange, most: int, now: float) -> bool:
        """Send up to `most` chunks, and see to it that the stream goes on; False without a route."""
        outbound, path = exchange.outbound, exchange.peer.path
        hop = self._forwarding.next_hop(exchange.address)
        if hop is None:
            return not outbound.has_pending
        exchange.link = hop.link
        if not exchange.peer_incarnation:
            incarnation = hop.incarnation or exchange.peer.target_incarnation
            if not incarnation:
                self._peers.discover(exchange.peer, exchange.outbound_id)
                self.timers.set(exchange.outbound_id, now + path.rtt.timeout(outbound.retries))
                return True
            exchange.set_incarnation(incarnation)
        sent = sent_bytes = 0
        while not hop.lagging and sent < most and sent_bytes < BURST_BYTES:
            chunk = outbound.next_chunk(now)
            if chunk is None:
                break
            if chunk.transmissions == 1 and not chunk.sequence:
                self.waiting_streams -= 1
            self._send(exchange, chunk, hop.link, now)
            sent += 1
            sent_bytes += chunk.credit
            if not outbound.has_pending:
                break
            hop = self._forwarding.next_hop(exchange.address) or hop
        waits = False
        if not outbound.has_pending:
            if not path.is_awaited:
                path.congestion.on_idle()
        elif hop.lagging or sent == BURST or sent_bytes >= BURST_BYTES:
            self._blocked.setdefault(hop.link, {})[exchange.outbound_id] = exchange
        elif not outbound.is_flow_blocked:
            path.wait(exchange, outbound.next_credit())
            waits = True
        self._set_timer(exchange, now, waits=waits)
        self._pull(exchange)
        return True

    def _set_timer(self, exchange: Exchange, now: float, *, waits: bool) -> None:
        """Start the timer of a stream with chunks in flight, or one that is blocked, unless it runs."""
        outbound, path = exchange.outbound, exchange.peer.path
        if outbound.is_in_flight and outbound.retries <= path.retries:
            if not path.is_timed(exchange):
                self._restart_timer(exchange, now)
        elif outbound.is_in_flight or not waits:
            self.timers.set_sooner(exchange.outbound_id, now + path.rtt.timeout(outbound.retries))

    def _restart_timer(self, exchange: Exchange, now: float) -> None:
        peer = exchange.peer
        peer.path.restart_timer(exchange, now)
        if peer not in self._paths:
            self._paths.set(peer, now + peer.path.rtt.timeout(peer.path.retries))

    def wake_after(self, exchange: Exchange, seconds: float, now: float) -> None:
        """Call the exchange's `on_timer` by then, and send or retransmit nothing until that."""
        exchange.peer.path.remove(exchange)
        self.timers.set(exchange.outbound_id, now + seconds)
        self.serve(exchange.peer, now)

    def room(self, exchange: Exchange) -> int:
        """How many bytes of payload the exchange takes now; of 0 there will be a Pull, or a StreamOver.

        A client whose quota is nearly full is replied to one chunk at a time: the next when the last is acknowledged.
        """
        outbound = exchange.outbound
        room = outbound.room()
        if room and not exchange.is_client and exchange.peer.quota.is_nearly_full():
            room = 0 if outbound.kept_bytes else min(room, CHUNK)
        outbound.pull_pending = room == 0 and not outbound.complete
        return room

    def _pull(self, exchange: Exchange) -> None:
        outbound = exchange.outbound
        if outbound.pull_pending and outbound.buffered <= outbound.buffer_bytes // 2:
            outbound.pull_pending = False
            self._forwarding.emit(Pull(exchange.outbound_id, exchange.handle))

    def resume(self, exchange: Exchange, now: float) -> bool:
        """There is a route again, or another one: go on, and probe after a loss. False as for `pump`."""
        was_lost = exchange.unreachable_since is not None
        exchange.find_route()
        exchange.outbound.on_path_change()
        sent = self.pump(exchange, now)
        self.serve(exchange.peer, now)
        if was_lost and exchange.peer_incarnation and not exchange.outbound.unacked:
            self.probe(exchange)
        return sent

    def restart_discovery(self, exchange: Exchange, now: float) -> bool:
        """The incarnation that the request was for has ended without receiving any of it: send it to the next one.

        False if none is known.
        """
        former = exchange.peer_incarnation
        exchange.set_incarnation(0)
        if exchange.peer.target_incarnation == former:
            exchange.peer.target_incarnation = 0
        exchange.outbound.on_path_change()
        hop = self._forwarding.next_hop(exchange.address)
        return hop is not None and hop.incarnation != former and self.pump(exchange, now)

    def on_last_ack(self, exchange: Exchange, now: float) -> None:
        """The only chunk in flight of a stream that is complete was acknowledged; `remove` follows.

        That is how most exchanges end, and takes a third of the calls that `on_ack` does.
        """
        outbound, path = exchange.outbound, exchange.peer.path
        _, chunk = outbound.unacked.popitem()
        outbound.unacked_bytes = outbound.in_flight = 0
        congestion = path.congestion
        congestion.leave(chunk.credit)
        is_sample = chunk.transmissions == 1
        congestion.on_delivered(chunk.credit, chunk if is_sample else None, now)
        if path.retries:
            self._on_progress(exchange, now)
        if is_sample:
            path.rtt.update(now - chunk.sent_at)

    def on_ack(self, exchange: Exchange, item: AckItem, now: float) -> None:
        """Take in an acknowledgement of the exchange's outbound stream."""
        outbound, path = exchange.outbound, exchange.peer.path
        before = outbound.unacked_bytes
        sample = outbound.acknowledge(item.next, item.limit, now)
        if outbound.unacked_bytes != before:
            if exchange.is_client:
                self.waiting_bytes += outbound.unacked_bytes - before
            else:
                exchange.update_quota()
        self._pull(exchange)
        if sample is not None:
            if path.retries:
                self._on_progress(exchange, now)
            if sample >= 0:
                path.rtt.update(sample)
            if outbound.unacked:
                self.timers.cancel(exchange.outbound_id)
                self._restart_timer(exchange, now)
            else:
                path.stop_timer(exchange)
        if not outbound.unacked and not outbound.unsent:
            self.timers.cancel(exchange.outbound_id)

    def on_returned(self, exchange: Exchange, sequence: int, now: float, *, refused: bool) -> None:
        """A copy of a chunk came back; one that a full queue refused is retransmitted when others have arrived."""
        outbound = exchange.outbound
        outbound.on_returned(sequence, now, refused=refused)
        if outbound.lost and exchange.peer.path.is_timed(exchange):
            exchange.peer.path.wait(exchange, outbound.next_credit())

    def _on_progress(self, exchange: Exchange, now: float) -> None:
        """Something has arrived at a peer after timeouts: the timer of its path waits no longer than usual."""
        peer = exchange.peer
        peer.path.retries = 0
        deadline = peer.path.deadline()
        if deadline is not None:
            self._paths.set_sooner(peer, max(now, deadline))

    def on_timer(self, exchange: Exchange, now: float) -> None:
        """The exchange's timer has expired: retransmit what was not acknowledged, or probe.

        A probe is for a closed window, since the ack that opens it may be lost, and for a route that was lost.
        """
        outbound, path = exchange.outbound, exchange.peer.path
        if path.is_waiting(exchange) and not outbound.is_in_flight:
            self.serve(exchange.peer, now)
            return
        if path.is_timed(exchange):
            return
        due = outbound.retransmit_at(path.rtt.timeout(outbound.retries))
        if due is not None and due > now:
            self.timers.set_sooner(exchange.outbound_id, due)
            return
        if due is not None:
            outbound.on_timeout(now)
        elif exchange.peer_incarnation or not outbound.has_pending:
            self.probe(exchange)
            if not outbound.has_pending:
                self.serve(exchange.peer, now)
                return
        outbound.retries += 1
        self.pump(exchange, now)
        if not (path.is_timed(exchange) or path.is_waiting(exchange)):
            self.timers.set_sooner(exchange.outbound_id, now + path.rtt.timeout(outbound.retries))
        self.serve(exchange.peer, now)

    def probe(self, exchange: Exchange, *, flush: bool = True) -> None:
        """Ask the peer for an ack of the outbound stream; it answers that the exchange is over if it is to the peer."""
        outbound = exchange.outbound
        if exchange.is_client and (0 in outbound.unacked or (outbound.unsent and not outbound.next)):
            return  # a probe that overtakes the first chunk would be answered as if the request were over
        self._peers.probe(exchange.peer, exchange.inbound_id, exchange.inbound, flush=flush)

    def on_link_ready(self, link: LinkId, lagging: Callable[[], bool], now: float) -> None:
        """The queue of a link has drained: the streams blocked on it go on, a burst each in turn."""
        turn = self._blocked.pop(link, {})
        while turn and not lagging():
            exchange = turn.pop(next(iter(turn)))
            self.pump(exchange, now)
        if turn:
            self._blocked[link] = {**turn, **self._blocked.get(link, {})}

    def link_down(self, link: LinkId, now: float) -> None:
        """A link is gone: the streams blocked on it look for another."""
        for exchange in self._blocked.pop(link, {}).values():
            self.pump(exchange, now)

    def drop_unsent(self, exchange: Exchange) -> None:
        """Forget what was not sent yet, and take no more; what is in flight stays."""
        outbound = exchange.outbound
        if outbound.unsent and not outbound.next:
            self.waiting_streams -= 1
        if exchange.is_client:
            self.waiting_bytes -= outbound.unsent_bytes
        outbound.unsent_bytes = 0
        outbound.unsent.clear()
        outbound.complete = True
        if outbound.in_message or outbound.pull_pending:
            outbound.in_message = outbound.pull_pending = False
            self._forwarding.emit(StreamOver(exchange.outbound_id, exchange.handle))

    def _send(self, exchange: Exchange, chunk: OutboundChunk, link: LinkId, now: float) -> None:
        message_id, request = exchange.message_id, exchange.is_client
        sequence, peer = chunk.sequence, exchange.peer
        acks = self._peers.take_acks(peer, now) if request and not sequence and peer.acks else b""
        head = wire.encode_chunk(
            message_id,
            request,
            sequence,
            chunk.flags,
            exchange.request_number,
            next(iter(peer.unacked_requests), exchange.request_number) if request else 0,
            self._forwarding.incarnation,
            exchange.peer_incarnation,
            chunk.header,
            chunk.eof,
            {ACKS: acks} if acks else NO_EXTENSIONS,
        )
        self._forwarding.originate(exchange.address, _CHUNK, head, chunk.body, link)
