"""The state of each node that this one has exchanges with: pending acks, request numbers, the path to it.

Acks to a peer are collected for ACK_DELAY and sent together; they are sent at once only when a quarter of the window is
used up, or when something is wrong. So a small request and its reply are two frames, and the acks of both follow later
in one, or, once they have waited for PIGGYBACK_AFTER, in the first chunk of the next request: a program that awaits one
reply after the other sends no ACKs at all. With many requests under way, one ACK for all of them costs less than an ack
in each chunk, and acks that go with the next request at once would delay it: they are read before it is.
"""

from __future__ import annotations

from collections.abc import Callable

from zmesh.core import wire
from zmesh.core.delivery.inbound import InboundStream
from zmesh.core.delivery.path import Path
from zmesh.core.delivery.peer_quotas import PeerQuota, PeerQuotas
from zmesh.core.delivery.replay_window import ReplayWindow
from zmesh.core.forwarding import Forwarding
from zmesh.core.limits import DEFAULT_LIMITS, Limits
from zmesh.core.message import Address, NodeId, Stream
from zmesh.core.timers import Alarm, Timers
from zmesh.core.wire import CLOSED, MAX_ACKS, MAX_PIGGYBACKED, Kind

ACK_DELAY = 0.020
PIGGYBACK_AFTER = 0.005
FEW_EXCHANGES = 4
"""Up to so many exchanges with a peer, acks go with its requests; with more, they are better sent together."""

PEER_IDLE_TIMEOUT = 30.0
PROBE_LIMIT = 0
"""The limit in an ack that makes it a probe: the receiver answers with an ack of the other stream."""
MAX_FORMER_INCARNATIONS = 8


class TableFull(Exception):
    """A frame is from a peer that is not in the table, and the table has no room for it. `limit`: the one exceeded."""

    def __init__(self, limit: str) -> None:
        super().__init__(limit)
        self.limit = limit


class Peer:
    """One other node, or one leaf.

    `incarnation` is the one whose frames are accepted, 0 before the first frame; `target_incarnation` the one to send
    to where no route names it, 0 if it has to be discovered. `exchanges` counts those that are open. `unacked_requests`
    are the numbers of requests to the peer that it has not acknowledged, the lowest first. `acks` are the pending ones:
    a stream, whose state is read when they are sent, or what to say of it. `replay_window` has the requests of its
    incarnation, `former_windows` those of earlier ones: a late copy, or two nodes with one id that take turns, must not
    run work again.
    """

    __slots__ = (
        "acks",
        "acks_since",
        "address",
        "exchanges",
        "former_windows",
        "host",
        "incarnation",
        "last_used",
        "next_number",
        "path",
        "quota",
        "replay_window",
        "target_incarnation",
        "unacked_requests",
    )

    def __init__(self, address: Address, first_number: int, quota: PeerQuota) -> None:
        self.address = address
        self.host = wire.host_of(address)
        self.incarnation = 0
        self.target_incarnation = 0
        self.last_used = 0.0
        self.replay_window = ReplayWindow()
        self.former_windows: dict[int, ReplayWindow] = {}
        self.next_number = first_number
        self.unacked_requests: dict[int, None] = {}
        self.acks: dict[Stream, InboundStream | tuple[int, int]] = {}
        self.acks_since = 0.0
        """When the first of them was scheduled."""
        self.path = Path()
        self.exchanges = 0
        self.quota = quota

    def remembered(self) -> int:
        """How many numbers of its requests are remembered."""
        return len(self.replay_window) + sum(len(window) for window in self.former_windows.values())


class Peers:
    """The table of peers; one without exchanges is forgotten after PEER_IDLE_TIMEOUT seconds.

    A leaf that attaches to another node remains the same peer at another address; `on_moved` is called with it, its
    former address, and the time.
    """

    def __init__(
        self,
        forwarding: Forwarding,
        alarm: Alarm,
        on_moved: Callable[[Peer, Address, float], None],
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._forwarding = forwarding
        self._on_moved = on_moved
        self._leaves: dict[tuple[str, int], Peer] = {}
        self._peers: dict[Address, Peer] = {}
        self._acks: Timers[Address] = Timers(alarm)
        self._idle: Timers[Address] = Timers(alarm)
        self._highest_number = 0
        self._quotas = PeerQuotas(limits)
        self._remembered = 0
        """Request numbers that are remembered, of all peers together."""
        self._forgotten: dict[tuple[str, int], int] = {}
        """Of peers that were forgotten, by name and incarnation: the number from which on their requests are new."""

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def limits(self) -> Limits:
        """The limits on what this node keeps for others."""
        return self._quotas.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._quotas.limits = limits

    def rtt(self, address: Address) -> float | None:
        """The smoothed round-trip time to a peer in seconds; None if none is known."""
        peer = self._peers.get(address)
        return peer.path.rtt.smoothed if peer is not None else None

    # -- look-up and creation ------------------------------------------------------------------------------------

    def get_or_create(self, address: Address, now: float = 0.0, via: NodeId | None = None) -> Peer:
        """The peer at that address. The numbers of requests to a new one begin above all that were ever used.

        `via`: the neighbour whose frame named it, None if this node itself does. Raises TableFull, but not for None.
        """
        peer = self._peers.get(address)
        if peer is None:
            limit = self._quotas.peer_limit(via, now)
            if limit:
                raise TableFull(limit)
            peer = self._peers[address] = Peer(address, self._highest_number, self._quotas.admit(via, now))
        return peer

    def knows(self, name: str, incarnation: int) -> bool:
        """Whether that node, or that leaf (its id and `@`), is in the table."""
        return (name[:-1], incarnation) in self._leaves if name.endswith("@") else Address(name) in self._peers

    def identify(self, source: Address, incarnation: int, now: float, via: NodeId | None = None) -> Peer | None:
        """The peer that has sent a frame, in the table from now on; None if its incarnation is stale.

        Raises TableFull if it is new and there is no room for one more that neighbour `via` names.
        """
        peer = self._peers.get(source)
        if peer is not None and peer.incarnation == incarnation != 0:
            return peer
        if self.is_stale(source, incarnation):
            return None
        leaf = self._leaves.get(_leaf(source, incarnation))
        if peer is None and leaf is not None:
            self._move(leaf, source, now)
            return leaf
        peer = self.get_or_create(source, now, via)
        self._set_incarnation(peer, incarnation, now)
        return peer

    def is_stale(self, source: Address, incarnation: int) -> bool:
        """Whether a frame is of another incarnation of a known peer than the one that the routes name."""
        peer = self._peers.get(source)
        if peer is None or not peer.incarnation:
            return False
        hop = self._forwarding.next_hop(source)
        return hop is not None and hop.incarnation not in (0, incarnation)

    def _set_incarnation(self, peer: Peer, incarnation: int, now: float) -> None:
        """Frames of another incarnation than before are accepted; the replay window of the former one is kept."""
        leaf = _leaf(peer.address, incarnation)
        if peer.incarnation:
            peer.path.renew()
            self._leaves.pop(_leaf(peer.address, peer.incarnation), None)
            peer.former_windows[peer.incarnation] = peer.replay_window
            known = peer.former_windows.pop(incarnation, None)
            peer.replay_window = known if known is not None else self._restore_window(leaf)
            if len(peer.former_windows) > MAX_FORMER_INCARNATIONS:
                oldest = next(iter(peer.former_windows))
                window = peer.former_windows.pop(oldest)
                self._remembered -= len(window)
                self._keep_end(_leaf(peer.address, oldest), window)
        elif incarnation in peer.former_windows or leaf in self._forgotten:
            self._remembered -= len(peer.replay_window)
            known = peer.former_windows.pop(incarnation, None)  # if it named the incarnation 0 meanwhile
            peer.replay_window = known if known is not None else self._restore_window(leaf)
        peer.incarnation = peer.target_incarnation = incarnation
        if "@" in peer.address and incarnation:
            self._leaves[leaf] = peer
        if not peer.exchanges:
            peer.last_used = now
            self._idle.set_default(peer.address, now + PEER_IDLE_TIMEOUT)

    def _move(self, leaf: Peer, address: Address, now: float) -> None:
        """A leaf has attached to another node."""
        before, leaf.address = leaf.address, address
        leaf.host = wire.host_of(address)
        self._peers[address] = self._peers.pop(before)
        self._acks.cancel(before)
        self._acks.set(address, now + ACK_DELAY)
        self._idle.cancel(before)
        self._idle.set(address, now + PEER_IDLE_TIMEOUT)
        self._on_moved(leaf, before, now)

    def open_exchange(self, address: Address) -> Peer:
        """An exchange with the peer at that address begins."""
        peer = self._peers.get(address) or self.get_or_create(address)
        peer.exchanges += 1
        return peer

    def close_exchange(self, peer: Peer, now: float) -> None:
        """An exchange with a peer is over."""
        peer.exchanges -= 1
        peer.last_used = now
        if not peer.exchanges:
            self._idle.set_default(peer.address, now + PEER_IDLE_TIMEOUT)

    # -- request numbers -----------------------------------------------------------------------------------------

    def next_request_number(self, peer: Peer) -> int:
        """Allocate the number of the next request to that peer."""
        number = peer.next_number
        peer.next_number += 1
        if number >= self._highest_number:
            self._highest_number = number + 1
        peer.unacked_requests[number] = None
        return number

    def accept(self, peer: Peer, number: int, lowest_outstanding: int) -> bool:
        """Remember a request of the peer by its number; False if it was seen before."""
        if peer.replay_window.accept_next(number, lowest_outstanding):
            return True
        before = len(peer.replay_window)
        is_new = peer.replay_window.accept(number, lowest_outstanding)
        self._remembered += len(peer.replay_window) - before
        if self._remembered > self.limits.request_numbers:
            self._compact_windows()
        return is_new

    def _restore_window(self, leaf: tuple[str, int]) -> ReplayWindow:
        """The replay window of an incarnation that is new here, or was forgotten.

        A client may have been cut off for longer than PEER_IDLE_TIMEOUT, and retransmit what has run here long ago.
        """
        return ReplayWindow(self._forgotten.pop(leaf, 0))

    def _keep_end(self, leaf: tuple[str, int], window: ReplayWindow) -> None:
        """Remember of a replay window no more than its end."""
        if leaf[1] and window.end:
            self._forgotten[leaf] = window.end
            if len(self._forgotten) > self.limits.forgotten_peers:
                del self._forgotten[next(iter(self._forgotten))]

    def _compact_windows(self) -> None:
        """Compact the largest replay windows until a quarter of the limit is free."""
        for peer in sorted(self._peers.values(), key=Peer.remembered, reverse=True):
            if self._remembered <= self.limits.request_numbers * 3 // 4:
                break
            self._remembered -= peer.remembered()
            for window in (peer.replay_window, *peer.former_windows.values()):
                window.compact()

    # -- acks ----------------------------------------------------------------------------------------------------

    def schedule_ack(
        self, peer: Peer, stream: Stream, inbound: InboundStream | None, now: float, *, at_once: bool
    ) -> None:
        """Acknowledge a stream at once or after ACK_DELAY; `inbound` None: say that the exchange is not known here."""
        if not peer.acks:
            peer.acks_since = now
        peer.acks[stream] = inbound if inbound is not None else (CLOSED, 0)
        if at_once or len(peer.acks) >= MAX_ACKS:
            self.flush(peer)
        else:
            self._acks.set_default(peer.address, now + ACK_DELAY)

    def probe(self, peer: Peer, stream: Stream, inbound: InboundStream, *, flush: bool = True) -> None:
        """Acknowledge a stream and ask for an ack in turn; at once, or with `flush` of the peer."""
        peer.acks[stream] = (inbound.expected, PROBE_LIMIT)
        if flush:
            self.flush(peer)

    def discover(self, peer: Peer, stream: Stream) -> None:
        """Ask the peer for its incarnation, before anything of this request is sent."""
        peer.acks[stream] = (0, PROBE_LIMIT)
        self.flush(peer)

    def take_acks(self, peer: Peer, now: float) -> bytes:
        """The pending acks of the peer, to go with the first chunk of a request; none if they are better sent apart."""
        acks = peer.acks
        if now < peer.acks_since + PIGGYBACK_AFTER or len(acks) > MAX_PIGGYBACKED or peer.exchanges > FEW_EXCHANGES:
            return b""
        peer.acks = {}
        self._acks.cancel(peer.address)
        return wire.encode_acks(_items(acks))

    def flush(self, peer: Peer) -> None:
        """Send the pending acks of the peer; without a route they are dropped, since the peer will probe."""
        acks, peer.acks = peer.acks, {}
        if not acks or self._forwarding.next_hop(peer.address) is None:
            return
        items = _items(acks)
        for start in range(0, len(items), MAX_ACKS):
            head = (self._forwarding.incarnation, peer.target_incarnation, items[start : start + MAX_ACKS])
            self._forwarding.originate(peer.address, Kind.ACK, wire.encode_ack(*head), b"")

    def flush_all(self) -> None:
        """Send the pending acks of all peers."""
        for peer in self._peers.values():
            self.flush(peer)

    def pending_acks(self) -> int:
        """How many acks wait to be sent."""
        return sum(len(peer.acks) for peer in self._peers.values())

    # -- time ----------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `tick` has work."""
        acks, idle = self._acks.next_deadline(), self._idle.next_deadline()
        if acks is None or (idle is not None and idle < acks):
            return idle
        return acks

    def tick(self, now: float) -> None:
        """Send the acks that are due, forget idle peers."""
        for address in self._acks.expire(now):
            if address in self._peers:
                self.flush(self._peers[address])
        for address in self._idle.expire(now):
            peer = self._peers.get(address)
            if peer is None or peer.exchanges:
                continue
            if peer.last_used + PEER_IDLE_TIMEOUT > now:
                self._idle.set(address, peer.last_used + PEER_IDLE_TIMEOUT)
            else:
                self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        address = peer.address
        del self._peers[address]
        self._quotas.release(peer.quota)
        self._remembered -= peer.remembered()
        for incarnation, window in ((peer.incarnation, peer.replay_window), *peer.former_windows.items()):
            self._keep_end(_leaf(address, incarnation), window)
        self._acks.cancel(address)
        self._leaves.pop(_leaf(address, peer.incarnation), None)

    # -- reading -------------------------------------------------------------------------------------------------

    def usage(self) -> dict[str, int]:
        """The amounts that this node keeps for others, by the name of the limit."""
        node = self._quotas.node
        return {
            "services": node.requests,
            "kept_bytes": node.kept_bytes,
            "peers": node.peers,
            "request_numbers": self._remembered,
        }

    def check(self, exchanges: dict[Address, int]) -> None:
        """Raise AssertionError unless `exchanges` is how many there are with each peer."""
        if exchanges != {address: peer.exchanges for address, peer in self._peers.items() if peer.exchanges}:
            raise AssertionError("a peer's count of exchanges is not that of the tables")
        self._quotas.check([peer.quota for peer in self._peers.values()])
        if sum(peer.remembered() for peer in self._peers.values()) != self._remembered:
            raise AssertionError("the count of remembered requests is not that of the peers")
        for leaf, peer in self._leaves.items():
            if self._peers.get(peer.address) is not peer or _leaf(peer.address, peer.incarnation) != leaf:
                raise AssertionError(f"a leaf {leaf[0]!r} that is not at its address")
        for address, peer in self._peers.items():
            if not peer.exchanges and address not in self._idle:
                raise AssertionError("an idle peer that no timer forgets")
            if peer.acks and address not in self._acks:
                raise AssertionError("pending acks that no timer sends")


def _items(acks: dict[Stream, InboundStream | tuple[int, int]]) -> list[tuple[bytes, bool, int, int]]:
    return [
        (*stream, *(state.acknowledge() if isinstance(state, InboundStream) else state))
        for stream, state in acks.items()
    ]


def _leaf(address: Address, incarnation: int) -> tuple[str, int]:
    """The name of a leaf, wherever it is attached, and its incarnation, which distinguishes it from others so named."""
    return address.partition("@")[0], incarnation
