"""A malicious member: it sends valid HELLOs, PROBEs and ECHOs, and forged updates, records and frames.

What it may send: metrics, seqnos and incarnations of routes that differ from those it received; destinations that do
not exist; records of other nodes, with any serial; seqno requests without need; heads that do not parse; frames with
the source of another node; floods of probes in the names of clients, and of what holds requests back. It may answer
probes wrongly, request full updates again and again, and drop frames that it should forward.

What holds beside it, and is checked: no engine raises, and every engine's tables stay consistent; no packet loops among
honest nodes, since each compares only the metric advertised by its next hop with the one that it advertised itself;
every request ends exactly once, by its deadline; and after the liar has left, the mesh is as if it had never been
there. What does not: routes lead to it that should not, and frames sent there are lost. Where nodes have no identity a
request may be ended with a forged frame of its server, and a member could change payloads and replay frames of others
without being detected; so it does that (SEALED_LIES) only where nodes have one.
"""

from __future__ import annotations

import contextlib
import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from zmesh.core import wire
from zmesh.core.delivery import PROBE_LIMIT
from zmesh.core.message import Address, LinkId, MessageId, NodeId, RequestHeader
from zmesh.core.wire import FIRST_ROUTED, FULL_BEGIN, FULL_END, INFINITY, MAX_ENTRIES, MAX_TTL, U63, Frames, Kind, Row
from zmesh.identity import IdentityKey, Revocation
from zmesh.testing.simnode import SimNode

if TYPE_CHECKING:
    from zmesh.testing.simulator import Simulator

LIES = (
    "metrics",
    "numbers",
    "incarnations",
    "destinations",
    "records",
    "requests",
    "garbage",
    "names",
    "probes",
    "resends",
    "drops",
    "delays",
)
SEALED_LIES = (*LIES, "replays", "changes", "redirections", "heads", "statements")
"""In meshes with identities: frames of others again, with a bit changed, or to others; heads that are sealed properly
and lie; revocations by nobody.
"""
MAX_SEEN = 50
LEAPS = (1, 1000, 1 << 30, 1 << 59, U63)
"""By how much it raises seqnos and serials: values that every node accepts, or that no node accepts.

Whether a node accepts a value in between, near the allowed lead over the clock, depends on its own clock; nodes agree
again after as long as their clocks differ.
"""
PAUSES = (0.05, 0.2, 1.0)
GHOSTS = 20
DELAYS = ("queued", "blocked", "of_a_later_version")
FLOOD = 50
SHARE = 0.5


class Liar(SimNode):
    """A node that sends forgeries of these `kinds` (of LIES), about known nodes and about `ghosts` that don't exist."""

    lies = True
    batches = False

    def __init__(self, sim: Simulator, id: str, options: dict[str, object], kinds: frozenset[str], seed: int) -> None:
        self.kinds = kinds
        self.random = random.Random(seed)
        self.seen: deque[Frames] = deque(maxlen=MAX_SEEN)
        """Frames of other nodes that it has forwarded."""
        self.ghosts = [NodeId(Address(f"ghost-{id}-{number}")) for number in range(GHOSTS)]
        super().__init__(sim, id, options)
        actions: dict[str, Callable[[LinkId], object]] = {
            "records": self._forge_record,
            "requests": self._request,
            "garbage": self._garbage,
            "names": self._forge_source,
            "resends": lambda link: self._send(link, Kind.RESEND, wire.Resend(True, True, True)),
            "replays": self._replay,
            "redirections": self._redirect,
            "delays": self._delay,
            "heads": lambda link: self._forge_source(link, sealed=True),
            "statements": self._state,
        }
        self._actions = [actions[kind] for kind in sorted(kinds & actions.keys())]
        if kinds & {"metrics", "numbers", "incarnations", "destinations"}:
            self._actions.append(self._send_update)
        self._pause = self.random.choice(PAUSES)
        sim.after(self._pause, self._act)

    def transmit(self, link: LinkId, frames: Frames) -> bool:
        """Put frames on a link, forged or dropped according to `kinds`."""
        if len(frames) > 2:  # a HELLO for nodes of version 1
            return super().transmit(link, frames)
        route = wire.decode_packet(frames)
        if route.kind == Kind.UPDATE:
            update = wire.decode_update(route.head)
            frames = wire.encode_update(update._replace(entries=[self._twist(row) for row in update.entries]))
        elif route.kind == Kind.PROBE and "probes" in self.kinds and self._chance():
            probe = wire.decode_probe(route.head)
            frames = wire.encode_link(Kind.PROBE, probe._replace(routes=self._any(), records=self._any()))
        elif route.kind == Kind.ECHO and "probes" in self.kinds and self._chance():
            frames = wire.encode_link(Kind.ECHO, wire.Echo(self.random.choice((0.0, -1e9, 1e17, self.now))))
        elif route.kind >= FIRST_ROUTED and "drops" in self.kinds and route.source != self.id and self._chance():
            return True
        elif route.kind >= FIRST_ROUTED and route.source != self.id:
            self.seen.append(frames)
            if "changes" in self.kinds and self._chance():
                frames = self._change(frames)
        return super().transmit(link, frames)

    def receive(self, link: LinkId, frames: Frames) -> None:
        """Pass nothing on by the FIB, so that `transmit` sees it."""
        self.do(self.engine.receive(link, frames, self.now))

    # -- forgeries ----------------------------------------------------------------------------------------------

    def _act(self) -> None:
        if not self.alive:
            return
        self.sim.after(self._pause * (0.5 + self.random.random()), self._act)
        links = [link.id for link in self.engine.links()]
        if links and self._actions and not self.stopped:
            with contextlib.suppress(wire.WireError):  # it repeats a frame that another liar has changed
                self.random.choice(self._actions)(self.random.choice(links))

    def _send(self, link: LinkId, kind: Kind, head: tuple[object, ...]) -> None:
        super().transmit(link, wire.encode_link(kind, head))

    def _send_update(self, link: LinkId) -> None:
        """Send a full update of forged routes, drawn anew each time."""
        rows: list[Row] = [(self.id, self.engine.incarnation, self.engine.routing.seqno, 0, 0, 0)]
        for to, route in self.engine.routing.routes().items():
            rows.append((to, route.incarnation, route.seqno, route.metric, route.hops, route.excess))
        if "destinations" in self.kinds:
            number = max(0, int(1000 * self.clock.wall()))  # higher each time, so that it is accepted
            for ghost in self.random.sample(self.ghosts, self.random.randint(1, GHOSTS)):
                rows.append((ghost, self._any(), number, self.random.randint(1, 1000), 1, 0))
        rows = [self._twist(row) for row in rows][:MAX_ENTRIES]
        sent = self.engine.routing.sent(link)
        super().transmit(link, wire.encode_update(wire.Update(FULL_BEGIN | FULL_END, sent, rows)))

    def _twist(self, row: Row) -> Row:
        destination, incarnation, seqno, metric, hops, excess = row
        if destination == self.id:
            return row
        if "metrics" in self.kinds and self._chance():
            metric, excess = self.random.choice(((0, 0), (1, 0), (50, 49), (10**6, 0), (INFINITY, 0)))
            hops = self.random.randint(0, 300)
        if "numbers" in self.kinds and self._chance():
            seqno = min(U63, max(0, seqno + self.random.choice((-1, *LEAPS))))
        if "incarnations" in self.kinds and self._chance():
            incarnation = self.random.getrandbits(64)
        return (destination, incarnation, seqno, metric, hops, excess)

    def _forge_record(self, link: LinkId) -> None:
        others = sorted(self.engine.nodes() - {self.id})
        victim = self.random.choice([*others, *self.ghosts[:2]])
        known = self.engine.routing.record(victim)
        serial = min(U63, (known.serial if known else 0) + self.random.choice(LEAPS))
        incarnation = known.incarnation if known and self._chance() else self.random.getrandbits(64)
        beside = tuple((other, 1) for other in others[:3])
        record = wire.Record(victim, incarnation, serial, ("lie:lie",), beside, b"")
        super().transmit(link, wire.encode_records([wire.encode(record)]))

    def _request(self, link: LinkId) -> None:
        victim = self._victim()
        if victim is not None:
            route = self.engine.routing.route(victim)
            seqno = min(U63, (route.seqno if route else 0) + self.random.choice(LEAPS))
            self._send(link, Kind.SEQNO_REQUEST, (wire.SeqnoRequest(victim, seqno, 0, MAX_TTL),))

    def _garbage(self, link: LinkId) -> None:
        noise = self.random.randbytes(self.random.choice((0, 1, 20, 300)))
        kind = self.random.choice(list(Kind))
        victim = self._victim()
        match self.random.randrange(4):
            case 0:
                super().transmit(link, (noise, noise, b""))
            case 1 if kind < FIRST_ROUTED and kind != Kind.GOODBYE:
                super().transmit(link, wire.encode_packet(kind, "", "", noise, b""))
            case 2 if victim is not None:
                routed = max(kind, Kind.CHUNK)
                super().transmit(link, wire.encode_packet(Kind(routed), victim, self.id, noise, noise))
            case _:
                super().transmit(link, (wire.encode_link(Kind.UPDATE)[0][:12] + noise,))

    def _replay(self, link: LinkId) -> None:
        """Send a frame again that it has passed on, with a ttl that it may not have had."""
        if self.seen:
            first, *rest = self.random.choice(self.seen)
            super().transmit(link, (first[:3] + b"\xf0" + first[4:], *rest))

    def _change(self, frames: Frames) -> Frames:
        """The frame with a bit of its head or its body changed."""
        first = bytearray(frames[0])
        start = wire.HEADER_BYTES + first[4] + first[5]
        if start == len(first):  # of a liar that has made up a frame without either
            return frames
        at = self.random.randrange(start, len(first))
        first[at] ^= 1 << self.random.randrange(8)
        return (bytes(first), *frames[1:])

    def _redirect(self, link: LinkId) -> None:
        """Send what was sealed for one node to another one, or in the name of another one."""
        others = sorted(self.engine.nodes())
        if not self.seen or not others:
            return
        route = wire.decode_packet(self.random.choice(self.seen))
        addresses = [str(route.destination), str(route.source)]
        addresses[self.random.randrange(2)] = self.random.choice(others)
        kind = self.random.choice((route.kind, Kind.CHUNK, Kind.ACK))
        super().transmit(link, wire.encode_sealed(kind, addresses[0], addresses[1], route.head, route.body))

    def _delay(self, link: LinkId) -> None:
        """Say of a request of others that something holds it back, or probe for it in its client's name; many times."""
        if not self.seen:
            return
        route = wire.decode_packet(self.random.choice(self.seen))
        if self.random.random() < SHARE and route.kind == Kind.CHUNK and not route.sealed:
            chunk = wire.decode_chunk(route.head)
            items = (wire.AckItem(chunk.message_id, False, 0, PROBE_LIMIT),)
            head = wire.encode(wire.Ack(chunk.incarnation, chunk.target, items))
            frames = wire.encode_packet(Kind.ACK, route.destination, route.source, head, b"")
        else:
            reason, text = self.random.choice(DELAYS), self.random.choice(("", "\x1b[2J", "x" * wire.MAX_TEXT))
            at, settled = NodeId(wire.host_of(route.destination)), self.random.choice((0.0, -1e9, 1e17))
            note = wire.Unreachable(route.kind, reason, at, route.destination, (), settled, text)
            head = wire.encode(note)
            frames = wire.encode_packet(Kind.UNREACHABLE, route.source, self._any_name(at), head, route.head)
        for _ in range(self.random.choice((1, FLOOD))):
            super().transmit(link, frames)

    def _any_name(self, other: NodeId) -> NodeId:
        return other if self._chance() else self.id

    def _state(self, link: LinkId) -> None:
        """Send a revocation of another node that no authority has signed."""
        victim, now = self._victim() or self.id, int(self.clock.wall())
        revocation = Revocation.sign(IdentityKey.from_seed(self.random.randbytes(32)), victim, now, now + 9**9)
        noise = self.random.randbytes(90)
        data = self.random.choice((b"r" + revocation.encode(), b"e" + noise, noise))
        super().transmit(link, *wire.encode_statements([data]))

    def _forge_source(self, link: LinkId, *, sealed: bool = False) -> None:
        """Send a frame in the name of another node, known or not; or `sealed` for its recipient, in its own name."""
        others = sorted(self.engine.nodes() - {self.id})
        if not others:
            return
        victim, source = self.random.choice(others), self.random.choice([*others, self.ghosts[0]])
        target, of = (self.engine.routing.record(node) for node in (victim, source))
        mine, theirs = of.incarnation if of else self._any(), target.incarnation if target else 0
        message_id = MessageId(self.random.randbytes(16))
        number = self.random.choice((0, 1, 5, 1000, 1 << 40))
        floor = self.random.choice((0, number))
        head: tuple[object, ...]
        kind = self.random.choice((Kind.CHUNK, Kind.CHUNK, Kind.ACK, Kind.CANCEL, Kind.UNREACHABLE))
        match kind:
            case Kind.CHUNK:
                header = RequestHeader("work:echo", 0.0, None)
                flags = wire.FLAG_FIRST | self.random.choice((0, wire.FLAG_LAST))
                head = wire.Chunk(message_id, True, 0, flags, number, floor, mine, theirs, header, None)
            case Kind.ACK:
                items = (wire.AckItem(message_id, True, self.random.choice((0, 7, wire.CLOSED)), 0),)
                head = wire.Ack(mine, theirs, items)
            case Kind.CANCEL:
                head = wire.Cancel(message_id, True, number, floor, mine, theirs)
            case _:
                head = wire.Unreachable(Kind.CHUNK, "no_route", source, victim, (), 0.0)
        sealing = self.engine.forwarding.sealing
        if sealed and sealing is not None:
            own, body = Address(self.id), self.random.choice((b"", b"lie"))
            content = sealing.seal(kind, Address(victim), own, wire.encode(head), body)
            if content is not None:
                super().transmit(link, wire.encode_sealed(kind, victim, own, *content))
            return
        super().transmit(link, wire.encode_packet(kind, victim, source, wire.encode(head), b""))

    # -- inside --------------------------------------------------------------------------------------------------

    def _victim(self) -> NodeId | None:
        others = sorted(self.engine.nodes() - {self.id})
        return self.random.choice(others) if others else None

    def _chance(self) -> bool:
        return self.random.random() < SHARE

    def _any(self) -> int:
        return self.random.getrandbits(self.random.choice((1, 32, 63)))
