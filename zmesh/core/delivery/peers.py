"""What a node keeps for each other node that it has exchanges with: debts of acknowledgement, numbers, the path's time.

Acknowledgements to a peer are collected for ACK_DELAY and then sent together; at once only when a quarter of the window
is used up, or something is amiss. So a small request and its reply are two messages, and what is said about them comes
later, for all of that time at once. (Letting them ride on chunks was tried: reading them there costs each request more
than the frames that it saves.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from zmesh.core import wire
from zmesh.core.delivery.peer_quotas import PeerQuota, PeerQuotas
from zmesh.core.delivery.streams import InboundStream, ReplayWindow, RttEstimator
from zmesh.core.effects import Effect
from zmesh.core.forwarding import NextHop
from zmesh.core.limits import DEFAULT_LIMITS, Limits
from zmesh.core.message import Address, LinkId, NodeId, Stream
from zmesh.core.timers import Alarm, Timers
from zmesh.core.wire import CLOSED, MAX_ACKS, Kind

ACK_DELAY = 0.020
FORGET_PEER = 30.0
POKE_LIMIT = 0
MAX_FORMER = 8


class Carrier(Protocol):
    """What the exchanges need of the engine."""

    node: NodeId
    incarnation: int

    def next_hop(self, destination: Address) -> NextHop | None:
        """How frames for that node leave now, or None."""

    def neighbour(self, link: LinkId) -> NodeId | None:
        """Who is, or lately was, at the other end of a link."""

    def originate(self, destination: Address, kind: Kind, head: bytes, body: bytes, link: LinkId | None = None) -> None:
        """Send a frame, on the link of the NextHop there if that is known already."""

    def emit(self, effect: Effect) -> None:
        """Add an effect to those of the stimulus at hand."""

    def has_left(self, destination: Address) -> bool:
        """Whether that node is known to have left the mesh."""

    def hint(self, destination: Address, now: float) -> str:
        """What may help somebody who can't reach that node."""


class TableFull(Exception):
    """A frame of a peer that is not in the table, and of which no more is remembered. `limit`: what is reached."""

    def __init__(self, limit: str) -> None:
        super().__init__(limit)
        self.limit = limit


class Peer:
    """One other node. `unsettled` are the numbers of requests to it that it has not acknowledged, the lowest first.

    `current` is the incarnation to send to where no route tells it, 0 if that has to be asked for first.
    `acks` is what it will be told of streams: how far they have come by then, or what is written here.
    `former` is what its last incarnations had sent: a late copy of theirs, or two nodes of one name that take turns,
    must not run work again. `share` is what it takes up here.
    """

    __slots__ = (
        "acks",
        "address",
        "busy",
        "current",
        "former",
        "incarnation",
        "left_at",
        "next_number",
        "path",
        "quota",
        "replays",
        "unsettled",
    )

    def __init__(self, address: Address, first_number: int, quota: PeerQuota) -> None:
        self.address = address
        self.incarnation = 0
        self.current = 0
        self.left_at = 0.0
        self.replays = ReplayWindow()
        self.former: dict[int, ReplayWindow] = {}
        self.next_number = first_number
        self.unsettled: dict[int, None] = {}
        self.acks: dict[Stream, InboundStream | tuple[int, int]] = {}
        self.path = RttEstimator()
        self.busy = 0
        self.quota = quota

    def remembered(self) -> int:
        """How many numbers of its requests are remembered."""
        return len(self.replays) + sum(len(replays) for replays in self.former.values())


class Peers:
    """The table of peers; one without exchanges is forgotten after FORGET_PEER seconds.

    A leaf that hangs on another node from now on is the same peer at another address; `on_moved` is told of it, with
    the address that it had, and the time.
    """

    def __init__(
        self,
        carrier: Carrier,
        alarm: Alarm,
        on_moved: Callable[[Peer, Address, float], None],
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._carrier = carrier
        self._on_moved = on_moved
        self._leaves: dict[tuple[str, int], Peer] = {}
        self._peers: dict[Address, Peer] = {}
        self._acks: Timers[Address] = Timers(alarm)
        self._idle: Timers[Address] = Timers(alarm)
        self._highest_number = 0
        self._limits = limits
        self._quotas = PeerQuotas(limits)
        self._remembered = 0
        """Numbers of requests, in all peers together."""
        self._forgotten: dict[tuple[str, int], int] = {}
        """Of peers that were forgotten, by name and incarnation: the number from which on their requests are new."""

    def __len__(self) -> int:
        return len(self._peers)

    def get(self, address: Address, via: NodeId | None = None) -> Peer:
        """The peer at that address, from now on in the table. Its numbers begin above all that were ever given.

        `via`: the neighbour whose frame names it, if it is for that. Raises TableFull if there is no room for it then.
        """
        peer = self._peers.get(address)
        if peer is None:
            limit = self._quotas.peer_limit(via)
            if limit:
                raise TableFull(limit)
            peer = self._peers[address] = Peer(address, self._highest_number, self._quotas.admit(via))
        return peer

    def enter(self, address: Address) -> Peer:
        """An exchange with that peer begins."""
        peer = self.get(address)
        peer.busy += 1
        return peer

    def number(self, peer: Peer) -> int:
        """The number of the next request to that peer."""
        number = peer.next_number
        peer.next_number += 1
        if number >= self._highest_number:
            self._highest_number = number + 1
        peer.unsettled[number] = None
        return number

    def leave(self, peer: Peer, now: float) -> None:
        """An exchange with that peer is over."""
        peer.busy -= 1
        peer.left_at = now
        if not peer.busy:
            self._idle.set_default(peer.address, now + FORGET_PEER)

    def meet(self, source: Address, incarnation: int, now: float, via: NodeId | None = None) -> Peer | None:
        """The peer whose incarnation speaks here; None if that is the voice of one that is no more.

        Raises TableFull if it is not known and there is no room for one more of those that neighbour `via` sends.
        """
        peer = self._peers.get(source)
        if peer is not None and peer.incarnation == incarnation != 0:
            return peer
        leaf = _leaf(source, incarnation)
        if peer is None and leaf in self._leaves:
            return self._move(self._leaves[leaf], source, now)
        peer = self.get(source, via)
        if peer.incarnation:
            next_hop = self._carrier.next_hop(source)
            if next_hop is not None and next_hop.incarnation not in (0, incarnation):
                return None
            self._leaves.pop(_leaf(source, peer.incarnation), None)
            peer.former[peer.incarnation] = peer.replays
            known = peer.former.pop(incarnation, None)
            peer.replays = known if known is not None else self._recall(source, incarnation)
            if len(peer.former) > MAX_FORMER:
                former = next(iter(peer.former))
                self._keep_floor(source, former, peer.former[former])
                self._remembered -= len(peer.former.pop(former))
        elif _leaf(source, incarnation) in self._forgotten:
            self._remembered -= len(peer.replays)
            peer.replays = self._recall(source, incarnation)
        peer.incarnation = peer.current = incarnation
        if "@" in source and incarnation:
            self._leaves[leaf] = peer
        if not peer.busy:
            peer.left_at = now
            self._idle.set_default(source, now + FORGET_PEER)
        return peer

    def _move(self, peer: Peer, address: Address, now: float) -> Peer:
        before, peer.address = peer.address, address
        self._peers[address] = self._peers.pop(before)
        self._acks.cancel(before)
        self._acks.set(address, now + ACK_DELAY)
        self._idle.cancel(before)
        self._idle.set(address, now + FORGET_PEER)
        self._on_moved(peer, before, now)
        return peer

    def accept(self, peer: Peer, number: int, floor: int) -> bool:
        """Remember a request of the peer by its number; False if it has been there before."""
        before = len(peer.replays)
        fresh = peer.replays.accept(number, floor)
        self._remembered += len(peer.replays) - before
        if self._remembered > self._limits.request_numbers:
            self._forget_numbers()
        return fresh

    def _recall(self, address: Address, incarnation: int) -> ReplayWindow:
        """What is known of the requests of an incarnation that is new here, or was forgotten.

        A sender may have been cut off for longer than FORGET_PEER, and send again what has run here long ago.
        """
        return ReplayWindow(self._forgotten.pop(_leaf(address, incarnation), 0))

    def _keep_floor(self, address: Address, incarnation: int, replays: ReplayWindow) -> None:
        """Remember of a peer's requests no more than up to which number they may have been here."""
        floor = replays.end
        if incarnation and floor:
            self._forgotten[_leaf(address, incarnation)] = floor
            if len(self._forgotten) > self._limits.forgotten_peers:
                del self._forgotten[next(iter(self._forgotten))]

    def _forget_numbers(self) -> None:
        """Have the peers with the most numbers take all up to their highest for known, until a quarter is free."""
        for peer in sorted(self._peers.values(), key=Peer.remembered, reverse=True):
            if self._remembered <= self._limits.request_numbers * 3 // 4:
                break
            self._remembered -= peer.remembered()
            for replays in (peer.replays, *peer.former.values()):
                replays.forget()

    def owe(self, peer: Peer, stream: Stream, inbound: InboundStream | None, now: float, *, at_once: bool) -> None:
        """Tell the peer how far a stream has come, at once or after ACK_DELAY; None: that it is not known here."""
        peer.acks[stream] = inbound if inbound is not None else (CLOSED, 0)
        if at_once or len(peer.acks) >= MAX_ACKS:
            self.flush(peer)
        else:
            self._acks.set_default(peer.address, now + ACK_DELAY)

    def poke(self, peer: Peer, stream: Stream, inbound: InboundStream, *, flush: bool = True) -> None:
        """Tell the peer how far a stream has come, and have it answer in turn; at once, or with `flush` of the peer."""
        peer.acks[stream] = (inbound.expected, POKE_LIMIT)
        if flush:
            self.flush(peer)

    def ask(self, peer: Peer, stream: Stream) -> None:
        """Have the peer say which incarnation it is, before anything of this request goes there."""
        peer.acks[stream] = (0, POKE_LIMIT)
        self.flush(peer)

    def flush(self, peer: Peer) -> None:
        """Send all that is owed to the peer; without a way there it is dropped, for the peer will ask again."""
        acks, peer.acks = peer.acks, {}
        if not acks or self._carrier.next_hop(peer.address) is None:
            return
        items = [
            (*stream, *(state.acknowledge() if isinstance(state, InboundStream) else state))
            for stream, state in acks.items()
        ]
        for start in range(0, len(items), MAX_ACKS):
            head = (self._carrier.incarnation, peer.current, items[start : start + MAX_ACKS])
            self._carrier.originate(peer.address, Kind.ACK, wire.encode(head), b"")

    def flush_all(self) -> None:
        """Send all that is owed to anybody."""
        for peer in self._peers.values():
            self.flush(peer)

    def owed(self) -> int:
        """How many acknowledgements wait to be sent."""
        return sum(len(peer.acks) for peer in self._peers.values())

    def next_deadline(self) -> float | None:
        """When `tick` has work."""
        acks, idle = self._acks.next_deadline(), self._idle.next_deadline()
        if acks is None or (idle is not None and idle < acks):
            return idle
        return acks

    def tick(self, now: float) -> None:
        """Send what has waited for long enough, forget who is idle."""
        for address in self._acks.expire(now):
            if address in self._peers:
                self.flush(self._peers[address])
        for address in self._idle.expire(now):
            peer = self._peers.get(address)
            if peer is None or peer.busy:
                continue
            if peer.left_at + FORGET_PEER > now:
                self._idle.set(address, peer.left_at + FORGET_PEER)
            else:
                del self._peers[address]
                self._quotas.release(peer.quota)
                self._remembered -= peer.remembered()
                for incarnation, replays in ((peer.incarnation, peer.replays), *peer.former.items()):
                    self._keep_floor(address, incarnation, replays)
                self._acks.cancel(address)
                self._leaves.pop(_leaf(address, peer.incarnation), None)

    def kept(self) -> dict[str, int]:
        """What others take up here, by the name of its limit."""
        node = self._quotas.node
        return {
            "services": node.requests,
            "kept_bytes": node.kept_bytes,
            "peers": node.peers,
            "request_numbers": self._remembered,
        }

    def check(self, busy: dict[Address, int]) -> None:
        """Raise AssertionError unless `busy` is how many exchanges there are with each peer."""
        if busy != {address: peer.busy for address, peer in self._peers.items() if peer.busy}:
            raise AssertionError("a peer's count of exchanges is not that of the tables")
        self._quotas.check([peer.quota for peer in self._peers.values()])
        if sum(peer.remembered() for peer in self._peers.values()) != self._remembered:
            raise AssertionError("the count of remembered requests is not that of the peers")
        for (name, incarnation), peer in self._leaves.items():
            if self._peers.get(peer.address) is not peer or _leaf(peer.address, peer.incarnation) != (
                name,
                incarnation,
            ):
                raise AssertionError(f"a leaf {name!r} that is not at its address")
        for address, peer in self._peers.items():
            if not peer.busy and address not in self._idle:
                raise AssertionError("an idle peer that nothing will forget")
            if peer.acks and address not in self._acks:
                raise AssertionError("acknowledgements that nothing will send")


def _leaf(address: Address, incarnation: int) -> tuple[str, int]:
    """A leaf by its own name, wherever it hangs; its incarnation tells it from others of that name."""
    return address.partition("@")[0], incarnation
